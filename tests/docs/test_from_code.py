"""Pages that are made from the code: nothing that a user may type or meet is missing from them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from docs.from_code import errors, http_api, llms, manifest, metrics, places, recipe_keys, verbs
from docs.from_code.markdown import code, plain, table
from stpl_core import errors as error_tree
from stpl_deploy.cli import app
from stpl_deploy.cli import verbs as program

ROOT = Path(__file__).parents[2]


def test_the_verbs_have_all_that_the_parser_takes() -> None:
    text = verbs.page()
    program.register(app)
    group: Any = typer.main.get_command(app)  # typed as one command; an app of verbs is a group
    for name, command in group.commands.items():
        section = re.split(r"^## ", text.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]
        for below in getattr(command, "commands", {"": command}).values():
            for one in below.params:
                for flag in one.opts if one.param_type_name == "option" else ():
                    assert f"{flag}" in section, f"{name} {flag}"
        for line in program.EXAMPLES.get(name, ()):
            assert f"    stpl-deploy {name} {line}\n" in section


def test_a_default_stands_in_its_column() -> None:
    assert "| `--port <int range>` | Port of the page; 0 takes a free one. | 8765; " in verbs.page()


def test_every_error_has_its_exit_code() -> None:
    text = errors.page()
    for name, one in inspect.getmembers(error_tree, inspect.isclass):
        if issubclass(one, error_tree.StplError):
            assert re.search(rf"errors\.{name}` \| `\w+` \| {one.exit_code} \| \w", text), name


def test_every_key_of_a_manifest_is_there() -> None:
    text = manifest.page()
    written = json.loads((ROOT / "tests/data/convlstm-tiny.bundle/manifest.json").read_text())
    assert [key for key in written if f"`{key}`" not in text] == []
    assert set(written) <= set(json.loads(manifest.schema())["properties"])
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads(manifest.schema()))


def test_every_metric_of_the_source_is_there() -> None:
    source = (ROOT / "runtime/stpl_runtime/page/prometheus.py").read_text()
    listed = {name for name, *_ in metrics.families()}
    for name in re.findall(r'"(stpl_\w+)"', source):
        assert any(one.startswith(name) for one in listed), name
    assert "stpl_nowcasts_total" in listed
    assert "| `stpl_frames_total` | counter | `stream`, `fate` |" in metrics.page()


def test_every_address_is_there() -> None:
    source = (ROOT / "runtime/stpl_runtime/page/app.py").read_text()
    routes = re.findall(r'Route\("(/[\w/]*)', source)
    assert len(routes) > 4
    text = http_api.page()
    assert [route for route in routes if f"| `{route}" not in text] == []


def test_every_recipe_key_is_there() -> None:
    torch = pytest.importorskip("torch")
    assert torch
    from stpl_train.recipe import TrainingSection

    text = recipe_keys.page()
    for name in set(TrainingSection.model_fields) - {"leads"}:
        assert f"| `training.{name}` |" in text
    assert '## [model] name = "predrnn"' in text


@pytest.mark.parametrize(
    ("page", "link", "on_the_site", "copied"),
    [
        ("data.md", "streaming.md#the-page", "streaming.md#the-page", []),
        ("how/a.md", "../data.md", "../data.md", []),
        ("how/a.md", "../pictures/a.png", "../pictures/a.png", []),
        ("data.md", "../Makefile", "source/Makefile", ["Makefile"]),
        ("how/a.md", "../../Makefile", "../source/Makefile", ["Makefile"]),
        ("data.md", "../CONTRIBUTING.md#house-rules", "contributing.md#house-rules", []),
        ("contributing.md", "docs/design.md#the-tower", "design.md#the-tower", []),
        ("contributing.md", "examples/xarray_tour.py", "source/examples/xarray_tour.py",
         ["examples/xarray_tour.py"]),
        ("data.md", "https://example.org/a#b", "https://example.org/a#b", []),
        ("data.md", "#here", "#here", []),
    ],
)  # fmt: skip
def test_links_lead_to_the_site(page: str, link: str, on_the_site: str, copied: list[str]) -> None:
    text = f"see [it]({link}) and `code`"
    assert places.on_the_site(page, text) == f"see [it]({on_the_site}) and `code`"
    assert list(places.outside(page, text)) == copied


def test_the_list_for_programs() -> None:
    texts = {
        "a.md": "# A\n\nThe [first](b.md) page. More.\n",
        "b.md": "# Bees\n\n    code\n\n| a |\n\n![x](y)\n\nNo.\n",
    }
    sections = llms.sections([{"One": ["b.md", {"An A": "a.md"}]}], texts)
    made = llms.listing("name", "about", sections, texts)
    assert made.splitlines()[:3] == ["# name", "", "> about"]
    assert "## One" in made
    assert "- [Bees](b.md): x" in made
    assert "- [An A](a.md): The first page." in made


def test_cells_hold_any_text() -> None:
    assert table(["a"], [["b | c\nd"]]) == "| a |\n| --- |\n| b \\| c d |\n"
    assert plain("`<a>` <b> x[1]*") == "`<a>` \\<b> x\\[1\\]\\*"
    assert code("") == ""
    assert code("a`b") == "``a`b``"
