"""What an import infers from tensors, and how it refuses: always by the name of a tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stpl_core.errors import CheckpointError, UsageError
from stpl_train.importers import Hints, convert
from stpl_train.importers.common import frame_and_patch
from tests.train.importers.checkpoints import st_lstm


def test_the_configuration_is_read_off_the_tensors() -> None:
    found = convert("predrnn", st_lstm(norm=True, channels=32, layers=3))
    assert found.model == "predrnn"
    assert found.frame_shape == (2, 16, 24)  # 32 channels = 2 x 4 x 4, a map of 4 x 6
    assert found.keys == {"hidden": 4, "layers": 3, "kernel": 3, "patch": 4, "norm": "ln_chw"}
    assert found.unused == ()


@pytest.mark.parametrize(
    ("channels", "hints", "expected"),
    [
        (16, {}, ((1, 24, 32), 4)),
        (8, {}, ((2, 12, 16), 2)),
        (32, {"patch": 2}, ((8, 12, 16), 2)),
        (4, {"frame_shape": (4, 9, 9)}, ((4, 9, 9), 1)),
        (16, {"frame_shape": (4, 10, 10)}, ((4, 10, 10), 2)),
        (
            16,
            {"hyper_parameters": {"in_shape": [10, 1, 64, 48], "patch_size": 4}},
            ((1, 64, 48), 4),
        ),
    ],
)
def test_frame_and_patch(channels: int, hints: dict[str, Any], expected: object) -> None:
    assert frame_and_patch(channels, (6, 8), Hints(**hints)) == expected


@pytest.mark.parametrize("hints", [{"frame_shape": (3, 64, 64)}, {"patch": 3}])
def test_frames_that_the_weights_cannot_read_are_refused(hints: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="16 channels"):
        frame_and_patch(16, None, Hints(**hints))


def test_the_patches_that_fit_are_listed() -> None:
    with pytest.raises(CheckpointError) as caught:
        frame_and_patch(32, None, Hints(frame_shape=(1, 64, 64)))
    assert caught.value.expected == (
        "frames of 32 channels in patches of 1, or of 8 channels in patches of 2, "
        "or of 2 channels in patches of 4"
    )
    with pytest.raises(CheckpointError) as caught:
        frame_and_patch(4, None, Hints(frame_shape=(1, 64, 64)), fixed=1)
    assert caught.value.expected == "frames of 4 channels in patches of 1"


def test_the_frame_size_is_asked_for_where_no_tensor_tells_it() -> None:
    with pytest.raises(CheckpointError, match="height and width"):
        convert("predrnn", st_lstm())
    found = convert("predrnn", st_lstm(), Hints(frame_shape=(1, 40, 20)))
    assert found.frame_shape == (1, 40, 20)


def test_a_frame_size_against_the_layer_norm_names_its_tensor() -> None:
    with pytest.raises(CheckpointError, match=r"cell_list\.0\.conv_x\.1\.weight .*\(28, 4, 6\)"):
        convert("predrnn", st_lstm(norm=True), Hints(frame_shape=(1, 64, 64)))


def test_a_missing_tensor_is_named() -> None:
    tensors = st_lstm(norm=True)
    del tensors["cell_list.1.conv_h.0.weight"]
    with pytest.raises(CheckpointError, match=r"no tensor cell_list\.1\.conv_h\.0\.weight"):
        convert("predrnn", tensors)


def test_a_tensor_without_a_place_is_named() -> None:
    tensors = {**st_lstm(norm=True), "action_conv.weight": torch.rand(3)}
    with pytest.raises(CheckpointError, match=r"action_conv\.weight has no place in predrnn"):
        convert("predrnn", tensors)


def test_a_tensor_of_another_width_is_named() -> None:
    tensors = st_lstm(norm=True)
    tensors["cell_list.1.conv_o.0.weight"] = torch.rand(4, 6, 3, 3)
    with pytest.raises(CheckpointError, match=r"cell_list\.1\.conv_o\.0\.weight has shape"):
        convert("predrnn", tensors)


@pytest.mark.parametrize("project", ["modernn", "cms-lstm", "sa-convlstm"])
def test_another_projects_checkpoint_is_refused_by_a_tensor(project: str) -> None:
    with pytest.raises(CheckpointError, match=r"no tensor .* found are cell_list") as found:
        convert(project, st_lstm(norm=True), Hints(frame_shape=(1, 16, 24)))
    assert found.value.exit_code == 2


def test_openstl_tells_its_methods_apart() -> None:
    tensors = st_lstm(norm=True)
    assert convert("openstl", tensors).model == "predrnn"
    adapter = {"adapter.weight": torch.rand(4, 4, 1, 1)}
    assert convert("openstl", {**tensors, **adapter}).model == "predrnn-v2"
    said = Hints(hyper_parameters={"method": "predrnnv2"})
    with pytest.raises(CheckpointError, match=r"no tensor adapter\.weight"):
        convert("openstl", tensors, said)


def test_openstl_methods_without_an_importer_are_named() -> None:
    with pytest.raises(CheckpointError, match='method "simvp"'):
        convert("openstl", st_lstm(), Hints(hyper_parameters={"method": "SimVP"}))


def test_a_misspelt_project_gets_its_neighbour() -> None:
    with pytest.raises(UsageError, match="--from modernn"):
        convert("modern", {})


def test_the_third_partys_gates_are_reordered() -> None:
    """One convolution over [x; h] with gates i, f, o, g becomes two with i, f, g, o."""
    d = 2
    joint = torch.arange(4.0 * d).reshape(4 * d, 1, 1, 1).expand(4 * d, 1 + d, 3, 3)
    tensors = {
        "layers.0.conv.weight": joint.clone(),
        "layers.0.conv.bias": torch.arange(4.0 * d),
        "layers.0.sa.conv_h.weight": torch.rand(9, d, 1, 1),
        "layers.0.sa.conv_h.bias": torch.rand(9),
        "layers.0.sa.conv_m.weight": torch.rand(6, d, 1, 1),
        "layers.0.sa.conv_m.bias": torch.rand(6),
        "layers.0.sa.conv_z.weight": torch.rand(3, 6, 1, 1),
        "layers.0.sa.conv_z.bias": torch.rand(3),
        "layers.0.sa.conv_output.weight": torch.rand(3 * d, 3 + d, 5, 5),
        "layers.0.sa.conv_output.bias": torch.rand(3 * d),
        "conv_output.weight": torch.rand(1, d, 1, 1),
        "conv_output.bias": torch.rand(1),
    }
    found = convert("sa-convlstm", tensors, Hints(frame_shape=(1, 8, 8)))
    assert found.state_dict["cells.0.conv_x.conv.bias"].tolist() == [0, 1, 2, 3, 6, 7, 4, 5]
    assert found.state_dict["cells.0.conv_h.conv.weight"].shape == (4 * d, d, 3, 3)
    assert (found.keys["attention_width"], found.keys["z_width"]) == (3, 3)
    assert found.keys["attention_kernel"] == 5
    tensors["layers.0.conv.weight"] = torch.rand(4 * d, 4, 3, 3)
    with pytest.raises(CheckpointError, match=r"layers\.0\.conv\.weight reads 4 channels"):
        convert("sa-convlstm", tensors, Hints(frame_shape=(1, 8, 8)))
