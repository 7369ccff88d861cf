"""From radar frames to an hour of nowcast: the shipped model, flow and pysteps in one process.

    python -m benchmarks.nowcast_times --knmi FOLDER [--rounds 15]

Writes benchmarks/results/nowcast-times.json. Six fields of 256x256 of KNMI in, twelve out; all ways
take turns, each with the threads that it takes by itself. Run it on a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.baselines import flow
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_core.readers.opening import open_frames
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_deploy.integrations.pysteps import nowcast_method
from stpl_deploy.library.model import load
from stpl_export.export import export_run

RESULT = Path(__file__).parent / "results" / "nowcast-times.json"
SIDE, CONTEXT, HORIZON = 256, 6, 12
CORNER = (250, 250)
"""Of the field, where all is observed."""
MEMBERS = 20
MODEL = "pretrained:radar-nowcast"
ENGINES = ("onnx", "openvino")
Way = Callable[[Array], Any]
"""`(T, H, W)`, mm/h, to what it makes of them."""


def rain(folder: Path) -> Array:
    """`(T, H, W)` in mm/h: a corner of the wettest hour."""
    down, right = CORNER
    data = open_frames(folder)["frames"][:, 0, down : down + SIDE, right : right + SIDE]
    rates = np.nan_to_num(data.values) * 12  # mm in 5 minutes
    hour = np.convolve(rates.mean((1, 2)), np.ones(CONTEXT), "valid").argmax()
    return np.asarray(rates[hour : hour + CONTEXT], np.float32)


def by_flow(frames: Array) -> Array:
    """The baseline of `evaluate`."""
    return flow(frames[None, :, None], HORIZON, "mm h-1")


def by_bundle(path: Path, engine: str) -> Way:
    """Ours, as pysteps calls it."""
    method = nowcast_method(load(path, engine))
    metadata = {"unit": "mm/h", "transform": None}
    return lambda frames: method(frames, None, HORIZON, metadata=metadata)


def by_pysteps(method: str, **keys: Any) -> Way:
    """Lucas-Kanade motion and a method of pysteps, in dB, as its examples have them."""
    from pysteps import motion, nowcasts
    from pysteps.utils import transformation

    track, forecast = motion.get_method("LK"), nowcasts.get_method(method)

    def way(frames: Array) -> Any:
        decibels, _ = transformation.dB_transform(frames, threshold=0.1, zerovalue=-15.0)
        velocity = track(decibels)
        if method == "extrapolation":
            return forecast(frames[-1], velocity, HORIZON)
        return forecast(decibels[-3:], velocity, HORIZON, precip_thr=-10.0, kmperpixel=1.0,
                        timestep=5, **keys)  # fmt: skip

    return way


def ways(folder: Path) -> dict[str, Way]:
    """Every way by its name."""
    bundle = export_run(Path(MODEL), folder / "rain", grid=(SIDE, SIDE))
    made: dict[str, Way] = {}
    for engine in ENGINES:
        made[f"radar-nowcast, {engine}"] = by_bundle(bundle.path, engine)
    made["flow"] = by_flow
    made["pysteps extrapolation"] = by_pysteps("extrapolation")
    made[f"pysteps steps, {MEMBERS} members"] = by_pysteps("steps", n_ens_members=MEMBERS, seed=1)
    return made


def measure(frames: Array, named: dict[str, Way], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each way: median and quartiles."""
    taken: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(rounds + 1):
        for name, way in named.items():
            began = time.perf_counter()
            with redirect_stdout(StringIO()):  # pysteps tells all it does
                way(frames)
            if turn:  # the first one warms up
                taken[name].append(1e3 * (time.perf_counter() - began))
    rows = []
    for name, times in taken.items():
        low, median, high = np.percentile(times, (25, 50, 75)).tolist()
        rows.append({"way": name, "ms": median, "quartiles_ms": [low, high]})
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--knmi", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(rain(given.knmi), ways(Path(folder)), given.rounds)
    result = {"frame": [SIDE, SIDE], "context": CONTEXT, "horizon": HORIZON,
              "rounds": given.rounds, "ways": rows, "machine": describe()}  # fmt: skip
    with atomic_file(RESULT) as file:
        file.write(document_text(result).encode())
    print_table(
        "Frames to nowcast", ["way", "ms"], [[row["way"], f"{row['ms']:.0f}"] for row in rows]
    )


if __name__ == "__main__":
    main()
