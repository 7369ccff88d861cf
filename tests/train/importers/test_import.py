"""`stpl-deploy import` from the authors' own container files, as a user calls it."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from stpl_core.errors import CheckpointError, FrameError, StplError, UsageError
from stpl_deploy.cli import app, verbs
from stpl_export.export import export_run
from stpl_runtime.engine import closed_loop, open_session
from stpl_runtime.proof.reference import load_reference
from stpl_train.data import open_data
from stpl_train.forecaster import emissions
from stpl_train.importers.containers import read_container
from stpl_train.models import build_model
from stpl_train.run import open_run

REFERENCE = Path(__file__).parents[3].parent / "shared" / "reference"

pytestmark = pytest.mark.usefixtures("exported_once")
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference vectors are not beside the repository"
)

OLDER = ("--set", "model.equations=openstl-2023-06")
FILES: dict[str, tuple[str, ...]] = {
    "modernn.pth.tar": ("modernn",),
    "cms_lstm.pth.tar": ("cms-lstm",),
    "predrnn_ln0.ckpt": ("predrnn", "--frame", "2,32,32"),
    "predrnn_ln0.cuda.ckpt": ("predrnn", "--frame", "2,32,32"),
    "predrnn_ln0.cuda_legacy.ckpt": ("predrnn", "--frame", "2,32,32"),
    "predrnn_ln1.ckpt": ("predrnn",),
    "predrnn_v2_ln0.ckpt": ("predrnn", "--frame", "1,32,32"),
    "predrnn_v2_ln1.ckpt": ("predrnn",),
    "openstl_convlstm.ckpt": ("openstl",),
    "openstl_predrnn.ckpt": ("openstl",),
    "openstl_predrnn.plain.pth": ("openstl", "--frame", "2,32,32"),
    "openstl_predrnn.epoch.pth": ("openstl", "--frame", "2,32,32", "--method", "predrnn"),
    "openstl_predrnn_ln1_32x48.ckpt": ("openstl",),
    "openstl_predrnnpp.ckpt": ("openstl",),
    "openstl_mim.ckpt": ("openstl",),
    "openstl_predrnnv2.ckpt": ("openstl",),
    "openstl_convlstm_f09ce01.pth": ("openstl", "--frame", "1,32,32", *OLDER),
    "openstl_predrnnpp_f09ce01.pth": ("openstl", "--frame", "1,32,32", *OLDER),
    "thirdparty_sa_convlstm.chk": ("sa-convlstm", "--frame", "1,16,16"),
}
"""Container file -> the words after `--from` that a user must type for it."""


@pytest.fixture(scope="session", autouse=True)
def commands() -> None:
    if not app.registered_commands:
        verbs.register(app)


def run_import(checkpoint: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["import", str(checkpoint), "--out", str(out), "--from", *words])


def error_of(result: Result) -> StplError:
    assert isinstance(result.exception, StplError), result.exception
    assert "\n" not in str(result.exception)
    return result.exception


def golden(file: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Inputs `(B, T + K, C, H, W)`, outputs `(B, T + K - 1, C, H, W)` in float64, meta."""
    with safe_open(REFERENCE / f"{file.partition('.')[0]}.safetensors", "pt") as stored:
        meta = json.loads(stored.metadata()["meta"])
        return stored.get_tensor("inputs"), stored.get_tensor("outputs"), meta


def import_golden(file: str, out: Path) -> Path:
    words = [*FILES[file], "--context", "4", "--horizon", "4"]
    result = run_import(REFERENCE / file, out, *words)
    assert result.exit_code == 0, result.exception
    return out


@needs_reference
def test_every_container_file_is_in_the_table() -> None:
    """But for the E3D-LSTM port, whose equations are not E3D-LSTM's."""
    stored = {f.name for f in REFERENCE.iterdir() if f.suffix not in (".md", ".safetensors")}
    assert stored - {"openstl_e3dlstm.ckpt"} == set(FILES)


@needs_reference
@pytest.mark.parametrize("file", FILES)
def test_imported_run_gives_the_authors_frames(file: str, tmp_path: Path) -> None:
    run = open_run(import_golden(file, tmp_path / "run"))
    inputs, outputs, _ = golden(file)
    for dtype, tolerance in ((torch.float32, 5e-5), (torch.float64, 1e-10)):
        model = run.model().to(dtype)
        with torch.no_grad():
            emitted = list(emissions(model, inputs[:, :4].to(dtype), 4))
        error = (torch.stack(emitted, 1).double() - outputs).abs().max()  # (B, T + K - 1, C, H, W)
        assert error <= tolerance


