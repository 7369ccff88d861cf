"""Bundles of a stranger, their checksums right: refused by us, before any runtime sees a graph."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stpl_core.bundle import MANIFEST, Manifest, open_bundle, seal  # noqa: E402
from stpl_core.errors import BundleError, StplError  # noqa: E402
from stpl_runtime.engine import open_session  # noqa: E402

TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"

Change = Callable[[Any], None]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "tiny.bundle"))


def reseal(path: Path) -> None:
    """Make every checksum right again."""
    document = json.loads((path / MANIFEST).read_text())
    document.pop("manifest_sha256")
    seal(path, Manifest.model_validate(document))


def change_graph(path: Path, change: Change, name: str = "step") -> None:
    model = onnx.load(path / f"{name}.onnx", load_external_data=False)
    change(model)
    (path / f"{name}.onnx").write_bytes(model.SerializeToString())
    reseal(path)


def change_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((path / MANIFEST).read_text())
    document.pop("manifest_sha256")
    change(document)
    (path / MANIFEST).write_text(text_of(document))


def text_of(document: dict[str, Any]) -> str:
    """The manifest's text with its checksum right, whatever it says."""
    zeros = "0" * 64
    text = json.dumps({**document, "manifest_sha256": zeros}, indent=2) + "\n"
    head, _, tail = text.rpartition(zeros)
    return head + hashlib.sha256(text.encode()).hexdigest() + tail


def external(location: str) -> Change:
    def change(model: Any) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data)
        size = int(np.prod(tensor.dims)) * 4
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def empty_bias(model: Any) -> None:
    node = model.graph.node[0]
    node.op_type = "LayerNormalization"
    del node.input[:], node.attribute[:]
    node.input.extend(["frame", model.graph.initializer[0].name, ""])


def operation(kind: str, domain: str = "") -> Change:
    def change(model: Any) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = kind, domain
        if domain:
            model.opset_import.add(domain=domain, version=1)

    return change


def subgraph(model: Any) -> None:
    inside = onnx.GraphProto()
    inside.name = "inside"
    model.graph.node[0].attribute.add(name="body", type=5).g.CopyFrom(inside)


def function(model: Any) -> None:
    model.functions.add(name="f", domain="")


def unmade(model: Any) -> None:
    model.graph.node[0].input[0] = "nobody"


def twice(model: Any) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def another_shape(model: Any) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 10**9


def huge_weight(model: Any) -> None:
    tensor = next(t for t in model.graph.initializer if t.external_data)
    tensor.dims[0] = 2**30


def circle(model: Any) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


