"""The notebooks as pages: their text, their code, and what they put out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.from_code.places import ROOT

FOLDER = "notebooks"
"""Of the site, and in docs/."""


def paths() -> list[Path]:
    """The notebooks, by name."""
    return sorted((ROOT / "docs" / FOLDER).glob("*.ipynb"))


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by their names beside the page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, *rest = [part for cell in cells for part in _parts(cell)]
    note = f"*This page is the notebook [{path.name}]({path.name}); CI runs it.*"
    pictures: dict[str, bytes] = {}
    texts = [str(first), note]
    for part in rest:
        if isinstance(part, str):
            texts.append(part)
            continue
        name = f"{path.stem}-{len(pictures) + 1}.png"
        pictures[name] = part
        texts.append(f"![what the code above draws]({name})")
    return "\n\n".join(texts) + "\n", pictures


def _parts(cell: dict[str, Any]) -> Iterator[str | bytes]:
    """Of a cell: Markdown, and pictures as PNG."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield base64.b64decode("".join(data["image/png"]))
            continue
        text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
        if text:
            yield f"```text\n{text}\n```"
