"""`import stpl_deploy as stpl`: cheap to import, and every name of it does what the verbs do."""

from __future__ import annotations

import ast
import gc
import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stpl_deploy as stpl
from stpl_core.bundle import open_bundle
from stpl_core.errors import FrameError, UsageError
from stpl_runtime.engine import open_session
from stpl_runtime.nowcasting.predict import predict_sequences

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests" / "data" / "convlstm-tiny.bundle"
"""T = 4, K = 3, 16x16."""


def frames(count: int) -> np.ndarray:
    """`(count, 1, 16, 16)` in [0, 1]."""
    return np.random.default_rng(count).random((count, 1, 16, 16), np.float32)


def expected(given: np.ndarray, horizon: int = 3) -> np.ndarray:
    """What the engine makes of `(T, C, H, W)`."""
    bundle = open_bundle(BUNDLE)
    session = open_session(bundle, ("step", "forecast"))
    try:
        return predict_sequences(bundle, session, given[None], horizon)[0]
    finally:
        session.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine frames, one an hour."""
    path = tmp_path / "in"
    path.mkdir()
    for n, frame in enumerate(frames(9)):
        np.save(path / f"f20260101{n:02d}00.npy", frame)
    return path


def test_importing_it_imports_nothing_heavy() -> None:
    program = "import json, sys, stpl_deploy; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)  # fmt: skip
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    heavy = {"numpy", "pydantic", "typer", "torch", "xarray", "rich", "stpl_runtime", "stpl_train"}
    assert loaded.isdisjoint(heavy), loaded & heavy


def test_every_name_is_there_sorted_and_typed() -> None:
    assert list(stpl.__all__) == sorted(stpl.__all__)
    assert set(stpl.__all__) <= set(dir(stpl))
    tree = ast.parse((ROOT / "stpl_deploy" / "__init__.py").read_text())
    (typed,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    names = {
        alias.asname
        for node in typed.body
        for alias in node.names  # type: ignore[attr-defined]  # imports all
    }
    assert names == set(stpl.__all__)  # what a type checker sees is what there is
    for name in stpl.__all__:
        if name == "Run":
            pytest.importorskip("torch")
        assert getattr(stpl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        stpl.laod  # noqa: B018


def test_an_array_becomes_a_dataset_of_the_same_numbers() -> None:
    pytest.importorskip("xarray")
    given = frames(6)
    with stpl.load(BUNDLE) as model:
        for array in (given, given[:, 0]):
            made = model.predict(array)
            assert made["nowcast"].dims == ("step", "y", "x")
            np.testing.assert_array_equal(made["nowcast"].values, expected(given)[:, 0])
        longer = model.nowcast(np.stack([given, given]), horizon=5)
        assert longer.frames.shape == (2, 5, 1, 16, 16)
        np.testing.assert_allclose(longer.frames[1], expected(given, 5), rtol=0, atol=1e-6)
        with pytest.raises(UsageError, match=r"2 sequences; expected one"):
            model.predict(np.stack([given, given]))


def test_files_and_datasets_have_times(folder: Path, tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    given = frames(9)
    with stpl.load(str(BUNDLE)) as model:
        made = model.predict(folder)
        hours = np.arange("2026-01-01T09", "2026-01-01T12", dtype="datetime64[h]")
        assert (made["time"].values == hours).all()
        assert made["lead_time"].values.tolist() == [3600.0, 7200.0, 10800.0]
        np.testing.assert_array_equal(made["nowcast"].values, expected(given)[:, 0])
        made.to_netcdf(tmp_path / "n.nc")
        time = np.arange("2026-01-01T00", "2026-01-01T09", dtype="datetime64[h]")
        coordinates = {"time": time.astype("datetime64[ns]"), "y": np.arange(16.0)[::-1],
                       "x": np.arange(16.0)}  # fmt: skip
        field = xr.DataArray(given[:, 0], coordinates, ("time", "y", "x"), "level", {"units": "1"})
        for dataset in (field, field.to_dataset()):
            again = model.predict(dataset)
            assert (again["time"].values == hours).all()
            np.testing.assert_array_equal(again["nowcast"].values, made["nowcast"].values)
        with pytest.raises(FrameError, match="expected 4 frames"):
            model.predict(field.isel(time=[0, 1, 3, 5, 8]))
    with xr.open_dataset(tmp_path / "n.nc") as read:
        np.testing.assert_array_equal(read["nowcast"].values, made["nowcast"].values)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.predict(frames(6), horzion=3), "predict knows no option horzion"),
        (lambda m: m.predict(frames(6), horizon=0), "horizon=0; expected 1 or more"),
        (lambda m: m.predict(frames(3)), "3 frame(s); expected at least 4"),
        (lambda m: m.predict(frames(6)[..., :9]), "has shape (6, 1, 16, 9)"),
        (lambda m: m.predict(7), "frames are a int; expected a path"),
        (lambda m: m.predict(BUNDLE), "is a bundle; expected frames"),
        (lambda m: m.stream("in", polcy="pace"), "stream knows no option polcy"),
        (lambda m: m.stream("in", policy="fast"), "policy='fast'; expected one of latest"),
        (lambda m: m.stream("rstp://a"), "unknown source rstp"),
    ],
)
def test_a_mistake_is_one_line(call: Any, words: str) -> None:
    pytest.importorskip("xarray")
    with stpl.load(BUNDLE) as model, pytest.raises(stpl.StplError) as caught:
        call(model)
    assert words in str(caught.value)


def test_a_stream_gives_every_nowcast_to_whoever_iterates(folder: Path, tmp_path: Path) -> None:
    given = frames(9)
    with stpl.load(BUNDLE) as model:
        stream = model.stream(folder, sinks=f"npz:{tmp_path / 'out'}", policy="pace",
                              max_nowcasts=6)  # fmt: skip
        made = list(stream)
        assert [nowcast.issue_time.hour for nowcast in made] == [3, 4, 5, 6, 7, 8]
        for newest, nowcast in enumerate(made, start=4):
            np.testing.assert_array_equal(nowcast.frames, expected(given[:newest]))
        assert stream.report.nowcasts == 6
        assert stream.report.counts.used == 9
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_a_stream_ends_by_stop_by_its_block_and_when_it_is_dropped(folder: Path) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "stream"]

    with stpl.load(BUNDLE) as model:
        with model.stream(folder, policy="pace") as stream:
            assert next(stream).issue_time is not None
        assert threads() == []
        assert list(stream) == []
        other = model.stream(folder, policy="pace")
        (thread,) = threads()
        del other
        gc.collect()
        thread.join(30)
        assert not thread.is_alive()
        model.stream(folder)
        kept = model.stream(folder)
    assert threads() == []  # the model's block ends what still runs
    assert list(kept) == []
    with stpl.load(BUNDLE) as model:
        for _ in range(5):
            model.stream(folder)  # dropped at once: its thread is still closing
    assert threads() == []


def test_what_ends_a_stream_reaches_whoever_iterates() -> None:
    pytest.importorskip("httpx")
    with stpl.load(BUNDLE) as model:
        stream = model.stream("http://127.0.0.1:9/frames/", idle_timeout=0.0)
        with pytest.raises(stpl.errors.SourceLostError, match="was not there"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_what_a_stream_reports_is_logged_and_not_printed(
    folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "f202601010330.npy", np.zeros((1, 8, 8), np.float32))
    with stpl.load(BUNDLE) as model, caplog.at_level("INFO", "stpl_deploy.stream"):
        list(model.stream(folder, policy="pace", idle_timeout=0.5))
    (record,) = [one for one in caplog.records if "f202601010330" in one.getMessage()]
    assert record.levelname == "WARNING"
    assert capsys.readouterr().err == ""


def test_verify_says_what_the_verb_says() -> None:
    with stpl.load(BUNDLE) as model:
        report = model.verify()
    assert report.passed
    assert {check.path for check in report.checks} == {"step", "forecast", "rollout"}


def test_from_a_recipe_to_scores(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    settings = ["data.frame=[1, 16, 16]", "data.digit_size=7", "data.context=3", "data.horizon=2",
                "data.validation_sequences=4", "training.iterations=2", "training.batch=2",
                "training.validate_every=2"]  # fmt: skip
    run = stpl.train("modernn-mini", tmp_path / "run", settings=settings, device="cpu")
    assert run.path == tmp_path / "run"
    bundle = stpl.export(run, tmp_path / "b", sequences=2)
    assert bundle.manifest.horizon == 2
    scores = stpl.evaluate(tmp_path / "b", scales="5").document()["scores"]
    assert scores["model"]["mean"]["mse"] > 0
    with stpl.load(tmp_path / "b") as model:
        assert model.nowcast(np.zeros((3, 1, 16, 16), np.float32)).frames.shape == (2, 1, 16, 16)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stpl_deploy.bundle", "stpl_core.bundle"),
        ("stpl_deploy.codec", "stpl_core.codec"),
        ("stpl_deploy.errors", "stpl_core.errors"),
        ("stpl_deploy.frames", "stpl_core.frames"),
        ("stpl_deploy.reader", "stpl_core.reader"),
        ("stpl_deploy.readers.opening", "stpl_core.readers.opening"),
        ("stpl_deploy.readers.own", "stpl_core.readers.converted"),
        ("stpl_deploy.scores.accumulator", "stpl_core.scores.accumulator"),
    ],
)
def test_an_old_import_path_is_the_same_module_and_warns(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(new)
    spec = module.__spec__
    for name in [name for name in sys.modules if name == old or old.startswith(f"{name}.")]:
        if name != "stpl_deploy":
            monkeypatch.delitem(sys.modules, name)
    with pytest.warns(DeprecationWarning, match="is now stpl_core") as caught:
        found = importlib.import_module(old)
    assert found is module
    assert module.__spec__ is spec
    assert any(f"{old} is now {new}" in str(one.message) for one in caught)


def test_a_name_that_never_was_is_not_found() -> None:
    for name in ("stpl_deploy.nothing", "stpl_deploy.library.nothing"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
