"""GRIB beside a stranger's modules, GRIB that never ends: no code of theirs runs, and it ends."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import pytest

if importlib.util.find_spec("eccodes") is None:
    pytest.skip("eccodes is not installed", allow_module_level=True)

from stpl_core.errors import FrameError
from stpl_core.readers import grib, grib_process
from stpl_core.readers.libraries import decoding

MARK = "from pathlib import Path\nPath(r'{mark}').write_text(__name__)\n"


@pytest.fixture
def trap(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of data with modules that would leave a mark; and the mark."""
    folder, mark = tmp_path / "data", tmp_path / "mark"
    folder.mkdir()
    for name in ("json", "eccodes", "numpy", "typing", "safetensors", "struct"):
        (folder / f"{name}.py").write_text(MARK.format(mark=mark))
    return folder, mark


def test_nothing_beside_the_data_is_imported(
    trap: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = trap
    (folder / "rain.grib2").write_bytes(b"GRIB" + bytes(60))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(FrameError), decoding(folder / "rain.grib2", "mrms"):
        list(grib.messages(Path("rain.grib2")))
    assert not mark.exists()


def test_a_verb_started_as_a_module_imports_nothing_from_here(trap: tuple[Path, Path]) -> None:
    folder, mark = trap
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for verb in (["--version"], ["data", "inspect", "nothing.npy"], ["inspect", "nothing"]):
        subprocess.run(
            [sys.executable, "-m", "stpl_deploy", *verb],
            cwd=folder, capture_output=True, check=False, env=environment,
        )  # fmt: skip
        assert not mark.exists(), verb


@pytest.mark.parametrize("how", ["busy", "asleep"])
def test_a_message_that_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A child that computes ends itself; one that hangs is ended."""
    child = tmp_path / "child.py"
    child.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path.append({str(Path(grib_process.__file__).parent)!r})
        import grib_process
        grib_process._allow_seconds(1)
        while {how == "busy"}:
            pass
        time.sleep(600)
        """)
    )
    monkeypatch.setattr(grib.grib_process, "__file__", str(child))
    monkeypatch.setattr(grib, "_DEADLINE_S", 60.0 if how == "busy" else 0.2)
    (tmp_path / "rain.grib2").write_bytes(b"GRIB")
    expected = "SIGXCPU" if how == "busy" else "not decoded in 0.2 s"
    with (
        pytest.raises(FrameError, match=expected),
        decoding(tmp_path / "rain.grib2", "mrms"),
    ):
        list(grib.messages(tmp_path / "rain.grib2"))


def test_more_values_than_any_field_has() -> None:
    class Claims:
        KeyValueNotFoundError = KeyError

        def codes_get(self, message: int, key: str) -> int:
            return {"numberOfValues": 1, "numberOfDataPoints": 2**31, "Ni": 1, "Nj": 1}[key]

    with pytest.raises(ValueError, match="numberOfDataPoints = 2147483648"):
        grib_process._check_size(Claims(), 0, 2**27)


@pytest.mark.parametrize(("code", "count", "fine"), [
    (0, 0, True), (1, 240, True), (13, 86_400, True), (4, 30, True), (255, 0, False),
    (2, 2**31 - 1, False), (7, 2, False), (1, -(2**31), False),
])  # fmt: skip
def test_a_lead_time_without_end(code: int, count: int, fine: bool) -> None:
    """Its date is counted on to day by day: minutes, or without end for the unit 255."""
    keys = {"indicatorOfUnitForForecastTime": code, "forecastTime": count}

    class Keys:
        KeyValueNotFoundError = KeyError

        def codes_get(self, message: int, key: str) -> int:
            return keys[key]

    with nullcontext() if fine else pytest.raises(ValueError, match=f"= {count} in the unit"):
        grib_process._check_lead(Keys(), 0)
