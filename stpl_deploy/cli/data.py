"""`stpl-deploy data`: look at frames, convert them once for training, fetch public ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_core.options import ReadingOptions
from stpl_core.safety.printable import printable
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.inspecting import InspectCommand
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_core.fetch.checked import Fetched
    from stpl_core.fetch.sets import PublicSet
    from stpl_core.readers.survey import Survey

_LONGEST_LINE = 4000

data = typer.Typer(
    help="Look at frames of any format, convert them, or fetch public ones.",
    rich_markup_mode=None,
)


@data.callback(invoke_without_command=True)
def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@data.command(short_help="Say what a file, a folder or a live source holds.")
@verb
def inspect(options: InspectCommand) -> None:
    """Say what a file, a folder or a live source holds: times, gaps, range, units, masks, grid.

    A live source (http://, rtsp://, mqtt://, camera:0 and the others that `stream` takes) is looked
    at for ten seconds.
    """
    from stpl_deploy.cli.reports.live_source import inspect_live, is_live

    if is_live(options.path):
        inspect_live(options)
        return
    _inspect_files(options)


def _inspect_files(options: InspectCommand) -> None:
    from stpl_core.readers.names import check_no_model
    from stpl_core.readers.opening import joined_pieces
    from stpl_core.readers.survey import Surveyor
    from stpl_deploy.cli.reports.live_source import path_of
    from stpl_deploy.cli.reports.output import print_json
    from stpl_deploy.cli.reports.recipe import Expected

    path, json = path_of(options.path), options.json
    check_no_model(path)
    expected = None if options.recipe is None else Expected(options.recipe, path)
    reading = options.reading
    surveyor = Surveyor()
    for part, files in joined_pieces(path, reading.reader, reading.for_readers()):
        surveyor.add(part, files)
    survey = surveyor.survey()
    if options.picture is not None:
        from stpl_core.readers.preview import save_sights

        save_sights(options.picture, survey, surveyor.sights)
    if json:
        extra = {} if expected is None else {"recipe": expected.document(survey)}
        print_json(survey.document() | extra)
    else:
        _print(path, survey)
    if expected is not None:
        expected.report(survey, quiet=json)


@dataclass(frozen=True)
class ConvertCommand:
    """The options of `data convert`."""

    path: Annotated[Path, Option("File or folder of frames.", argument=True)]
    out: Annotated[Path, Option("X.zarr (for training), X.nc or X.npz.")]
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    json: Json = False


@data.command(short_help="Read an archive once and write it as one dataset.")
@verb
def convert(options: ConvertCommand) -> None:
    """Read an archive once and write it as one dataset, a chunk for each frame."""
    from stpl_core.readers.store import convert as convert_frames
    from stpl_deploy.cli.reports.output import print_json, progress_bar

    path, out, reading = options.path, options.out, options.reading
    with progress_bar("frames") as advance:
        survey = convert_frames(
            path, out, reading.reader, reading.for_readers(), lambda done: advance(done, 0)
        )
    if options.json:
        print_json({"out": str(out), **survey.document()})
        return
    _print(out, survey)
    print(f"next: stpl-deploy data inspect {out} --recipe NAME")
    print(f"      stpl-deploy train NAME --set data.path={out} --out RUN")


@dataclass(frozen=True)
class FetchCommand:
    """The options of `data fetch`."""

    name: Annotated[
        str | None, Option("Which data set; without it they are listed.", argument=True)
    ] = None
    out: Annotated[Path | None, Option("Folder to fetch into.", default="./NAME")] = None
    listed: Annotated[bool, Option("List what there is.", flag="--list")] = False
    json: Json = False


@data.command(short_help="Fetch a public data set, checked; an interrupted download resumes.")
@verb
def fetch(options: FetchCommand) -> None:
    """Fetch a public data set, checked; an interrupted download resumes where it stopped."""
    from stpl_core.fetch.sets import fetch_set, public_set, public_sets
    from stpl_deploy.cli.reports.output import download_bar, print_json, say

    name, out, json = options.name, options.out, options.json
    if name is None or options.listed:
        if out is not None:
            raise UsageError(
                f"--out {out} without a data set",
                expected="its name",
                fix="stpl-deploy data fetch NAME --out FOLDER",
            )
        known = list(public_sets().values())
        if json:
            print_json([one.model_dump(exclude={"files"}) | _facts(one) for one in known])
        else:
            _print_sets(known)
        return
    one = public_set(name)
    folder = out or Path(name)
    say(f"{name}: {one.about}")
    say(f"  from {one.origin}; licence: {one.licence}")
    if not one.checked:
        say("  its owner publishes no checksum: the one found is printed, and cannot be checked")
    try:
        with download_bar() as begun:
            done = fetch_set(one, folder, begun)
    except KeyboardInterrupt:
        again = f"stpl-deploy data fetch {name}" + (f" --out {out}" if out else "")
        say(f"the bytes received so far are kept; to resume: {again}")
        raise
    use = one.use.format(folder=folder)
    if json:
        print_json({"set": name, "folder": str(folder), "licence": one.licence, "next": use,
                    "files": [file.model_dump() for file in done]})  # fmt: skip
    else:
        _print_fetched(folder, done, use)


def _facts(one: PublicSet) -> dict[str, object]:
    return {"files": len(one.files), "size": one.size_text, "checked": one.checked}


def _print_sets(known: list[PublicSet]) -> None:
    for one in known:
        count = f"{len(one.files)} files, " if len(one.files) > 1 else ""
        checked = "" if one.checked else "; no checksum known"
        print(f"{one.name}\n  {one.about}")
        print(f"  {count}{one.size_text}{checked}; licence: {one.licence}; {one.origin}")
    print("\nstpl-deploy data fetch NAME")


def _print_fetched(folder: Path, done: list[Fetched], use: str) -> None:
    new = [file for file in done if file.url]
    there = len(done) - len(new)
    parts = [f"{len(new)} fetched"] if new else []
    parts += [f"{there} already there"] if there else []
    checked = ", checksums right" if all(file.promised for file in done) else ""
    print(f"{folder}: {', '.join(parts)}{checked}")
    for file in done:
        if not file.promised:
            print(f"  {file.name}: {file.digest.replace(':', ' ')} (nothing to compare it with)")
        if file.members:
            first = next(iter(file.members))
            print(f"  {file.name}: {len(file.members)} files unpacked, the first {first}")
    print(f"next: {use}")


def _print(path: Path, survey: Survey) -> None:
    channels, height, width = survey.shape
    quantity = survey.quantity
    pairs = {
        "frames": f"{survey.frames} of {channels}x{height}x{width} in {survey.files} files"
        + (f", {survey.sequences} sequences" if survey.sequences > 1 else ""),
        "times": f"{survey.first} to {survey.last}" if survey.observed else "counted, not observed",
        "cadence": "one frame" if survey.cadence_s is None else f"{survey.cadence_s:g} s",
        "gaps": _gaps(survey),
        "values": _values(survey),
        "units": quantity.units if quantity.units != "1" else "1 (fraction of full scale)",
        "pixels": ", ".join(
            f"{share:.1%} {name.replace('_', ' ')}" for name, share in survey.share.items()
        ),
        "grid": _grid(survey),
    }
    if survey.bad:
        share = survey.bad / max(1, survey.frames * height * width)
        pairs["impossible"] = f"{survey.bad} pixels ({share:.2%}) are no data for their values"
    if survey.empty:
        shown = ", ".join(survey.empty[:3]) + (" ..." if len(survey.empty) > 3 else "")
        pairs["empty"] = f"{len(survey.empty)} frames are no data all over: {shown}"
    pairs.update(survey.notes)
    print(printable(f"data {path}: {survey.understood.line()}", _LONGEST_LINE))
    for key, value in pairs.items():
        print(printable(f"  {key:<13}{value}", _LONGEST_LINE))
    if remark := _range_remark(survey):
        print(f"  {remark}")


def _range_remark(survey: Survey) -> str:
    """That fractions of full scale use little of it, as training would mention."""
    from stpl_core.codec import FrameCodec

    return survey.understood.range_remark(FrameCodec()) if survey.quantity.units == "1" else ""


def _gaps(survey: Survey) -> str:
    if not survey.gaps and not survey.off_cadence:
        return "none"
    parts = [
        f"{gap.missing} missing before {gap.before} ({Path(gap.file).name})"
        for gap in survey.gaps[:5]
    ]
    if len(survey.gaps) > 5:
        parts.append(f"{len(survey.gaps) - 5} more gaps")
    if survey.off_cadence:
        parts.append(f"{len(survey.off_cadence)} off the cadence, first {survey.off_cadence[0]}")
    return "; ".join(parts)


def _values(survey: Survey) -> str:
    if survey.low is None or survey.high is None:
        return f"{survey.quantity.name}, no pixel has one"
    return f"{survey.quantity.name}, {survey.low:g} to {survey.high:g}"


def _grid(survey: Survey) -> str:
    from stpl_core.grid import projection_name

    grid = survey.grid
    if not grid.crs_wkt:
        return "pixels, no place on the Earth"
    unit = "degrees" if grid.geographic else "m"
    step_x, step_y = abs(grid.affine[2]), abs(grid.affine[3])
    left, bottom, right, top = (  # to a thousandth of a pixel
        round(edge / step, 3) * step + 0.0  # no minus zero
        for edge, step in zip(grid.corners, (step_x, step_y) * 2, strict=True)
    )
    return (
        f"{step_x:.8g} x {step_y:.8g} {unit}, x {left:.10g} to {right:.10g}, "
        f"y {bottom:.10g} to {top:.10g}, {projection_name(grid.crs_wkt)}"
    )
