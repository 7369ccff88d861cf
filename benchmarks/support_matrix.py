"""Which versions hold: trained bundles verified on each, in environments of their own.

    python benchmarks/support_matrix.py            # the whole range; writes docs/support.md
    python benchmarks/support_matrix.py --ends     # the ends of the range alone
    python benchmarks/support_matrix.py --minutes 20   # a part of it; the next one goes on

Needs PyTorch for the bundles, uv for the environments (fetched by pip where it is missing), and
Python 3.10 where it is at hand. Ends with 1 where a version within the stated range fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stpl_core.files import atomic_file
from stpl_core.machine import cpu_name
from stpl_runtime.engine import ENGINES

ROOT = Path(__file__).parents[1]


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


WORK = ROOT / "build" / "matrix"
BUNDLES = WORK / f"bundles-{_commit()[:12]}"
KEPT = WORK / "tried.json"
PAGE = ROOT / "docs" / "support.md"
LARGE = (
    "model.hidden=24",
    "model.layers=1",
    "model.patch=2",
    "data.validation_sequences=2",
    "training.batch=2",
    "training.iterations=3",
)
"""A model trained briefly whose widest norm has 24,576 elements: exported in float64."""
SMALL = ROOT / "tests" / "data" / "modernn-mini"
TESTS = ("pytest>=8", "pytest-timeout>=2.3", "psutil>=6", "hypothesis>=6.120")
COMMANDS = ("tests/core/test_errors.py", "tests/core/test_bundle.py", "tests/deploy/test_cli.py")
"""Files of tests that go through every verb's options, the manifest and the errors."""
ZARR = ("tests/core/readers/test_cf.py", "tests/runtime/sinks/test_outputs.py")
DEVICE = ("tests/runtime/engines/test_ort_gpu.py", "tests/runtime/sources/test_zmq.py")
TRAINED = (
    "tests/train/test_train_cli.py",
    "tests/export/test_export_options.py",
    "tests/core/readers/test_cf.py",
)
"""They train, export and convert."""


def _least(library: str) -> str:
    """The lowest version that pyproject.toml states."""
    found = re.search(rf'"{library}>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert found is not None, library
    return found[1]


OLDEST = _least("onnxruntime")
RUNTIMES = (OLDEST, *(f"1.{minor}" for minor in range(21, 33)))
_AT_ONCE = 2
"""Environments; each uses the CPUs in part."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True)
class Case:
    """One environment, and what is tried in it."""

    python: str
    pins: tuple[str, ...] = ()
    """Beside the newest version of everything."""
    extras: str = "cpu"
    lowest: bool = False
    """The lowest versions of all direct dependencies."""
    engine: str = "onnx"
    tests: tuple[str, ...] = ()
    """Beside the bundles."""

    @property
    def asked(self) -> str:
        """For the table."""
        if self.lowest:
            but = "".join(f", with {pin}" for pin in self.pins)
            return f"lowest of [{self.extras}], all together{but}"
        return ", ".join(self.pins) or "newest of everything"

    @property
    def torch(self) -> str:
        """The pin of it; empty where it is not needed."""
        return next((pin for pin in self.pins if pin.startswith("torch==")), "")


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    case: Case
    versions: str
    result: str
    """`holds`, `no build`, `not at hand`, `not run`, or what failed."""

    @property
    def failed(self) -> bool:
        """Whether a version that is there does not hold."""
        return self.result not in ("holds", "no build", "not at hand", "not run")

    def __str__(self) -> str:
        """For the log."""
        return f"Python {self.case.python}: {self.case.asked}: {self.result} ({self.versions})"


def main() -> int:
    """Make the bundles, try each environment, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ends", action="store_true", help="the ends of the range alone")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin nothing after; run it again for the rest",
    )
    asked = parser.parse_args()
    BUNDLES.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    pythons = {version: found for version in PYTHONS if (found := executable(version))}
    ends = [*_ends([*pythons])]
    cases = ends if asked.ends else [*dict.fromkeys((*ends, *_whole([*pythons])))]
    tried = {} if asked.ends else _tried()
    todo = [case for case in cases if case not in tried]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        uv, bundles = uv_command(), list(pool.map(_bundle, _BUNDLES))
        print(f"{time.monotonic() - began:4.0f} s  {len(bundles)} bundles", flush=True)

        def one(case: Case) -> Outcome | None:
            if time.monotonic() - began > 60 * asked.minutes:
                return None
            return _try(uv, case, pythons.get(case.python), bundles)

        for case, outcome in zip(todo, pool.map(one, todo), strict=True):
            if outcome is None:
                break
            tried[case] = outcome
            print(f"{time.monotonic() - began:4.0f} s  {outcome}", flush=True)
            if not asked.ends:
                _keep(tried.values())
    if len(tried) < len(cases):
        print(f"{len(tried)} of {len(cases)} tried; run it again for the rest")
    outcomes = [tried.get(case, Outcome(case, "", "not run")) for case in cases]
    if not asked.ends:
        with atomic_file(PAGE) as file:
            file.write(_page(outcomes, [bundle.name for bundle in bundles]).encode())
    return int(any(outcome.failed for outcome in outcomes))


