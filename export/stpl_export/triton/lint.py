"""Judges a model repository before a server does, and where a server would not notice.

The text is parsed into Triton's own protobuf, so that a misspelt field is found; what it says is
held against the graph beside it. A state that does not begin at zero is refused: Triton accepts it,
and begins with memory as it was left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from stpl_core.bundle import GraphName, open_bundle
from stpl_core.errors import BundleError, ChecksumError, MissingExtraError
from stpl_core.files import sha256_of
from stpl_export.triton.config import TYPES
from stpl_runtime.served.model import BUNDLE

MODEL, CONFIG, VERSION = "model.onnx", "config.pbtxt", "1"
PYTHON_MODEL, PLAN, PLAN_FACTS = "model.py", "model.plan", "plan.json"
_FILES = {"onnxruntime": MODEL, "python": PYTHON_MODEL, "tensorrt": PLAN}
"""Triton's backend -> the file that it opens."""


@dataclass(frozen=True)
class _Tensor:
    kind: str
    """Triton's word for its type."""
    dims: tuple[int, ...]
    """Without the batch, but for a plan's; -1 where they are open."""


def lint_repository(repository: Path) -> list[str]:
    """Judge every model of a repository.

    Args:
        repository: a folder of models.

    Returns:
        The names of the models.

    Raises:
        BundleError: the first thing that is wrong, with the file.
        MissingExtraError: tritonclient is not installed.
    """
    names = sorted(path.name for path in repository.iterdir() if path.is_dir())
    for name in names:
        lint_model(repository / name)
    if not names:
        raise BundleError(
            f"{repository} holds no model", expected="a folder for each", fix="check the path"
        )
    return names


def lint_model(folder: Path) -> None:
    """Judge one model; see `lint_repository`."""
    config = parse_config(folder / CONFIG)
    if config.name != folder.name:
        raise _wrong(folder, f"name: {config.name!r}", repr(folder.name))
    if config.backend not in _FILES:
        raise _wrong(folder, f"backend: {config.backend!r}", " or ".join(map(repr, _FILES)))
    if (config.max_batch_size < 1) != (config.backend == "tensorrt"):
        fits = "0: the plan's batch is fixed" if config.backend == "tensorrt" else "1 or more"
        raise _wrong(folder, f"max_batch_size: {config.max_batch_size}", fits)
    file = _FILES[config.backend]
    if not (folder / VERSION / file).is_file():
        raise _wrong(folder, f"no file {VERSION}/{file}", "what the backend runs")
    _check_files(folder / VERSION)
    is_sequence = config.WhichOneof("scheduling_choice") == "sequence_batching"
    if is_sequence and not config.sequence_batching.max_sequence_idle_microseconds:
        raise _wrong(folder, "no max_sequence_idle_microseconds", "how long a sequence may rest")
    check = {"onnxruntime": _check_graph, "python": _check_python, "tensorrt": _check_plan}
    check[config.backend](folder, config)


def _check_graph(folder: Path, config: Any) -> None:
    graph_path = folder / VERSION / MODEL
    graph = onnx.load(str(graph_path), load_external_data=False).graph
    _check_external(graph, folder / VERSION)
    _check_all(folder, config, _of_graph(graph.input), _of_graph(graph.output))


def _check_plan(folder: Path, config: Any) -> None:
    """Hold the file against what the builder's own parser said of the plan."""
    plan = folder / VERSION / PLAN
    try:
        facts = json.loads((folder / VERSION / PLAN_FACTS).read_text())
        promised, taken, given = facts["sha256"], facts["inputs"], facts["outputs"]
    except (OSError, ValueError, KeyError) as error:
        found = f"{VERSION}/{PLAN_FACTS} does not say what the plan is: {error}"
        raise _wrong(folder, found, "sha256, inputs and outputs of the plan") from error
    if sha256_of(plan) != promised:
        raise ChecksumError(
            f"{plan} has SHA-256 {sha256_of(plan)[:12]}…",
            expected=f"{promised[:12]}…",
            fix="stpl-deploy package BUNDLE --out REPOSITORY --backend tensorrt copies it again",
        )
    if config.platform != "tensorrt_plan":
        raise _wrong(folder, f"platform: {config.platform!r}", "'tensorrt_plan'")
    _check_all(folder, config, _of_plan(taken), _of_plan(given))


def _check_all(
    folder: Path, config: Any, taken: Mapping[str, _Tensor], given: Mapping[str, _Tensor]
) -> None:
    """Hold inputs, outputs and states against those of the graph or plan that Triton runs."""
    states = config.sequence_batching.state
    read = {**_of_config(config.input), **{s.input_name: _of_state(s) for s in states}}
    made = {**_of_config(config.output), **{s.output_name: _of_state(s) for s in states}}
    _check_tensors(folder, "input", taken, read)
    _check_tensors(folder, "output", given, made)
    for state in states:
        _check_initial(folder, state)


