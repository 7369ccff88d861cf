"""The webhook against a server that answers as it is set."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from stpl_core.errors import SinkError, UsageError
from stpl_runtime.sink import open_sink, open_sinks
from tests.runtime.links.brokers import free_port
from tests.runtime.sinks.test_sinks import make_nowcast


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; `answers` are given in turn, then 204."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.posts: list[tuple[str, Message, bytes]] = []
        self.delay_s = 0.0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/T0/s3cret"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, self.headers, body))
        time.sleep(self.server.delay_s)
        if self.server.delay_s:
            return
        code, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0" if code != 200 else str(10**12))
        self.end_headers()
        with contextlib.suppress(OSError):  # until nobody listens
            while code == 200:
                self.wfile.write(b"x" * 1000)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_each_nowcast_is_posted(receiver: Receiver, tmp_path: Path) -> None:
    hook, _ = open_sinks([f"webhook:{receiver.url}", f"npz:{tmp_path}"])
    for minutes in (0, 5):
        hook.write(make_nowcast(minutes=minutes))
    hook.close()
    assert [path for path, _, _ in receiver.posts] == ["/T0/s3cret"] * 2
    _, headers, body = receiver.posts[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "nowcast/nowcast_20260131T235000Z"
    assert headers["X-Hub-Signature-256"] is None
    document = json.loads(body)
    assert document["issue_time"] == "2026-01-31T23:50:00Z"
    assert document["files"] == [f"{tmp_path}/nowcast_20260131T235000Z.npz"]


def test_an_answer_without_an_end_holds_nobody_up(receiver: Receiver) -> None:
    hook = open_sink(f"webhook:{receiver.url}")
    receiver.answers = [(200, {})] * 2
    for minutes in (0, 5, 10):
        hook.write(make_nowcast(minutes=minutes))
    hook.close()
    assert len(receiver.posts) == 3


def test_a_stream_of_any_name(receiver: Receiver) -> None:
    hook = open_sink(f"webhook:{receiver.url}")
    hook.write(replace(make_nowcast(), stream="a-雨"))
    hook.close()
    _, headers, body = receiver.posts[0]
    assert headers["Idempotency-Key"] == "a-%E9%9B%A8/nowcast_20260131T235000Z"
    assert json.loads(body)["stream"] == "a-雨"


def test_signed_with_frames_attached(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "hush")
    hook = open_sink(f"webhook,attach=npz,secret_env=HOOK_SECRET:{receiver.url}")
    hook.write(make_nowcast())
    hook.close()
    _, headers, body = receiver.posts[0]
    wanted = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert headers["X-Hub-Signature-256"] == f"sha256={wanted}"
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    parts: list[Any] = BytesParser().parsebytes(head + body).get_payload()  # type: ignore[assignment]
    line, file = (part.get_payload(decode=True) for part in parts)
    assert json.loads(line)["quantity"] == "rain rate"
    assert parts[1].get_filename() == "nowcast_20260131T235000Z.npz"
    with np.load(io.BytesIO(file)) as archive:
        np.testing.assert_array_equal(archive["frames"], make_nowcast().frames)


def test_it_is_tried_again_while_that_helps(receiver: Receiver) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"})]
    hook = open_sink(f"webhook,tries=3:{receiver.url}")
    hook.write(make_nowcast())
    assert len(receiver.posts) == 3
    bodies = {body for _, _, body in receiver.posts}
    assert len(bodies) == 1
    receiver.answers = [(503, {})] * 3
    with pytest.raises(SinkError, match="answered 503 Service Unavailable"):
        hook.write(make_nowcast())
    assert len(receiver.posts) == 6
    for code in (404, 302):
        receiver.answers = [(code, {"Location": "/elsewhere"})]
        with pytest.raises(SinkError, match=f"answered {code}"):
            hook.write(make_nowcast())
    assert len(receiver.posts) == 8  # a wrong URL stays wrong
    hook.write(make_nowcast())
    hook.close()


def test_a_server_that_never_answers(receiver: Receiver) -> None:
    receiver.delay_s = 1.0
    hook = open_sink(f"webhook,tries=2,timeout=0.2:{receiver.url}")
    with pytest.raises(SinkError, match="timed out"):
        hook.write(make_nowcast())
    hook.close()


def test_closing_ends_the_waiting() -> None:
    hook = open_sink(f"webhook,tries=100:http://127.0.0.1:{free_port()}/x")
    failed: list[SinkError] = []

    def write() -> None:
        try:
            hook.write(make_nowcast())
        except SinkError as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    hook.close()
    thread.join(10.0)
    assert not thread.is_alive()
    assert "a server that is up" in str(failed[0])


def test_secrets_of_the_url_are_not_shown(receiver: Receiver) -> None:
    receiver.answers = [(404, {})]
    hook = open_sink(f"webhook:{receiver.url.replace('//', '//me:hush@')}?token=t0ken")
    with pytest.raises(SinkError) as caught:
        hook.write(make_nowcast())
    hook.close()
    assert not [word for word in ("s3cret", "hush", "t0ken") if word in str(caught.value)]
    assert f"http://127.0.0.1:{receiver.server_port}/" in str(caught.value)
    assert receiver.posts[0][1]["Authorization"].startswith("Basic ")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that its own owner signed, for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    found = folder / "own.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=own"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", found[0], "-keyout", found[1]]
    subprocess.run([openssl, *words, *more], check=True, capture_output=True)
    return found


def test_a_server_with_a_certificate_of_its_own_and_a_token(
    receiver: Receiver,
    certificate: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = receiver.url.replace("http:", "https:")
    monkeypatch.setenv("HOOK_TOKEN", "t0ken.in-env")
    (tmp_path / "token").write_text("t0ken.in-file\n")
    for option in ("token_env=HOOK_TOKEN", f"token_file={tmp_path / 'token'}"):
        hook = open_sink(f"webhook,ca={certificate[0]},{option}:{url}")
        hook.write(make_nowcast())
        hook.close()
        assert "t0ken" not in hook.name
    sent = [headers["Authorization"] for _, headers, _ in receiver.posts]
    assert sent == ["Bearer t0ken.in-env", "Bearer t0ken.in-file"]
    stranger = open_sink(f"webhook,token_env=HOOK_TOKEN,tries=1:{url}")
    with pytest.raises(SinkError, match=r"certificate .*ca=FILE"):
        stranger.write(make_nowcast())
    stranger.close()
    assert len(receiver.posts) == 2


def test_a_token_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("one\ntwo")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    for option, reason in (
        ("token_env=NOT_THERE", "NOT_THERE: no such environment variable"),
        (f"token_file={tmp_path}/none", "cannot be read: No such file"),
        (f"token_file={tmp_path}/empty", "is empty"),
        (f"token_file={tmp_path}/two", "leads to is no token"),
        (f"token_file={tmp_path}/bytes", "cannot be read: it is no text"),
        (f"token_env=HOOK_TOKEN,token_file={tmp_path}/two", "expected one of them"),
        (f"ca={tmp_path}/two", "expected a PEM file"),
    ):
        with pytest.raises(UsageError, match=reason) as caught:
            open_sink(f"webhook,{option}:https://host/")
        assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("webhook:host/path", "is no URL"),
        ("webhook:ftp://me:hush@host/path", "is no URL"),
        ("webhook:http://me:hush@host:port/path", "is no URL"),
        ("webhook:http://[::1/path", "is no URL"),
        ("webhook:http://host..org/path", "is no URL"),
        ("webhook:http:///path", "is no URL"),
        ("webhook,attach=gif:http://host/", "expected one of none, npz"),
        ("webhook,secret_env=NOT_THERE:http://host/", "the environment has no NOT_THERE"),
        ("webhook,trys=3:http://host/", "has no option trys"),
        ("webhook,tries=0:http://host/", "a number from 1 to 100"),
    ],
)
def test_words_that_are_not_right(word: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        open_sink(word)
    assert "hush" not in str(caught.value)