def _tried() -> dict[Case, Outcome]:
    """By a run that was interrupted, of this very code."""
    if not KEPT.exists() or (kept := json.loads(KEPT.read_text()))["commit"] != _commit():
        return {}
    outcomes = [Outcome(_case(row["case"]), row["versions"], row["result"]) for row in kept["rows"]]
    return {outcome.case: outcome for outcome in outcomes}


def _case(kept: dict[str, Any]) -> Case:
    return Case(**kept | {"pins": tuple(kept["pins"]), "tests": tuple(kept["tests"])})


def _keep(outcomes: Iterable[Outcome]) -> None:
    with atomic_file(KEPT) as file:
        document = {"commit": _commit(), "rows": [asdict(outcome) for outcome in outcomes]}
        file.write(json.dumps(document).encode())


def _ends(pythons: Sequence[str]) -> Iterator[Case]:
    """What CI tries: the oldest and the newest, each on the oldest and the newest Python."""
    yield Case(pythons[0], (f"onnxruntime~={OLDEST}.0",))
    yield Case(pythons[-1], ("onnxruntime",))
    yield from _lowest(pythons)


def _lowest(pythons: Sequence[str]) -> Iterator[Case]:
    """Of what a device needs, on the oldest Python; of everything, on the one that runs this."""
    device = "cpu,dask,evaluate,live,openvino,page,readers,sign"
    yield Case(pythons[0], extras=device, lowest=True, tests=(*COMMANDS, *DEVICE))
    torch = f"torch=={version('torch').partition('+')[0]}"  # the lowest brings CUDA with it
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    yield Case(own, (torch,), extras="all,dask", lowest=True, tests=TRAINED)


def _whole(pythons: Sequence[str]) -> Iterator[Case]:
    for python in (pythons[0], pythons[-1]):
        for runtime in RUNTIMES:
            yield Case(python, (f"onnxruntime~={runtime}.0",))
        for pin in ("numpy~=1.26.0", "numpy>=2"):
            yield Case(python, (pin,))
        yield Case(python, ("zarr",), extras="cpu,readers", tests=ZARR)  # 2 for Python 3.10, or 3
        for engine in ("openvino",):
            if engine in ENGINES:
                yield Case(python, (engine,), extras=f"cpu,{engine}", engine=engine)
    yield from _lowest(pythons)
    for pin in (f"typer~={_least('typer')}.0", f"pydantic~={_least('pydantic')}.0"):
        yield Case(pythons[0], (pin,), tests=COMMANDS)
    for python in PYTHONS:
        yield Case(python, tests=COMMANDS if python == pythons[-1] else ())


def executable(version: str) -> str | None:
    """Of a Python on the path, or among pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    beside = [shutil.which(f"python{version}"), *sorted(root.glob(f"{version}.*/bin/python"))]
    for candidate in map(str, filter(None, beside)):
        script = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", script], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def uv_command() -> list[str]:
    """Of uv on the path, or of one that pip fetches for us."""
    if beside := shutil.which("uv"):
        return [beside]
    own = WORK / "uv"
    if not (own / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(own)], check=True)
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]
        subprocess.run(pip, check=True)
    return [str(own / "bin" / "uv")]


_EXPORTS: dict[str, tuple[str, ...]] = {
    "large-norms": ("--sequences", "2"),
    "fp16": ("--precision", "fp16", "--sequences", "4"),
    "int8": ("--precision", "int8", "--keep-slower", "--sequences", "4"),
}
_BUNDLES = (*_EXPORTS, "modernn-mini", "predrnn-digits")
"""Trained weights: norms small and large, fp32, fp16 and int8."""


def _bundle(name: str) -> Path:
    """One of those in tests/data; or made, once for a commit."""
    if name not in _EXPORTS:
        return ROOT / "tests" / "data" / f"{name}.bundle"
    out, run = BUNDLES / f"{name}.bundle", SMALL
    if out.exists():
        return out
    if name == "large-norms":
        run = BUNDLES / name
        settings = [word for key in LARGE for word in ("--set", key)]
        recipe = str(SMALL / "recipe.toml")
        _stpl("train", recipe, "--out", str(run), "--device", "cpu", "--resume", *settings)
    _stpl("export", str(run), "--out", str(out), *_EXPORTS[name])
    return out


def _stpl(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stpl_deploy", *words], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")


def _try(uv: Sequence[str], case: Case, base: str | None, bundles: Sequence[Path]) -> Outcome:
    if base is None:
        return Outcome(case, f"no Python {case.python} on this machine", "not at hand")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="env-") as folder:
        subprocess.run([*uv, "--quiet", "venv", "--python", base, folder], check=True)
        python = Path(folder) / "bin" / "python"
        if case.torch:  # by pip, which may know of a build without CUDA
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
            subprocess.run([*pip, case.torch], check=True)
        words = ["--editable", f"{ROOT}[{case.extras}]", *case.pins, *(TESTS if case.tests else ())]
        words += ["--resolution", "lowest-direct"] if case.lowest else []
        pip = [*uv, "--quiet", "pip", "install", "--python", str(python), *_WHEELS, *words]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            lacking = "No solution found" in done.stderr
            print(done.stderr.strip() if not lacking else "", flush=True)
            return Outcome(case, "", "no build" if lacking else "cannot be installed")
        return Outcome(case, _versions(python, case), _failure(python, case, bundles) or "holds")


_COMPILED = (
    "numpy onnxruntime openvino pillow pydantic-core h5py netcdf4 rasterio numcodecs cftime pyproj "
    "av cryptography watchfiles pandas eccodes confluent-kafka pyzmq matplotlib onnx "
    "opencv-python-headless scikit-learn scipy ml-dtypes"
)
_WHEELS = [word for name in _COMPILED.split() for word in ("--only-binary", name)]
"""Wheels alone: an edge device has no compiler."""


_VERIFY = """
import sys
from stpl_deploy.cli import run
for bundle in sys.argv[2:]:
    if code := run(["verify", bundle, "--engine", sys.argv[1]]):
        sys.exit(f"{bundle}: exit {code}")
