"""`stpl-deploy predict`: a nowcast from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_core.options import BundlePath, EngineOptions, PredictOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.options.trust import TrustOptions, open_trusted
from stpl_deploy.cli.terminal.picture import Preview, show_nowcast

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle
    from stpl_runtime.ingest.inputs import Context
    from stpl_runtime.nowcast import Nowcast
    from stpl_runtime.sinks.file_format import FileFormat


@dataclass(frozen=True)
class PredictCommand:
    """The options of `predict`."""

    bundle: BundlePath
    frames: Annotated[
        Path,
        Option(
            "Folder of frames, .npy/.npz of (T,C,H,W), or what a reader reads; "
            "the newest T are read.",
            argument=True,
        ),
    ]
    out: Annotated[Path, Option("File to write: .npz, .npy, .png, .gif, .mp4, .nc, .tif or .zarr.")]
    preview: Annotated[
        Preview,
        Option(
            "Show the nowcast in the terminal: auto (if that can), kitty, iterm, sixel or none.",
            metavar="PROTOCOL",
        ),
    ] = "auto"
    predict: PredictOptions = field(default_factory=PredictOptions)
    backend: EngineOptions = field(default_factory=EngineOptions)
    overwrite: Annotated[bool, Option("Replace FILE.", flag="--overwrite")] = False
    trust: TrustOptions = field(default_factory=TrustOptions)
    json: Json = False


@verb
def predict(options: PredictCommand) -> None:
    """Predict the frames after the newest ones of a file or folder."""
    _check_out(options.out, options.overwrite)
    import time

    from stpl_core.readers.names import check_no_model
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_runtime.ingest.newest import read_newest
    from stpl_runtime.nowcasting.make import check_ensemble, make_baseline
    from stpl_runtime.sinks.file_format import format_of

    asked = options.predict
    written = format_of(options.out.suffix)
    written.check_installed()
    if asked.probabilities and not written.holds_chances:
        _refuse("--probabilities", options.out, lambda one: one.holds_chances)
    if asked.members is not None and not written.holds_members:
        _refuse(f"--members {asked.members}", options.out, lambda one: one.holds_members)
    check_no_model(options.frames)
    bundle = open_trusted(options.bundle, options.trust)
    check_ensemble(bundle.manifest, asked)
    context, remark = read_newest(bundle, options.frames, asked.reading, asked.domain, asked.at)
    read = context.understood(bundle.manifest.codec)
    say(f"data {options.frames}: the newest: {read.line()}")
    if remark:
        say(remark)
    if asked.baseline is None:
        nowcast, ms = _of_model(options, bundle, context)
    else:
        began = time.perf_counter()
        nowcast = make_baseline(bundle, context, asked)
        ms = 1e3 * (time.perf_counter() - began)
    written.write(options.out, nowcast)
    report = _document(options.out, nowcast, ms)
    if options.json:
        print_json(report)
    else:
        _print(options, nowcast, report)
        show_nowcast(nowcast, options.preview)


def _of_model(options: PredictCommand, bundle: Bundle, context: Context) -> tuple[Nowcast, float]:
    """The model's nowcast, and how many milliseconds it took."""
    import time

    from stpl_deploy.cli.reports.output import say
    from stpl_runtime.engines.tiled import seams_note, wanted_size
    from stpl_runtime.nowcasting.make import make_nowcast, open_backend, plan_nowcast

    asked = options.predict
    horizon, domain, likely = asked.horizon, asked.domain, asked.needs_chances
    size = wanted_size(domain)
    if size is not None and (note := seams_note(bundle, size)):
        say(note)
    if planned := plan_nowcast(
        bundle,
        options.backend,
        horizon,
        domain,
        context,
        chances=likely,
        members=asked.members,
    ):
        say(planned)
    with open_backend(bundle, options.backend, horizon, chances=likely, say=say) as session:
        began = time.perf_counter()
        nowcast = make_nowcast(
            bundle,
            session,
            context,
            horizon,
            domain,
            chances=asked.probabilities,
            members=asked.members,
            seed=asked.seed,
        )
        return nowcast, 1e3 * (time.perf_counter() - began)


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
            f"{out} already exists",
            expected="a path that does not exist yet",
            fix="another --out" if out.is_dir() else "another --out, or --overwrite",
        )


def _refuse(word: str, out: Path, holds: Callable[[FileFormat], bool]) -> None:
    """A file that has no room for what was asked for."""
    from stpl_runtime.sinks.file_format import file_formats

    able = [suffix for one in file_formats() if holds(one) for suffix in one.suffixes]
    raise UsageError(
        f"{word} with --out {out}, which has no room for them",
        expected=", ".join(able),
        fix=f"--out {out.with_suffix('.nc')}",
    )


def _document(out: Path, nowcast: Nowcast, ms: float) -> dict[str, Any]:
    from stpl_runtime.timing import utc_text

    return {
        "out": str(out),
        "shape": list(nowcast.frames.shape),
        "horizon": nowcast.frames.shape[-4],
        "units": nowcast.units,
        "issue_time": utc_text(nowcast.issue_time) if nowcast.issue_time else None,
        "valid_times": [utc_text(time) for time in nowcast.valid_times],
        "source": nowcast.source_id,
        "made_by": nowcast.made_by,
        "thresholds": None if nowcast.chances is None else list(nowcast.chances.thresholds),
        "members": None if nowcast.members is None else nowcast.members.shape[-5],
        "ms": ms,
    }


def _print(options: PredictCommand, nowcast: Nowcast, report: dict[str, Any]) -> None:
    from stpl_runtime.timing import duration_text

    *many, steps, channels, height, width = nowcast.frames.shape
    count = f"{many[0]} x {steps}" if many else f"{steps}"
    issued = f", issued {report['issue_time']}" if report["issue_time"] else ""
    took = duration_text(report["ms"])
    how = f" by {options.predict.baseline}" if options.predict.baseline else ""
    size = f"{channels}x{height}x{width}"
    print(f"{options.out}: {count} frames of {size}{how}{issued}, in {took}")
    if nowcast.chances is not None:
        above = ", ".join(f"{threshold:g}" for threshold in nowcast.chances.thresholds)
        print(f"chances of {nowcast.quantity} at or above {above} {nowcast.units}")
    if "ensemble" in nowcast.made_by:
        print(f"ensemble: {nowcast.made_by['ensemble']}")
    if options.frames.is_dir() and nowcast.context_times and options.predict.baseline is None:
        grid = options.predict.domain.grid
        given = "" if grid is None else f" --grid {grid}"
        print(f"next: stpl-deploy serve {options.bundle} {options.frames}{given}")