# The other container files of a case hold the same weights, which the test above has shown.
EXPORTED = [f for f in FILES if f.count(".") == 1 or f.endswith(".pth.tar")]
ALWAYS = ("modernn.pth.tar", "predrnn_ln1.ckpt")
"""The others only by hand: that models are exported as they are, tests/export shows for each."""


@needs_reference
@pytest.mark.parametrize(
    "file", [pytest.param(f, marks=() if f in ALWAYS else pytest.mark.soak) for f in EXPORTED]
)
def test_exported_bundle_gives_the_authors_frames(file: str, tmp_path: Path) -> None:
    run = import_golden(file, tmp_path / "run")
    inputs, outputs, _ = golden(file)
    np.savez(tmp_path / "frames.npz", frames=inputs.numpy())
    bundle = export_run(run, tmp_path / "bundle", data=tmp_path / "frames.npz")
    reference = load_reference(bundle)  # 8 times PyTorch's own float32 error, at least 1e-6
    expected = outputs[:, 3:].numpy()  # (B, K, C, H, W)
    np.testing.assert_allclose(reference.float64, expected, rtol=0, atol=1e-10)
    session = open_session(bundle, ("step", "rollout"))
    context = np.ascontiguousarray(inputs[:, :4].numpy())
    for frames in (session.rollout(context), closed_loop(session, context, 4)):
        error = np.abs(frames - expected).max(axis=(0, 2, 3, 4))  # (K,)
        assert (error <= reference.tolerance).all()
    session.close()


@needs_reference
def test_import_without_data_is_synthetic_up_to_the_manifest(tmp_path: Path) -> None:
    """Two colour channels show digits of their own, and nobody can take them for real data."""
    out = import_golden("predrnn_ln0.ckpt", tmp_path / "run")
    run = open_run(out)
    frames = run.validation()  # (N, T + K, C, H, W)
    assert frames.shape == (16, 8, 2, 32, 32)
    assert frames.min() >= 0
    assert frames.max() > 0.5
    assert np.abs(frames[:, :, 0] - frames[:, :, 1]).max() > 0.5
    assert len(np.unique(frames.reshape(16, -1), axis=0)) == 16
    assert run.recipe.data.source == "synthetic"
    bundle = export_run(out, tmp_path / "bundle")
    assert bundle.manifest.accuracy is not None
    assert bundle.manifest.accuracy.data == "synthetic"
    with pytest.raises(UsageError, match="data to train on"):
        open_data(run.recipe.data, 0)


@needs_reference
def test_own_data_gives_frame_and_sequences(tmp_path: Path) -> None:
    inputs, _, _ = golden("predrnn_ln0.ckpt")
    np.save(tmp_path / "mine.npy", inputs.numpy())
    result = run_import(
        REFERENCE / "predrnn_ln0.ckpt",
        tmp_path / "run",
        *("predrnn", "--data", str(tmp_path / "mine.npy"), "--context", "2", "--horizon", "2"),
        "--json",
    )
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["frame"] == [2, 32, 32]
    assert report["data"] == "mine.npy"
    assert not any("synthetic" in note for note in report["notes"])
    run = open_run(tmp_path / "run")
    # Two stored sequences of eight frames make four of 2 + 2.
    expected = inputs.numpy().reshape(4, 4, 2, 32, 32)
    np.testing.assert_array_equal(run.validation(), expected)
    bundle = export_run(tmp_path / "run", tmp_path / "bundle")
    assert bundle.manifest.accuracy is not None
    assert bundle.manifest.accuracy.data.startswith("mine.npy")


@needs_reference
def test_report_names_unused_tensors_and_the_equations(tmp_path: Path) -> None:
    older = run_import(
        REFERENCE / "openstl_convlstm_f09ce01.pth",
        tmp_path / "older",
        *FILES["openstl_convlstm_f09ce01.pth"],
    )
    assert "cell_list.0.conv_o.0.weight, cell_list.0.conv_last.weight" in older.stdout
    assert "equations: openstl-2023-06" in older.stdout
    assert "--horizon; 10 is assumed" in older.stdout
    newer = run_import(REFERENCE / "openstl_convlstm.ckpt", tmp_path / "newer", "openstl")
    assert "--set model.equations=openstl-2023-06" in newer.stdout
    assert "4 in, 4 out, 1x32x32" in newer.stdout
    recipe = open_run(tmp_path / "older").recipe
    assert recipe.imported is not None
    assert recipe.imported.file == "openstl_convlstm_f09ce01.pth"
    assert "cell_list.1.conv_last.weight" in recipe.imported.unused


