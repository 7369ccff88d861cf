"""`stpl-deploy data inspect URL`: what a live source is, and a command that works when typed."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import socket
import threading
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("httpx")

from stpl_core.bundle import Bundle
from stpl_core.errors import FrameError, SourceLostError
from stpl_runtime.sources.look import look_at
from tests.runtime.conftest import Cli, picture
from tests.runtime.links.brokers import free_port
from tests.runtime.sources.web_camera import (
    MIXED,
    Camera,
    film,
    part,
    serve_folder,
)


def npy(slot: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, picture(slot))
    return buffer.getvalue()


def typed(cli: Cli, line: str, bundle: Bundle, *more: object) -> tuple[int, str, str]:
    """What `next:` says, as a person types it."""
    program, *words = shlex.split(line.replace("BUNDLE", str(bundle.path)))
    assert program == "stpl-deploy"
    return cli(*words, *more)


def test_mjpeg(camera: Camera, cli: Cli, bundle: Bundle) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (200, 100, 20), np.uint8)).save(buffer, "JPEG")
    colours = buffer.getvalue()

    def answer(handler):  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.send_header("Content-Type", MIXED)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not handler.server.closing.wait(0.02):
                handler.wfile.write(part(colours))

    camera.answer = answer
    code, out, err = cli("data", "inspect", f"http://{camera.root}/video", "--seconds", 3)
    assert code == 0, err
    assert "looking for 3 s" in err
    for text in ("MJPEG", "mjpeg+http:", "3x64x64 (colour)", "of arrival", "plausible", "camera"):
        assert text in out, text
    line = out.partition("next: ")[2].strip()
    done = typed(cli, line, bundle, "--max-nowcasts", 1, "--cadence", 0.1, "--sink", "jsonl:-")
    assert done[0] == 0, done[2]
    assert json.loads(done[1])["quantity"]


def test_hls(camera: Camera, tmp_path: Path, cli: Cli, bundle: Bundle) -> None:
    film(tmp_path, 30)
    serve_folder(camera, tmp_path)
    word = f"http://{camera.root}/live.m3u8"
    code, out, err = cli("data", "inspect", word, "--seconds", 20, "--json",
                         "--source-option", "speed=0")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["word"] == "hls+http"
    assert found["format"].startswith("hls, h264, 10 pictures a second")
    assert found["shapes"] == [[3, 64, 64]] or found["shapes"] == [[1, 64, 64]]
    assert found["frames"] == 30
    assert found["cadence_s"] == 0.1
    assert found["recipe"] == "camera"
    assert (typed(cli, found["next"], bundle, "--max-nowcasts", 1))[0] == 0


def test_a_picture_that_is_polled(camera: Camera, cli: Cli, bundle: Bundle) -> None:
    stamp = format_datetime(datetime.now(timezone.utc), usegmt=True)
    camera.answer = lambda handler: handler.give(200, npy(1), {"Last-Modified": stamp})
    word = f"http://olga:geheim@{camera.root}/latest.npy"
    code, out, err = cli("data", "inspect", word, "--seconds", 0.5)
    assert code == 0, err
    assert "1x16x16 (grey)" in out
    assert "one frame: it did not change meanwhile" in out
    assert "plausible" in out
    assert "geheim" not in out + err
    assert "USER:PASSWORD@" in out


def test_messages_without_a_time(cli: Cli, bundle: Bundle) -> None:
    """ZeroMQ: the command asks for the time of arrival, since nothing else gives one."""
    zmq = pytest.importorskip("zmq")
    port = free_port()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket_:
        socket_.bind(f"tcp://127.0.0.1:{port}")
        socket_.setsockopt(zmq.LINGER, 0)

        def send() -> None:  # waits for whoever comes
            for n in range(12):
                socket_.send(npy(n))

        threading.Thread(target=send, daemon=True).start()
        word = f"zmq://127.0.0.1:{port}"
        code, out, err = cli("data", "inspect", word, "--seconds", 3,
                             "--source-option", "type=pull")  # fmt: skip
        assert code == 0, err
        assert "none: the frames carry no time" in out
        line = out.partition("next: ")[2].strip()
        assert "time=arrival" in line
        assert "type=pull" in line


@pytest.mark.parametrize(
    ("way", "code", "found"),
    [
        ("silent", 5, "answers, and sent nothing in 0.5 s"),
        ("page", 2, "is a web page, no frame"),
        ("password", 5, "needs a user and a password, or a token: HTTP 401 Unauthorized"),
        ("nobody", 5, "was not there in 0.5 s"),
        ("absent", 5, "is not there yet: HTTP 404"),
        ("text", 2, "expected"),
    ],
)
def test_what_gives_no_frame(camera: Camera, cli: Cli, way: str, code: int, found: str) -> None:
    path = "a-403/authentication"  # an address is no refusal
    word = f"http://olga:geheim@{camera.root}/{path}"
    page = b"<!DOCTYPE html><html></html>"
    if way == "silent":
        camera.answer = lambda handler: handler.stream(MIXED, [b"--frame\r\n"], stays=True)
    elif way == "page":
        camera.answer = lambda handler: handler.give(200, page, {"Content-Type": "text/html"})
    elif way == "password":
        camera.password = "another"
    elif way == "nobody":
        word = f"http://olga:geheim@127.0.0.1:{free_port()}/{path}"
    elif way == "text":
        camera.answer = lambda handler: handler.give(200, b"hello, world")
    seconds = 3.5 if way in ("page", "text") else 0.5  # what may still grow is asked for again
    status, out, err = cli("data", "inspect", word, "--seconds", seconds)
    assert (status, out) == (code, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert found in line
    assert "try: " in line
    assert "geheim" not in err


def test_words_and_paths(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(n) for n in range(3)]))
    code, out, _ = cli("data", "inspect", f"folder:{tmp_path}")
    assert code == 0
    assert "3 of 1x16x16" in out
    assert cli("data", "inspect", "htps://host/x")[2].count("https://host/x") == 1
    code, _, err = cli("data", "inspect", "http://h/x", "--recipe", "camera")
    assert (code, "--recipe with a live source" in err) == (2, True)


def test_mqtt_and_a_wrong_password(cli: Cli) -> None:
    """A broker that is not there, and a port where nothing speaks MQTT."""
    pytest.importorskip("paho.mqtt")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        word = f"mqtt://127.0.0.1:{deaf.getsockname()[1]}/radar"
        with pytest.raises(SourceLostError, match="was not there"):
            look_at(word, 0.5)
    with pytest.raises(SourceLostError, match="was not there"):
        look_at(f"mqtt://127.0.0.1:{free_port()}/radar", 0.5)


def test_a_pattern_of_a_url(camera: Camera) -> None:
    camera.answer = lambda handler: handler.give(200, npy(1))
    word = f"http://{camera.root}/%Y%m%d%H%M.npy"
    found = look_at(word, 2.0, {"back": "4"}, cadence_s=300.0)
    assert found.frames == 4
    assert found.cadence_s == 300.0
    assert "--cadence 300" in found.next
    with pytest.raises(FrameError):
        look_at(f"http://{camera.root}/x.png", 3.5)
