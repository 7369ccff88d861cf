"""Which versions hold: trained bundles verified on each, in environments of their own.

    python benchmarks/support_matrix.py            # the whole range; writes docs/support.md
    python benchmarks/support_matrix.py --ends     # the ends of the range alone

Needs PyTorch for the bundles, uv for the environments (fetched by pip where it is missing), and
Python 3.10 where it is at hand. Ends with 1 where a version within the stated range fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "matrix"
PAGE = ROOT / "docs" / "support.md"
RUN = ROOT / "tests" / "data" / "modernn-mini"
RADAR = "pretrained:radar-nowcast"
LARGE = (
    "model.hidden=24",
    "model.layers=1",
    "model.patch=2",
    "data.validation_sequences=2",
    "training.batch=2",
    "training.iterations=3",
)
"""A model trained briefly whose widest norm has 24,576 elements: exported in float64."""
FAST = ("tests/core/test_errors.py", "tests/core/test_bundle.py", "tests/deploy/test_cli.py")
"""What the lowest versions of everything together are tried with."""

OLDEST, NEWEST = "1.20", ""
"""ONNX Runtime, as pyproject.toml states the range; empty: what the index has."""
RUNTIMES = (OLDEST, "1.21", "1.22", "1.23", "1.24", "1.26", "1.28", "1.29", "1.30", NEWEST)
OTHERS = (
    "numpy~=1.26.0",
    "numpy>=2",
    "typer==0.18.0",
    "typer",
    "pydantic~=2.8.0",
    "pydantic",
)


@dataclass(frozen=True)
class Case:
    """One environment."""

    python: str
    pins: tuple[str, ...]
    lowest: bool = False
    """The lowest versions of all direct dependencies, and the fast tests."""

    @property
    def name(self) -> str:
        """For the table."""
        what = "lowest of all" if self.lowest else ", ".join(self.pins)
        return what or "newest"


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    case: Case
    versions: str
    failed: str
    """Empty where everything held; `-` where it cannot be installed."""


def main() -> int:
    """Make the bundles, try each environment, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ends", action="store_true", help="the ends of the range alone")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    bundles = list(_bundles())
    uv = _uv()
    outcomes = []
    for case in _ends() if asked.ends else _whole():
        outcome = _try(uv, case, bundles)
        print(
            f"{_mark(outcome)} Python {case.python}: {case.name} ({outcome.versions})", flush=True
        )
        outcomes.append(outcome)
    if not asked.ends:
        PAGE.write_text(_page(outcomes, [bundle.name for bundle in bundles]))
    return int(any(outcome.failed not in ("", "-") for outcome in outcomes))


def _ends() -> Iterator[Case]:
    old, new = _pythons()[0], _pythons()[-1]
    yield Case(old, (f"onnxruntime~={OLDEST}.0",))
    yield Case(new, ("onnxruntime",))
    yield Case(old, (), lowest=True)


def _whole() -> Iterator[Case]:
    yield from _ends()
    for python in _pythons():
        for version in RUNTIMES:
            yield Case(python, (f"onnxruntime~={version}.0" if version else "onnxruntime",))
        for pin in OTHERS:
            yield Case(python, ("onnxruntime", pin))


def _pythons() -> list[str]:
    """The oldest and the newest version on this machine, from 3.10 on."""
    found = [version for version in ("3.10", "3.11", "3.12", "3.13") if _executable(version)]
    return [found[0], found[-1]]


