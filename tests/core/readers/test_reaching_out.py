"""No reader opens another file, asks another machine or starts a program because a file says so.

Libraries open files below Python, so the reading process is traced by the system where strace is
there; Python's own audit events are noted in any case.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

for library in ("h5py", "netCDF4", "rasterio", "zarr", "av", "xarray", "pyproj", "PIL"):
    pytest.importorskip(library)

from tests.core.readers.hostile import HOSTILE, make_all  # noqa: E402

READING = """
import json, sys
events = []
def note(event, words):
    if event in ("open", "socket.connect", "subprocess.Popen", "os.system", "os.exec"):
        events.append([event, str(words)])
sys.addaudithook(note)
from pathlib import Path
from stpl_core.errors import FrameError
from stpl_core.frames import read_array
from stpl_core.readers.opening import open_frames

def outcome(read, path):
    try:
        read(path)
    except FrameError as error:
        return str(error)
    except Exception as error:
        return f"not in one line: {error!r}"
    return ""

found = {}
for path in map(Path, sys.argv[1:]):
    found[path.name] = outcome(lambda path: open_frames(path).load(), path)
    if path.suffix in (".png", ".npy", ".npz"):
        found[f"{path.name} as an array"] = outcome(read_array, path)
print(json.dumps({"found": found, "events": events}))
"""


@dataclass(frozen=True)
class Seen:
    """What became of every hostile file."""

    found: dict[str, str]
    events: list[list[str]]
    calls: str
    secret: Path
    asked: list[str]
    mark: Path


@contextmanager
def asked_server() -> Iterator[tuple[str, list[str]]]:
    """A port that should stay unasked, and who asked it."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                asked.append("asked")
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    with asked_server() as found:
        yield found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, server: tuple[str, list[str]]) -> Seen:
    folder = tmp_path_factory.mktemp("hostile")
    url, asked = server
    secret = folder / "secret"
    secret.write_bytes(b"SECRET" * 64)
    paths = [str(path) for path in make_all(folder / "files", secret, url)]
    trace = folder / "trace"
    traced = [] if shutil.which("strace") is None else [
        "strace", "-f", "-qq", "-o", str(trace), "-e", "trace=openat,open,connect,execve",
    ]  # fmt: skip
    done = subprocess.run(
        [*traced, sys.executable, "-c", READING, *paths],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    calls = trace.read_text(errors="replace") if traced else ""
    return Seen(document["found"], document["events"], calls, secret, asked, folder / "mark")


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_line(seen: Seen, name: str) -> None:
    reasons = [text for found, text in seen.found.items() if found.split()[0] == name]
    for reason in reasons:
        assert reason, f"{name} was read"
        assert not reason.startswith("not in one line"), reason
        assert "\n" not in reason


def test_the_secret_stays_unread(seen: Seen) -> None:
    opened = [line for line in seen.calls.splitlines() if f'{seen.secret}"' in line]
    assert opened == []
    assert [event for event in seen.events if str(seen.secret) in event[1]] == []


def test_nobody_is_asked(seen: Seen) -> None:
    assert seen.asked == []
    network = [line for line in seen.calls.splitlines() if "connect(" in line and "AF_INET" in line]
    assert network == []
    assert [event for event in seen.events if event[0] == "socket.connect"] == []


def test_nothing_is_started(seen: Seen) -> None:
    """But for Python itself, and `uname`, by which Python's platform module names the processor."""
    calls = [line for line in seen.calls.splitlines() if "execve(" in line]
    assert [
        line for line in calls if not re.search(r'execve\("[^"]*/(python[\d.]*|uname)"', line)
    ] == []
    started = [words for event, words in seen.events if event not in ("open", "socket.connect")]
    assert [words for words in started if "uname" not in words] == []


def test_nothing_is_unpickled(seen: Seen) -> None:
    assert not seen.mark.exists()
