"""A step graph in the types that an export promised, and how such a bundle is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray
from onnx import ModelProto

from stpl_core.bundle import AccuracyReport, Bundle
from stpl_export.graphs.onnx_step import OPSET
from stpl_export.precision.exact_norms import exact_norms
from stpl_runtime.proof.reference import Reference
from stpl_runtime.proof.verify import verify_bundle

Progress = Callable[[str], None]


class TypedStep(Protocol):
    """One precision's form of the step graph; `forecast` and `rollout` are composed from it."""

    @property
    def precision(self) -> str:
        """The word of `--precision`."""
        ...

    @property
    def typed(self) -> ModelProto:
        """The graph, weights inside."""
        ...

    def weights(self) -> dict[str, NDArray[Any]]:
        """Weights that are kept beside the fp32 ones, by initializer name."""
        ...

    def facts(self) -> dict[str, Any]:
        """Its entries in the manifest."""
        ...

    def judge(self, reference: Reference) -> Reference:
        """The reference with what this precision is judged by."""
        ...

    def check(self, bundle: Bundle, progress: Progress) -> AccuracyReport:
        """Run the closed loop of a bundle made from it."""
        ...

    def fix(self, reference: Reference, progress: Progress) -> str:
        """What to type after a breach."""
        ...


@dataclass(frozen=True)
class PlainStep:
    """fp32."""

    step: ModelProto
    precision: str = "fp32"

    @property
    def typed(self) -> ModelProto:
        """The graph with its large norms summed in float64."""
        return exact_norms(self.step)

    def weights(self) -> dict[str, NDArray[Any]]:
        """None beside the fp32 ones."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Nothing but the operator set."""
        return {"opset": OPSET}

    def judge(self, reference: Reference) -> Reference:
        """fp32 is judged by PyTorch's own rounding."""
        return reference

    def check(self, bundle: Bundle, progress: Progress) -> AccuracyReport:
        """On ONNX Runtime."""
        return verify_bundle(bundle, progress=progress)

    def fix(self, reference: Reference, progress: Progress) -> str:
        """There is no lower precision to blame."""
        return "another version of torch or onnxruntime; stpl-deploy doctor lists the versions here"
