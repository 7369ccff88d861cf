"""Ensembles of the shipped model beside STEPS of pysteps; writes benchmarks/results/ensembles.json.

    stpl-deploy export pretrained:radar-nowcast --grid 765x700 --out rain.bundle
    python benchmarks/ensembles.py --bundle rain.bundle --knmi FOLDER
    python benchmarks/ensembles.py --write                only puts the table into docs/ensembles.md

Nowcasts of the hours of 26 August 2010 that training never read, with as many members each. CRPS
and rank histogram are those of the library `scores` (Australian Bureau of Meteorology), on the
pixels that were observed all along and for which STEPS gives a value. The power of waves of 4 to 16
pixels is that of the members over that of what was observed, with nothing outside the radar.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_table
from stpl_core.bundle import Bundle, open_bundle
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_core.readers.opening import open_frames
from stpl_core.scores.images import Mask
from stpl_core.scores.spectrum import radial_power
from stpl_deploy.cli.reports.output import document_text
from stpl_runtime.chances import Chances
from stpl_runtime.engine import Session, open_session
from stpl_runtime.engines.tiled import on_domain
from stpl_runtime.ensembles.members import members_of
from stpl_runtime.nowcasting.predict import predict_with_chances

RESULT = Path(__file__).parent / "results" / "ensembles.json"
PAGE = Path(__file__).parents[1] / "docs" / "ensembles.md"
BEGIN = "<!-- tables: benchmarks/ensembles.py --write -->"
LEADS = (1, 3, 6, 12)
"""Frames of 5 minutes."""
TEST = 26
"""Frames of the test part, the last ones: 05:30 to 07:35."""
WAVES = (4, 16)
"""Pixels."""
LEAST = 0.1
"""mm/h: less is dry, in decibels 5 below it."""
_PIXELS = 20_000
"""That `scores` compares at a time."""


def steps(past: Array, members: int, seed: int) -> Array:
    """STEPS with pysteps' usual settings: `(M, 12, H, W)` mm/h, NaN where it knows nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pysteps.motion.lucaskanade import dense_lucaskanade
        from pysteps.nowcasts.steps import forecast

        level = decibels(past[-3:])
        motion = dense_lucaskanade(level)  # (2, H, W)
        made = forecast(
            level,
            motion,
            LEADS[-1],
            n_ens_members=members,
            n_cascade_levels=6,
            precip_thr=-10.0,
            kmperpixel=1.0,
            timestep=5,
            noise_method="nonparametric",
            vel_pert_method="bps",
            mask_method="incremental",
            seed=seed,
            num_workers=1,
        )  # (M, 12, H, W), decibels
    rates = np.where(made < -10.0, 0.0, 10.0 ** (made / 10.0))
    return np.where(np.isfinite(made), rates, np.nan).astype(np.float32)


def decibels(rates: Array) -> Array:
    """10 log10 of mm/h, -15 below `LEAST`, NaN where nothing was seen."""
    level = 10 * np.log10(np.maximum(rates, LEAST))
    return np.where(rates < LEAST, np.float32(-15), level).astype(np.float32)


def ours(bundle: Bundle, session: Session, past: Array, members: int, seed: int) -> Array:
    """Members `(M, 12, H, W)` mm/h, as `predict --members` draws them, and the forecast itself."""
    observed = np.isfinite(past)
    frames = np.nan_to_num(past)[:, None]  # (T, 1, H, W)
    made, chances = predict_with_chances(bundle, session, frames[None], LEADS[-1])
    drawn = members_of(
        bundle.manifest.codec,
        frames,
        made[0],
        Chances(chances.thresholds, chances.values[0]),
        members,
        (seed, 0),
        observed,
    )
    return np.concatenate([drawn[:, :, 0], made[:, :, 0]])


def judged(members: Array, truth: Array, where: Mask) -> dict[str, Any]:
    """Sums over the pixels of one frame; `(M, H, W)` beside `(H, W)`."""
    import xarray as xr
    from scores.probability import crps_for_ensemble, rank_histogram

    values, seen = members[:, where], truth[where]  # (M, n), (n,)
    crps, ranks = 0.0, np.zeros(len(members) + 1)
    for start in range(0, len(seen), _PIXELS):
        part = slice(start, start + _PIXELS)
        forecast = xr.DataArray(values[:, part], dims=("member", "pixel"))
        observed = xr.DataArray(seen[part], dims="pixel")
        count = observed.size
        crps += count * float(crps_for_ensemble(forecast, observed, "member", method="ecdf"))
        ranks += count * rank_histogram(forecast, observed, "member").values
    return {
        "pixels": len(seen),
        "crps": crps,
        "ranks": ranks,
        "spread": float(values.var(axis=0, ddof=1, dtype=np.float64).sum()),
        "error": float(np.square(values.mean(0, dtype=np.float64) - seen).sum()),
        "power": {
            "dB": [power(decibels(frame), where, -15.0) for frame in (*members[:4], truth)],
            "mm/h": [power(frame, where, 0.0) for frame in (*members[:4], truth)],
        },
    }


def power(frame: Array, where: Mask, dry: float) -> float:
    """Of the waves of `WAVES` in `(H, W)`."""
    found = radial_power(np.where(where, frame, dry)[None, None])
    length = max(frame.shape) / np.maximum(np.arange(len(found)), 0.5)
    return float(found[(length >= WAVES[0]) & (length <= WAVES[1])].sum())


def summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The scores of one lead time."""
    pixels = sum(part["pixels"] for part in parts)
    ranks = np.sum([part["ranks"] for part in parts], axis=0) / pixels
    flat = 1 / len(ranks)
    share = {}
    for unit in ("dB", "mm/h"):
        every = np.array([part["power"][unit] for part in parts])  # (origins, 4 members + truth)
        share[unit] = float(every[:, :-1].mean(axis=1).sum() / every[:, -1].sum())
    return {
        "crps_mm_h": sum(part["crps"] for part in parts) / pixels,
        "power_share_4_to_16_px": share,
        "spread_mm_h": float(np.sqrt(sum(part["spread"] for part in parts) / pixels)),
        "rmse_of_mean_mm_h": float(np.sqrt(sum(part["error"] for part in parts) / pixels)),
        "rank_histogram": ranks.tolist(),
        "rank_distance_from_flat": float(np.abs(ranks - flat).sum() / 2),
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Every origin, both ways."""
    rates = np.asarray(open_frames(given.knmi)["frames"].values[:, 0] * 12, np.float32)
    bundle = open_bundle(given.bundle)
    session = open_session(bundle, ("step",), engine="onnx", threads=given.threads)
    wide, covering = on_domain(bundle, session, rates.shape[1:])
    context = bundle.manifest.context
    first = len(rates) - TEST + context - 1
    origins = range(first, len(rates) - LEADS[-1], given.stride)
    parts: dict[str, list[list[dict[str, Any]]]] = {"ours": [], "steps": []}
    absolute = np.zeros((len(LEADS), 2))
    for origin in origins:
        past = rates[origin - context + 1 : origin + 1]
        *drawn, alone = ours(wide, covering, past, given.members, given.seed)
        made = {"ours": np.stack(drawn), "steps": steps(past, given.members, given.seed)}
        seen = np.isfinite(rates[origin - context + 1 : origin + LEADS[-1] + 1]).all(axis=0)
        rows: dict[str, list[dict[str, Any]]] = {"ours": [], "steps": []}
        for n, lead in enumerate(LEADS):
            truth = rates[origin + lead]
            where = seen & np.isfinite(made["steps"][:, lead - 1]).all(axis=0)
            for name, members in made.items():
                rows[name].append(judged(np.nan_to_num(members[:, lead - 1]), truth, where))
            absolute[n] += np.abs(alone[lead - 1] - truth)[where].sum(), where.sum()
        for name, row in rows.items():
            parts[name].append(row)
        print(f"frame {origin} of {origins[-1]}", file=sys.stderr)
    return {
        "model": f"{bundle.manifest.model.name}, {bundle.manifest.model.parameters} parameters",
        "data": "KNMI, 26 August 2010, 05:30 to 07:35, which training never read; CC BY 4.0",
        "members": given.members,
        "seed": given.seed,
        "origins": list(origins),
        "lead_minutes": [5 * lead for lead in LEADS],
        "pysteps": version("pysteps"),
        "scores": version("scores"),
        "forecast_mean_absolute_error_mm_h": (absolute[:, 0] / absolute[:, 1]).tolist(),
        **{
            name: [summed([row[n] for row in every]) for n in range(len(LEADS))]
            for name, every in parts.items()
        },
        "machine": describe(),
    }


def table() -> str:
    """The table of docs/ensembles.md, of the file that is there."""
    found: dict[str, Any] = json.loads(RESULT.read_text())
    rows = []
    for n, minutes in enumerate(found["lead_minutes"]):
        ours, theirs = found["ours"][n], found["steps"][n]
        rows.append(
            [
                f"{minutes} min",
                _pair(ours["crps_mm_h"], theirs["crps_mm_h"]),
                _pair(*(one["power_share_4_to_16_px"]["dB"] for one in (ours, theirs))),
                _pair(*(one["power_share_4_to_16_px"]["mm/h"] for one in (ours, theirs))),
                _pair(*(one["spread_mm_h"] / one["rmse_of_mean_mm_h"] for one in (ours, theirs))),
                _pair(ours["rank_distance_from_flat"], theirs["rank_distance_from_flat"]),
            ]
        )
    head = [
        "lead",
        "CRPS, mm/h",
        "power in dB",
        "power in mm/h",
        "spread / error",
        "ranks off flat",
    ]
    alone = ", ".join(f"{one:.3f}" for one in found["forecast_mean_absolute_error_mm_h"])
    note = (
        f"Each cell: `predict --members {found['members']}`, then STEPS of pysteps "
        f"{found['pysteps']}. {len(found['origins'])} nowcasts.\n"
        f"Mean absolute error of the model's forecast, without members: {alone} mm/h."
    )
    return "\n".join(
        [
            *results_table.table(head, rows),
            "",
            note,
            "",
        ]
    )


def _pair(one: float, other: float) -> str:
    return f"{one:.3f} / {other:.3f}"


def main() -> None:
    """Measure, write the result, and put its table into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="of the field's size, or covered in tiles")
    parser.add_argument("--knmi", type=Path, help="folder of its files")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stride", type=int, default=2, help="frames from nowcast to nowcast")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="only the table, into the page")
    given = parser.parse_args()
    if not given.write:
        if given.bundle is None or given.knmi is None:
            parser.error("--bundle and --knmi, or --write")
        found = document_text(measure(given)).encode()
        with atomic_file(RESULT) as file:
            file.write(found)
    page = results_table.page_with(table(), PAGE, BEGIN)
    with atomic_file(PAGE) as file:
        file.write(page.encode())


if __name__ == "__main__":
    main()
