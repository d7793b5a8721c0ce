"""Downloads from a small server on this machine: resume, kill, checksums, archives that try to get out."""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import downloads
from bench.dataset import Archive
from bench.downloads import fetch, get, unpack
from bench.errors import Conflict, DataMissing

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Server:
    """What the server gives, how it misbehaves, and what it was asked for.

    Attributes:
        content: the file.
        cut: bytes to send of the first answers, one number an answer; then whole answers.
        ranges: it can go on in the middle.
        etag: of the file.
        status: instead of the file.
        hold: after a cut answer, wait for `release` instead of closing the line.
        asked: the Range header of each request.
    """

    content: bytes = CONTENT
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    status: int = 200
    hold: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(told.content)))
            self.end_headers()

        def do_GET(self) -> None:
            told.asked.append(self.headers.get("Range", ""))
            if told.status != 200:
                self.send_error(told.status)
                return
            start = 0
            asked = self.headers.get("Range")
            if asked and told.ranges and self.headers.get("If-Range", told.etag) == told.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start and start >= len(told.content):
                self.send_error(416)
                return
            body = told.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", told.etag)
            self.end_headers()
            if told.cut:
                self.wfile.write(body[: told.cut.pop(0)])
                self.wfile.flush()
                if told.hold:
                    told.release.wait(30)
            else:
                self.wfile.write(body)

        def log_message(self, *details: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    told.url = f"http://127.0.0.1:{http.server_port}/file.tar"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    told.release.set()
    http.shutdown()
    http.server_close()
    thread.join(10)


def take(server: Server, target: Path, md5: str = MD5) -> list[str]:
    told: list[str] = []
    fetch(server.url, target, md5, told.append, sleep=lambda seconds: None)
    return told


def test_file_arrives_whole_and_leaves_nothing_beside_it(server: Server, tmp_path: Path) -> None:
    told = take(server, tmp_path / "file.tar")
    assert (tmp_path / "file.tar").read_bytes() == CONTENT
    assert [each.name for each in tmp_path.iterdir()] == ["file.tar"]
    assert told[-1] == "file.tar: 1.0 of 1.0 MB (100 %)"


def test_broken_line_is_gone_on_with_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 200_000]
    told = take(server, tmp_path / "file.tar")
    assert (tmp_path / "file.tar").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=300000-"]
    assert sum("trying again" in line for line in told) == 2


def test_server_that_cannot_go_on_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.cut, server.ranges = [100_000], False
    take(server, tmp_path / "file.tar")
    assert (tmp_path / "file.tar").read_bytes() == CONTENT


def test_file_that_changed_meanwhile_is_not_spliced(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000] + [0] * downloads.ATTEMPTS
    with pytest.raises(DataMissing, match="goes on from here"):
        take(server, tmp_path / "file.tar", md5="")
    assert (tmp_path / "file.tar.part").stat().st_size == 100_000
    server.cut, server.content, server.etag = [], b"new" * 50_000, '"two"'
    take(server, tmp_path / "file.tar", md5="")
    assert (tmp_path / "file.tar").read_bytes() == server.content


def test_part_that_was_whole_already_is_checked_and_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    take(server, tmp_path / "file.tar")
    assert (tmp_path / "file.tar").read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=f"{MD5}, published {'0' * 32}"):
        take(server, tmp_path / "file.tar", md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (503, downloads.ATTEMPTS)])
def test_server_that_refuses_is_named(status: int, asked: int, server: Server, tmp_path: Path) -> None:
    server.status = status
    with pytest.raises(DataMissing, match=f"{server.url} .*{status}"):
        take(server, tmp_path / "file.tar")
    assert len(server.asked) == asked


def test_server_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", "", lambda line: None, sleep=lambda seconds: None)


def test_killed_download_goes_on_from_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut, server.hold = [700_000], True
    code = (
        "import sys; from pathlib import Path; from bench.downloads import fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], lambda line: None)"
    )
    # The block is smaller than what the server sends before it stops, so that some of it is on the disk.
    command = [sys.executable, "-c", f"import bench.downloads as d; d.BLOCK = 65536\n{code}"]
    child = subprocess.Popen([*command, server.url, str(tmp_path / "file.tar"), MD5])
    part = tmp_path / "file.tar.part"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size >= 500_000):
        time.sleep(0.02)
    child.kill()
    child.wait(30)
    have = part.stat().st_size
    assert 500_000 <= have <= 700_000 and not (tmp_path / "file.tar").exists()
    server.hold = False
    server.release.set()
    take(server, tmp_path / "file.tar")
    assert server.asked == ["", f"bytes={have}-"]
    assert (tmp_path / "file.tar").read_bytes() == CONTENT


