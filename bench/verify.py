"""Is a data set there, whole, and what it should be? `look` counts its files, `verify` reads every one of them.

What `verify` can tell: a file that is gone, empty, truncated or no image, always; a file whose bytes have changed but that
is still an image, where a manifest knows better: one that ships with CLIPBed, one that is given, or the notes that `verify`
left in the cache folder when it last found all well.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench import manifests
from bench.dataset import Dataset, DatasetInfo, some_of
from bench.errors import BenchError
from bench.machine import usable_cores
from bench.manifests import Difference, Manifest
from bench.roots import NotThere
from bench.spec import Places

WINDOW = 512
"""Images that are read before progress is told."""

Progress = Callable[[str], None]


@dataclass
class Report:
    """What was found of a data set.

    Attributes:
        name: the data set's name.
        dataset: what was read; None where it could not be, or need not be.
        facts: what it is, one line each.
        problems: what is wrong with it.
        remarks: what one should know, though nothing is wrong.
        is_absent: its folder is not there at all.
    """

    name: str
    dataset: Dataset | None = None
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    is_absent: bool = False

    @property
    def state(self) -> str:
        """Give "complete", "incomplete", "absent" or, for what is drawn at its first use, "ready"."""
        if self.problems:
            return "absent" if self.is_absent else "incomplete"
        return "complete" if self.dataset else "ready"

    def text(self) -> str:
        """Word the report, one line a thing."""
        verdict = {"complete": "all well", "ready": "ready", "absent": "not there"}.get(self.state, "not all well")
        lines = [f"{self.name}: {verdict}", *(f"  {fact}" for fact in self.facts)]
        lines += [f"  WRONG: {problem}" for problem in self.problems]
        return "\n".join([*lines, *(f"  note: {remark}" for remark in self.remarks)])


class Fact(NamedTuple):
    """What one file holds.

    Attributes:
        digest: SHA-256 of its bytes.
        width, height: of the image in pixels; 0 if there is none.
        mode: Pillow's name of its colours.
        fault: why it is no image; "" if it is.
    """

    digest: str
    width: int = 0
    height: int = 0
    mode: str = ""
    fault: str = ""


def look(info: DatasetInfo, places: Places) -> Report:
    """Count a data set's files against the published numbers, opening none of them."""
    report = Report(info.name)
    try:
        dataset = info.look(places)
    except BenchError as error:
        report.problems.append(str(error))
        report.is_absent = isinstance(error, NotThere)
        return report
    except OSError as error:
        report.problems.append(f"cannot be read: {error}")
        return report
    if dataset is None:
        report.facts.append("its pictures are drawn into the cache folder at their first use")
        return report
    _count(info, dataset, report)
    return report


def verify(
    info: DatasetInfo,
    places: Places,
    *,
    manifest: Path | None = None,
    accept: bool = False,
    progress: Progress = lambda line: None,
) -> tuple[Report, Manifest]:
    """Read every file of a data set.

    Args:
        info: the data set.
        places: where its files and the cache are.
        manifest: a manifest that it must agree with.
        accept: take the files as they are now for the right ones, whatever an earlier call found.
        progress: told now and then how far it is.

    Returns:
        the report, and the manifest of what was found (empty if nothing was).
    """
    report = Report(info.name)
    nothing = Manifest("", {})
    try:
        dataset = info.load(places)
    except BenchError as error:
        report.problems.append(str(error))
        report.is_absent = isinstance(error, NotThere)
        return report, nothing
    _count(info, dataset, report)
    paths = manifests.keys(dataset)
    facts = _read_all(info.name, paths, progress)
    found = Manifest(f"{info.name}, {len(facts):,} files", {key: fact.digest for key, fact in facts.items()})
    report.facts.append(f"bytes: data_digest {data_digest(dataset, facts)}, as in records")
    _faults(report, paths, facts)
    _sizes(info, dataset, report, facts)
    _twins(report, dataset, facts)
    known = {domain.name: domain.folder or domain.name for domain in dataset.domains}
    if manifest is not None:
        _judge(report, manifests.compare(found.digests, manifests.read(manifest)), known, f"the manifest {manifest}")
    _against_shipped(report, found, known)
    _against_earlier(report, found, known, _notes(places, info.name), accept=accept)
    return report, found


