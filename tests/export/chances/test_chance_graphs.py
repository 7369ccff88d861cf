"""Chances of events: the model, its graphs, its bundle and what verify says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from stpl_core.bundle import Bundle, Manifest
from stpl_core.errors import RecipeError
from stpl_core.safety.manifest_checks import problems
from stpl_export.graphs.onnx_step import step_onnx
from stpl_runtime.chances import thresholds_of
from stpl_runtime.engine import open_session
from stpl_runtime.nowcasting.predict import predict_sequences, predict_with_chances
from stpl_runtime.proof import verify
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from stpl_train.forecaster import State
from stpl_train.models.advect import Advect
from stpl_train.models.events import HALVINGS
from tests.export.chances.small_advect import (
    CONTEXT,
    FRAME,
    HORIZON,
    by_torch,
    contexts,
    small,
)

# The graphs


def test_no_graph_reads_them_and_only_those_that_give_them_compute_them(bundle: Bundle) -> None:
    onnx = pytest.importorskip("onnx")
    assert [spec.name for spec in bundle.manifest.state if spec.input is None] == ["chance"]
    found = {
        name: onnx.load(str(bundle.file(f"{name}.onnx")), load_external_data=False).graph
        for name in ("step", "forecast", "rollout")
    }
    assert "state.chance" not in [value.name for value in found["step"].input]
    assert [value.name for value in found["step"].output][-1] == "next.chance"
    assert [value.name for value in found["forecast"].output][-1] == "next.chance"
    for graph in found.values():
        known = {name for node in graph.node for name in (*node.input, *node.output)}
        assert {value.name for value in graph.value_info} <= known

    def gates(name: str) -> int:
        return sum(node.op_type == "Sigmoid" for node in found[name].node)

    # Those of the places around, found by halving, and given.
    once, of_chances = gates("step"), HALVINGS + 2
    assert gates("forecast") == HORIZON * (once - of_chances) + of_chances  # of the first frame
    assert gates("rollout") == (CONTEXT + HORIZON - 1) * (once - of_chances)


class Reads(Advect):
    """Reads what it gives beside the frame."""

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        guess, after = super().step(frame, state)
        return guess + state["chance"][:, 0] * 1e-3, after


class Reordered(Advect):
    """Has it before the rest."""

    def initial_state(self, batch: int) -> State:
        state = super().initial_state(batch)
        return {"chance": state.pop("chance"), **state}

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        guess, after = super().step(frame, state)
        return guess, {"chance": after.pop("chance"), **after}


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Reads, "step reads chance, which its `outputs` name"), (Reordered, "at the end of the")],
)
def test_a_model_that_breaks_the_contract_is_refused(kind: type[Advect], message: str) -> None:
    model = small()
    model.__class__ = kind
    with pytest.raises(RecipeError, match=message):
        step_onnx(model)


# The bundle


def test_a_bundle_states_them_and_an_engine_gives_those_of_pytorch(bundle: Bundle) -> None:
    (spec,) = bundle.manifest.outputs
    assert (spec.name, spec.kind, spec.levels) == ("chance", "exceedance", (0.2, 0.5))
    low, high = thresholds_of(bundle.manifest)  # 10 log10 R + 15 in parts of 35
    assert low == pytest.approx(10 ** ((0.2 * 35 - 15) / 10), rel=1e-3)
    assert high == pytest.approx(10 ** ((0.5 * 35 - 15) / 10), rel=1e-3)
    frames = contexts(bundle)
    session = open_session(bundle, ("step",))
    made, chances = predict_with_chances(bundle, session, frames, HORIZON + 2)
    session.close()
    inside = bundle.manifest.codec.model_from_physical(frames)
    _, expected = by_torch(small(), inside, HORIZON + 2)
    assert chances.values.shape == (2, HORIZON + 2, 2, *FRAME)
    np.testing.assert_allclose(chances.values, expected, atol=2e-4)
    assert 0.01 < expected.mean() < 0.99
    unrolled = open_session(bundle, ("step", "forecast"))
    np.testing.assert_allclose(
        made[:, :HORIZON], predict_sequences(bundle, unrolled, frames, HORIZON), atol=1e-4
    )
    unrolled.close()


def test_verify_judges_them_at_every_lead_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify_bundle(bundle)
    assert first_breach(report) is None
    found = {check.path for check in report.checks if check.output_error is not None}
    assert found == {"step"}
    whole = load_reference(bundle)
    output = whole.outputs["chance"]
    values = output.values.copy()
    values[HORIZON - 1, 100] += 2e-3  # one value of the last lead time

    def spoilt(_: Bundle) -> Reference:
        return replace(whole, outputs={"chance": replace(output, values=values)})

    monkeypatch.setattr(verify, "load_reference", spoilt)
    breach = first_breach(verify_bundle(bundle))
    assert breach is not None
    assert "step on CPUExecutionProvider" in breach
    assert "error of the chances" in breach


def changed(manifest: Manifest, **update: Any) -> list[str]:
    return list(problems(manifest.model_copy(update=update)))


def test_a_manifest_that_contradicts_itself_is_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert changed(manifest) == []
    (spec,) = manifest.outputs
    for outputs in (
        (),
        (spec, spec),
        (spec.model_copy(update={"name": "h"}),),
        (spec.model_copy(update={"levels": (0.5, 0.2)}),),
        (spec.model_copy(update={"levels": ()}),),
        (spec.model_copy(update={"levels": (0.1, 0.2, 0.3)}),),
    ):
        assert any("outputs" in one for one in changed(manifest, outputs=outputs)), outputs
    assert changed(manifest, state=manifest.state[::-1])
