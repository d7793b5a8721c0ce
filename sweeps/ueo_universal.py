"""UEO's four settings on its fifteen domains, with ResNet-50 and ViT-B/16, three trials.

Command: python -m bench.sweep launch sweeps/ueo_universal.py --data-dir DATA
Table:   python -m bench.collect results/ueo_universal --format text
Cost:    720 trials, 360 of them trained, with 96 million images in all: about 55 GPU hours, if a GPU trains on 500 images
         a second (estimated, not measured). `--algorithms ZeroShot UEO InfoMax` adds the ablation without weights.
Numbers: Liang et al., UEO, ICML 2024; its tables were not to be had. To expect: per-class accuracy above ZeroShot's, AUROC
         not a point below. The published code counts epochs: 50, on DomainNet 5. Here all domains of a data set have the
         same number of updates, those of the closed setting on average; VisDA-C, as large as DomainNet, has 5 epochs too
         (our choice). Trials differ in batches and augmentation alone; the published code has one seed.
"""

from bench.protocols.universal import SETTINGS
from bench.sweepfile import Sweep

UPDATES = {"Office31": 900, "OfficeHome": 2350, "VisDA-C": 5400, "DomainNet": 6650}
BACKBONES = {"RN50": {"norm_layers": "published"}, "ViT-B-16": {"norm_layers": "all"}}
"""In ResNets the published code leaves out the batch norms of the down-sampling branches."""


def trials() -> list[Sweep]:
    """Give one sweep for each backbone, data set and setting; nothing is selected: the start and the end are evaluated."""
    return [
        Sweep(
            protocol="universal",
            options={"setting": setting},
            algorithms=("ZeroShot", "UEO"),
            datasets=(dataset,),
            backbone=backbone,
            pretrained="openai",
            n_trials=3,
            steps=steps,
            evaluate_every=steps,
            hparams={"batch_size": 64, "lr": 1e-4, "lr_affine": 1e-4, **hparams},
        )
        for backbone, hparams in BACKBONES.items()
        for dataset, steps in UPDATES.items()
        for setting in SETTINGS
    ]
