"""How good a run or a bundle is: its scores per lead time beside those of baselines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from stpl_core.errors import UsageError, install_command
from stpl_core.option import Option, fill
from stpl_core.options import ProofOptions, SignatureOptions
from stpl_deploy.library.numbers import finite_numbers

if TYPE_CHECKING:
    from stpl_runtime.evaluation.evaluate import Evaluation
    from stpl_runtime.evaluation.subject import Judged, Material


@dataclass(frozen=True)
class EvaluateOptions:
    """What is scored, on what, and beside what."""

    path: Annotated[
        Path,
        Option("Run directory, or bundle directory.", metavar="RUN|BUNDLE", argument=True),
    ]
    data: Annotated[
        Path | None,
        Option(
            "Sequences, .npy or .npz of (N,S,C,H,W), or any archive; "
            "default: those that it carries along."
        ),
    ] = None
    part: Annotated[
        Literal["validation", "test"] | None,
        Option("This part of the archive it was trained on, in place of --data."),
    ] = None
    compare: Annotated[
        Path | None,
        Option(
            "Another run or bundle, scored on the same windows and pixels, with what differs by "
            "more than chance. With --data or --part.",
            metavar="RUN|BUNDLE",
        ),
    ] = None
    thresholds: Annotated[
        str | None,
        Option("Events are values at or above these, such as 0.1,1,5; physical units."),
    ] = None
    scales: Annotated[str, Option("Sides of FSS's squares, in pixels.")] = "5,15,31"
    baseline: Annotated[
        str | None,
        Option(
            "Of persistence,flow,day,week (default: all that the data allow), and, with pysteps "
            "installed, pysteps-extrapolation, -sprog, -anvil, -linda and -steps."
        ),
    ] = None
    horizon: Annotated[
        int | None,
        Option("Frames to predict, with --data or --part; default: as trained or tested.", least=1),
    ] = None
    stride: Annotated[
        int | None,
        Option(
            "Frames between the windows of an archive; default: as many as it predicts.", least=1
        ),
    ] = None
    windows: Annotated[
        bool,
        Option(
            "Cut windows of the model's size first, as training does; flow then loses what comes "
            "in over their edges. Default: whole fields.",
            flag="--windows",
        ),
    ] = False
    backend: ProofOptions = field(default_factory=ProofOptions)
    signature: SignatureOptions = field(default_factory=SignatureOptions)
    grid: Annotated[
        str | None,
        Option("HxW of larger frames of --data or --part: a bundle covers in tiles."),
    ] = None
    members: Annotated[
        int | None,
        Option(
            "Draw an ensemble of so many members, as predict --members does, and score it: CRPS, "
            "spread, ranks.",
            default="none",
            least=2,
            most=1000,
            metavar="N",
        ),
    ] = None
    any_grid: Annotated[
        bool, Option("Go on where pixels have another size than trained.", flag="--any-grid")
    ] = False

    @property
    def given(self) -> bool:
        """Whether other sequences are scored than those that it carries along."""
        return self.data is not None or self.part is not None


def evaluate(path: Path | str, **options: Any) -> Evaluation:
    """Score forecasts of a run or a bundle per lead time, beside simple baselines.

    Args:
        path: a run or a bundle.
        **options: of `EvaluateOptions`, by name: `data`, `part`, `thresholds`, `horizon` ...

    Returns:
        The scores: `table()` is CSV, `document()` all of it.

    Raises:
        StplError: what it cannot read or run, in one line.
    """
    from stpl_deploy.library.numbers import sized

    return run_evaluation(fill(EvaluateOptions, {"path": path, **sized(options)}, "evaluate"))


def run_evaluation(
    options: EvaluateOptions,
    remark: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """Score what the options ask for.

    Args:
        options: what is asked for.
        remark: given what is worth knowing about the data.
        progress: given (sequences done, sequences in all).
    """
    check(options)
    limits = None
    if options.thresholds is not None:
        limits = finite_numbers("--thresholds", options.thresholds, "1,5", blanks=True)
    sides = _sides(options.scales)
    words = None if options.baseline is None else options.baseline.split(",")
    from stpl_runtime.evaluation.evaluate import evaluate as scored

    judged, other = _opened(options)
    if words is None:
        _remark_on_flow(remark)
    material = _material(judged, options, remark)
    if material.field is not None:
        judged = judged.covering(material.field)
    if other is not None:
        other = _fitted(other, judged, material, options, remark)
    for line in material.remarks:
        remark(line)
    return scored(
        judged,
        material,
        thresholds=limits,
        scales=sides,
        baselines=None if words is None else [word.strip() for word in words],
        other=other,
        members=options.members,
        progress=progress,
    )


def _opened(options: EvaluateOptions) -> tuple[Judged, Judged | None]:
    """The model, and the one that it is compared with."""
    from stpl_deploy.judging import open_judged
    from stpl_runtime.engines.tiled import domain_size
    from stpl_runtime.evaluation.pair import paired
    from stpl_runtime.evaluation.subject import Backend

    def opened(path: Path) -> Judged:
        return open_judged(
            path,
            backend=Backend(**vars(options.backend)),
            horizon=options.horizon,
            testing=options.given,
            domain=None if options.grid is None else domain_size(options.grid),
            signature=options.signature,
        )

    first = opened(options.path)
    return (first, None) if options.compare is None else paired(first, opened(options.compare))


def _fitted(
    other: Judged,
    judged: Judged,
    material: Material,
    options: EvaluateOptions,
    remark: Callable[[str], None],
) -> Judged:
    """The model that is compared, on the same frames; their grid has to be its own too."""
    from stpl_core.same_grid import check_same_grid
    from stpl_runtime.evaluation.pair import on_the_frames_of

    if material.grids:
        line = check_same_grid(
            material.grids[0], other.grids, material.about, any_grid=options.any_grid
        )
        if line:
            remark(f"the other model: {line}")
    return on_the_frames_of(other, judged)


def check(options: EvaluateOptions) -> None:
    """Refuse options that would do nothing."""
    if options.horizon is not None and not options.given:
        raise UsageError(
            f"--horizon {options.horizon} for the sequences that it carries, which have their own",
            expected="--horizon with --data or --part",
            fix="--part test, or --data D",
        )
    if options.compare is not None and not options.given:
        raise UsageError(
            f"--compare {options.compare} on the sequences that {options.path} carries",
            expected="--data or --part: sequences that neither was made with",
            fix="--data D",
        )
    if options.grid is not None and options.windows:
        raise UsageError(
            f"--grid {options.grid} with --windows",
            expected="whole fields, or windows of the model's size",
            fix="leave one out",
        )
    if options.grid is not None and not options.given:
        raise UsageError(
            f"--grid {options.grid} for the sequences that it carries, which are of its own size",
            expected="--grid with --data or --part",
            fix="--data D",
        )


def _sides(scales: str) -> list[int]:
    sides = [round(side) for side in finite_numbers("--scales", scales, "5,15", blanks=True)]
    if min(sides, default=1) < 1:
        raise UsageError(f"--scales {scales}", expected="pixels, 1 or more", fix="--scales 5,15")
    return sides


def _remark_on_flow(remark: Callable[[str], None]) -> None:
    if importlib.util.find_spec("cv2") is None:
        remark(f"no optical flow: OpenCV is not installed; {install_command('evaluate')}")


def _material(judged: Judged, options: EvaluateOptions, remark: Callable[[str], None]) -> Material:
    from stpl_runtime.evaluation.archives import archive_material, is_archive
    from stpl_runtime.evaluation.subject import read_material

    data, part = options.data, options.part
    if data is not None and part is not None:
        raise UsageError(
            f"--data {data} and --part {part}", expected="one of them", fix="leave one out"
        )
    if data is not None and not is_archive(data):
        return read_material(data, judged)
    if data is None and part is None:
        return judged.own()
    remark(f"reading {data or f'the {part} part of the archive'}")
    return archive_material(
        judged,
        path=data,
        part=part or "test",
        stride=options.stride,
        any_grid=options.any_grid,
        windows=options.windows,
    )
