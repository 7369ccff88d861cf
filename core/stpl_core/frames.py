"""Frames: one picture with its time, and the plain files that hold one or many of them.

Arrays are `(C, H, W)` for a frame, `(T, C, H, W)` for a sequence and `(N, T, C, H, W)` for many.
Grey levels: unsigned 8 and 16 bit values are read as a fraction of full scale, floats as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.files import no_rights
from stpl_core.grid import Grid
from stpl_core.reading.axes import in_layout, layout_of

FrameShape = tuple[int, int, int]
"""(C, H, W)"""

FRAME_SUFFIXES = (".npy", ".png")
"""Files that hold one frame."""


@dataclass(frozen=True)
class Frame:
    """One observed frame."""

    valid_time: datetime
    """When it was observed; timezone-aware, UTC."""
    data: Array
    """`(C, H, W)` float32, physical units of the bundle's codec; anything where `mask` is False."""
    mask: NDArray[np.bool_] | None = None
    """`(H, W)`, True where the pixel was observed; None where all were."""
    grid: Grid | None = None
    """Where the pixels lie, carried through to what is written; None where it is not known."""
    standard_name: str = ""
    """CF standard name of the quantity, where the data states it."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What comes with the data: `institution`, `licence`, `attribution`."""
    source_id: str = ""
    """The file, topic or camera it came from."""


def read_array(path: Path, *, lazy: bool = False) -> NDArray[Any]:
    """Read the one array of a .npy, .npz or .png file, as stored (PNG: `(H, W)` or `(H, W, C)`).

    Args:
        path: the file.
        lazy: leave a .npy on disk, mapped into memory.

    Raises:
        FrameError: missing, empty, truncated, or not of these kinds.
    """
    if not path.is_file():
        raise FrameError(
            f"no file {path}", expected="a .npy, .npz or .png file", fix="check the path"
        )
    if path.stat().st_size == 0:
        raise FrameError(f"{path} is empty", expected="a whole file", fix="write it again")
    suffix = path.suffix.lower()
    readers = {".npy": _npy_array, ".npz": _npz_array, ".png": _png_array}
    if suffix in readers:
        try:
            mapped = lazy and suffix == ".npy"
            array = np.load(path, mmap_mode="r") if mapped else readers[suffix](path)
            return _plain(array, path)
        except FrameError:
            raise
        except PermissionError as error:
            raise no_rights(path) from error
        except Exception as error:  # what a parser meets in damaged bytes has no common base
            _refuse_other(path, suffix, error)
            raise FrameError(
                f"{path} cannot be read as {suffix}: {error or type(error).__name__}",
                expected="a whole file, without pickled objects",
                fix="write it again (this is what a truncated copy looks like)",
            ) from error
    raise FrameError(
        f"{path} ends in {suffix or 'nothing'}",
        expected=".npy, .npz or .png",
        fix="convert it first, for example with numpy.save",
    )


def _refuse_other(path: Path, suffix: str, error: Exception) -> None:
    """Raise where a whole file is of another kind than its name says, or holds Python objects."""
    if "Python objects" in str(error) or "Object arrays" in str(error):
        raise FrameError(
            f"{path} holds Python objects",
            expected="numbers: objects would have to be unpickled",
            fix="numpy.save(path, numpy.stack(list(array)).astype('float32'))",
        ) from error
    magic = {".npy": b"\x93NUMPY", ".npz": b"PK", ".png": b"\x89PNG"}[suffix]
    with path.open("rb") as file:
        start = file.read(8)
    if not start.startswith(magic[: len(start)]):
        raise FrameError(
            f"{path} is no {suffix}: it begins with {start!r}",
            expected="a file of the kind that its name says",
            fix="give it the end of its true kind, or save it again",
        ) from error


def _plain(array: Any, path: Path) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb":
        raise FrameError(
            f"{path} holds {getattr(array, 'dtype', type(array).__name__)} values",
            expected="real numbers",
            fix="save the frames as float32 or uint8",
        )
    return array


def _npy_array(path: Path) -> Any:
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False)


def _npz_array(path: Path) -> Any:
    from stpl_core.readers.npz import open_npz

    with open_npz(path) as archive:
        names = list(archive.files)
        chosen = "frames" if "frames" in names else names[0] if len(names) == 1 else None
        if chosen is None:
            raise FrameError(
                f"{path} holds the arrays {', '.join(names) or 'none'}",
                expected="one array, or one named frames",
                fix="numpy.savez(path, frames=array)",
            )
        return archive[chosen]


def _png_array(path: Path) -> NDArray[Any]:
    from stpl_core.readers.images import open_picture

    with open_picture(path, path) as image:
        if image.mode in ("P", "1", "CMYK"):
            image = image.convert("RGB" if image.mode != "1" else "L")
        array = np.asarray(image)
    return array[..., :-1] if image.mode in ("LA", "RGBA") else array  # opacity is not data


