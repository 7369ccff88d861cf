"""ConvLSTM, MoDeRNN, PredRNN and its kin, CMS-LSTM and SA-ConvLSTM: counts, gradients, state."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stpl_core.errors import RecipeError
from stpl_train.forecaster import FrameShape, PenalisedForecaster, State, rollout
from stpl_train.models import ForecasterModule, build_model
from stpl_train.models.context_blocks import ContextEmbedding, WindowAttention
from tests.train.models.settings import each_model_always

TINY: dict[str, Any] = {"hidden": 8, "layers": 2}
DIGITS: FrameShape = (1, 64, 64)

# What the tests run on: a name, the model's word, its keys beside TINY.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "convlstm": ("convlstm", {"hidden": [8, 8], "layers": None}),
    "convlstm-2023": (
        "convlstm",
        {"hidden": [8, 8], "layers": None, "equations": "openstl-2023-06"},
    ),
    "modernn": ("modernn", {}),
    "predrnn": ("predrnn", {}),
    "predrnn-ln": ("predrnn", {"norm": "ln_chw"}),
    "predrnn-gn1": ("predrnn", {"norm": "gn1"}),
    "predrnn-v2": ("predrnn-v2", {}),
    "predrnn-ce": ("predrnn", {"context_block": True}),
    "predrnn-se": ("predrnn", {"se_scales": [1, 2, 4]}),
    "predrnn-zigzag": ("predrnn-zigzag", {}),
    "cms-lstm": ("cms-lstm", {}),
    "cms-lstm-gn1": ("cms-lstm", {"norm": "gn1"}),
    "cms-lstm-ce-only": ("cms-lstm", {"scales": []}),
    "cms-lstm-se-only": ("cms-lstm", {"context": False}),
    "cms-lstm-1-scale": ("cms-lstm", {"scales": [1]}),
    "cms-lstm-2-scales": ("cms-lstm", {"scales": [1, 2]}),
    "sa-convlstm": ("sa-convlstm", {}),
    "sa-convlstm-zigzag": ("sa-convlstm", {"memory": "zigzag", "norm": "none", "scaled": True}),
    "sa-convlstm-no-encoder": ("sa-convlstm", {"encoder": False, "attention_width": 4}),
    "sa-convlstm-ce-se": ("sa-convlstm", {"context_block": True, "se_scales": [1, 2]}),
}
NEEDS_SQUARE = {
    "predrnn-se",
    "cms-lstm",
    "cms-lstm-gn1",
    "cms-lstm-se-only",
    "cms-lstm-1-scale",
    "cms-lstm-2-scales",
    "sa-convlstm-ce-se",
}


def build(setting: str, shape: FrameShape, **extra: Any) -> ForecasterModule:
    torch.manual_seed(3)
    word, keys = SETTINGS[setting]
    given = {key: value for key, value in {**TINY, **keys, **extra}.items() if value is not None}
    return build_model(word, shape, given)


def clip(shape: FrameShape, length: int, batch: int = 2, seed: int = 7) -> Tensor:
    """A smooth blob that moves, `(B, T, C, H, W)` in [0, 1]."""
    channels, height, width = shape
    speed = 1 + torch.rand(batch, 1, channels, 1, 1, generator=torch.Generator().manual_seed(seed))
    time = torch.arange(length).reshape(1, length, 1, 1, 1)
    rows = torch.arange(height).reshape(1, 1, 1, height, 1) / height
    columns = torch.arange(width).reshape(1, 1, 1, 1, width) / width
    return 0.5 + 0.5 * torch.sin(6.3 * (rows + columns - 0.1 * speed * time))


def counted(word: str, shape: FrameShape, **keys: Any) -> int:
    with torch.device("meta"):
        model = build_model(word, shape, keys)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("word", "shape", "keys", "expected"),
    [
        ("convlstm", DIGITS, {}, 11_675_648),
        ("modernn", DIGITS, {}, 5_867_600),
        ("modernn", DIGITS, {"kernel": 5}, 7_964_752),
        ("predrnn", DIGITS, {}, 23_838_720),
        ("predrnn", DIGITS, {"norm": "ln_chw"}, 27_770_880),
        ("predrnn", DIGITS, {"hidden": 64}, 6_049_792),
        ("predrnn", DIGITS, {"hidden": 64, "norm": "ln_chw"}, 8_015_872),
        ("predrnn", (1, 128, 128), {}, 23_838_720),
        ("predrnn", (1, 100, 100), {"layers": 2, "kernel": 3}, 3_883_008),
        ("predrnn", (1, 100, 100), {"layers": 2, "kernel": 3, "norm": "ln_chw"}, 8_683_008),
        ("predrnn-v2", DIGITS, {}, 23_855_104),
        ("predrnn-zigzag", DIGITS, {"peepholes": False, "bias": False}, 6_760_448),
        ("predrnn-zigzag", DIGITS, {"bias": False}, 7_153_664),
        (
            "predrnn-zigzag",
            DIGITS,
            {"hidden": 64, "peepholes": False, "bias": False},
            1_741_824,
        ),
        ("predrnn-zigzag", DIGITS, {"hidden": 64, "bias": False}, 1_938_432),
        ("cms-lstm", DIGITS, {}, 7_967_580),
        ("cms-lstm", DIGITS, {"kernel": 5}, 10_589_020),
        ("cms-lstm", DIGITS, {"kernel": 5, "norm": "none"}, 7_967_580),
        ("cms-lstm", DIGITS, {"scales": []}, 2_918_480),
        ("cms-lstm", DIGITS, {"context": False}, 7_410_524),
        ("cms-lstm", DIGITS, {"context": False, "scales": []}, 2_361_424),
        ("cms-lstm", (2, 32, 32), {"patch": 2}, 7_966_548),
        ("cms-lstm", (2, 32, 32), {"patch": 4}, 6_003_564),
        ("cms-lstm", (1, 128, 128), {}, 15_831_900),
        ("cms-lstm", (1, 128, 128), {"patch": 8, "kernel": 5}, 10_595_212),
        ("cms-lstm", (1, 100, 100), {"patch": 5}, 9_443_301),
        ("sa-convlstm", DIGITS, {}, 7_951_696),
        ("sa-convlstm", DIGITS, {"attention_kernel": 1}, 5_592_400),
        ("sa-convlstm", DIGITS, {"attention_kernel": 1, "norm": "none"}, 3_495_248),
        ("sa-convlstm", DIGITS, {"kernel": 3, "attention_kernel": 3}, 4_281_680),
    ],
)
def test_parameters_are_as_counted_in_the_references(
    word: str, shape: FrameShape, keys: dict[str, Any], expected: int
) -> None:
    assert counted(word, shape, **keys) == expected


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("shape", "patch"), [((1, 64, 64), 4), ((2, 32, 32), 2), ((1, 128, 128), 4)]
)
def test_every_size_builds_and_steps(setting: str, shape: FrameShape, patch: int) -> None:
    model = build(setting, shape, patch=patch)
    state = model.initial_state(1)
    with torch.no_grad():
        guess, new = model.step(clip(shape, 1, batch=1)[:, 0], state)
    assert guess.shape == (1, *shape)
    assert list(new) == list(state)
    assert [new[name].shape for name in new] == [state[name].shape for name in state]
    assert all(torch.isfinite(tensor).all() for tensor in (guess, *new.values()))


@pytest.mark.parametrize("setting", sorted(set(SETTINGS) - NEEDS_SQUARE))
def test_frames_that_are_not_square(setting: str) -> None:
    model = build(setting, (2, 16, 24))
    with torch.no_grad():
        assert rollout(model, clip((2, 16, 24), 2), 2).shape == (2, 2, 2, 16, 24)


@pytest.mark.parametrize("setting", sorted(NEEDS_SQUARE))
def test_a_map_that_is_not_square_is_refused_with_sizes_that_do(setting: str) -> None:
    with pytest.raises(RecipeError, match=r"a map of 8x12") as refusal:
        build(setting, (1, 32, 48))
    sizes = [word for word in refusal.value.expected.replace(",", "").split() if "x" in word]
    assert sizes
    for size in sizes:
        side = int(size.split("x")[0])
        build(setting, (1, side, side))


def test_a_side_that_the_scales_do_not_divide_is_refused_with_a_patch_that_does() -> None:
    with pytest.raises(RecipeError, match=r"map of 25x25") as refusal:
        build("cms-lstm", (1, 100, 100))
    assert refusal.value.fix == "--set model.patch=5"
    build("cms-lstm", (1, 100, 100), patch=5)


def test_patches_are_not_offered_where_none_fits() -> None:
    with pytest.raises(RecipeError, match=r"map of 59x59") as refusal:
        build("cms-lstm", (1, 59, 59), patch=1)
    assert "model.patch" not in refusal.value.expected
    assert "60x60" in refusal.value.expected


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_equal_finite_differences(setting: str) -> None:
    shape = (1, 8, 8)
    model = build(
        setting, shape, **({} if setting.startswith("convlstm") else {"hidden": 2}), patch=2
    )
    model.double()
    names = [name for name, _ in model.named_parameters()]
    frames = clip(shape, 2, batch=1).double()

    def two_steps(*values: Tensor) -> Tensor:
        given = {f"model.{name}": value for name, value in zip(names, values, strict=True)}
        out: Tensor = torch.func.functional_call(
            _Steps(model), given, (frames, model.initial_state(1))
        )
        return out

    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(two_steps, values, fast_mode=True)


class _Steps(torch.nn.Module):
    """Two steps and the training penalty, so that every parameter has its part."""

    def __init__(self, model: ForecasterModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, state: State) -> Tensor:
        penalty = torch.zeros((), dtype=frames.dtype)
        for t in range(frames.shape[1]):
            if isinstance(self.model, PenalisedForecaster):
                guess, state, penalty = self.model.training_step(frames[:, t], state)
            else:
                guess, state = self.model.step(frames[:, t], state)
        return torch.cat([guess.flatten(), penalty.reshape(1)])


@pytest.mark.parametrize("setting", each_model_always(SETTINGS))
def test_one_batch_can_be_overfitted(setting: str) -> None:
    shape = (1, 16, 16)
    model = build(setting, shape)
    frames = clip(shape, 5)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        state = model.initial_state(2)
        errors = []
        for t in range(4):
            guess, state = model.step(frames[:, t], state)
            errors.append((guess - frames[:, t + 1]).square().mean())
        loss = torch.stack(errors).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_only_the_gamma_of_the_released_code_has_no_gradient(setting: str) -> None:
    model = build(setting, (1, 16, 16))
    _Steps(model)(clip((1, 16, 16), 2), model.initial_state(2)).square().sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.endswith(".gamma") for name in idle)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_new_sequence_starts_clean(setting: str) -> None:
    """Two sequences through one model equal each through a model of its own."""
    shape = (1, 16, 16)
    first, second = clip(shape, 3, seed=1), clip(shape, 3, seed=2)
    model, fresh = build(setting, shape), build(setting, shape)
    with torch.no_grad():
        rollout(model, first, 2)
        torch.testing.assert_close(
            rollout(model, second, 2), rollout(fresh, second, 2), rtol=0, atol=0
        )
        assert not torch.equal(rollout(model, first, 2), rollout(model, second, 2))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_step_leaves_its_arguments_alone_and_uses_them(setting: str) -> None:
    shape = (1, 16, 16)
    model, frames = build(setting, shape), clip(shape, 2)
    with torch.no_grad():
        _, state = model.step(frames[:, 0], model.initial_state(2))
        before = {name: tensor.clone() for name, tensor in state.items()}
        _, new = model.step(frames[:, 1], state)
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name])
        assert not torch.equal(new[name], tensor)


def test_window_attention_equals_attention_on_cut_windows() -> None:
    torch.manual_seed(0)
    stage = WindowAttention(3, 2, 4, 6)
    pair = torch.rand(2, 3, 4, 12)  # h and c of 4x6 side by side
    with torch.no_grad():
        found = stage(pair)
        query, key, value = stage.query(pair), stage.key(pair), stage.value(pair)
        for row in (slice(0, 2), slice(2, 4)):
            for start in (0, 3):
                columns = [start + n for n in range(3)] + [6 + start + n for n in range(3)]
                q, k, v = (x[:, :, row][..., columns].flatten(2) for x in (query, key, value))
                mixed = v @ torch.softmax(q.transpose(1, 2) @ k, dim=-1).transpose(1, 2)
                expected = mixed.reshape(2, 3, 2, 6) + pair[:, :, row][..., columns]
                torch.testing.assert_close(found[:, :, row][..., columns], expected)


def test_context_embedding_does_nothing_to_a_fresh_hidden_state() -> None:
    torch.manual_seed(0)
    block = ContextEmbedding(4, 6, 3, "ln_chw", 5, 7)
    x = torch.rand(2, 4, 5, 7)
    with torch.no_grad():
        same, h = block(x, torch.zeros(2, 6, 5, 7))
    torch.testing.assert_close(same, x)
    assert not h.any()


def test_predrnn_v2_infers_as_predrnn_and_penalises_in_training() -> None:
    shape = (1, 16, 16)
    plain, decoupled = build("predrnn", shape), build("predrnn-v2", shape, decouple_beta=0.5)
    assert isinstance(decoupled, PenalisedForecaster)
    assert not isinstance(plain, PenalisedForecaster)
    decoupled.load_state_dict(plain.state_dict(), strict=False)
    frames = clip(shape, 3)
    with torch.no_grad():
        torch.testing.assert_close(rollout(plain, frames, 2), rollout(decoupled, frames, 2))
        _, _, penalty = decoupled.training_step(frames[:, 0], decoupled.initial_state(2))
    assert 0 < penalty.item() < 0.5


def test_the_zigzag_memory_reaches_the_layer_above_in_the_same_frame() -> None:
    shape = (1, 16, 16)
    model = cast("Any", build("sa-convlstm-zigzag", shape))
    state = model.initial_state(2)
    assert [name for name in state if name.endswith("m")] == ["m"]
    frame, zeros = clip(shape, 1)[:, 0], state["m"]
    below, above = model.cells
    with torch.no_grad():
        _, new = model.step(frame, state)
        h, _, left = below(model.encode(model.patching.to_map(frame)), zeros, zeros, zeros)
        _, _, expected = above(h, zeros, zeros, left)
        _, _, without = above(h, zeros, zeros, zeros)
    torch.testing.assert_close(new["m"], expected)
    assert not torch.allclose(new["m"], without)


def test_predrnn_zigzag_follows_equation_3() -> None:
    """Two frames through two layers, against the equations written out with plain convolutions."""
    model = build("predrnn-zigzag", (1, 4, 4), hidden=2, patch=1, kernel=3, forget_bias=0.5)
    model.double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    weight = {name: tensor.split(2) for name, tensor in model.state_dict().items()}
    frames = clip((1, 4, 4), 2).double()
    h = m = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        for t in range(2):
            for layer in ("cells.0", "cells.1"):
                whole = model.state_dict()

                def gate(n: int, layer: str = layer, h: Tensor = h, t: int = t) -> Tensor:
                    total = F.conv2d(
                        h,
                        weight[f"{layer}.conv_h.conv.weight"][n],
                        weight[f"{layer}.conv_h.conv.bias"][n],
                        padding=1,
                    )
                    if layer == "cells.0":
                        kernel = weight["cells.0.conv_x.conv.weight"][n]
                        total = total + F.conv2d(frames[:, t], kernel, padding=1)
                    return total

                w_i, w_f, w_o = (whole[f"{layer}.peepholes.{n}"] for n in range(3))
                i, f = torch.sigmoid(gate(0) + w_i * m), torch.sigmoid(gate(1) + w_f * m + 0.5)
                m = f * m + i * torch.tanh(gate(2))
                h = torch.sigmoid(gate(3) + w_o * m) * torch.tanh(m)
        state = model.initial_state(2)
        for t in range(2):
            _, state = model.step(frames[:, t], state)
    torch.testing.assert_close(state["h"], h, rtol=0, atol=1e-12)
    torch.testing.assert_close(state["m"], m, rtol=0, atol=1e-12)


def test_scales_of_the_ablations_are_nested_models() -> None:
    sizes = [counted("cms-lstm", DIGITS, scales=scales) for scales in ([], [1], [1, 2], [1, 2, 4])]
    assert all(fewer < more for fewer, more in pairwise(sizes))
    assert sizes[3] - sizes[2] == 4 * (12_481 + 102_400)  # per layer: one stage, its 5x5 inputs