GRAPHS: dict[str, Change] = {
    "absolute": external("/etc/hostname"),
    "above": external("../secret"),
    "unlisted": external("extra.bin"),
    "dotted": external("./weights.safetensors"),
    "empty bias": empty_bias,
    "another domain": operation("EPContext", "com.microsoft"),
    "control flow": operation("Loop"),
    "unknown": operation("ReadFile"),
    "a graph inside": subgraph,
    "a function": function,
    "nothing made it": unmade,
    "made twice": twice,
    "another shape": another_shape,
    "a huge weight": huge_weight,
    "backwards": circle,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_judged_before_a_runtime_sees_it(
    tiny: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    (tiny.parent / "secret").write_bytes(bytes(10**4))
    change_graph(tiny, GRAPHS[name])
    (tiny / "extra.bin").write_bytes(bytes(10**4))  # not in the manifest
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(BundleError) as caught:
        open_session(open_bundle(tiny), ["step", "forecast", "rollout"])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_graph(tiny: Path) -> None:
    for content in (b"", b"\xff" * 100, b"\x3a\x05abc", (TINY / "reference.npz").read_bytes()):
        (tiny / "step.onnx").write_bytes(content)
        reseal(tiny)
        with pytest.raises(BundleError):
            open_session(open_bundle(tiny), ["step"])


@pytest.mark.parametrize("start", [(2**62).to_bytes(8, "little"), b"\xff" * 8])
def test_weights_whose_header_ends_outside_are_refused(tiny: Path, start: bytes) -> None:
    weights = tiny / "weights.safetensors"
    weights.write_bytes(start + weights.read_bytes()[8:])
    reseal(tiny)
    with pytest.raises(BundleError, match=r"weights\.safetensors states a header of .* bytes"):
        open_bundle(tiny)


def test_weights_too_short_for_a_header_are_refused(tiny: Path) -> None:
    (tiny / "weights.safetensors").write_bytes(b"1234")
    reseal(tiny)
    with pytest.raises(BundleError, match="states a header"):
        open_bundle(tiny)


def test_a_link_is_refused(tiny: Path) -> None:
    (tiny / "weights.safetensors").rename(tiny.parent / "elsewhere")
    (tiny / "weights.safetensors").symlink_to(tiny.parent / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(tiny)


def test_what_was_checked_is_what_runs(tiny: Path) -> None:
    """Weights that are overwritten or cut short under a running session change nothing."""
    bundle = open_bundle(tiny)
    session = open_session(bundle, ["step"], threads=1)
    frame = np.random.default_rng(0).random((1, *bundle.manifest.frame), np.float32)
    before, _ = session.step(frame, session.zero_state())
    size = (tiny / "weights.safetensors").stat().st_size
    with (tiny / "weights.safetensors").open("r+b") as file:
        file.write(b"\x7f" * size)
    again, _ = session.step(frame, session.zero_state())
    np.testing.assert_array_equal(before, again)
    (tiny / "weights.safetensors").write_bytes(b"")
    (tiny / "step.onnx").write_bytes(b"")
    again, _ = session.step(frame, session.zero_state())
    np.testing.assert_array_equal(before, again)
    session.close()


def test_changed_after_the_check_is_caught(tiny: Path) -> None:
    bundle = open_bundle(tiny)
    with (tiny / "weights.safetensors").open("r+b") as file:
        file.seek(200)
        file.write(b"\x01\x02\x03")
    with pytest.raises(StplError, match="has SHA-256") as caught:
        open_session(bundle, ["step"])
    assert caught.value.exit_code == 3


def exchanged(document: dict[str, Any]) -> None:
    first, second = document["state"][0], document["state"][1]
    first["input"], second["input"] = second["input"], first["input"]


def put(*where: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for key in where[:-1]:
            at = at[key]
        at[where[-1]] = value

    return change


MANIFESTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "state exchanged": exchanged,
    "a great context": put("context", value=2**31),
    "a great frame": put("frame", value=[1, 30_000, 30_000]),
    "a great horizon": put("horizon", value=10**9),
    "no state": put("state", value=[]),
    "state of a type": put("state", 0, "dtype", value="object"),
    "state of a shape": put("state", 0, "shape", value=[-1, 4, 4]),
    "state of a great shape": put("state", 0, "shape", value=[10**9, 10**9]),
    "state twice": put("state", 1, "name", value="layer0.h"),
    "no inputs": put("graphs", "step", "inputs", value=[]),
    "other outputs": put("graphs", "step", "outputs", value=["next_frame", "a", "b"]),
    "a frame of text": put("recipe", "data", "frame", value="all of it"),
    "a section of text": put("recipe", "data", value="none"),
    "a great number": put("model", "parameters", value=10**400),
    "a cadence without end": put("cadence_s", value=1e300),
    "a name with an escape": put("files", "a\x1b[2Jb", value={"bytes": 0, "sha256": "0" * 64}),
    "a name above": put("files", "../x", value={"bytes": 0, "sha256": "0" * 64}),
    "a name of another drive": put("files", "C:\\x", value={"bytes": 0, "sha256": "0" * 64}),
    "capitals": put("files", "STEP.onnx", value={"bytes": 0, "sha256": "0" * 64}),
    "a precision": put("precision", value="fp4"),
    "an opset": put("opset", value=-1),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_judged_when_it_is_opened(tiny: Path, name: str) -> None:
    change_manifest(tiny, MANIFESTS[name])
    with pytest.raises(BundleError) as caught:
        open_bundle(tiny)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema_version": NaN}',
        '{"schema_version": 1, "schema_version": 1}',
        "\xff",
    ],
)
def test_a_manifest_that_is_hardly_json(tiny: Path, text: str) -> None:
    (tiny / MANIFEST).write_text(text)
    with pytest.raises(StplError):
        open_bundle(tiny)


def test_the_helper_makes_a_manifest_that_opens(tiny: Path) -> None:
    """Else the tests above would pass for any change."""
    change_manifest(tiny, lambda document: None)
    open_bundle(tiny)
    change_graph(tiny, lambda model: None)
    open_session(open_bundle(tiny), ["step", "forecast", "rollout"]).close()