def tar(path: Path, members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


MEMBERS = {"./": b"", "photo/dog/1.jpg": b"one", "photo/dog/2.jpg": b"two", "list.txt": b"lines"}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
def test_archive_is_unpacked_and_merged_with_what_is_there(name: str, tmp_path: Path) -> None:
    members = {key: data for key, data in MEMBERS.items() if data}
    path = (zipped if name.endswith("zip") else tar)(tmp_path / name, members)
    into = tmp_path / "data"
    (into / "photo" / "dog").mkdir(parents=True)
    (into / "photo" / "dog" / "2.jpg").write_bytes(b"torn")
    (into / "photo" / "mine.txt").write_bytes(b"mine")
    unpack(path, into, lambda line: None)
    found = {str(each.relative_to(into)): each.read_bytes() for each in into.rglob("*") if each.is_file()}
    assert found == {**members, "photo/mine.txt": b"mine"}


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def device(info: tarfile.TarInfo) -> None:
    info.type = tarfile.CHRTYPE


def bad_archives(tmp_path: Path) -> dict[str, Path]:
    linked = tmp_path / "link.zip"
    with zipfile.ZipFile(linked, "w") as archive:
        entry = zipfile.ZipInfo("photo/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return {
        "tar up": tar(tmp_path / "a.tar", {"good.txt": b"", "photo/../../out.txt": b"x"}),
        "tar absolute": tar(tmp_path / "b.tar", {str(tmp_path / "out.txt"): b"x"}),
        "tar link": tar(tmp_path / "c.tar", {"photo": b""}, link),
        "tar device": tar(tmp_path / "d.tar", {"photo": b""}, device),
        "zip up": zipped(tmp_path / "a.zip", {"good.txt": b"", "../out.txt": b"x"}),
        "zip backslash": zipped(tmp_path / "b.zip", {"photo\\..\\..\\out.txt": b"x"}),
        "zip drive": zipped(tmp_path / "c.zip", {"C:/out.txt": b"x"}),
        "zip link": linked,
    }


@pytest.mark.parametrize(
    "kind", ["tar up", "tar absolute", "tar link", "tar device", "zip up", "zip backslash", "zip drive", "zip link"]
)
def test_archive_that_tries_to_get_out_writes_nothing(kind: str, tmp_path: Path) -> None:
    path = bad_archives(tmp_path)[kind]
    into = tmp_path / "deep" / "data"
    into.mkdir(parents=True)
    with pytest.raises(Conflict, match="nothing was written"):
        unpack(path, into, lambda line: None)
    assert list(into.iterdir()) == [] and not list(tmp_path.rglob("out.txt"))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_damaged_archive_is_named_and_writes_nothing(name: str, tmp_path: Path) -> None:
    path = (zipped if name.endswith("zip") else tar)(tmp_path / name, {"a.jpg": bytes(100_000), "b.jpg": b"x" * 1000})
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "data").mkdir()
    with pytest.raises(DataMissing, match="cannot be unpacked"):
        unpack(path, tmp_path / "data", lambda line: None)
    assert list((tmp_path / "data").iterdir()) == []


def test_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"photo/1.jpg": b"one"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo").write_text("a file")
    with pytest.raises(DataMissing, match="in the way"):
        unpack(path, tmp_path / "data", lambda line: None)


def test_get_fetches_unpacks_and_does_nothing_the_second_time(server: Server, tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar.gz", {"images/1.jpg": b"one"}).read_bytes()
    server.content = zipped(tmp_path / "outer.zip", {"set/inner.tar.gz": inner, "set/readme": b""}).read_bytes()
    archive = Archive(url=server.url, file="outer.zip", into="sets", within="set/inner.tar.gz")
    data = tmp_path / "data"
    assert get(archive, data, lambda line: None)
    assert (data / "sets/set/images/1.jpg").read_bytes() == b"one"
    assert not (data / "sets/outer.zip").exists()
    assert not get(archive, data, lambda line: None)
    assert len(server.asked) == 1


def test_get_keeps_what_is_no_archive(server: Server, tmp_path: Path) -> None:
    archive = Archive(url=server.url, file="digits-ubyte.gz", into="MNIST/raw", md5=MD5)
    assert get(archive, tmp_path, lambda line: None)
    assert (tmp_path / "MNIST/raw/digits-ubyte.gz").read_bytes() == CONTENT
    assert not get(archive, tmp_path, lambda line: None)


def test_no_room_is_said_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(DataMissing, match=r"needs 1\.0 MB and .* has 0\.0 MB left"):
        take(server, tmp_path / "file.tar")
    assert not (tmp_path / "file.tar").exists()


def test_size_is_asked_for(server: Server) -> None:
    assert downloads.size_at(server.url) == len(CONTENT)
    assert downloads.size_at("http://127.0.0.1:9/x") is None


def test_a_damaged_archive_is_named_wherever_the_damage_is(tmp_path: Path) -> None:
    content = bytes(range(256)) * 400
    packed = {"a.zip": io.BytesIO(), "a.tar.gz": io.BytesIO()}
    with zipfile.ZipFile(packed["a.zip"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/file", content)
    with tarfile.open(fileobj=packed["a.tar.gz"], mode="w:gz") as tar:
        member = tarfile.TarInfo("folder/file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    for name, whole in packed.items():
        data = bytearray(whole.getvalue())
        for place in (len(data) // 3, len(data) - 6 if name.endswith("gz") else 60):  # its middle; gzip's checksum
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            (tmp_path / name).write_bytes(bytes(damaged))
            with pytest.raises(DataMissing, match="cannot be unpacked"):
                unpack(tmp_path / name, tmp_path / "out", print)
            assert not (tmp_path / "out" / "folder").exists()
