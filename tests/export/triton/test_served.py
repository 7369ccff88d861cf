"""Models that a real Triton server runs give what our session gives, or an error with a name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("tritonclient.grpc", reason="tritonclient is in the extra triton")

from stpl_core.bundle import MANIFEST, Bundle, GraphName, open_bundle
from stpl_core.errors import ChecksumError, EnvironmentFault, SequenceLostError, UsageError
from stpl_core.files import sha256_of
from stpl_core.option import fill
from stpl_core.options import BackfillOptions
from stpl_export.triton.config import Serving
from stpl_export.triton.lint import lint_repository
from stpl_export.triton.repository import GRAPHS, write_repository
from stpl_runtime.backfilling.backfill import run_backfill
from stpl_runtime.engine import Session, open_session
from stpl_runtime.nowcasting.predict import advance
from stpl_runtime.served.address import parse_address
from stpl_runtime.served.client import Client, Part
from stpl_runtime.served.session import KEPT, ServedSession
from tests.conftest import Cli
from tests.export.triton.server import TritonServer
from tests.runtime.links.brokers import free_port, make_certificate

DATA = Path(__file__).parents[2] / "data"
TINY = DATA / "convlstm-tiny.bundle"
FLAG = "mim"
"""A model whose state has a flag."""
OTHERS = ("predrnn", "e3d-lstm", "advect")
"""A memory that passes through the layers, a ring of old frames, an output beside the frame."""
NEAR = 1e-6


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return open_bundle(TINY)


Start = Callable[..., TritonServer]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Serves bundles by their names."""
    servers = []

    def make(
        bundles: dict[str, Bundle],
        graphs: Sequence[GraphName] = GRAPHS,
        tls: tuple[Path, Path] | None = None,
        **serving: Any,
    ) -> TritonServer:
        folder = tmp_path_factory.mktemp("triton")
        (folder / "models").mkdir()
        for name, bundle in bundles.items():
            how = Serving(name, backend="python", **serving)
            # Each model is a process, which takes seconds to start.
            wanted = graphs if name == TINY.stem else graphs[:1]
            write_repository(bundle, folder / name, how, wanted)
            for model in (folder / name).iterdir():
                model.rename(folder / "models" / model.name)
        lint_repository(folder / "models")
        server = TritonServer(folder / "models", folder, tls)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log.read_text()


BundleOf = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def bundles(tiny: Bundle, bundle_of: BundleOf) -> dict[str, Bundle]:
    return {TINY.stem: tiny, FLAG: bundle_of(FLAG)}


@pytest.fixture(scope="module")
def server(start: Start, bundles: dict[str, Bundle]) -> TritonServer:
    return start(bundles, sequences=64)


def served(
    server: TritonServer, bundle: Bundle, *graphs: Any, name: str = "", deadline: float = 30.0
) -> ServedSession:
    address = f"triton:{server.address}/{name}?deadline={deadline}{server.options}"
    session = open_session(bundle, graphs or ("step", "forecast"), engine=address)
    assert isinstance(session, ServedSession)
    return session


def own(bundle: Bundle, *graphs: Any) -> Session:
    return open_session(bundle, graphs or ("step", "forecast"), engine="onnx", threads=1)


def test_interleaved_sequences(server: TritonServer, bundles: dict[str, Bundle]) -> None:
    check_interleaved(server, bundles)


@pytest.mark.soak
def test_interleaved_sequences_of_other_kinds_of_state(start: Start, bundle_of: BundleOf) -> None:
    bundles = {name: bundle_of(name) for name in OTHERS}
    server = start(bundles, sequences=64)
    check_interleaved(server, bundles)
    server.stop()


def check_interleaved(server: TritonServer, bundles: dict[str, Bundle]) -> None:
    """32 of random length, several at a time: each has the guesses of our own session."""
    random = np.random.default_rng(0)
    client = Client(parse_address(server.address))
    names = list(bundles)
    left = {n: random.random((random.integers(2, 9), 1, 16, 16), np.float32) for n in range(32)}
    whose = {n: names[n % len(names)] for n in left}
    given = {n: list(frames) for n, frames in left.items()}
    found: dict[int, list[Any]] = {n: [] for n in left}
    while any(given.values()):
        name = names[random.integers(len(names))]
        going = [n for n in given if whose[n] == name and given[n] and random.random() < 0.7]
        if not going:
            continue
        bundle = bundles[name]
        spec = bundle.manifest.graphs["step"]
        checksum = sha256_of(bundle.file(MANIFEST))[:16]
        model = client.model(f"{name}_step", checksum)
        parts = [
            Part(1000 + n, start=not found[n], end=len(given[n]) == 1 and n % 2 == 0) for n in going
        ]
        frames = np.stack([given[n].pop(0) for n in going])  # (B, C, H, W)
        made = client.run_parts(model, parts, {spec.inputs[0]: frames}, spec.outputs[:1])
        for n, guess in zip(going, made[spec.outputs[0]], strict=True):
            found[n].append(guess)
    client.close()
    sessions = {name: own(bundle, "step") for name, bundle in bundles.items()}
    for n, frames in left.items():
        session = sessions[whose[n]]
        state = session.zero_state()
        for frame, guess in zip(frames, found[n], strict=True):
            right, state = session.step(frame[None], state)
            np.testing.assert_allclose(guess, right[0], rtol=0, atol=NEAR, err_msg=whose[n])


