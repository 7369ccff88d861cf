"""What `predict` draws in a terminal, read back as a terminal does."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_deploy.cli.terminal.known import known_protocol, may_be_asked
from tests.runtime.conftest import Cli
from tests.runtime.verbs.folders import left

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
if sys.platform != "win32":
    from tests.runtime.verbs.terminals import DA1, Terminal

Rgb = NDArray[np.int64]
SIXELS = b"\x1b[?62;4;22c"
"""The answer of a terminal that draws them."""


@pytest.fixture
def expected(cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path) -> Path:
    """The nowcast as the file that the PNG sink writes."""
    out = tmp_path / "expected" / "nowcast.png"
    assert cli("predict", bundle.path, folder, "--out", out)[0] == 0
    return out


def pixels(png: Path | bytes) -> Rgb:
    opened = Image.open(io.BytesIO(png) if isinstance(png, bytes) else png)
    return np.asarray(opened.convert("RGB"), np.int64)


def is_same(*files: bytes) -> bool:
    """Whether they are equal; pytest takes minutes to say where long ones differ."""
    return len(set(files)) == 1


def of_kitty(seen: bytes) -> tuple[dict[str, str], bytes]:
    """Keys and PNG, by kitty's specification of its graphics protocol."""
    found = re.findall(rb"\x1b_G([^;\x1b]*);([A-Za-z0-9+/=]*)\x1b\\", seen)
    keys = [dict(pair.split("=") for pair in one.decode().split(",")) for one, _ in found]
    assert [one["m"] for one in keys] == ["1"] * (len(keys) - 1) + ["0"]
    assert all(len(piece) <= 4096 for _, piece in found)
    assert all(len(piece) % 4 == 0 for _, piece in found[:-1])
    assert all(set(one) == {"m"} for one in keys[1:]), "only the first piece has other keys"
    return keys[0], base64.b64decode(b"".join(piece for _, piece in found), validate=True)


def of_iterm(seen: bytes) -> tuple[dict[str, str], bytes]:
    """Arguments and file, by iTerm2's description of inline images."""
    ((given, text),) = re.findall(rb"\x1b\]1337;File=([^:\x07]*):([A-Za-z0-9+/=]*)\x07", seen)
    return dict(one.split("=") for one in given.decode().split(";")), base64.b64decode(text)


def of_sixels(seen: bytes, tmp_path: Path) -> Rgb:
    """By the decoder of libsixel."""
    decoder = shutil.which("sixel2png")
    if decoder is None:
        pytest.skip("no sixel2png: apt-get install libsixel-bin")
    (drawn,) = re.findall(rb"\x1bP[0-9;]*q[^\x1b]*\x1b\\", seen)
    png = tmp_path / "decoded.png"
    subprocess.run([decoder, "-o", png], input=drawn, check=True, timeout=60)
    return pixels(png)


def test_kitty_has_the_very_picture(
    bundle: Bundle, folder: Path, expected: Path, tmp_path: Path
) -> None:
    terminal, out = Terminal(), tmp_path / "out" / "nowcast.npz"
    assert terminal.run("predict", bundle.path, folder, "--out", out, TERM="xterm-kitty") == 0
    keys, png = of_kitty(terminal.seen)
    assert keys == {"a": "T", "f": "100", "q": "2", "m": keys["m"]}
    assert is_same(png, expected.read_bytes())
    report, drawn = terminal.seen.split(b"\x1b", 1)
    assert f"{out}: 3 frames of 1x16x16".encode() in report
    assert drawn.endswith(b"\x1b\\\r\n"), "the picture is the last"
    assert left(out.parent) == ["nowcast.npz"], "and nothing else was written"


def test_iterm_has_the_very_picture(
    bundle: Bundle, folder: Path, expected: Path, tmp_path: Path
) -> None:
    terminal, out = Terminal(), tmp_path / "nowcast.png"
    code = terminal.run("predict", bundle.path, folder, "--out", out, TERM_PROGRAM="iTerm.app")
    assert code == 0
    keys, png = of_iterm(terminal.seen)
    assert keys == {"inline": "1", "size": str(len(png)), "preserveAspectRatio": "1"}
    assert is_same(png, expected.read_bytes(), out.read_bytes())


