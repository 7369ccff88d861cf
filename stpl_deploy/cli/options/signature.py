"""From a dataclass of options to the parameters that Typer reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from enum import Enum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from stpl_core.option import OptionField, fill, option_fields
from stpl_deploy.cli.options.settings import (
    PREFIX,
    SettingsOptions,
    as_toml,
    doubtful,
    settings,
    variable,
)

Options = TypeVar("Options")

_CONFIG, _PRINT = option_fields(SettingsOptions)
_NEVER_SET = "_STPL_NO_VARIABLE"
"""An argument of several words asks for a setting only where it has a variable. What ours holds is
read by `settings`: click would split a path at its spaces."""


def verb(function: Callable[[Options], None]) -> Callable[..., None]:
    """A function of one dataclass of options as one of plain parameters, a flag for each.

    Args:
        function: its one parameter is annotated with a dataclass (`stpl_core.option`); its
            docstring is the verb's help.
    """
    (parameter,) = signature(function).parameters
    options: type[Options] = get_type_hints(function)[parameter]
    known = option_fields(options)
    flags = [*map(_parameter, known), _config(known), _parameter(_PRINT)]

    def call(**given: Any) -> None:
        values = {name: _plain(value) for name, value in given.items()}
        values.pop(_CONFIG.name, None)
        show = values.pop(_PRINT.name, False)
        made = fill(options, values)
        if show:
            print(as_toml(known, values), end="")
        else:
            function(made)

    call.__name__, call.__doc__, call.__module__ = (
        function.__name__,
        function.__doc__,
        function.__module__,
    )
    call.__signature__ = Signature(flags)  # type: ignore[attr-defined]
    return call


def _variables_of_all_verbs() -> set[str]:
    from stpl_deploy.cli import verbs

    return {f"{PREFIX}{flag.upper().replace('-', '_')}" for flag in verbs.flags()}


def _config(known: tuple[OptionField, ...]) -> Parameter:
    """`--config`; it is read first, and what it holds becomes the other options' defaults."""

    def read(context: typer.Context, file: Path | None) -> Path | None:
        if context.resilient_parsing:  # the shell completes a word
            return file
        name = file or os.environ.get(variable(_CONFIG)) or None
        words = context.command_path.split()[1:]
        found = settings(known, words, None if name is None else Path(name))
        context.default_map = {**(context.default_map or {}), **found}
        lines = doubtful((*known, _CONFIG, _PRINT), os.environ, _variables_of_all_verbs)
        if lines:
            from stpl_deploy.cli.reports.output import say

            for line in lines:
                say(line)
        return file

    return _parameter(_CONFIG, is_eager=True, callback=read)


def _parameter(one: OptionField, **how: Any) -> Parameter:
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
        one.name,
        Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, _typer(one, how)],
    )


def _choice(one: OptionField) -> Any:
    """An enumeration of the words, which every version of Typer reads."""
    words = get_args(one.kind)
    return Enum(one.name, {word: word for word in words}, type=str)


def _typer(one: OptionField, more: dict[str, Any]) -> Any:
    about = one.about
    how: dict[str, Any] = {"help": about.help, "metavar": about.metavar or None, **more}
    if about.argument:
        return typer.Argument(**how, envvar=_NEVER_SET, show_envvar=False)
    how |= {"min": _limit(one, about.least), "max": _limit(one, about.most)}
    if about.default:
        how["show_default"] = about.default
    return typer.Option(*([about.flag] if about.flag else []), **how)


def _limit(one: OptionField, limit: float | None) -> float | int | None:
    return int(limit) if limit is not None and one.kind is int else limit


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
