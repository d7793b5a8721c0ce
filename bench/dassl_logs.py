"""Logs of Dassl, the trainer behind CoOp, CoCoOp, MaPLe, PromptSRC and others: what one `log.txt` says.

A log begins with the arguments and the configuration (yacs), and ends with what was evaluated last:

    => result
    * total: 4,002
    * correct: 3,567
    * accuracy: 89.1%
    * error: 10.9%
    * macro_f1: 88.6%

As in CoOp's `parse_test_res.py`, of a training that counts which stands last after "Finish training", of an evaluation
(`--eval-only`) the last result. Where the configuration is missing (cut logs), the path says what it can:
`…/train_base/DATASET/shots_16/METHOD/CONFIG/seed1/log.txt`. Makes no records: that is `bench.dassl_records`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

NO_LOG = "no log of Dassl's"
"""Why another program's log.txt counts for nothing."""
_DATASETS = {
    "describabletextures": "DTD",
    "imagenetsketch": "ImageNet-Sketch",
    "imagenetv2": "ImageNetV2",
    "imageneta": "ImageNet-A",
    "imagenetr": "ImageNet-R",
    "imagenet": "ImageNet",
    "officehomedg": "OfficeHome",
    "caltech101": "Caltech101",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "fgvcaircraft": "FGVCAircraft",
    "food101": "Food101",
    "oxfordflowers": "OxfordFlowers",
    "oxfordpets": "OxfordPets",
    "stanfordcars": "StanfordCars",
    "sun397": "SUN397",
    "ucf101": "UCF101",
}
"""Names in configurations and in CoOp's paths, in small letters without `_` and `-`, → ours."""

_PATH = re.compile(
    r"(?:^|/)(?P<part>train|test)_(?P<classes>base|new)/(?P<dataset>[^/]+)/shots_(?P<shots>\d+)/(?P<method>[^/]+)/"
    r"(?P<config>.+)/seed(?P<seed>\d+)/[^/]+$"
)
_SEED_IN_PATH = re.compile(r"(?:^|/)seed(\d+)/[^/]+$")
_RESULT = re.compile(r"^\* (total|correct|accuracy|macro_f1): ([\d.,eE+-]+)%?\s*$", re.M)
_SPLIT = re.compile(r"^(?:Evaluate on the \*?(\w+)\*? set|Do evaluation on (\w+) set)", re.M)
_FINISHED = re.compile(r"^Finish(?:ed)? training\b", re.M)
_ARGUMENT = re.compile(r"^(\w+): (.*)$")
_SETTING = re.compile(r"^( *)(\w+):(?: (.*))?$")


class Log(NamedTuple):
    """One log, as far as it could be read.

    Attributes:
        path: of the file.
        problem: why it counts for nothing; empty where it does.
        dataset: the data set, in our spelling where we have it.
        method: name of the trainer.
        config: name of the trainer's configuration file, with settings from the command line that are the trainer's.
        backbone: as configured, e.g. "ViT-B/16"; empty where not told.
        is_clip: whether the log says that CLIP's own weights were loaded.
        classes: "all", "base" or "new".
        shots: training images a class; 0 where all, or where there was no training.
        seed: the seed; None where none was fixed.
        is_training: whether the run trained, or evaluated what another run had trained.
        output: folder that the run wrote to, as it was called there.
        model: folder that an evaluation took the model from, likewise; empty where from none.
        sources: domains trained on, where the data set has domains.
        targets: domains tested on.
        accuracy: in 0..1.
        macro_f1: in 0..1; None where not told.
    """

    path: str
    problem: str = ""
    dataset: str = ""
    method: str = ""
    config: str = ""
    backbone: str = ""
    is_clip: bool = False
    classes: str = "all"
    shots: int = 0
    seed: int | None = None
    is_training: bool = True
    output: str = ""
    model: str = ""
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    accuracy: float = 0.0
    macro_f1: float | None = None