@needs_reference
def test_the_two_equations_differ(tmp_path: Path) -> None:
    """So that the switch is not one in name only."""
    for model in ("convlstm", "predrnnpp"):
        outputs = [golden(f"openstl_{model}{end}")[1] for end in (".ckpt", "_f09ce01.pth")]
        assert (outputs[0] - outputs[1]).abs().max() > 1e-2


@needs_reference
def test_safetensors_are_read_too(tmp_path: Path) -> None:
    tensors = read_container(REFERENCE / "predrnn_ln1.ckpt").tensors
    safetensors.torch.save_file(tensors, tmp_path / "weights.safetensors")
    result = run_import(tmp_path / "weights.safetensors", tmp_path / "run", "predrnn")
    assert result.exit_code == 0, result.exception
    stored = open_run(tmp_path / "run").model().state_dict()
    same = import_golden("predrnn_ln1.ckpt", tmp_path / "same")
    for name, tensor in open_run(same).model().state_dict().items():
        assert torch.equal(stored[name], tensor)


@needs_reference
@pytest.mark.parametrize(
    ("file", "words", "message"),
    [
        ("modernn.pth.tar", ["cms-lstm"], "lstm.0.conv33_H.0.weight.*--from modernn"),
        ("thirdparty_sa_convlstm.chk", ["predrnn"], "layers.0.sa.*--from sa-convlstm"),
        ("openstl_convlstm.ckpt", ["predrnn"], "cell_list.0.conv_x.0.weight.*--from openstl"),
        ("openstl_e3dlstm.ckpt", ["openstl"], 'method "e3dlstm"'),
        ("openstl_mim.ckpt", ["openstl", "--method", "convlstm"], "cell_list.0.conv_x.0.weight"),
        ("predrnn_ln0.ckpt", ["predrnn"], "height and width.*--frame 2,64,64"),
        ("predrnn_ln0.ckpt", ["predrnn", "--frame", "3,32,32"], "32 channels per map cell"),
        ("predrnn_ln1.ckpt", ["predrnn", "--frame", "1,64,64"], "cell_list.0.conv_x.1.weight"),
        ("predrnn_ln1.ckpt", ["predrnn", "--frame", "64"], "--frame 1,64,64"),
        ("predrnn_ln1.ckpt", ["predrnn", "--method", "mim"], "with --from openstl only"),
        ("predrnn_ln1.ckpt", ["predrn"], "--from predrnn"),
        ("modernn.pth.tar", ["modernn", "--set", "model.kernel=5"], "conv_h.conv.weight"),
        ("modernn.pth.tar", ["modernn", "--set", "model.patch=x"], "a whole number"),
        ("modernn.pth.tar", ["modernn", *OLDER], "unknown key model.equations"),
        ("modernn.pth.tar", ["modernn", "--set", "data.cadence=5"], "unknown key"),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    file: str, words: list[str], message: str, tmp_path: Path
) -> None:
    result = run_import(REFERENCE / file, tmp_path / "run", *words)
    error = error_of(result)
    assert error.exit_code == 2
    with pytest.raises(StplError, match=message):
        raise error
    assert not list(tmp_path.iterdir())


class Malice:
    """Rebuilt by a careless reader, it makes the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_malicious_pickles_do_act_when_read_carelessly(tmp_path: Path) -> None:
    """The test below would prove nothing otherwise."""
    torch.save({"state_dict": Malice(tmp_path / "taken")}, tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "taken").is_dir()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle-2", "pickle-4", "beside"])
def test_a_pickle_that_would_run_code_is_refused_unrun(form: str, tmp_path: Path) -> None:
    file, taken = tmp_path / "evil.pth", tmp_path / "taken"
    document: dict[str, Any] = {"state_dict": Malice(taken)}
    if form == "beside":  # harmless weights, and the trap in what nobody asked for
        document = {"state_dict": {"a": torch.ones(1)}, "epoch": Malice(taken)}
    if form.startswith("pickle"):
        file.write_bytes(pickle.dumps(document, protocol=int(form[-1])))
    else:
        torch.save(document, file, _use_new_zipfile_serialization=form != "legacy")
    error = error_of(run_import(file, tmp_path / "run", "modernn"))
    assert isinstance(error, CheckpointError)
    assert "may run code; none of it was run" in str(error)
    assert not taken.exists()
    assert not (tmp_path / "run").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_container(tmp_path / "module.pth")


def state_dict_bytes(**kind: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"net": {"a": torch.rand(100, 10)}}, buffer, **kind)
    return buffer.getvalue()


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoints(part: float, zipped: bool, tmp_path: Path) -> None:
    data = state_dict_bytes(_use_new_zipfile_serialization=zipped)
    (tmp_path / "cut.pth").write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        read_container(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds nothing"),
        ({"epoch": 3, "optimizer": {}}, "holds epoch, optimizer"),
        ([torch.ones(2)], "holds a list"),
        ({"state_dict": {"a": torch.tensor([1.0, float("nan")])}}, "tensor a has NaN"),
        ({"net": {"b": torch.tensor([float("inf")])}}, "tensor b has NaN or infinity in 1 of 1"),
    ],
)
def test_contents_that_cannot_be_used(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message):
        read_container(tmp_path / "file.pth")


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.pth").write_text("<html>404 not found</html>")
    (tmp_path / "cut.safetensors").write_bytes(safetensors.torch.save({"a": torch.ones(9)})[:40])
    for name, message in (
        ("empty.pth", "is empty"),
        ("page.pth", "not a PyTorch checkpoint"),
        ("cut.safetensors", "not a complete safetensors file"),
        ("absent.pth", "no file"),
        ("", "is a directory"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_container(tmp_path / name)


def test_wrappers_and_plain_data_beside_the_weights(tmp_path: Path) -> None:
    """DataParallel's and torch.compile's prefixes, numpy statistics as OpenSTL keeps them."""
    torch.save(
        {
            "pytorch-lightning_version": "2.0.0",
            "state_dict": {"model._orig_mod.module.a.weight": torch.ones(2)},
            "hyper_parameters": {"test_mean": np.zeros((1, 3)), "test_std": np.float64(2)},
        },
        tmp_path / "file.ckpt",
    )
    container = read_container(tmp_path / "file.ckpt")
    assert container.kind == "Lightning checkpoint"
    assert list(container.tensors) == ["a.weight"]
    np.testing.assert_array_equal(container.hyper_parameters["test_mean"], np.zeros((1, 3)))
    assert container.hyper_parameters["test_std"] == 2


@needs_reference
def test_existing_run_and_short_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    result = run_import(REFERENCE / "modernn.pth.tar", tmp_path / "run", "modernn")
    assert error_of(result).exit_code == 2
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep me"
    np.save(tmp_path / "short.npy", np.zeros((1, 5, 1, 32, 32), np.float32))
    words = ["modernn", "--data", str(tmp_path / "short.npy")]
    error = error_of(run_import(REFERENCE / "modernn.pth.tar", tmp_path / "other", *words))
    assert isinstance(error, FrameError)
    assert "at least 20 = 10 + 10" in str(error)
    assert not (tmp_path / "other").exists()


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    frame = (1, 8, 8)
    model = build_model("predrnn", frame, {"hidden": 4, "layers": 2, "kernel": 3})
    upstream = {
        name.replace("cells.", "cell_list.")
        .replace(".conv.weight", ".0.weight")
        .replace("merge", "conv_last")
        .replace("decode", "conv_last"): tensor.half()
        for name, tensor in model.state_dict().items()
    }
    torch.save({"net_param": upstream}, tmp_path / "half.ckpt")
    result = run_import(tmp_path / "half.ckpt", tmp_path / "run", "predrnn", "--frame", "1,8,8")
    assert result.exit_code == 0, result.exception
    for name, tensor in open_run(tmp_path / "run").model().state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float())


def test_weights_beside_others_are_unpacked_and_their_average_is_mentioned(tmp_path: Path) -> None:
    weights = {"a.weight": torch.rand(2, 3)}
    document = {
        "epoch": 3,
        "model_state_dict": weights,
        "ema_state_dict": {"a.weight": torch.zeros(2, 3)},
        "optimizer_state_dict": {"state": {}},
        "ema_decay": 0.999,  # no weights
    }
    torch.save(document, tmp_path / "a.pt")
    container = read_container(tmp_path / "a.pt")
    assert container.kind == "dict with model_state_dict"
    assert torch.equal(container.tensors["a.weight"], weights["a.weight"])
    assert container.averaged == ("ema_state_dict",)
    # What the note says to type gives a file that is imported.
    torch.save(torch.load(tmp_path / "a.pt")["ema_state_dict"], tmp_path / "b.pt")
    assert not read_container(tmp_path / "b.pt").tensors["a.weight"].any()


def test_a_convlstm_asked_for_as_predrnn_is_openstls(tmp_path: Path) -> None:
    torch.save({"cell_list.0.conv_x.0.weight": torch.ones(4, 4, 3, 3)}, tmp_path / "c.pth")
    result = run_import(tmp_path / "c.pth", tmp_path / "run", "predrnn", "--frame", "1,8,8")
    assert error_of(result).fix == "--from openstl"
