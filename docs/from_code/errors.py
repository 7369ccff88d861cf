"""The reference of errors and exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from docs.from_code.markdown import code, plain, table
from stpl_core.errors import StplError

_INTRODUCTION = """# Errors

A user's mistake ends in one line: what was found, what was expected, what to type next. From Python
the same is an exception with `found`, `expected`, `fix` and `exit_code`.

```text
{tree}
```

Exit 0 is done, 1 a bug in stpl-deploy (with a traceback), 130 ended by Ctrl-C, 141 the reader of
the output went away.

"""


def page() -> str:
    """The tree of errors, each with its exit code."""
    from stpl_core import errors

    rows = [
        (code(f"stpl_deploy.errors.{one.__name__}"), code(one.__bases__[0].__name__),
         str(one.exit_code), plain(inspect.cleandoc(one.__doc__ or "").split("\n\n")[0]))
        for one in _classes(StplError)
        if one.__module__ == errors.__name__
    ]  # fmt: skip
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    return _INTRODUCTION.format(tree=tree) + table(("class", "is a", "exit", ""), rows)


def _classes(base: type[StplError]) -> Iterator[type[StplError]]:
    yield base
    for below in base.__subclasses__():
        yield from _classes(below)
