"""Which frames make a window: those that `predict` would read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpl_core.errors import FrameError
from stpl_core.windows.placing import rows_before

xr = pytest.importorskip("xarray")

from stpl_runtime.ingest.archive import _by_time  # noqa: E402


@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=40, unique=True),
    st.integers(1, 4),
    st.sampled_from([60.0, 100.0, 300.0]),
)
def test_the_rows_are_those_of_predict(stamps: list[int], context: int, cadence_s: float) -> None:
    time = np.array(sorted(stamps), "datetime64[s]").astype("datetime64[ns]")
    rows, whole = rows_before(time, np.zeros(len(time), np.int32), context, cadence_s)
    for n in range(len(time)):
        part = xr.Dataset(
            coords={"time": time[: n + 1], "source": ("time", np.zeros(n + 1, np.int32))},
            attrs={"files": "a"},
        )
        try:
            expected = _by_time(part, context, cadence_s)
        except FrameError:
            assert not whole[n]
        else:
            assert whole[n]
            assert rows[n].tolist() == expected


def test_no_window_crosses_sequences() -> None:
    time = np.datetime64("2026-01-01", "ns") + np.arange(6) * np.timedelta64(60, "s")
    _, whole = rows_before(time, np.array([0, 0, 0, 1, 1, 1], np.int32), 2, 60.0)
    assert whole.tolist() == [False, True, True, False, True, True]
