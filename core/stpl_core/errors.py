"""Every error a user can cause, in one tree; each knows its exit code.

    StplError
    ├── UsageError (2)           wrong arguments, or input that cannot be used
    │   ├── RecipeError          a recipe or a --set that does not hold
    │   ├── FrameError           frames of the wrong shape, dtype or range, or unreadable
    │   ├── RunError             a run directory that is missing, broken or in the way
    │   ├── DivergedError        training whose loss or weights are no longer finite
    │   ├── BundleError          a bundle that is missing, not one, or of a newer schema
    │   └── CheckpointError      another project's checkpoint that does not fit
    ├── BreachError (3)          a promise about numbers or bytes that does not hold
    │   ├── AccuracyError        an engine leaves its tolerance
    │   ├── SpeedError           a lower precision that gains no speed
    │   └── ChecksumError        a file's bytes are not those of the manifest
    ├── EnvironmentFault (4)     this machine lacks something, or it broke
    │   ├── MissingExtraError    a library that an extra would install
    │   ├── SequenceLostError    a served sequence that cannot go on
    │   └── SinkError            a result could not be written
    └── SourceLostError (5)      a live source that went away for good

Exit 0 is done; 1 is a bug in stpl-deploy and shows a traceback. A message states what was found,
what was expected and what to type next.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypedDict

if TYPE_CHECKING:
    import pydantic
    from pydantic_core import ErrorDetails


class StplError(Exception):
    """Base of all errors that are reported to the user in one line, without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str = "", fix: str = "") -> None:
        """State what was `found`, what was `expected`, and what to do or type (`fix`)."""
        self.found, self.expected, self.fix = found, expected, fix
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(f"try: {fix}")
        super().__init__("; ".join(parts))


class UsageError(StplError):
    """Wrong arguments, or input that cannot be used."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or a `--set` that does not hold."""


class FrameError(UsageError):
    """Frames of the wrong shape, dtype or range, or that cannot be read."""


class RunError(UsageError):
    """A run directory that is missing, broken or in the way."""


class DivergedError(UsageError):
    """Training whose loss or weights are no longer finite."""


class BundleError(UsageError):
    """A bundle that is missing, not a bundle, or of a newer schema."""


class CheckpointError(UsageError):
    """A checkpoint that belongs to another project than named, or does not fit."""


class BreachError(StplError):
    """A promise about numbers or bytes that does not hold."""

    exit_code = 3


class AccuracyError(BreachError):
    """An engine's output leaves its tolerance."""


class SpeedError(BreachError):
    """A lower precision that costs accuracy and gains no speed."""


class ChecksumError(BreachError):
    """A file's bytes are not those that the manifest promises."""


class EnvironmentFault(StplError):
    """This machine lacks something, or something on it broke."""

    exit_code = 4


NEWER_PYTHON = ("train", "export")
"""Extras for Python 3.11 or later; the others install on 3.10 too."""


class MissingExtraError(EnvironmentFault):
    """A library is missing that one of the extras would install."""

    def __init__(self, library: str, extra: str) -> None:
        """Name the `library` and the `extra` of stpl-deploy that brings it."""
        self.library, self.extra = library, extra
        if extra in NEWER_PYTHON and sys.version_info < (3, 11):
            super().__init__(
                f"{library} is not installed, and this is Python 3.{sys.version_info[1]}",
                expected=f"Python 3.11 or later with the extra [{extra}]",
                fix=f"python3.11 -m venv new, then new/bin/{_install_command_elsewhere(extra)}",
            )
            return
        super().__init__(
            f"{library} is not installed",
            expected=f"the extra [{extra}]",
            fix=install_command(extra),
        )


def install_command(extra: str) -> str:
    """What adds an extra here: to the installed package, else to the checkout that is run."""
    from importlib import metadata
    from pathlib import Path

    checkout = Path(__file__).parents[2]
    try:
        metadata.distribution("stpl-deploy")
    except metadata.PackageNotFoundError:
        if (checkout / "pyproject.toml").is_file():
            return f"pip install -e '{checkout}[{extra}]'"
    return f"pip install 'stpl-deploy[{extra}]'"


def _install_command_elsewhere(extra: str) -> str:
    """The same for another environment: from where this one was installed, if that is known."""
    from importlib import metadata

    try:
        origin = metadata.distribution("stpl-deploy").read_text("direct_url.json")  # PEP 610
    except metadata.PackageNotFoundError:
        origin = None
    where = json.loads(origin).get("url", "") if origin else ""
    if where.startswith("file://"):  # a folder or a wheel
        return f"pip install 'stpl-deploy[{extra}] @ {where}'"
    return install_command(extra)


