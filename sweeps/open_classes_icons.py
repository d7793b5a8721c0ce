"""Base to new classes and in the wild on Icons, with the embedded backbone: six methods, three trials.

Command: python -m bench.sweep launch sweeps/open_classes_icons.py
Table:   python -m bench.collect results/open_classes_icons --format text --selection last
Cost:    90 trials, 75 of them trained, of 25 updates of 24 to 48 images. WiSE-FT is evaluated at its
         recommended alpha = 0.5 alone, without the grid.
Numbers: papers have none for this data set and backbone. `tiny` saw icons of the same families when it was pre-trained,
         so its zero-shot accuracy is not clean; what to look at is how much of the new classes' accuracy a method keeps.
         The papers report the last step, so the table does.
"""

from bench.sweepfile import Sweep

METHODS = ("ZeroShot", "CoOp", "ERM", "WiSE-FT", "CLIPood", "ARF")


def trials() -> list[Sweep]:
    """Give both sweeps; of 18 images a class and domain, 40 % are tested on in base to new, and four are trained on."""
    return [
        Sweep(
            protocol="base_to_new",
            options={"shots": "4"},
            algorithms=METHODS,
            n_trials=3,
            steps=25,
            evaluate_every=25,
            holdout_fraction=0.4,
            hparams={"grid": False},
        ),
        Sweep(
            protocol="in_the_wild",
            algorithms=METHODS,
            n_trials=3,
            steps=25,
            evaluate_every=25,
            hparams={"grid": False},
        ),
    ]
