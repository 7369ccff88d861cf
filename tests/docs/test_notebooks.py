"""The notebooks hold nothing of the machine that ran them; `make notebooks` runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.from_code import notebooks, places

MOST_BYTES = 250_000


@pytest.mark.parametrize("path", notebooks.paths(), ids=lambda path: path.name)
def test_nothing_of_a_machine_is_in_a_notebook(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    for cell in json.loads(path.read_text())["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] != "code":
            continue
        assert cell["execution_count"] is None
        for output in cell["outputs"]:
            assert set(output["data"]) == {"image/png"}, "pictures alone: no times, no paths"
            assert output["metadata"] == {}


def test_there_are_two() -> None:
    assert [path.name for path in notebooks.paths()] == ["engines.ipynb", "radar.ipynb"]


def test_a_notebook_is_a_page(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": ["x = 1\n", "x"],
            "outputs": [
                {"output_type": "execute_result", "data": {"text/plain": ["1"]}},
                {"output_type": "display_data", "data": {"image/png": "AAAA"}},
                {"output_type": "stream", "text": ["said\n"]},
            ],
        },
    ]
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, pictures = notebooks.page(path)
    assert text.startswith("# Title\ntext\n\n*This page is the notebook [one.ipynb](one.ipynb)")
    assert "```python\nx = 1\nx\n```\n\n```text\n1\n```\n\n![" in text
    assert text.endswith("(one-1.png)\n\n```text\nsaid\n```\n")
    assert pictures == {"one-1.png": b"\x00\x00\x00"}


def test_links_to_a_notebook_lead_to_its_page() -> None:
    there = places.on_the_site("index.md", "[a](notebooks/radar.ipynb)")
    assert there == "[a](notebooks/radar.md)"
    own = places.on_the_site("notebooks/radar.md", "[a](radar.ipynb) [b](../evaluate.md)")
    assert own == "[a](radar.ipynb) [b](../evaluate.md)"
