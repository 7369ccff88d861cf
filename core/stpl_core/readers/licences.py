"""Licences under the names that programs look for: those of SPDX."""

from __future__ import annotations

import re

_CREATIVE = re.compile(
    r"(?:creative commons|cc)?[\s/_-]*(by|attribution)"
    r"([\s/_-]*(?:nc|nd|sa|non-?commercial|no-?deriv(?:ative)?(?:work)?s?|share-?alike))*"
    r"[\s/_v-]*(\d\.\d)(?:\s*(?:international|unported|generic))?(?:\s*licen[cs]e)?/?"
)
_PARTS = {"NC": r"nc|non-?commercial", "ND": r"nd|no-?deriv", "SA": r"sa|share-?alike"}
_KNOWN = {
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "ogl-uk-3.0": "OGL-UK-3.0",
    "open government licence v3.0": "OGL-UK-3.0",
    "dl-de/by-2-0": "DL-DE-BY-2.0",
}


def spdx_of(text: str) -> str:
    """The SPDX identifier of a licence named as people do, such as `CC BY 4.0`; else nothing."""
    plain = re.sub(r"^https?://(www\.)?creativecommons\.org/licenses/", "cc ", text.strip().lower())
    if plain in _KNOWN:
        return _KNOWN[plain]
    match = _CREATIVE.fullmatch(plain)
    if match is None:
        return ""
    between = plain[match.end(1) : match.start(3)]
    parts = [short for short, words in _PARTS.items() if re.search(rf"\b(?:{words})", between)]
    return "-".join(["CC", "BY", *parts, match[3]])
