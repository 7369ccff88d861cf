"""The addresses of the EDR as OpenAPI 3.0."""

from __future__ import annotations

from typing import Any

from stpl_core import __version__

COVERAGE = "application/prs.coverage+json"
OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
_QUERY = {
    "coords": "longitude and latitude, such as POINT(5.2 52.1)",
    "parameter-name": "names of parameters, with commas between them",
    "datetime": "an instant, or an interval A/B, in ISO 8601",
    "crs": "CRS84",
    "f": "CoverageJSON",
}


def openapi(url: str) -> dict[str, Any]:
    """The document; `url` is that of the landing page."""
    in_path = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    in_query = [
        {
            "name": name,
            "in": "query",
            "required": name == "coords",
            "description": about,
            "schema": {"type": "string"},
        }
        for name, about in _QUERY.items()
    ]
    return {
        "openapi": "3.0.3",
        "info": {"title": "Live nowcasts", "version": __version__},
        "servers": [{"url": url}],
        "paths": {
            "/": _get("what there is"),
            "/conformance": _get("the conformance classes"),
            "/collections": _get("one collection for each stream"),
            "/collections/{name}": _get("one stream's newest nowcast", in_path),
            "/collections/{name}/position": _get(
                "the values at a position", in_path, *in_query, media=COVERAGE
            ),
        },
    }


def _get(about: str, *parameters: dict[str, Any], media: str = "application/json") -> Any:
    answer = {"description": about, "content": {media: {"schema": {"type": "object"}}}}
    operation = {"summary": about, "parameters": list(parameters), "responses": {"200": answer}}
    return {"get": operation}
