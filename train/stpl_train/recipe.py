"""Recipes: TOML with `[model]`, `[data]` and `[training]`; a typo is an error.

A recipe is a file or the name of one that is shipped in `stpl_train/recipes/`. Any key can be set
from the command line: `--set training.iterations=500`. `extends = "NAME"` at its top takes the keys
of another recipe (`stpl_train.recipe_text`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from stpl_core.codec import FrameCodec
from stpl_core.errors import RecipeError, first_problem
from stpl_core.safety.budget import most_pixels
from stpl_core.safety.trust import trust_model
from stpl_core.windows.settings import ArchiveSettings, Share
from stpl_train.recipe_text import (
    Document,
    apply_setting,
    read_document,
    recipe_title,
    shipped_recipes,
)

__all__ = ["Recipe", "load_recipe", "parse_recipe", "recipe_title", "shipped_recipes"]


_MOST_CANDIDATES = 16


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(BaseModel):
    """`[model]`: a name and the keys of that model's own config (checked when it is built)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    """A word of `stpl_train.models.MODELS`, or `package.module:Class`."""

    @property
    def keys(self) -> dict[str, Any]:
        """Every key but the name."""
        return dict(self.model_extra or {})


class MovingMnistSection(_Section):
    """`[data] source = "moving-mnist"`: digits that bounce in a box (bibliography.md 3.5)."""

    source: Literal["moving-mnist"]
    frame: tuple[Literal[1], PositiveInt, PositiveInt] = (1, 64, 64)
    """(C, H, W)"""
    context: PositiveInt = 10
    """T, the frames that the model reads."""
    horizon: PositiveInt = 10
    """K, the frames that it predicts."""
    digits: PositiveInt = 2
    """Digits in each sequence."""
    digit_size: PositiveInt = 28
    """Side of a digit in pixels."""
    step: PositiveFloat = 0.1
    """Way per frame as a fraction of the free range (64 - 28 = 36 pixels: 3.6 pixels)."""
    images: str = "scikit-learn"
    """`scikit-learn` for its own handwritten digits, `mnist` to download MNIST, or a path with
    `train-images-idx3-ubyte[.gz]`."""
    validation_sequences: PositiveInt = 256
    cadence_s: PositiveFloat | None = None
    """Seconds between frames; None where time has no meaning."""
    codec: FrameCodec = FrameCodec()

    @model_validator(mode="after")
    def _digits_fit(self) -> MovingMnistSection:
        if self.digit_size > min(self.frame[1:]):
            raise ValueError(
                f"digit_size {self.digit_size} must not exceed the frame of "
                f"{self.frame[1]}x{self.frame[2]}"
            )
        return self


class ArraySection(_Section):
    """`[data] source = "array"`: the user's own sequences, `.npy` or `.npz`."""

    source: Literal["array"]
    path: Path
    """`(N, T, C, H, W)`, or one long sequence `(T, C, H, W)` that is cut into windows."""
    layout: str | None = None
    """The file's axes, such as `NTHW` for `(N, T, H, W)`; None: what follows from its shape."""
    frame: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """(C, H, W); None takes the file's, and the run's own recipe then states it."""
    context: PositiveInt = 10
    horizon: PositiveInt = 10
    stride: PositiveInt = 1
    """Frames between the starts of neighbouring windows."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The last part of the data, never trained on; no window crosses into it."""
    validation_sequences: PositiveInt = 256
    """At most so many windows of that part, evenly spread."""
    cadence_s: PositiveFloat | None = None
    codec: FrameCodec = FrameCodec()


