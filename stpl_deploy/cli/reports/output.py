"""What the verbs share: results on stdout, progress on stderr, tables."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stpl_core.bundle import AccuracyReport
from stpl_core.json_numbers import finite
from stpl_core.log import log
from stpl_core.safety.printable import printable

_LONGEST_LINE = 4000


def say(line: str) -> None:
    """Print what runs now, on stderr."""
    log(printable(line, _LONGEST_LINE))


def count_text(number: int, what: str) -> str:
    """As `1 iteration`, `2,000 iterations`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def document_text(document: Any) -> str:
    """JSON text; infinite and undefined numbers become null."""
    return json.dumps(finite(document), indent=2, default=str) + "\n"


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(document_text(document))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function called with (done, of); a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


_LINE_S = 30.0
"""Between two lines on the progress, where there is no terminal for a bar."""


@contextmanager
def timed_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function called with (done, of): a bar with the time that is left.

    Where stderr is no terminal, a line now and then.
    """
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    shown = console.is_terminal
    began = last = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, of: int) -> None:
            nonlocal began, last
            now = time.monotonic()
            if done == 0:
                began = last = now
                bar.reset(task, total=of)
            bar.update(task, completed=done, total=of)
            if not shown and done and now - last >= _LINE_S:
                last = now
                left = (of - done) * (now - began) / done
                say(f"{done:,} of {of:,} {what}, {_span(left)} left")

        yield progress


def _span(seconds: float) -> str:
    """A length of time in words, such as `2 h 5 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def download_bar() -> Iterator[Callable[[str, int, int], Callable[[int, int | None], None]]]:
    """Give a function that is called with (name, number, of) and gives one for the bytes so far.

    A bar on stderr where that is a terminal, else a line for each file.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("")

        def begun(name: str, number: int, of: int) -> Callable[[int, int | None], None]:
            place = f"{number} of {of}: " if of > 1 else ""
            if not console.is_terminal:
                say(f"  {place}{name}")
            short = name if len(name) <= 32 else f"{name[:31]}…"
            bar.reset(task, description=f"{place}{short}", total=None)
            return lambda done, whole: bar.update(task, completed=done, total=whole)

        yield begun


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; every column but the first is right-aligned.

    No word is cut: where the terminal is too narrow for the longest ones, each row is a few lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max((len(word) for text in (column, *each) for word in text.split()), default=0)
        for column, *each in zip(columns, *cells, strict=True)
    ]
    if sum(widths) + 3 * len(widths) + 1 > console.width:
        _print_rows(title, columns, cells, console.width)
        return
    table = Table(title=title, title_justify="left")
    for n, (column, width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(column, justify="left" if n == 0 else "right", min_width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_rows(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> None:
    """A table on a narrow terminal: `lead 1: max error 2e-07, ...`, a few lines for each row."""
    sys.stdout.write(f"{title}\n")
    for first, *rest in rows:
        named = [
            f"{name} {cell}".strip() for name, cell in zip(columns[1:], rest, strict=True) if cell
        ]
        line = f"{columns[0]} {first}: {', '.join(named)}"
        wrapped = textwrap.wrap(
            line, max(width, 20), initial_indent="  ", subsequent_indent="    ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        sys.stdout.write("\n".join(wrapped) + "\n")


def print_accuracy(report: AccuracyReport) -> None:
    """Print the closed-loop check: worst case over all paths for each lead time."""
    rows = []
    for leads in zip(*(check.leads for check in report.checks), strict=True):
        worst = max(leads, key=lambda lead: lead.max_error)
        psnr = "identical" if worst.psnr_db is None else f"{worst.psnr_db:.0f} dB"
        rows.append(
            [
                str(worst.lead),
                f"{worst.max_error:.1e}",
                f"{worst.tolerance:.1e}",
                f"{worst.mean_error:.1e}",
                psnr,
                f"{worst.mse_change:+.1e}",
                "ok" if all(lead.passed for lead in leads) else "BREACH",
            ]
        )
    columns = ["lead", "max error", "tolerance", "mean error", "PSNR", "change of MSE", ""]
    print_table("Closed loop against PyTorch in float64", columns, rows)
    sys.stdout.write(f"  {report.sequences} sequences: {printable(report.data, 4000)}\n")
    for check in report.checks:
        state = "" if check.state_error is None else f", state {check.state_error:.2f} of tolerance"
        if check.output_error is not None:
            state += f", chances {check.output_error:.2f} of tolerance"
        if check.int8 is not None and check.int8.budget_db is not None:
            change = f"{check.int8.psnr_change_db:+.3f} dB"
            state += f", PSNR against truth {change}, -{check.int8.budget_db:g} allowed"
        verdict = "ok" if check.passed else "BREACH"
        path, provider = printable(check.path), printable(check.provider)
        sys.stdout.write(f"  {path:9}batch {check.batch:<3} on {provider}{state}: {verdict}\n")