def read_log(path: str) -> Log:
    """Read one log."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        return Log(path, f"not readable ({error.strerror})")
    try:
        return _read(path, text)
    except (ValueError, ZeroDivisionError):
        return Log(path, "with a damaged number")


def _read(path: str, text: str) -> Log:
    arguments, settings = _head(text)
    from_path = _PATH.search(path)
    told = from_path.groupdict() if from_path is not None else {}
    is_training = _is_training(text, arguments, told)
    finished = _FINISHED.search(text)
    if is_training and finished is None:
        return Log(path, "of a training that did not finish" if settings or told else NO_LOG)
    after = text[finished.end() if finished is not None and is_training else 0 :]
    result = _result(after)
    if result is None:
        return Log(path, "without a result" if settings or told else NO_LOG)
    splits = _SPLIT.findall(after)
    if splits and "val" in splits[-1]:
        return Log(path, "whose last result is of validation images")
    dataset = settings.get("DATASET.NAME") or told.get("dataset")
    method = settings.get("TRAINER.NAME") or told.get("method")
    if not dataset or not method:
        return Log(path, "that do not say which data set and method they are of")
    accuracy, macro_f1 = result
    return Log(
        path=path,
        dataset=our_name(dataset) or dataset,
        method=method,
        config=_config(arguments, told),
        backbone=settings.get("MODEL.BACKBONE.NAME", ""),
        is_clip="Loading CLIP (" in text,
        classes=settings.get("DATASET.SUBSAMPLE_CLASSES") or told.get("classes") or "all",
        shots=max(0, int(settings.get("DATASET.NUM_SHOTS") or told.get("shots") or 0)),
        seed=_seed(path, settings),
        is_training=is_training,
        output=settings.get("OUTPUT_DIR", "").strip("/"),
        model=arguments.get("model_dir", "").strip("/"),
        sources=_names(settings.get("DATASET.SOURCE_DOMAINS", "")),
        targets=_names(settings.get("DATASET.TARGET_DOMAINS", "")),
        accuracy=accuracy,
        macro_f1=macro_f1,
    )


def our_name(dataset: str) -> str:
    """Give our name of a data set of CoOp's, however it is written; empty where it is none of them."""
    return _DATASETS.get(re.sub("[-_]", "", dataset.lower()), "")


def _head(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Read arguments and configuration; the latter under dotted names. Empty where the log has none."""
    _, _, rest = text.partition("** Arguments **")
    arguments_text, _, rest = rest.partition("** Config **")
    config_text = rest.partition("Collecting env info")[0]
    arguments = {match[1]: match[2].strip() for line in arguments_text.splitlines() if (match := _ARGUMENT.match(line))}
    settings: dict[str, str] = {}
    names: list[tuple[int, str]] = []
    for line in config_text.splitlines():
        match = _SETTING.match(line)
        if match is None:
            continue
        depth = len(match[1])
        names = [each for each in names if each[0] < depth] + [(depth, match[2])]
        if match[3] is not None:
            settings[".".join(name for _, name in names)] = match[3].strip().strip("'\"")
    return arguments, settings


def _is_training(text: str, arguments: dict[str, str], told: dict[str, Any]) -> bool:
    if "eval_only" in arguments:
        return arguments["eval_only"] != "True"
    return _FINISHED.search(text) is not None or told.get("part") == "train"


def _result(text: str) -> tuple[float, float | None] | None:
    """Give accuracy and macro F1 of the last result; None where there is none that is whole.

    The accuracy is correct / total where both are told: the log rounds the quotient to a tenth of a percent.
    """
    _, found, last = text.rpartition("=> result")
    told = {name: float(value.replace(",", "")) for name, value in _RESULT.findall(last)} if found else {}
    if "accuracy" not in told:
        return None
    is_exact = "correct" in told and told.get("total", 0) > 0
    accuracy = told["correct"] / told["total"] if is_exact else told["accuracy"] / 100
    return accuracy, told["macro_f1"] / 100 if "macro_f1" in told else None


def _config(arguments: dict[str, str], told: dict[str, Any]) -> str:
    """Name what else the trainer was told: its file, and its settings on the command line."""
    if "config_file" not in arguments:
        return str(told.get("config") or "")
    name = arguments["config_file"].rpartition("/")[2].rpartition(".")[0]
    words = re.findall(r"'([^']*)'", arguments.get("opts", ""))
    pairs = zip(words[::2], words[1::2])
    return ",".join(
        [name, *(f"{key.rpartition('.')[2]}={value}" for key, value in pairs if key.startswith("TRAINER."))]
    )


def _seed(path: str, settings: dict[str, str]) -> int | None:
    told = settings.get("SEED", "")
    if told.isdecimal():
        return int(told)
    match = _SEED_IN_PATH.search(path)
    return int(match[1]) if match is not None else None


def _names(words: str) -> tuple[str, ...]:
    """Read a tuple or list of names as yacs prints it: `('art_painting', 'cartoon')`, `[]`, or one a line lost."""
    return tuple(re.findall(r"['\"]([^'\"]+)['\"]", words))
