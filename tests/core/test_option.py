"""Options as fields of dataclasses: flat by name, in their order, checked, nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from stpl_core.errors import UsageError
from stpl_core.option import Option, fill, option_fields


@dataclass(frozen=True)
class Inner:
    threads: Annotated[int | None, Option("Threads.", least=1)] = None
    share: Annotated[float, Option("Share.", least=0.0, most=1.0)] = 0.5


@dataclass(frozen=True)
class Outer:
    path: Annotated[Path, Option("Where.", argument=True)]
    words: Annotated[Sequence[str], Option("Words.", flag="--word")] = ()
    inner: Inner = Inner()
    mode: Annotated[Literal["fast", "slow"], Option("How.")] = "fast"
    set_by_program: int = 7


def test_the_fields_are_flat_and_in_order() -> None:
    found = option_fields(Outer)
    assert [one.name for one in found] == ["path", "words", "threads", "share", "mode"]
    assert [one.default for one in found] == [MISSING, (), None, 0.5, "fast"]
    assert [one.optional for one in found] == [False, False, True, False, False]
    assert found[2].kind is int
    assert found[1].about.flag == "--word"


def test_values_find_their_place() -> None:
    made = fill(Outer, {"path": "a/b", "threads": 3, "words": ["x", "y"], "share": None})
    assert made == Outer(Path("a/b"), ("x", "y"), Inner(3, 0.5))
    assert fill(Outer, {"path": "a", "words": "one"}).words == ("one",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs path"),
        ({"path": "a", "thread": 1}, "knows no option thread; expected of path, words, threads"),
        ({"path": "a", "threads": 0}, "threads=0; expected 1 or more; try: threads=1"),
        ({"path": "a", "share": 1.5}, "share=1.5; expected 0 to 1"),
        ({"path": "a", "mode": "quick"}, "mode='quick'; expected one of fast, slow"),
        ({"path": "a", "threads": "two"}, "threads='two'; expected a whole number"),
        ({"path": 3}, "path=3; expected a path"),
    ],
)
def test_what_does_not_hold_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=r"^demo |=") as caught:
        fill(Outer, given, "demo")
    assert words in str(caught.value)
