"""Secrets by the name of a variable of the environment, or from the file that NAME_FILE names.

The file is what systemd (`LoadCredential=`), Docker and Kubernetes give: it is in no list of
processes, and children do not inherit it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from stpl_core.errors import UsageError


def secret(name: str, what: str, environment: Mapping[str, str] = os.environ) -> str:
    """What the variable `name` holds, or the file that the variable `name`_FILE names.

    Args:
        name: of the variable.
        what: it is, for messages: `the password`.
        environment: variables.

    Raises:
        UsageError: neither is set, both are, or the file cannot be read or is empty.
    """
    given, file = environment.get(name, ""), environment.get(f"{name}_FILE", "")
    if given and file:
        raise UsageError(
            f"the environment has {name} and {name}_FILE", expected="one", fix=f"unset {name}"
        )
    if file:
        return read_secret(Path(file), what)
    if not given:
        raise UsageError(
            f"the environment has no {name}",
            expected=what,
            fix=f"export {name}=..., or {name}_FILE=PATH of a file with it",
        )
    return given


def read_secret(file: Path, what: str) -> str:
    """The text of a file, without white space around it.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {file}: {getattr(error, 'strerror', None) or error}",
            expected=f"a file with {what} in it",
            fix="check the path and its permissions",
        ) from error
    if not text:
        raise UsageError(f"{file} is empty", expected=f"{what} in it", fix="write it into the file")
    return text
