"""UEO's four settings on Office31 with the embedded backbone: each domain, three trials.

Command: python -m bench.sweep launch sweeps/universal_office31.py --data-dir DATA
Table:   python -m bench.collect results/universal_office31 --format text
Cost:    108 trials, 72 of them trained, of 25 updates of 36 images.
Numbers: Liang et al., ICML 2024, have none for this backbone. What to look at: whether UEO gains accuracy over ZeroShot
         without losing AUROC, and what its weights add to InfoMax, the ablation `noweight`. The unlabelled images are
         among the tested ones, as in the paper, so the rows are marked [t].
"""

from bench.protocols.universal import SETTINGS
from bench.sweepfile import Sweep


def trials() -> list[Sweep]:
    """Give one sweep for each setting; nothing is selected, so only the start and the end are evaluated."""
    return [
        Sweep(
            protocol="universal",
            options={"setting": setting},
            algorithms=("ZeroShot", "UEO", "InfoMax"),
            datasets=("Office31",),
            n_trials=3,
            steps=25,
            evaluate_every=25,
        )
        for setting in SETTINGS
    ]
