"""`stpl-deploy predict`: a nowcast from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stpl_core.errors import UsageError
from stpl_deploy.cli.engines import Engine, Forecast, RequireProvider

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle
    from stpl_runtime.engine import Session
    from stpl_runtime.ingest.inputs import Context


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory, from `stpl-deploy export`.")],
    frames: Annotated[
        Path,
        typer.Argument(
            help="Folder of frames, .npy/.npz of (T,C,H,W), or what a reader reads; "
            "the newest T are read."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="File to write: .npz, .npy, .png, .gif, .mp4, .nc, .tif or .zarr.")
    ],
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Frames to predict.", show_default="the bundle's")
    ] = None,
    engine: Engine = "onnx",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads.", show_default="all CPUs it may use"),
    ] = None,
    forecast: Forecast = "auto",
    require_provider: RequireProvider = None,
    cadence: Annotated[
        float | None, typer.Option(help="Seconds between frames.", show_default="the bundle's")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="strptime pattern of the time in the files' names.")
    ] = None,
    mtime: Annotated[
        bool, typer.Option("--mtime", help="Take the files' modification times.")
    ] = False,
    reader: Annotated[
        str | None, typer.Option(help="Reader of FRAMES, as in `stpl-deploy data inspect`.")
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="Variable to read, where a file holds several.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="HxW of larger frames: covered by tiles of the model.")
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels that tiles share.", show_default="a quarter of the tile"),
    ] = None,
    any_grid: Annotated[
        bool, typer.Option("--any-grid", help="Go on where pixels have another size than trained.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Predict the frames after the newest ones of a file or folder."""
    _check_out(out, overwrite)
    from stpl_core.bundle import open_bundle
    from stpl_core.readers.names import check_no_model
    from stpl_core.same_grid import check_same_grid
    from stpl_deploy.cli.output import print_json, say
    from stpl_runtime.engine import open_session
    from stpl_runtime.engines.tiled import domain_size, on_domain
    from stpl_runtime.ingest.inputs import needs_reader, read_context
    from stpl_runtime.nowcasting.predict import graphs_needed
    from stpl_runtime.nowcasting.window import check_cadence
    from stpl_runtime.sinks.file_format import format_of
    from stpl_runtime.source import SourceSpec
    from stpl_runtime.timing import duration_text

    format_of(out.suffix).check_installed()
    check_no_model(frames)
    opened = open_bundle(bundle)
    manifest = opened.manifest
    check_cadence(cadence)
    domain = manifest.domain if grid is None else domain_size(grid)
    spec = SourceSpec(
        (manifest.frame[0], *domain),
        manifest.codec,
        time_format,
        cadence or manifest.cadence_s,
        mtime,
    )
    if reader is not None or variable is not None or needs_reader(frames):
        from stpl_runtime.ingest.archive import archive_spec, read_archive

        how = archive_spec(manifest.recipe, reader, variable, domain if grid else None)
        context = read_archive(frames, manifest.context, spec, how)
    else:
        context = read_context(frames, manifest.context, spec)
    if context.grid is not None:
        crop = None if grid else manifest.recipe.get("data", {}).get("crop")
        remark = check_same_grid(
            context.grid, manifest.grids, str(frames), any_grid=any_grid, crop=crop
        )
        if remark:
            say(remark)
    steps = manifest.horizon if horizon is None else horizon
    session = open_session(
        opened,
        graphs_needed(manifest, steps),
        engine=engine,
        threads=threads,
        forecast=forecast,
        require_provider=require_provider,
    )
    opened, session = on_domain(opened, session, domain, overlap)
    report = _run(opened, session, context, steps, out)
    if json:
        print_json(report)
    else:
        *many, _, channels, height, width = report["shape"]
        count = f"{many[0]} x {steps}" if many else f"{steps}"
        issued = f", issued {report['issue_time']}" if report["issue_time"] else ""
        took = duration_text(report["ms"])
        print(f"{out}: {count} frames of {channels}x{height}x{width}{issued}, in {took}")
        if frames.is_dir() and context.times:
            options = "" if grid is None else f" --grid {grid}"
            print(f"next: stpl-deploy serve {bundle} {frames}{options}")


def _check_out(out: Path, overwrite: bool) -> None:
    from stpl_runtime.sinks.file_format import file_suffixes

    if out.suffix.lower() not in file_suffixes():
        raise UsageError(
            f"--out {out} ends in {out.suffix or 'nothing'}",
            expected=", ".join(file_suffixes()),
            fix=f"--out {out.with_suffix('.npz')}",
        )
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(
            f"{out} is there already",
            expected="a path that is free",
            fix="another --out" if out.is_dir() else "another --out, or --overwrite",
        )


def _run(
    bundle: Bundle, session: Session, context: Context, steps: int, out: Path
) -> dict[str, Any]:
    """Predict, write, and say what was done."""
    import time

    from stpl_runtime.nowcast import Nowcast
    from stpl_runtime.nowcasting.predict import made_by, predict_sequences
    from stpl_runtime.sinks.file_format import format_of
    from stpl_runtime.timing import utc_text

    manifest, one = bundle.manifest, len(context.frames) == 1
    began = time.perf_counter()
    frames = predict_sequences(bundle, session, context.frames, steps)
    ms = 1e3 * (time.perf_counter() - began)
    nowcast = Nowcast(
        frames=frames[0] if one else frames,
        context=context.frames[0] if one else context.frames,
        units=manifest.codec.units,
        quantity=manifest.codec.quantity,
        low=manifest.codec.low,
        high=manifest.codec.high,
        issue_time=context.times[-1] if context.times else None,
        cadence_s=context.cadence_s,
        context_times=context.times,
        source_id=context.source_id,
        made_by=made_by(bundle, session, "window"),
        grid=context.grid,
        observed=context.observed,
        standard_name=context.standard_name,
        notes=context.notes,
    )
    format_of(out.suffix).write(out, nowcast)
    return {
        "out": str(out),
        "shape": list(nowcast.frames.shape),
        "horizon": steps,
        "units": nowcast.units,
        "issue_time": utc_text(nowcast.issue_time) if nowcast.issue_time else None,
        "valid_times": [utc_text(time) for time in nowcast.valid_times],
        "source": nowcast.source_id,
        "made_by": nowcast.made_by,
        "ms": ms,
    }