class AugmentSection(_Section):
    """`[data.augment]`: training sequences are drawn and changed at random; the others are not."""

    candidates: PositiveInt = 2
    """Of so many drawn, the one with most values from `heavy` on is trained on: heavy rain is
    rare."""
    heavy: float = 0.55
    """Model units."""
    zoomed: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the sequences whose size is changed."""
    zoom: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    """By a factor between these; the archive's frames limit the least one."""
    every: tuple[PositiveInt, ...] = Field(default=(1, 1, 1, 2, 2, 3), min_length=1)
    """One of these is drawn: every n-th frame is taken, so that all moves n times as fast. Frames
    that the archive does not have count as not observed."""
    turns: bool = True
    """Mirror both axes at random; square frames are transposed too."""
    weights: tuple[PositiveFloat, ...] | None = None
    """How often each archive of `path` is drawn from, in parts of their sum; None: as often as it
    has windows."""
    brighter: NonNegativeFloat = 0.05
    """Half of the sequences get up to so much more or less where something is, model units."""

    @model_validator(mode="after")
    def _within(self) -> AugmentSection:
        if not self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom {list(self.zoom)} must rise")
        if self.candidates > _MOST_CANDIDATES:
            raise ValueError(f"candidates {self.candidates} must be at most {_MOST_CANDIDATES}")
        return self


class ArchiveSection(ArchiveSettings):
    """`[data] source = "archive"`: files of any format that a reader knows (docs/data.md)."""

    validation_sequences: PositiveInt = 256
    """At most so many windows of the validation part, evenly spread."""
    augment: AugmentSection | None = None
    """How training sequences are varied; None: they are not."""

    @model_validator(mode="after")
    def _varies_every_frame(self) -> ArchiveSection:
        if self.augment is not None and self.every != 1:
            raise ValueError(f"every = {self.every} with augment, which thins by itself")
        weights = self.augment and self.augment.weights
        if weights and len(weights) != len(self.paths):
            raise ValueError(f"augment.weights has {len(weights)} for {len(self.paths)} archives")
        return self


class SyntheticSection(_Section):
    """`[data] source = "synthetic"`: an imported model came without data.

    Moving digits stand in for the export's check; there is nothing to train on.
    """

    source: Literal["synthetic"]
    frame: tuple[PositiveInt, PositiveInt, PositiveInt]
    """(C, H, W)"""
    context: PositiveInt = 10
    horizon: PositiveInt = 10
    cadence_s: PositiveFloat | None = None
    codec: FrameCodec = FrameCodec()


DataSection = Annotated[
    MovingMnistSection | ArraySection | ArchiveSection | SyntheticSection,
    Field(discriminator="source"),
]


class LeadsSection(_Section):
    """`[training.leads]`: what `loss = "mse-events"` compares, and how much each part counts."""

    count: PositiveInt = 5
    """Lead times that are drawn in each iteration."""
    whole_context: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the iterations that read all T frames; the others read 1 to T - 1."""
    error: PositiveFloat = 0.006
    """Mean square error that counts 1 at the first lead time, model units."""
    growth: float = 0.8
    """It rises with lead time k as k to this power."""
    events: tuple[NonNegativeFloat, ...]
    """Weight of each of the model's levels in the cross-entropy of events."""


