"""Bundles: whole, unchanged and of a known schema, or refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    GraphSpec,
    Manifest,
    ModelInfo,
    StateSpec,
    manifest_text,
    open_bundle,
    seal,
    writing_bundle,
)
from stpl_core.codec import FrameCodec
from stpl_core.errors import BundleError, ChecksumError, StplError, UsageError

GRAPH = GraphSpec(file="step.onnx", inputs=("frame", "h"), outputs=("next", "h_out"))


def manifest(**changes: object) -> Manifest:
    return Manifest(
        created="2026-01-01T00:00:00+00:00",
        model=ModelInfo(name="convlstm", parameters=3, keys={"hidden": [4], "scale": 1e-07}),
        context=4,
        horizon=3,
        frame=(1, 8, 8),
        codec=FrameCodec(quantity="reflectivity in Zürich", units="dBZ", low=-32.0, high=95.5),
        state=(StateSpec(name="h", input="h", output="h_out", shape=(4, 8, 8)),),
        opset=20,
        graphs={"step": GRAPH},
        recipe={},
        tools={"python": "3.11"},
    ).model_copy(update=changes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sealed bundle with files of a few bytes."""
    out = tmp_path / "small.bundle"
    with writing_bundle(out) as partial:
        (partial / "step.onnx").write_bytes(b"a graph")
        (partial / "weights.safetensors").write_bytes((32).to_bytes(8, "little") + bytes(range(32)))
        (partial / "reference.npz").write_bytes(b"\0" * 20)
        seal(partial, manifest())
    return out


def test_what_was_written_is_read(small: Path) -> None:
    bundle = open_bundle(small)
    assert bundle.manifest.model_copy(update={"files": {}}) == manifest()
    assert set(bundle.manifest.files) == {"step.onnx", "weights.safetensors", "reference.npz"}
    assert bundle.graph("step").read_bytes() == b"a graph"
    assert [path.name for path in small.parent.iterdir()] == [small.name]
    with pytest.raises(BundleError, match="no rollout graph"):
        bundle.graph("rollout")


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_every_flipped_byte_of_every_file_is_caught(every: bool, small: Path) -> None:
    """All bytes, the manifest's included: another bit of each, or by hand all eight."""
    missed = []
    for path in sorted(small.iterdir()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            for bit in range(8) if every else (place % 8,):
                path.write_bytes(
                    whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
                )
                try:
                    open_bundle(small)
                except (ChecksumError, BundleError):
                    continue
                missed.append((path.name, place, bit))
        path.write_bytes(whole)
    assert missed == []
    open_bundle(small)


def test_a_changed_value_is_a_breach_and_not_another_schema(small: Path) -> None:
    file = small / MANIFEST
    file.write_text(file.read_text().replace('"low": -32.0', '"low": -31.0'))
    with pytest.raises(ChecksumError, match="was changed after export") as caught:
        open_bundle(small)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("change", [b"", b"x" * 39, b"x" * 41, None])
def test_a_file_cut_grown_or_missing_is_caught(small: Path, change: bytes | None) -> None:
    weights = small / "weights.safetensors"
    if change is None:
        weights.unlink()
    else:
        weights.write_bytes(change)
    for checksums in (True, False):
        with pytest.raises(ChecksumError, match="weights") as caught:
            open_bundle(small, checksums=checksums)
        assert "40 bytes" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_cut_manifest_is_caught(small: Path, length: int) -> None:
    file = small / MANIFEST
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ChecksumError, match="damaged"):
        open_bundle(small)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{}", '{"schema_version": 1}', "\udcff"])
def test_another_json_is_caught(small: Path, text: str) -> None:
    (small / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ChecksumError) as caught:
        open_bundle(small)
    assert "\n" not in str(caught.value)


def test_a_newer_schema_says_what_to_upgrade(small: Path) -> None:
    newer = manifest().model_dump(mode="json") | {"schema_version": SCHEMA_VERSION + 1, "new": 1}
    (small / MANIFEST).write_text(json.dumps(newer))
    with pytest.raises(BundleError, match=f"schema version {SCHEMA_VERSION + 1}") as caught:
        open_bundle(small)
    assert "pip install --upgrade stpl-deploy" in caught.value.fix


def test_files_of_others_are_ignored(small: Path) -> None:
    (small / "timing.cache").write_bytes(b"?")
    (small / "deep").mkdir()
    open_bundle(small)


