"""What was understood of the data of a recipe: printed before anything is trained."""

from __future__ import annotations

from stpl_core.reading.understood import Understood
from stpl_core.windows.archive import Archive
from stpl_train.data.augmented import Augmented
from stpl_train.data.sequences import DataSplit
from stpl_train.recipe import ArchiveSection, ArraySection, MovingMnistSection, Recipe


def of_archive(archive: Archive, section: ArchiveSection) -> Understood:
    """The facts of opened archives, on the model's grid."""
    lows, highs = zip(*(frames.range for frames in archive.frames), strict=True)
    seen = [n for n, high in enumerate(highs) if high is not None]
    sequences = sum(int(one.dataset["sequence"].values.max()) + 1 for one in archive.frames)
    return Understood(
        sequences=sequences,
        frames=sum(len(frames.usable) for frames in archive.frames),
        shape=archive.shape,
        low=min((lows[n] for n in seen), default=None),
        high=max((highs[n] for n in seen), default=None),
        quantity=section.codec.quantity,
        units=section.codec.units,
        cadence_s=archive.cadence_s,
    )


def data_line(recipe: Recipe, data: DataSplit) -> str:
    """One line: where, what, and how many windows."""
    section = recipe.data
    if isinstance(section, MovingMnistSection):
        size = "x".join(map(str, section.frame[1:]))
        return (
            f"data: {section.digits} moving digits ({section.images}), made as needed, 1 channel, "
            f"{size}, grey level 0 to 1 of full scale"
        )
    if data.understood is None:
        return f"data: {section.source}"
    where = (
        section.where
        if isinstance(section, ArchiveSection)
        else str(section.path)
        if isinstance(section, ArraySection)
        else ""
    )
    training = data.training
    count = training.windows.count if isinstance(training, Augmented) else training.count
    varied = ", varied at random" if isinstance(training, Augmented) else ""
    return (
        f"data {where}: {data.understood.line()}; {count:,} windows of {section.context} + "
        f"{section.horizon} to train on{varied}, {len(data.validation)} to validate"
    )
