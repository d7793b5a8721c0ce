"""Lines that DomainBed writes, read as records; and what its data sets, domains and algorithms are called.

Facts of DomainBed at b93c22a (December 2024): the order of its data sets and algorithms, its environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.selection import DEFAULT_PROTOCOL, count_domains

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "Debug28": ("0", "1", "2"),
    "Debug224": ("0", "1", "2"),
    "ColoredMNIST": ("+90%", "+80%", "-90%"),
    "RotatedMNIST": ("0", "15", "30", "45", "60", "75"),
    "VLCS": ("C", "L", "S", "V"),
    "PACS": ("A", "C", "P", "S"),
    "OfficeHome": ("A", "C", "P", "R"),
    "TerraIncognita": ("L100", "L38", "L43", "L46"),
    "DomainNet": ("clip", "info", "paint", "quick", "real", "sketch"),
    "SVIRO": ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
    "WILDSCamelyon": tuple(f"hospital_{i}" for i in range(5)),
    "WILDSFMoW": tuple(f"region_{i}" for i in range(6)),
    **{
        f"Spawrious{kind}_{level}": ("Test", "SC_group_1", "SC_group_2")
        for kind in ("O2O", "M2M")
        for level in ("easy", "medium", "hard")
    },
}
"""Short names of the domains of DomainBed's data sets; both in DomainBed's order."""

# fmt: off
ALGORITHMS = (
    "ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL",
    "SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM",
    "IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM",
)
# fmt: on
"""DomainBed's algorithms in the order of its tables."""


def is_line(line: Mapping[str, Any]) -> bool:
    """Say whether a line of a records file was written by DomainBed."""
    return isinstance(line.get("args"), Mapping)


def is_done(folder: Path) -> bool:
    """Say whether a run folder of DomainBed's is finished: it holds the file `done`, which is written last."""
    return (folder / "done").exists()


def as_record(line: Mapping[str, Any], trial: str) -> dict[str, Any]:
    """Turn a line of DomainBed's into a flat record.

    DomainBed records neither backbone nor code version nor data digest, so the record has none. A run with
    `task=domain_adaptation` saw unlabelled images of the held-out domain, apart from those reported on. A line that
    CLIPBed exported has all that it had, its number of updates as its step.

    Raises:
        KeyError: the line lacks what every record of DomainBed's has.
    """
    args = line["args"]
    record = {key: value for key, value in line.items() if key not in ("args", "hparams", "clipbed")}
    record |= {
        "protocol": DEFAULT_PROTOCOL,
        "dataset": args["dataset"],
        "algorithm": args["algorithm"],
        "predictor": args["algorithm"],
        "test_domains": list(args["test_envs"]),
        "trial_seed": args["trial_seed"],
        "hparams_seed": args["hparams_seed"],
        "trial": trial,
    }
    ours = line.get("clipbed")
    if isinstance(ours, Mapping):
        return {**record, **ours, "step": int(record["step"]) + 1}
    if args.get("task") == "domain_adaptation":
        record["unlabeled"] = "uda"
    names = ENVIRONMENTS.get(args["dataset"], ())
    if names and len(names) == count_domains(record):
        record["domains"] = list(names)
    return record