@pytest.mark.parametrize("name", ["/etc/hostname", "../other.onnx", "unlisted.onnx"])
def test_a_graph_outside_the_checksums_is_refused(small: Path, name: str) -> None:
    stray = GRAPH.model_copy(update={"file": name})
    forged = open_bundle(small).manifest.model_copy(update={"graphs": {"step": stray}})
    (small / MANIFEST).write_text(manifest_text(forged))
    with pytest.raises(BundleError, match=re.escape(name)):
        open_bundle(small)


def test_what_is_no_bundle_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no directory"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(BundleError, match="is a run directory") as caught:
        open_bundle(tmp_path)
    assert f"stpl-deploy export {tmp_path}" in caught.value.fix


@pytest.mark.parametrize("stage", ["before", "graph", "sealed"])
def test_a_crash_while_writing_leaves_nothing(tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out.bundle"

    def write() -> None:
        with writing_bundle(out) as partial:
            if stage != "before":
                (partial / "step.onnx").write_bytes(b"a graph")
            if stage == "sealed":
                seal(partial, manifest())
            raise RuntimeError(stage)

    with pytest.raises(RuntimeError, match=stage):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_unsealed_bundle_never_appears(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match="not sealed"),
        writing_bundle(tmp_path / "out") as partial,
    ):
        (partial / "step.onnx").write_bytes(b"a graph")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(small: Path) -> None:
    with pytest.raises(UsageError, match="already exists"), writing_bundle(small):
        raise AssertionError("the block must not run")
    open_bundle(small)


def test_every_file_below_is_covered(tmp_path: Path) -> None:
    with writing_bundle(tmp_path / "out") as partial:
        (partial / "engines").mkdir()
        (partial / "engines" / MANIFEST).write_bytes(b"{}")
        (partial / "step.onnx").write_bytes(b"a graph")
        seal(partial, manifest())
    assert set(open_bundle(tmp_path / "out").manifest.files) == {
        "engines/manifest.json",
        "step.onnx",
    }


def test_a_real_bundle_with_random_flips(tmp_path: Path, root: Path) -> None:
    whole = root / "tests" / "data" / "convlstm-tiny.bundle"
    copy = tmp_path / "copy.bundle"
    shutil.copytree(whole, copy)
    open_bundle(copy)
    random = np.random.default_rng(0)
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        for _ in range(20):
            place, mask = int(random.integers(len(content))), int(random.integers(1, 256))
            flipped = bytearray(content)
            flipped[place] ^= mask
            path.write_bytes(flipped)
            with pytest.raises(StplError):
                open_bundle(copy)
        path.write_bytes(content)
    open_bundle(copy)


def _with(path: Path, change: str) -> None:
    """Put a field into a manifest as a later version would, with its checksum."""
    document = json.loads((path / MANIFEST).read_text())
    document.pop("manifest_sha256")
    part: dict[str, object] = document
    *inside, name = change.split(".")
    for key in inside:
        part = part[key]  # type: ignore[assignment]  # walks down any JSON
    part[name] = "new"

    class Later(Manifest):
        def model_dump(self, **_: object) -> dict[str, object]:  # type: ignore[override]  # adds a field of a later version
            return document

    (path / MANIFEST).write_text(manifest_text(Later(**manifest().model_dump())))


@pytest.mark.parametrize("change", ["licence", "model.family", "graphs.step.note"])
def test_a_field_of_a_later_version_is_ignored(
    small: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    before = open_bundle(small).manifest
    _with(small, change)
    assert open_bundle(small).manifest == before
    assert f"{change} not known to this version, and ignored" in caplog.text


def test_a_field_of_a_later_codec_is_refused(small: Path) -> None:
    """It may change every value."""
    _with(small, "codec.gamma")
    with pytest.raises(BundleError, match=r"codec\.gamma.*try: pip install --upgrade"):
        open_bundle(small)


def test_a_pretrained_name_in_place_of_a_bundle_is_to_be_exported() -> None:
    fix = "stpl-deploy export pretrained:radar-nowcast --out radar-nowcast.bundle"
    with pytest.raises(BundleError, match="is not exported yet") as caught:
        open_bundle(Path("pretrained:radar-nowcast"))
    assert caught.value.fix == fix
