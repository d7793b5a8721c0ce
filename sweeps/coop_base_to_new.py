"""CoOp from base to new classes, as CoCoOp's paper runs it: eleven data sets, ViT-B/16, 16 shots, seeds 1, 2 and 3.

Command: python -m bench.sweep launch sweeps/coop_base_to_new.py --data-dir DATA
Table:   python -m bench.collect results/coop_base_to_new --format text --selection last
         python -m bench.collect results/coop_base_to_new --reference --selection last
Cost:    66 trials, 33 of them trained, of 215,100 updates in all: about 6 GPU hours at a tenth of a second each
         (estimated, not measured; most of it is the text tower of many classes).
Numbers: Zhou et al., CoCoOp, CVPR 2022, as CLIP-CITE and RMAdapter quote it,
         base / new / H, mean of the eleven: CoOp 82.7 / 63.2 / 71.7, zero-shot
         69.3 / 74.2 / 71.7. Later papers' runs of CoOp give new classes up to 68.0, with shorter training.
"""

from bench.sweepfile import Sweep

SHOTS, BATCH = 16, 32
BASE_CLASSES = {
    "ImageNet": 500,
    "Caltech101": 50,
    "OxfordPets": 19,
    "StanfordCars": 98,
    "Flowers102": 51,
    "Food101": 51,
    "FGVCAircraft": 50,
    "SUN397": 199,
    "DTD": 24,
    "EuroSAT": 5,
    "UCF101": 51,
}


def trials() -> list[Sweep]:
    """Give one sweep for each data set: 200 epochs (ImageNet: 50), whose last batch is left out unless it is full."""
    sweeps = []
    for dataset, classes in BASE_CLASSES.items():
        epochs = 50 if dataset == "ImageNet" else 200
        steps = epochs * (classes * SHOTS // BATCH)
        sweeps.append(
            Sweep(
                protocol="base_to_new",
                options={"shots": str(SHOTS)},
                algorithms=("ZeroShot", "CoOp"),
                datasets=(dataset,),
                backbone="ViT-B-16",
                pretrained="openai",
                n_trials=3,
                steps=steps,
                evaluate_every=steps,
                hparams={"ctx_init": "a photo of a", "n_ctx": 4, "epochs": epochs, "batch_size": BATCH},
            )
        )
    return sweeps
