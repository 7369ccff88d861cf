"""From a dataclass of options to the parameters that Typer reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING
from enum import Enum
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from stpl_core.option import OptionField, fill, option_fields

Options = TypeVar("Options")


def verb(function: Callable[[Options], None]) -> Callable[..., None]:
    """A function of one dataclass of options as one of plain parameters, a flag for each.

    Args:
        function: its one parameter is annotated with a dataclass (`stpl_core.option`); its
            docstring is the verb's help.
    """
    (parameter,) = signature(function).parameters
    options: type[Options] = get_type_hints(function)[parameter]
    flags = [_parameter(one) for one in option_fields(options)]

    def call(**given: Any) -> None:
        function(fill(options, {name: _plain(value) for name, value in given.items()}))

    call.__name__, call.__doc__, call.__module__ = (
        function.__name__,
        function.__doc__,
        function.__module__,
    )
    call.__signature__ = Signature(flags)  # type: ignore[attr-defined]
    return call


def _parameter(one: OptionField) -> Parameter:
    kind = one.kind
    default = Parameter.empty if one.default is MISSING else one.default
    if get_origin(kind) is Sequence:
        kind, default = list[get_args(kind)[0]], None if default == () else default  # type: ignore[misc]
    elif get_origin(kind) is Literal:
        kind = _choice(one)
        default = default if default in (None, Parameter.empty) else kind(default)
    if default is None:
        kind = kind | None
    return Parameter(
        one.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, _typer(one)]
    )


def _choice(one: OptionField) -> Any:
    """An enumeration of the words, which every version of Typer reads."""
    words = get_args(one.kind)
    return Enum(one.name, {word: word for word in words}, type=str)


def _typer(one: OptionField) -> Any:
    about = one.about
    how: dict[str, Any] = {"help": about.help, "metavar": about.metavar or None}
    if about.argument:
        return typer.Argument(**how)
    how |= {"min": _limit(one, about.least), "max": _limit(one, about.most)}
    if about.default:
        how["show_default"] = about.default
    return typer.Option(*([about.flag] if about.flag else []), **how)


def _limit(one: OptionField, limit: float | None) -> float | int | None:
    return int(limit) if limit is not None and one.kind is int else limit


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
