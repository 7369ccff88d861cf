"""A domain larger than the model: overlapping tiles through one session, blended smoothly.

Every tile is a sequence of its own in a batch, with its own state, and rolls out by itself; what
the tiles predict is joined with weights that fall off towards a tile's edges, where the model saw
zeros in place of the neighbourhood. A domain smaller than a tile (a field that is no multiple of
the model's patch) is padded by its edge pixels, and the result is cut back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import UsageError
from stpl_core.options import DomainOptions
from stpl_runtime.engine import Session, StateHandle

Size = tuple[int, int]
"""(H, W)"""

_SPEED = 4
"""Pixels from frame to frame: rain at 50 km/h, on 1 km and 5 minutes."""

TILES_AT_ONCE = 8
"""Tiles in one call of the engine: more gain little on a CPU and take the memory."""


def domain_size(text: str) -> Size:
    """`HxW` as two numbers.

    Raises:
        UsageError: it is not of this form.
    """
    parts = text.lower().split("x")
    try:
        height, width = (int(part) for part in parts)
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise UsageError(
            f"--grid {text}",
            expected="HxW, rows x columns of the frames",
            fix="--grid 1226x760",
        )
    return height, width


def wanted_size(domain: DomainOptions) -> Size | None:
    """(H, W) that `grid` asks for; None where it is not given."""
    return None if domain.grid is None else domain_size(domain.grid)


def default_overlap(tile: Size, horizon: int) -> int:
    """As far as things move within the horizon, but a quarter of the tile at least, half at most.

    With a quarter, the work is 1.8 times that of one tile for the same pixels; with half, 4 times.
    """
    return min(max(min(tile) // 4, _SPEED * horizon), min(tile) // 2)


@dataclass(frozen=True)
class Tiling:
    """Where the tiles lie."""

    domain: Size
    tile: Size
    """The model's own (H, W)."""
    overlap: int
    """Pixels that neighbours share at least."""
    shift: Size = (0, 0)
    """Moves all inner edges down and right, by less than a tile; to judge what seams do."""

    def __post_init__(self) -> None:
        """Check the overlap.

        Raises:
            UsageError: it leaves no step from tile to tile.
        """
        if not 0 <= self.overlap <= min(self.tile) // 2:
            raise UsageError(
                f"--overlap {self.overlap}",
                expected=f"0 to {min(self.tile) // 2}, half of the model's tile",
                fix=f"--overlap {min(self.tile) // 4}",
            )

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """First row of each row of tiles."""
        return _starts(self.domain[0], self.tile[0], self.overlap, self.shift[0])

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """First column of each column of tiles."""
        return _starts(self.domain[1], self.tile[1], self.overlap, self.shift[1])

    @property
    def count(self) -> int:
        """Number of tiles, n."""
        return len(self.rows) * len(self.columns)

    def split(self, frames: Array) -> Array:
        """`(B, C, H, W)` of the domain -> `(B * n, C, h, w)`, the tiles of a sequence together."""
        below = max(self.tile[0] - frames.shape[2], 0)
        right = max(self.tile[1] - frames.shape[3], 0)
        if below or right:
            frames = np.pad(frames, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
        height, width = self.tile
        tiles = [
            frames[:, :, top : top + height, left : left + width]
            for top in self.rows
            for left in self.columns
        ]
        stacked = np.stack(tiles, axis=1)  # (B, n, C, h, w)
        return stacked.reshape(-1, *stacked.shape[2:])

    def join(self, tiles: Array) -> Array:
        """`(B * n, ..., h, w)` -> `(B, ..., H, W)`, blended."""
        n, (height, width) = self.count, self.tile
        tiles = tiles.reshape(-1, n, *tiles.shape[1:])  # (B, n, ..., h, w)
        size = (max(self.domain[0], height), max(self.domain[1], width))
        joined = np.zeros((len(tiles), *tiles.shape[2:-2], *size), np.float32)
        for row, top in enumerate(self.rows):
            for column, left in enumerate(self.columns):
                weight = np.outer(self._down[row], self._across[column])  # (h, w)
                piece = tiles[:, row * len(self.columns) + column]
                joined[..., top : top + height, left : left + width] += piece * weight
        return np.ascontiguousarray(joined[..., : self.domain[0], : self.domain[1]])

    @cached_property
    def _down(self) -> NDArray[np.float32]:
        return _weights(self.rows, self.tile[0])

    @cached_property
    def _across(self) -> NDArray[np.float32]:
        return _weights(self.columns, self.tile[1])


def _starts(length: int, tile: int, overlap: int, shift: int) -> tuple[int, ...]:
    if length <= tile:
        return (0,)
    last = length - tile
    steps = math.ceil(last / (tile - overlap))
    starts = [round(last * n / steps) for n in range(steps + 1)]
    moved = [start + shift for start in starts[:-1] if start + shift < last]
    return tuple(sorted({0, *moved, last})) if shift else tuple(starts)


def _weights(starts: tuple[int, ...], tile: int) -> NDArray[np.float32]:
    """`(tiles, tile)` along one axis: at every pixel those of its tiles add up to 1.

    A tile's weight rises as the square of a sine over what it shares with its neighbour.
    """
    raw = np.ones((len(starts), tile))
    for n, (start, after) in enumerate(pairwise(starts)):
        shared = start + tile - after
        rise = np.sin(0.5 * np.pi * (np.arange(shared) + 0.5) / max(shared, 1)) ** 2
        raw[n + 1, :shared] *= rise
        raw[n, tile - shared :] *= rise[::-1]
    total = np.zeros(starts[-1] + tile)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + tile] += weight
    return np.stack(
        [weight / total[start : start + tile] for start, weight in zip(starts, raw, strict=True)]
    ).astype(np.float32)


