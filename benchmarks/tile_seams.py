"""Whether the seams of tiles can be seen in a nowcast's error; writes benchmarks/results/.

    python benchmarks/tile_seams.py BUNDLE ARCHIVE --domain 1226x760 [--whole BUNDLE] [--windows 4]

The field of every window is forecast in tiles, and again with the tile grid shifted by half a
tile. A band lies around each seam, as wide as the tiles' overlap: the squared error there, over
that of the same pixels in the shifted forecast, for which they lie inside tiles. --whole takes the
same weights exported for the whole field (`export --grid`), and compares the three.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import open_bundle
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text, print_table
from stpl_deploy.judging import open_judged
from stpl_runtime.engine import open_session
from stpl_runtime.engines.tiled import TiledSession, Tiling, default_overlap, domain_size, on_domain
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.nowcasting.predict import graphs_needed, predict_sequences

RESULT = Path(__file__).parent / "results" / "tile-seams.json"


def seams(starts: tuple[int, ...], tile: int, length: int, width: int) -> NDArray[np.bool_]:
    """`(length,)`, True within half of `width` of the middle of what two neighbours share."""
    near = np.zeros(length, bool)
    for start, after in pairwise(starts):
        middle = (after + start + tile) / 2
        near[max(round(middle - width / 2), 0) : round(middle + width / 2)] = True
    return near


def band(tiling: Tiling) -> NDArray[np.bool_]:
    """`(H, W)`, True around the seams."""
    down = seams(tiling.rows, tiling.tile[0], tiling.domain[0], tiling.overlap)
    across = seams(tiling.columns, tiling.tile[1], tiling.domain[1], tiling.overlap)
    return np.asarray(down[:, None] | across[None, :])


def main() -> None:
    """Forecast, compare, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--domain", type=domain_size, required=True)
    parser.add_argument("--whole", type=Path)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--overlap", type=int)
    arguments = parser.parse_args()
    judged = open_judged(arguments.bundle, domain=arguments.domain)
    material = archive_material(judged, path=arguments.archive)
    chosen = np.linspace(0, len(material.frames) - 1, arguments.windows).round().astype(int)
    frames = material.frames[chosen]  # (N, T + K, C, H, W)
    context, truth = frames[:, : judged.context], frames[:, judged.context :]
    bundle = open_bundle(arguments.bundle)
    tile = (bundle.manifest.frame[1], bundle.manifest.frame[2])
    usual = default_overlap(tile, bundle.manifest.horizon)
    overlap = usual if arguments.overlap is None else arguments.overlap
    plain = Tiling(arguments.domain, tile, overlap)
    shifted = replace(plain, shift=((tile[0] - overlap) // 2, (tile[1] - overlap) // 2))
    guesses, seconds = {}, {}
    session = open_session(bundle, graphs_needed(bundle.manifest, judged.horizon))
    for name, tiling in (("tiles", plain), ("shifted", shifted)):
        wide = replace(bundle, manifest=bundle.manifest.model_copy(update={"frame": judged.frame}))
        began = time.perf_counter()
        guesses[name] = predict_sequences(
            wide, TiledSession(session, tiling), context, judged.horizon
        )
        seconds[name] = (time.perf_counter() - began) / len(frames)
    if arguments.whole is not None:
        whole = open_bundle(arguments.whole)
        opened = open_session(whole, graphs_needed(whole.manifest, judged.horizon))
        began = time.perf_counter()
        guesses["whole"] = predict_sequences(
            *on_domain(whole, opened, arguments.domain), context, judged.horizon
        )
        seconds["whole"] = (time.perf_counter() - began) / len(frames)
    guesses["persistence"] = np.repeat(context[:, -1:], judged.horizon, axis=1)
    observed = np.isfinite(frames).all(axis=(1, 2))  # (N, H, W)
    near = band(plain) & ~band(shifted)  # inside tiles of the shifted grid
    rows: dict[str, Any] = {}
    for name, guess in guesses.items():
        error = ((guess - truth) ** 2).mean(axis=2)  # (N, K, H, W)
        rows[name] = {
            "mse_at_seams": _mean(error, observed & near),
            "mse_elsewhere": _mean(error, observed & ~near),
            "mse": _mean(error, observed),
            "seconds_per_nowcast": seconds.get(name),
        }
    ratio = np.asarray(rows["tiles"]["mse_at_seams"]) / rows["shifted"]["mse_at_seams"]
    document = {
        "machine": describe(),
        "model": bundle.manifest.model.name,
        "data": arguments.archive.name,
        "domain": arguments.domain,
        "tile": tile,
        "overlap": overlap,
        "tiles": plain.count,
        "windows": len(frames),
        "seam_pixels": int(near.sum()),
        "seam_ratio_per_lead": ratio.tolist(),
        "seam_ratio": float(
            np.mean(rows["tiles"]["mse_at_seams"]) / np.mean(rows["shifted"]["mse_at_seams"])
        ),
        "errors": rows,
    }
    with atomic_file(RESULT) as file:
        file.write(document_text(document).encode())
    print(f"seams over the same pixels inside tiles: {document['seam_ratio']:.4f}")
    print_table(
        f"MSE per pixel, {arguments.archive.name}",
        ["", "at seams", "elsewhere", "all", "s"],
        [_cells(name, row) for name, row in rows.items()],
    )


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    means = [f"{np.mean(row[key]):.4g}" for key in ("mse_at_seams", "mse_elsewhere", "mse")]
    return [name, *means, f"{row['seconds_per_nowcast'] or 0:.2f}"]


def _mean(error: NDArray[Any], where: NDArray[np.bool_]) -> list[float]:
    """`(K,)` over `(N, H, W)` pixels."""
    every = np.broadcast_to(where[:, None], error.shape)
    return [float(error[:, k][every[:, k]].mean()) for k in range(error.shape[1])]


if __name__ == "__main__":
    main()