def data_digest(dataset: Dataset, facts: dict[str, Fact]) -> str:
    """Give the digest of all bytes that records call `data_digest` (`bench.images.ImageStore.digest`)."""
    rest = iter(facts.values())
    of_domains = []
    for domain in dataset.domains:
        hashed = hashlib.sha256()
        for _ in domain.files:
            hashed.update(bytes.fromhex(next(rest).digest))
        of_domains.append(hashed.hexdigest()[:16])
    return hashlib.sha256("".join(of_domains).encode()).hexdigest()[:16]


def _count(info: DatasetInfo, dataset: Dataset, report: Report) -> None:
    """Compare the numbers of images with the published ones."""
    report.dataset = dataset
    sizes = [len(domain.files) for domain in dataset.domains]
    version = f", version {dataset.version}" if dataset.version else ""
    report.facts.append(
        f"{sum(sizes):,} images, {len(sizes)} domain(s), {len(dataset.class_names):,} classes{version}, in "
        f"{dataset.domains[0].root}"
    )
    published = info.published(dataset)
    report.facts.append(
        ", ".join(f"{domain.name} {size:,}" for domain, size in zip(dataset.domains, sizes, strict=True))
    )
    for domain, size, count in zip(dataset.domains, sizes, published, strict=False):
        if size != count:
            report.problems.append(f"{info.name}/{domain.name} has {size:,} images, published {count:,}")
    if info.total and sum(sizes) != info.total:
        report.problems.append(f"{info.name} has {sum(sizes):,} images, published {info.total:,}")
    for split, positions in dataset.splits.items():
        size = sum(map(len, positions))
        if info.split_counts.get(split, size) != size:
            report.problems.append(f"its split {split} has {size:,} images, published {info.split_counts[split]:,}")
    if dataset.splits:
        counted = ", ".join(f"{split} {sum(map(len, positions)):,}" for split, positions in dataset.splits.items())
        report.facts.append(f"published splits: {counted}")
    report.remarks += [note for note in dataset.notes if ", published " not in note]
    report.remarks += [f"known: {each}" for each in info.oddities]


def _read_all(name: str, paths: dict[str, Path], progress: Progress) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    keys = list(paths)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(keys), WINDOW):
            chosen = keys[start : start + WINDOW]
            facts.update(zip(chosen, pool.map(read_fact, (paths[key] for key in chosen)), strict=True))
            progress(f"reading {name}: {len(facts):,} of {len(keys):,} images")
    return facts


def read_fact(path: Path) -> Fact:
    """Read one file and decode it whole."""
    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
    except OSError as error:
        return Fact("0" * 64, fault=f"cannot be read: {error.strerror or error}")
    digest = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            fact = Fact(digest, *picture.size, picture.mode)
            is_png = picture.format == "PNG"
            picture.load()
        if is_png:  # Pillow stops reading when it has all pixels; a PNG has checksums up to its end
            with Image.open(io.BytesIO(data)) as again:
                again.verify()
        return fact
    except UnidentifiedImageError:
        return Fact(digest, fault="empty" if not data else "no image format that is known")
    except Exception as error:  # Pillow raises many kinds; any of them means that this file is no good
        return Fact(digest, fault=f"{type(error).__name__}: {error}")


def _faults(report: Report, paths: dict[str, Path], facts: dict[str, Fact]) -> None:
    bad = [f"{paths[key]} ({fact.fault})" for key, fact in facts.items() if fact.fault]
    if bad:
        report.problems.append(f"{len(bad)} file(s) cannot be decoded: {some_of(bad)}; fetch them again")
    modes = Counter(fact.mode for fact in facts.values() if fact.mode not in ("", "RGB"))
    if modes:
        counted = ", ".join(f"{n:,} {mode}" for mode, n in modes.most_common())
        report.remarks.append(f"images that are not RGB are converted when they are read: {counted}")


def _sizes(info: DatasetInfo, dataset: Dataset, report: Report, facts: dict[str, Fact]) -> None:
    """Say how large the images are, and which domains are smaller than they were published."""
    rest = iter(facts.values())
    of_domains = [
        [min(fact.width, fact.height) for fact in (next(rest) for _ in d.files) if not fact.fault]
        for d in dataset.domains
    ]
    sides = [sorted(sides) for sides in of_domains]
    spans = [f"{each[0]}" if each[0] == each[-1] else f"{each[0]} to {each[-1]}" for each in sides if each]
    shown = spans[0] if len(set(spans)) == 1 else ", ".join(spans)
    report.facts.append(f"short side of the images: {shown} px")
    smaller = [
        f"{domain.name} {each[-1]} px, originally {side} px"
        for domain, each, side in zip(dataset.domains, sides, info.short_sides, strict=False)
        if each and each[-1] < side
    ]
    if smaller:
        report.remarks.append(f"the images are smaller than the originals (short side): {'; '.join(smaller)}")


def _twins(report: Report, dataset: Dataset, facts: dict[str, Fact]) -> None:
    """Count the files that are the same byte for byte; name those that have different labels or domains."""
    labels = [(domain.name, int(label)) for domain in dataset.domains for label in domain.labels]
    groups: dict[str, list[tuple[str, tuple[str, int]]]] = defaultdict(list)
    for (key, fact), label in zip(facts.items(), labels, strict=True):
        groups[fact.digest].append((key, label))
    twins = [group for group in groups.values() if len(group) > 1]
    apart = [" = ".join(key for key, _ in group) for group in twins if len({label for _, label in group}) > 1]
    if twins:
        across = f"; {len(apart)} of them across classes or domains: {some_of(apart, 3)}" if apart else ""
        report.remarks.append(f"{len(twins)} group(s) of files are the same byte for byte{across}")


def _judge(report: Report, difference: Difference, known: dict[str, str], source: str) -> None:
    """Turn every difference from a manifest into a problem; `known` gives the folders of the domains."""
    for what, names in (
        ("missing", difference.missing),
        ("altered", difference.altered),
        ("not in it", difference.extra),
    ):
        if names:
            shown = [
                f"{known.get(domain, domain)}/{file}" for domain, _, file in (name.partition("/") for name in names)
            ]
            report.problems.append(f"{len(names):,} file(s) are {what}, after {source}: {some_of(shown)}")


def _against_shipped(report: Report, found: Manifest, known: dict[str, str]) -> None:
    """Compare with the manifest in CLIPBed; one of another copy still knows the names."""
    manifest = manifests.shipped(report.name)
    if manifest is None:
        return
    difference = manifests.compare(found.digests, manifest)
    if difference.is_same_copy:
        _judge(report, difference, known, f"CLIPBed's list of the copy {manifest.about!r}")
        report.facts.append(f"{difference.same:,} files have the bytes of the copy {manifest.about!r}")
    elif difference.has_same_names:
        _judge(report, Difference(difference.missing, difference.extra, (), 0), known, "CLIPBed's list of names")
        report.remarks.append("the bytes are those of another copy than the one that CLIPBed knows")
    else:
        report.remarks.append("the file names are those of another copy than the one that CLIPBed knows")


def _against_earlier(report: Report, found: Manifest, known: dict[str, str], notes: Path, *, accept: bool) -> None:
    """Compare with what an earlier call found in order; note the present state where all is well."""
    if notes.is_file() and not accept:
        try:
            difference = manifests.compare(found.digests, manifests.read(notes))
        except BenchError:
            difference = Difference((), (), (), 0)  # notes that cannot be read are as good as none
        if difference.is_same_copy:
            before = len(report.problems)
            _judge(report, difference, known, "the notes of the last time that all was well")
            if len(report.problems) > before:
                report.remarks.append("if the change is meant, `verify --accept` takes the files as they are")
    if report.problems:
        return
    try:
        notes.parent.mkdir(parents=True, exist_ok=True)
        manifests.write(notes, found)
    except OSError as error:  # a cache that cannot be written to says nothing about the data
        report.remarks.append(f"no notes for the next time: {notes.parent}: {error.strerror or error}")


def _notes(places: Places, name: str) -> Path:
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return places.cache_folder() / "verified" / f"{plain}.txt.gz"
