"""The Zarr store of a backfill: one array of nowcasts, cut into blocks that are made one by one.

    nowcast      (issue_time, lead_time, [channel], y, x) float32; NaN (_FillValue) where nothing
                 was observed in the newest frame, and where there is no nowcast
    issue_time   (issue_time) time of the newest observation of every complete window
    lead_time    (lead_time) seconds
    time         (issue_time, lead_time) when each frame is valid
    status       (issue_time) 0 not made yet, 1 written, 2 incomplete, 3 failed
    y, x, crs    those of the observed frames, as in every CF output of ours

A block is some windows in a row: whole chunks of `nowcast` and one chunk of `status`. That chunk is
written last, in one rename, so that a block is done or not there: whoever died in between left
chunks that the next one writes again with the same bytes. Nobody else writes to them, so any number
of processes and machines share the store without a lock.

Beside the arrays lie `.backfill.json`, what the store was made of, and `.frames.npz`, where the
frames of the archive lie. Zarr passes over hidden files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_core.files import atomic_directory, atomic_file
from stpl_core.reader import Times
from stpl_core.readers.dataset import TIME_UNITS
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.half_written import remove_left
from stpl_core.windows.located import Located
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import sink_error
from stpl_runtime.sinks.cf import NAME, dataset_of

if TYPE_CHECKING:
    import xarray as xr

PENDING, WRITTEN, INCOMPLETE, FAILED = 0, 1, 2, 3
"""Of a window, in `status`."""
STATUS = "status"
_ISSUE, _LEAD = "issue_time", "lead_time"
FACTS, _FRAMES = ".backfill.json", ".frames.npz"
SCORES = ".scores"
"""A file for each block, where they are wanted; see `scores`."""
_SCHEMA = 1

_CHUNK_BYTES = 2**23
_LEAST_BLOCK, _MOST_BLOCK = 8, 64
"""Windows of a block: reading it means reading T - 1 frames more than it has."""


@dataclass(frozen=True)
class Layout:
    """How the store is cut."""

    windows: int
    """Along `issue_time`."""
    block: int
    """Windows of a block."""
    issues: int
    """Windows of a chunk; divides `block`."""
    leads: int
    """Frames of a chunk."""

    @classmethod
    def of(cls, windows: int, shape: tuple[int, ...]) -> Layout:
        """For nowcasts of `shape`, `(K, C, H, W)`: chunks of 8 MB or one frame."""
        frame = 4 * math.prod(shape[1:])
        nowcast = frame * shape[0]
        if nowcast > _CHUNK_BYTES:
            return cls(windows, _LEAST_BLOCK, 1, max(1, _CHUNK_BYTES // frame))
        issues = min(_MOST_BLOCK, 1 << int(math.log2(_CHUNK_BYTES // nowcast)))
        return cls(windows, max(issues, _LEAST_BLOCK), issues, shape[0])

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.windows // self.block)

    def rows(self, block: int) -> range:
        """The windows of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.windows))


@dataclass(frozen=True)
class Made:
    """What a store was made of; whoever goes on must agree."""

    bundle: str
    """The beginning of the checksum of its manifest."""
    model: str
    engine: str
    precision: str
    horizon: int
    cadence_s: float
    grid: tuple[int, int]
    overlap: int | None
    reading: dict[str, Any]
    """What was said about reading, beyond the defaults."""
    evaluate: bool = False
    """Whether sums of scores lie beside the blocks."""

    def differs(self, other: Made) -> tuple[str, Any, Any] | None:
        """The first thing that differs: its name, ours and theirs."""
        for name, ours in asdict(self).items():
            theirs = getattr(other, name)
            if ours != theirs:
                return name, ours, theirs
        return None


@dataclass(frozen=True)
class Counts:
    """windows = written + incomplete + failed + pending."""

    windows: int
    """Every frame of the archive ends one."""
    written: int
    incomplete: int
    """A frame was missing, or had no data at all."""
    failed: int
    """The frames could not be used, or the engine gave no numbers."""
    pending: int
    """Not made yet: of other shards, or of a run that was stopped."""


