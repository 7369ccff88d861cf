"""The radar model on events that it never saw, beside flow; writes benchmarks/results/.

    python -m benchmarks.leave_one_out --runs RUNS [--keep RUN] --fmi FOLDER --knmi FOLDER
        --mrms FILE --opera FOLDER

RUNS/no-EVENT is a run that was trained without that event, one run for several events perhaps; an
event without a run is passed over. How far the run is trusted is fitted on each other event, as it
is forecast by a run that saw neither: what a model has never seen it takes to be surer than it is,
and hours of a day that it was trained on do not tell. Where an event has another cadence, the
others are thinned to that.

--keep: RUNS/final, trusted by every event so, which is the run to ship. Of KNMI the last hours,
which are the test of benchmarks/whole_fields.py, have no part here.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks.whole_fields import at_once, document
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_core.windows.archive import open_archive
from stpl_deploy.cli.reports.output import document_text
from stpl_deploy.judging import open_judged
from stpl_export.regrid import regrid
from stpl_runtime.evaluation.archives import archive_material
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.subject import Backend, Judged, Material
from stpl_train.models.advect import Advect
from stpl_train.models.trust import HeldOut, together
from stpl_train.recipe import ArchiveSection
from stpl_train.run import WEIGHTS, open_run

RESULT = Path(__file__).parent / "results" / "leave-one-out.json"
Paths = dict[str, Path]
"""Event -> its archive."""
CHOSEN = "-chosen"
"""How the name of a run ends that is trusted so."""
_TEST = np.datetime64("2010-08-26T05:30")


@dataclass(frozen=True)
class Event:
    """What it is, and how nowcasts are taken from it."""

    about: str
    stride: int = 1
    """Frames from nowcast to nowcast."""
    every: int = 1
    cadence_s: float = 300.0
    lengths: tuple[int, int] | None = None
    """Frames in and out, where there are too few for the model's."""

    def thinned_to(self, cadence_s: float) -> Event:
        """Frames about as far apart as that."""
        own = self.cadence_s / self.every
        every = round(cadence_s / own)
        return replace(self, every=every, cadence_s=every * own)


EVENTS = {
    "FMI": Event("28 September 2016, 14:45 to 18:00, Finland", stride=3),
    "KNMI": Event("26 August 2010, 00:00 to 05:30, the Netherlands", stride=4),
    "MRMS": Event(
        "10 June 2019, 00:00 to 01:10, 5.1 by 7.7 degrees of the United States, every second of "
        "its frames: 4 minutes apart where training had 5",
        every=2,
        cadence_s=240.0,
    ),
    "OPERA": Event(
        "24 August 2018, 18:00 to 18:45, Europe, 2 km and 15 minutes where training had 1 km and "
        "5 minutes: two frames in, two out",
        cadence_s=900.0,
        lengths=(2, 2),
    ),
}
"""FMI, KNMI and OPERA open data, CC BY 4.0; MRMS of NOAA, a work of the US Government."""


def fitted_to(judged: Judged, event: Event) -> Judged:
    """The model as it reads an event."""
    data = {**judged.data, "every": event.every, "cadence_s": event.cadence_s, "augment": None}
    context, horizon = event.lengths or (judged.context, judged.horizon)
    return replace(judged, data=data, cadence_s=event.cadence_s, context=context, horizon=horizon)


def material(judged: Judged, name: str, path: Path) -> Material:
    """The whole fields of an event."""
    found = archive_material(judged, path=path, stride=EVENTS[name].stride, any_grid=True)
    if name == "KNMI" and found.times is not None:
        early = found.times[:, -1] <= _TEST
        valid = None if found.valid is None else found.valid[early]
        found = replace(found, frames=found.frames[early], valid=valid, times=found.times[early],
                        grids=tuple(np.asarray(found.grids, object)[early]))  # fmt: skip
    return found


