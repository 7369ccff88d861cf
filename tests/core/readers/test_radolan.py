"""RADOLAN binaries made from DWD's description; corners worked out with pyproj from 9 E, 51 N."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("xarray")
pytest.importorskip("pyproj")

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, ReadOptions
from stpl_core.readers import radolan as radolan_reader
from stpl_core.readers.converted import grid_of, quantity_of
from stpl_core.readers.opening import open_frames

Size = tuple[int, int]
RAIN, NOTHING, UNSEEN, CLUTTER, SECOND = 123, 0, 2500 | 0x2000, 2490 | 0x8000, 0x1000


def radolan(
    path: Path,
    product: str = "RW",
    size: Size = (900, 900),
    precision: str = "E-01",
    interval: int = 60,
    version: int = 3,
    lead: int | None = 0,
    stamp: str = "011250",
    width: int = 2,
) -> Path:
    """A composite: rain in one block of the south-west, no data in the first columns."""
    stored = np.full(size, NOTHING, "<u2" if width == 2 else "u1")  # (H, W), from the south
    stored[10:20, 30:40] = RAIN
    stored[10, 30] = RAIN | SECOND if width == 2 else RAIN
    stored[:, :5] = UNSEEN if width == 2 else 250
    stored[25, 25] = CLUTTER if width == 2 else 249
    tail = f"VS{version:2d}SW  P20001HPR {precision}INT{interval:4d}GP{size[0]:4d}x{size[1]:4d}"
    tail += "" if lead is None else f"VV {lead:03d}"
    tail += "MF 00000001MS 70<asb,boo,ros,hnr,umd,pro,ess,fld,drs,neu,nhb,oft,eis,tur,isn,fbg,mem>"
    head = f"{product}{stamp}100000624BY"
    length = len(head) + 7 + len(tail) + 1 + stored.nbytes
    path.write_bytes(f"{head}{length:7d}{tail}".encode() + b"\x03" + stored.tobytes())
    return path


def test_hourly_rain(tmp_path: Path) -> None:
    opened = open_frames(radolan(tmp_path / "raa01-rw_10000-2406011250-dwd---bin"))
    frame, state = opened["frames"].values[0, 0], opened["state"].values[0]
    quantity = quantity_of(opened)
    assert (quantity.units, quantity.accumulation_s) == ("mm", 3600)
    assert frame[-11, 30] == frame[-20, 39] == pytest.approx(12.3)  # rows run from the south
    assert (state[-11, 30], state[-26, 25], state[0, 0]) == (VALUE, NO_DATA, NO_DATA)
    assert (state == NO_ECHO).sum() == 900 * 900 - 900 * 5 - 100 - 1
    assert str(opened["time"].values[0]).startswith("2024-06-01T12:50:00")


@pytest.mark.parametrize(
    ("size", "version", "corner"),
    [
        ((900, 900), 3, (-523462.2, -4658644.7)),
        ((1100, 900), 3, (-443462.2, -4758644.7)),
        ((1200, 1100), 3, (-543462.2, -4808644.7)),
        ((1200, 1100), 5, (-543696.8, -4822088.9)),
        ((1500, 1400), 3, (-673462.2, -5008644.7)),
    ],
)
def test_grids_as_dwd_publishes_their_corners(
    tmp_path: Path, size: Size, version: int, corner: tuple[float, float]
) -> None:
    made = radolan(tmp_path / "DE1200_RV2406011250_000", "RV", size, "E-02", 5, version)
    grid = grid_of(open_frames(made))
    np.testing.assert_allclose(grid.corners[:2], corner, rtol=0, atol=1.0)
    assert grid.corners[2] - grid.corners[0] == 1000 * size[1]
    assert ("6378137" in grid.crs_wkt) == (version == 5)


def test_five_minutes_and_reflectivity(tmp_path: Path) -> None:
    rain = open_frames(radolan(tmp_path / "raa01-ry_10000-1-dwd---bin", "RY", precision="E-02", interval=5))  # fmt: skip  # noqa: E501
    assert rain.attrs["accumulation_s"] == 300
    assert rain["frames"].values[0, 0, -11, 30] == pytest.approx(1.23)
    old = open_frames(
        radolan(
            tmp_path / "raa01-rx_10000-1-dwd---bin", "RX", precision="E+00", width=1, interval=5
        )
    )
    assert old["frames"].values[0, 0, -11, 30] == RAIN / 2 - 32.5
    assert (old["state"].values[0, -26, 25], old["state"].values[0, 0, 0]) == (NO_DATA, NO_DATA)
    new = open_frames(radolan(tmp_path / "raa01-wn_10000-1-dwd---bin", "WN", interval=5))
    assert new["frames"].values[0, 0, -11, 30] == pytest.approx(12.3 / 2 - 32.5)


def test_a_forecast_in_a_tar_is_read_lead_time_by_lead_time(tmp_path: Path) -> None:
    archive = tmp_path / "DE1200_RV2406011250.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for lead in (0, 5, 10):
            name = f"DE1200_RV2406011250_{lead:03d}"
            tar.add(radolan(tmp_path / name, "RV", (900, 900), "E-02", 5, lead=lead), name)
            (tmp_path / name).unlink()
    opened = open_frames(archive)
    assert [str(time)[11:16] for time in opened["time"].values] == ["12:50", "12:55", "13:00"]
    assert opened.attrs["files"].splitlines()[1] == f"{archive}/DE1200_RV2406011250_005"
    now = open_frames(archive, options=ReadOptions(select=(("lead", "0"),)))
    assert now.sizes["time"] == 1
    with pytest.raises(UsageError, match="--select lead=0"):
        open_frames(archive, options=ReadOptions(select=(("step", "0"),)))


@pytest.mark.parametrize(
    ("facts", "quoted"),
    [
        ({"product": "HG"}, "the product HG"),
        ({"size": (300, 300)}, "300x300"),
        ({"precision": "X-01"}, "without the precision PR"),
        ({"stamp": "320000"}, "320000"),
        ({"width": 1}, "bytes for 900x900"),
        ({"product": "RX", "width": 1}, "precision 0.1"),
    ],
)
def test_what_is_not_understood_is_quoted(
    tmp_path: Path, facts: dict[str, Any], quoted: str
) -> None:
    made = radolan(tmp_path / "raa01-rw_10000-2406011250-dwd---bin", **facts)
    with pytest.raises(FrameError) as refused:
        open_frames(made)
    assert quoted in str(refused.value)
    assert "truncated" not in str(refused.value)


def test_a_cut_one_is_refused(tmp_path: Path) -> None:
    made = radolan(tmp_path / "raa01-rw_10000-2406011250-dwd---bin")
    made.write_bytes(made.read_bytes()[:-10])
    with pytest.raises(FrameError, match="10 bytes of the pixels are missing"):
        open_frames(made)


words = st.lists(st.integers(0, 2**16 - 1), min_size=6, max_size=6)


def check_words(numbers: list[int], product: str, precision: float) -> None:
    """By the bits, one pixel after the other, as the format description has them."""
    content = np.array(numbers, "<u2").tobytes()
    at = np.datetime64("2024-06-01", "ns")
    header = radolan_reader._Header(product, at, 12, 3, precision, 300.0, 2, 3, 0)
    frame, state, _ = radolan_reader._values(content, header, Path("x"))
    for number, value, kind in zip(numbers, frame.ravel(), state.ravel(), strict=True):
        bits = number % 4096
        if number & 0x2000 or number & 0x8000 or bits in (2490, 2500):
            assert kind == NO_DATA
            assert np.isnan(value)
        elif bits == 0:
            assert kind == NO_ECHO
        else:
            amount = (-bits if number & 0x4000 else bits) * precision
            expected = amount if product == "RY" else amount / 2 - 32.5
            assert (kind, value) == (VALUE, pytest.approx(expected, rel=1e-6))


@given(words, st.sampled_from(["RY", "WN"]), st.sampled_from([1.0, 0.1, 0.01]))
def test_any_words(numbers: list[int], product: str, precision: float) -> None:
    check_words(numbers, product, precision)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(words, st.sampled_from(["RY", "WN"]), st.sampled_from([1.0, 0.1, 0.01]))
def test_many_words(numbers: list[int], product: str, precision: float) -> None:
    check_words(numbers, product, precision)