class TrainingSection(_Section):
    """`[training]`: how the weights are found (bibliography.md 3)."""

    iterations: PositiveInt
    batch: PositiveInt = 16
    """Sequences per iteration, over all devices together."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    lr: PositiveFloat = 1e-3
    lr_min: NonNegativeFloat = 1e-6
    lr_hold: PositiveInt = 1
    """Iterations for which the cosine's value is held (the papers step it per epoch of 200)."""
    warmup: NonNegativeInt = 0
    """Iterations over which the learning rate rises linearly from zero."""
    weight_decay: NonNegativeFloat = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of Adam's two moments."""
    loss: Literal["sse-sae", "sse-2sae", "sse", "mse", "mse-events"] = "sse-sae"
    """`sse-sae`: (sum of squares + sum of absolutes) / 4, `sse-2sae`: sum of squares / 2 + sum of
    absolutes, `sse`: sum of squares / 2, all summed over the batch; `mse`: mean of squares;
    `mse-events`: mean of squares and cross-entropy of events at random lead times (`leads`), for
    models that forecast events. It draws the context's length, and nothing of `sampling`."""
    leads: LeadsSection | None = None
    """For `loss = "mse-events"`."""
    skip_first_guess: bool = True
    """Leave the guess of frame 2 out of the loss, as MoDeRNN's and CMS-LSTM's code does."""
    sampling: Literal["scheduled", "reverse"] = "scheduled"
    """Which true frames the model reads: `scheduled` (all of the context, ever fewer of the
    future) or PredRNN-V2's `reverse` (ever more of the context as well); see bibliography.md 3.1
    and 3.2."""
    sampling_until: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`scheduled`: the chance of seeing the true frame falls from 1 to 0 over this part of the
    iterations; with 0 it never reads a true future frame."""
    reverse_start: NonNegativeInt = 25000
    """`reverse`: up to this iteration, context and future frames are true half of the time."""
    reverse_end: PositiveInt = 50000
    """`reverse`: from here on context frames are always true, future frames never."""
    reverse_alpha: PositiveFloat = 5000.0
    """`reverse`: iterations in which the chance that a context frame is hidden falls to 1/e."""
    reversed_pass: bool = True
    """A second optimiser step per iteration on the time-reversed sequence."""
    clip_norm: PositiveFloat | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: PositiveInt | None = None
    """CPU threads of each process; None takes PyTorch's own choice. A small model is fastest with
    one: its operations are too short to share, and threads that wait for one another on a busy
    machine made it ten times slower."""
    channels_last: bool = False
    """Lay weights and maps out with the channels innermost, as most devices' convolutions like."""
    compile: bool = False
    """Run the model's step through torch.compile."""
    recompute: bool = False
    """Keep only the states between steps and run each step again on the way back: memory for one
    step in place of T + K - 1, about half more time."""
    validate_every: PositiveInt = 200
    checkpoint_every: PositiveInt = 200

    @model_validator(mode="after")
    def _leads_of_events(self) -> TrainingSection:
        if (self.loss == "mse-events") != (self.leads is not None):
            raise ValueError('loss = "mse-events" and [training.leads] need one another')
        unused = [key for key in ("recompute", "compile", "reversed_pass") if getattr(self, key)]
        if self.leads is not None and unused:
            raise ValueError(f'loss = "mse-events" takes no steps: {unused[0]} must be false')
        return self

    @model_validator(mode="after")
    def _reverse_in_order(self) -> TrainingSection:
        if not self.reverse_start < self.reverse_end:
            raise ValueError(
                f"reverse_start {self.reverse_start} must be below reverse_end {self.reverse_end}"
            )
        return self


class ImportedSection(_Section):
    """`[imported]`: where weights came from that were not trained here."""

    project: str
    """The word after `--from`."""
    file: str
    """The checkpoint's name."""
    sha256: str
    """Of the checkpoint's bytes."""
    unused: tuple[str, ...] = ()
    """Its tensors that change no output there and were left out."""


class StartSection(_Section):
    """`[start]`: the weights that training began with, in place of random ones."""

    weights: str
    """The run or bundle, or `pretrained:NAME`."""
    sha256: str
    """Of their file."""


_STEPS_KEY = {"e3d-lstm": "history"}
"""Model -> the key that is T + K - 1, the steps of a sequence, unless a recipe sets it."""


_MOST_FRAMES = 100_000


class Recipe(_Section):
    """A whole recipe."""

    model: ModelSection
    data: DataSection
    training: TrainingSection
    imported: ImportedSection | None = None
    start: StartSection | None = None

    @model_validator(mode="after")
    def _whole_history(self) -> Recipe:
        key = _STEPS_KEY.get(self.model.name)
        if key is None or key in self.model.keys:
            return self
        model = ModelSection(name=self.model.name, **self.model.keys, **{key: max(2, self.steps)})
        return self.model_copy(update={"model": model})

    @model_validator(mode="after")
    def _within_reason(self) -> Recipe:
        data = self.data
        frame = data.frame or (1, 1, 1)
        for name, count in (("context", data.context), ("horizon", data.horizon)):
            if count > _MOST_FRAMES:
                raise ValueError(f"data.{name} = {count:,}, more than {_MOST_FRAMES:,}")
        if math.prod(frame) > most_pixels():
            raise ValueError(f"data.frame = {frame}, more than {most_pixels():,} values")
        return self

    @property
    def steps(self) -> int:
        """T + K - 1: of the model over one sequence."""
        return self.data.context + self.data.horizon - 1

    def remarks(self) -> list[str]:
        """Settings that are allowed but probably not intended, one line each."""
        key = _STEPS_KEY.get(self.model.name)
        kept = self.model.keys.get(key) if key else None
        if not isinstance(kept, int) or kept == max(2, self.steps):
            return []
        effect = (
            f"the first {self.steps - kept} are forgotten on the way, unlike in the paper"
            if kept < self.steps
            else f"{kept - self.steps} stay empty: the same forecast, but slower"
        )
        remark = (
            f"model.{key} = {kept}, and a sequence has {self.steps} steps "
            f"(data.context + data.horizon - 1): {effect}; "
            f"unless this is intended, leave model.{key} out"
        )
        return [remark]


