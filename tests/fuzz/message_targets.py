"""Messages of queues: changed, then taken as a stream takes them."""

from __future__ import annotations

import base64
import gzip
import zlib
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import formats
from tests.fuzz.attempts import Attempt
from tests.fuzz.file_targets import READERS, example
from tests.fuzz.mutate import damaged, mutated


def messages(folder: Path) -> Attempt:
    """Messages of queues: bodies, names and facts, as they are and as notifications."""
    from stpl_core.codec import FrameCodec
    from stpl_runtime.options import Options
    from stpl_runtime.source import SourceSpec
    from stpl_runtime.sources.messages import OPTIONS, Messages
    from stpl_runtime.sources.queue_message import Message

    names = [n for n in READERS if "grib" not in n and n[-3:] not in ("mp4", "mkv", "avi")]
    whole = {name: example(name, folder) for name in names}
    spec = SourceSpec((1, 24, 32), FrameCodec(), cadence_s=300.0)
    plain = Messages(spec, Options("mqtt", {}, OPTIONS))
    fetching = Messages(spec, Options("mqtt", {"fetch": "yes"}, OPTIONS))
    facts: dict[str, Any] = {"name": "a.npy", "valid_time": "2024-01-01T00:00:00Z",
                             "dtype": "float32", "shape": "[24, 32]"}  # fmt: skip

    def attempt(seed: int) -> str:
        random = Random(seed)
        name = random.choice(names)
        change = formats.CHANGES.get(name.rpartition(".")[2], damaged)
        content = (change if random.randrange(2) else damaged)(whole[name], random)
        if random.randrange(6) == 0:
            content = random.choice([gzip.compress, zlib.compress])(content)
        if random.randrange(4) == 0:
            return _frames(fetching.arrivals(Message(_notification(content, random), "t", {})))
        bare = random.randrange(6) == 0
        if bare:
            content = bytes(random.choice([3072, 3072, 3071, 0, 6144]))
        topic = random.choice([name, "a/b/" + name, "a\x1b[2J.png", "x" * 300, "..", "a.nc.gz"])
        given = facts if bare else {"name": name, "valid_time": facts["valid_time"]}
        changed = mutated(given, random) if random.randrange(2) else given
        found = {key: str(value) for key, value in changed.items()}
        for key in random.sample(sorted(found), random.choice([0, 0, 0, min(len(found), 1)])):
            del found[key]
        return _frames(plain.arrivals(Message(content, topic, found)))

    return attempt


def _notification(content: bytes, random: Random) -> bytes:
    inline = base64.b64encode(random.choice([gzip.compress, bytes])(content)).decode()
    document = {"properties": {
        "datetime": "2024-01-01T00:00:00Z", "data_id": "a.npy",
        "content": {"encoding": random.choice(["base64", "gzip", "utf-8"]), "value": inline},
    }, "links": [{"rel": "canonical", "href": "file:///etc/hostname"}]}  # fmt: skip
    return formats.json_text(mutated(document, random), random)


def _frames(arrivals: Any) -> str:
    from stpl_runtime.source import BadFrame

    items = [arrival.item for arrival in arrivals]
    assert items
    return "refused" if isinstance(items[0], BadFrame) else "used"
