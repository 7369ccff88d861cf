"""MJPEG over HTTP, and digest passwords, against a real server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("httpx")
av = pytest.importorskip("av")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.errors import UsageError  # noqa: E402
from stpl_core.frames import Frame  # noqa: E402
from stpl_core.safety.budget import most_pixels, set_most_pixels  # noqa: E402
from stpl_runtime.ingest.multipart import (  # noqa: E402
    Multipart,
    NotMultipartError,
    boundary_of,
)
from stpl_runtime.source import BadFrame, Source, open_source  # noqa: E402
from tests.runtime.conftest import Cli  # noqa: E402
from tests.runtime.sources.source_reader import SourceReader  # noqa: E402
from tests.runtime.sources.web_camera import (  # noqa: E402
    MIXED,
    Camera,
    Handler,
    film,
    jpeg,
    levels,
    part,
    serve_folder,
    spec,
)

# -- MJPEG ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["http", "mjpeg+http"])
@pytest.mark.parametrize("length", [True, False])
def test_pictures_without_an_end(camera: Camera, word: str, length: bool) -> None:
    parts = [part(jpeg(40 * n), length=length) for n in range(1, 5)]
    ends = b"--frame\r\n"  # without a length, a part is whole when the next one begins
    camera.answer = lambda handler: handler.stream(MIXED, [*parts, ends], stays=True)
    before = datetime.now(timezone.utc)
    with SourceReader(open_source(f"{word}://{camera.root}/video.mjpg", spec())) as reader:
        reader.wait_for(4)
        assert reader.source.health.now().state == "up"
        camera.closing.set()
    found = levels(reader)
    assert all(abs(a - b) <= 2 for a, b in zip(found[:4], [40, 80, 120, 160], strict=True))
    times = [frame.valid_time for frame in reader.frames]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= datetime.now(timezone.utc)  # arrival, whatever the names say
    assert reader.frames[0].data.shape == (1, 16, 16)
    assert reader.frames[0].notes["resized"]


def test_bad_parts_are_bad_frames_and_the_others_arrive(camera: Camera) -> None:
    whole, large = jpeg(90), os.urandom(300_000)
    parts = [
        part(whole),
        part(b"no picture"),
        part(b""),
        part(whole[: len(whole) // 2]),
        part(large),
        part(large, length=False),
        part(jpeg(200)),
    ]
    camera.answer = lambda handler: handler.stream(MIXED, [*parts, b"--frame--\r\n"], stays=True)
    with SourceReader(open_source(f"http://{camera.root}/a", spec(max_mb="0.1"))) as reader:
        items = reader.wait_for(7)
        camera.closing.set()
    assert [isinstance(item, BadFrame) for item in items] == [False, *[True] * 5, False]
    reasons = [item.reason for item in items if isinstance(item, BadFrame)]
    assert "an empty part" in reasons[1]
    assert "max_mb=" in reasons[3]
    assert "max_mb=" in reasons[4]


def test_every_part_is_counted_once(camera: Camera, cli: Cli, bundle: Bundle) -> None:
    good, bad = [part(jpeg(40 + 20 * n)) for n in range(5)], [part(b"x"), part(b""), part(b"y")]
    parts = [*good[:2], *bad, *good[2:]]
    camera.answer = lambda handler: handler.stream(MIXED, parts, stays=True)
    word = f"http://{camera.root}/a"
    code, out, err = cli("stream", bundle.path, word, "--idle-timeout", 3, "--json",
                         "--policy", "queue", "--source-option", "timeout=30",
                         "--log-format", "json")  # fmt: skip
    assert code == 0, err
    counts = json.loads(out)["counts"]
    assert counts["received"] == 8
    assert counts["bad"] == 3
    fates = ("used", "late", "duplicate", "dropped", "bad", "pending")
    assert sum(counts[fate] for fate in fates) == 8
    logged = {line["message"]: line["level"] for line in map(json.loads, err.splitlines())}
    assert logged[f"{word} is MJPEG: read as mjpeg+http:"] == "info"


def test_a_picture_beyond_the_budget_is_not_decoded(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part(jpeg(90, 512)), part(jpeg(90))]
    camera.answer = lambda handler: handler.stream(MIXED, parts, stays=True)
    monkeypatch.setattr(Image.Image, "load", _unless_large(Image.Image.load))
    before = most_pixels()
    set_most_pixels(100_000)
    try:
        with SourceReader(open_source(f"http://{camera.root}/a", spec())) as reader:
            bad, good = reader.wait_for(2)
            camera.closing.set()
    finally:
        set_most_pixels(before)
    assert isinstance(bad, BadFrame)
    assert "--max-pixels" in bad.reason
    assert isinstance(good, Frame)


def _unless_large(load: Callable[[Image.Image], object]) -> Callable[[Image.Image], object]:
    def checked(image: Image.Image) -> object:
        assert image.width < 512, "it was decoded"
        return load(image)

    return checked


def test_a_camera_that_goes_away_is_found_again(camera: Camera) -> None:
    camera.answer = lambda handler: handler.stream(MIXED, [part(jpeg(50))], stays=False)
    with SourceReader(open_source(f"http://{camera.root}/a", spec())) as reader:
        reader.wait_for(3)  # three connections
        assert reader.source.health.now().reconnects >= 2
        port = camera.server_address[1]
        camera.close()
        reader.wait_for_state("down")
        count = len(reader.items)
        again = Camera(port)
        again.answer = lambda handler: handler.stream(MIXED, [part(jpeg(99))], stays=True)
        reader.wait_for(count + 1)
        reader.wait_for_state("up")
        again.close()


def test_a_silent_camera_is_down(camera: Camera) -> None:
    camera.answer = lambda handler: handler.stream(MIXED, [b"--frame\r\n"], stays=True)
    source = open_source(f"mjpeg+http://{camera.root}/a", spec(timeout="0.2"))
    with SourceReader(source) as reader:
        assert reader.wait_for_state("down").reason
    assert not reader.items


def test_with_a_cadence_slots_are_taken(camera: Camera) -> None:
    """Far more pictures than slots: no slot twice, each frame near its own."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", MIXED)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not handler.server.closing.wait(0.01):
                handler.wfile.write(part(jpeg(70)))

    camera.answer = answer
    with SourceReader(open_source(f"http://{camera.root}/a", spec(0.2))) as reader:
        reader.wait_for(4)
        camera.closing.set()
    stamps = [frame.valid_time.timestamp() / 0.2 for frame in reader.frames]
    slots = [round(stamp) for stamp in stamps]
    assert slots == list(dict.fromkeys(slots))
    assert all(abs(stamp - slot) <= 0.25 for stamp, slot in zip(stamps, slots, strict=True))


