"""What a signature adds to opening a bundle, beside the hashing of its files.

    python -m benchmarks.signature_time [--rounds 50] [--out RESULTS.json]

Opened in turn: without keys, with one trusted key, with a folder of 100 of which the last signed.
Bundles of three sizes; every file is hashed in each case. Writes benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.bundle import open_bundle, seal
from stpl_core.files import atomic_file, sha256_of
from stpl_core.machine import describe
from stpl_core.safety.sign_bundle import sign_bundle
from stpl_core.safety.signing import check_signature, new_key, trusted_keys
from stpl_deploy.cli.reports.output import document_text

TINY = Path(__file__).parents[1] / "tests" / "data" / "convlstm-tiny.bundle"
RESULT = Path(__file__).parent / "results" / "signature-time.json"
_MEGABYTES = (0, 10, 100)
"""Of weights more than the tiny bundle has."""
_KEYS = 100


def signed_bundle(room: Path, megabytes: int) -> Path:
    """A bundle with so much more in its weights, signed."""
    bundle = Path(shutil.copytree(TINY, room / f"{megabytes}.bundle"))
    with (bundle / "weights.safetensors").open("ab") as file:
        file.write(np.random.default_rng(0).bytes(megabytes * 10**6))
    seal(bundle, open_bundle(TINY).manifest)
    sign_bundle(bundle, room / "signer", version=1)
    return bundle


def milliseconds(work: Callable[[], object]) -> float:
    """One call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def measured(bundle: Path, room: Path, rounds: int) -> dict[str, Any]:
    """Medians, in ms; the ways take turns, so that what else runs meets them alike."""
    one, many = trusted_keys(room / "signer.pub"), trusted_keys(room / "many")
    content = (bundle / "manifest.json").read_bytes()
    ways: dict[str, Callable[[], object]] = {
        "hashing_ms": lambda: [sha256_of(path) for path in bundle.iterdir()],
        "opened_without_keys_ms": lambda: open_bundle(bundle),
        "opened_with_one_key_ms": lambda: open_bundle(bundle, trusted=one),
        f"opened_with_{_KEYS}_keys_ms": lambda: open_bundle(bundle, trusted=many),
        "signature_alone_ms": lambda: check_signature(bundle, content, one),
        f"signature_alone_{_KEYS}_keys_ms": lambda: check_signature(bundle, content, many),
        "keys_read_ms": lambda: trusted_keys(room / "signer.pub"),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            times[way].append(milliseconds(work))
    found = {way: round(statistics.median(values), 3) for way, values in times.items()}
    alone, hashing = found["signature_alone_ms"], found["hashing_ms"]
    size = sum(path.stat().st_size for path in bundle.iterdir())
    return {"bytes": size, **found, "signature_of_hashing": round(alone / hashing, 4)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        (room / "many").mkdir()
        new_key(room / "signer")
        for n in range(_KEYS - 1):
            shutil.move(new_key(room / f"other{n}"), room / "many" / f"{n:03}.pub")
        shutil.copy(room / "signer.pub", room / "many" / "signer.pub")
        sizes = [measured(signed_bundle(room, size), room, options.rounds) for size in _MEGABYTES]
    result = {"machine": describe(), "rounds": options.rounds, "bundles": sizes}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    with atomic_file(options.out) as file:
        file.write(document_text(result).encode())


if __name__ == "__main__":
    main()
