"""The files of `stpl-deploy new`: settings, recipe, unit of systemd, and what to type in order."""

from __future__ import annotations

import getpass
import re
import shlex
import sys
from pathlib import Path

from stpl_core import __version__
from stpl_core.errors import UsageError
from stpl_core.files import atomic_directory
from stpl_deploy.cli.options.settings import toml_value
from stpl_deploy.starting.recipe import OTHER, PRETRAINED, recipe_text, runs_pretrained
from stpl_deploy.starting.sources import FoundSource

SETTINGS, RECIPE, README, ENVIRONMENT = "nowcast.toml", "recipe.toml", "README.md", "nowcast.env"
_BUNDLE = "model.bundle"
_HEAD = """# {name}

Nowcasts of {found.word}: {found.text}.
Written by stpl-deploy {version}; everything here is yours to change."""
_PAGE = f"""The page is at <http://127.0.0.1:8765>. Nowcasts are kept in `nowcasts/` for two days.
All settings are in `{SETTINGS}`."""


def write_folder(folder: Path, found: FoundSource) -> dict[str, str]:
    """Write the folder, complete or not at all.

    Args:
        folder: must not be there yet.
        found: the source that it is for.

    Returns:
        Each file with what it is for.

    Raises:
        UsageError: the folder exists.
    """
    home = folder.resolve()
    _check_text(home)
    texts = {
        README: (readme_text(home, found), "what to type, in order"),
        SETTINGS: (settings_text(home, found), "the settings of `stpl-deploy serve`"),
        f"{unit_name(home)}.service": (unit_text(home), "the service, for systemd"),
    }
    if found.archive is not None:
        texts[RECIPE] = (recipe_text(found), "for a model of your own")
    with atomic_directory(folder) as made:
        for file, (text, _) in texts.items():
            (made / file).write_text(text, encoding="utf-8")
    return {file: about for file, (_, about) in texts.items()}


def first_steps(home: Path, found: FoundSource) -> list[str]:
    """The command lines from here to a live page."""
    bundle = _word(home / _BUNDLE)
    if runs_pretrained(found):
        size = "x".join(map(str, found.shape[1:]))
        made = [f"stpl-deploy export pretrained:{PRETRAINED} --grid {size} --out {bundle}"]
    elif found.archive is None:
        return []
    else:
        made = own_model(home, _BUNDLE)
    if found.archive is not None:
        picture = _word(home / "nowcast.png")
        made.append(f"stpl-deploy predict {bundle} {_word(found.archive)} --out {picture}")
    return [*made, f"stpl-deploy serve --config {_word(home / SETTINGS)}"]


def own_model(home: Path, bundle: str) -> list[str]:
    """The command lines that train one."""
    run, recipe = _word(home / "run"), _word(home / RECIPE)
    return [
        f"stpl-deploy train {recipe} --out {run}",
        f"stpl-deploy export {run} --out {_word(home / bundle)}",
    ]


def settings_text(home: Path, found: FoundSource) -> str:
    """nowcast.toml."""
    source = f"source = {toml_value(found.word)}"
    if found.secret:
        source = (
            f"# The source's password stands in {ENVIRONMENT}, which this user alone may read:\n"
            f"# STPL_SOURCE='{found.word.replace('***@', 'USER:PASSWORD@')}'"
        )
    word = "png" if found.units == "1" else "nc"
    return f"""# Settings of `stpl-deploy serve`: any of its options, without the dashes.
bundle = {toml_value(str(home / _BUNDLE))}
{source}
sink = [{toml_value(f"{word}:{home / 'nowcasts'}")}]
keep-age = "2d"
state-file = {toml_value(str(home / "stream.state"))}
on-gap = "bridge"                 # the model's own forecast stands in for a missing frame, flagged

[serve]
port = 8765
# max-age = "none"                # for a folder of old files, which the page would call stale
"""


def unit_text(home: Path) -> str:
    """The unit for systemd; `runtime/deploy` has one that is stricter, for many streams."""
    program = Path(sys.executable).parent / "stpl-deploy"
    return f"""[Unit]
Description=Nowcasts of {_bare(Path(home.name))} (stpl-deploy)
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=10min
StartLimitBurst=20

[Service]
Type=notify
TimeoutStartSec=15min
WatchdogSec=2min
User={getpass.getuser()}
WorkingDirectory={_bare(home)}
CacheDirectory={unit_name(home)}
Environment=XDG_CACHE_HOME=%C/{unit_name(home)}
EnvironmentFile=-{_bare(home / ENVIRONMENT)}
ExecStart={_word_of_unit(program).replace("$", "$$")} serve --config {SETTINGS}
Restart=on-failure
RestartPreventExitStatus=2 3
RestartSec=2s
TimeoutStopSec=30s
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ReadWritePaths={_word_of_unit(home)}

[Install]
WantedBy=multi-user.target
"""


def readme_text(home: Path, found: FoundSource) -> str:
    """README.md."""
    steps = first_steps(home, found)
    about = ""
    if not steps:
        about = (
            "A live source keeps no frames to train on. Put some into the folder `archive` first: "
            "files of the same frames, or a film of the camera.\n\n"
        )
        run = _word(home / "run")
        steps = [f"stpl-deploy train {found.recipe or OTHER} --data archive --out {run}",
                 f"stpl-deploy export {run} --out {_word(home / _BUNDLE)}",
                 f"stpl-deploy serve --config {_word(home / SETTINGS)}"]  # fmt: skip
    unit = unit_name(home)
    copied = _word(home / f"{unit}.service")
    service = [
        f"sudo cp {copied} /etc/systemd/system/",
        f"sudo systemctl enable --now {unit}",
        f"journalctl --unit {unit} --follow",
    ]
    parts = [_HEAD.format(name=home.name, found=found, version=__version__)]
    typed = f"In {Path.cwd()}:"
    parts += ["## To a live page", about + typed, _block(steps), _PAGE]
    parts += ["## As a service", _block(service)]
    if found.secret:
        file = _word(home / ENVIRONMENT)
        written = f"(umask 077; echo \"STPL_SOURCE='ADDRESS'\" > {file})"
        parts += ["The source's password stands in a file of its own:", _block([written])]
    if found.archive is not None and runs_pretrained(found):
        parts += ["## A model of your own", _block(own_model(home, "own.bundle"))]
    return "\n\n".join(parts) + "\n"


def unit_name(home: Path) -> str:
    """What systemd calls the service: the folder's name, in letters that a unit may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", home.name).strip(".-") or "nowcast"


def _check_text(home: Path) -> None:
    """Refuse a path that no text file can hold in a line.

    Raises:
        UsageError: it has a line break, another control character or bytes that are no UTF-8.
    """
    if not str(home).isprintable():
        raise UsageError(
            f"{str(home)!r} cannot be written into a settings file",
            expected="a path of printable characters",
            fix="another FOLDER",
        )


def _block(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _word(path: Path) -> str:
    """A path as it is typed: relative to here where it lies below."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _bare(path: Path) -> str:
    """A path that is a unit's whole value: its percent signs stand for themselves."""
    return str(path).replace("%", "%%")


def _word_of_unit(path: Path) -> str:
    """A path that is one word of a unit's value."""
    text = _bare(path)
    if any(sign in text for sign in " \\\"'"):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return text
