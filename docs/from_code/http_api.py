"""The reference of the page's addresses."""

from __future__ import annotations

import inspect
import re

from docs.from_code.markdown import code, plain, table

_INTRODUCTION = """# HTTP

The addresses of `stpl-deploy serve` and `stream --page`, by default at `http://127.0.0.1:8765`. On
another address than this machine's own each asks for a token:
[the page](../streaming.md#the-page).

"""
_ANSWERS = """
Every address answers 401 without the token that it asks for. `/nowcast/latest` answers 503 until
there is a nowcast, 400 to an unknown format, 406 where the Accept header leaves none, 501 where an
extra is missing, and 304 where the ETag is still that of the newest one.

`/wms`, `/wmts`, `/tiles` and `/edr` take what their standards say: [see the nowcast in
QGIS](../gis.md). A refusal of `/wms` is a `ServiceException` with status 200; of `/wmts` an
`ExceptionReport`; of `/edr`, JSON with `code` and `description`.
Each answers with an ETag that changes with the nowcast.

`/nowcast/latest` takes `format=`, or chooses by the Accept header:

"""


def page() -> str:
    """Every address of the page's server."""
    from stpl_runtime.page import app
    from stpl_runtime.page.outputs import FORMATS

    lines = re.findall(r"^(/\S*) {2,}(.+)$", inspect.getdoc(app) or "", re.MULTILINE)
    addresses = table(("address", ""), [(code(address), plain(text)) for address, text in lines])
    formats = table(("format", "media type"), [(word, code(FORMATS[word])) for word in FORMATS])
    return _INTRODUCTION + addresses + _ANSWERS + formats
