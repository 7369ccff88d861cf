"""The manifest of a bundle: everything in it, described."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from stpl_core.codec import FrameCodec
from stpl_core.grid import Grid

SCHEMA_VERSION = 1

GraphName = Literal["step", "forecast", "rollout"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StateSpec(_Part):
    """One named state tensor: which graph input it is and which output becomes it."""

    name: str
    input: str | None
    """None: no step reads it. It is given beside the frame (`Manifest.outputs`)."""
    output: str
    shape: tuple[int, ...]
    """Without the batch axis, which is first."""
    dtype: str = "float32"


class OutputSpec(_Part):
    """What a model gives with every step beside the next frame: a part of its state, not read."""

    name: str
    """Of the state tensor."""
    kind: Literal["exceedance"] = "exceedance"
    """Chances, 0 to 1, that the next frame's values are at or above each level: `(Q, C, H, W)`."""
    levels: tuple[float, ...]
    """Q of them, rising, in model units."""


class GraphSpec(_Part):
    """One ONNX graph."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class EngineSpec(_Part):
    """One engine that a builder made for this bundle; ONNX graphs need no entry."""

    engine: str
    """The engine's word, such as `trt`."""
    graph: GraphName
    file: str
    precision: str
    batch: PositiveInt
    details: dict[str, Any] = {}
    """What the engine must find on the machine: flavour, versions, capabilities."""


class FileSpec(_Part):
    """Size and checksum of one file."""

    bytes: int
    sha256: str


class ModelInfo(_Part):
    """Which model the weights belong to."""

    name: str
    parameters: int
    keys: dict[str, Any]
    """The recipe's [model] section, resolved, without `name`."""


class LeadAccuracy(_Part):
    """Closed-loop agreement of one engine with PyTorch at one lead time, in model units."""

    lead: PositiveInt
    max_error: float
    mean_error: float
    psnr_db: float | None
    """Peak 1; None where the results are identical."""
    tolerance: PositiveFloat
    """Greatest max_error that passes."""
    min_psnr_db: float | None = None
    """Least PSNR that passes, below fp32."""
    mse_change: float
    """Relative change of the task's MSE against truth, engine over PyTorch minus 1."""

    @property
    def passed(self) -> bool:
        """Whether error and PSNR are inside the tolerance; NaN is not."""
        close = self.min_psnr_db is None or self.psnr_db is None or self.psnr_db >= self.min_psnr_db
        return close and self.max_error <= self.tolerance


class Int8Accuracy(_Part):
    """What is asked of an int8 engine beside its closeness to PyTorch; dB, peak 1."""

    psnr_change_db: float
    """PSNR against truth over all lead times, engine minus PyTorch: the task's own metric."""
    budget_db: PositiveFloat | None = None
    """How much of it may be lost; None where the batch had some of the sequences only."""
    early_margin_db: float | None = None
    """How far the first steps lie above the least agreement with the quantised graph computed
    operation by operation; None where steps were not run."""

    @property
    def passed(self) -> bool:
        """Whether the budget holds and the first steps agree; NaN does not."""
        early = self.early_margin_db is None or self.early_margin_db >= 0.0
        return early and (self.budget_db is None or self.psnr_change_db >= -self.budget_db)


class GraphAccuracy(_Part):
    """The verdict on one way to run the rollout on one engine."""

    engine: str
    provider: str
    path: str
    """`step`, `forecast` or `rollout`."""
    batch: PositiveInt
    leads: tuple[LeadAccuracy, ...]
    state_error: float | None = None
    """Greatest state error after the context against PyTorch, over its tolerance; <= 1 passes."""
    output_error: float | None = None
    """The same of what is given beside the frames, over all lead times."""
    int8: Int8Accuracy | None = None

    @property
    def passed(self) -> bool:
        """Whether every lead time and the state pass, and what int8 adds."""
        beside = all(
            error is None or error <= 1.0 for error in (self.state_error, self.output_error)
        )
        int8 = self.int8 is None or self.int8.passed
        return beside and int8 and all(lead.passed for lead in self.leads)


class AccuracyReport(_Part):
    """The closed-loop check that ended the export."""

    data: str
    """Where the sequences came from; `synthetic` where moving digits stood in."""
    sequences: PositiveInt
    checks: tuple[GraphAccuracy, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class Speed(_Part):
    """How int8 compares with fp32 on the machine that exported, one arrival to its nowcast."""

    times: float
    """How many times as fast as fp32, from the medians."""
    p05: float
    p95: float
    """Spread over single rounds."""
    int8_ms: float
    fp32_ms: float
    rounds: PositiveInt
    threads: PositiveInt
    machine: str


class Int8Facts(_Part):
    """How a bundle was quantised, and what that gained."""

    scheme: str
    """Types of activations and weights."""
    calibration: str
    """The sequences from which the ranges came."""
    budget_db: PositiveFloat
    """How much of the task's PSNR may be lost."""
    speed: Speed | None = None
    """None: not measured, since the engine cannot run on the machine that exported."""


class Manifest(_Part):
    """The manifest: everything a reader of the bundle needs to know."""

    schema_version: int = SCHEMA_VERSION
    created: str
    """ISO 8601, UTC."""
    model: ModelInfo
    context: PositiveInt
    """T, the frames that a nowcast reads."""
    horizon: PositiveInt
    """K, the frames that `forecast` and `rollout` predict."""
    frame: tuple[PositiveInt, PositiveInt, PositiveInt]
    """(C, H, W)"""
    cadence_s: PositiveFloat | None = None
    """Seconds between frames, where the data has a fixed one."""
    grids: tuple[Grid, ...] = ()
    """Where the pixels of the training data lay, as the model saw them; empty where unknown."""
    codec: FrameCodec
    state: tuple[StateSpec, ...]
    """Those of `outputs` come last."""
    outputs: tuple[OutputSpec, ...] = ()
    """What `step` gives beside the next frame."""
    precision: str = "fp32"
    convolution_share: dict[str, float] = {}
    """Type -> share of the step's convolution work, in multiply-accumulates; empty for fp32."""
    kept_fp32: dict[str, str] = {}
    """Work that stays in fp32 in a lower precision: node -> why."""
    int8: Int8Facts | None = None
    opset: int
    graphs: dict[GraphName, GraphSpec]
    engines: tuple[EngineSpec, ...] = ()
    accuracy: AccuracyReport | None = None
    recipe: dict[str, Any]
    """The resolved recipe of the training run."""
    tools: dict[str, str]
    """Versions of what made the bundle."""
    files: dict[str, FileSpec] = {}
    """Every file that belongs to the bundle, but for the manifest."""

    @property
    def domain(self) -> tuple[int, int]:
        """(H, W) of the frames it is for: its own, unless they are padded to what it takes."""
        _, height, width = self.recipe.get("data", {}).get("frame") or self.frame
        return height, width