def _check_python(folder: Path, config: Any) -> None:
    """Hold what is left of the file against the bundle: the state is not Triton's."""
    bundle = open_bundle(folder / VERSION / BUNDLE)
    graph: GraphName = config.parameters["stpl_graph"].string_value
    if graph not in bundle.manifest.graphs:
        raise _wrong(folder, f"stpl_graph {graph!r}", f"one of {', '.join(bundle.manifest.graphs)}")
    if config.sequence_batching.state:
        raise _wrong(folder, "a state", "none: model.py keeps it")
    (group,) = config.instance_group or (None,)
    if group is None or group.count != 1:
        raise _wrong(folder, "instance_group", "one instance: it has the state of every sequence")
    inline = onnx.load(str(bundle.graph(graph)), load_external_data=False).graph
    read = {spec.input for spec in bundle.manifest.state}
    kept = {spec.output for spec in bundle.manifest.state if spec.input is not None}
    taken = {name: one for name, one in _of_graph(inline.input).items() if name not in read}
    given = {name: one for name, one in _of_graph(inline.output).items() if name not in kept}
    _check_tensors(folder, "input", taken, _of_config(config.input))
    _check_tensors(folder, "output", given, _of_config(config.output))


def parse_config(path: Path) -> Any:
    """A `config.pbtxt` as Triton's `ModelConfig`.

    Raises:
        BundleError: it is missing, or a field is none of Triton's.
        MissingExtraError: tritonclient is not installed.
    """
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ModuleNotFoundError as error:
        raise MissingExtraError("tritonclient", "triton") from error
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise BundleError(
            f"{path}: {error}",
            expected="fields of Triton's ModelConfig",
            fix="stpl-deploy package BUNDLE --out REPOSITORY writes it",
        ) from error


def _wrong(folder: Path, found: str, expected: str) -> BundleError:
    return BundleError(
        f"{folder / CONFIG}: {found}",
        expected=expected,
        fix="stpl-deploy package BUNDLE --out REPOSITORY writes it",
    )


def _check_files(folder: Path) -> None:
    """Refuse links: a repository is copied, and a server may follow none."""
    for path in folder.rglob("*"):
        if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1):
            raise BundleError(
                f"{path} is a link",
                expected="a file of its own",
                fix="copy it, or stpl-deploy package BUNDLE --out REPOSITORY again",
            )


def _check_external(graph: Any, folder: Path) -> None:
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not (folder / entry.value).is_file():
                raise BundleError(
                    f"no file {folder / entry.value}, which {MODEL} reads",
                    expected="the weights beside the graph",
                    fix="stpl-deploy package BUNDLE --out REPOSITORY copies them",
                )


def _check_tensors(
    folder: Path, what: str, graph: Mapping[str, _Tensor], config: Mapping[str, _Tensor]
) -> None:
    if missing := sorted(set(graph) - set(config)):
        raise _wrong(folder, f"no {what} {missing[0]}", f"every {what} of the graph")
    if more := sorted(set(config) - set(graph)):
        raise _wrong(
            folder, f"{what} {more[0]}", f"of {', '.join(sorted(graph))}, as the graph has"
        )
    for name, found in config.items():
        own = graph[name]
        same = len(found.dims) == len(own.dims) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(found.dims, own.dims, strict=True)
        )
        if found.kind != own.kind or not same:
            raise _wrong(
                folder,
                f"{what} {name}: {found.kind} {list(found.dims)}",
                f"{own.kind} {list(own.dims)}, as the graph has",
            )


def _check_initial(folder: Path, state: Any) -> None:
    """Refuse a state that does not begin at zero."""
    if len(state.initial_state) != 1 or not state.initial_state[0].zero_data:
        raise _wrong(
            folder,
            f"state {state.input_name} has no initial_state with zero_data: true",
            "one: without it a sequence begins with memory as it was left",
        )
    first = state.initial_state[0]
    if (first.data_type, list(first.dims)) != (state.data_type, list(state.dims)):
        raise _wrong(
            folder,
            f"initial_state of {state.input_name} has the dims {list(first.dims)}",
            f"type and dims of the state, {list(state.dims)}",
        )


def _of_graph(values: Sequence[Any]) -> dict[str, _Tensor]:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        _, *dims = (dim.dim_value or -1 for dim in tensor.shape.dim)
        found[value.name] = _Tensor(TYPES.get(kind, kind), tuple(dims))
    return found


def _of_plan(tensors: Mapping[str, Any]) -> dict[str, _Tensor]:
    return {
        name: _Tensor(f"TYPE_{tensor['type'].upper()}", tuple(tensor["shape"]))
        for name, tensor in tensors.items()
    }


def _of_config(values: Sequence[Any]) -> dict[str, _Tensor]:
    return {value.name: _Tensor(_kind(value), tuple(value.dims)) for value in values}


def _of_state(state: Any) -> _Tensor:
    return _Tensor(_kind(state), tuple(state.dims))


def _kind(value: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(value.data_type))
