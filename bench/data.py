"""`python -m bench.data VERB`: what data sets are there, whether they are whole, how to get and to look at them."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import console
from bench.command import exit_code, from_one
from bench.dataset import DatasetInfo, find_dataset
from bench.errors import BenchError, DataMissing, SpecError
from bench.options import normalised
from bench.registry import datasets
from bench.spec import Places

_EXAMPLES = """examples:
  python -m bench.data status --data-dir DATA
  python -m bench.data verify PACS Office31 --data-dir DATA
  python -m bench.data download Food101 --data-dir DATA
  python -m bench.data cache PACS --data-dir DATA --backbone ViT-B-16
  python -m bench.data cache --clear --older-than 30
  python -m bench.data show PACS --data-dir DATA --out pacs.png
"""
WRONG = 1
"""Exit code where a data set is not there or not whole."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code: 0, 1 where data are missing or wrong, 2 where the input is no good."""
    options = _parser().parse_args(normalised(sys.argv[1:] if arguments is None else arguments))
    return exit_code(
        "data", lambda: int(options.verb(options)), interrupted="interrupted; the same command goes on from here"
    )


def status(options: argparse.Namespace) -> int:
    """Show which data sets are there, how many images they have, and in which version."""
    from bench.verify import look

    names = options.names or [name for name in datasets if isinstance(datasets[name], DatasetInfo)]
    rows, told = [], []
    for info, places in _chosen(names, options):
        report = look(info, places)
        dataset = report.dataset
        images = sum(len(domain.files) for domain in dataset.domains) if dataset else 0
        number = f"{images:,}" if dataset else ""
        published = sum(info.published(dataset)) if dataset else sum(info.counts) or info.total
        splits = ", ".join(dataset.splits) if dataset else ""
        where = str(dataset.domains[0].root) if dataset else ""
        version = dataset.version if dataset else ""
        rows.append([info.name, report.state, number, f"{published:,}" if published else "?", version, splits, where])
        lines = [*report.problems, *report.remarks] if options.names or not report.is_absent else []
        told += [line if line.startswith(info.name) else f"{info.name}: {line}" for line in lines]
    console.say(console.table(rows, ["data set", "state", "images", "published", "version", "splits", "folder"]))
    if told:
        console.say("\n" + "\n".join(told))
    if not options.names:
        console.say("\n`status NAME` says what is missing; `verify NAME` reads every file")
    return WRONG if options.names and any(row[1] in ("absent", "incomplete") for row in rows) else 0


def verify(options: argparse.Namespace) -> int:
    """Read every file: counts, bytes, decoding."""
    from bench import manifests
    from bench import verify as verification

    chosen = _chosen(options.names, options)
    if (options.manifest or options.write_manifest) and len(chosen) > 1:
        raise SpecError("--manifest and --write-manifest are for one data set at a time")
    wrong = 0
    for info, places in chosen:
        report, found = verification.verify(
            info, places, manifest=options.manifest, accept=options.accept, progress=console.Seldom()
        )
        console.say(report.text())
        wrong += bool(report.problems)
        if options.write_manifest and found.digests:
            manifests.write(options.write_manifest, found)
            console.say(f"  manifest written to {options.write_manifest}")
    return WRONG if wrong else 0


def download(options: argparse.Namespace) -> int:
    """Fetch and unpack what has a stable address; say what must be done by hand."""
    from bench.verify import look

    if options.data_dir is None:
        raise SpecError("download needs --data-dir, the folder that holds the data sets' folders")
    data = Path(options.data_dir).expanduser()
    data.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for info, places in _chosen(options.names, options):
        console.say(f"{info.name}: {info.summary}\n  licence: {info.licence}\n  source: {info.source}")
        before = look(info, places)
        if not before.problems:
            console.say("  it is there already")
            continue
        try:
            _get_all(info, data, options, again=options.again or before.is_absent)
        except BenchError as error:
            console.say(f"  WRONG: {error}")
        after = look(info, places)
        if after.problems and info.by_hand:
            console.say("  to be done by hand:" + "".join(f"\n  - {step}" for step in info.by_hand))
        for problem in ["it is not there yet"] if after.is_absent else after.problems:
            console.say(f"  WRONG: {problem}")
        if not after.problems:
            console.say("  it is complete; `verify` reads every file")
        wrong += bool(after.problems)
    return WRONG if wrong else 0


