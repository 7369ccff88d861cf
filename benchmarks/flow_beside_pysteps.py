"""The flow baseline beside pysteps' extrapolation; writes benchmarks/results/.

    python benchmarks/flow_beside_pysteps.py --fmi FOLDER --knmi FOLDER

CSI on 5-minute radar at 5, 15, 30 and 60 minutes and 0.1, 1 and 5 mm/h, counted over many origins.
pysteps tracks corners (Lucas-Kanade) in decibels and moves the last rain rates along. It runs
twice: with its own settings, and with smaller windows, more corners and finer declustering, so
that its motion follows single cells as a dense flow does. Everything is counted on observed
pixels: `csi` on those for which both settings of pysteps give a value, `csi_everywhere` on all,
where pixels without a value from pysteps count as dry.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.baselines import flow, persistence
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.rain import rate_from_dbz
from stpl_core.readers.opening import open_frames
from stpl_core.scores import events
from stpl_deploy.cli.reports.output import document_text

RESULT = Path(__file__).parent / "results" / "flow-beside-pysteps.json"
THRESHOLDS = (0.1, 1.0, 5.0)
"""mm/h"""
LEADS = (1, 3, 6, 12)
"""Frames of 5 minutes."""
PAST = 3
"""Frames that every method sees."""
FINER: dict[str, Any] = {
    "lk_kwargs": {"winsize": (35, 35)},
    "fd_kwargs": {
        "max_corners": 5000,
        "quality_level": 0.001,
        "min_distance": 3,
        "buffer_mask": 0,
    },
    "size_opening": 0,
    "decl_scale": 5,
}
SETTINGS: dict[str, dict[str, Any]] = {"pysteps": {}, "pysteps_finer": FINER}


def fmi(path: Path) -> Array:
    """Rain rates `(time, H, W)` in mm/h of FMI's reflectivity, by its Z = 223 R^1.53."""
    data = open_frames(path)
    dbz, wet = data["frames"].values[:, 0], data["state"].values == 0
    rates = np.where(np.isnan(dbz), np.nan, np.float32(0))
    rates[wet] = rate_from_dbz(dbz[wet], (223.0, 1.53))
    return np.asarray(rates, np.float32)


def knmi(path: Path) -> Array:
    """Rain rates `(time, H, W)` in mm/h of KNMI's millimetres in 5 minutes."""
    return np.asarray(open_frames(path)["frames"].values[:, 0] * 12, np.float32)


SEQUENCES = {"fmi": (fmi, range(3, 28, 2)), "knmi": (knmi, range(11, 80, 3))}
"""Reader, and the frames after which a forecast starts."""


def decibels(rates: Array) -> NDArray[np.float64]:
    """What pysteps tracks: 10 log10 of the rate, -15 below 0.1 mm/h, NaN where nothing was seen."""
    level = 10 * np.log10(np.maximum(rates.astype(np.float64), 0.1))
    return np.where(rates < 0.1, -15.0, level)


def of_pysteps(past: Array, settings: dict[str, Any]) -> NDArray[np.float64]:
    """Forecast `(12, H, W)` of pysteps; NaN where it knows nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pysteps.extrapolation.semilagrangian import extrapolate
        from pysteps.motion.lucaskanade import dense_lucaskanade

        motion = dense_lucaskanade(decibels(past), **settings)  # (2, H, W)
        last = np.nan_to_num(past[-1]).astype(np.float64)
        return np.asarray(extrapolate(last, motion, LEADS[-1]))


def finite(stack: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all of a stack's first axis is finite."""
    return np.asarray(np.isfinite(stack).all(axis=0))


def measure(rates: Array, origins: range) -> dict[str, Any]:
    """CSI `[lead][threshold]` of every method, on the pixels pysteps knows and everywhere."""
    names = ("persistence", "flow", *SETTINGS)
    shape = (len(LEADS), len(THRESHOLDS), 3)
    known = {name: np.zeros(shape) for name in names}
    everywhere = {name: np.zeros(shape) for name in names}
    for origin in origins:
        past = rates[origin - PAST + 1 : origin + 1]  # (3, H, W)
        context = past[None, :, None]  # (1, 3, 1, H, W)
        theirs = {name: of_pysteps(past, settings) for name, settings in SETTINGS.items()}
        forecasts = {
            "persistence": np.nan_to_num(persistence(context, LEADS[-1])[0, :, 0]),
            "flow": flow(context, LEADS[-1], "mm h-1")[0, :, 0],
            **{name: np.nan_to_num(one).astype(np.float32) for name, one in theirs.items()},
        }
        both = finite(np.stack(list(theirs.values())))  # (12, H, W)
        seen = finite(rates[origin - PAST : origin + LEADS[-1] + 1])  # (H, W)
        for name, forecast in forecasts.items():
            for n, lead in enumerate(LEADS):
                pair = forecast[None, None, lead - 1], rates[None, None, origin + lead]
                inside = (seen & both[lead - 1])[None]
                known[name][n] += events.contingency(*pair, THRESHOLDS, inside)
                everywhere[name][n] += events.contingency(*pair, THRESHOLDS, seen[None])
        print(f"frame {origin} of {origins[-1]}", file=sys.stderr)
    return {
        "origins": list(origins),
        "csi": {name: events.csi(counts).round(4).tolist() for name, counts in known.items()},
        "csi_everywhere": {
            name: events.csi(counts).round(4).tolist() for name, counts in everywhere.items()
        },
    }


def main() -> None:
    """Measure the sequences named, write the result, print how far flow is from pysteps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in SEQUENCES:
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of its files")
    given = vars(parser.parse_args())
    from importlib.metadata import version

    result: dict[str, Any] = {
        "pysteps": version("pysteps"),
        "settings": SETTINGS,
        "lead_minutes": [5 * lead for lead in LEADS],
        "thresholds_mm_h": THRESHOLDS,
        "sequences": {
            name: measure(read(given[name]), origins) for name, (read, origins) in SEQUENCES.items()
        },
    }
    with atomic_file(RESULT) as partial:
        partial.write(document_text(result).encode())
    for name, one in result["sequences"].items():
        for which in ("csi", "csi_everywhere"):
            for settings in SETTINGS:
                less = np.subtract(one[which]["flow"], one[which][settings])
                print(f"{name} {which} flow - {settings}: {less.min():+.4f} to {less.max():+.4f}")


if __name__ == "__main__":
    main()
