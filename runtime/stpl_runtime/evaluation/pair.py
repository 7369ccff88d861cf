"""Two models for one evaluation: the same windows, the same pixels, the same lead times."""

from __future__ import annotations

from dataclasses import replace

from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_runtime.chances import Chances
from stpl_runtime.evaluation.subject import Judged


def paired(first: Judged, second: Judged) -> tuple[Judged, Judged]:
    """Let two models read and predict the same frames.

    Both are given the longer context, of which each reads as many of the newest frames as it takes,
    and predict up to the nearer horizon. The range of the first one's codec holds for the scores.

    Raises:
        UsageError: of another unit, cadence or number of channels.
    """
    for what, one, other in (
        ("unit", first.codec.units, second.codec.units),
        ("channels", f"{first.frame[0]} channels", f"{second.frame[0]} channels"),
        ("cadence", _cadence(first), _cadence(second)),
    ):
        if one != other:
            raise UsageError(
                f"--compare has a model of {other}",
                expected=f"one of the same {what}: {one}",
                fix="evaluate each by itself",
            )
    context = max(first.context, second.context)
    horizon = min(first.horizon, second.horizon)
    return _read_as(first, context, horizon), _read_as(second, context, horizon)


def on_the_frames_of(second: Judged, first: Judged) -> Judged:
    """The second model on frames of the first one's size, in tiles where its own are smaller.

    Raises:
        UsageError: its frames are larger.
    """
    (height, width), (own_height, own_width) = first.frame[1:], second.frame[1:]
    if (height, width) == (own_height, own_width):
        return second
    if own_height > height or own_width > width:
        raise UsageError(
            f"--compare has a model of frames of {own_height}x{own_width}",
            expected=f"at most {height}x{width}, which are scored",
            fix="name it first, and compare it with the smaller one",
        )
    return second.covering((height, width))


def _read_as(judged: Judged, context: int, horizon: int) -> Judged:
    """Given more frames than it reads, and asked for fewer than it predicts."""
    if (judged.context, judged.horizon) == (context, horizon):
        return judged
    newest = slice(-judged.context, None)
    forecast, cover, likely = judged.forecast, judged.cover, judged.likely

    def nearer(frames: Array) -> tuple[Array, Chances]:
        assert likely is not None
        made, chances = likely(frames[:, newest])
        return made[:, :horizon], replace(chances, values=chances.values[:, :horizon])

    return replace(
        judged,
        context=context,
        horizon=horizon,
        forecast=lambda frames: forecast(frames[:, newest])[:, :horizon],
        cover=None if cover is None else lambda field: _read_as(cover(field), context, horizon),
        likely=None if likely is None else nearer,
    )


def _cadence(judged: Judged) -> str:
    return "no cadence" if judged.cadence_s is None else f"a frame every {judged.cadence_s:g} s"