def _executable(version: str) -> str | None:
    """Of a Python on the path, or among pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    beside = [shutil.which(f"python{version}"), *sorted(root.glob(f"{version}.*/bin/python"))]
    for candidate in map(str, filter(None, beside)):
        script = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", script], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def _uv() -> list[str]:
    if beside := shutil.which("uv"):
        return [beside]
    own = WORK / "uv"
    if not (own / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(own)], check=True)
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]
        subprocess.run(pip, check=True)
    return [str(own / "bin" / "uv")]


def _bundles() -> Iterator[Path]:
    """Trained: small norms, large norms, fp16, int8; made once."""
    yield ROOT / "tests" / "data" / "modernn-mini.bundle"
    yield ROOT / "tests" / "data" / "predrnn-digits.bundle"
    large = WORK / "large"
    if not large.exists():
        settings = [word for key in LARGE for word in ("--set", key)]
        _stpl("train", str(RUN / "recipe.toml"), "--out", str(large), "--device", "cpu", *settings)
    for name, run, options in (
        ("large-norms.bundle", large, ("--sequences", "2")),
        ("fp16.bundle", RUN, ("--precision", "fp16", "--sequences", "4")),
        ("int8.bundle", RADAR, ("--precision", "int8", "--keep-slower", "--sequences", "4")),
    ):
        out = WORK / name
        if not out.exists():
            done = _stpl(
                "export", str(run), "--out", str(out), *options, check=name != "int8.bundle"
            )
            if done:
                print(f"no {name} on this processor: {done}", flush=True)
                continue
        yield out


def _stpl(*words: str, check: bool = True) -> str:
    """Run a verb; its last line where it failed and may."""
    done = subprocess.run(
        [sys.executable, "-m", "stpl_deploy", *words], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode and check:
        raise SystemExit(done.stderr)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _try(uv: Sequence[str], case: Case, bundles: Sequence[Path]) -> Outcome:
    place = WORK / "env"
    quiet = [*uv, "--quiet"]
    subprocess.run(
        [*quiet, "venv", "--clear", "--python", str(_executable(case.python)), str(place)],
        check=True,
    )
    python = place / "bin" / "python"
    install = [*quiet, "pip", "install", "--python", str(python)]
    words = ["--editable", f"{ROOT}[cpu]", *case.pins]
    if case.lowest:
        words += ["--resolution", "lowest-direct", "pytest>=8", "pytest-timeout>=2.3", "psutil>=6",
                  "hypothesis>=6.120"]  # fmt: skip
    done = subprocess.run([*install, *words], capture_output=True, text=True)
    if done.returncode:
        return Outcome(case, "cannot be installed", "-")
    versions = _versions(python)
    for bundle in bundles:
        verify = [str(python), "-m", "stpl_deploy", "verify", str(bundle)]
        run = subprocess.run(verify, cwd=WORK, capture_output=True, text=True)
        if run.returncode:
            return Outcome(case, versions, f"{bundle.name}: {run.stderr.strip()[-300:]}")
    if case.lowest:
        tests = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FAST]
        env = os.environ | {"STPL_TORCH_FREE": "1"}
        run = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True, env=env)
        if run.returncode:
            return Outcome(case, versions, run.stdout.strip()[-600:])
    return Outcome(case, versions, "")


def _versions(python: Path) -> str:
    script = (
        "from importlib.metadata import version as v\n"
        "names = 'onnxruntime', 'numpy', 'typer', 'click', 'pydantic'\n"
        "found = []\n"
        "for n in names:\n"
        "    try: found.append(f'{n} {v(n)}')\n"
        "    except Exception: pass\n"
        "print(', '.join(found))"
    )
    return subprocess.run(
        [str(python), "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def _mark(outcome: Outcome) -> str:
    return {"": "holds ", "-": "none  "}.get(outcome.failed, f"FAILS ({outcome.failed})")


def _page(outcomes: Sequence[Outcome], bundles: Sequence[str]) -> str:
    rows = [
        f"| {outcome.case.python} | {outcome.case.name} | {outcome.versions} | "
        f"{'holds' if not outcome.failed else 'no build' if outcome.failed == '-' else 'fails'} |"
        for outcome in outcomes
    ]
    return "\n".join(
        [
            "# Supported versions",
            "",
            "Written by `make matrix` (`benchmarks/support_matrix.py`). In each environment these",
            f"bundles of trained weights are verified: {', '.join(bundles)}.",
            "",
            "| Python | asked for | installed | result |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
