"""One place for an option: a field of a frozen dataclass, whose `Option` says what it is for.

The command line makes its options of such fields, the library takes them by name: neither repeats
a default, a limit or a help text.

    @dataclass(frozen=True)
    class EngineOptions:
        threads: Annotated[int | None, Option("Compute threads.", least=1)] = None

A field that is itself such a dataclass stands for all of its fields.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from stpl_core.errors import UsageError

Options = TypeVar("Options")


@dataclass(frozen=True)
class Option:
    """What a person must know of an option."""

    help: str
    """About 45 columns are there on a terminal of 80."""
    default: str = ""
    """What None stands for, in words."""
    least: float | None = None
    most: float | None = None
    flag: str = ""
    """As it is typed, where that is not the field's name; `--x/--no-x` for both ways."""
    metavar: str = ""
    argument: bool = False
    """Without a flag: its place says what it is."""


@dataclass(frozen=True)
class OptionField:
    """One field, flat."""

    name: str
    kind: Any
    """Its type, without None: `int`, `Path`, `Sequence[str]`, a `Literal` ..."""
    optional: bool
    """Whether None is a value of it."""
    default: Any
    """`dataclasses.MISSING` where it must be given."""
    about: Option

    @property
    def key(self) -> str:
        """Its name as a person writes it, such as `state-file`; of an argument, its metavar."""
        flag = self.about.flag.partition("/")[0] or self.about.metavar * self.about.argument
        return flag.strip("-").lower() or self.name.replace("_", "-")


def option_fields(options: type[Any]) -> tuple[OptionField, ...]:
    """Every option of a dataclass, in order; those of a nested one in its place."""
    return tuple(_walk(options))


def fill(options: type[Options], given: Mapping[str, Any], what: str = "options") -> Options:
    """Make the dataclass of values by name, flat.

    Args:
        options: a dataclass of options.
        given: values; a path may be text, and None stands for the default.
        what: who has these options, for messages.

    Raises:
        UsageError: a name that it does not have, one that is missing, or a value out of its range.
    """
    known = {one.name: one for one in option_fields(options)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"{what} knows no option {name}",
                expected=f"of {', '.join(known)}",
                fix=f"{near[0]}=..." if near else "leave it out",
            )
    values = {name: checked(known[name], value) for name, value in given.items()}
    return _made(options, values, what)


def flat(options: Any) -> dict[str, Any]:
    """The values of a dataclass of options by name, as `fill` takes them."""
    values: dict[str, Any] = {}
    for field, hint in _hints(type(options)):
        value = getattr(options, field.name)
        if is_dataclass(hint):
            values |= flat(value)
        elif get_origin(hint) is Annotated:
            values[field.name] = value
    return values


def _walk(options: type[Any]) -> Iterator[OptionField]:
    for field, hint in _hints(options):
        if is_dataclass(hint):
            yield from _walk(cast("type[Any]", hint))
            continue
        if get_origin(hint) is not Annotated:
            continue  # set by the program, not by a person
        kind, about = get_args(hint)[:2]
        parts = [part for part in _parts(kind) if part is not type(None)]
        yield OptionField(
            field.name, parts[0], len(parts) < len(_parts(kind)), _default(field), about
        )


def _hints(options: type[Any]) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(options, include_extras=True)
    return tuple((field, hints[field.name]) for field in fields(options))


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def checked(one: OptionField, value: Any) -> Any:
    """The value as its field has it: a path of text, a tuple of a list.

    Raises:
        UsageError: it is of another type, or out of its range.
    """
    if value is None:
        return value
    if get_origin(one.kind) is Literal and value not in get_args(one.kind):
        words = get_args(one.kind)
        raise _wrong(one, value, f"one of {', '.join(words)}", repr(words[0]))
    if get_origin(one.kind) is Sequence:
        return (value,) if isinstance(value, str) else tuple(value)
    if one.kind is Path:
        if not isinstance(value, (str, Path)):
            raise _wrong(one, value, "a path", '"PATH"')
        return Path(value)
    if one.kind in (int, float):
        return _number(one, value)
    return value


def _number(one: OptionField, value: Any) -> Any:
    low, high = one.about.least, one.about.most
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    example = f"{1 if low is None else low:g}"
    if isinstance(value, bool) or not isinstance(value, Integral if one.kind is int else Real):
        raise _wrong(one, value, "a number" if one.kind is float else "a whole number", example)
    if not least <= float(value) <= most:
        span = f"{least:g} or more" if high is None else f"{least:g} to {most:g}"
        raise _wrong(one, value, span, example)
    return value


def _wrong(one: OptionField, value: Any, expected: str, example: str) -> UsageError:
    return UsageError(f"{one.name}={value!r}", expected=expected, fix=f"{one.name}={example}")


def _made(options: type[Options], values: Mapping[str, Any], what: str) -> Options:
    made: dict[str, Any] = {}
    for field, hint in _hints(options):
        if is_dataclass(hint):
            made[field.name] = _made(cast("type[Any]", hint), values, what)
        elif values.get(field.name) is not None:
            made[field.name] = values[field.name]
        elif _default(field) is MISSING:
            raise UsageError(
                f"{what} needs {field.name}", expected="a value", fix=f"{field.name}=..."
            )
    return options(**made)
