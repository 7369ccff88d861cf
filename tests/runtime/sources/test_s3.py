"""Buckets, against moto's S3 server on loopback."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_runtime.source import BadFrame, SourceSpec, open_source
from stpl_runtime.sources.s3 import BucketSource
from tests.runtime.conftest import picture, slot_time
from tests.runtime.sources.source_reader import SourceReader

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The endpoint of a running server."""
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A new bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"b{abs(hash(request.node.name)):x}"
    made = boto3.resource("s3", endpoint_url=server).Bucket(name)
    made.create()
    return made


def spec(server: str, **options: str) -> SourceSpec:
    given = {"endpoint": server, "interval": "0.05", **options}
    return SourceSpec((1, 16, 16), FrameCodec(), options=given)


def npy(slot: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, picture(slot))
    return buffer.getvalue()


def key(slot: int) -> str:
    return f"radar/x_{slot_time(slot):%Y%m%d%H%M}.npy"


def test_new_keys_in_the_order_of_time_and_corrections(server: str, bucket: Any) -> None:
    for slot in (3, 1, 2, 0):
        bucket.put_object(Key=key(slot), Body=npy(slot))
    bucket.put_object(Key="radar/notes.txt", Body=b"no frame")
    bucket.put_object(Key="other/x_202601010000.npy", Body=npy(9))
    word = f"s3://{bucket.name}/radar/"
    with SourceReader(open_source(word, spec(server, backlog="3"))) as reader:
        reader.wait_for(3)
        bucket.put_object(Key=key(4), Body=npy(4))
        reader.wait_for(4)
        bucket.put_object(Key=key(4), Body=npy(5))  # a correction
        reader.wait_for(5)
        bucket.put_object(Key=key(4), Body=npy(5))  # the same again
        bucket.put_object(Key=key(6), Body=b"garbage")
        bad = reader.wait_for(6)[5]
    slots = [getattr(item, "valid_time", None) for item in reader.items]
    assert slots == [slot_time(n) for n in (1, 2, 3, 4, 4)] + [None]
    assert isinstance(bad, BadFrame)
    for slot, item in zip((1, 2, 3, 4, 5), reader.items, strict=False):
        np.testing.assert_array_equal(item.data, picture(slot))  # type: ignore[union-attr]


def test_a_prefix_with_the_day_and_a_time_of_its_own(server: str, bucket: Any) -> None:
    """Yesterday's and today's are listed; what has no time in its name has the object's."""
    now = datetime.now(timezone.utc)
    for days in (0, 1, 5):
        day = now - timedelta(days=days)
        bucket.put_object(Key=f"{day:%Y%m%d}/latest{days}a.npy", Body=npy(days), ACL="public-read")
    word = f"s3://{bucket.name}/%Y%m%d/latest"
    with SourceReader(open_source(word, spec(server, anonymous="yes"))) as reader:
        reader.wait_for(2)
        bucket.put_object(Key=f"{now:%Y%m%d}/latest7a.npy", Body=npy(7), ACL="public-read")
        bucket.put_object(Key=f"{now:%Y%m%d}/other7a.npy", Body=npy(7))
        reader.wait_for(3)
    frames = reader.frames
    assert [frame.source_id for frame in frames][2] == "latest7a.npy"
    assert {frame.source_id for frame in frames[:2]} == {"latest0a.npy", "latest1a.npy"}
    assert all(abs((frame.valid_time - now).total_seconds()) < 60 for frame in frames)


def test_too_large_objects_are_bad_and_not_read(server: str, bucket: Any) -> None:
    bucket.put_object(Key=key(0), Body=npy(0))
    with SourceReader(open_source(f"s3://{bucket.name}/", spec(server, max_mb="0.001"))) as reader:
        (bad,) = reader.wait_for(1)
    assert isinstance(bad, BadFrame)
    assert "expected at most 0.001 MB" in bad.reason


def test_a_server_that_goes_and_comes_back(bucket: Any) -> None:
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    bucket.put_object(Key=key(0), Body=npy(0))
    source = open_source(f"s3://{bucket.name}/radar/", spec(f"http://{host}:{port}"))
    with SourceReader(source) as reader:
        reader.wait_for(1)
        running.stop()
        assert reader.wait_for_state("down").reason
        bucket.put_object(Key=key(1), Body=npy(1))  # by the other server: they share memory
        time.sleep(1.0)  # long enough for the back-off to grow
        running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        running.start()
        back = time.monotonic()
        reader.wait_for(2)
        took = reader.arrivals[1].arrived - back
        assert source.health.now().reconnects == 1
    running.stop()
    sys.stderr.write(f"s3: found again after {took:.2f} s\n")
    assert took < 10.0  # 2 s on a quiet machine


def test_objects_that_may_not_be_read_are_down_without_a_pause(server: str, bucket: Any) -> None:
    bucket.put_object(Key=key(0), Body=npy(0))
    source = open_source(f"s3://{bucket.name}/radar/", spec(server, anonymous="yes"))
    with SourceReader(source) as reader:
        assert reader.wait_for_state("down").reason == "Forbidden"
        time.sleep(0.3)
        assert source.health.now().reconnects == 0
        bucket.Object(key(0)).Acl().put(ACL="public-read")
        reader.wait_for(1)


def test_many_objects_that_may_not_be_read_are_asked_for_in_turn(server: str, bucket: Any) -> None:
    for slot in range(9):
        bucket.put_object(Key=key(slot), Body=npy(slot))
    source = open_source(f"s3://{bucket.name}/radar/", spec(server, anonymous="yes"))
    with SourceReader(source) as reader:
        reader.wait_for_state("down")
        bucket.Object(key(8)).Acl().put(ACL="public-read")  # the last one
        reader.wait_for(1)
        assert reader.frames[0].valid_time == slot_time(8)


def test_an_object_that_may_not_be_read_holds_up_no_other(server: str, bucket: Any) -> None:
    """The oldest of them; it is bad once others could be read for a while."""
    bucket.put_object(Key=key(0), Body=npy(0))
    for slot in (1, 2):
        bucket.put_object(Key=key(slot), Body=npy(slot), ACL="public-read")
    source = open_source(f"s3://{bucket.name}/radar/", spec(server, anonymous="yes"))
    assert isinstance(source, BucketSource)
    source._patience_s = 0.3
    with SourceReader(source) as reader:
        reader.wait_for(2)
        bad = reader.wait_for(3)[2]
        bucket.put_object(Key=key(3), Body=npy(3), ACL="public-read")
        reader.wait_for(4)
        assert source.health.now().state == "up"
    assert isinstance(bad, BadFrame)
    assert bad.reason == "cannot be read: Forbidden"
    slots = [getattr(item, "valid_time", None) for item in reader.items]
    assert slots == [slot_time(1), slot_time(2), None, slot_time(3)]


def test_a_bucket_that_is_not_there_is_down(server: str, bucket: Any) -> None:
    with SourceReader(open_source("s3://no-such-bucket/radar/", spec(server))) as reader:
        assert "bucket does not exist" in reader.wait_for_state("down").reason


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        open_source("s3:///radar", spec("http://127.0.0.1:1"))
    with pytest.raises(UsageError, match="anonymous=maybe; expected yes or no"):
        open_source("s3://b/radar", spec("http://127.0.0.1:1", anonymous="maybe"))
