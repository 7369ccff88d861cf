"""The command line: one file per verb; heavy imports inside the functions."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from stpl_core.errors import EnvironmentFault, StplError
from stpl_core.host.memory import memory_fault
from stpl_core.safety.printable import printable
from stpl_deploy import __version__

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
_LONGEST_LINE = 4000
PIPE_CLOSED = 141
"""128 + SIGPIPE."""


class _InOrder(typer.core.TyperGroup):
    """Lists the verbs in their own order; typer puts groups behind the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        from stpl_deploy.cli.verbs import VERBS

        rest = [name for name in self.commands if name not in VERBS]
        return [*(verb for verb in VERBS if verb in self.commands), *rest]


app = typer.Typer(
    name="stpl-deploy",
    cls=_InOrder,
    help="Train spatiotemporal models, export them, and stream nowcasts at the edge.",
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# typer makes its copy of click's exceptions public only in part: this one by its subclass.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException

_MACHINE_ERRORS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "a higher ulimit -f, or another disk",
    errno.EROFS: "write to another place",
    errno.EACCES: "check the permissions, or write to another place",
    errno.EPERM: "check the permissions, or write to another place",
    errno.EMFILE: "ulimit -n 4096",
    errno.EIO: "check the disk",
    errno.ENAMETOOLONG: "a shorter name",
}
"""Failures of the machine, not of stpl-deploy, and what to do about each."""


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"stpl-deploy {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code; a user's mistake ends in one line."""
    _open_missing_streams()
    _print_any_path()
    raise SystemExit(run(sys.argv[1:] or ["--help"]))


def _open_missing_streams() -> None:
    """Give the null device to standard streams that were closed before the start (`2>&-`).

    Otherwise the next file that is opened takes such a number, and gets what is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _print_any_path() -> None:
    """Paths that are not UTF-8 are printed as the bytes that they are, as `ls` does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def run(arguments: list[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code: see `stpl_core.errors`.
    """
    from stpl_core.log import LogOptions, set_log
    from stpl_deploy.cli import verbs

    set_log(LogOptions())
    words = _words_to_complete() or arguments
    asked = next((word for word in words if not word.startswith("-")), "")
    command = verbs.program(app, asked)
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    try:
        code = command.main(arguments, prog_name="stpl-deploy", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _pipe_closed()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer's answer to a closed pipe
            return _pipe_closed()
        raise
    except Exception as error:
        return _report(error, arguments)
    # An exit code where typer.Exit was raised, else what the verb returned.
    return _fail("interrupted", code) if code == INTERRUPTED else code or 0


def _words_to_complete() -> list[str]:
    """The words of the command line that the shell asks to complete, without the program's name.

    They stand in the environment, as the scripts of `--show-completion` put them there.
    """
    if "_STPL_DEPLOY_COMPLETE" not in os.environ:
        return []
    line = os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    return line.split()[1:]


def _report(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error on stderr and give its exit code."""
    if isinstance(error, _CommandLineError):
        return _fail(f"error: {_usage(error, arguments)}", 2)
    known = memory_fault(error) or (error if isinstance(error, StplError) else as_fault(error))
    if known is not None:
        text = printable(" ".join(str(known).split()), _LONGEST_LINE)
        return _fail(f"error: {text}", known.exit_code)
    traceback.print_exception(error)
    return _fail(
        f"This is a bug in stpl-deploy {__version__}. Please report it with the lines above and "
        "the output of: stpl-deploy doctor",
        1,
    )


def as_fault(error: Exception) -> EnvironmentFault | None:
    """The fault of this machine behind an error that no verb expected; None where there is none."""
    if (lacking := memory_fault(error)) is not None:
        return lacking
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        where = f"{error.filename}: " if error.filename else ""
        return EnvironmentFault(
            f"{where}{error.strerror}",
            expected="a disk that can be read and written",
            fix=_MACHINE_ERRORS[error.errno],
        )
    return None


def _usage(error: Exception, arguments: Sequence[str]) -> str:
    """One line for a command line that does not parse."""
    from stpl_deploy.cli.verbs import VERBS

    message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    message = message.replace(": Value error, ", ": ")  # the type's name, not the user's matter
    context = getattr(error, "ctx", None)
    verb = next((f" {word}" for word in arguments[:1] if word in VERBS), "")
    command = context.command_path if context is not None else f"stpl-deploy{verb}"
    return f"{message[:1].lower()}{message[1:]}; try: {command} --help"


def _fail(line: str, code: int) -> int:
    from stpl_core.log import log_text

    text = log_text(line, "end", "error", exit_code=code)
    try:
        sys.stderr.write(f"{text}\n")
    except BrokenPipeError:
        return _pipe_closed()
    return code


def _pipe_closed() -> int:
    """Whoever read our output has gone: say nothing more, here or when Python flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.flush()
            os.dup2(nowhere, stream.fileno())
    return PIPE_CLOSED
