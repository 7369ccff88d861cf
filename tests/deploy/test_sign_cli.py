"""`sign`, and the verbs that open only what a trusted key signed."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography")
pytest.importorskip("onnxruntime")

from stpl_deploy.cli import run

TINY = Path(__file__).parents[1] / "data" / "convlstm-tiny.bundle"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(TINY, tmp_path / "b")
    np.save(tmp_path / "frames.npy", np.zeros((4, 1, 16, 16), np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return tmp_path


VERBS = [
    ["verify", "b", "--threads", "1"],
    ["predict", "b", "frames.npy", "--out", "out.npz", "--overwrite"],
    ["stream", "b", "frames", "--idle-timeout", "0.1"],
    ["serve", "b", "frames", "--port", "0", "--max-nowcasts", "1"],
    ["inspect", "b"],
    ["evaluate", "b", "--baseline", "persistence", "--threads", "1"],
    ["bench", "b", "--rounds", "3", "--threads", "1", "--out", "timed"],
    ["doctor", "b"],
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_only_what_a_trusted_key_signed_is_opened(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (here / "frames").mkdir()
    assert run(["sign", "--new-key", "signer"]) == 0
    keys = ["--trusted-keys", "signer.pub"]
    assert run([*words, *keys]) == 3
    assert "b is not signed" in capsys.readouterr().err
    assert run(["sign", "b", "--key", "signer", "--version", "5"]) == 0
    if words[0] != "serve":
        assert run([*words, *keys, "--min-version", "5"]) == 0
    assert run([*words, *keys, "--min-version", "6"]) == 3
    assert "b is version 5" in capsys.readouterr().err
    assert run(["sign", "--new-key", "other"]) == 0
    assert run([*words, "--trusted-keys", "other.pub"]) == 3
    assert run([*words, "--min-version", "5"]) == 2


def test_keys_without_a_bundle_are_no_way_around(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sign", "--new-key", "signer"]) == 0
    assert run(["doctor", "--trusted-keys", "signer.pub"]) == 2
    assert "no bundle is named" in capsys.readouterr().err


def test_an_older_version_is_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sign", "--new-key", "signer"]) == 0
    words = ["inspect", "b", "--trusted-keys", "signer.pub"]
    for version, code in ((5, 0), (7, 0), (6, 3), (7, 0)):
        assert run(["sign", "b", "--key", "signer", "--version", str(version)]) == 0
        assert run(words) == code
    assert run(["sign", "b", "--key", "signer", "--version", "6"]) == 0
    capsys.readouterr()
    assert run(words) == 3
    told = capsys.readouterr().err
    assert "version 7 or newer, which was opened here before" in told
    assert run([*words, *told.rpartition("once: ")[2].split()]) == 0
    assert run(words) == 0  # 6 is the newest again
    kept = list((here / "state" / "stpl-deploy" / "versions").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600]
    kept[0].write_text("{")
    assert run(words) == 0
    assert json.loads(kept[0].read_text())["version"] == 6


def test_the_library_and_plans_ask_for_signatures(here: Path) -> None:
    import stpl_deploy as stpl
    from stpl_core.errors import StplError
    from stpl_core.safety.signing import SignatureError

    assert run(["sign", "--new-key", "signer"]) == 0
    for work in (
        lambda: stpl.load("b", trusted_keys="signer.pub").close(),
        lambda: stpl.evaluate("b", trusted_keys="signer.pub", baseline="persistence", threads=1),
    ):
        with pytest.raises(SignatureError, match="not signed"):
            work()
        assert run(["sign", "b", "--key", "signer"]) == 0
        work()
        (here / "b" / "manifest.sig").unlink()
    assert run(["inspect", "b/step.engine", "--trusted-keys", "signer.pub"]) == 3
    with pytest.raises(StplError, match="only bundles are signed"):
        stpl.evaluate("frames.npy", trusted_keys="signer.pub")
    assert run(["inspect", "frames.npy", "--trusted-keys", "signer.pub"]) == 2


def test_a_key_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sign", "b"]) == 2
    assert run(["sign", "b", "--key", "nothing"]) == 2
    assert "private key" in capsys.readouterr().err
    assert run(["sign", "b", "--new-key", "signer"]) == 0
    assert run(["verify", "b", "--trusted-keys", "signer.pub", "--threads", "1"]) == 0


def test_a_process_of_its_own(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As a command, whose words are those of the new process."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "stpl_deploy", "verify", "b", "--threads", "1", "--isolated"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "checksums match" in done.stdout


def test_a_process_that_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from stpl_core.errors import BreachError
    from stpl_deploy.cli.options import isolated

    monkeypatch.setattr(sys, "executable", "/bin/sh")
    real = isolated.subprocess.run

    def ended(command: list[str], **how: object) -> object:
        return real(["/bin/sh", "-c", "kill -SEGV $$"], **how)  # type: ignore[call-overload]  # as Popen

    monkeypatch.setattr(isolated.subprocess, "run", ended)
    with pytest.raises(BreachError, match="SIGSEGV"):
        isolated.run_isolated(["verify", "b", "--isolated"])
