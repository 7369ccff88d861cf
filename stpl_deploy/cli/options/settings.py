"""Settings from a file (`--config`) and from the environment, beneath the command line.

The file is TOML; its keys are the options' names. A key that stands in no table is for whatever
verb reads the file, a key in `[serve]` or `[data.inspect]` for that one alone. The variable of
`--state-file` is STPL_STATE_FILE.
"""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, get_origin

from stpl_core.errors import UsageError
from stpl_core.option import Option, OptionField, checked

PREFIX = "STPL_"
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_NEAR = 0.8


@dataclass(frozen=True)
class SettingsOptions:
    """Where settings come from; every verb has these."""

    config: Annotated[
        Path | None,
        Option(
            "TOML file of options, such as port = 80. An option is taken from the command line, "
            "else from STPL_OPTION (STPL_PORT=80), else from here.",
            default="$STPL_CONFIG",
            metavar="FILE",
        ),
    ] = None
    print_config: Annotated[
        bool,
        Option("Print the settings as such a file, secrets masked.", flag="--print-config"),
    ] = False


def variable(one: OptionField) -> str:
    """The variable of the environment that holds an option."""
    return PREFIX + one.key.upper().replace("-", "_")


def settings(
    options: Sequence[OptionField],
    verb: Sequence[str],
    file: Path | None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """What the file and the environment hold, by the field's name; the environment comes first.

    Args:
        options: of the verb.
        verb: its words, such as `data`, `inspect`.
        file: None where there is none.
        environment: variables.

    Raises:
        UsageError: the file cannot be read, a key that the verb does not have, or a wrong value.
    """
    found = {} if file is None else _of_file(options, verb, file)
    for one in options:
        text = environment.get(variable(one), "")
        if text:
            found[one.name] = _of_text(one, text)
    return found


def doubtful(
    options: Sequence[OptionField],
    environment: Mapping[str, str],
    elsewhere: Callable[[], Collection[str]] = tuple,
) -> list[str]:
    """A line for each variable whose name is nearly that of an option that is not set.

    Args:
        options: of the verb.
        environment: variables.
        elsewhere: gives the variables of all verbs, which may be set for them; called only where
            a name is doubtful, since all verbs are read for it.
    """
    known = {variable(one) for one in options}
    found = {}
    for name in sorted(environment):
        near = difflib.get_close_matches(name, known - environment.keys(), n=1, cutoff=_NEAR)
        if name.startswith(PREFIX) and name not in known and near:
            found[name] = near[0]
    others = elsewhere() if found else ()
    return [
        f"{name} in the environment is no option; {near} would be"
        for name, near in found.items()
        if name not in others
    ]


def as_toml(options: Sequence[OptionField], values: Mapping[str, Any]) -> str:
    """Values by the field's name as a file that `settings` reads; those that are None are left out.

    Passwords and keys in addresses are masked.
    """
    from stpl_runtime.links.reconnect import without_credentials

    lines = [
        f"{one.key} = {toml_value(values[one.name], without_credentials)}\n"
        for one in options
        if values.get(one.name) is not None
    ]
    if any("***" in line for line in lines):
        lines.insert(0, "# *** stands for a secret.\n")
    return "".join(lines)


def _of_file(options: Sequence[OptionField], verb: Sequence[str], file: Path) -> dict[str, Any]:
    document = _read(file)
    found: dict[str, Any] = {}
    where = ""
    for word in (*verb, ""):
        keys = {key: value for key, value in document.items() if not isinstance(value, dict)}
        found |= _known(options, keys, f"{file}: ", where)
        tables = {key: value for key, value in document.items() if isinstance(value, dict)}
        _check_tables(tables, where, file, options)
        document, where = tables.get(word, {}), f"{where}{word}."
    return found


def _read(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}",
            expected="a TOML file of options",
            fix="check the path",
        ) from error
    except ValueError as error:  # of TOML and of UTF-8
        raise UsageError(
            f"{file} is not TOML: {error}",
            expected='lines such as port = 8765 or sink = ["nc:out"]',
            fix="compare it with what --print-config prints",
        ) from error


