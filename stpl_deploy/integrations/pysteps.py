"""A nowcast method of pysteps that is a bundle of ours.

    import pysteps
    from stpl_deploy.integrations.pysteps import register

    register("pretrained:radar-nowcast")  # or a bundle
    forecast = pysteps.nowcasts.get_method("stpl_deploy")
    rain = forecast(precip, None, 12, metadata=metadata)  # (12, m, n), as precip

What it gives can be blended with a weather model: `pysteps.blending.steps.forecast(...,
precip_nowcast=rain, nowcasting_method="external_nowcast")`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, FrameError, UsageError
from stpl_core.options import DomainOptions, PredictOptions
from stpl_deploy.library.model import Model, load
from stpl_runtime.ingest.inputs import Context

NAME = "stpl_deploy"
"""Of the method in pysteps."""
_RATE = "mm h-1"

Method = Callable[..., Any]


def register(model: Model | Path | str, name: str = NAME) -> Method:
    """Make a model known to `pysteps.nowcasts.get_method(name)`.

    Args:
        model: an opened one; or a bundle or `pretrained:NAME`, which stays open.
        name: in pysteps, which takes it in lower case.

    Returns:
        The method; see `nowcast_method`.

    Raises:
        EnvironmentFault: pysteps is not installed.
        UsageError: pysteps has a method of its own by that name, or the model is not of rain.
    """
    try:
        from pysteps.nowcasts import interface
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"{error.name} is not installed", expected="pysteps", fix="pip install pysteps"
        ) from error
    key, known = name.lower(), interface._nowcast_methods
    if key in known and not getattr(known[key], "is_of_stpl_deploy", False):
        raise UsageError(
            f"pysteps has a nowcast method {key}",
            expected="another name",
            fix=f'register(model, "{NAME}")',
        )
    method = nowcast_method(model if isinstance(model, Model) else load(model))
    known[key] = method
    return method


def nowcast_method(model: Model) -> Method:
    """A model as a function that pysteps takes for a nowcast method.

    Raises:
        UsageError: it does not forecast rain rates in one channel.
    """
    codec, (channels, *_) = model.bundle.manifest.codec, model.bundle.manifest.frame
    if codec.units != _RATE or channels != 1:
        raise UsageError(
            f"a model of {codec.quantity} in {codec.units}, {channels} channels",
            expected=f"one of rain rates in {_RATE}, in one channel",
            fix="pretrained:radar-nowcast",
        )

    def forecast(
        precip: ArrayLike,
        velocity: ArrayLike | None,
        timesteps: int | Sequence[float],
        *,
        metadata: Mapping[str, Any] | None = None,
        measure_time: bool = False,
    ) -> Any:
        """Forecast what follows the newest fields.

        Args:
            precip: `(T or more, m, n)`, the newest last; NaN is no data. In mm/h, or what
                `metadata` states.
            velocity: not read: the model finds the motion by itself.
            timesteps: how many, or which, whole numbers from 1.
            metadata: of pysteps: unit, transform and what belongs to them.
            measure_time: return how long it took too.

        Returns:
            `(timesteps, m, n)` in the unit and transform of `precip`, NaN where its newest field
            has no data. With `measure_time` also the seconds for the start, 0, and for the rest.
        """
        del velocity
        began = time.perf_counter()
        steps = _whole_steps(timesteps)
        rain = _rates(np.asarray(precip, np.float64), metadata)
        made = _forecast(model, rain.astype(np.float32), max(steps))
        chosen = _as_given(made[[step - 1 for step in steps]].astype(np.float64), metadata)
        return (chosen, 0.0, time.perf_counter() - began) if measure_time else chosen

    forecast.is_of_stpl_deploy = True  # type: ignore[attr-defined]
    return forecast


def _whole_steps(timesteps: int | Sequence[float]) -> list[int]:
    """Numbers of frames ahead."""
    if isinstance(timesteps, (int, np.integer)):
        wanted: list[float] = [*range(1, int(timesteps) + 1)]
    else:
        wanted = list(timesteps)
    if not wanted or any(step < 1 or step != int(step) for step in wanted):
        raise UsageError(
            f"timesteps = {timesteps!r}",
            expected="whole numbers from 1: the model forecasts at the cadence of its frames",
            fix="timesteps=12",
        )
    return [int(step) for step in wanted]


def _forecast(model: Model, rain: Array, horizon: int) -> Array:
    """`(S, m, n)` rates with NaN where nothing was observed -> `(K, m, n)`, likewise."""
    manifest = model.bundle.manifest
    if rain.ndim != 3 or len(rain) < manifest.context:
        raise FrameError(
            f"precip has the shape {rain.shape}",
            expected=f"(T, m, n) with T = {manifest.context} or more",
            fix=f"give the newest {manifest.context} fields",
        )
    frames = rain[-manifest.context :, None]  # (T, 1, m, n)
    seen = ~np.isnan(frames[-1, 0])
    context = Context(frames[None], cadence_s=manifest.cadence_s, observed=seen)
    domain = DomainOptions(grid=f"{rain.shape[1]}x{rain.shape[2]}")
    made = model.nowcast_of(context, PredictOptions(horizon=horizon, domain=domain))
    return made.masked()[:, 0]


def _rates(values: NDArray[np.float64], metadata: Mapping[str, Any] | None) -> NDArray[np.float64]:
    """Rain rates in mm/h."""
    if metadata is None:
        return values
    from pysteps.utils import conversion

    unit, transform = metadata["unit"], metadata["transform"]
    if unit not in ("mm/h", "mm", "dBZ") or transform not in (None, "dB"):
        raise UsageError(
            f"precip is in {unit}, transform {transform}",
            expected="mm/h, mm or dBZ, transform None or dB",
            fix="pysteps.utils.conversion.to_rainrate(precip, metadata)",
        )
    rates: NDArray[np.float64] = conversion.to_rainrate(values, dict(metadata))[0]
    # A transform has a value for no rain, which is none of rain.
    return np.where(rates < _least_rate(metadata), 0.0, rates)


def _least_rate(metadata: Mapping[str, Any]) -> float:
    """Below this there is no rain, mm/h."""
    from pysteps.utils import conversion

    whole = dict(metadata)
    at = np.asarray([[whole.get("threshold", 0.0)]], np.float64)
    return float(conversion.to_rainrate(at, whole)[0][0, 0]) * (1 - 1e-6)


def _as_given(rates: NDArray[np.float64], metadata: Mapping[str, Any] | None) -> Any:
    """Rain rates in the unit and transform that the metadata states."""
    if metadata is None:
        return rates
    from pysteps.utils import conversion, transformation

    dry = rates < max(_least_rate(metadata), 1e-9)
    plain = {
        **metadata,
        "unit": "mm/h",
        "transform": None,
        "threshold": _least_rate(metadata),
        "zerovalue": 0.0,
    }
    to = {
        "mm/h": conversion.to_rainrate,
        "mm": conversion.to_raindepth,
        "dBZ": conversion.to_reflectivity,
    }
    made, now = to[metadata["unit"]](np.where(dry, plain["threshold"], rates), plain)
    if metadata["transform"] == "dB" and now["transform"] != "dB":
        made = transformation.dB_transform(made, now)[0]
    no_rain = 0.0 if metadata["transform"] is None and metadata["unit"] != "dBZ" else made.min()
    return np.where(dry, metadata.get("zerovalue", no_rain), made)
