"""Manifests, graphs and references of a stranger: one line or used, never a traceback."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from stpl_core.bundle import MANIFEST, open_bundle
from stpl_core.errors import StplError
from stpl_core.files import sha256_of
from stpl_deploy.cli import run
from stpl_runtime.engine import open_session
from tests.fuzz.mutate import damaged, few, manifest_bytes, mutated, mutated_npz

TINY = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
SEED = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose files are put back before each example, and frames for it."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(TINY, folder / "b")
    np.save(folder / "frames.npy", np.random.default_rng(0).random((4, 1, 16, 16), np.float32))
    return folder


def fresh(room: Path) -> tuple[Path, dict[str, Any]]:
    bundle = room / "b"
    for file in TINY.iterdir():
        if not (bundle / file.name).is_file() or sha256_of(bundle / file.name) != sha256_of(file):
            shutil.copy(file, bundle / file.name)
    document: dict[str, Any] = json.loads((TINY / MANIFEST).read_bytes())
    return bundle, document


def put(bundle: Path, document: dict[str, Any], name: str, content: bytes) -> None:
    """A file with its size and checksum right."""
    (bundle / name).write_bytes(content)
    document["files"][name] = {"bytes": len(content), "sha256": sha256_of(bundle / name)}
    (bundle / MANIFEST).write_bytes(manifest_bytes(document))


def check_verbs(room: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither `inspect` nor `predict` ends with a traceback (exit code 1)."""
    out = room / "out.npz"
    for words in (
        ["inspect", str(bundle)],
        ["inspect", str(bundle), "--json"],
        ["predict", str(bundle), str(room / "frames.npy"), "--out", str(out), "--overwrite"],
    ):
        code = run(words)
        output = capsys.readouterr()
        assert code in (0, 2, 3, 4), output.err[-2000:]
        assert "\x1b[31m" not in output.out + output.err
        if code in (2, 3):
            # `predict` has said what it took the frames for before it found the fault.
            lines = [line for line in output.err.splitlines() if not line.startswith("data /")]
            assert len(lines) == 1, output.err
            assert lines[0].startswith("error: "), output.err


@few(25)
@given(seed=SEED)
def test_manifests(room: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    bundle, document = fresh(room)
    (bundle / MANIFEST).write_bytes(manifest_bytes(mutated(document, Random(seed))))
    check_verbs(room, bundle, capsys)


@few(60)
@given(seed=SEED)
def test_graphs(room: Path, seed: int) -> None:
    """Judged alone: what passes may still end a runtime, for which there is `--isolated`."""
    from stpl_runtime.engines.checked_graphs import check_graphs

    bundle, document = fresh(room)
    random = Random(seed)
    name = random.choice(["step.onnx", "forecast.onnx", "rollout.onnx"])
    put(bundle, document, name, damaged((TINY / name).read_bytes(), random))
    with suppress(StplError):
        check_graphs(open_bundle(bundle), ["step", "forecast", "rollout"])


@few(15)
@given(seed=SEED)
def test_references(room: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    bundle, document = fresh(room)
    content = mutated_npz((TINY / "reference.npz").read_bytes(), Random(seed))
    put(bundle, document, "reference.npz", content)
    code = run(["verify", str(bundle), "--threads", "1"])
    output = capsys.readouterr()
    assert code in (0, 2, 3, 4), output.err[-2000:]


def test_the_bundle_is_good_unless_it_is_changed(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else everything above would be refused for a reason of its own."""
    bundle, document = fresh(room)
    put(bundle, document, "reference.npz", (TINY / "reference.npz").read_bytes())
    assert run(["verify", str(bundle), "--threads", "1"]) == 0
    check_verbs(room, bundle, capsys)
    open_session(open_bundle(bundle), ["step"]).close()
