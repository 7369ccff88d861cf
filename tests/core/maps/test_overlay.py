"""A user's GeoJSON: every geometry, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.errors import UsageError
from stpl_core.maps.overlay import placed, read_overlay

RING = [[4.0, 52.0], [5.0, 52.0], [5.0, 53.0], [4.0, 52.0]]
GEOMETRIES: dict[str, Any] = {
    "Point": [4.5, 52.5, 12.0],
    "MultiPoint": [[4.5, 52.5], [4.6, 52.4]],
    "LineString": [[4.0, 52.0], [5.0, 53.0]],
    "MultiLineString": [[[4.0, 52.0], [5.0, 53.0]], [[4.2, 52.0], [5.2, 53.0]]],
    "Polygon": [RING, [[4.5, 52.2], [4.6, 52.2], [4.6, 52.3], [4.5, 52.2]]],
    "MultiPolygon": [[RING], [[[5.0, 51.0], [5.5, 51.0], [5.5, 51.5], [5.0, 51.0]]]],
}
PARTS = {"MultiPoint": 2, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 2}


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "areas.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_each_geometry_lands_on_its_pixels(tmp_path: Path, kind: str) -> None:
    pyproj = pytest.importorskip("pyproj")
    from stpl_core.grid import Grid
    from stpl_core.maps.placing import Place

    geometry = {"type": kind, "coordinates": GEOMETRIES[kind]}
    feature = {"type": "Feature", "properties": {"name": "west"}, "geometry": geometry}
    collection = {"type": "GeometryCollection", "geometries": [geometry]}
    document = {
        "type": "FeatureCollection",
        "features": [feature, {"type": "Feature", "properties": None, "geometry": collection},
                     {"type": "Feature", "properties": {}, "geometry": None}],
    }  # fmt: skip
    named, nameless = read_overlay(written(tmp_path, document))
    assert (named.name, nameless.name) == ("west", "")
    place = Place(Grid((0.0, 60.0, 0.1, -0.1), 100, 100, pyproj.CRS("OGC:CRS84").to_wkt(), True))
    parts = placed(named, place)
    assert len(parts) == PARTS.get(kind, 1)
    flat = np.array(GEOMETRIES[kind][:2] if kind == "Point" else _first(GEOMETRIES[kind]))
    np.testing.assert_allclose(parts[0][0], [flat[0] * 10, (60 - flat[1]) * 10], atol=1e-6)
    elsewhere = Place(
        Grid((100.0, 10.0, 0.1, -0.1), 100, 100, pyproj.CRS("OGC:CRS84").to_wkt(), True)
    )
    assert placed(named, elsewhere) == []


def _first(nested: Any) -> list[float]:
    while isinstance(nested[0], list):
        nested = nested[0]
    return list(nested)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no GeoJSON"),
        ({"type": "FeatureCollection", "features": []}, "has no shape"),
        ({"type": "FeatureCollection"}, "is no GeoJSON"),
        ({"type": "Topology"}, "of type \"Topology\""),
        ({"type": "Point", "coordinates": [150_000.0, 460_000.0]}, "no longitude and latitude"),
        ({"type": "Point", "coordinates": ["x", 1]}, "is no GeoJSON"),
        ({"type": "LineString", "coordinates": [[1, 2], [1]]}, "is no GeoJSON"),
        ({"type": "LineString", "coordinates": [[1, 2], [float("nan"), 3]]}, "is no GeoJSON"),
        ({"type": "Polygon", "coordinates": 7}, "is no GeoJSON"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, document: Any, words: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(UsageError, match=words) as caught:
        read_overlay(path)
    assert "--overlay" in str(caught.value)
    assert "try: " in str(caught.value)


def test_files_that_are_missing_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_overlay(tmp_path / "none.geojson")
    path = written(tmp_path, {"type": "LineString", "coordinates": [[1, 2]] * 50})
    monkeypatch.setattr("stpl_core.maps.overlay.MOST_POINTS", 10)
    with pytest.raises(UsageError, match="too many points"):
        read_overlay(path)
    monkeypatch.setattr("stpl_core.maps.overlay.MOST_BYTES", 10)
    with pytest.raises(UsageError, match="MB"):
        read_overlay(path)