class Store:
    """A store that exists."""

    def __init__(self, path: Path) -> None:
        """Open it; the arrays are opened by who writes.

        Raises:
            UsageError: something else is there.
        """
        self.path = path
        try:
            facts = json.loads((path / FACTS).read_text())
            self.layout = Layout(**facts["layout"])
            made = facts["made"]
            self.made = Made(**{**made, "grid": tuple(made["grid"])})
            self._incomplete = int(facts["incomplete"])
            known = facts["schema"] == _SCHEMA
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} already exists, and was not begun by stpl-deploy backfill",
                expected="a path that does not exist yet, or a store to continue",
                fix="another --out",
            ) from error
        if not known:
            raise UsageError(
                f"{path} was begun by another version of stpl-deploy",
                expected=f"its schema {_SCHEMA}",
                fix="another --out",
            )

    def located(self) -> Located:
        """Where the frames of the archive lie."""
        return Located.load(self.path / _FRAMES)

    def done(self) -> set[int]:
        """The blocks that are made."""
        return {block for block, _ in self._statuses()}

    def counts(self) -> Counts:
        """What became of every window."""
        found = np.zeros(4, np.int64)
        for _, status in self._statuses():
            found += np.bincount(status, minlength=4)[:4]
        written, incomplete, failed = (int(n) for n in found[1:])
        return Counts(
            windows=self.layout.windows + self._incomplete,
            written=written,
            incomplete=incomplete + self._incomplete,
            failed=failed,
            pending=self.layout.windows - written - incomplete - failed,
        )

    def statuses(self) -> NDArray[np.int8]:
        """`(N,)`, of every window."""
        found = np.zeros(self.layout.windows, np.int8)
        for block, status in self._statuses():
            rows = self.layout.rows(block)
            found[rows.start : rows.stop] = status
        return found

    def sweep(self) -> int:
        """Remove what killed processes left half-written in this run; how many files.

        Our own say who holds them. Zarr writes a chunk beside its place, unheld: what is older
        than its block's status was left by a process that died; what is younger is of one that
        makes the block once more, and stays.
        """
        removed = 0
        for folder in (STATUS, SCORES):
            for path in (self.path / folder).glob(".*.tmp"):
                removed += remove_left(path)
        for path in (self.path / NAME).glob("*.partial"):
            block = _block_of(path, self.layout)
            with suppress(OSError):  # it got its name, or another sweep was first
                status = (self.path / STATUS / str(block)).stat()
                if path.stat().st_mtime_ns < status.st_mtime_ns:
                    path.unlink()
                    removed += 1
        return removed

    def _statuses(self) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """The status of every block that is made."""
        for file in (self.path / STATUS).iterdir():
            if not file.name.isdigit() or int(file.name) >= self.layout.blocks:
                continue
            status = np.frombuffer(file.read_bytes(), np.int8)
            windows = len(self.layout.rows(int(file.name)))
            if len(status) == self.layout.block and (status[:windows] != PENDING).all():
                yield int(file.name), status[:windows]


