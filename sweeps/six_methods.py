"""A paper's sweep: six methods on PACS, OfficeHome and DomainNet with CLIP ViT-B/16, three trials, made for a cluster.

Command: python -m bench.sweep launch sweeps/six_methods.py --data-dir DATA --launcher slurm
Table:   python -m bench.collect results/six_methods --format text
Cost:    252 trials (3 seeds, 14 held-out domains, 6 methods). 210 are trained, for 5000 updates, on DomainNet 10000; the
         other 42 are zero-shot. GPU hours are not known here: after `launch --first 60` has finished, which has every
         method on PACS and OfficeHome, `launch --dry-run` estimates what is left of these from what they took.
Numbers: reported in the literature for ViT-B/16, PACS / OfficeHome / DomainNet: zero-shot 96.2 / 82.0 / 57.5,
         ERM 96.1 / 83.3 / 59.9 (DISAM's runs), CoOp 96.2 / 83.9 / 59.8, CLIPood 97.3 / 87.0 / 63.5 (as quoted there).
         WiSE-FT and UEO have none on these splits. The published codes differ from DomainBed's protocol in their splits,
         so expect differences.
"""

from bench.sweepfile import Sweep


def trials() -> Sweep:
    """Give the sweep; steps and hparams are the methods' own defaults for these data sets."""
    return Sweep(
        algorithms=("ZeroShot", "ERM", "CoOp", "WiSE-FT", "CLIPood", "UEO"),
        datasets=("PACS", "OfficeHome", "DomainNet"),
        backbone="ViT-B-16",
        pretrained="openai",
        n_trials=3,
    )
