"""WiSE-FT on ImageNet and its five shifts: ViT-B/16 fine-tuned on all of ImageNet, mixed with its zero-shot weights.

Command: python -m bench.sweep launch sweeps/wise_ft_imagenet.py --data-dir DATA
Table:   python -m bench.collect results/wise_ft_imagenet --format text --selection last --all-predictors
         python -m bench.collect results/wise_ft_imagenet --reference --selection last
Cost:    6 trials, 3 of them trained, with 12.8 million images each: about 25 GPU hours with the grid of eleven alpha, if
         a GPU trains on 500 images a second and tests 1,500 (estimated, not measured).
Numbers: ImageNet | V2 R A Sketch ObjectNet | mean of the five, alpha = 0.5: 81.7 | 72.8 78.7 52.2 53.9 57.3 | 63.0
         (R-Adapter's run); alpha by ImageNet's validation: 82.5 | 73.1 75.1 47.6 51.6 55.7 | 60.6 (VRF's run);
         zero-shot 68.3 | 61.9 77.7 50.0 48.3 54.0 | 58.4. WiSE-FT crops between 0.9 and 1 of an image, this harness
         between 0.7 and 1, as for all methods. "WiSE-FT[alpha=1]" is plain fine-tuning.
"""

from bench.sweepfile import Sweep

SHIFTS = ("ImageNetV2", "ImageNet-R", "ImageNet-A", "ImageNet-Sketch", "ObjectNet")
BATCH = 512
UPDATES = 10 * (1_281_167 // BATCH)
"""Ten epochs."""


def trials() -> Sweep:
    """Give the sweep; ImageNet has no images to select on, so the start and the end are evaluated."""
    return Sweep(
        protocol="transfer",
        options={"shots": "all"},
        algorithms=("ZeroShot", "WiSE-FT"),
        datasets=("ImageNet",),
        transfer_to=SHIFTS,
        backbone="ViT-B-16",
        pretrained="openai",
        n_trials=3,
        steps=UPDATES,
        evaluate_every=UPDATES,
        hparams={"prompt": "ensemble80", "batch_size": BATCH, "lr": 3e-5, "warmup": 500, "alpha": 0.5},
    )
