"""From a run to a bundle."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core import __version__
from stpl_core.errors import SinkError, UsageError
from stpl_core.files import cache_directory, refuse_existing
from stpl_core.option import Option, fill

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle, GraphName
    from stpl_export.builders.plans import PlanRequest
    from stpl_train.run import Run

ENGINES = ("onnx", "trt", "trt-rtx")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how."""

    run: Annotated[
        Path,
        Option("Run directory, from `stpl-deploy train`; or pretrained:NAME.", argument=True),
    ]
    out: Annotated[Path, Option("Bundle directory to make.")]
    engine: Annotated[str, Option("What to build: onnx, trt or trt-rtx.")] = "onnx"
    data: Annotated[
        Path | None,
        Option("Sequences for the check, .npy or .npz; default: the run's own."),
    ] = None
    sequences: Annotated[
        int,
        Option("Sequences that the bundle keeps to prove itself, if 16 MB hold them.", least=1),
    ] = 16
    grid: Annotated[
        str | None, Option("HxW: the same weights on other frames; norm gn1 or none.")
    ] = None
    precision: Annotated[
        str, Option("fp32, or convolutions in fp16, bf16 or int8 (docs/tensorrt.md).")
    ] = "fp32"
    keep_slower: Annotated[
        bool,
        Option(
            "int8: keep the bundle though it is no faster than fp32 on this machine.",
            flag="--keep-slower/--no-keep-slower",
        ),
    ] = False
    keep_fp32: Annotated[
        Sequence[str],
        Option("A node to leave in fp32, as verify --bisect names it; may repeat.", metavar="NODE"),
    ] = ()
    gpu: Annotated[
        str, Option("trt-rtx: compute capabilities, as 8.6,12.0; default: 8.0 to 12.0.")
    ] = ""
    batch: Annotated[str, Option("trt: a plan for each batch size, as 1,4.")] = "1"
    graphs: Annotated[
        str, Option("trt: of step,forecast,rollout; default: step, and forecast if quick.")
    ] = ""
    compatible: Annotated[str, Option("trt: version, ampere+ or same-capability, with commas.")] = (
        ""
    )
    golden: Annotated[
        Path | None,
        Option(
            "Also write inputs, PyTorch's outputs and commands for polygraphy and trtexec here.",
            metavar="DIR",
        ),
    ] = None


def export(run: Run | Path | str, out: Path | str, **options: Any) -> Bundle:
    """Export a run to a bundle, and check it against PyTorch over the closed loop.

    Args:
        run: from `train`, its directory, or `pretrained:NAME`.
        out: the bundle to make; must not be there yet.
        **options: of `ExportOptions`, by name: `precision`, `grid`, `engine` ...

    Raises:
        StplError: see `stpl_export.export.export_run`; no bundle is left behind.
    """
    from stpl_deploy.library.numbers import sized

    where = run if isinstance(run, (str, Path)) else run.path
    return run_export(fill(ExportOptions, {"run": where, "out": out, **sized(options)}, "export"))


def pretrained_bundle(name: str) -> Path:
    """The bundle of a model that comes trained; exported at the first time, into the cache folder.

    Raises:
        MissingExtraError: without the extra `export`.
        RunError: there is none of this name.
    """
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_train.pretrained import PREFIX, run_path
        from stpl_train.run import WEIGHTS
    from stpl_core.files import sha256_of

    weights = run_path(Path(f"{PREFIX}{name}")) / WEIGHTS
    folder = cache_directory("pretrained")
    bundle = folder / f"{name}-{__version__}-{sha256_of(weights)[:16]}.bundle"
    if bundle.is_dir():
        return bundle
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    except OSError as error:
        raise SinkError(
            f"cannot write {folder}: {error.strerror or error}",
            expected="a cache folder, for the exported bundle",
            fix=f"stpl-deploy export {PREFIX}{name} --out {name}.bundle, or set XDG_CACHE_HOME",
        ) from error
    try:
        run_export(ExportOptions(Path(f"{PREFIX}{name}"), fresh / "bundle"))
        try:
            os.rename(fresh / "bundle", bundle)
        except OSError:
            if not bundle.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return bundle