def seams_note(bundle: Bundle, domain: Size) -> str:
    """What is to be known of a nowcast in tiles; empty where one tile holds the domain."""
    height, width = bundle.manifest.frame[1:]
    if domain[0] <= height and domain[1] <= width:
        return ""
    grid = f"{domain[0]}x{domain[1]}"
    return (
        f"tiles of {height}x{width} cover {grid}: their seams may show, most at long lead times; "
        f"stpl-deploy export RUN --grid {grid} makes a bundle for the whole field, which has none "
        "and is quicker, where the model's norm is gn1 or none"
    )


@dataclass(frozen=True)
class Emitted:
    """What a step gave."""

    frame: Array
    """`(B, C, H, W)` of the domain: joined."""
    tiles: tuple[Array, ...]
    """`(n, C, h, w)` each, in the parts of the state: before they were joined."""


@dataclass(frozen=True)
class TiledState:
    """The states of all tiles of `batch` sequences."""

    batch: int
    parts: tuple[StateHandle, ...]
    emitted: Emitted | None = field(default=None, compare=False, repr=False)
    """Where a step made it."""


class TiledSession:
    """Keeps `stpl_runtime.engine.Session` on a domain, by a session on tiles."""

    def __init__(self, session: Session, tiling: Tiling, *, at_once: int = TILES_AT_ONCE) -> None:
        """Wrap `session`, whose frames are of `tiling.tile`'s size.

        Args:
            session: with the graphs open that will be called.
            tiling: where the tiles lie.
            at_once: tiles in one call of the engine.
        """
        self.engine, self.provider = session.engine, session.provider
        self.tiling = tiling
        self._session, self._at_once = session, at_once

    def zero_state(self, batch: int = 1) -> TiledState:
        """See `Session`."""
        sizes = [len(chunk) for chunk in self._chunks(np.arange(batch * self.tiling.count))]
        return TiledState(batch, tuple(self._session.zero_state(size) for size in sizes))

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """See `Session`; `(B, C, H, W)` of the domain.

        The frame that the step before gave, as that very array, is fed back to each tile as the
        tile's own: by itself it rolls out as it would in the forecast graph, and a model that knows
        its guess again (`advect`) would take the joined one for an observation.
        """
        emitted = state.emitted if isinstance(state, TiledState) else None
        fed_back = emitted is not None and emitted.frame is frame
        tiles = emitted.tiles if emitted and fed_back else self._chunks(self.tiling.split(frame))
        guesses, parts = self._run(self._session.step, tiles, state)
        joined = self.tiling.join(np.concatenate(guesses))
        return joined, TiledState(state.batch, parts, Emitted(joined, guesses))

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        """See `Session`; `(B, C, H, W)` of the domain -> `(B, K, C, H, W)`."""
        tiles = self._chunks(self.tiling.split(frame))
        guesses, parts = self._run(self._session.forecast, tiles, state)
        return self.tiling.join(np.concatenate(guesses)), TiledState(state.batch, parts)

    def rollout(self, frames: Array) -> Array:
        """See `Session`; `(B, T, C, H, W)` of the domain -> `(B, K, C, H, W)`."""
        batch, context = frames.shape[:2]
        tiles = self.tiling.split(frames.reshape(-1, *frames.shape[2:]))  # (B * T * n, C, h, w)
        tiles = tiles.reshape(batch, context, self.tiling.count, *tiles.shape[1:])
        tiles = np.moveaxis(tiles, 2, 1).reshape(-1, context, *tiles.shape[3:])  # (B*n, T, C, h, w)
        parts = [self._session.rollout(chunk) for chunk in self._chunks(tiles)]
        return self.tiling.join(np.concatenate(parts))

    def state_arrays(self, state: StateHandle) -> Mapping[str, NDArray[Any]]:
        """See `Session`; name -> `(B, n, *shape)`."""
        parts = [self._session.state_arrays(part) for part in _parts(state)]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {
            name: value.reshape(state.batch, self.tiling.count, *value.shape[1:])
            for name, value in whole.items()
        }

    def outputs(self, state: StateHandle, names: Sequence[str]) -> Mapping[str, Array]:
        """See `stpl_runtime.engine.JoinsOutputs`."""
        parts = [self._session.state_arrays(part) for part in _parts(state)]
        return {
            name: self.tiling.join(np.concatenate([part[name] for part in parts])) for name in names
        }

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> TiledState:
        """See `Session`."""
        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in arrays.items()}
        pieces = {name: self._chunks(value) for name, value in flat.items()}
        count = len(next(iter(pieces.values())))
        parts = tuple(
            self._session.state_from_arrays({name: pieces[name][n] for name in pieces})
            for n in range(count)
        )
        return TiledState(len(next(iter(arrays.values()))), parts)

    def close(self) -> None:
        """See `Session`."""
        self._session.close()

    def _run(
        self,
        call: Callable[[Array, StateHandle], tuple[Array, StateHandle]],
        tiles: Sequence[Array],
        state: StateHandle,
    ) -> tuple[tuple[Array, ...], tuple[StateHandle, ...]]:
        """What a call gives of each chunk of tiles, and its state."""
        made = [call(chunk, part) for chunk, part in zip(tiles, _parts(state), strict=True)]
        return tuple(guess for guess, _ in made), tuple(after for _, after in made)

    def _chunks(self, tiles: NDArray[Any]) -> list[NDArray[Any]]:
        size = self._at_once
        return [
            np.ascontiguousarray(tiles[start : start + size])
            for start in range(0, len(tiles), size)
        ]


def tiling_of(session: Session) -> Tiling | None:
    """Where the tiles lie; None where there are none."""
    tiling: Tiling | None = getattr(session, "tiling", None)
    return tiling


def _parts(state: StateHandle) -> tuple[StateHandle, ...]:
    assert isinstance(state, TiledState)  # handles are opaque: this one was made here
    return state.parts


def on_domain(
    bundle: Bundle, session: Session, domain: Size, overlap: int | None = None
) -> tuple[Bundle, Session]:
    """The same bundle and session as if the model had been made for `domain`.

    Args:
        bundle: an opened bundle.
        session: of this bundle.
        domain: (H, W) of the frames.
        overlap: pixels that tiles share; None takes `default_overlap`.

    Raises:
        UsageError: an overlap of more than half a tile.
    """
    channels, *tile = bundle.manifest.frame
    size = (tile[0], tile[1])
    if domain == size:
        return bundle, session
    usual = default_overlap(size, bundle.manifest.horizon)
    tiling = Tiling(domain, size, usual if overlap is None else overlap)
    manifest = bundle.manifest.model_copy(update={"frame": (channels, *domain)})
    return replace(bundle, manifest=manifest), TiledSession(session, tiling)
