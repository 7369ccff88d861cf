"""`stpl-deploy bench`: how long from a frame's arrival to its nowcast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.errors import install_command
from stpl_core.option import Option
from stpl_core.options import BundlePath, EngineOptions, SignatureOptions
from stpl_deploy.cli.options.common import Json, TrustModel, trust
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_export.bench import BenchReport


@dataclass(frozen=True)
class BenchCommand:
    """The options of `bench`."""

    bundle: BundlePath
    rounds: Annotated[int, Option("Timed rounds.", least=3)] = 30
    backend: EngineOptions = field(default_factory=EngineOptions)
    compiled: Annotated[
        bool, Option("Measure torch.compile too; it compiles first.", flag="--compile")
    ] = False
    peers: Annotated[
        bool, Option("Measure every other engine for the CPU that is installed.", flag="--peers")
    ] = False
    out: Annotated[
        Path | None, Option("Directory for bench.json and bench.svg; default: BUNDLE-bench.")
    ] = None
    signature: SignatureOptions = field(default_factory=SignatureOptions)
    trust_model: TrustModel = ()
    json: Json = False


@verb
def bench(options: BenchCommand) -> None:
    """Time PyTorch on the CPU and an engine's ways to a nowcast side by side in one process."""
    from stpl_core.safety.open_signed import open_signed
    from stpl_deploy.cli.reports.output import print_json, progress_bar, say
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_export.bench import bench_bundle, peers_of, settled

    trust(options.trust_model)
    opened = open_signed(options.bundle, options.signature)
    backend = settled(opened, options.backend, say)
    with progress_bar("rounds") as progress:
        report = bench_bundle(
            opened,
            rounds=options.rounds,
            **vars(backend),
            compiled=options.compiled,
            peers=peers_of(opened, backend.engine) if options.peers else (),
            progress=progress,
        )
    folder = options.out or _beside(options.bundle)
    _save(report, folder)
    if options.json:
        print_json(report.document())
        return
    _print(report)
    print(f"{folder}: bench.json, bench.svg")
    print(f"next: stpl-deploy serve {options.bundle} SOURCE")


def _save(report: BenchReport, folder: Path) -> None:
    from stpl_core.files import atomic_file
    from stpl_deploy.cli.reports.output import document_text, say
    from stpl_export.bench import save_chart

    with atomic_file(folder / "bench.json") as file:
        file.write(document_text(report.document()).encode())
    try:
        save_chart(report, folder / "bench.svg")
    except ModuleNotFoundError:
        say(f"no chart: matplotlib is not installed; {install_command('export')}")


def _print(report: BenchReport) -> None:
    from stpl_deploy.cli.reports.output import print_table

    print_table(
        f"{report.model}: {report.context} in, {report.horizon} out, {report.threads} threads",
        ["arrival to nowcast", "median ms", "p95 ms", "min ms", "GFLOP/s", "of peak"],
        [
            [
                row.name,
                f"{row.median_ms:.1f}",
                f"{row.p95_ms:.1f}",
                f"{row.min_ms:.1f}",
                "" if row.gflops is None else f"{row.gflops:.1f}",
                "" if row.peak_share is None else f"{row.peak_share:.0%}",
            ]
            for row in report.rows
        ],
    )
    print(f"  {report.engine} on {report.provider}")
    for precision, peak in report.peaks.items():
        print(f"  peak in {precision}: {peak:.1f} GFLOP/s, a large matrix product")
    for what, fact in report.facts.items():
        print(f"  {what}: {fact}")
    for ratio in report.ratios:
        fast, _, slow = ratio.name.partition("_vs_")
        spread = f"single rounds {ratio.p05:.2f} to {ratio.p95:.2f}"
        print(f"  {fast} is {ratio.times:.2f} times as fast as {slow} ({spread})")


def _beside(bundle: Path) -> Path:
    """`BUNDLE-bench`, as short as the bundle's path was given."""
    named = bundle if bundle.name not in ("", "..") else bundle.absolute()
    return named.with_name(f"{named.name}-bench")
