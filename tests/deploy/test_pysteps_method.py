"""A bundle as a nowcast method of pysteps, in every unit that pysteps has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("pysteps")

import pysteps

import stpl_deploy as stpl
from stpl_core.errors import FrameError, UsageError
from stpl_deploy.integrations.pysteps import nowcast_method, register
from tests.exported_once import made_once
from tests.rain_bundle import export_rain_bundle

SIZE = (40, 56)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, exported_once: None) -> Iterator[Any]:
    """A small model of rain."""
    bundle = made_once(tmp_path_factory, "rain", export_rain_bundle) / "bundle"
    with stpl.load(bundle, engine="onnx") as opened:
        yield opened


@pytest.fixture
def rain() -> np.ndarray[Any, np.dtype[np.float64]]:
    """`(5, m, n)` in mm/h, dry outside a shower that moves."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    fields = [
        20 * np.exp(-((rows - 15 - t) ** 2 + (columns - 20 - 2 * t) ** 2) / 60) for t in range(5)
    ]
    made = np.stack(fields)
    return np.where(made < 0.1, 0.0, made)


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "unit": "mm/h", "transform": None, "threshold": 0.1, "zerovalue": 0.0, "accutime": 5.0,
        "zr_a": 200.0, "zr_b": 1.6, **changes,
    }  # fmt: skip


def test_it_is_found_by_its_name_and_forecasts_as_the_model_does(model: Any, rain: Any) -> None:
    registered = register(model, "Of_A_Test")
    forecast = pysteps.nowcasts.get_method("of_a_test")
    assert forecast is registered
    made = forecast(rain, np.zeros((2, *SIZE)), 4)
    assert made.shape == (4, *SIZE)
    plain = model.nowcast(rain[-3:, None].astype(np.float32), grid=SIZE)
    np.testing.assert_allclose(made, plain.frames[:, 0], rtol=1e-5)
    assert made.max() > 1
    register(model, "of_a_test")  # again: ours
    with pytest.raises(UsageError, match="pysteps has a nowcast method steps"):
        register(model, "steps")


def test_chosen_steps_and_the_time_that_it_took(model: Any, rain: Any) -> None:
    forecast = nowcast_method(model)
    whole = forecast(rain, None, 6)
    some, start, loop = forecast(rain, None, [1, 6.0], measure_time=True)
    np.testing.assert_array_equal(some, whole[[0, 5]])
    assert start == 0 < loop
    for wrong in (0, [], [0.5, 1], [0]):
        with pytest.raises(UsageError, match="whole numbers from 1"):
            forecast(rain, None, wrong)
    with pytest.raises(FrameError, match="T = 3 or more"):
        forecast(rain[:2], None, 1)


@pytest.mark.parametrize(
    ("unit", "transform"), [("mm/h", "dB"), ("mm", None), ("mm", "dB"), ("dBZ", "dB")]
)
def test_units_and_transforms_of_pysteps_come_back(
    model: Any, rain: Any, unit: str, transform: str | None
) -> None:
    """Converted by pysteps, forecast, converted back by pysteps: what plain rates give."""
    from pysteps.utils import conversion, transformation

    to = {
        "mm/h": conversion.to_rainrate,
        "mm": conversion.to_raindepth,
        "dBZ": conversion.to_reflectivity,
    }
    given, stated = to[unit](rain, metadata())
    if transform == "dB" and stated["transform"] is None:
        given, stated = transformation.dB_transform(given, stated)
    forecast = nowcast_method(model)
    made = forecast(given, None, 4, metadata=stated)
    back, _ = conversion.to_rainrate(made, stated)
    expected = forecast(rain, None, 4)
    wet = expected >= 0.1 * (1 + 1e-4)
    assert wet.any()
    np.testing.assert_allclose(back[wet], expected[wet], rtol=1e-3)
    np.testing.assert_allclose(made[expected < 0.1 * (1 - 1e-4)], stated["zerovalue"])


def test_metadata_needs_no_value_for_no_rain(model: Any, rain: Any) -> None:
    stated = metadata()
    made = nowcast_method(model)(rain, None, 2, metadata=stated)
    del stated["zerovalue"]
    np.testing.assert_array_equal(nowcast_method(model)(rain, None, 2, metadata=stated), made)


def test_what_it_cannot_convert_is_refused(model: Any, rain: Any) -> None:
    forecast = nowcast_method(model)
    with pytest.raises(UsageError, match="transform BoxCox"):
        forecast(rain, None, 1, metadata=metadata(transform="BoxCox"))
    other = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"
    with stpl.load(other, engine="onnx") as grey, pytest.raises(UsageError, match="rain rates"):
        nowcast_method(grey)


def test_no_data_stays_no_data(model: Any, rain: Any) -> None:
    rain[:, :6] = np.nan
    made = nowcast_method(model)(rain, None, 2)
    assert np.isnan(made[:, :6]).all()
    assert np.isfinite(made[:, 6:]).all()
