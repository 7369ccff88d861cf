"""Archives as training data: windows in model units, some of them held out."""

from __future__ import annotations

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.windows.archive import Archive, open_archive
from stpl_train.data.augmented import Augmented
from stpl_train.data.sequences import DataSplit, masked_batch
from stpl_train.data.understood import of_archive
from stpl_train.recipe import ArchiveSection


def open_archive_split(section: ArchiveSection, seed: int) -> DataSplit:
    """What the training loop needs of an archive.

    Args:
        section: of the recipe.
        seed: of the run, for what is drawn at random.

    Raises:
        FrameError: see `open_archive`; or too few contiguous frames for training or validation.
    """
    archive = open_archive(section, keep="model")
    for part in ("training", "validation"):
        if archive.parts[part].count == 0:
            raise _no_window(section, archive, part)
    held_out = archive.parts["validation"]
    keep = min(held_out.count, section.validation_sequences)
    chosen = np.linspace(0, held_out.count - 1, keep).round().astype(np.int64)
    validation, observed = masked_batch(held_out, chosen)
    understood = of_archive(archive, section)
    notes = {
        one.dataset.attrs["colours"] for one in archive.frames if "colours" in one.dataset.attrs
    }
    remarks = (
        *(f"colours: {note}" for note in notes),
        *filter(None, [understood.range_remark(section.codec)]),
    )
    windows = archive.parts["training"]
    drawn = section.augment and Augmented(windows, section.codec, section.augment, seed)
    return DataSplit(
        training=drawn or windows,
        validation=validation,
        frame=archive.shape,
        cadence_s=archive.cadence_s,
        validation_observed=observed,
        grids=tuple(frames.grid for frames in archive.frames if frames.grid.crs_wkt),
        understood=understood,
        remarks=remarks,
    )


def _no_window(section: ArchiveSection, archive: Archive, part: str) -> FrameError:
    span = section.window_layout.span
    count = sum(len(frames.usable) for frames in archive.frames)
    return FrameError(
        f"{section.where} leaves no window of {span} contiguous frames for {part}",
        expected=f"{span} in a row in each part of its {count} frames",
        fix="more frames, another data.validation_fraction or test_fraction, or a shorter "
        "data.horizon",
    )