def load_recipe(
    name: str | Document,
    settings: Sequence[str] = (),
    model: str | None = None,
    *,
    rest: str = "",
    command: str = "stpl-deploy train",
) -> Recipe:
    """Read a recipe by file or shipped name and apply `section.key=value` settings.

    Args:
        name: a file, or one of `shipped_recipes`; or a recipe that was read already.
        settings: each `section.key=value`. Where they name another `data.source`, only `context`
            and `horizon` are left of the recipe's `[data]`: the others belong to its own data.
        model: another model's name; it takes the place of the recipe's whole `[model]` section,
            whose keys belong to the recipe's own model.
        rest: what follows the recipe on the command line, to be typed again after a typo.
        command: what stands before it there.

    Raises:
        RecipeError: no such recipe, not TOML, an unknown key, or a value that does not fit.
    """
    document = (
        read_document(name, rest, command=command) if isinstance(name, str) else deepcopy(name)
    )
    given = settings_document(settings)
    for word in (model, given.get("model", {}).get("name")):
        if isinstance(word, str):  # typed by whoever runs this, unlike what the file names
            trust_model(word)
    if model is not None:
        document["model"] = {"name": model}
    source = given.get("data", {}).get("source")
    data = document.get("data", {})
    if source is not None and source != data.get("source"):
        document["data"] = {key: data[key] for key in ("context", "horizon") if key in data}
    for setting in settings:
        apply_setting(document, setting)
    return parse_recipe(document)


def plain_document(recipe: Recipe) -> Document:
    """A recipe as it is written down; None stands for an absent key."""
    return recipe.model_dump(mode="json", exclude_none=True)


def parse_recipe(document: dict[str, Any]) -> Recipe:
    """Check a recipe that was read already.

    Raises:
        RecipeError: an unknown key, or a value that does not fit.
    """
    try:
        return Recipe.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = first_problem(error, "", _known(first["loc"]), _SOURCES)
        if first["type"] == "extra_forbidden":
            problem["fix"] = _other_source(first["loc"]) or problem["fix"]
        raise RecipeError(**problem) from error


def settings_document(settings: Sequence[str]) -> dict[str, Any]:
    """The part of a recipe that `section.key=value` settings make on their own.

    Raises:
        RecipeError: one of them has another form.
    """
    document: dict[str, Any] = {}
    for setting in settings:
        apply_setting(document, setting)
    return document


_SOURCES = (
    "moving-mnist",
    "array",
    "archive",
    "synthetic",
)  # pydantic names the source that it chose


def _other_source(where: tuple[int | str, ...]) -> str:
    """What to type for a key of `[data]` that another source has; empty where none does."""
    sections: dict[str, type[BaseModel]] = {
        "archive": ArchiveSection,
        "array": ArraySection,
        "moving-mnist": MovingMnistSection,
    }
    if len(where) != 3 or where[0] != "data":
        return ""
    others = [name for name, section in sections.items() if where[2] in section.model_fields]
    if not others:
        return ""
    return f"--set data.source={others[0]}, which has data.{where[2]}" + (
        f" (so has {others[1]})" if others[1:] else ""
    )


def _known(where: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "training": TrainingSection,
        "moving-mnist": MovingMnistSection,
        "array": ArraySection,
        "archive": ArchiveSection,
        "synthetic": SyntheticSection,
        "imported": ImportedSection,
        "start": StartSection,
        "codec": FrameCodec,
        "augment": AugmentSection,
        "leads": LeadsSection,
    }
    inside = [str(part) for part in where[:-1] if str(part) in sections]
    return list(sections[inside[-1]].model_fields if inside else Recipe.model_fields)