def _known(
    options: Sequence[OptionField], keys: Mapping[str, Any], before: str, where: str
) -> dict[str, Any]:
    by_key = {one.key: one for one in options}
    found = {}
    for key, value in keys.items():
        one = by_key.get(key.replace("_", "-"))
        if one is None:
            near = difflib.get_close_matches(key.replace("_", "-"), by_key, n=1)
            raise UsageError(
                f"{before}unknown key {where}{key}",
                expected="an option of this verb, without the dashes in front",
                fix=f"{where}{near[0]}" if near else f"remove {where}{key}, or see --help",
            )
        found[one.name] = _of_toml(one, value, before)
    return found


def _check_tables(
    tables: Mapping[str, Any], where: str, file: Path, options: Sequence[OptionField]
) -> None:
    """Tables of other verbs are theirs; one of no verb is a mistake."""
    from stpl_deploy.cli.verbs import VERBS

    if where:  # of `[data]`: its verbs are checked where they run
        return
    for name in tables:
        if name in VERBS:
            continue
        near = difflib.get_close_matches(name, VERBS, n=1)
        fix = f"[{near[0]}]" if near else f"remove [{name}]"
        if any(one.key == name for one in options):
            fix = f"{name} = VALUE, above the first table"
        raise UsageError(
            f"{file}: no verb {name}", expected="tables for verbs, such as [serve]", fix=fix
        )


def _of_toml(one: OptionField, value: Any, before: str) -> Any:
    try:
        if one.kind is bool and not isinstance(value, bool):
            raise _wrong(one, value, "true or false", "true")
        if isinstance(value, date) and one.kind is str:
            return value.isoformat()
        texts = value if isinstance(value, list) else [value]
        if get_origin(one.kind) is Sequence and not all(isinstance(text, str) for text in texts):
            raise _wrong(one, value, "a list of texts", '["..."]')
        if one.kind is str and not isinstance(value, str):
            raise _wrong(one, value, "text in quotes", f'"{value}"')
        return _for_typer(checked(one, value))
    except UsageError as error:
        raise UsageError(
            f"{before}{one.key} = {value!r}",
            expected=error.expected,
            fix=f"{one.key} = {error.fix.partition('=')[2] or 'VALUE'}",
        ) from error


def _of_text(one: OptionField, text: str) -> Any:
    name = variable(one)
    try:
        return _for_typer(checked(one, _value_of_text(one, text)))
    except ValueError:
        raise UsageError(
            f"{name}={text}",
            expected="words, those with spaces in quotes" if get_origin(one.kind) is Sequence
            else "a whole number" if one.kind is int
            else "a number",
            fix=f"another {name}, or unset {name}",
        ) from None  # fmt: skip
    except UsageError as error:
        raise UsageError(
            f"{name}={text}",
            expected=error.expected,
            fix=f"{name}={error.fix.partition('=')[2]}",
        ) from error


def _value_of_text(one: OptionField, text: str) -> Any:
    """The text of a variable as a value; several words are split as a shell does.

    Raises:
        ValueError: no number, or an open quote.
        UsageError: neither yes nor no.
    """
    if get_origin(one.kind) is Sequence:
        return shlex.split(text)
    if one.kind is bool:
        if text.lower() not in _YES + _NO:
            raise _wrong(one, text, "1 or 0", "1")
        return text.lower() in _YES
    return one.kind(text) if one.kind in (int, float) else text


def _for_typer(value: Any) -> Any:
    """Typer makes paths of text and lists of lists itself."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _wrong(one: OptionField, value: Any, expected: str, example: str) -> UsageError:
    return UsageError(f"{one.name}={value!r}", expected=expected, fix=f"{one.name}={example}")


def toml_value(value: Any, written: Callable[[str], str] = str) -> str:
    """A value as TOML has it; `written` is given each text and returns what is to stand there."""
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(one, written) for one in value)}]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(written(str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
