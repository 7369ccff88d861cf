"""`serve` and `stream` on the command line: skill, alarm, the page after the end, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from tests.runtime.conftest import Cli, picture

FAST = ("--source-option", "speed=1000000", "--cadence", "300", "--policy", "pace")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten frames, five minutes apart."""
    return frames(tmp_path / "in", [picture(n) for n in range(10)])


def frames(folder: Path, data: list[np.ndarray]) -> Path:
    folder.mkdir()
    for n, frame in enumerate(data):
        np.save(folder / f"2026013100{5 * n:02d}.npy", frame)
    return folder


def test_stream_tells_its_skill(cli: Cli, bundle: Bundle, folder: Path) -> None:
    words = ("stream", bundle.path, f"replay:{folder}", *FAST)
    code, out, _ = cli(*words, "--json", "--thresholds", "0.3,0.6")
    skill = json.loads(out)["skill"]
    assert code == 0
    assert skill["total"]["frames"] == [6, 5, 4]
    assert set(skill["total"]["per_lead"]["persistence"]) >= {"mse", "mae", "csi_0.3", "csi_0.6"}
    code, out, _ = cli(*words)
    assert re.search(r"^skill: MSE [\d.]+, persistence [\d.]+ \(.*\), 15 forecasts", out, re.M)
    code, out, _ = cli(*words, "--no-skill", "--json")
    assert "skill" not in json.loads(out)


def test_a_source_in_the_bundles_place_is_named(
    cli: Cli, bundle: Bundle, tmp_path: Path, folder: Path
) -> None:
    """The settings hold both; the first word of the command line is the bundle's all the same."""
    settings = tmp_path / "settings.toml"
    settings.write_text(f'bundle = "{bundle.path}"\nsource = "{folder}"\n')
    code, _, err = cli("stream", "--config", settings, f"replay:{folder}")
    assert code == 2
    assert "replay: begins a source, and stands where the bundle is expected" in err


def test_an_alarm_that_stands_at_the_end_is_told_by_the_exit_code(
    cli: Cli, bundle: Bundle, tmp_path: Path, folder: Path
) -> None:
    still = frames(tmp_path / "still", [picture(1)] * 10)
    code, out, err = cli("stream", bundle.path, f"replay:{still}", *FAST, "--alarm", "3")
    assert code == 3
    assert err.count("alarm: 3 frames in a row") == 1
    assert "alarm raised 1 times, and stands" in out
    code, out, err = cli("stream", bundle.path, f"replay:{still}", *FAST, "--alarm", "30")
    assert (code, err.count("frames in a row")) == (0, 0)


@contextmanager
def running(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`stpl-deploy serve` in a process of its own, and what it says of its page."""
    command = [sys.executable, "-m", "stpl_deploy", "serve", *map(str, words), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("page: http://"), line + process.stderr.read()
            yield process, line.removeprefix("page: ").strip()
        finally:
            process.kill()


def test_the_page_goes_on_after_the_end_and_ctrl_c_ends_it(bundle: Bundle, folder: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from tests.runtime.page.serving import Events, fetch

    with running(bundle.path, f"replay:{folder}", *FAST) as (process, url):
        port = int(url.rsplit(":", 1)[1].rstrip("/"))
        assert process.stderr is not None
        while "the page stays up" not in (line := process.stderr.readline()):
            assert line, "it ended"
        status, _, body = fetch(port, "/healthz")
        document = json.loads(body)
        assert (status, document["status"]) == (503, "stale")
        assert document["streams"][""]["reasons"] == ["the source ended"]
        with Events.listen(port) as sent:  # the counts may be those of a moment ago
            sent.until("pulse", lambda p: p["streams"][""]["nowcasts"]["made"] == 7)
        assert fetch(port, "/nowcast/latest?format=png")[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert "ended: the source ended" in out
    assert "skill: MSE" in out


def test_bound_elsewhere_a_token_is_made(bundle: Bundle, folder: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from tests.runtime.page.serving import fetch

    with running(bundle.path, folder, "--cadence", "300", "--host", "0.0.0.0") as (_, url):
        found = re.fullmatch(r"http://[^:]+:(\d+)/\?token=([\w-]{32,})", url)
        assert found is not None, url
        port, token = int(found[1]), found[2]
        assert fetch(port, "/")[0] == 401
        assert fetch(port, "/", {"Authorization": f"Bearer {token}"})[0] == 200


@pytest.mark.parametrize("verb", ["stream", "serve", "predict"])
def test_every_default_is_told_in_the_same_way(cli: Cli, verb: str) -> None:
    """As typer writes it, never in the prose beside it."""
    code, out, _ = cli(verb, "--help")
    assert code == 0
    text = re.sub("<[a-z][^>]*>", "", " ".join(out.split()))  # without what each value is
    brackets = re.findall(r"\[([^\]]*)\]", text.partition("Arguments:")[2])
    assert len(brackets) > 4
    for inside in brackets:
        assert re.match(r"default: |required$|[\dx]", inside), inside
    assert text.count("default: ") == sum("default: " in inside for inside in brackets)
