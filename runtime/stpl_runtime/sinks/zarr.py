"""Nowcasts as Zarr stores; `sinks.cf` says what they hold."""

from __future__ import annotations

from pathlib import Path

from stpl_core.readers.libraries import reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, write_over_directory
from stpl_runtime.sinks.cf import dataset_of, encoding_of
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.file_format import FileFormat


def write_zarr(nowcast: Nowcast, store: Path) -> None:
    """Fill the directory `store` with a nowcast as Zarr 2, one chunk a frame.

    Raises:
        MissingExtraError: zarr or xarray is not installed.
    """
    with reads_with("zarr"):
        import zarr  # noqa: F401  # xarray imports it, and would not name the extra
    dataset = dataset_of(nowcast, "zarr")
    # Zarr 2, since readers of the third format are still few; metadata in one place.
    dataset.to_zarr(
        store,
        mode="w",
        encoding=encoding_of(dataset, "chunks"),
        zarr_format=2,
        consolidated=True,
    )


ZARR = FileFormat(
    (".zarr",),
    fill=write_zarr,
    extra="zarr",
    libraries=("pyproj", "xarray", "zarr"),
    holds_chances=True,
    holds_members=True,
)
FORMATS = (ZARR,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`zarr:DIR` or `zarr:STORE.zarr`: a store for each nowcast, or the newest one alone.

    One store that grows along forecast_reference_time would be half-written after a kill -9 (the
    axis, its coordinates and the chunks are different files) and could not lose its oldest part.
    xarray joins the stores: `concat(STORES, "forecast_reference_time")`, each opened by `open_zarr`
    and with `swap_dims(time="lead_time")`.

    Raises:
        MissingExtraError: zarr or xarray is not installed.
    """
    return DirectorySink("zarr", ZARR, rest, spec, write=_replace)


def _replace(path: Path, nowcast: Nowcast) -> None:
    if path.exists():
        write_over_directory(path, lambda store: write_zarr(nowcast, store))
    else:
        ZARR.write(path, nowcast)