def tried(run: Path, judged: Judged, found: Material) -> HeldOut:
    """What comes of a run's forecasts, on the whole fields of an event."""
    size = found.frames.shape[-2:]
    _, model = regrid(open_run(run), (size[0], size[1]))
    assert isinstance(model, Advect)
    made = model.nothing_yet()
    below, right = (now - had for now, had in zip(model.frame_shape[1:], size, strict=True))
    edges = ((0, 0), (0, below), (0, right))
    for n, frames in enumerate(found.frames):
        inside = judged.codec.model_from_physical(frames)  # (T + K, C, H, W)
        seen = np.ones(size, bool) if found.valid is None else found.valid[n]
        sequence = np.pad(inside, ((0, 0), *edges), mode="edge")[None]
        observed = np.broadcast_to(np.pad(seen, edges[1:]), (1, len(frames), *sequence.shape[-2:]))
        model.try_out(sequence, observed, judged.context, made)
    return made


def fitted_on(run: Path, event: str, runs: dict[str, Path], paths: Paths) -> HeldOut:
    """By what a run that is judged on an event, or on none yet, is trusted."""
    own = EVENTS.get(event)
    special = own is not None and own.lengths is not None
    parts = []
    for name in paths:
        apart = _names(paths[name], paths.get(event))
        unseen = [one for one in (run, *runs.values()) if not _trained_on(one) & apart]
        if name in (event, "OPERA") or not unseen:
            continue
        other = EVENTS[name]
        if own is not None and special:
            other = replace(other.thinned_to(own.cadence_s), lengths=own.lengths)
        judged = fitted_to(open_judged(unseen[0], backend=Backend(threads=1)), other)
        parts.append(tried(unseen[0], judged, material(judged, name, paths[name])))
    if not parts:
        raise SystemExit(f"{run}: no run forecasts another event that it did not see")
    return together(parts)


@cache
def _trained_on(run: Path) -> frozenset[str]:
    """Names of the archives that a run's training read; another may be its validation."""
    data = open_run(run).recipe.data
    assert isinstance(data, ArchiveSection)
    numbers = np.unique(open_archive(data, keep="physical").parts["training"].places[:, 0])
    return _names(*(data.paths[number] for number in numbers))


def _names(*archives: Path | None) -> frozenset[str]:
    return frozenset(path.name for path in archives if path is not None)


def trusted_by(run: Path, found: HeldOut, out: Path) -> Path:
    """A copy of the run, trusted by that."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    opened = open_run(out)
    model = opened.model()
    assert isinstance(model, Advect)
    model.trust_as(found)
    with atomic_file(out / WEIGHTS) as file:
        file.write(safetensors.torch.save(model.state_dict()))
    return out


def main() -> None:
    """Count, choose, score and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    for event in EVENTS:
        parser.add_argument(f"--{event.lower()}", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = {event: given.runs / f"no-{event.lower()}" for event in EVENTS}
    runs = {event: run for event, run in runs.items() if (run / WEIGHTS).is_file()}
    paths = {event: getattr(given, event.lower()) for event in runs}
    if given.keep is not None:
        final = given.runs / "final"
        trusted_by(final, fitted_on(final, "", runs, paths), given.keep)
    made: dict[str, Any] = {}
    for event, run in runs.items():
        fitted = fitted_on(run, event, runs, paths)
        chosen = trusted_by(run, fitted, given.runs / f"{run.name}{CHOSEN}")
        judged = fitted_to(open_judged(chosen, backend=Backend(threads=1)), EVENTS[event])
        judged = at_once(judged, chosen)
        found = material(judged, event, paths[event])
        assert found.field is not None
        judged = judged.covering(found.field)
        scores = evaluate(judged, found, baselines=["persistence", "flow"], scales=())
        made[event] = {"about": EVENTS[event].about, **document(scores)}
    with atomic_file(RESULT) as file:
        file.write(document_text({"events": made, "machine": describe()}).encode())


if __name__ == "__main__":
    main()
