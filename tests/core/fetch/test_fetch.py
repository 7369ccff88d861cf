"""Fetching public files from a real web server in this process that can be made to misbehave."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.errors import ChecksumError, EnvironmentFault, SinkError, UsageError
from stpl_core.fetch import sets, transfer
from stpl_core.fetch.checked import PublicFile, fetch_file
from stpl_core.fetch.sets import PublicSet, fetch_set, public_set, public_sets
from stpl_deploy.cli import run

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
OTHER = BODY[::-1]
SHARED = Path(__file__).parents[3].parent / "shared" / "data"


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    address: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Each answer with a body ends after so many bytes; then no more are cut."""
    refusals: list[int] = field(default_factory=list)
    """Codes that the next answers have."""
    ranges: bool = True
    version: str = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of each request."""
    sent: int = 0
    """Bytes of bodies."""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site, asked = self.site, self.headers.get("Range", "")
        site.asked.append((self.path, asked))
        if site.refusals:
            self._head(site.refusals.pop(0), 0, site.headers)
            return
        body = site.bodies.get(self.path)
        if body is None:
            self._head(404, 0, {})
            return
        start, headers = 0, {"ETag": site.version} if site.version else {}
        if asked and site.ranges and self.headers.get("If-Range") == site.version:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self._head(416, 0, {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        self._head(206 if start else 200, len(rest), headers)
        rest = rest[: site.cuts.pop(0)] if site.cuts else rest
        self.wfile.write(rest)
        site.sent += len(rest)

    def _head(self, code: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(bodies={"/f.bin": BODY})
    handler = type("Handler", (Handler,), {"site": made})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        made.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def promised(body: bytes = BODY, **more: Any) -> PublicFile:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return PublicFile(**{"name": "f.bin", "digest": digest, "bytes": len(body)} | more)


def fetched(site: Site, folder: Path, file: PublicFile | None = None, **more: Any) -> Any:
    more.setdefault("wait", lambda seconds: None)
    return fetch_file(file or promised(), folder, [site.address], **more)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_file_comes_whole_and_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    reported: list[tuple[int, int | None]] = []
    got = fetched(site, tmp_path, on_progress=lambda done, of: reported.append((done, of)))
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert got.promised
    assert got.url == f"{site.address}/f.bin"
    assert reported[0] == (0, len(BODY))
    assert reported[-1] == (len(BODY), len(BODY))
    assert names(tmp_path) == {"f.bin"}
    assert fetched(site, tmp_path).url == ""
    assert len(site.asked) == 1
    (tmp_path / "f.bin").write_bytes(b"damaged")
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_cut_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert [asked for _, asked in site.asked] == ["", "bytes=100000-", "bytes=150000-"]
    assert site.sent == len(BODY)


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.cuts, waited = [100_000] + [0] * transfer.ATTEMPTS, []
    with pytest.raises(EnvironmentFault, match=r"100,000 bytes are kept.*resumes") as caught:
        fetched(site, tmp_path, wait=waited.append)
    assert caught.value.exit_code == 4
    assert names(tmp_path) == {".f.bin.part", ".f.bin.part.json"}
    longest = [2.0**n for n in (0, *range(transfer.ATTEMPTS - 1))]
    assert all(most / 2 <= s <= most for s, most in zip(waited[1:], longest[1:], strict=False))
    site.cuts = []
    fetched(site, tmp_path)
    assert site.asked[-1][1] == "bytes=100000-"
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert names(tmp_path) == {"f.bin"}


def test_a_server_that_ignores_ranges_sends_it_anew(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000]
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert site.sent == 100_000 + len(BODY)


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_name_for_its_version_nothing_is_gone_on_with(
    site: Site, tmp_path: Path, tag: str
) -> None:
    site.version, site.cuts = tag, [100_000]
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert [asked for _, asked in site.asked] == ["", ""]


def test_a_file_changed_meanwhile_starts_anew(site: Site, tmp_path: Path) -> None:
    site.bodies["/f.bin"], site.cuts = OTHER, [100_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(EnvironmentFault):
        fetched(site, tmp_path)
    site.bodies["/f.bin"], site.version, site.cuts = BODY, '"v2"', []
    fetched(site, tmp_path)
    assert site.asked[-1][1] == "bytes=100000-"  # asked for, and rightly not given
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_halves_of_two_versions_under_one_name_start_anew(site: Site, tmp_path: Path) -> None:
    """A server whose ETag does not change with the bytes."""
    site.bodies["/f.bin"], site.cuts = OTHER, [100_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(EnvironmentFault):
        fetched(site, tmp_path)
    site.bodies["/f.bin"], site.cuts = BODY, []
    fetched(site, tmp_path)
    assert [asked for _, asked in site.asked[-2:]] == ["bytes=100000-", ""]
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_part_longer_than_the_file_starts_anew(site: Site, tmp_path: Path) -> None:
    site.bodies["/f.bin"] = BODY + BODY
    site.cuts = [len(BODY) + 5] + [0] * transfer.ATTEMPTS
    with pytest.raises(EnvironmentFault):
        fetched(site, tmp_path)
    site.bodies["/f.bin"], site.cuts = BODY, []
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.bodies["/f.bin"] = OTHER
    with pytest.raises(ChecksumError, match=r"other bytes .* expected sha256 ") as caught:
        fetched(site, tmp_path / "new")
    assert caught.value.exit_code == 3
    assert names(tmp_path / "new") == set()
    assert len(site.asked) == 1


def test_the_next_mirror_is_asked_after_a_wrong_or_missing_one(site: Site, tmp_path: Path) -> None:
    site.bodies |= {"/bad/f.bin": OTHER}
    mirrors = [f"{site.address}/gone", f"{site.address}/bad", site.address]
    got = fetch_file(promised(), tmp_path, mirrors)
    assert got.url == f"{site.address}/f.bin"
    assert names(tmp_path) == {"f.bin"}
    with pytest.raises(ChecksumError):  # the worse news of the two
        fetch_file(promised(), tmp_path / "b", [f"{site.address}/bad", f"{site.address}/gone"])


def test_what_is_not_there_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"none\.bin: 404 Not Found"):
        fetched(site, tmp_path, promised(name="none.bin"))
    assert len(site.asked) == 1
    assert names(tmp_path) == set()


def test_a_busy_server_is_given_the_time_it_asks_for(site: Site, tmp_path: Path) -> None:
    site.refusals, site.headers, waited = [503, 429], {"Retry-After": "7"}, []
    fetched(site, tmp_path, wait=waited.append)
    assert waited == [7.0, 7.0]
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_no_server_at_all(tmp_path: Path) -> None:
    waited: list[float] = []
    with pytest.raises(EnvironmentFault, match=r"cannot be read: .*refused"):
        fetch_file(promised(), tmp_path, ["http://127.0.0.1:9"], wait=waited.append)
    assert len(waited) == transfer.ATTEMPTS - 1


def test_a_folder_that_stays_empty_is_not_left_behind(tmp_path: Path) -> None:
    nowhere, there = ["http://127.0.0.1:9"], tmp_path / "there"
    there.mkdir()
    for folder in (tmp_path / "new", there):
        with pytest.raises(EnvironmentFault):
            fetch_file(promised(), folder, nowhere, wait=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_full_disk_keeps_what_came(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(done: int, of: int | None) -> None:
        if done:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SinkError, match=r"No space left on device; the bytes .* are kept"):
        fetched(site, tmp_path, on_progress=full)
    assert (tmp_path / ".f.bin.part").stat().st_size > 0
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000})())
        with pytest.raises(SinkError, match=r"has 0 MB left; expected 0 MB"):
            fetched(site, tmp_path)
    fetched(site, tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_gz_is_checked_and_kept_unpacked(site: Site, tmp_path: Path) -> None:
    site.bodies["/f.bin.gz"] = gzip.compress(BODY)
    file = promised(at="f.bin.gz", unpack="gz")
    fetched(site, tmp_path, file)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    site.bodies["/f.bin.gz"] = BODY  # a server that unpacks by itself
    fetched(site, tmp_path / "b", file)
    assert (tmp_path / "b" / "f.bin").read_bytes() == BODY
    site.bodies["/f.bin.gz"] = gzip.compress(BODY)[:-100]
    with pytest.raises(ChecksumError):
        fetched(site, tmp_path / "c", file)
    assert names(tmp_path / "c") == set()


def zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return made.getvalue()


def a_set(site: Site, *files: PublicFile) -> PublicSet:
    return PublicSet(
        name="test", about="a", licence="CC0", origin="us", use="look at {folder}",
        mirrors=(site.address,), files=files,
    )  # fmt: skip


def test_a_set_without_a_checksum_tells_the_one_found(site: Site, tmp_path: Path) -> None:
    body = zipped({"walking/a.bin": BODY, "b.bin": b"2"})
    site.bodies["/all.zip"] = body
    one = a_set(site, PublicFile(name="all.zip", unpack="zip"))
    (got,) = fetch_set(one, tmp_path)
    assert (got.promised, got.digest) == (False, f"sha256:{hashlib.sha256(body).hexdigest()}")
    assert (tmp_path / "walking" / "a.bin").read_bytes() == BODY
    assert names(tmp_path) == {"walking", "b.bin", sets.RECORD}
    record = json.loads((tmp_path / sets.RECORD).read_text())
    assert (record["licence"], record["files"][0]["url"]) == ("CC0", f"{site.address}/all.zip")
    assert fetch_set(one, tmp_path)[0].url == ""
    assert len(site.asked) == 1
    (tmp_path / "b.bin").unlink()
    fetch_set(one, tmp_path)
    assert (tmp_path / "b.bin").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_an_archive_does_not_write_outside(site: Site, tmp_path: Path, name: str) -> None:
    site.bodies["/all.zip"] = zipped({"good": b"1", name: b"2"})
    with pytest.raises(ChecksumError, match="a member"):
        fetched(site, tmp_path / "in", PublicFile(name="all.zip", unpack="zip"))
    assert names(tmp_path) == set()  # neither outside, nor an empty folder


def test_two_that_fetch_the_same_wait_for_one_another(site: Site, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetched, args=(site, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 1
    assert (tmp_path / "f.bin").read_bytes() == BODY


@pytest.fixture
def served(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """The verb sees one set, `test`, of two files on the server."""
    site.bodies["/g.bin"] = OTHER
    one = a_set(site, promised(), promised(OTHER, name="g.bin"))
    monkeypatch.setattr(sets, "public_sets", lambda: {"test": one})
    monkeypatch.chdir(tmp_path)
    return site


def test_the_verb(served: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "fetch", "test"]) == 0
    done = capsys.readouterr()
    assert done.out == "test: 2 fetched, checksums right\nnext: look at test\n"
    assert "licence: CC0" in done.err
    assert "2 of 2: g.bin" in done.err
    assert (tmp_path / "test" / "g.bin").read_bytes() == OTHER
    assert run(["data", "fetch", "test", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [file["url"] for file in document["files"]] == ["", ""]
    assert document["licence"] == "CC0"


def test_interrupted_it_says_how_to_go_on(
    served: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    copy = transfer._copy

    def interrupted(answer: Any, file: Any, done: int, whole: int | None, on_progress: Any) -> int:
        def press(count: int, of: int | None) -> None:
            if count > 0:
                raise KeyboardInterrupt

        return copy(answer, file, done, whole, press)

    monkeypatch.setattr(transfer, "_copy", interrupted)
    assert run(["data", "fetch", "test", "--out", "here"]) == 130
    assert "to resume: stpl-deploy data fetch test --out here" in capsys.readouterr().err
    kept = (tmp_path / "here" / ".f.bin.part").stat().st_size
    assert kept > 0
    monkeypatch.setattr(transfer, "_copy", copy)
    assert run(["data", "fetch", "test", "--out", "here"]) == 0
    assert ("/f.bin", f"bytes={kept}-") in served.asked
    assert (tmp_path / "here" / "f.bin").read_bytes() == BODY


def test_unknown_names_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    for word, near in (("kht", "kth"), ("fmi", "fmi-20160928"), ("movingmnist", "moving-mnist")):
        with pytest.raises(UsageError, match=f"no data set {word}.*try: .* fetch {near}"):
            public_set(word)
    assert run(["data", "fetch", "--list"]) == 0
    text = capsys.readouterr().out
    for one in public_sets().values():
        assert one.name in text
        assert one.licence in text
    assert run(["data", "fetch", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["checked"] for one in listed}["kth"] is False
    assert run(["data", "fetch", "--out", "x"]) == 2


def _local(one: str) -> Path:
    return {
        "fmi-20160928": SHARED / "radar" / "fmi_pgm" / "20160928",
        "knmi-20100826": SHARED / "radar" / "knmi_hdf5" / "201008",
        "era5-t2m-uk": SHARED / "weather_grid",
        "camera-people": SHARED / "video",
        "camera-cars": SHARED / "video",
        "mnist": SHARED / "mnist",
    }[one]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no files in ../shared/data")
@pytest.mark.parametrize(
    "name",
    ["fmi-20160928", "knmi-20100826", "era5-t2m-uk", "camera-people", "camera-cars", "mnist"],
)
def test_the_real_files_have_the_checksums_of_the_table(name: str) -> None:
    for file in public_set(name).files:
        body = (_local(name) / (file.at or file.name)).read_bytes()
        body = gzip.decompress(body) if file.unpack == "gz" else body
        kind, _, digits = (file.digest or "").partition(":")
        assert (hashlib.new(kind, body).hexdigest(), len(body)) == (digits, file.bytes)


def test_every_address_is_one() -> None:
    for one in public_sets().values():
        assert one.mirrors
        for mirror in one.mirrors:
            assert mirror.startswith(("https://", "http://"))
            assert not mirror.endswith("/")
        for file in one.files:
            kind, _, digits = (file.digest or "sha256:" + "0" * 64).partition(":")
            assert len(digits) == {"md5": 32, "sha1": 40, "sha256": 64}[kind]


Cli = Callable[..., Any]


def test_help_names_the_verb(cli: Cli) -> None:
    assert "--out" in cli("data", "fetch", "--help").stdout
