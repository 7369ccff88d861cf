"""The most that this machine's CPUs were measured to compute in one precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stpl_runtime.engines.ov.core import openvino_core

_SIDE = 1024
_LEAST_ROUNDS, _LEAST_S = 7, 0.4
"""Other work on the machine comes and goes: a few milliseconds may all fall into it."""
_FLOP = 2 * _SIDE**3
"""Of one matrix product."""


def peak_gflops(precision: str, threads: int) -> float | None:
    """GFLOP/s (GOP/s in int8) of the fastest product of two matrices that is at hand.

    A model may reach a little more: operations are counted as if the borders of a frame were
    multiplied with their padding, which engines leave out.

    Args:
        precision: fp32, bf16 or int8; None is given for any other.
        threads: as the engines have.
    """
    products: dict[str, list[Callable[[], object]]] = {
        "fp32": [_runtime_product("MatMul", np.float32, threads), _torch_product("float32")],
        "bf16": [_torch_product("bfloat16")],
        "int8": [_runtime_product("MatMulInteger", np.uint8, threads)],
    }
    if precision not in products:
        return None
    with suppress(ImportError):
        products[precision].append(_openvino_product(precision, threads))
    return max(_gflops(product, threads) for product in products[precision])


def _gflops(product: Callable[[], object], threads: int) -> float:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    best = np.inf
    try:
        start, rounds = time.perf_counter(), 0
        while rounds < _LEAST_ROUNDS or time.perf_counter() - start < _LEAST_S:
            began = time.perf_counter()
            product()
            best, rounds = min(best, time.perf_counter() - began), rounds + 1
    finally:
        torch.set_num_threads(before)
    return float(_FLOP / best / 1e9)


def _torch_product(kind: str) -> Callable[[], object]:
    import torch

    one, other = (torch.rand(_SIDE, _SIDE).to(getattr(torch, kind)) for _ in range(2))
    return lambda: one @ other


def _runtime_product(operation: str, kind: type, threads: int) -> Callable[[], object]:
    """A product by ONNX Runtime, its second matrix a weight as in the models."""
    import onnxruntime

    random = np.random.default_rng(0)
    one: NDArray[Any] = (255 * random.random((_SIDE, _SIDE))).astype(kind)
    other: NDArray[Any] = (100 * random.random((_SIDE, _SIDE))).astype(
        np.int8 if kind is np.uint8 else kind
    )
    result = TensorProto.INT32 if kind is np.uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operation, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(one.dtype), one.shape)],
        [helper.make_tensor_value_info("y", result, one.shape)],
        [numpy_helper.from_array(other, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": one})


def _openvino_product(precision: str, threads: int) -> Callable[[], object]:
    """A product by OpenVINO, its second matrix a weight.

    Raises:
        ImportError: it is not installed.
    """
    import openvino
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    one, other = random.random((2, _SIDE, _SIDE), np.float32)
    given = ops.parameter([_SIDE, _SIDE], np.float32)
    first, second = given, ops.constant(other)
    if precision == "int8":
        low, high = np.float32(0), np.float32(1)
        first = ops.fake_quantize(first, low, high, low, high, 256)
        second = ops.fake_quantize(second, -high, high, -high, high, 255)
    product = ops.matmul(first, second, transpose_a=False, transpose_b=False)
    compiled = openvino_core().compile_model(
        openvino.Model([product], [given]),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        },
    )
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(one))
    return lambda: request.infer()
