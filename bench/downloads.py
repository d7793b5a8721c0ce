"""Downloads that can be killed and gone on with, and archives that cannot write outside their folder.

A file is fetched as `<name>.part` and gets its name when it is whole and its checksum right. An archive is unpacked into a
temporary folder beside its place and moved over; a marker says that it was, so that the same command again goes on.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bench import files
from bench.dataset import Archive
from bench.errors import Conflict, DataMissing

BLOCK = 1 << 20
TIMEOUT = 60.0
ATTEMPTS = 5
"""Attempts without any progress before a download is given up."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

Progress = Callable[[str], None]


def get(archive: Archive, data: Path, progress: Progress, *, keep: bool = False, again: bool = False) -> bool:
    """Fetch a file and unpack it; give whether there was anything to do.

    Args:
        archive: what to fetch.
        data: the data directory.
        progress: told now and then how far it is.
        keep: leave the archive there after it was unpacked.
        again: do it though it was done before.

    Raises:
        DataMissing: it cannot be fetched, or there is no room.
        Conflict: its checksum is wrong, or it would write outside its folder.
    """
    into = data / archive.into
    into.mkdir(parents=True, exist_ok=True)
    target = into / archive.file
    marker = into / f".{archive.file}.unpacked"
    packed = archive.file.endswith(ARCHIVES)
    if again:
        marker.unlink(missing_ok=True)
    if marker.exists() or (not packed and target.exists()):
        return False
    if not target.exists():
        fetch(archive.url, target, archive.md5, progress)
    if packed:
        unpack(target, into, progress)
        if archive.within:
            inner = into / archive.within
            unpack(inner, inner.parent, progress)
        files.replace_text(marker, f"{archive.url}\n")
        if not keep:
            target.unlink()
    return True


def fetch(url: str, target: Path, md5: str, progress: Progress, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Fetch `url` to `target`, going on where an earlier call stopped.

    Args:
        url: http or https address.
        target: the file to be; its folder exists.
        md5: checksum that it must have; "" for none.
        progress: told now and then how far it is.
        sleep: waits between attempts.

    Raises:
        DataMissing: the server does not give it, there is no room, or the line broke too often.
        Conflict: the checksum is wrong; the file is deleted.
    """
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_some(url, part, progress):
                break
            reason = "the line broke before the end"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing is left to fetch, or another file is there now
                break
            if error.code < 500:
                raise DataMissing(f"{url} gives {error.code} {error.reason}; see `sweep list datasets`") from error
            reason = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in (28, 122):  # no space left, quota
                raise DataMissing(f"no room for {part}: {error}; make room and give the command again") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        made = (part.stat().st_size if part.exists() else 0) > before
        failures = 0 if made else failures + 1
        if failures >= ATTEMPTS:
            raise DataMissing(f"{url} cannot be fetched: {reason}; the same command again goes on from here")
        progress(f"{target.name}: {reason}; trying again")
        sleep(min(30.0, 2.0**failures))
    part.with_name(f"{part.name}.from").unlink(missing_ok=True)
    _check(part, url, md5)
    os.replace(part, target)


def _fetch_some(url: str, part: Path, progress: Progress) -> bool:
    """Append what the server sends from the end of `part` on; give whether the file is whole."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "clipbed", "Accept-Encoding": "identity"}
    mark = part.with_name(f"{part.name}.from")  # which version of the file the part is of
    if have and mark.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": mark.read_text()}
    elif have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != 206:
            have = 0  # this server cannot go on in the middle, or has another file now
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if version.startswith("W/"):  # says too little to go on by
            version = ""
        if version and not have:
            files.replace_text(mark, version)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _check_room(part, (total or 0) - have)
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                progress(f"{part.name.removesuffix('.part')}: {_amount(have, total)}")
    return total is None or have >= total


def _check(part: Path, url: str, md5: str) -> None:
    if not md5:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise Conflict(
            f"{url} gave a file with the md5 sum {found}, published {md5}; it was deleted. Give the command again; if it "
            "happens twice, the file at that address has changed"
        )


def unpack(path: Path, into: Path, progress: Progress) -> None:
    """Unpack an archive into the folder `into`, all or nothing; files that are there already are replaced.

    Raises:
        Conflict: a name in it leads out of the folder, or it holds links or devices; nothing is written then.
        DataMissing: it is damaged, or there is no room.
    """
    temporary = into / f".{path.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    progress(f"unpacking {path.name}")
    try:
        temporary.mkdir()
        if path.name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                _unpack_zip(archive, path, temporary, progress)
        else:
            with tarfile.open(path) as tar:
                _unpack_tar(tar, path, temporary, progress)
        _move_over(temporary, into)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise DataMissing(f"{path} cannot be unpacked: {error}; make room, or delete it and fetch it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_zip(archive: zipfile.ZipFile, path: Path, into: Path, progress: Progress) -> None:
    members = archive.infolist()
    for member in members:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _unsafe(path, member.filename, "is a link")
        safe_place(path, member.filename, into)
    _check_room(into, sum(member.file_size for member in members))
    for number, member in enumerate(members, 1):
        place = safe_place(path, member.filename, into)
        if member.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            with archive.open(member) as source:
                _put(source, place)
        progress(f"unpacking {path.name}: {number:,} of {len(members):,} files")


def _unpack_tar(tar: tarfile.TarFile, path: Path, into: Path, progress: Progress) -> None:
    # One pass: a compressed archive can only be read from its beginning. What was written before a bad name is found
    # lies in the temporary folder and is deleted with it.
    for number, member in enumerate(tar, 1):
        place = safe_place(path, member.name, into)
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            source = tar.extractfile(member)
            assert source is not None
            with source:
                _put(source, place)
        else:
            raise _unsafe(path, member.name, "is a link or a device")
        progress(f"unpacking {path.name}: {number:,} files")
    while tar.fileobj is not None and tar.fileobj.read(BLOCK):  # to the end, where gzip has its checksum
        pass


def safe_place(path: Path, name: str, into: Path) -> Path:
    """Give the place of an archive's member `name` below `into`.

    Raises:
        Conflict: it would lie elsewhere.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and ":" in parts.parts[0]):
        raise _unsafe(path, name, "leads out of the folder")
    return into.joinpath(*parts.parts)


def _unsafe(path: Path, name: str, why: str) -> Conflict:
    return Conflict(f"{path} is not unpacked, nothing was written: {name!r} in it {why}; it is not what was published")


def _put(source: IO[bytes], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)


def _move_over(source: Path, target: Path) -> None:
    """Move all files from one folder tree into another one of the same disk."""
    for each in sorted(source.iterdir()):
        place = target / each.name
        if each.is_dir() and place.is_dir():
            _move_over(each, place)
        elif place.is_dir() or (each.is_dir() and place.exists()):
            raise OSError(f"{place} is in the way: a file where a folder must go, or the other way round")
        else:
            os.replace(each, place)


def _check_room(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise DataMissing(
            f"{place.name.removeprefix('.').removesuffix('.tmp')} needs {needed / 1e6:,.1f} MB and {place.parent} has "
            f"{free / 1e6:,.1f} MB left; make room, or give another --data-dir"
        )


def _amount(have: int, total: int | None) -> str:
    if total is None:
        return f"{have / 1e6:,.1f} MB"
    return f"{have / 1e6:,.1f} of {total / 1e6:,.1f} MB ({100 * have / max(total, 1):.0f} %)"


def size_at(url: str) -> int | None:
    """Ask the server how large a file is; None where it does not say."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "clipbed"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            length: Any = answer.headers.get("Content-Length")
            return int(length) if length else None
    except (OSError, HTTPException, ValueError):
        return None
