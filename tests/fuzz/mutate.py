"""Changes that keep a file's form and break its sense, each with its checksums made right."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("STPL_FUZZ_EXAMPLES", "0"))
"""Of each test, by hand (make fuzz); 0: the few of every run."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320,
    "", "a", "\x1b[31m", "../x", "/etc/hostname", "x" * 300, "frame", "state.layer0.h", "float64",
    "float16", "object", "NaN", "1", [], [[]], {}, [0], [1, 2, 3], [-1, 1, 1], [10**9] * 3,
    {"a": 1}, [None], ["a", "a"], "2024-13-45", "\u202e", "\0",
)  # fmt: skip


def few(count: int) -> settings:
    """Settings of a test with so many examples in every run."""
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document lies."""
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def mutated(document: Any, random: Random) -> Any:
    """A copy with one to three values changed, removed, doubled, or exchanged for one another."""
    document = copy.deepcopy(document)
    for _ in range(random.randint(1, 3)):
        found = list(places(document))
        if not found:
            return document
        *way, key = random.choice(found)
        holder = _at(document, way)
        kind = random.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            other = random.choice(found)
            holder[key] = copy.deepcopy(_at(document, other))
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 3 and isinstance(holder[key], (int, float)) and holder[key] is not True:
            holder[key] = random.choice([-holder[key], holder[key] * 2, holder[key] + 1])
        else:
            holder[key] = copy.deepcopy(random.choice(ODD))
    return document


def _at(document: Any, way: Any) -> Any:
    for key in way:
        document = document[key]
    return document


def manifest_bytes(document: dict[str, Any]) -> bytes:
    """A manifest's text with its checksum right, whatever it says."""
    zeros = "0" * 64
    document = {key: value for key, value in document.items() if key != "manifest_sha256"}
    text = json.dumps({**document, "manifest_sha256": zeros}, indent=2) + "\n"
    head, _, tail = text.rpartition(zeros)
    return (head + hashlib.sha256(text.encode()).hexdigest() + tail).encode()


def damaged(content: bytes, random: Random) -> bytes:
    """Bytes changed, cut off, doubled or moved."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        if not changed:
            break
        place = random.randrange(len(changed))
        kind = random.randrange(5)
        if kind == 0:
            changed[place] = random.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << random.randrange(8)
        elif kind == 2:
            del changed[place : place + random.randint(1, 40)]
        elif kind == 3:
            changed[place:place] = changed[place : place + random.randint(1, 40)]
        else:
            width = random.choice([1, 2, 4, 8])
            value = random.choice([0, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)])
            changed[place : place + width] = value.to_bytes(width, random.choice(["little", "big"]))
    return bytes(changed)


def mutated_npz(content: bytes, random: Random) -> bytes:
    """An archive of arrays with one changed in type or shape, removed or exchanged; or damaged."""
    if random.randrange(3) == 0:
        return damaged(content, random)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = random.choice(list(arrays))
    kind = random.randrange(6)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = arrays[random.choice(list(arrays))]
    elif kind == 2:
        kinds = (
            ["f2", "f8", "i1", "u8", "?", "U9", "c8"] if arrays[name].dtype.kind != "U" else ["S9"]
        )
        arrays[name] = arrays[name].astype(random.choice(kinds))
    elif kind == 3:
        arrays[name] = arrays[name].ravel()[: random.randint(0, 5)]
    elif kind == 4:
        arrays[name] = np.full(arrays[name].shape, random.choice([np.nan, np.inf, 1e38]), "f4")
    else:
        arrays[name] = arrays[name][None]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # names are ours
    return buffer.getvalue()
