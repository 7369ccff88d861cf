"""What the documents claim and can be checked: command lines, links, anchors, Python, citations."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_deploy.cli import verbs
from tests.advice import commands

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]

Line = tuple[str, str]
"""(document, command line)"""


def command_lines() -> list[Line]:
    """Lines of code blocks, and code in running text, that begin with `stpl-deploy `."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        lines = re.findall(r"^[ $]*(stpl-deploy .+)$", text, re.MULTILINE)
        lines += re.findall(r"`(stpl-deploy [^`\n]+)`", text)
        found += [(document.name, line) for line in lines]
    return found


def problems(line: str) -> list[str]:
    """What of a line the program would not know; values and paths are not looked at."""
    line = re.split(r"\s[|>&]+\s|\s{3,}", line)[0]  # a pipe; a remark set apart
    words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)[1:]
    command: Any = commands()[""]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        word = words.pop(0)
        if word not in command.commands:
            return [] if word.isupper() else [f"no verb {word}"]
        command = command.commands[word]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    options.add("--help")
    asked = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [f"no option {word}" for word in asked if word not in options]


@pytest.mark.parametrize(("document", "line"), command_lines())
def test_a_documented_line_is_understood(document: str, line: str) -> None:
    assert problems(line) == [], f"{document}: {line}"


@pytest.mark.parametrize("verb", verbs.EXAMPLES)
def test_the_examples_of_the_help_are_understood(verb: str) -> None:
    for line in verbs.EXAMPLES[verb]:
        assert problems(f"stpl-deploy {verb} {line}") == []


def test_the_check_sees_mistakes() -> None:
    assert problems("stpl-deploy exprot a") == ["no verb exprot"]
    assert problems("stpl-deploy verify B --engin onnx | head") == ["no option --engin"]
    assert problems("stpl-deploy data inspect X [--nothing]   # a remark") == [
        "no option --nothing"
    ]
    assert problems("stpl-deploy verify B --engine onnx --json") == []


def test_the_readme_shows_every_verb() -> None:
    shown = {line.split()[1] for document, line in command_lines() if document == "README.md"}
    assert set(verbs.VERBS) <= shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), target


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lost_anchors(document: Path, text: str) -> list[str]:
    """Links of `text` to anchors that the linked document, or this one, does not have."""
    lost = []
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        linked = document.parent / target if target else document
        if not linked.is_file() or anchor not in anchors(linked):
            lost.append(f"{target}#{anchor}")
    return lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_anchors_exist(document: Path) -> None:
    assert lost_anchors(document, document.read_text()) == []


def test_the_check_of_anchors_sees_mistakes() -> None:
    here = ROOT / "docs" / "design.md"
    good = "[a](streaming.md#missing-frames---on-gap) [b](#the-tower) [c](data.md) [d](https://x#y)"
    assert lost_anchors(here, good) == []
    assert lost_anchors(here, "[a](streaming.md#none)") == ["streaming.md#none"]
    assert lost_anchors(here, "[a](#none) [b](none.md#the-tower)") == ["#none", "none.md#the-tower"]


def test_cited_entries_of_the_bibliography_exist() -> None:
    text = (ROOT / "docs" / "bibliography.md").read_text()
    entries = set(re.findall(r"^(?:## |\| |- \*\*)(\d(?:\.\d)?)[ *]", text, re.MULTILINE))
    cited = {
        (source.name, number)
        for folder in ("core", "train", "export", "benchmarks", "tests")
        for source in (ROOT / folder).rglob("*.py")
        for number in re.findall(
            r"bibliography\.md,? (?:section )?(\d(?:\.\d)?)", source.read_text()
        )
    }
    assert len(cited) > 20
    assert [(name, number) for name, number in sorted(cited) if number not in entries] == []


Block = tuple[str, str]
"""(document, Python of a fenced block)"""

FRAGMENT = "# Fragment:"
"""Starts a block that cannot run on its own, with the reason; its imports must still work."""