class Writer:
    """Writes blocks into a store."""

    def __init__(self, store: Store) -> None:
        """Open the array of nowcasts.

        Raises:
            MissingExtraError: zarr is not installed.
        """
        with reads_with("zarr"):
            import zarr
        self.store = store
        self._array: Any = zarr.open_group(str(store.path), mode="r+")[NAME]

    def write(self, row: int, frames: Array) -> None:
        """Write the nowcasts of a chunk of windows.

        Args:
            row: the first of them.
            frames: `(n, K, C, H, W)`; NaN where there is none.

        Raises:
            SinkError: there is no room, or no right to write.
        """
        values = frames[:, :, 0] if self._array.ndim == 4 else frames
        with _writing(self.store.path):
            self._array[row : row + len(values)] = values

    def finish(self, block: int, status: NDArray[np.int8]) -> None:
        """Mark a block as made; its nowcasts survive a power cut from here on.

        Raises:
            SinkError: see `write`.
        """
        layout = self.store.layout
        whole = np.zeros(layout.block, np.int8)
        whole[: len(status)] = status
        with _writing(self.store.path):
            for path in self._chunks(block):
                _sync(path)
            with atomic_file(self.store.path / STATUS / str(block)) as file:
                file.write(whole.tobytes())

    def _chunks(self, block: int) -> Iterator[Path]:
        layout, rows = self.store.layout, self.store.layout.rows(block)
        leads = -(-int(self._array.shape[1]) // layout.leads)
        rest = ".0" * (self._array.ndim - 2)
        for issue in range(rows.start // layout.issues, -(-rows.stop // layout.issues)):
            for lead in range(leads):
                yield self.store.path / NAME / f"{issue}.{lead}{rest}"


def create(
    path: Path, nowcast: Nowcast, times: Times, located: Located, made: Made, incomplete: int
) -> None:
    """Make a store without nowcasts, whole or not at all.

    Args:
        path: where.
        nowcast: how all of them are: shape, grid, attributes; its frames are not written.
        times: `(N,)`, the issue times.
        located: the frames of the archive.
        made: what it is made of.
        incomplete: windows that have none, for want of frames.

    Raises:
        UsageError: something is there.
        MissingExtraError: zarr or xarray is not installed.
        SinkError: it could not be written.
    """
    with reads_with("zarr"):
        import zarr
    layout = Layout.of(len(times), nowcast.frames.shape)
    facts = {
        "schema": _SCHEMA,
        "made": asdict(made),
        "layout": asdict(layout),
        "incomplete": incomplete,
    }
    template = _template(nowcast)
    with _writing(path), atomic_directory(path) as store:
        template.to_zarr(
            store, mode="w", encoding=_encoding(template, layout), zarr_format=2, consolidated=False
        )
        _make_status(store, layout)
        group: Any = zarr.open_group(str(store), mode="r+")
        for name in (NAME, _ISSUE, "time"):
            group[name].resize((len(times), *group[name].shape[1:]))
        stamps = times.astype("datetime64[us]").astype(np.int64)
        lead = np.round(template[_LEAD].values * 1e6).astype(np.int64)  # (K,)
        group[_ISSUE][:] = stamps
        group["time"][:] = stamps[:, None] + lead
        zarr.consolidate_metadata(str(store))
        (store / FACTS).write_text(json.dumps(facts, indent=1))
        if made.evaluate:
            (store / SCORES).mkdir()
        with (store / _FRAMES).open("wb") as file:
            located.save(file)


def _template(nowcast: Nowcast) -> xr.Dataset:
    """The dataset with no window yet."""
    with reads_with("zarr"):
        import xarray as xr
    one = dataset_of(nowcast, "zarr")
    variable, lead = one[NAME], one["lead_time"]
    dims = (_ISSUE, _LEAD, *variable.dims[1:])
    attributes = {**variable.attrs, "ancillary_variables": STATUS}
    issue_attributes = {**one["forecast_reference_time"].attrs, "axis": "T"}
    none = np.zeros(0, "datetime64[ns]")
    valid = {key: value for key, value in one["time"].attrs.items() if key != "axis"}
    places = {
        name: one[name].variable
        for name in one.coords
        if name not in ("time", "lead_time", "forecast_reference_time")
    }
    return xr.Dataset(
        {NAME: (dims, np.zeros((0, *variable.shape), np.float32), attributes)},
        coords={
            **places,
            _ISSUE: (_ISSUE, none, issue_attributes),
            _LEAD: (_LEAD, lead.values, lead.attrs),
            "time": ((_ISSUE, _LEAD), np.zeros((0, len(lead)), "datetime64[ns]"), valid),
        },
        attrs={**one.attrs, "title": f"nowcasts of {nowcast.quantity}"},
    )


def _encoding(template: xr.Dataset, layout: Layout) -> dict[str, Any]:
    shape = template[NAME].shape
    stamps = {"units": TIME_UNITS, "dtype": "int64"}
    plain: dict[str, Any] = {
        str(name): {"_FillValue": None}
        for name, variable in template.coords.items()
        if variable.dtype.kind == "f"
    }
    return {
        **plain,
        NAME: {
            "chunks": (layout.issues, layout.leads, *shape[2:]),
            "_FillValue": np.float32(np.nan),
            "dtype": "float32",
        },
        _ISSUE: {**stamps, "chunks": (4096,)},
        "time": {**stamps, "chunks": (4096, shape[1])},
    }


def _make_status(store: Path, layout: Layout) -> None:
    """The array `status`, whose chunks are plain bytes that need no library."""
    folder = store / STATUS
    folder.mkdir()
    array = {
        "zarr_format": 2,
        "shape": [layout.windows],
        "chunks": [layout.block],
        "dtype": "|i1",
        "compressor": None,
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    attributes = {
        "_ARRAY_DIMENSIONS": [_ISSUE],
        "standard_name": "status_flag",
        "long_name": "what became of the window",
        "flag_values": [PENDING, WRITTEN, INCOMPLETE, FAILED],
        "flag_meanings": "pending written incomplete failed",
    }
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / ".zattrs").write_text(json.dumps(attributes))


def shards(blocks: Iterable[int], shard: tuple[int, int]) -> list[int]:
    """The blocks of part I of N, I from 1."""
    part, parts = shard
    return [block for block in blocks if block % parts == part - 1]


def _block_of(chunk: Path, layout: Layout) -> int:
    """The block of a chunk's file, or -1: its name begins with the number of the chunk."""
    number = chunk.name.partition(".")[0]
    return int(number) * layout.issues // layout.block if number.isdecimal() else -1


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise sink_error(path, 0, error) from error


def _sync(path: Path) -> None:
    """Put a file onto the disk; a chunk that is empty all over has none."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