def _get_all(info: DatasetInfo, data: Path, options: argparse.Namespace, *, again: bool) -> None:
    from bench.downloads import get, size_at

    for archive in info.archives:
        if again or not (data / archive.into / f".{archive.file}.unpacked").exists():
            size = size_at(archive.url)
            console.say(f"  {archive.url}: {f'{size / 1e6:,.1f} MB' if size else 'size unknown'}")
        if get(archive, data, _Lines(), keep=options.keep_archives, again=again):
            console.say(f"  {archive.file}: done" + ("" if archive.md5 else " (no checksum is known for it)"))


def cache(options: argparse.Namespace) -> int:
    """Decode all images ahead for a backbone, after saying how much room that takes; or show or empty the cache."""
    from bench.cache import DECODED

    root = Places(cache=options.cache).cache_folder()
    folder = root / DECODED
    if options.older_than is not None and not options.clear:
        raise SpecError("--older-than says what to --clear")
    if options.clear:
        return _clear(root, options)
    if not options.names:
        return _show_cache(root)
    from bench.images import RESERVE, TYPICAL_ASPECT, ImageStore
    from bench.models import check_backbone, load_backbone
    from bench.plan import weights_place

    tag, weights = weights_place(options.pretrained, Places())
    name, pretrained = check_backbone(options.backbone, tag, weights)
    image = load_backbone(name, pretrained, weights).image
    loaded = [info.load(places) for info, places in _chosen(options.names, options)]
    for dataset in loaded:
        images = sum(len(domain.files) for domain in dataset.domains)
        size = images * 3 * image.size**2 * (1 + TYPICAL_ASPECT * RESERVE**2)
        console.say(f"{dataset.name}: {images:,} images at {image.size} px take about {size / 1e9:.2f} GB in {folder}")
    console.say(f"free there: {shutil.disk_usage(_existing(folder)).free / 1e9:.1f} GB")
    if options.dry_run:
        return 0
    bad = 0
    for dataset in loaded:
        store = ImageStore(dataset, image, folder.parent, console.Seldom())
        console.say(f"{dataset.name}: decoded, data_digest {store.digest}")
        for file, reason in store.bad.items():
            console.say(f"  WRONG: {file} cannot be decoded ({reason})")
        bad += len(store.bad)
    return WRONG if bad else 0


def show(options: argparse.Namespace) -> int:
    """Save a contact sheet of each data set."""
    from bench.contact_sheet import contact_sheet, sheet_path

    for info, places in _chosen(options.names, options):
        dataset = info.load(places)
        path = sheet_path(options.out, info.name, options.names)
        path.parent.mkdir(parents=True, exist_ok=True)
        bad = contact_sheet(dataset, path, per_cell=options.per_cell, n_classes=options.classes, seed=options.seed)
        shown = min(options.classes, len(dataset.class_names))
        console.say(f"{info.name}: {shown} of {len(dataset.class_names)} classes, written to {path}")
        for fault in bad:
            console.say(f"  WRONG: {fault}")
    return 0


class _Lines:
    """Tells of progress on one line of a terminal, elsewhere on a line every few seconds."""

    def __init__(self) -> None:
        self._seldom = console.Seldom(0.2 if console.is_terminal() else 5.0)

    def __call__(self, text: str) -> None:
        self._seldom(f"  {text}")


def _chosen(names: Sequence[str], options: argparse.Namespace) -> list[tuple[DatasetInfo, Places]]:
    """Look the data sets up; of one's own data, the argument is the place."""
    places = Places(data_dir=options.data_dir, cache=options.cache)
    if options.data_dir and options.verb is not download and not Path(options.data_dir).expanduser().is_dir():
        raise DataMissing(
            f"--data-dir {options.data_dir} is no folder; give the folder that holds the data sets' folders"
        )
    return [(find_dataset(name), places) for name in dict.fromkeys(names)]


def _show_cache(root: Path) -> int:
    """Say what lies in the cache folder."""
    from bench import cache, derived

    found = cache.kept(root)
    rows = [[kind, f"{n:,}", _gigabytes(size), "yes"] for kind, n, size in cache.by_kind(found)]
    clearable = {each.path.relative_to(root).parts[0] for each in found}
    others = [each for each in cache.folders(root) if each.name not in (*clearable, "prepared")]
    rows += [[each.name, "", _gigabytes(cache.size_of(each)), "no"] for each in others]
    console.say(f"{root}\n")
    console.say(console.table(rows, ["what", "entries", "size", "may be cleared"]))
    kept = sum(each.size for each in found if each.kind.startswith("derived"))
    console.say(f"\nderived arrays: {_gigabytes(kept)} of at most {_gigabytes(derived.limit_bytes())}")
    return 0


