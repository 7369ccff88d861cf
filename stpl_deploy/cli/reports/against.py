"""What `verify --against` prints: a table for each engine, graph and lead time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpl_core.errors import AccuracyError, EnvironmentFault, UsageError

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle
    from stpl_core.options import EngineOptions
    from stpl_export.polygraphy.against import Comparison, Row


def compare(
    bundle: Bundle, backend: EngineOptions, words: str, results: Path | None, as_json: bool
) -> None:
    """Compare `--engine` and the engines and files of `--against` with PyTorch, and print how.

    Raises:
        UsageError: a word that is neither an engine nor a file.
        AccuracyError: an engine leaves its tolerance.
        EnvironmentFault: an engine cannot run here; the others are printed.
    """
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_deploy.extras import needs

    engines, files = engines_and_files(words)
    with needs("polygraphy"):
        from stpl_export.polygraphy.against import compare_engines
    found = compare_engines(
        bundle, [backend.engine, *engines], files, backend=backend, results=results, progress=say
    )
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    if results is not None:
        say(f"{results}: compare it on another machine: verify {bundle.path} --against {results}")
    _raise_what_failed(found)


def engines_and_files(words: str) -> tuple[list[str], list[Path]]:
    """Part the words of `--against`.

    Raises:
        UsageError: a word is neither.
    """
    from stpl_runtime.engine import ENGINES

    engines, files = [], []
    for word in filter(None, (part.strip() for part in words.split(","))):
        if word in ENGINES or word == "auto":
            engines.append(word)
        elif Path(word).is_file():
            files.append(Path(word))
        else:
            raise UsageError(
                f"--against {word} is neither an engine nor a file",
                expected=f"of {', '.join(ENGINES)}, or what --results wrote",
                fix="--against onnx",
            )
    return engines, files


def _raise_what_failed(found: Comparison) -> None:
    breach = found.first_breach()
    if breach is not None:
        raise AccuracyError(
            breach,
            expected="PyTorch's results within the tolerance",
            fix="do not use this bundle on that engine; stpl-deploy doctor",
        )
    if found.unable:
        engine, why = next(iter(found.unable.items()))
        more = f" (and {', '.join([*found.unable][1:])})" if len(found.unable) > 1 else ""
        raise EnvironmentFault(f"{engine}{more} cannot run here: {why}")


def _print(found: Comparison) -> None:
    from stpl_deploy.cli.reports.output import print_table

    columns = ["graph and output", "batch", "max error", "tolerance", "PSNR", "at least", ""]
    for engine in dict.fromkeys(row.engine for row in found.rows):
        rows = [row for row in found.rows if row.engine == engine]
        where = f" on {found.providers[engine]}" if engine in found.providers else ""
        print_table(f"{engine}{where}, against PyTorch in float64", columns, _cells(rows))
    for engine in dict.fromkeys(row.engine for row in found.between):
        rows = [row for row in found.between if row.engine == engine]
        print_table(engine, columns, _cells(rows))
    print(f"  {found.sequences} sequences: {found.data}")
    for engine, why in found.unable.items():
        print(f"  {engine}: not run, {why}")


def _cells(rows: Iterable[Row]) -> list[list[str]]:
    """One line for each graph and output: the worst of its batches."""
    worst: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.graph, row.output)
        if key not in worst or _badness(row) > _badness(worst[key]):
            worst[key] = row
    return [
        [
            f"{row.graph} {row.output}",
            str(row.batch),
            f"{row.max_error:.1e}",
            f"{row.limit.tolerance:.1e}",
            "identical" if row.psnr_db == float("inf") else f"{row.psnr_db:.0f} dB",
            "" if row.limit.min_psnr_db is None else f"{row.limit.min_psnr_db:.0f} dB",
            "ok" if row.passed else "BREACH",
        ]
        for row in worst.values()
    ]


def _badness(row: Row) -> tuple[bool, float]:
    return not row.passed, row.max_error


def _document(found: Comparison) -> dict[str, Any]:
    def plain(rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [{**vars(row), "limit": vars(row.limit)} for row in rows]

    return {
        "passed": found.passed and not found.unable,
        "data": found.data,
        "sequences": found.sequences,
        "providers": found.providers,
        "not_run": found.unable,
        "against_pytorch": plain(found.rows),
        "between_machines": plain(found.between),
    }
