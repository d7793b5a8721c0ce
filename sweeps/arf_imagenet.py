"""ARF's two settings in one: ViT-B/16 fine-tuned on ImageNet, tested on its five shifts and, zero-shot, on ten data sets.

Command: python -m bench.sweep launch sweeps/arf_imagenet.py --data-dir DATA --captions CAPTIONS.tsv --pool CC3M.tsv
Table:   python -m bench.collect results/arf_imagenet --format text --selection last
         python -m bench.collect results/arf_imagenet --reference --selection last
Cost:    6 trials, 3 of them trained, with 12.8 million images each and as many retrieved ones: about 60 GPU hours, if a
         GPU trains on 400 pairs a second (estimated, not measured). Captions for ImageNet (`python -m bench.caption`) and
         the features of the pool come before that.
Numbers: Han et al., ARF, CVPR 2024, as DiVE and ReCalCon quote it,
         ImageNet | V2 R A Sketch ObjectNet | mean: 82.7 | 72.8 75.6 50.3 51.8 55.8 | 61.3, and
         on the ten data sets 55.6 on average (zero-shot CLIP 63.2, FLYP 49.5). The weights of the three terms, the number
         of pairs and the captioner's settings were never published, so these are ours; FLYP is
         `--hparams '{"w_cap": 0, "w_ret": 0}'`. A pool like CC3M is needed: the built-in one holds icons.
"""

from bench.sweepfile import Sweep

SHIFTS = ("ImageNetV2", "ImageNet-R", "ImageNet-A", "ImageNet-Sketch", "ObjectNet")
OTHERS = (
    *("Caltech101", "Flowers102", "Food101", "SUN397", "DTD", "FGVCAircraft", "StanfordCars", "OxfordPets", "EuroSAT"),
    "UCF101",
)
BATCH = 512
UPDATES = 10 * (1_281_167 // BATCH)
"""Ten epochs."""


def trials() -> Sweep:
    """Give the sweep; recipe and numbers of updates are FLYP's."""
    return Sweep(
        protocol="transfer",
        options={"shots": "all"},
        algorithms=("ZeroShot", "ARF"),
        datasets=("ImageNet",),
        transfer_to=(*SHIFTS, *OTHERS),
        backbone="ViT-B-16",
        pretrained="openai",
        n_trials=3,
        steps=UPDATES,
        evaluate_every=UPDATES,
        hparams={"prompt": "ensemble80", "batch_size": BATCH, "lr": 1e-5, "weight_decay": 0.1, "warmup": 500},
    )