def test_sixels_have_its_colours(
    bundle: Bundle, folder: Path, expected: Path, tmp_path: Path
) -> None:
    """By a terminal's own word that it draws them."""
    terminal = Terminal(answer=SIXELS)
    words = ("predict", bundle.path, folder, "--out", tmp_path / "nowcast.npz")
    assert terminal.run(*words) == 0
    found, wanted = of_sixels(terminal.seen, tmp_path), pixels(expected)
    assert found.shape == wanted.shape
    off = np.abs(found - wanted)
    assert off.mean() < 1.5, "of 255; a hundredth, in which sixels have colours, is 2.55"
    assert off.max() <= 12
    assert terminal.modes[0] == terminal.modes[1]


def test_a_terminal_without_sixels_is_asked_and_left_in_peace(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    for answer in (b"\x1b[?62;22c", b""):
        terminal, out = Terminal(answer=answer), tmp_path / f"{len(answer)}.npz"
        assert terminal.run("predict", bundle.path, folder, "--out", out) == 0
        assert terminal.seen.count(b"\x1b") == terminal.seen.count(DA1) == 1
        assert terminal.modes[0] == terminal.modes[1]


def test_what_was_typed_ahead_stays_the_shells(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    for n, typed in enumerate((b"ls\n", b"ls")):
        terminal, out = Terminal(answer=SIXELS, typed=typed), tmp_path / f"{n}.npz"
        assert terminal.run("predict", bundle.path, folder, "--out", out) == 0
        assert DA1 not in terminal.seen
        assert terminal.left == typed
        assert terminal.modes[0] == terminal.modes[1]


def test_a_narrow_terminal_has_fewer_frames(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    words = ("predict", bundle.path, folder, "--horizon", 12, "--out")
    narrow = Terminal(columns=40, pixels=330)
    assert narrow.run(*words, tmp_path / "a.npz", TERM="xterm-kitty") == 0
    keys, png = of_kitty(narrow.seen)
    image = pixels(png)
    assert image.shape[1] <= 330 or keys["c"] == "40"
    tiny = Terminal(columns=20, pixels=160)
    assert tiny.run(*words, tmp_path / "b.npz", "--preview", "iterm") == 0
    assert of_iterm(tiny.seen)[0]["width"] == "100%"
    tiny = Terminal(columns=20, pixels=160)
    assert tiny.run(*words, tmp_path / "c.npz", STPL_PREVIEW="sixel") == 0
    assert of_sixels(tiny.seen, tmp_path).shape[1] == 160


def test_no_picture_where_none_is_wanted(
    cli: Cli, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    words = ("predict", bundle.path, folder, "--out")
    for n, more in enumerate((["--preview", "none"], ["--json", "--preview", "kitty"])):
        terminal = Terminal(answer=SIXELS)
        assert terminal.run(*words, tmp_path / f"{n}.npz", *more, TERM="xterm-kitty") == 0
        assert b"\x1b" not in terminal.seen
    assert json.loads(terminal.seen)["shape"] == [3, 1, 16, 16]
    code, out, _ = cli(*words, tmp_path / "piped.npz", "--preview", "kitty")
    assert (code, "\x1b" in out) == (0, False)
    many = np.random.default_rng(0).random((2, 6, 1, 16, 16), np.float32)
    np.save(tmp_path / "many.npy", many)
    terminal = Terminal()
    asked = ("predict", bundle.path, tmp_path / "many.npy", "--out", tmp_path / "m.npz")
    assert terminal.run(*asked, "--preview", "kitty") == 0
    assert b"\x1b" not in terminal.seen


@pytest.mark.parametrize(
    ("environment", "word", "asked"),
    [
        ({"TERM": "xterm-kitty"}, "kitty", True),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty", True),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty", True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm", True),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm", True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm", True),
        ({"TERM": "foot"}, "sixel", True),
        # Another terminal that was started from a shell in kitty.
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "TERM_PROGRAM": "vscode"}, None, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None, True),
        # Within tmux the names are those of the terminal outside.
        ({"TERM": "tmux-256color", "TMUX": "/x", "KITTY_WINDOW_ID": "1"}, None, True),
        ({"TERM": "screen-256color", "TMUX": "/x", "LC_TERMINAL": "iTerm2"}, None, True),
        ({"TERM": "screen", "STY": "1.x", "TERM_PROGRAM": "iTerm.app"}, None, False),
        ({"TERM": "linux"}, None, False),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None, False),
        ({}, None, False),
    ],
)
def test_terminals_by_their_names(
    environment: dict[str, str], word: str | None, asked: bool
) -> None:
    assert known_protocol(environment) == word
    assert may_be_asked(environment) is asked
