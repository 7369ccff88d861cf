"""The newest frames of whatever a person has: a path, a dataset or an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.frames import physical_values, sequence_layout
from stpl_core.options import PredictOptions
from stpl_core.readers.names import check_no_model
from stpl_deploy.extras import needs
from stpl_runtime.engines.tiled import wanted_size
from stpl_runtime.ingest.archive import archive_spec, context_of
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.ingest.newest import grid_remark, read_newest, source_spec
from stpl_runtime.nowcasting.predict import newest_frames

if TYPE_CHECKING:
    import xarray as xr

Frames: TypeAlias = Union[str, Path, "xr.Dataset", "xr.DataArray", NDArray[Any]]


def read_any(bundle: Bundle, frames: Frames, asked: PredictOptions) -> tuple[Context, str]:
    """The newest T frames, and what is to be known about their grid.

    Args:
        bundle: of the model that will read them.
        frames: see `Model.predict`.
        asked: how they are read.

    Raises:
        FrameError: they do not fit.
        UsageError: nothing that holds frames.
    """
    if isinstance(frames, (str, Path)):
        check_no_model(Path(frames))
        return read_newest(bundle, Path(frames), asked.reading, asked.domain, asked.at)
    if asked.at is not None:
        raise UsageError(
            f"at={asked.at!r} for frames that are no path",
            expected="a path of frames with times",
            fix="leave at out, and give the frames up to that time",
        )
    if isinstance(frames, (np.ndarray, list)):
        return _of_array(bundle, np.asarray(frames), asked), ""
    with needs("frames"):
        import xarray as xr
    if isinstance(frames, xr.DataArray):
        frames = frames.to_dataset(name=frames.name or "frames")
    if not isinstance(frames, xr.Dataset):
        raise UsageError(
            f"frames are a {type(frames).__name__}",
            expected="a path, an xarray.Dataset, or an array (T, C, H, W)",
            fix="numpy.stack them, in the order of time",
        )
    return _of_dataset(bundle, frames, asked)


def _of_dataset(bundle: Bundle, given: xr.Dataset, asked: PredictOptions) -> tuple[Context, str]:
    from stpl_core.readers.opening import as_frames

    manifest, where = bundle.manifest, "the dataset"
    spec = source_spec(manifest, asked.reading, asked.domain)
    how = archive_spec(manifest.recipe, None, asked.reading.variable, wanted_size(asked.domain))
    dataset = as_frames(given, how.variable, spec.codec.units, where)
    context = context_of(dataset, manifest.context, spec, how, where)
    return context, grid_remark(manifest, context, asked.domain, where)


def _of_array(bundle: Bundle, array: NDArray[Any], asked: PredictOptions) -> Context:
    manifest = bundle.manifest
    spec = source_spec(manifest, asked.reading, asked.domain)
    if array.ndim == 3 and spec.shape[0] == 1:
        array = array[:, None]  # (T, 1, H, W)
    found = sequence_layout(array, spec.shape, "the array")
    values = physical_values(found, manifest.codec, "the array")  # (N, T, C, H, W)
    return Context(newest_frames(values, manifest.context), cadence_s=spec.cadence_s)
