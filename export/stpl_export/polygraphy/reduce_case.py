"""What `verify --bisect` found as a case for `polygraphy debug reduce`, in a folder of its own.

    README.md      the commands, each runs as it stands there
    smallest.onnx  the operation that breaks, with the casts before it
    graph.onnx     the step graph in half precision up to that operation, weights inside, batch 1
    inputs.json    every value of the graph in fp32, so that any part of it can be fed
    outputs.json   the same values, to compare with
    compare.py     the comparison: half precision's tolerance, in proportion to each value's size

The values are those of the step after the newest frame of the first sequence, computed in fp32 by
ONNX Runtime.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import safetensors.numpy
from numpy.typing import NDArray
from onnx import ModelProto

from stpl_core.bundle import WEIGHTS, Bundle
from stpl_core.codec import Array
from stpl_core.files import atomic_directory
from stpl_export.polygraphy.library import quiet
from stpl_export.precision.macs import fixed_batch
from stpl_export.precision.policy import untyped_step
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.tolerance import min_psnr_db, peak_error

Values = OrderedDict[str, NDArray[Any]]

_FP32 = "fp32 step"


def write_reduce_case(bundle: Bundle, node: str, out: Path) -> bool:
    """Write the folder; returns whether the smallest graph fails on ONNX Runtime's CPU, too.

    Args:
        bundle: in fp16 or bf16.
        node: the operation that breaks, as `bisect_bundle` names it.
        out: the folder to make; must not exist yet.

    Raises:
        MissingExtraError: Polygraphy is not installed.
    """
    precision = bundle.manifest.precision
    typed = fixed_batch(onnx.load(bundle.graph("step")), 1)
    typed = onnx.shape_inference.infer_shapes(typed)
    with atomic_directory(out) as partial, quiet():
        from polygraphy.comparator import RunResults
        from polygraphy.json import save_json

        exact = _with_casts(typed, _values_in_fp32(bundle), precision)
        smallest = _smallest(typed, node)
        onnx.save(_up_to(typed, node), partial / "graph.onnx")
        onnx.save(smallest, partial / "smallest.onnx")
        save_json([exact], str(partial / "inputs.json"))
        results = RunResults()
        results.add([exact], runner_name=_FP32)
        save_json(results, str(partial / "outputs.json"))
        share = peak_error(min_psnr_db(precision))
        (partial / "compare.py").write_text(_COMPARE.format(share=share, fp32=_FP32))
        fails = _fails(smallest, exact, share)
        (partial / "README.md").write_text(_readme(node, precision, fails))
    return fails


def _values_in_fp32(bundle: Bundle) -> Values:
    """Every value of the fp32 step graph after the newest frame of the first sequence."""
    from polygraphy import constants
    from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    weights = safetensors.numpy.load_file(bundle.file(WEIGHTS))
    typed = onnx.load(bundle.graph("step"), load_external_data=False)
    step, _ = untyped_step(typed, weights)
    step = onnx.shape_inference.infer_shapes(fixed_batch(step, 1))
    context = load_reference(bundle).context[:1]  # (1, T, C, H, W)
    plain = SessionFromOnnx(BytesFromOnnx(step))
    parts = {spec.input: spec for spec in bundle.manifest.state if spec.input is not None}
    state = {name: np.zeros((1, *spec.shape), np.float32) for name, spec in parts.items()}
    with OnnxrtRunner(plain) as runner:
        for t in range(context.shape[1] - 1):
            made = runner.infer({"frame": np.ascontiguousarray(context[:, t]), **state})
            state = {name: made[spec.output].copy() for name, spec in parts.items()}
    feeds: dict[str, Array] = {"frame": np.ascontiguousarray(context[:, -1]), **state}
    whole = SessionFromOnnx(BytesFromOnnx(ModifyOutputs(step, outputs=constants.MARK_ALL)))
    with OnnxrtRunner(whole) as runner:
        made = runner.infer(feeds)
        return OrderedDict({**feeds, **{name: np.array(value) for name, value in made.items()}})


def _with_casts(typed: ModelProto, values: Values, precision: str) -> Values:
    """The same by the typed graph's names: `x/fp16` is `x`, rounded."""
    found: Values = OrderedDict()
    inputs = [value.name for value in typed.graph.input]
    for name in [*inputs, *(name for node in typed.graph.node for name in node.output)]:
        plain = name.removesuffix(f"/{precision}")
        if plain in values:
            found[name] = values[plain]
    return found


def _up_to(typed: ModelProto, node: str) -> ModelProto:
    """Without what comes after: there a norm may hide the fault, and the search go astray."""
    chosen = next(each for each in typed.graph.node if each.name == node)
    inputs = [value.name for value in typed.graph.input]
    return onnx.utils.Extractor(typed).extract_model(inputs, list(chosen.output))


def _smallest(typed: ModelProto, node: str) -> ModelProto:
    """One operation and the casts of what it reads."""
    makers = {name: each for each in typed.graph.node for name in each.output}
    weights = {tensor.name for tensor in typed.graph.initializer}
    chosen = next(each for each in typed.graph.node if each.name == node)
    reads = []
    for name in filter(None, chosen.input):
        maker = makers.get(name)
        cast = maker is not None and maker.op_type == "Cast"
        source = maker.input[0] if maker is not None and cast else name
        if source not in weights:
            reads.append(source)
    return onnx.utils.Extractor(typed).extract_model(
        list(dict.fromkeys(reads)), list(chosen.output)
    )


def _fails(model: ModelProto, exact: Values, share: float) -> bool:
    """Whether an output leaves its tolerance on ONNX Runtime, as `compare.py` judges."""
    from polygraphy.backend.onnx import BytesFromOnnx
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    types = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
             for v in model.graph.input}  # fmt: skip
    with OnnxrtRunner(SessionFromOnnx(BytesFromOnnx(model))) as runner:
        made = runner.infer({name: exact[name].astype(kind) for name, kind in types.items()})
    for name, values in made.items():
        gap = np.abs(values.astype(np.float64) - exact[name]).max()
        if not gap <= share * max(1.0, float(np.abs(exact[name]).max())):
            return True
    return False


def _readme(node: str, precision: str, fails: bool) -> str:
    check = "--load-inputs inputs.json --load-outputs outputs.json --compare-func-script compare.py"
    verdict = "fails" if fails else "passes here: run it with --trt where it broke"
    return _README.format(node=node, precision=precision, check=check, verdict=verdict)


_README = """# {node} breaks in {precision}

The operation alone, with real values. On ONNX Runtime's CPU it {verdict}:

    polygraphy run smallest.onnx --onnxrt {check}

The search from the first operation on, by any engine (--trt instead of --onnxrt needs a GPU):

    polygraphy debug reduce graph.onnx -o reduced.onnx --mode bisect --load-inputs inputs.json \
--check polygraphy run polygraphy_debug.onnx --onnxrt {check}
"""

_COMPARE = '''"""Compares with fp32: off by at most {share:g} of a tensor's greatest, or of 1."""

import numpy as np
from polygraphy.comparator import SimpleCompareFunc


def compare_outputs(one, other):
    """Called by Polygraphy with the outputs of two runners: output -> whether it passes."""
    exact, found = (one, other) if one.runner_name == {fp32!r} else (other, one)
    sizes = {{name: max(1.0, float(np.abs(exact[name]).max())) for name in found}}
    tolerances = {{name: {share!r} * size for name, size in sizes.items()}}
    compare = SimpleCompareFunc(atol=tolerances, rtol=0.0, check_error_stat="max")
    return compare(found, exact)
'''