def test_the_session_keeps_its_protocol(server: TritonServer, tiny: Bundle) -> None:
    """Steps, forks, forecasts and rollouts of two sequences, by every way."""
    random = np.random.default_rng(1)
    frames = random.random((2, 6, 1, 16, 16), np.float32)  # (B, T, C, H, W)
    ours, theirs = own(tiny, "step", "forecast", "rollout"), served(server, tiny)
    results = []
    for session in (ours, theirs):
        made = [session.rollout(frames[:, :4])]
        state = session.zero_state(2)
        for t in range(3):
            state = advance(session, frames[:, t], state)
        first, after = session.forecast(frames[:, 3], state)
        again, _ = session.forecast(frames[:, 4], state)  # the state is as it was
        later, _ = session.forecast(frames[:, 4], after)
        made += [first, again, later]
        guess, state = session.step(frames[:, 3], state)
        made += [guess, session.step(frames[:, 4], state)[0]]
        results.append(made)
    for right, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=NEAR)
    np.testing.assert_allclose(results[1][1], results[1][0], rtol=0, atol=NEAR)
    assert f"at localhost:{server.port}, convlstm-tiny version 1" in theirs.provider
    with pytest.raises(UsageError, match="keeps its states to itself"):
        theirs.state_arrays(theirs.zero_state())
    theirs.close()


def test_a_long_carried_state(server: TritonServer, tiny: Bundle) -> None:
    """It goes on beyond the frames that are kept, and is refused where it would begin anew."""
    ours, theirs = own(tiny), served(server, tiny)
    random = np.random.default_rng(2)
    states = [ours.zero_state(), theirs.zero_state()]
    before: Any = None
    for _ in range(KEPT + 9):
        frame = random.random((1, 1, 16, 16), np.float32)
        before = states[1]
        states = [advance(ours, frame, states[0]), advance(theirs, frame, states[1])]
    frame = random.random((1, 1, 16, 16), np.float32)
    right, found = ours.forecast(frame, states[0])[0], theirs.forecast(frame, states[1])
    np.testing.assert_allclose(found[0], right, rtol=0, atol=NEAR)
    theirs.forecast(frame, found[1])
    with pytest.raises(SequenceLostError, match="first frames are no longer kept"):
        theirs.forecast(frame, replace(before, places=states[1].places | found[1].places))
    theirs.close()


def test_a_sequence_that_was_not_started(server: TritonServer, tiny: Bundle) -> None:
    client = Client(parse_address(server.address))
    model = client.model("convlstm-tiny_step", sha256_of(tiny.file(MANIFEST))[:16])
    frame = {"frame": np.zeros((1, 1, 16, 16), np.float32)}
    with pytest.raises(SequenceLostError, match="does not know the sequence"):
        client.run_parts(model, [Part(77)], frame, ["next_frame"])
    client.run_parts(model, [Part(77, start=True)], frame, ["next_frame"])
    client.run_parts(model, [Part(77, end=True)], frame, ["next_frame"])
    with pytest.raises(SequenceLostError, match="does not know the sequence"):
        client.run_parts(model, [Part(77)], frame, ["next_frame"])
    client.close()


def test_another_model_at_the_address(server: TritonServer, bundles: dict[str, Bundle]) -> None:
    with pytest.raises(ChecksumError, match="was made of the bundle"):
        served(server, bundles[FLAG], "step", name=TINY.stem)
    with pytest.raises(
        EnvironmentFault, match=r"no model other_step .* expected one of .*mim_step"
    ):
        served(server, bundles[FLAG], "step", name="other")


def test_nobody_at_the_address(tiny: Bundle) -> None:
    address = f"triton:grpc://127.0.0.1:{free_port()}?deadline=0.3"
    with pytest.raises(EnvironmentFault, match=r"did not answer for 0\.3 s"):
        open_session(tiny, ("step",), engine=address)


