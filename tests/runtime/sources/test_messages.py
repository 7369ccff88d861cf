"""What others send never ends a stream, and what is secret is never shown."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import BadFrame, SourceSpec
from stpl_runtime.sources import messages
from stpl_runtime.sources.messages import Messages
from stpl_runtime.sources.queue_message import Message
from stpl_runtime.streaming.opening import named_sources

ARRAY = {"dtype": "float32", "shape": "[16, 16]", "valid_time": "2026-01-31T23:50:00Z"}
CUT = base64.b64encode(gzip.compress(b"frame" * 100, mtime=0)[:20]).decode()


@pytest.mark.parametrize(
    "facts",
    [
        {"valid_time": "0001-01-01T00:00:00+14:00"},
        {"valid_time": "9999-12-31T23:59:00-14:00"},
        {"shape": "[" * 100_000},
        {"shape": "[99999999999999999999999]"},
        {"dtype": "(2,"},
    ],
)
def test_facts_that_no_library_takes_are_a_bad_frame(bundle: Bundle, facts: dict[str, str]) -> None:
    assert_bad(bundle, Message(b"\0" * 1024, "radar", {**ARRAY, **facts}))


@pytest.mark.parametrize(
    "content",
    [
        b'{"url": "http://[::1"}',
        b'{"url": "http://host\\u0000/x"}',
        b"[" * 100_000,
        json.dumps({"properties": {"content": {"encoding": "gzip", "value": CUT}}}).encode(),
    ],
)
def test_notifications_that_are_wrong_are_a_bad_frame(bundle: Bundle, content: bytes) -> None:
    pytest.importorskip("httpx")
    assert_bad(bundle, Message(content, "radar"), fetch="yes")


def assert_bad(bundle: Bundle, message: Message, **given: str) -> None:
    spec = SourceSpec(bundle.manifest.frame, bundle.manifest.codec, options=given)
    decoder = Messages(spec, Options("queue", given, messages.OPTIONS))
    (arrival,) = decoder.arrivals(message)
    decoder.close()
    assert isinstance(arrival.item, BadFrame)
    assert arrival.item.reason


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("access_token=s3cret", "access_token=***"),
        ("api_key=s3cret&level=1", "api_key=***&level=1"),
        ("apikey=s3cret", "apikey=***"),
        ("X-Amz-Credential=s3cret&x=2", "X-Amz-Credential=***&x=2"),
        ("appid=s3cret", "appid=***"),
        ("sp=r&sig=s3cret", "sp=r&sig=***"),
        ("level=1&design=2", "level=1&design=2"),
    ],
)
def test_secrets_of_a_query_are_left_out(query: str, left: str) -> None:
    assert without_credentials(f"http://host/x?{query}") == f"http://host/x?{left}"


def test_names_of_streams_hold_no_password() -> None:
    words = ["rtsp://eva:s3cret@10.0.0.5", "zmq://eva:s3@cret@host", "http://eva:s3cret@h/live.png"]
    assert list(named_sources(words)) == ["10.0.0.5", "host", "live.png"]
    with pytest.raises(UsageError) as caught:
        named_sources(["mqtt://eva:s3cret@a/t", "mqtt://eva:s3cret@b/t"])
    assert "s3cret" not in str(caught.value)
    assert "t-1=mqtt://***@a/t" in str(caught.value)