@given(
    contents=st.lists(st.binary(max_size=200).filter(lambda c: b"--B" not in c), max_size=5),
    cuts=st.lists(st.integers(1, 60), max_size=40),
    lengths=st.booleans(),
    newline=st.sampled_from([b"\r\n", b"\n"]),
)
@settings(max_examples=60, deadline=None)
def test_parts_come_out_as_they_went_in(
    contents: list[bytes], cuts: list[int], lengths: bool, newline: bytes
) -> None:
    body = b"preamble" + newline
    for content in contents:
        size = b"Content-length: %d" % len(content) + newline if lengths else b""
        body += b"--B" + newline + b"X: y" + newline + size + newline + content + newline
    body += b"--B--"
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(body[at : at + cut])
        at += cut
    chunks.append(body[at:])
    found = list(Multipart([chunk for chunk in chunks if chunk], b"--B", 1000).parts())
    wanted = (
        contents
        if lengths
        else [c.removesuffix(b"\r") if newline == b"\n" else c for c in contents]
    )
    assert found == wanted


def test_boundaries_as_cameras_write_them() -> None:
    for text in ('boundary="--a b"', "boundary=--a b", 'x=1; boundary="a b"'):
        assert boundary_of(f"multipart/x-mixed-replace; {text}") == b"--a b"
    with pytest.raises(NotMultipartError):
        boundary_of("multipart/x-mixed-replace")
    with pytest.raises(NotMultipartError):
        list(Multipart([b"x" * 70_000], b"--B", 10).parts())


