"""`stpl-deploy bench`: how long from a frame's arrival to its nowcast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpl_deploy.cli.engines import Engine, Forecast, RequireProvider
from stpl_deploy.cli.trust import TrustModel, trust


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds.")] = 30,
    engine: Engine = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads; default: all that this process may use."),
    ] = None,
    forecast: Forecast = "auto",
    require_provider: RequireProvider = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile too; it compiles first.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for bench.json and bench.svg; default: BUNDLE-bench."),
    ] = None,
    trust_model: TrustModel = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Time PyTorch on the CPU and an engine's ways to a nowcast side by side in one process."""
    from stpl_core.bundle import open_bundle
    from stpl_core.files import atomic_file
    from stpl_deploy.cli.output import document_text, print_json, print_table, progress_bar, say
    from stpl_export.bench import bench_bundle, save_chart

    trust(trust_model)
    opened = open_bundle(bundle)
    with progress_bar("rounds") as progress:
        report = bench_bundle(
            opened,
            rounds=rounds,
            engine=engine,
            threads=threads,
            forecast=forecast,
            require_provider=require_provider,
            compiled=compiled,
            progress=progress,
        )
    folder = out or _beside(bundle)
    with atomic_file(folder / "bench.json") as file:
        file.write(document_text(report.document()).encode())
    try:
        save_chart(report, folder / "bench.svg")
    except ModuleNotFoundError:
        say("no chart: matplotlib is not installed; pip install 'stpl-deploy[export]'")
    if json:
        print_json(report.document())
        return
    print_table(
        f"{report.model}: {report.context} in, {report.horizon} out, {report.threads} threads",
        ["arrival to nowcast", "median ms", "p95 ms", "min ms"],
        [
            [row.name, f"{row.median_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.min_ms:.1f}"]
            for row in report.rows
        ],
    )
    print(f"  {report.engine} on {report.provider}")
    for what, fact in report.facts.items():
        print(f"  {what}: {fact}")
    for ratio in report.ratios:
        fast, _, slow = ratio.name.partition("_vs_")
        spread = f"single rounds {ratio.p05:.2f} to {ratio.p95:.2f}"
        print(f"  {fast} is {ratio.times:.2f} times as fast as {slow} ({spread})")
    print(f"{folder}: bench.json, bench.svg")
    print(f"next: stpl-deploy serve {bundle} SOURCE")


def _beside(bundle: Path) -> Path:
    """`BUNDLE-bench`, as short as the bundle's path was given."""
    named = bundle if bundle.name not in ("", "..") else bundle.absolute()
    return named.with_name(f"{named.name}-bench")