def physical_values(array: NDArray[Any], codec: FrameCodec, where: str) -> Array:
    """Turn stored numbers of any shape into physical float32 values and check their range.

    Unsigned integers are a fraction of full scale where the codec's unit is "1", else physical.

    Raises:
        FrameError: a dtype that is not real numbers, NaN, infinity, or values out of range.
    """
    kind = array.dtype.kind
    if kind not in "uif":
        raise FrameError(
            f"{where} has dtype {array.dtype}",
            expected="float32, float64, uint8 or another real number type",
            fix="convert it with .astype('float32')",
        )
    if kind == "u" and codec.units == "1":
        values = (array / np.float32(np.iinfo(array.dtype).max)).astype(np.float32)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused below
            values = array.astype(np.float32)
    codec.check(values, where)
    return values


def as_frame(array: NDArray[Any], shape: FrameShape, where: str) -> NDArray[Any]:
    """Bring one picture, `(H, W)`, `(H, W, C)` or `(C, H, W)`, to `shape` = (C, H, W).

    Raises:
        FrameError: it has another size.
    """
    channels, height, width = shape
    if array.shape == shape:
        return array
    if array.shape == (height, width) and channels == 1:
        return array[None]  # (1, H, W)
    if array.shape == (height, width, channels):
        return np.moveaxis(array, -1, 0)  # (C, H, W)
    raise wrong_size((1, *array.shape) if array.ndim == 2 else array.shape, shape, where)


def wrong_size(
    found: tuple[int, ...], expected: FrameShape, where: str, other_fix: str = ""
) -> FrameError:
    """The error of frames that do not have the model's size, the same for every kind of file.

    Args:
        found: their shape, (C, H, W) where they have three axes.
        expected: the model's.
        where: what to call them.
        other_fix: what else the user may try, where they are larger.
    """
    channels, height, width = expected
    if len(found) != 3 or found[0] != channels:
        fix = f"frames with {channels} {'channel' if channels == 1 else 'channels'}"
    elif found[1] < height or found[2] < width:
        fix = f"frames of {height}x{width} pixels or more: they are never enlarged"
    else:
        grid = f"{found[1]}x{found[2]}"
        fix = f"--grid {grid} covers them in tiles, if all have this size{other_fix}"
    return FrameError(
        f"{where} has frames of shape {found}",
        expected=f"{expected} (channels, height, width)",
        fix=fix,
    )


def read_sequences(
    path: Path, shape: FrameShape | None, codec: FrameCodec, layout: str | None = None
) -> Array:
    """Read `(N, T, C, H, W)` sequences in physical units from a .npy or .npz file.

    Accepted layouts: those of `stpl_core.reading.axes`, such as `(N, T, C, H, W)`; `(T, C, H, W)`
    as one sequence; and the Moving MNIST test file's `(20, N, 64, 64)` of unsigned bytes, time
    first (bibliography.md 3.5).

    Args:
        path: the file; .npz holds one array, or one named `frames`.
        shape: the frame that is expected, (C, H, W); None takes any.
        codec: gives the physical range.
        layout: the file's axes, such as `NTHW`; None: what follows from its shape.

    Raises:
        FrameError: see `read_array` and `physical_values`; or a shape that does not fit.
    """
    stored = sequence_layout(read_array(path), shape, str(path), layout)
    return physical_values(stored, codec, str(path))


def sequence_layout(
    array: NDArray[Any],
    shape: FrameShape | None,
    where: str,
    layout: str | None = None,
    option: str = "--layout ",
) -> NDArray[Any]:
    """View stored sequences as `(N, T, C, H, W)`; see `read_sequences`.

    Args:
        array: as stored.
        shape: the frame that is expected, (C, H, W); None takes any.
        where: what to call it.
        layout: its axes; None: what follows from its shape.
        option: what to type before a layout.

    Raises:
        FrameError: a shape that does not fit.
    """
    found = array.shape
    if not 3 <= array.ndim <= 5 or 0 in found:
        raise FrameError(
            f"{where} has shape {found}",
            expected="(N, T, C, H, W) or (T, C, H, W), and none empty",
            fix="reshape it",
        )
    letters = layout or layout_of(found, array.dtype, where, shape, option)
    viewed = in_layout(array, letters, where)
    larger = shape is not None and viewed.shape[2] == shape[0] and _covers(viewed.shape, shape)
    if shape is not None and viewed.shape[2:] != shape:
        axes = ", ".join(map(str, shape))
        raise FrameError(
            f"{where} has shape {found}",
            expected=f"(N, T, {axes}) or (T, {axes})",
            fix=f"--grid {viewed.shape[3]}x{viewed.shape[4]} with a bundle, which covers them in "
            "tiles of the model"
            if larger
            else "reshape it, or train a model for these frames",
        )
    return viewed


def _covers(found: tuple[int, ...], shape: FrameShape) -> bool:
    """Whether frames `(N, T, C, H, W)` are at least as large as the model's."""
    return found[3] >= shape[1] and found[4] >= shape[2]


def masks_of(
    masks: Sequence[NDArray[np.bool_] | None], shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """The masks of T frames as `(T, H, W)`; None where none of them has one.

    Args:
        masks: `(H, W)` each, False where there is no data; None: there is everywhere.
        shape: of a frame, `(C, H, W)`.
    """
    if all(mask is None for mask in masks):
        return None
    everywhere = np.ones(shape[-2:], np.bool_)
    return np.stack([everywhere if mask is None else mask for mask in masks])
