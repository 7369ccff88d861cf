"""The addresses of the EDR as OpenAPI 3.0."""

from __future__ import annotations

from typing import Any

from stpl_core import __version__

COVERAGE = "application/prs.coverage+json"
OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
_COORDS = {
    "position": ("the values at a position", "POINT(5.2 52.1)"),
    "area": ("the values in an area", "POLYGON((5 52,6 52,6 53,5 52))"),
}
"""Query -> what it gives, and what `coords` may be."""
_QUERY = {
    "parameter-name": "names of parameters, with commas between them",
    "datetime": "an instant, or an interval A/B, in ISO 8601",
    "crs": "CRS84",
    "f": "CoverageJSON",
}


def openapi(url: str) -> dict[str, Any]:
    """The document; `url` is that of the landing page."""
    in_path = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Live nowcasts", "version": __version__},
        "servers": [{"url": url}],
        "paths": {
            "/": _get("what there is"),
            "/conformance": _get("the conformance classes"),
            "/collections": _get("one collection for each stream"),
            "/collections/{name}": _get("one stream's newest nowcast", in_path),
            **{
                f"/collections/{{name}}/{query}": _get(
                    about, in_path, *_in_query(example), media=COVERAGE
                )
                for query, (about, example) in _COORDS.items()
            },
        },
    }


def _in_query(example: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": name == "coords",
            "description": about,
            "schema": {"type": "string"},
        }
        for name, about in {
            "coords": f"longitude and latitude, such as {example}",
            **_QUERY,
        }.items()
    ]


def _get(about: str, *parameters: dict[str, Any], media: str = "application/json") -> Any:
    answer = {"description": about, "content": {media: {"schema": {"type": "object"}}}}
    operation = {"summary": about, "parameters": list(parameters), "responses": {"200": answer}}
    return {"get": operation}
