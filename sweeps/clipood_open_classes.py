"""CLIPood's open-class experiment: base to new classes on CoOp's eleven data sets, ViT-B/16, 16 shots, three trials.

Command: python -m bench.sweep launch sweeps/clipood_open_classes.py --data-dir DATA
Table:   python -m bench.collect results/clipood_open_classes --format text --selection last
         python -m bench.collect results/clipood_open_classes --reference --selection last
Cost:    66 trials, 33 of them trained, with 2.1 million images in all: about 2 GPU hours, if a GPU trains on 500 images a
         second (estimated, not measured).
Numbers: Shu et al., CLIPood, ICML 2023, as CLIP-CITE and RMAdapter quote it,
         base / new / H, mean over the eleven: CLIPood 83.9 / 74.5 / 78.9, zero-shot
         69.3 / 74.2 / 71.7. The shots are CoOp's seeds 1, 2 and 3; CLIPood's code runs seed 0 alone (`--options
         '{"first_seed": 0}' --n-trials 1`), and validates ImageNet on its test images, which this does not.
"""

from bench.sweepfile import Sweep

UPDATES = {
    5000: ("ImageNet", "FGVCAircraft"),
    2500: ("StanfordCars", "SUN397"),
    1000: ("UCF101",),
    500: ("Caltech101", "OxfordPets", "Flowers102", "Food101", "DTD", "EuroSAT"),
}
"""The published script's epochs, of 500 updates each."""


def trials() -> list[Sweep]:
    """Give one sweep for each number of updates; batch, margin and beta are the published script's."""
    return [
        Sweep(
            protocol="base_to_new",
            algorithms=("ZeroShot", "CLIPood"),
            datasets=datasets,
            backbone="ViT-B-16",
            pretrained="openai",
            n_trials=3,
            steps=steps,
            evaluate_every=steps,
            hparams={"batch_size": 36, "lr": 5e-6, "margin_lambda": 0.3, "beta": 0.1},
        )
        for steps, datasets in UPDATES.items()
    ]
