"""`stpl-deploy data inspect` of a live source: what it is, and the next command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.errors import UsageError

if TYPE_CHECKING:
    from stpl_deploy.cli.options.inspecting import InspectCommand
    from stpl_runtime.sources.look import LiveLook

_PATHS = ("folder", "video", "replay")
"""Words of sources that are files here."""


def is_live(word: str) -> bool:
    """Whether it is the word of a source, and no path."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", word)
    if word == "-":
        return True
    return scheme is not None and scheme[1].lower() not in _PATHS and not Path(word).exists()


def path_of(word: str) -> Path:
    """The path of a word that is no live source: `folder:PATH` and its like, too."""
    scheme, colon, rest = word.partition(":")
    return Path(rest.removeprefix("//") if colon and scheme in _PATHS else word)


def inspect_live(options: InspectCommand) -> None:
    """Look at a source and print what it is.

    Raises:
        StplError: nothing comes, or no frames; see `stpl_runtime.sources.look`.
    """
    from stpl_deploy.cli.reports.output import print_json, say
    from stpl_runtime.options import pairs
    from stpl_runtime.sources.look import look_at

    for flag, given in (("--picture", options.picture), ("--recipe", options.recipe)):
        if given is not None:
            raise UsageError(
                f"{flag} with a live source", expected="files", fix=f"leave {flag} out"
            )
    live, reading = options.live, options.reading
    if not options.json:
        say(f"looking for {live.seconds:g} s; --seconds changes that")
    look = look_at(
        options.path,
        live.seconds,
        pairs("--source-option", live.source_options),
        cadence_s=live.cadence,
        reader=reading.reader,
        variable=reading.variable,
        reading=reading.for_readers(),
    )
    if options.json:
        print_json(look.document())
    else:
        print_look(look)


def print_look(look: LiveLook) -> None:
    """Print it as lines."""
    print(f"source {look.source}: {look.what}")
    for key, value in _lines(look).items():
        if value:
            print(f"  {key:<13}{value}")
    print(f"next: {look.next}")


def _lines(look: LiveLook) -> dict[str, str]:
    number = f"{look.frames} in {look.seconds:g} s"
    shapes = ", ".join("x".join(map(str, shape)) for shape in look.shapes)
    kinds = {1: "grey", 3: "colour"} if look.units == "1" else {}
    channels = look.shapes[0][0] if look.shapes else 0
    named = f" ({kinds[channels]})" if channels in kinds else ""
    bad = sum(look.bad.values())
    values = ""
    if look.low is not None and look.high is not None:
        unit = "of full scale" if look.units == "1" else look.units
        values = f"{look.quantity}, {look.low:.4g} to {look.high:.4g} {unit}"
    return {
        "word": f"{look.word}:",
        "format": look.format,
        "frames": f"{number}" + (f" of {shapes}{named}" if shapes else ""),
        "bad": f"{bad}: {next(iter(look.bad))}" if bad else "",
        "values": values,
        "grid": look.grid or "pixels, no place on the Earth",
        "cadence": _cadence(look),
        "times": _times(look),
        "recipe": _recipe(look),
    }


def _cadence(look: LiveLook) -> str:
    step = look.cadence_s or look.arrivals_s
    if step is None:
        return "one frame: it did not change meanwhile" if look.frames == 1 else "not known"
    rate = f" ({1 / step:.4g} a second)" if step < 1 else ""
    return f"{step:g} s{rate}" + ("" if look.cadence_s else ", by arrival")


def _times(look: LiveLook) -> str:
    from stpl_runtime.page.verdict import span_text

    if look.lag_s is None:
        return "none: the frames carry no time; by arrival they are of when they came"
    side = "behind" if look.lag_s >= 0 else "ahead of"
    doubt = "plausible"
    if not look.plausible:
        doubt = "an archive, or a wrong clock" if look.lag_s > 0 else "a wrong clock or time zone"
    off = span_text(abs(look.lag_s))
    return f"{look.times}; the newest, {look.last}, is {off} {side} this clock: {doubt}"


def _recipe(look: LiveLook) -> str:
    codec = ", ".join(f"{name} = {_toml(value)}" for name, value in look.codec.items())
    return f"{look.recipe or 'none of ours'}; a codec that fits: {codec}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
