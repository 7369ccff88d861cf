"""The OGC's own schemas, where `make ogc-schemas` has fetched them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.page.required import REQUIRED

FOLDER = Path(__file__).parents[4] / ".ogc-schemas"
_MISSING = "no schemas of the OGC: make ogc-schemas"


def check(document: bytes, schema: str) -> None:
    """Hold a document against a schema, or skip where there is none.

    Args:
        document: the XML.
        schema: its place in the folder, such as `wms/1.3.0/capabilities_1_3_0.xsd`.
    """
    if not REQUIRED:
        pytest.importorskip("lxml.etree")
        if not (FOLDER / schema).is_file():
            pytest.skip(_MISSING)
    from lxml import etree

    _read(schema).assertValid(etree.fromstring(document))


@functools.cache
def _read(schema: str) -> Any:
    from lxml import etree

    assert (FOLDER / schema).is_file(), _MISSING
    # What a schema imports lies beside it: nothing is fetched.
    return etree.XMLSchema(etree.parse(FOLDER / schema, etree.XMLParser(no_network=True)))