class SequenceLostError(EnvironmentFault):
    """A served sequence that cannot go on: its state is gone, or may have read a frame twice."""


class SinkError(EnvironmentFault):
    """A result could not be written."""


class SourceLostError(StplError):
    """A live source went away for good."""

    exit_code = 5


_FIX_ONE = "correct one of them, for example with --set section.key=value"


class Problem(TypedDict):
    """The keyword arguments of an error about one recipe or manifest key."""

    found: str
    expected: str
    fix: str


def first_problem(
    error: pydantic.ValidationError, where: str, known: Sequence[str], tags: Sequence[str] = ()
) -> Problem:
    """Turn pydantic's first complaint into found, expected and fix.

    Args:
        error: what pydantic raised.
        where: the section's dotted name, such as `training`.
        known: the keys that the section knows, to suggest the nearest.
        tags: parts of pydantic's path that the user never wrote, such as a union's choice.
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if part not in tags)
    full = f"{where}.{key}" if where and key else where or key
    if first["type"] == "extra_forbidden":
        section, _, word = full.rpartition(".")
        near = difflib.get_close_matches(word, known, n=1)
        return Problem(
            found=f"unknown key {full}",
            expected=f"one of {', '.join(known)}",
            fix=f"write {f'{section}.{near[0]}'.lstrip('.')}" if near else f"remove {full}",
        )
    if _is_list_fault(first):
        return _list_problem(first, error, full)
    if first["type"] == "missing":
        return Problem(found=f"{full} is missing", expected="a value", fix=f"set {full}")
    reason = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # a rule between several keys
        return Problem(
            found=f"[{full}] {reason}", expected="keys that fit one another", fix=_FIX_ONE
        )
    expected, example = _plain(reason)
    if isinstance(first["loc"][-1], int):  # one of a list, which --set gives as a whole
        whole, example = full.rpartition(".")[0], f"[{example}, ...]"
    else:
        whole = full
    return Problem(
        found=f"{full} = {first['input']!r}",
        expected=expected,
        fix=f"--set {whole}={example}",
    )


_FRAME = "[channels, height, width]", "'[1, 64, 64]'"


def _is_list_fault(first: ErrorDetails) -> bool:
    """Whether a list has too few or too many entries, or is a frame with one that is wrong."""
    inside = bool(first["loc"]) and isinstance(first["loc"][-1], int)
    frame = inside and len(first["loc"]) > 1 and first["loc"][-2] == "frame"
    return first["type"] == "too_long" or frame or (inside and first["type"] == "missing")


def _list_problem(first: ErrorDetails, error: pydantic.ValidationError, full: str) -> Problem:
    """A list as a whole, which is how --set gives it."""
    inside = isinstance(first["loc"][-1], int)
    key = full.rpartition(".")[0] if inside else full
    given = first["input"]
    found = (
        f"{key} = {list(given)!r}" if isinstance(given, (list, tuple)) else f"{full} = {given!r}"
    )
    if key.rpartition(".")[2] == "frame":
        return Problem(found=found, expected=_FRAME[0], fix=f"--set {key}={_FRAME[1]}")
    prefix = first["loc"][:-1]
    if first["type"] == "too_long":
        count = int(first["ctx"]["max_length"])
    else:
        missing = [one["loc"] for one in error.errors() if one["loc"][:-1] == prefix]
        count = 1 + max(int(loc[-1]) for loc in missing)
    example = ([*given] + [*given][-1:] * count)[:count]
    return Problem(
        found=found, expected=f"{count} entries", fix=f"--set {key}='{json.dumps(example)}'"
    )


_KINDS = {
    "integer": ("an integer", "10"),
    "number": ("a number", "0.5"),
    "boolean": ("true or false", "true"),
    "string": ("a string", "VALUE"),
    "list": ("a list", "[VALUE, ...]"),
    "tuple": ("a list", "[VALUE, ...]"),
}
"""pydantic's word for the expected type -> ours, and an example in TOML."""


def _plain(reason: str) -> tuple[str, str]:
    """Strip pydantic's prose to what is expected, with an example of it."""
    text = reason.removeprefix("Input should be ")
    kind = text.removeprefix("a valid ").partition(",")[0]
    if text.startswith("a valid ") and kind in _KINDS:
        return _KINDS[kind]
    choice = text.split("'")
    return text[:1].lower() + text[1:], choice[1] if text.startswith("'") else "VALUE"