# -- passwords -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_digest_password_is_never_sent_in_clear(camera: Camera, algorithm: str) -> None:
    camera.password, camera.algorithm, camera.uses_of_a_nonce = "se:cret@/", algorithm, 2
    numbers = iter(range(1, 1000))
    camera.answer = lambda handler: handler.give(200, jpeg(next(numbers) % 250, 16))
    word = f"http://olga:se%3Acret%40%2F@{camera.root}/a.jpg?x=1"
    with SourceReader(open_source(word, spec(interval="0.01"))) as reader:
        reader.wait_for(5)  # the nonce runs out meanwhile
        assert reader.source.health.now().reconnects == 0
    assert all(not given or given.startswith("Digest ") for _, given, _ in camera.seen)
    assert camera.seen[0][1:] == ("", 401)
    for secret in ("olga", "cret"):
        assert secret not in f"{reader.source.name} {reader.source.health.now().reason}"


def test_a_wrong_digest_password_is_down_and_said(camera: Camera) -> None:
    camera.password = "right"
    with SourceReader(open_source(f"http://a:wrong@{camera.root}/a.jpg", spec())) as reader:
        assert reader.wait_for_state("down").reason == "HTTP 401 Unauthorized"


def test_mjpeg_and_hls_with_digest(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.password = "geheim"
    monkeypatch.setenv("CAMERA_PASSWORD", "geheim")
    camera.answer = lambda handler: handler.stream(MIXED, [part(jpeg(50))], stays=True)
    options = {"password_env": "CAMERA_PASSWORD"}
    with SourceReader(open_source(f"http://olga@{camera.root}/a", spec(**options))) as reader:
        reader.wait_for(1)
        camera.closing.set()
    film(tmp_path, 10)
    serve_folder(camera, tmp_path)
    word = f"http://olga@{camera.root}/live.m3u8"
    with SourceReader(open_source(word, spec(speed="0", **options))) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 10
    assert {given.split()[0] for _, given, status in camera.seen if status == 200} == {"Digest"}


def test_another_host_gets_no_credentials(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a redirect, which asks for a password of its own; 127.0.0.1 leads to localhost."""
    other = Camera()
    other.password = "geheim"
    where = f"http://localhost:{other.server_address[1]}/b.jpg"
    camera.answer = lambda handler: handler.give(302, b"", {"Location": where})
    word = f"http://olga:geheim@{camera.root}/a.jpg"
    with SourceReader(open_source(word, spec(interval="0.01"))) as reader:
        reader.wait_for_state("down")
    assert other.seen
    assert not any(given for _, given, _ in other.seen)
    other.close()


def test_a_web_page_is_told(camera: Camera) -> None:
    camera.answer = lambda handler: handler.give(200, b"<!DOCTYPE html><title>x</title>")
    with SourceReader(open_source(f"http://{camera.root}/", spec(interval="0.01"))) as reader:
        (item,) = reader.wait_for(1)
    assert isinstance(item, BadFrame)
    assert "is a web page" in item.reason


def test_the_modules_are_sources() -> None:
    for word in ("mjpeg+https", "hls+https"):
        source: Source = open_source(f"{word}://olga:geheim@h/x", spec())
        assert source.name == "https://h/x"
        with pytest.raises(UsageError, match="no option intervall"):
            open_source(f"{word}://h/x", spec(intervall="1"))
