"""No regular expression of ours takes the square of a text's length, or worse.

Each pattern is attacked with texts made from its own parts: what leads to a repetition, then the
repeated part thousands of times, then a sign that fits nothing.
"""

from __future__ import annotations

import ast
import importlib
import re
import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the parts of a pattern lie elsewhere", allow_module_level=True)
parser: Any = importlib.import_module("re._parser")  # what re itself reads a pattern with

ROOT = Path(__file__).parents[3]
PACKAGES = ("core", "runtime", "train", "export", "stpl_deploy")
FROM_FILES = ("compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer")
SHORT, LONG = 3_000, 24_000
_MOST_S, _LEAST_S, _MOST_GROWTH = 5.0, 0.03, 24.0
"""Eight times the text may take 24 times as long; the square would take 64 times."""
_SIGNS = {
    "CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a", "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_NOT_SPACE": "a", "CATEGORY_NOT_WORD": "-",
}  # fmt: skip


def patterns() -> dict[str, tuple[str, int]]:
    """Every pattern that stands in our code as a text: where -> (text, flags)."""
    found = {}
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            holder = node.func.value
            if not (isinstance(holder, ast.Name) and holder.id == "re" and node.args):
                continue
            if node.func.attr in FROM_FILES and isinstance(node.args[0], ast.Constant):
                text = node.args[0].value
                flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(node) else 0
                if isinstance(text, bytes):
                    text = text.decode("latin-1")
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text, flags
    return found


def one_match(parts: Any) -> str:
    """A text that fits."""
    return "".join(one_sign(op, value) for op, value in parts)


def one_sign(op: Any, value: Any) -> str:
    name = str(op)
    if name == "LITERAL":
        return chr(value)
    if name == "NOT_LITERAL":
        return "a" if value != ord("a") else "b"
    if name == "ANY":
        return "a"
    if name == "IN":
        return _of_set(value)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, _, body = value
        return one_match(body) * max(least, 1)
    if name == "SUBPATTERN":
        return one_match(value[3])
    if name == "ATOMIC_GROUP":
        return one_match(value)
    if name == "BRANCH":
        return one_match(value[1][0])
    return ""


def _of_set(value: Any) -> str:
    if str(value[0][0]) == "NEGATE":
        return next(c for c in "a1 -~\x02" if re.match(_written(value), c))
    op, inside = value[0]
    if str(op) == "RANGE":
        return chr(inside[0])
    return _SIGNS[str(inside)] if str(op) == "CATEGORY" else chr(inside)


def _written(value: Any) -> str:
    short = {"CATEGORY_DIGIT": r"\d", "CATEGORY_SPACE": r"\s", "CATEGORY_WORD": r"\w",
             "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_NOT_SPACE": r"\S"}  # fmt: skip
    signs = []
    for op, inside in value[1:]:
        if str(op) == "LITERAL":
            signs.append(re.escape(chr(inside)))
        elif str(op) == "RANGE":
            signs.append(f"{re.escape(chr(inside[0]))}-{re.escape(chr(inside[1]))}")
        else:
            signs.append(short[str(inside)])
    return f"[^{''.join(signs)}]"


def repetitions(parts: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """(what leads there, what is repeated), for each repetition without a small end."""
    for op, value in parts:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, body = value
            if int(most) > 100:
                for way in _ways(body):
                    yield before, way
            yield from repetitions(body, before)
        elif name == "SUBPATTERN":
            yield from repetitions(value[3], before)
        elif name == "BRANCH":
            for branch in value[1]:
                yield from repetitions(branch, before)
        before += one_sign(op, value)


def _ways(body: Any) -> list[str]:
    """Texts that one turn may take: of every branch, and of what stands behind optional parts."""
    ways = [one_match(body)]
    for op, value in body:
        if str(op) == "BRANCH":
            ways += [one_match(branch) for branch in value[1]]
        elif str(op) == "SUBPATTERN":
            ways += _ways(value[3])
        elif str(op) == "IN" and str(value[0][0]) != "NEGATE":
            ways += [_of_set([one]) for one in value]
    return [way for way in dict.fromkeys(ways) if way]


def attacks(text: str, flags: int) -> Iterator[tuple[str, str]]:
    """(start, repeated part)."""
    found = list(dict.fromkeys(repetitions(parser.parse(text, flags))))
    for before, body in found:
        yield before, body
        yield "", body
    for (before, one), (_, other) in pairwise(found):
        if one != other:
            yield before, one + other


def seconds(pattern: re.Pattern[str], text: str) -> float:
    """Of a search through all of it; no more than the limit."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, _MOST_S)
    start = time.process_time()
    try:
        pattern.sub("", text)
        pattern.fullmatch(text)
    except TimeoutError:
        return _MOST_S
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return time.process_time() - start


def slow_attack(text: str, flags: int = 0) -> str:
    """What makes it slow, if anything does."""
    pattern = re.compile(text, flags)
    for before, body in attacks(text, flags):
        for end in ("\x01", ""):
            long = seconds(pattern, before + body * (LONG // len(body)) + end)
            if long < _LEAST_S:
                continue
            short = seconds(pattern, before + body * (SHORT // len(body)) + end)
            if long > _MOST_GROWTH * short or short > 1.0:
                return f"{before!r} + {body!r} repeated: {short:.3f} s, then {long:.3f} s"
    return ""


@pytest.mark.skipif(sys.platform == "win32", reason="a clock of the process")
@pytest.mark.parametrize("text", [r"\s*x$", r"(a\w*)*b", r"(\d+)$"])
def test_slow_patterns_are_found(text: str) -> None:
    """Else the test below proves nothing."""
    assert slow_attack(text)


@pytest.mark.soak
@pytest.mark.parametrize("where", patterns())
def test_no_pattern_is_slow(where: str) -> None:
    assert not slow_attack(*patterns()[where])