def python_blocks() -> list[Block]:
    """Of all documents but those whose blocks run with their data: the README and the tutorials."""
    return [
        (document.name, block)
        for document in DOCUMENTS
        if document.name != "README.md" and document.parent.name != "tutorials"
        for block in re.findall(
            r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE
        )
    ]


def run_block(block: str) -> None:
    """Run a block, or the imports of a fragment; skip where an optional library is missing."""
    code = ast.parse(block)
    if block.startswith(FRAGMENT):
        code.body = [node for node in code.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[str, Any] = {"frames": np.zeros((2, 4, 1, 16, 16), np.float32)}
    try:
        exec(compile(code, "block", "exec"), names)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("stpl_"):
            raise
        pytest.skip(f"needs {error.name}")
    finally:
        if "session" in names:
            names["session"].close()


@pytest.mark.parametrize(("document", "block"), python_blocks())
def test_python_blocks_run(
    document: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ROOT / "tests" / "data" / "convlstm-tiny.bundle"
    (tmp_path / "digits.bundle").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    run_block(block)


@pytest.mark.parametrize(
    "block",
    [
        "from stpl_core.reader import pixel_grid",
        "# Fragment: why.\nfrom stpl_core.reader import pixel_grid\n",
        "import stpl_core.nothing",
        "undefined",
    ],
)
def test_a_broken_block_fails(block: str) -> None:
    with pytest.raises((ImportError, NameError)):
        run_block(block)


def test_a_fragment_does_not_run() -> None:
    run_block("# Fragment: `paths` are yours.\nimport json\njson.loads(paths)")


@pytest.mark.usefixtures("exported_once")
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File to NetCDF: on the radar of ../shared/data, cut to a part; on made rain without it."""
    xr = pytest.importorskip("xarray")
    for library in ("netCDF4", "onnx", "torch"):
        pytest.importorskip(library)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(block.splitlines()) == 5
    size = (192, 192)  # for which other tests export too
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rain(size).to_netcdf(tmp_path / "radar.nc")
    block = block.replace('"radar/"', '"radar.nc"').replace("(1226, 760)", str(size))
    exec(block, {})
    with (
        xr.open_dataset(tmp_path / "rain.nc") as made,
        xr.open_dataset(tmp_path / "radar.nc") as given,
    ):
        steps = np.arange(1, 13) * np.timedelta64(300, "s")
        assert (made["time"].values == given["time"].values[-1] + steps).all()
        assert made["nowcast"].attrs["units"] == "mm h-1"
        assert made["nowcast"].shape == (12, *size)
        first, newest = made["nowcast"].values[0], given["rain"].values[-1]
        seen = np.isfinite(first)
        assert seen.mean() > 0.5
        assert np.corrcoef(first[seen], newest[seen])[0, 1] > 0.5  # a flipped one has none


def rain(size: tuple[int, int]) -> Any:
    """Six frames of rain, five minutes apart, mm/h: real ones where they are."""
    import xarray as xr

    import stpl_deploy as stpl

    height, width = size
    folder = ROOT.parent / "shared" / "data" / "radar" / "knmi_hdf5" / "201008"
    if folder.is_dir():
        found = stpl.open_frames(folder).isel(time=slice(0, 6))
        whole = found["frames"].values[:, 0]  # (T, H, W)
        corners = [(top, left) for top in range(200, 500, 50) for left in range(200, 500, 50)]
        top, left = max(corners, key=lambda at: np.nansum(
            whole[-1, at[0] : at[0] + height, at[1] : at[1] + width]))  # fmt: skip
        part = whole[:, top : top + height, left : left + width]
        time = found["time"].values
    else:
        rows, columns = np.mgrid[:height, :width]
        part = np.stack(
            [8 * np.exp(-((rows - 60) ** 2 + (columns - 50 - 2 * n) ** 2) / 400) for n in range(6)]
        )
        time = np.datetime64("2026-01-01T00:00", "ns") + np.arange(6) * np.timedelta64(300, "s")
    return xr.Dataset(
        {"rain": (("time", "y", "x"), part, {"units": "mm h-1"})},
        {"time": time, "y": 1000.0 * np.arange(height)[::-1], "x": 1000.0 * np.arange(width)},
    )
