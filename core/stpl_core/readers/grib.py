"""GRIB messages from the decoding process, and the grid they lie on (see `grib_grid`)."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, MissingExtraError
from stpl_core.grid import Grid
from stpl_core.readers import grib_process
from stpl_core.readers.grib_grid import grid_of_keys, refuse_unplaced
from stpl_core.safety.budget import copy_within, most_pixels, open_unpacked
from stpl_core.safety.half_written import scratch_directory

_DEADLINE_S = 60.0
"""Seconds for one message: the largest of a service takes two; a damaged one may take for ever."""

_BY_ITS_CONTENT = {
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGXCPU")
    if hasattr(signal, name)
}
"""Signals that damaged bytes bring about: a bad file, where SIGKILL is a fault of the machine."""

SUFFIXES: tuple[str, ...] = (".grib2", ".grb2", ".grib", ".grb", ".grib2.gz", ".grb2.gz")


@dataclass(frozen=True)
class Message:
    """One decoded message."""

    keys: dict[str, Any]
    """See `grib_process.KEYS`."""
    values: Array
    """`(H, W)`, row 0 in the north, column 0 in the west; NaN where the bitmap is off."""

    @property
    def time(self) -> np.datetime64:
        """When it is valid, UTC."""
        date, clock = int(self.keys["validityDate"]), int(self.keys["validityTime"])
        second = int(self.keys["second"] or 0)
        day = f"{date // 10000:04}-{date // 100 % 100:02}-{date % 100:02}"
        return np.datetime64(f"{day}T{clock // 100:02}:{clock % 100:02}:{second:02}", "ns")

    @property
    def triple(self) -> tuple[int | None, int | None, int | None]:
        """Discipline, category and number: what a GRIB2 field is, whatever its name."""
        return (
            self.keys["discipline"],
            self.keys["parameterCategory"],
            self.keys["parameterNumber"],
        )


def messages(path: Path) -> Iterator[Message]:
    """Decode a file, plain or gzipped, message by message, in another process.

    Raises:
        FrameError: it is not whole, or its grid is of a kind that is not placed here.
        MissingExtraError: eccodes is not installed.
        EnvironmentFault: the decoding process died on its own.
    """
    eccodes = importlib.util.find_spec("eccodes")
    if eccodes is None or eccodes.origin is None:
        raise MissingExtraError("eccodes", "grib")
    # -I sees neither PYTHONPATH nor the user's own folder of packages.
    libraries = {str(Path(origin).parents[1]) for origin in (eccodes.origin, np.__file__)}
    child = grib_process.__file__
    with _unzipped(path) as plain:
        command = [sys.executable, "-I", child, str(plain.absolute()), str(most_pixels())]
        command += sorted(libraries)
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(child).parent
        )
        assert process.stdout is not None
        try:
            yield from _received(process, process.stdout, path)
        finally:
            process.stdout.close()
            process.kill()  # at its end, or wanted no longer: its exit code means nothing
            process.wait()


def _received(process: subprocess.Popen[bytes], stream: IO[bytes], path: Path) -> Iterator[Message]:
    while line := _in_time(process, stream.readline):
        header = json.loads(line)
        if "error" in header:
            raise ValueError(header["error"])
        if "end" in header:
            if header["end"] == 0:
                raise EOFError("it holds no GRIB message")
            return
        content = _in_time(process, lambda: stream.read(4 * header["values"]))  # noqa: B023
        if len(content) < 4 * header["values"]:
            break
        yield _message(header, np.frombuffer(content, "<f4"), path)
    code = process.wait()
    if -code in _BY_ITS_CONTENT:
        name = signal.Signals(-code).name
        raise ValueError(f"decoding it ended the decoding process ({name}): it is damaged")
    raise EnvironmentFault(
        f"the process that decodes {path} ended with code {code}",
        expected="all messages",
        fix="pip install --upgrade --force-reinstall eccodes",
    )


def _in_time(process: subprocess.Popen[bytes], read: Callable[[], bytes]) -> bytes:
    """What `read` gets from the child, which is ended where that takes too long.

    Raises:
        ValueError: it took too long.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(_DEADLINE_S, end)
    timer.daemon = True
    timer.start()
    try:
        content = read()
    finally:
        timer.cancel()
    if late.is_set():
        raise ValueError(f"a message was not decoded in {_DEADLINE_S:g} s: it is damaged")
    return content


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    if not path.name.lower().endswith(".gz"):
        yield path
        return
    with scratch_directory("grib") as folder:
        plain = folder / path.name[: -len(".gz")]
        with open_unpacked(path) as packed, plain.open("wb") as file:
            copy_within(packed, file, path)
        yield plain


def _message(keys: dict[str, Any], values: Array, path: Path) -> Message:
    refuse_unplaced(keys, path)
    width, height = int(keys["Ni"]), int(keys["Nj"])
    if keys["jPointsAreConsecutive"]:
        field = values.reshape(width, height)
    else:
        field = values.reshape(height, width)
    if keys["alternativeRowScanning"]:
        field = field.copy()
        field[1::2] = field[1::2, ::-1]
    field = field.T if keys["jPointsAreConsecutive"] else field
    field = field[::-1] if keys["jScansPositively"] else field
    field = field[:, ::-1] if keys["iScansNegatively"] else field
    return Message(keys, np.ascontiguousarray(field))


def grid_of(message: Message, path: Path | str = "") -> Grid:
    """The grid from the header.

    Raises:
        FrameError: it is not placed by what the header says.
    """
    height, width = message.values.shape
    return grid_of_keys(message.keys, height, width, str(path))
