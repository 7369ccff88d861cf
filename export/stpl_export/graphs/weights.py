"""One `weights.safetensors` behind every graph: initializers point into it as external data."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from onnx import ModelProto, StringStringEntryProto, TensorProto, numpy_helper

INLINE_BYTES = 256
"""Constants up to this size (shapes, scalars) stay in the graph."""


def gather_weights(
    state_dict: Mapping[str, NDArray[Any]], graphs: Iterable[ModelProto]
) -> dict[str, NDArray[Any]]:
    """Return the state dict and every large constant of the graphs that is not part of it.

    A graph's initializer of a state dict's name must hold the same bytes; where the exporter
    folded something into it, it is renamed `folded/<name>`.
    """
    tensors = dict(state_dict)
    for model in graphs:
        renamed: dict[str, str] = {}
        for tensor in model.graph.initializer:
            if _size(tensor) <= INLINE_BYTES and tensor.name not in state_dict:
                continue
            values = numpy_helper.to_array(tensor)
            if not _same(tensors.get(tensor.name, values), values):
                renamed[tensor.name] = f"folded/{tensor.name}"
                tensor.name = renamed[tensor.name]
            tensors[tensor.name] = values
        if renamed:
            for node in model.graph.node:
                for n, name in enumerate(node.input):
                    node.input[n] = renamed.get(name, name)
    return tensors


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def _size(tensor: TensorProto) -> int:
    return int(numpy_helper.to_array(tensor).nbytes)


def save_weights(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write the tensors as safetensors."""
    contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous))


def save_low_weights(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write tensors below fp32 as safetensors, by hand: numpy itself has no bf16."""
    header: dict[str, Any] = {}
    end = 0
    # The widest first: each tensor starts at a multiple of its elements' size.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        kind = _SAFETENSORS_NAMES[values.dtype.name]
        header[name] = {"dtype": kind, "shape": values.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


_SAFETENSORS_NAMES = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "int32": "I32",
    "int8": "I8",
}


def point_into(model: ModelProto, path: Path) -> ModelProto:
    """Return the model with every initializer that lies in the file at `path` as external data."""
    offsets = _offsets(path)
    pointed = ModelProto()
    pointed.CopyFrom(model)
    for tensor in pointed.graph.initializer:
        if tensor.name not in offsets:
            continue
        start, end = offsets[tensor.name]
        for field in ("raw_data", "float_data", "int64_data", "double_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": path.name, "offset": str(start), "length": str(end - start)}
        tensor.external_data.extend(
            StringStringEntryProto(key=key, value=value) for key, value in entries.items()
        )
    return pointed


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> first and last byte of a tensor in a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    begin = 8 + length
    return {
        name: (begin + entry["data_offsets"][0], begin + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }
