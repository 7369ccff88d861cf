"""Faults that can be put into a bundle's graphs, each of which changes what they compute."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from stpl_core.bundle import Bundle, GraphName

Fault = Callable[[ModelProto], None]
GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


def _nodes(model: ModelProto, kind: str) -> list[NodeProto]:
    found = [node for node in model.graph.node if node.op_type == kind]
    assert found, kind
    return found


def _initializer(model: ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _swap_inputs(model: ModelProto, one: str, other: str) -> None:
    names = {one: other, other: one}
    for node in model.graph.node:
        for n, name in enumerate(node.input):
            node.input[n] = names.get(name, name)


def _rename_outputs(model: ModelProto, one: str, other: str) -> None:
    names = {one: other, other: one}
    for node in model.graph.node:
        for n, name in enumerate(node.output):
            node.output[n] = names.get(name, name)
        for n, name in enumerate(node.input):
            node.input[n] = names.get(name, name)


def _set_attribute(node: NodeProto, **values: object) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())


def swap_h_and_c_in(model: ModelProto) -> None:
    _swap_inputs(model, "state.layer0.h", "state.layer0.c")


def swap_layers_out(model: ModelProto) -> None:
    _rename_outputs(model, "next.layer0.c", "next.layer1.c")


def forecast_returns_last_state(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Identity" and node.output[0] == "next.layer0.c":
            last = max(
                (n for n in model.graph.node if n.output[0].endswith("/next.layer0.c")),
                key=lambda n: int(n.output[0].partition("/")[0][1:]),
            )
            node.input[0] = last.output[0]
            model.graph.node.remove(node)  # it must follow what it reads now
            model.graph.node.append(node)
            return
    raise AssertionError("no next.layer0.c")


def drop_forget_bias(model: ModelProto) -> None:
    count = 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor) if not tensor.external_data else None
        if values is not None and values.dtype == np.float32 and values.size == 1 and values == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
            count += 1
    assert count == 1


def forget_bias_on_the_wrong_gate(model: ModelProto) -> None:
    for node in _nodes(model, "Split"):
        node.output[0], node.output[1] = node.output[1], node.output[0]


def norm_epsilon(model: ModelProto) -> None:
    for node in _nodes(model, "LayerNormalization"):
        _set_attribute(node, epsilon=1e-4)


def norm_axis(model: ModelProto) -> None:
    """Statistics over W alone; scale and bias as they were."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), "ones_of_a_row"))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if node.op_type != "LayerNormalization":
            continue
        added = model.graph.node[-1]
        scale, bias, out = added.input[1], added.input[2], added.output[0]
        _set_attribute(added, axis=-1)
        del added.input[1:]
        added.input.append("ones_of_a_row")
        added.output[0] = f"{out}/plain"
        model.graph.node.append(helper.make_node("Mul", [f"{out}/plain", scale], [f"{out}/scaled"]))
        model.graph.node.append(helper.make_node("Add", [f"{out}/scaled", bias], [out]))


def norm_bias_dropped(model: ModelProto) -> None:
    for node in _nodes(model, "LayerNormalization"):
        if node.input[1].endswith("norm_c.weight"):
            del node.input[2]


def patch_order(model: ModelProto) -> None:
    """Rows and columns inside a patch exchanged on the way in."""
    for node in _nodes(model, "Transpose"):
        perm = list(node.attribute[0].ints)
        if perm[1:3] == [3, 5]:
            _set_attribute(node, perm=[0, 5, 3, *perm[3:]])
            return
    raise AssertionError("no space-to-depth")


def state_not_fed_back(model: ModelProto) -> None:
    """Step 2 reads the cell state that step 1 read, not what step 1 made."""
    changed = 0
    for node in model.graph.node:
        if node.name.startswith("t2/"):
            for n, name in enumerate(node.input):
                if name == "t1/next.layer0.c":
                    node.input[n] = "t0/next.layer0.c"
                    changed += 1
    assert changed


def frames_out_of_order(model: ModelProto) -> None:
    gathers = _nodes(model, "Gather")
    gathers[2].input[1], gathers[3].input[1] = gathers[3].input[1], gathers[2].input[1]