def run_export(options: ExportOptions, progress: Callable[[str], None] | None = None) -> Bundle:
    """Export what the options ask for.

    Args:
        options: what, and how.
        progress: given what runs now.

    Raises:
        UsageError: options that do not hold together.
        StplError: see `stpl_export.export.export_run`.
    """
    check(options)
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_export.export import export_run, open_model
    from stpl_runtime.engines.tiled import domain_size

    grid = None if options.grid is None else domain_size(options.grid)
    progress = progress or (lambda line: None)
    if options.golden is not None:
        with needs("polygraphy"):
            import polygraphy  # noqa: F401  # before minutes of work
        refuse_existing(options.golden, "--golden")
    bundle = export_run(
        options.run,
        options.out,
        data=options.data,
        sequences=options.sequences,
        grid=grid,
        precision=options.precision,
        keep_fp32=options.keep_fp32,
        keep_slower=options.keep_slower,
        plans=None if options.engine == "onnx" else _request(options),
        progress=progress,
    )
    if options.golden is not None:
        from stpl_export.polygraphy.golden import write_golden

        write_golden(bundle, open_model(options.run, grid)[1], options.golden, progress)
    return bundle


def check(options: ExportOptions) -> None:
    """Refuse options that do not hold together.

    Raises:
        UsageError: an unknown engine or precision, or an option that would do nothing.
    """
    engine, precision = options.engine, options.precision
    if engine not in ENGINES:
        raise UsageError(
            f"unknown engine {engine}",
            expected=f"one of {', '.join(ENGINES)}",
            fix=f"--engine {'trt' if engine in ('tensorrt', 'engine') else 'onnx'}",
        )
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision}",
            expected=f"one of {', '.join(PRECISIONS)}",
            fix="--precision fp16",
        )
    _refuse_idle(engine != "onnx", f"--engine {engine}", "--engine trt-rtx", {
        "--gpu": options.gpu, "--batch": "" if options.batch == "1" else options.batch,
        "--graphs": options.graphs, "--compatible": options.compatible,
    })  # fmt: skip
    if options.golden is not None and options.golden.resolve().is_relative_to(
        options.out.resolve()
    ):
        raise UsageError(
            f"--golden {options.golden} lies in the bundle, which holds no code",
            expected="a folder beside it",
            fix=f"--golden {options.out}-golden",
        )
    low = f"--precision {precision}"
    half = {"--keep-fp32": " ".join(options.keep_fp32)}
    _refuse_idle(precision != "fp32", low, "--precision fp16", half)
    _refuse_idle(
        precision == "int8", low, "--precision int8", {"--keep-slower": options.keep_slower}
    )


def _refuse_idle(heard: bool, found: str, fix: str, options: Mapping[str, str | bool]) -> None:
    """Refuse options that would do nothing beside the others."""
    for option, value in options.items():
        if value and not heard:
            given = option if value is True else f"{option} {value}"
            raise UsageError(
                f"{given} with {found}, which does not hear it",
                expected=f"it with {fix}",
                fix=f"{fix}, or leave {option} out",
            )


def _request(options: ExportOptions) -> PlanRequest:
    from stpl_export.builders.plans import PlanRequest

    try:
        batches = tuple(int(word) for word in _words(options.batch))
    except ValueError as error:
        raise UsageError(
            f"--batch {options.batch}", expected="numbers such as 1,4", fix="--batch 1"
        ) from error
    chosen = [name for name in GRAPHS if name in _words(options.graphs)]
    if unknown := set(_words(options.graphs)).difference(GRAPHS):
        raise UsageError(
            f"unknown graph {min(unknown)}",
            expected=f"of {', '.join(GRAPHS)}",
            fix="--graphs step,forecast",
        )
    return PlanRequest(
        options.engine, _words(options.gpu), batches, tuple(chosen), _words(options.compatible)
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
