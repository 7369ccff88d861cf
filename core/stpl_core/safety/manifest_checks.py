"""What a manifest says, judged for meaning: valid JSON may still be nonsense, or a trap.

A manifest's checksum shows that it was not damaged, not that somebody honest wrote it. Sizes,
names and pairs are held against each other here, once, when a bundle is opened, so that no code
behind meets a number that makes no sense.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from stpl_core.safety.budget import most_pixels

if TYPE_CHECKING:
    from stpl_core.grid import Grid
    from stpl_core.manifest import Manifest

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
STATE_TYPES = ("float32", "float64", "float16")
_ENGINES = ("trt", "trt-rtx")
_MOST_FRAMES = 100_000
_MOST_CHANNELS = 4096
_MOST_BATCH = 65_536
_OPSETS = range(7, 64)
_MOST_CADENCE_S = 1e9
_MOST_TEXT = 20_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


def problems(manifest: Manifest) -> Iterator[str]:
    """What makes no sense in a manifest, a line each; nothing where all does."""
    yield from chain(
        _sizes(manifest),
        _states(manifest),
        _outputs(manifest),
        _graphs(manifest),
        _files(manifest),
        _engines(manifest),
        _recipe(manifest),
        *(_grid(grid) for grid in manifest.grids),
        _numbers(manifest.model_dump(mode="python", exclude={"recipe"}), "manifest"),
    )


def _sizes(manifest: Manifest) -> Iterator[str]:
    channels, height, width = manifest.frame
    if channels > _MOST_CHANNELS or channels * height * width > most_pixels():
        yield f"frame = {manifest.frame}, more than {most_pixels():,} values"
    for name, count in (("context", manifest.context), ("horizon", manifest.horizon)):
        if count > _MOST_FRAMES or count * channels * height * width > 8 * most_pixels():
            yield f"{name} = {count:,}"
    if manifest.cadence_s is not None and not manifest.cadence_s <= _MOST_CADENCE_S:
        yield f"cadence_s = {manifest.cadence_s}"
    if manifest.opset not in _OPSETS:
        yield f"opset = {manifest.opset}"
    if manifest.precision not in PRECISIONS:
        yield f"precision = {manifest.precision!r}"
    if manifest.model.parameters < 0:
        yield f"model.parameters = {manifest.model.parameters}"


def _states(manifest: Manifest) -> Iterator[str]:
    states = manifest.state
    if not states:
        yield "state is empty"
    for what in ("name", "input", "output"):
        names = [name for spec in states if (name := getattr(spec, what)) is not None]
        if len(set(names)) < len(names) or not all(map(_is_name, names)):
            yield f"state has {what}s that are empty or there twice"
    for spec in states:
        if spec.dtype not in STATE_TYPES:
            yield f"state {spec.name!r} has the dtype {spec.dtype!r}"
        if not spec.shape or min(spec.shape) < 1 or math.prod(spec.shape) > most_pixels():
            yield f"state {spec.name!r} has the shape {spec.shape}"


def _outputs(manifest: Manifest) -> Iterator[str]:
    """Each is a state that nothing reads; these come last."""
    count = len(manifest.outputs)
    read = [spec for spec in manifest.state if spec.input is not None]
    beside = list(manifest.state[len(read) :])
    if any(spec.input is not None for spec in beside) or len(beside) != count or not read:
        yield "outputs are not the last of the state, which nothing reads"
        return
    for output, spec in zip(manifest.outputs, beside, strict=True):
        levels = output.levels
        if output.name != spec.name or spec.dtype != "float32":
            yield f"outputs has {output.name!r}, and the state {spec.name!r}"
        if not levels or list(levels) != sorted(set(levels)):
            yield f"outputs.{output.name} has the levels {str(levels)[:60]}"
        elif spec.shape != (len(levels), *manifest.frame):
            yield f"outputs.{output.name} has the shape {spec.shape}"


def _graphs(manifest: Manifest) -> Iterator[str]:
    """Names that a graph reads and gives: its frames first, then the state in its order."""
    for name, graph in manifest.graphs.items():
        for what, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            if not names or len(set(names)) < len(names) or not all(map(_is_name, names)):
                yield f"graphs.{name}.{what} are empty or there twice"
        states = () if name == "rollout" else manifest.state
        read = tuple(spec.input for spec in states if spec.input is not None)
        expected = read, tuple(spec.output for spec in states)
        if (tuple(graph.inputs[1:]), tuple(graph.outputs[1:])) != expected:
            yield f"graphs.{name} does not read and give the state as `state` says"


def _files(manifest: Manifest) -> Iterator[str]:
    folded = [name.casefold() for name in manifest.files]
    if len(set(folded)) < len(folded):
        yield "files names two that differ by capitals alone"
    for name, spec in manifest.files.items():
        parts = PurePosixPath(name).parts
        wrong = not name.isprintable() or "\\" in name or ":" in name or name != "/".join(parts)
        if wrong or not parts or ".." in parts or name.startswith("/"):
            yield f"files names {name!r}"
        if spec.bytes < 0 or not _SHA256.fullmatch(spec.sha256):
            yield f"files.{name} has no size or SHA-256"


def _engines(manifest: Manifest) -> Iterator[str]:
    for spec in manifest.engines:
        if spec.engine not in _ENGINES or spec.batch > _MOST_BATCH:
            yield f"engines has {spec.engine!r}, batch {spec.batch}"
        details = spec.details
        capabilities = details.get("capabilities", [])
        if not isinstance(capabilities, list) or not all(isinstance(c, str) for c in capabilities):
            yield f"{spec.file} states the capabilities {capabilities!r}"
        if not isinstance(details.get("version", ""), str):
            yield f"{spec.file} states the version {details['version']!r}"
    if manifest.accuracy is not None:
        lengths = {len(check.leads) for check in manifest.accuracy.checks}
        if len(lengths) != 1 or 0 in lengths:
            yield "accuracy has checks of other lead times"


def _recipe(manifest: Manifest) -> Iterator[str]:
    """The keys of the training recipe that a stream reads."""
    data = manifest.recipe.get("data", {})
    if not isinstance(data, dict):
        yield "recipe.data is no section"
        return
    frame = data.get("frame")
    if frame is not None and not (_counts(frame, 3) and math.prod(frame) <= most_pixels()):
        yield f"recipe.data.frame = {str(frame)[:60]}"
    crop = data.get("crop")
    if crop is not None and not _counts(crop, 4, least=0):
        yield f"recipe.data.crop = {str(crop)[:60]}"
    for key in ("test_horizon", "every", "stride"):
        value = data.get(key)
        if value is not None and not (_is_count(value) and value <= _MOST_FRAMES):
            yield f"recipe.data.{key} = {str(value)[:60]}"
    for key in ("reader", "variable", "source", "resize"):
        if not isinstance(data.get(key, ""), (str, type(None))):
            yield f"recipe.data.{key} = {str(data[key])[:60]}"


def _grid(grid: Grid) -> Iterator[str]:
    left, top, width, height = grid.affine
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height == 0:
        yield f"grids has the affine {grid.affine}"
    if not (0 < grid.height < 2**31 and 0 < grid.width < 2**31):
        yield f"grids has {grid.height}x{grid.width} pixels"
    if len(grid.crs_wkt) > _MOST_TEXT:
        yield "grids has a reference system of many pages"


def _numbers(value: Any, where: str, depth: int = 0) -> Iterator[str]:
    """No number that is none, no text without an end, nothing nested without an end."""
    if depth > 20:
        yield f"{where} is nested too deeply"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} = {value}"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield f"{where} is a number of {len(str(value))} digits"
    elif isinstance(value, str) and len(value) > _MOST_TEXT:
        yield f"{where} is a text of {len(value):,} letters"
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{where}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for n, part in enumerate(value):
            yield from _numbers(part, f"{where}[{n}]", depth + 1)


def _is_name(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name) < 1000


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _counts(value: object, count: int, least: int = 1) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all(_is_count(side, least) for side in value)
    )
