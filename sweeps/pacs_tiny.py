"""Seven methods on PACS with the embedded backbone: each domain held out, two trials, defaults.

Command: python -m bench.sweep launch sweeps/pacs_tiny.py --data-dir DATA
Table:   python -m bench.collect results/pacs_tiny --format text
Cost:    56 trials; ZeroShot takes seconds, the others 100 updates of 36 images, on two cores a minute or two each.
Numbers: zero-shot accuracy of `tiny` on PACS is in its model card (docs/tiny.md); the README's table has the rest,
         of a copy of PACS with 144 px at the short side.
"""

from bench.sweepfile import Sweep


def trials() -> Sweep:
    """Give the sweep."""
    return Sweep(
        algorithms=("ZeroShot", "ERM", "CoOp", "WiSE-FT", "CLIPood", "ARF", "UEO"),
        datasets=("PACS",),
        n_trials=2,
    )