def test_restart_eviction_and_a_model_that_is_unloaded(
    start: Start, tiny: Bundle, tmp_path: Path
) -> None:
    """Never a wrong frame: the same one, or an error. All of it by TLS."""
    certificate = make_certificate(tmp_path)
    server = start({TINY.stem: tiny}, ("step",), certificate, idle_s=2.0)
    frames = np.random.default_rng(3).random((5, 1, 1, 16, 16), np.float32)
    ours = own(tiny)
    state: Any = ours.zero_state()
    guesses = []
    for frame in frames:
        guess, state = ours.step(frame, state)
        guesses.append(guess)
    strict, patient = (served(server, tiny, "step") for _ in range(2))
    hasty = served(server, tiny, "step", deadline=1.0)
    strict.prove()
    states: list[Any] = [strict.zero_state(), patient.zero_state()]
    for frame in frames[:2]:
        states = [strict.step(frame, states[0])[1], patient.step(frame, states[1])[1]]
    server.stop()
    server.start()
    with pytest.raises(SequenceLostError, match="lost a sequence"):
        strict.step(frames[2], states[0])
    guess, after = patient.step(frames[2], states[1])
    np.testing.assert_allclose(guess, guesses[2], rtol=0, atol=NEAR)
    guess, kept = strict.step(frames[0], strict.zero_state())
    time.sleep(4.5)  # the server's rest runs by the clock
    with pytest.raises(SequenceLostError, match="does not know the sequence"):
        strict.step(frames[1], kept)
    guess, after = patient.step(frames[3], after)
    np.testing.assert_allclose(guess, guesses[3], rtol=0, atol=NEAR)
    server.client().unload_model("convlstm-tiny_step")
    with pytest.raises(EnvironmentFault, match=r"convlstm-tiny_step|did not answer"):
        hasty.step(frames[0], hasty.zero_state())
    for scheme in ("grpc", "grpcs"):  # without TLS; with it, the server's certificate unknown
        address = f"triton:{scheme}://localhost:{server.port}?deadline=0.3"
        with pytest.raises(EnvironmentFault, match=r"did not answer .* wants TLS"):
            open_session(tiny, ("step",), engine=address)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of 6 frames, 5 minutes apart."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for n, frame in enumerate(np.random.default_rng(4).random((6, 1, 16, 16), np.float32)):
        np.save(folder / f"f_20260101{5 * n:04}.npy", frame)
    return folder


def test_the_verbs(server: TritonServer, cli: Cli, frames: Path, tmp_path: Path) -> None:
    """`verify` proves what is served; `predict` and `stream` write what they write here."""
    engine = f"triton:{server.address}"
    done = cli("verify", TINY, "--triton", server.address)
    assert done.returncode == 0, done.stderr
    assert f"at localhost:{server.port}, convlstm-tiny version 1" in done.stdout
    done = cli("verify", DATA / "modernn-mini.bundle", "--engine", f"{engine}/convlstm-tiny")
    assert (done.returncode, "was made of the bundle" in done.stderr) == (3, True)
    for name, word in (("ours", "onnx"), ("theirs", engine)):
        how = ("--engine", word, "--cadence", "300")
        done = cli("predict", TINY, frames, "--out", tmp_path / f"{name}.npz", *how)
        assert done.returncode == 0, done.stderr
        more = ("--idle-timeout", "1", "--policy", "queue")
        sink = f"npz:{tmp_path / name}"
        done = cli("stream", TINY, f"folder:{frames}", "--sink", sink, *how, *more)
        assert done.returncode == 0, done.stderr
    ours = [tmp_path / "ours.npz", *sorted((tmp_path / "ours").rglob("*.npz"))]
    assert len(ours) == 4
    for path in ours:
        other = str(path).replace(str(tmp_path / "ours"), str(tmp_path / "theirs"))
        with np.load(path) as right, np.load(other) as found:
            np.testing.assert_allclose(found["frames"], right["frames"], rtol=0, atol=NEAR)


def test_an_archive(
    server: TritonServer, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, each a client: the store of our own session."""
    monkeypatch.setattr("stpl_runtime.backfilling.backfill.usable_cpus", lambda: 2)
    found = []
    for name, engine in (("ours", "onnx"), ("theirs", f"triton:{server.address}")):
        out = tmp_path / f"{name}.zarr"
        asked = {"engine": engine, "cadence": 300.0, "workers": 1 + len(found)}
        words = {"bundle": TINY, "archive": frames, "out": out, **asked}
        report = run_backfill(fill(BackfillOptions, words))
        assert (report.counts.written, report.counts.failed) == (3, 0)
        with xr.open_zarr(out) as opened:
            found.append(opened.nowcast.values)  # (N, K, H, W)
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=NEAR)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (("--engine", "openvino"), "with --engine openvino; expected one of them"),
        (("--against", "onnx"), "--triton with --against, which does not hear it"),
        (("--bisect",), "--triton with --bisect, which does not hear it"),
        (("--threads", "2"), "expected the server's own threads"),
    ],
)
def test_options_that_a_server_does_not_hear(
    cli_here: Cli, more: tuple[str, ...], match: str
) -> None:
    done = cli_here("verify", TINY, "--triton", "grpc://localhost", *more)
    assert done.returncode == 2
    assert match in done.stderr


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("http://host:8000", "grpc://HOST:8001"),
        ("grpc://", "grpc://HOST:8001"),
        ("grpc://me@host", "no user"),
        ("grpc://host/a/b", "one name"),
        ("grpc://host?deadlin=3", "in place of deadlin"),
        ("grpc://host?deadline=soon", "deadline=S"),
        ("grpc://host?ca=/x", "grpcs:// with ca"),
        ("grpcs://host?ca=/not/there", "a file of certificates"),
        ("grpc://host:99999", "an address"),
    ],
)
def test_addresses_that_are_none(word: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        parse_address(word)
