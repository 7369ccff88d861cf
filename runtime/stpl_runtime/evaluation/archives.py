"""Sequences to judge a model on from an archive of any format, as training would cut them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import wrong_size
from stpl_core.machine import memory_bytes
from stpl_core.readers.npz import open_npz
from stpl_core.same_grid import check_same_grid
from stpl_core.windows.archive import Archive, open_archive
from stpl_core.windows.cut import Windows
from stpl_core.windows.frames import ArchiveFrames
from stpl_core.windows.placing import Indices
from stpl_core.windows.settings import ArchiveSettings
from stpl_runtime.evaluation.subject import Judged, Material, Surroundings, always_seen

Part = Literal["validation", "test"]

_MOST_BYTES = 2**32
"""Of the frames that are taken, and at most a quarter of the memory; more windows are thinned out
evenly. Moving MNIST's test file of 10,000 sequences takes 3.3e9."""


def is_archive(path: Path) -> bool:
    """Whether a reader reads it: all but .npy, and .npz without the states that ours have."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return path.is_dir() or path.suffix.lower() not in (".npy", ".npz")
    try:
        with open_npz(path) as file:
            return "state" in file.files
    except (OSError, ValueError, EOFError):
        return False  # whoever reads it raises


def archive_material(
    judged: Judged,
    *,
    path: Path | None = None,
    part: Part = "test",
    stride: int | None = None,
    any_grid: bool = False,
    windows: bool = False,
) -> Material:
    """Cut an archive into sequences, one every K frames, on the model's grid.

    A model of tiles is judged on whole fields, which it has to cover (`Material.field`): baselines
    then see what comes in over a tile's edge, as they would at work.

    Args:
        judged: says what frames are expected, and how its own archive was read.
        path: every window of this archive; None: the archive it was trained on.
        part: of the archive it was trained on; training has seen nothing of `test`.
        stride: frames between the starts of windows; None: K, so that none is forecast twice.
        any_grid: take `path` also where its pixels have another size than those of the training.
        windows: cut frames of the model's size first, as training does.

    Raises:
        UsageError: no `path`, and the model was not trained on an archive.
        FrameError: it cannot be read or used, has no window, or pixels of another size; names the
            file.
    """
    own = dict(judged.data) if judged.data.get("source") == "archive" else {}
    if path is None and not own:
        raise UsageError(
            f"--part {part}, but this model was not trained on an archive",
            expected='a recipe with data.source = "archive"',
            fix="--data D",
        )
    settings = _settings(judged, own, path, stride)
    archive = open_archive(settings, keep="physical")
    remarks = () if path is None else tuple(_remarks(archive, judged, own, path, any_grid))
    whole, chosen_part = settings.tiles and not windows, part if path is None else "test"
    found = archive.whole(chosen_part) if whole else archive.parts[chosen_part]
    if found.count == 0:
        raise _no_window(settings, judged, "" if path else f" in its {part} part")
    chosen = _spread(found.count, judged, found.size)
    frames, observed = found.read(chosen, "physical")  # (N, T + K, C, H, W), (N, T + K, H, W)
    thinned = f" ({found.count} evenly thinned)" if len(chosen) < found.count else ""
    about = settings.where + (f", {part} part" if path is None else "") + thinned
    around = None if windows else _surroundings(settings, found, chosen, judged.context)
    return Material(
        about=about,
        frames=frames,
        valid=None if observed.all() else always_seen(observed),
        times=None if archive.cadence_s is None else found.times(chosen),
        longer=found.sequences(chosen),
        remarks=remarks,
        protocol=_protocol(judged, found, whole=whole, windows=windows, around=around),
        field=found.size if whole else None,
        surroundings=around,
        grids=tuple(found.grid(n) for n in chosen.tolist()),
    )


def _no_window(settings: ArchiveSettings, judged: Judged, where: str) -> FrameError:
    return FrameError(
        f"{settings.where} has no {judged.context + judged.horizon} frames in a row",
        expected=f"at least one such run of frames{where}",
        fix="more frames, or another --data",
    )


def _remarks(
    archive: Archive, judged: Judged, own: Mapping[str, Any], path: Path, any_grid: bool
) -> list[str]:
    """What is to be known of another archive than that of the training.

    Raises:
        FrameError: it does not fit the model.
    """
    remarks: list[str] = []
    for opened in archive.frames:
        _check_size(opened, judged, own)
        remarks += _resized(opened, judged)
        remark = check_same_grid(
            opened.grid, judged.grids, str(path), any_grid=any_grid, crop=own.get("crop")
        )
        remarks += [remark] if remark else []
    return remarks


def _protocol(
    judged: Judged,
    found: Windows,
    *,
    whole: bool,
    windows: bool,
    around: Surroundings | None,
) -> str:
    """What the model and the baselines see, in words."""
    height, width = found.size
    size = f"{height}x{width}"
    stored = found.archives[int(found.places[0, 0])].stored_size
    if windows:
        return (
            f"windows of {size} are cut first, and nothing comes in over their edges: not as in a "
            "nowcast, and to the disadvantage of flow"
        )
    if around is not None:
        return f"crops of {size}; baselines see the whole field of {stored[0]}x{stored[1]}"
    if whole or judged.tiling:
        tiling = judged.covering((height, width)).tiling or "the model at once"
        return f"whole fields of {size}: {tiling}; baselines see the whole field"
    return f"frames of {size}, for the model and the baselines alike"


def _surroundings(
    settings: ArchiveSettings, found: Windows, chosen: Indices, context: int
) -> Surroundings | None:
    """What lies around the crop that the model sees; None where it sees all, or averages."""
    crop = settings.crop
    if crop is None or tuple(crop[2:]) != found.size or len(settings.paths) > 1:
        return None
    everything = open_archive(
        settings.model_copy(update={"crop": None, "frame": None, "tiles": False}), keep="physical"
    )
    places = found.places[chosen].copy()
    places[:, 2:] = 0
    field = everything.frames[0].frame[1:]
    past = replace(found.layout, length=context)
    whole = Windows(everything.frames, places, (field[0], field[1]), past)
    top, left, height, width = crop
    return Surroundings(
        past=lambda rows: whole.read(np.arange(whole.count)[rows], "physical")[0],
        crop=(slice(top, top + height), slice(left, left + width)),
    )


def _check_size(opened: ArchiveFrames, judged: Judged, own: Mapping[str, Any]) -> None:
    """Refuse frames that would be shrunk though training never did that.

    Raises:
        FrameError: with the option that covers them in tiles.
    """
    height, width = opened.stored_size
    _, rows, columns = judged.frame
    as_trained = bool(own) and not judged.whole_domain  # by the recipe's crop, tiles or frame
    if (height, width) != (rows, columns) and not as_trained:
        raise wrong_size((judged.frame[0], height, width), judged.frame, opened.where)


def _resized(opened: ArchiveFrames, judged: Judged) -> list[str]:
    """That frames are averaged, as the recipe says."""
    height, width = opened.cut_size
    _, rows, columns = opened.frame
    if (height, width) == (rows, columns):
        return []
    sizes = f"{height}x{width} pixels become {rows}x{columns}"
    return [f"{opened.where}: {sizes}, as data.frame of the recipe says"]


def _settings(
    judged: Judged, own: Mapping[str, Any], path: Path | None, stride: int | None
) -> ArchiveSettings:
    """The `[data]` that cuts as training did; all of another archive is its test part."""
    asked: dict[str, Any] = {
        key: own[key] for key in ArchiveSettings.model_fields if key in own
    } | {
        "source": "archive",
        "frame": judged.frame,
        "context": judged.context,
        "horizon": judged.horizon,
        "codec": judged.codec,
        "stride": (stride or judged.horizon) * int(own.get("every", 1)),
    }
    if path is not None:
        asked |= {"path": path, "split": "time", "validation_fraction": 1e-12}
        asked |= {"test_fraction": 1 - 1e-9}
        if own.get("path") != path:
            for key in ("reader", "layout"):
                asked.pop(key, None)
    return ArchiveSettings.model_validate(asked)


def _spread(count: int, judged: Judged, size: tuple[int, int]) -> Indices:
    window = 4 * (judged.context + judged.horizon) * judged.frame[0] * int(np.prod(size))
    most = min(_MOST_BYTES, memory_bytes() // 4 or _MOST_BYTES)
    keep = min(count, max(1, most // window))
    return np.linspace(0, count - 1, keep).round().astype(np.int64)