def _clear(root: Path, options: argparse.Namespace) -> int:
    """Delete what may be deleted: decoded images of the data sets that are named, or all."""
    from bench import cache

    patterns = [_decoded_folders(find_dataset(name)) for name in options.names]
    found = cache.chosen(root, decoded_of=patterns, older=86400.0 * (options.older_than or 0))
    if not found:
        console.say(f"nothing to delete in {root}")
        return 0
    parts = "; ".join(f"{kind}: {n:,}, {_gigabytes(size)}" for kind, n, size in cache.by_kind(found))
    what = f"{_gigabytes(sum(each.size for each in found))} in {root} ({parts})"
    if not options.yes and not sys.stdin.isatty():
        raise SpecError(f"this would delete {what}; say --yes, since nobody can be asked here")
    if not options.yes and not console.confirm(f"delete {what}?"):
        console.say("nothing was deleted")
        return 0
    staying = cache.delete(root, found)
    size = sum(each.size for each in staying)
    if staying:
        console.say(f"{len(staying):,} array(s), {_gigabytes(size)}, in use and left")
    console.say(
        f"deleted {_gigabytes(sum(each.size for each in found) - size)} of {what}" if staying else f"deleted {what}"
    )
    return 0


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def _decoded_folders(info: DatasetInfo) -> re.Pattern[str]:
    """Match the names of the folders with a data set's decoded images (`bench.images`): ImageNet's, not ImageNet-A's."""
    domains = "|".join(re.escape(_plain(name)) for name in info.domains) or ".+"
    return re.compile(f"{re.escape(_plain(info.name))}-({domains})-[0-9]+-[0-9a-f]+")


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _days(words: str) -> float:
    try:
        days = float(words)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{words!r} is not a number of days from 0")
    return days


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.data",
        description="See which data sets are there, check them, fetch them, decode them ahead, look at them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(name: str, verb: Callable[[argparse.Namespace], int], names: str) -> Any:
        """Add a verb with what all have; give what adds its own options."""
        words = (verb.__doc__ or "").strip()
        made = verbs.add_parser(name, help=words.partition("\n")[0].rstrip("."), description=words)
        made.set_defaults(verb=verb)
        made.add_argument(
            "names", nargs=names, metavar="NAME", help="data set: see `sweep list datasets`; or folder:PATH, csv:FILE"
        )
        made.add_argument("--data-dir", metavar="DIR", help="folder that holds the data sets' folders")
        made.add_argument(
            "--cache", metavar="DIR", help="folder of decoded and drawn images; default: the user's cache folder"
        )
        return made.add_argument

    add("status", status, "*")
    option = add("verify", verify, "+")
    option("--manifest", type=Path, metavar="FILE", help="compare with this list of files and digests")
    option("--write-manifest", type=Path, metavar="FILE", help="write such a list, to compare other copies with")
    option("--accept", action="store_true", help="take the files as they are now for the right ones from now on")
    option = add("download", download, "+")
    option("--keep-archives", action="store_true", help="leave archives there after they were unpacked")
    option("--again", action="store_true", help="fetch and unpack archives that were unpacked before, too")
    option = add("cache", cache, "*")
    option("--backbone", default="tiny", metavar="NAME", help="for which backbone's input; default: tiny")
    option("--pretrained", metavar="TAG|FILE", help="its weights; default: the backbone's own")
    option("--dry-run", action="store_true", help="only say how much room it takes")
    option(
        "--clear",
        action="store_true",
        help="delete decoded images of the data sets given; without any, all that can be made again",
    )
    option("--older-than", type=_days, metavar="DAYS", help="with --clear: only what was not used for so long")
    option("--yes", action="store_true", help="do not ask before deleting")
    option = add("show", show, "+")
    option("--out", type=Path, metavar="FILE|DIR", help="where to; default: <NAME>.png in this folder")
    option("--per-cell", type=from_one, default=3, metavar="N", help="images of a class and domain; default: 3")
    option("--classes", type=from_one, default=20, metavar="N", help="most classes shown; default: 20")
    option("--seed", type=int, default=0, metavar="N", help="another seed shows other images; default: 0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