def lead_times_shifted(model: ModelProto) -> None:
    concat = next(n for n in _nodes(model, "Concat") if n.output[0] == "forecast")
    names = [concat.input[0], *concat.input[:-1]]
    del concat.input[:]
    concat.input.extend(names)


def true_frame_fed_back(model: ModelProto) -> None:
    """The first feedback step reads the newest observed frame again, not the guess."""
    changed = 0
    for node in model.graph.node:
        if node.name.startswith("t1/"):
            for n, name in enumerate(node.input):
                if name == "t0/next_frame":
                    node.input[n] = "frame"
                    changed += 1
    assert changed


def attention_scale(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor) if not tensor.external_data else None
        if values is not None and values.dtype == np.float32 and values.size == 1 and values == 2:
            tensor.CopyFrom(numpy_helper.from_array(values * 1.01, tensor.name))
            return
    raise AssertionError("no scale of 2")


def gates_share_a_convolution(model: ModelProto) -> None:
    """conv_h of layer 1 reads the weights of conv_x."""
    x = _initializer(model, "cells.1.conv_x.conv.weight")
    h = _initializer(model, "cells.1.conv_h.conv.weight")
    del h.external_data[:]
    h.external_data.extend(x.external_data)


def padding_shifted(model: ModelProto) -> None:
    for node in _nodes(model, "Conv"):
        pads = next(list(a.ints) for a in node.attribute if a.name == "pads")
        if pads[0] == 1:
            _set_attribute(node, pads=[0, 1, 2, 1], auto_pad="NOTSET")
            return
    raise AssertionError("no 3x3 convolution")


def sigmoid_approximated(model: ModelProto) -> None:
    node = _nodes(model, "Sigmoid")[-1]
    node.op_type = "HardSigmoid"


def decoder_bias_dropped(model: ModelProto) -> None:
    for node in _nodes(model, "Conv"):
        if node.input[1] == "decode.weight":
            del node.input[2]


FAULTS: dict[str, tuple[tuple[GraphName, ...], Fault]] = {
    "h and c swapped on the way in": (("step",), swap_h_and_c_in),
    "h and c swapped in forecast": (("forecast",), swap_h_and_c_in),
    "layers swapped on the way out": (("step",), swap_layers_out),
    "forecast returns the last state": (("forecast",), forecast_returns_last_state),
    "forget bias dropped": (GRAPHS, drop_forget_bias),
    "forget bias dropped in rollout": (("rollout",), drop_forget_bias),
    "forget bias on the wrong gate": (GRAPHS, forget_bias_on_the_wrong_gate),
    "LayerNorm epsilon 1e-4": (GRAPHS, norm_epsilon),
    "LayerNorm over W alone": (GRAPHS, norm_axis),
    "LayerNorm bias dropped": (GRAPHS, norm_bias_dropped),
    "patch order": (GRAPHS, patch_order),
    "one state not fed back in rollout": (("rollout",), state_not_fed_back),
    "one state not fed back in forecast": (("forecast",), state_not_fed_back),
    "context frames out of order": (("rollout",), frames_out_of_order),
    "lead times shifted in rollout": (("rollout",), lead_times_shifted),
    "lead times shifted in forecast": (("forecast",), lead_times_shifted),
    "true frame fed back": (("forecast",), true_frame_fed_back),
    "attention scale 1% off": (GRAPHS, attention_scale),
    "gates share a convolution": (GRAPHS, gates_share_a_convolution),
    "padding shifted by a row": (GRAPHS, padding_shifted),
    "a sigmoid approximated": (GRAPHS, sigmoid_approximated),
    "decoder bias dropped": (GRAPHS, decoder_bias_dropped),
}


SMALL = (
    "LayerNorm epsilon 1e-4",
    "layers swapped on the way out",
    "forecast returns the last state",
    "attention scale 1% off",
    "padding shifted by a row",
)
"""What changes the numbers least, or the state alone."""


def copy_of(bundle: Bundle, to: Path) -> Bundle:
    shutil.copytree(bundle.path, to)
    return Bundle(to, bundle.manifest)


def put_in(bundle: Bundle, name: str) -> None:
    """Change the bundle's graphs."""
    graphs, fault = FAULTS[name]
    for graph in graphs:
        path = bundle.file(f"{graph}.onnx")
        model = onnx.load(path, load_external_data=False)
        fault(model)
        path.write_bytes(model.SerializeToString())
