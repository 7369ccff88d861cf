"""How far a tensor of the state may be from PyTorch's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.proof.reference import Reference, ReferenceState, load_reference
from stpl_runtime.proof.tolerance import state_tolerance


def having(bundle: Bundle, **states: tuple[float, float]) -> Reference:
    """A reference whose state has these greatest values and tolerances."""
    made = {
        name: ReferenceState(np.array([[0.0, -greatest]]), tolerance)
        for name, (greatest, tolerance) in states.items()
    }
    return replace(load_reference(bundle), states=made)


def test_no_tensor_is_held_to_less_than_the_one_that_rounds_most(bundle: Bundle) -> None:
    found = having(bundle, c=(8.0, 4e-5), h=(0.5, 2e-6), u=(0.1, 3e-6), n=(100.0, 1e-5))
    allowed = {name: state_tolerance(found, "fp32", name) for name in found.states}
    assert allowed == pytest.approx({"c": 4e-5, "h": 5e-6, "u": 5e-6, "n": 1e-5})


def test_one_alone_is_held_to_its_own(bundle: Bundle) -> None:
    assert state_tolerance(having(bundle, c=(8.0, 4e-5)), "fp32", "c") == 4e-5


def test_half_precision_is_in_units_of_the_greatest_value(bundle: Bundle) -> None:
    """Thirty-two times the root mean square of 45 dB."""
    found = having(bundle, c=(8.0, 4e-5), h=(0.5, 2e-6))
    allowed = {name: state_tolerance(found, "bf16", name) for name in found.states}
    assert allowed == pytest.approx({"c": 8 * 32 * 10**-2.25, "h": 32 * 10**-2.25})