"""
"""The verb on each bundle, in one process."""


def _failure(python: Path, case: Case, bundles: Sequence[Path]) -> str:
    """What does not hold; empty where all does."""
    verify = [str(python), "-c", _VERIFY, case.engine, *map(str, bundles)]
    run = subprocess.run(verify, cwd=WORK, capture_output=True, text=True)
    if run.returncode:
        print(run.stderr, flush=True)
        last = (run.stderr.strip().splitlines() or ["no word"])[-1]
        return last.replace(f"{ROOT}/", "")[:200]
    if case.tests:
        pytest = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        tests = [*pytest, *case.tests]
        if case.tests == ZARR:
            tests += ["-k", "zarr"]
        env = os.environ | ({} if case.torch else {"STPL_TORCH_FREE": "1"})
        run = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True, env=env)
        if run.returncode:
            print(run.stdout[-3000:], run.stderr[-1000:], flush=True)
            return f"tests: {(run.stdout.strip().splitlines() or ['no word'])[-1]}"
    return ""


_SHOWN = ("onnxruntime", "numpy", "typer", "click", "pydantic", "zarr", "openvino")


def _versions(python: Path, case: Case) -> str:
    """Of what was asked for; for the lowest versions, of everything that is required."""
    done = subprocess.run([str(python), "-c", _LIST], capture_output=True, text=True, check=True)
    found, required = json.loads(done.stdout)
    names = (*_SHOWN, *sorted(set(required) - set(_SHOWN))) if case.lowest else _SHOWN
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


_LIST = """
import json, re
from importlib.metadata import distributions, requires
plain = lambda name: name.lower().replace("_", "-")
found = {plain(one.metadata["Name"]): one.version for one in distributions()}
required = [plain(re.match(r"[\\w.-]+", one)[0]) for one in requires("stpl-deploy")]
print(json.dumps([found, required]))
"""


def _page(outcomes: Sequence[Outcome], bundles: Sequence[str]) -> str:
    rows = [
        f"| {one.case.python} | {one.case.asked} | {one.versions} | {one.result} |"
        for one in outcomes
    ]
    named = ", ".join(f"`{name}`" for name in bundles)
    return _PAGE.format(
        machine=f"{cpu_name()}, {platform.machine()}", bundles=named, rows="\n".join(rows)
    )


_PAGE = """\
# Supported versions

Written by `make matrix` (`benchmarks/support_matrix.py`) on {machine}. In each environment
`stpl-deploy verify` holds bundles of trained weights against PyTorch's own results: {bundles}.
They have norms small and large, and are in fp32, fp16 and int8. Rows that ask for typer,
pydantic or the lowest versions, and the newest Python's, run tests of the command line too; rows
that ask for zarr those of the reader; the row with torch trains and exports. CI runs the ends of
the range at each change, by `make matrix-ends`.

- `holds`: every bundle and every test passed.
- `no build`: there is no wheel of these versions for this Python.
- `not at hand`: the machine has no such Python.
- `not run`: not tried yet; `make matrix` goes on there.

| Python | asked for | installed | result |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    raise SystemExit(main())
