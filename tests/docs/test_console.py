"""What the pages show of a terminal is typed in order, and prints what they say it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.shown import Code, Shown, missing, run_code, run_shown, shown_on, typed_instead
from tests.docs.tutorial_data import GIVEN

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a machine that others share
@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("page", GIVEN)
def test_a_page_prints_what_it_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = GIVEN[page]
    for library in ("fastapi", "netCDF4", "onnx", "torch", *given.libraries):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    for name, value in {"STPL_PORT": "0", "COLUMNS": "200", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    if given.settings:
        monkeypatch.setenv("STPL_SET", given.settings)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    text = (ROOT / "docs" / page).read_text()
    steps = shown_on(text)
    assert len(steps) > 2
    with given.prepared(text) as instead:
        for step in steps:
            if isinstance(step, Code):
                run_code(step)
            else:
                run_shown(typed_instead(step, instead))
    for made in given.makes:
        assert list(tmp_path.glob(made)), made


def test_no_console_block_is_left_out() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        if any(isinstance(step, Shown) for step in shown_on(path.read_text())):
            assert path.relative_to(ROOT / "docs").as_posix() in GIVEN


def test_every_tutorial_is_typed() -> None:
    pages = {path.name for path in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert {f"tutorials/{name}" for name in pages} | {"start.md"} == set(GIVEN)


@pytest.mark.parametrize(
    ("printed", "got", "lacks"),
    [
        (["a", "b"], ["a", "b", "c"], None),
        (["a", "b"], ["a", "c", "b"], "b"),
        (["a", "...", "b"], ["a", "c", "b"], None),
        (["a", "...", "b"], ["b", "a"], "a"),
        (["...", "b"], ["a"], "b"),
        (["page: ...", "..."], ["page: http://x/"], None),
        (["1...9 (x)"], ["12349 (x)"], None),
        (["1...9"], ["12340"], "1...9"),
        ([], ["a"], None),
    ],
)  # fmt: skip
def test_the_check_sees_what_is_missing(
    printed: list[str], got: list[str], lacks: str | None
) -> None:
    assert missing(tuple(printed), got) == lacks


def test_blocks_are_found() -> None:
    console = "```console\n$ one \\\n    -x\nout\n...\n$ two\n```\n"
    text = f"```python\nx = 1\n```\na\n{console}b\n```text\n$ no\n```\n"
    assert shown_on(text) == [
        Code("x = 1\n"), Shown("one -x", ("out", "...")), Shown("two", ())
    ]  # fmt: skip
