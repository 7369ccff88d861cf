"""`stpl-deploy doctor`: what this machine has, what works, and what to type for the rest."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stpl_core.errors import NEWER_PYTHON, EnvironmentFault, UsageError, install_command
from stpl_core.option import Option
from stpl_core.options import SignatureOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb

if TYPE_CHECKING:
    from stpl_core.bundle import Bundle
    from stpl_core.machine import Machine
    from stpl_runtime.engines.auto.table import Table
    from stpl_runtime.engines.preflight import Ability
    from stpl_runtime.engines.providers import ProviderTrial

DISTRIBUTION = "stpl-deploy"

_NVIDIA_ONLY = ("gpu", "trt")
"""Extras of no use without an NVIDIA GPU; trt-rtx builds plans for GPUs of other machines."""
_NOT_HERE = "not for this machine"


@dataclass(frozen=True)
class Extra:
    """One extra of stpl-deploy and what of it is not installed."""

    extra: str
    missing: tuple[str, ...]
    fix: str
    """What to type, or that it is `not for this machine`; empty where nothing is missing."""


@dataclass(frozen=True)
class Examination:
    """Everything that doctor found."""

    machine: Machine
    trials: tuple[ProviderTrial, ...]
    abilities: tuple[Ability, ...]
    """What each TensorRT flavour can do here; known from what is installed, nothing is loaded."""
    extras: tuple[Extra, ...]
    problems: tuple[str, ...]
    """Things that are wrong, each with what to type."""

    @property
    def works(self) -> bool:
        """Whether a bundle can run here at all."""
        return any(trial.works for trial in self.trials)


@dataclass(frozen=True)
class DoctorCommand:
    """The options of `doctor`."""

    bundle: Annotated[
        Path | None,
        Option(
            "Bundle: the ways to run it here, timed.", default="the machine alone", argument=True
        ),
    ] = None
    signature: SignatureOptions = field(default_factory=SignatureOptions)
    json: Json = False


@verb
def doctor(options: DoctorCommand) -> None:
    """Say what this machine has, which engines really work, and what to type for the rest."""
    opened = _opened(options)
    found = examine_all()
    tables = () if opened is None else _timed(opened)
    if options.json:
        from stpl_deploy.cli.reports.output import print_json

        timed = {} if options.bundle is None else {"timed": [asdict(table) for table in tables]}
        print_json({"works": found.works, **asdict(found), **timed})
    else:
        _print(found)
        for table in tables:
            _print_ways(table)
    if not found.works:
        raise EnvironmentFault(
            "no engine works on this machine",
            expected="one that can run a bundle",
            fix=_first_fix(found.problems),
        )


def _opened(options: DoctorCommand) -> Bundle | None:
    """The bundle, if one is named and it is signed as the options ask."""
    from stpl_core.safety.open_signed import open_signed

    if options.bundle is not None:
        return open_signed(options.bundle, options.signature)
    if options.signature != SignatureOptions():
        raise UsageError(
            "a signature is asked for, and no bundle is named",
            expected="the bundle that is signed",
            fix="stpl-deploy doctor BUNDLE --trusted-keys KEYS",
        )
    return None


def _timed(opened: Bundle) -> tuple[Table, ...]:
    """What was measured of a bundle here; measured now where nothing was."""
    from stpl_deploy.cli.reports.output import say
    from stpl_runtime.engines.auto.candidates import Asked
    from stpl_runtime.engines.auto.choose import LONGEST_S, measured_table
    from stpl_runtime.engines.auto.table import tables_of
    from stpl_runtime.nowcasting.predict import graphs_needed

    asked = Asked(graphs_needed(opened.manifest, opened.manifest.horizon))
    here = measured_table(opened, asked, say, most_s=LONGEST_S)
    return tuple(tables_of(opened)) or (here,)


def examine_all() -> Examination:
    """Look at the machine, try every provider, and compare the extras with what is installed."""
    from stpl_core import machine
    from stpl_runtime.engines.preflight import abilities, look_here
    from stpl_runtime.engines.providers import try_openvino, try_providers

    here = machine.examine()
    problems = list(machine.clashes(here.libraries))
    trials: tuple[ProviderTrial, ...] = ()
    try:
        trials = try_providers()
    except ImportError as error:
        if not problems:
            build = next((name for name in machine.ORT_BUILDS if here.libraries[name]), None)
            problems.append(
                f"{build} {here.libraries[build]} cannot be imported ({error}); "
                f"try: pip install --force-reinstall {build}"
                if build
                else f"onnxruntime is not installed; try: {install_command('cpu')}"
            )
    trials += try_openvino()
    local = look_here()
    able = abilities(local)
    nvidia = bool(local.gpu or here.gpus or here.nvidia_driver or here.jetson)
    found = tuple(extras(here.libraries, nvidia=nvidia))
    if nvidia:  # without a GPU it is no problem that they do not load
        problems += [f"{t.provider}: {t.note}; try: {t.fix}" for t in trials if t.fix]
    return Examination(here, trials, able, found, tuple(problems))


def extras(libraries: dict[str, str | None], *, nvidia: bool) -> list[Extra]:
    """Compare this package's own metadata with what is installed.

    Args:
        libraries: distribution -> version, of the machine's report.
        nvidia: whether the machine has an NVIDIA GPU or its driver.
    """
    from stpl_core.machine import ORT_BUILDS, installed_version

    has_ort = any(libraries.get(name) for name in ORT_BUILDS)
    missing: dict[str, list[str]] = {}
    too_old: set[str] = set()
    for line in metadata.requires(DISTRIBUTION) or ():
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        library = re.match(r"[\w.-]+", line)
        if extra is None or library is None or extra[1] == "all":
            continue
        gaps = missing.setdefault(extra[1], [])
        present = installed_version(library[0]) or (library[0] == "onnxruntime" and has_ort)
        if not present:
            gaps.append(library[0])
            if extra[1] in NEWER_PYTHON and sys.version_info < (3, 11):
                too_old.add(extra[1])
    return [
        Extra(
            extra,
            tuple(dict.fromkeys(gaps)),
            _NOT_HERE
            if gaps and extra in _NVIDIA_ONLY and not nvidia
            else _fix(extra, bool(gaps), extra in too_old, has_ort),
        )
        for extra, gaps in sorted(missing.items())
    ]


def _fix(extra: str, lacks: bool, too_old: bool, has_ort: bool) -> str:
    if not lacks:
        return ""
    if too_old:
        return "Python 3.11 or later"
    if extra == "gpu" and has_ort:
        return f"pip uninstall -y onnxruntime && pip install '{DISTRIBUTION}[gpu]'"
    return install_command(extra)


def _first_fix(problems: tuple[str, ...]) -> str:
    return next((line.partition("try: ")[2] for line in problems), "pip install -U onnxruntime")


def _print(found: Examination) -> None:
    from stpl_deploy.cli.reports.output import print_table

    here = found.machine
    rows: dict[str, Any] = {
        "stpl-deploy": here.stpl_deploy,
        "Python": here.python,
        "system": f"{here.system}, {here.arch}",
        "processor": f"{here.cpu}, {here.usable_cpus} CPUs usable",
        "memory": f"{here.memory_gib:g} GiB",
        "NVIDIA": _nvidia(here),
        **{name: version for name, version in here.libraries.items() if version},
    }
    sys.stdout.write("this machine\n")
    for name, value in rows.items():
        sys.stdout.write(f"  {name:<18}{value}\n")
    print_table(
        "ONNX Runtime's providers and OpenVINO's devices, each tried",
        ["provider", "engine", "works", "why not"],
        [
            [trial.provider, trial.engine, "yes" if trial.works else "no", trial.note]
            for trial in found.trials
        ],
    )
    print_table(
        "TensorRT, by what is installed",
        ["flavour", "version", "builds", "runs", "why not"],
        [
            [
                a.name,
                a.version or "",
                *("yes" if can else "no" for can in (a.builds, a.runs)),
                a.note,
            ]
            for a in found.abilities
        ],
    )
    sys.stdout.write("extras\n")
    for item in found.extras:
        way = item.fix if item.fix == _NOT_HERE else f"try: {item.fix}"
        lack = f"lacks {', '.join(item.missing)}; {way}" if item.missing else "installed"
        sys.stdout.write(f"  {item.extra:<18}{lack}\n")
    for problem in found.problems:
        sys.stdout.write(f"problem: {problem}\n")


def _print_ways(table: Table) -> None:
    from stpl_deploy.cli.reports.output import print_table

    best = table.best
    print_table(
        f"ways to run it, measured {table.measured} on a {table.load} machine; "
        f"graphs {', '.join(table.graphs)}",
        ["engine", "forecast", "threads", "precision", "ms a nowcast", "opens in s", ""],
        [
            [
                row.candidate.engine,
                row.candidate.way,
                str(row.candidate.threads),
                row.candidate.precision,
                "" if row.ms is None else f"{row.ms:.1f}",
                f"{row.opened_s:.2f}",
                "taken by --engine auto" if row is best else row.note,
            ]
            for row in table.rows
        ],
    )


def _nvidia(here: Machine) -> str:
    board = f"Jetson Linux {here.jetson}" if here.jetson else ""
    driver = f"driver {here.nvidia_driver}" if here.nvidia_driver else ""
    return ", ".join(part for part in (board, driver, *here.gpus) if part) or "no driver"
