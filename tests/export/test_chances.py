"""Chances of events, from the model through graph, bundle, engine and tiles to files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import stpl_deploy
from stpl_core.bundle import Bundle, Manifest, open_bundle
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, RecipeError
from stpl_core.frames import Frame
from stpl_core.grid import Grid
from stpl_core.safety.manifest_checks import problems
from stpl_deploy.cli import run
from stpl_export.export import export_run
from stpl_export.graphs.onnx_step import step_onnx
from stpl_runtime.chances import thresholds_of
from stpl_runtime.engine import open_session
from stpl_runtime.engines.tiled import TiledSession, Tiling, on_domain
from stpl_runtime.forecast_memory import ForecastMemory, plan_memory
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import finish, predict_sequences, predict_with_chances
from stpl_runtime.proof import verify
from stpl_runtime.proof.reference import Reference, load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from stpl_runtime.sinks.summary import summary
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.forecaster import State
from stpl_train.models import build_model
from stpl_train.models.advect import Advect
from stpl_train.models.events import HALVINGS
from stpl_train.recipe import parse_recipe
from stpl_train.run import WEIGHTS, save_recipe, save_validation

FRAME, CONTEXT, HORIZON = (1, 32, 48), 2, 3
KEYS = {"name": "advect", "hidden": 8, "width": 8, "levels": [0.2, 0.5], "horizon": 3}
RATE = {"quantity": "rain rate", "units": "mm h-1", "high": 100.0, "kind": "db", "clip": True}
DATA = {"source": "synthetic", "frame": FRAME, "context": CONTEXT, "horizon": HORIZON}


def small(frame: tuple[int, int, int] = FRAME) -> Advect:
    torch.manual_seed(0)
    keys = {key: value for key, value in KEYS.items() if key != "name"}
    model = build_model("advect", frame, keys)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    assert isinstance(model, Advect)
    return model.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("chances")
    recipe = parse_recipe(
        {"model": KEYS, "data": {**DATA, "codec": RATE}, "training": {"iterations": 1}}
    )
    path = folder / "run"
    path.mkdir()
    save_recipe(path, recipe)
    safetensors.torch.save_file(small().state_dict(), path / WEIGHTS)
    save_validation(path, stand_in_sequences(FRAME, CONTEXT + HORIZON, 2))
    return export_run(path, folder / "bundle")


def contexts(bundle: Bundle, count: int = 2) -> Array:
    """`(N, T, C, H, W)`, physical units."""
    frames = stand_in_sequences(bundle.manifest.frame, CONTEXT, count)
    return bundle.manifest.codec.physical_from_model(frames)


@torch.no_grad()
def by_torch(model: Advect, frames: Array, horizon: int) -> tuple[Array, Array]:
    """Guesses `(N, K, C, H, W)` and chances `(N, K, Q, C, H, W)`, step by step."""
    state = model.initial_state(len(frames))
    guesses, chances = [], []
    guess = torch.from_numpy(frames[:, 0])
    for t in range(CONTEXT + horizon - 1):
        guess, state = model.step(torch.from_numpy(frames[:, t]) if t < CONTEXT else guess, state)
        if t >= CONTEXT - 1:
            guesses.append(guess.numpy())
            chances.append(state["chance"].numpy())
    return np.stack(guesses, 1), np.stack(chances, 1)


# The graphs


def test_no_graph_reads_them_and_only_those_that_give_them_compute_them(bundle: Bundle) -> None:
    onnx = pytest.importorskip("onnx")
    assert [spec.name for spec in bundle.manifest.state if spec.input is None] == ["chance"]
    found = {
        name: onnx.load(str(bundle.file(f"{name}.onnx")), load_external_data=False).graph
        for name in ("step", "forecast", "rollout")
    }
    assert "state.chance" not in [value.name for value in found["step"].input]
    assert [value.name for value in found["step"].output][-1] == "next.chance"
    assert [value.name for value in found["forecast"].output][-1] == "next.chance"
    for graph in found.values():
        known = {name for node in graph.node for name in (*node.input, *node.output)}
        assert {value.name for value in graph.value_info} <= known

    def gates(name: str) -> int:
        return sum(node.op_type == "Sigmoid" for node in found[name].node)

    once, of_chances = gates("step"), HALVINGS + 1  # found by halving, then given
    assert gates("forecast") == HORIZON * (once - of_chances) + of_chances  # of the first frame
    assert gates("rollout") == (CONTEXT + HORIZON - 1) * (once - of_chances)


class Reads(Advect):
    """Reads what it gives beside the frame."""

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        guess, after = super().step(frame, state)
        return guess + state["chance"][:, 0] * 1e-3, after


class Reordered(Advect):
    """Has it before the rest."""

    def initial_state(self, batch: int) -> State:
        state = super().initial_state(batch)
        return {"chance": state.pop("chance"), **state}

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        guess, after = super().step(frame, state)
        return guess, {"chance": after.pop("chance"), **after}


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Reads, "step reads chance, which its `outputs` name"), (Reordered, "at the end of the")],
)
def test_a_model_that_breaks_the_contract_is_refused(kind: type[Advect], message: str) -> None:
    model = small()
    model.__class__ = kind
    with pytest.raises(RecipeError, match=message):
        step_onnx(model)


# The bundle


def test_a_bundle_states_them_and_an_engine_gives_those_of_pytorch(bundle: Bundle) -> None:
    (spec,) = bundle.manifest.outputs
    assert (spec.name, spec.kind, spec.levels) == ("chance", "exceedance", (0.2, 0.5))
    low, high = thresholds_of(bundle.manifest)  # 10 log10 R + 15 in parts of 35
    assert low == pytest.approx(10 ** ((0.2 * 35 - 15) / 10), rel=1e-3)
    assert high == pytest.approx(10 ** ((0.5 * 35 - 15) / 10), rel=1e-3)
    frames = contexts(bundle)
    session = open_session(bundle, ("step",))
    made, chances = predict_with_chances(bundle, session, frames, HORIZON + 2)
    session.close()
    inside = bundle.manifest.codec.model_from_physical(frames)
    _, expected = by_torch(small(), inside, HORIZON + 2)
    assert chances.values.shape == (2, HORIZON + 2, 2, *FRAME)
    np.testing.assert_allclose(chances.values, expected, atol=2e-4)
    assert 0.01 < expected.mean() < 0.99
    unrolled = open_session(bundle, ("step", "forecast"))
    np.testing.assert_allclose(
        made[:, :HORIZON], predict_sequences(bundle, unrolled, frames, HORIZON), atol=1e-4
    )
    unrolled.close()


def test_verify_judges_them_at_every_lead_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify_bundle(bundle)
    assert first_breach(report) is None
    found = {check.path for check in report.checks if check.output_error is not None}
    assert found == {"step"}
    whole = load_reference(bundle)
    output = whole.outputs["chance"]
    values = output.values.copy()
    values[HORIZON - 1, 100] += 2e-3  # one value of the last lead time

    def spoilt(_: Bundle) -> Reference:
        return replace(whole, outputs={"chance": replace(output, values=values)})

    monkeypatch.setattr(verify, "load_reference", spoilt)
    breach = first_breach(verify_bundle(bundle))
    assert breach is not None
    assert "step on CPUExecutionProvider" in breach
    assert "error of the chances" in breach


def changed(manifest: Manifest, **update: Any) -> list[str]:
    return list(problems(manifest.model_copy(update=update)))


def test_a_manifest_that_contradicts_itself_is_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert changed(manifest) == []
    (spec,) = manifest.outputs
    for outputs in (
        (),
        (spec, spec),
        (spec.model_copy(update={"name": "h"}),),
        (spec.model_copy(update={"levels": (0.5, 0.2)}),),
        (spec.model_copy(update={"levels": ()}),),
        (spec.model_copy(update={"levels": (0.1, 0.2, 0.3)}),),
    ):
        assert any("outputs" in one for one in changed(manifest, outputs=outputs)), outputs
    assert changed(manifest, state=manifest.state[::-1])


# Tiles


def test_tiles_are_joined_as_the_frames_are(bundle: Bundle) -> None:
    domain = (40, 80)
    tiling = Tiling(domain, (32, 48), 16)
    wide = replace(bundle, manifest=bundle.manifest.model_copy(update={"frame": (1, *domain)}))
    frames = contexts(wide)
    inner = open_session(bundle, ("step",))
    session = TiledSession(inner, tiling)
    made, chances = predict_with_chances(wide, session, frames, HORIZON)
    assert chances.values.shape == (2, HORIZON, 2, 1, *domain)
    assert made.shape == (2, HORIZON, 1, *domain)
    corner = (..., slice(0, 16), slice(0, 28))  # of the first tile alone
    alone, own = predict_with_chances(bundle, inner, frames[..., :32, :48], 1)
    np.testing.assert_array_equal(
        chances.values[:, :1][corner][..., :8, :], own.values[corner][..., :8, :]
    )
    np.testing.assert_array_equal(made[:, :1][corner][..., :8, :], alone[corner][..., :8, :])
    inner.close()


@pytest.mark.parametrize("domain", [(40, 60), (30, 41)])  # in tiles; padded
def test_on_a_domain_a_tile_rolls_out_by_itself_with_chances_too(
    bundle: Bundle, domain: tuple[int, int]
) -> None:
    """The step graph, which gives chances, makes the frames of the forecast graph."""
    inner = open_session(bundle, ("step", "forecast"))
    wide, session = on_domain(bundle, inner, domain)
    frames = np.tile(contexts(bundle), (1, 1, 1, 2, 2))[..., : domain[0], : domain[1]]
    made, chances = predict_with_chances(wide, session, frames, HORIZON)
    unrolled = predict_sequences(wide, session, frames, HORIZON)
    np.testing.assert_allclose(made, unrolled, rtol=1e-4, atol=1e-4)
    assert np.abs(np.diff(made, axis=1)).max() > 0.01
    assert chances.values.shape == (2, HORIZON, 2, 1, *domain)
    inner.close()


# Files


@pytest.fixture
def saved(bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "rain.npy"
    np.save(path, contexts(bundle, 1)[0])
    return path


def test_predict_writes_them_as_cf_says(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xr = pytest.importorskip("xarray")
    out = tmp_path / "nowcast.nc"
    words = ["predict", str(bundle.path), str(saved), "--out", str(out), "--probabilities"]
    assert run(words) == 0, capsys.readouterr().err
    assert "chances of rain rate at or above 0.1585, 1.778 mm h-1" in capsys.readouterr().out
    inside = bundle.manifest.codec.model_from_physical(contexts(bundle, 1))
    _, expected = by_torch(small(), inside, HORIZON)
    with xr.open_dataset(out) as found:
        chance = found["probability_of_exceedance"]
        assert chance.dims == ("threshold", "step", "y", "x")
        assert chance.attrs["units"] == "1"
        assert found["threshold"].attrs["units"] == "mm h-1"
        np.testing.assert_allclose(found["threshold"], thresholds_of(bundle.manifest))
        np.testing.assert_allclose(
            chance.values, np.moveaxis(expected[0, :, :, 0], 1, 0), atol=2e-4
        )
        some = chance.sel(threshold=1.778, method="nearest")
        assert some.shape == (HORIZON, *FRAME[1:])


def test_predict_without_the_option_is_as_it_was(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.npz"
    assert run(["predict", str(bundle.path), str(saved), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds"] is None
    with np.load(out) as made:
        assert "probability_of_exceedance" not in made.files


def test_what_cannot_be_is_refused(
    bundle: Bundle, saved: Path, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(saved), "--probabilities", "--out"]
    assert run(["predict", str(bundle.path), *words, str(tmp_path / "a.png")]) == 2
    err = capsys.readouterr().err
    assert "a.png, which has no room for them; expected" in err
    assert ".nc" in err
    other = root / "tests" / "data" / "convlstm-tiny.bundle"
    still = tmp_path / "still.npy"
    np.save(still, np.zeros((8, *open_bundle(other).manifest.frame), np.float32))
    words[0] = str(still)
    assert run(["predict", str(other), *words, str(tmp_path / "a.nc")]) == 2
    assert "the model convlstm of this bundle gives no chances" in capsys.readouterr().err


# Ensembles


def test_predict_writes_an_ensemble_as_cf_says(
    bundle: Bundle, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xr = pytest.importorskip("xarray")
    out = tmp_path / "nowcast.nc"
    words = ["predict", str(bundle.path), str(saved), "--members", "4", "--seed", "7"]
    assert run([*words, "--out", str(out)]) == 0, capsys.readouterr().err
    assert "ensemble: 4 members, seed 7" in capsys.readouterr().out
    with xr.open_dataset(out) as found:
        members = found["members"]
        assert members.dims == ("realization", "step", "y", "x")
        assert members.attrs["units"] == "mm h-1"
        assert found["realization"].attrs["standard_name"] == "realization"
        assert found["realization"].values.tolist() == [1, 2, 3, 4]
        assert "probability_of_exceedance" not in found
        assert "4 members, seed 7" in str(found.attrs)
        drawn = members.values
    assert len(np.unique(drawn.reshape(4, -1), axis=0)) == 4
    made = stpl_deploy.load(bundle.path, engine="onnx", threads=1).nowcast(
        contexts(bundle, 1)[0], members=6, seed=7, probabilities=True
    )
    assert made.members is not None
    np.testing.assert_allclose(made.members[:4, :, 0], drawn, rtol=1e-3, atol=1e-3)
    assert made.chances is not None
    for q, threshold in enumerate(made.chances.thresholds):
        never = made.chances.values[:, q] < 1e-6  # (K, C, H, W)
        assert not (made.members >= threshold)[:, never].any()


def test_many_sequences_have_an_ensemble_each(bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "many.npy", tmp_path / "many.npz"
    np.save(source, contexts(bundle, 2))
    words = ["predict", str(bundle.path), str(source), "--out", str(out), "--members", "3"]
    assert run(words) == 0
    with np.load(out) as made:
        assert made["members"].shape == (2, 3, HORIZON, *FRAME)
        assert "3 members, seed 0" in str(made["made_by"])


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        (["--members", "3"], "a.tif", "--members 3 with --out"),
        (["--members", "3"], "a.png", ".nc, .zarr; try: --out"),
        (["--seed", "3"], "a.nc", "--seed 3 without --members"),
        (["--members", "1"], "a.nc", "--members"),
        (["--members", "3", "--baseline", "persistence"], "a.nc", "--members 3 with --baseline"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(
    words: list[str],
    out: str,
    message: str,
    bundle: Bundle,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["predict", str(bundle.path), str(saved), *words, "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_a_model_without_chances_has_no_ensemble(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = root / "tests" / "data" / "convlstm-tiny.bundle"
    still = tmp_path / "still.npy"
    np.save(still, np.zeros((8, *open_bundle(other).manifest.frame), np.float32))
    words = ["predict", str(other), str(still), "--members", "5", "--out", str(tmp_path / "a.nc")]
    assert run(words) == 2
    err = capsys.readouterr().err
    assert "--members 5, and the model convlstm of this bundle gives no chances" in err
    assert "stpl-deploy export pretrained:radar-nowcast" in err


def test_the_plan_counts_members_and_says_how_many_fit(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"step": 1}

    def needed(members: int) -> float:
        planned = ForecastMemory(bundle, (512, 512), None, 1, values, chances=True, members=members)
        return planned.bytes(HORIZON)

    assert needed(1000) - needed(0) > 1000 * HORIZON * 512 * 512 * 4
    monkeypatch.setattr("stpl_core.host.memory.memory_room_bytes", lambda: int(needed(500)))
    with pytest.raises(EnvironmentFault, match=r"512x512 .*with 1000 members") as refused:
        plan_memory(bundle, "onnx", HORIZON, (512, 512), chances=True, members=1000)
    found = int(str(refused.value.fix).split("--members ")[1].split()[0].rstrip(",;"))
    assert 300 < found < 500


def nowcast_with_chances(bundle: Bundle) -> Nowcast:
    frames = contexts(bundle, 1)
    session = open_session(bundle, ("step",))
    made, chances = predict_with_chances(bundle, session, frames, HORIZON)
    session.close()
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    observed = np.ones(FRAME[1:], bool)
    observed[:5] = False
    grid = Grid(crs_wkt="", affine=(0.0, 0.0, 1000.0, -1000.0), height=32, width=48)
    return Nowcast(
        frames=made[0],
        context=frames[0],
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=100.0,
        issue_time=start,
        cadence_s=300.0,
        context_times=tuple(start - timedelta(minutes=5 * n) for n in range(CONTEXT))[::-1],
        observed=observed,
        grid=grid,
        chances=replace(chances, values=chances.values[0]),
    )


def test_geotiff_has_a_band_for_each_threshold_and_lead_time(
    bundle: Bundle, tmp_path: Path
) -> None:
    rasterio = pytest.importorskip("rasterio")
    from stpl_runtime.sinks.geotiff import geotiff_bytes

    nowcast = nowcast_with_chances(bundle)
    assert nowcast.chances is not None
    (tmp_path / "a.tif").write_bytes(geotiff_bytes(nowcast))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.count == 3 * HORIZON
        band = 2 * HORIZON + 2  # of the second threshold, +10 min
        assert file.descriptions[band - 1] == "P(>= 1.778 mm h-1) 2024-01-01T00:10:00Z"
        assert file.units[band - 1] == "1"
        assert file.tags(band)["threshold"] == "1.778"
        assert file.tags(band)["lead_time_s"] == "600"
        values = file.read(band)
    assert np.isnan(values[:5]).all()
    np.testing.assert_array_equal(values[5:], nowcast.chances.values[1, 1, 0, 5:])


def test_zarr_npz_and_json_have_them(bundle: Bundle, tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    from stpl_runtime.sinks.npz import npz_bytes
    from stpl_runtime.sinks.zarr import ZARR

    nowcast = nowcast_with_chances(bundle)
    assert nowcast.chances is not None
    values = nowcast.chances.values
    ZARR.write(tmp_path / "a.zarr", nowcast)
    with xr.open_zarr(tmp_path / "a.zarr") as found:
        chance = found["probability_of_exceedance"]
        assert chance.dims == ("threshold", "time", "y", "x")
        assert np.isnan(chance.values[..., :5, :]).all()
        np.testing.assert_array_equal(chance.values[1, 2, 5:], values[2, 1, 0, 5:])
    (tmp_path / "a.npz").write_bytes(npz_bytes(nowcast))
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["probability_of_exceedance"], values)
        np.testing.assert_allclose(archive["thresholds"], thresholds_of(bundle.manifest))
    (line,) = (summary(nowcast)["leads"][2]["chances"][1:],)
    (entry,) = line
    assert entry["threshold"] == thresholds_of(bundle.manifest)[1]
    assert entry["mean"] == pytest.approx(float(values[2, 1, 0, 5:].mean()), rel=1e-5)
    assert entry["max"] == pytest.approx(float(values[2, 1, 0, 5:].max()))
    assert "chances" not in summary(replace(nowcast, chances=None))["leads"][0]


# Streams


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_a_stream_gives_those_that_predict_gives(bundle: Bundle, mode: Any) -> None:
    frames = stand_in_sequences(FRAME, CONTEXT + 3, 1)[0]
    physical = bundle.manifest.codec.physical_from_model(frames)
    session = open_session(bundle, ("step",))
    nowcaster = Nowcaster(bundle, session, mode=mode, cadence_s=300)
    nowcaster.add_chances()
    nowcaster.warm_up()
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    made = []
    for t, data in enumerate(physical):
        nowcaster.put(Frame(start + timedelta(minutes=5 * t), data))
        if (one := nowcaster.issue()) is not None:
            made.append(one)
        while nowcaster.idle_step():
            pass
    assert len(made) == 4
    for n, nowcast in enumerate(made):
        assert nowcast.chances is not None
        first = n if mode == "window" else 0
        inside = bundle.manifest.codec.model_from_physical(physical[None, first : n + CONTEXT])
        state = session.zero_state(1)
        for t in range(inside.shape[1] - 1):
            _, state = session.step(np.ascontiguousarray(inside[:, t]), state)
        whole = finish(
            session,
            bundle.manifest,
            np.ascontiguousarray(inside[:, -1]),
            state,
            HORIZON,
            chances=True,
        )
        assert whole.chances is not None
        np.testing.assert_array_equal(nowcast.chances.values, whole.chances[0])
    session.close()


def test_the_verb_writes_them_into_files_and_lines(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for t, data in enumerate(contexts(bundle, 1)[0]):
        np.save(source / f"20240101T00{5 * t:02d}00.npy", data)
    words = ["stream", str(bundle.path), str(source), "--probabilities", "--cadence", "300"]
    words += ["--sink", f"npz:{tmp_path / 'out'}", "--sink", f"jsonl:{tmp_path / 'lines'}"]
    assert run([*words, "--max-nowcasts", "1", "--idle-timeout", "20"]) == 0, (
        capsys.readouterr().err
    )
    (file,) = (tmp_path / "out").glob("*.npz")
    with np.load(file) as archive:
        values = archive["probability_of_exceedance"]
    assert values.shape == (HORIZON, 2, *FRAME)
    lead = json.loads((tmp_path / "lines").read_text())["leads"][-1]
    assert [one["threshold"] for one in lead["chances"]] == [*thresholds_of(bundle.manifest)]
    assert lead["chances"][0]["max"] == pytest.approx(float(values[-1, 0].max()))


# Scores


def test_evaluate_scores_them_beside_climatology(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    frames = stand_in_sequences(FRAME, CONTEXT + HORIZON, 2)
    physical = bundle.manifest.codec.physical_from_model(frames)
    np.save(tmp_path / "truth.npy", physical)
    out = tmp_path / "report"
    words = ["evaluate", str(bundle.path), "--data", str(tmp_path / "truth.npy")]
    words += ["--baseline", "persistence", "--members", "3", "--out", str(out)]
    assert run(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Brier skill score" in printed
    assert "Ensemble of 3 members, mm h-1" in printed
    assert len(json.loads((out / "scores.json").read_text())["ensemble"]["crps"]) == HORIZON
    inside = bundle.manifest.codec.model_from_physical(physical[:, :CONTEXT])
    _, expected = by_torch(small(), inside, HORIZON)
    document = json.loads((out / "scores.json").read_text())["chances"]["by_threshold"]
    for q, (found, threshold) in enumerate(
        zip(document, thresholds_of(bundle.manifest), strict=True)
    ):
        assert found["threshold"] == threshold
        event = physical[:, CONTEXT:] >= np.float32(threshold)
        brier = np.square(expected[:, :, q] - event).mean((0, 2, 3, 4))
        np.testing.assert_allclose(found["brier"], brier, rtol=1e-2)
        assert sum(found["reliability"]["pixels"]) == event.size
    assert "Reliability of chances, ≥ 1.778 mm h-1" in (out / "report.html").read_text()
