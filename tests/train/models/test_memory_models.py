"""PredRNN++, MIM and E3D-LSTM: counts, gradients, state, and equations written out a second time.

PredRNN++ and MIM are compared with OpenSTL's own numbers in test_golden.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stpl_core.errors import CheckpointError, RecipeError
from stpl_train.forecaster import FrameShape, State, emissions, rollout
from stpl_train.importers import Hints, convert
from stpl_train.models import ForecasterModule, build_model
from tests.train.models.settings import each_model_always

DIGITS: FrameShape = (1, 64, 64)
TF: dict[str, Any] = {"norm": "gn1", "bias": True}  # the authors' TensorFlow forms

# What the tests run on: a name, the model's word, tiny keys.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "predrnn-pp": ("predrnn-pp", {"hidden": [8, 6, 4]}),
    "predrnn-pp-tf": ("predrnn-pp", {"hidden": [6, 6], **TF}),
    "predrnn-pp-ln": ("predrnn-pp", {"hidden": [6, 6], "norm": "ln_chw"}),
    "predrnn-pp-2023": ("predrnn-pp", {"hidden": [6, 4], "equations": "openstl-2023-06"}),
    "mim": ("mim", {"hidden": 6, "layers": 3}),
    "mim-tf": ("mim", {"hidden": 6, "layers": 3, "first_layer": "light", **TF}),
    "mim-ln": ("mim", {"hidden": 6, "layers": 2, "norm": "ln_chw"}),
    "e3d-lstm": ("e3d-lstm", {"hidden": [6, 6], "history": 5}),
    "e3d-lstm-unequal": ("e3d-lstm", {"hidden": [6, 4], "history": 5, "norm": "ln_chw"}),
    "e3d-lstm-plain": ("e3d-lstm", {"hidden": [6], "history": 5, "norm": "none", "bias": False}),
}


def build(setting: str, shape: FrameShape, **extra: Any) -> ForecasterModule:
    torch.manual_seed(3)
    word, keys = SETTINGS[setting]
    return build_model(word, shape, {**keys, **extra})


def clip(shape: FrameShape, length: int, batch: int = 2, seed: int = 7) -> Tensor:
    """A smooth pattern that moves, `(B, T, C, H, W)` in [0, 1]."""
    channels, height, width = shape
    speed = 1 + torch.rand(batch, 1, channels, 1, 1, generator=torch.Generator().manual_seed(seed))
    time = torch.arange(length).reshape(1, length, 1, 1, 1)
    rows = torch.arange(height).reshape(1, 1, 1, height, 1) / height
    columns = torch.arange(width).reshape(1, 1, 1, 1, width) / width
    return 0.5 + 0.5 * torch.sin(6.3 * (rows + columns - 0.1 * speed * time))


def stir(model: ForecasterModule) -> None:
    """Move every parameter off its starting value: zero peepholes and unit scales hide faults."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(parameter.dtype), alpha=0.1)


def run(model: ForecasterModule, frames: Tensor) -> tuple[Tensor, State]:
    """Every step reads the true frame; the last guess and the last state."""
    state = model.initial_state(frames.shape[0])
    for t in range(frames.shape[1]):
        guess, state = model.step(frames[:, t], state)
    return guess, state


@pytest.mark.parametrize(
    ("word", "shape", "keys", "expected"),
    [
        # OpenSTL's 38,584,320 less the conv_o that is never used.
        ("predrnn-pp", DIGITS, {"hidden": [128] * 4}, 35_307_520),
        ("predrnn-pp", DIGITS, {"hidden": [64] * 4}, 8_916_992),
        ("predrnn-pp", DIGITS, TF, 15_390_160),
        ("predrnn-pp", DIGITS, {"hidden": [64] * 4, **TF}, 8_934_928),
        # OpenSTL's 38,043,648, 39,813,120 and 9,748,480 less the conv_last of the differences.
        ("mim", DIGITS, {"hidden": 128}, 37_945_344),
        ("mim", (1, 128, 128), {"hidden": 128}, 39_714_816),
        ("mim", DIGITS, {}, 9_723_904),
        ("mim", DIGITS, {"first_layer": "light", **TF}, 9_562_832),
        ("e3d-lstm", DIGITS, {}, 12_898_832),
    ],
)
def test_parameters_are_as_counted_in_the_references(
    word: str, shape: FrameShape, keys: dict[str, Any], expected: int
) -> None:
    with torch.device("meta"):
        model = build_model(word, shape, keys)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 64, 64), 4), ((2, 32, 32), 2), ((1, 128, 128), 4), ((2, 16, 24), 4)],
)
def test_every_size_builds_and_steps(setting: str, shape: FrameShape, patch: int) -> None:
    large = shape[1] == 128 and setting.startswith("e3d")
    model = build(setting, shape, patch=patch, **({"history": 2} if large else {}))
    state = model.initial_state(1)
    with torch.no_grad():
        guess, new = model.step(clip(shape, 1, batch=1)[:, 0], state)
    assert guess.shape == (1, *shape)
    assert list(new) == list(state)
    assert [new[name].shape for name in new] == [state[name].shape for name in state]
    assert all(torch.isfinite(tensor).all() for tensor in (guess, *new.values()))


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_equal_finite_differences(setting: str) -> None:
    shape = (1, 8, 8)
    narrow = 2 if setting.startswith("mim") else [2] * len(SETTINGS[setting][1]["hidden"])
    model = build(setting, shape, hidden=narrow, kernel=3).double()
    stir(model)
    frames = clip(shape, 4, batch=1).double()
    names = [name for name, _ in model.named_parameters()]

    def four_steps(*values: Tensor) -> Tensor:
        given = {f"model.{name}": value for name, value in zip(names, values, strict=True)}
        out: Tensor = torch.func.functional_call(_Run(model), given, (frames,))
        return out

    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(four_steps, values, fast_mode=True)


class _Run(torch.nn.Module):
    def __init__(self, model: ForecasterModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return run(self.model, frames)[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_parameter_has_a_part_in_the_output(setting: str) -> None:
    model = build(setting, (1, 16, 16)).double()
    stir(model)
    run(model, clip((1, 16, 16), 4).double())[0].square().sum().backward()  # type: ignore[no-untyped-call]  # torch
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-12, name


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
def test_a_new_sequence_starts_clean_with_another_batch_size(setting: str) -> None:
    """Two batches through one model equal each through a model of its own."""
    shape = (1, 16, 16)
    first, second = clip(shape, 3, batch=2, seed=1), clip(shape, 3, batch=3, seed=2)
    model, fresh = build(setting, shape), build(setting, shape)
    with torch.no_grad():
        rollout(model, first, 2)
        torch.testing.assert_close(
            rollout(model, second, 2), rollout(fresh, second, 2), rtol=0, atol=0
        )
        one = rollout(model, second[1:2], 2)
        torch.testing.assert_close(one, rollout(fresh, second, 2)[1:2])
        assert not torch.allclose(one, rollout(fresh, second, 2)[2:3])


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_step_leaves_its_arguments_alone_and_uses_them(setting: str) -> None:
    shape = (1, 16, 16)
    model, frames = build(setting, shape), clip(shape, 3)
    with torch.no_grad():
        _, state = run(model, frames[:, :2])
        before = {name: tensor.clone() for name, tensor in state.items()}
        _, new = model.step(frames[:, 2], state)
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name])
        assert name == "started" or not torch.equal(new[name], tensor)


def test_predrnn_pp_equations_differ_between_the_two_versions() -> None:
    shape = (1, 16, 16)
    now = build("predrnn-pp", shape, hidden=[6, 6])
    then = build("predrnn-pp", shape, hidden=[6, 6], equations="openstl-2023-06")
    then.load_state_dict(now.state_dict())
    with torch.no_grad():
        a, b = (rollout(model, clip(shape, 3), 1) for model in (now, then))
    assert not torch.allclose(a, b)


def test_predrnn_pp_starts_in_the_range_of_the_recipe() -> None:
    model = build("predrnn-pp", (1, 16, 16), init_range=0.001)
    for name, parameter in model.named_parameters():
        small = parameter.abs().max().item() <= 0.001
        assert small == (parameter.shape[-1] == 5), name


def test_a_single_layer_has_no_place_for_the_highway_or_the_differences() -> None:
    with pytest.raises(RecipeError, match="hidden"):
        build("predrnn-pp", (1, 16, 16), hidden=[8])
    with pytest.raises(RecipeError, match="layers"):
        build("mim", (1, 16, 16), layers=1)


@pytest.mark.parametrize("setting", ["mim", "mim-tf", "mim-ln"])
def test_mim_has_no_difference_in_the_first_step(setting: str) -> None:
    """With biases and norms too, MIM-N and what MIM-S reads of it start with the second frame."""
    shape = (1, 16, 16)
    model, other = build(setting, shape), build(setting, shape)
    stir(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith("differences.") or ".inner.conv_x." in name:
                parameter.add_(1.0)
    frames = clip(shape, 2)
    with torch.no_grad():
        (one, state), (two, _) = run(model, frames[:, :1]), run(other, frames[:, :1])
        assert torch.equal(one, two)
        assert not any(state[name].any() for name in state if name.startswith("diff"))
        assert state["layer1.c"].any()
        assert not torch.allclose(run(model, frames)[0], run(other, frames)[0])


def test_mim_restarts_one_sequence_of_a_batch_by_zeroing_its_rows() -> None:
    shape = (1, 16, 16)
    model, frames = build("mim-tf", shape), clip(shape, 3)
    with torch.no_grad():
        _, state = run(model, frames[:, :2])
        fresh = {name: torch.cat((tensor[:1] * 0, tensor[1:])) for name, tensor in state.items()}
        mixed, _ = model.step(frames[:, 2], fresh)
        alone, _ = model.step(frames[:1, 2], model.initial_state(1))
        going, _ = model.step(frames[:, 2], state)
    torch.testing.assert_close(mixed[:1], alone)
    torch.testing.assert_close(mixed[1:], going[1:])


def _openstl_mim(layer_norm: bool) -> dict[str, Tensor]:
    """OpenSTL's names and shapes: two layers of width 2 on 8x8 frames, patch 4, kernel 3."""
    convs = {"conv_last": (16, 2, 1)}
    normed = {
        f"stlstm_layer.0.conv_{part}": n for part, n in zip("xhmo", (14, 8, 6, 2), strict=True)
    }
    inputs = {"stlstm_layer.0.conv_x": 16, "stlstm_layer.0.conv_o": 4}
    normed |= {
        f"stlstm_layer.1.conv_{part}_cc": n for part, n in zip("tsx", (6, 8, 8), strict=True)
    }
    peepholes: dict[str, Tensor] = {}
    for cell in ("stlstm_layer.1", "stlstm_layer_diff.0"):
        normed |= {f"{cell}.conv_h_concat": 8, f"{cell}.conv_x_concat": 8}
        peepholes |= {
            f"{cell}.ct_weight": torch.rand(4, 2, 2),
            f"{cell}.oc_weight": torch.rand(2, 2, 2),
        }
    for cell in ("stlstm_layer.0", "stlstm_layer.1", "stlstm_layer_diff.0"):
        convs[f"{cell}.conv_last"] = (2, 4, 1)
    tensors = {f"{name}.weight": torch.rand(o, i, k, k) for name, (o, i, k) in convs.items()}
    for name, outputs in normed.items():
        tensors[f"{name}.0.weight"] = torch.rand(outputs, inputs.get(name, 2), 3, 3)
        if layer_norm:
            tensors |= {
                f"{name}.1.{part}": torch.rand(outputs, 2, 2) for part in ("weight", "bias")
            }
    return tensors | peepholes


@pytest.mark.parametrize("layer_norm", [False, True])
def test_openstl_mim_is_read_off_its_tensors(layer_norm: bool) -> None:
    tensors = _openstl_mim(layer_norm)
    imported = convert("openstl", tensors)
    assert imported.frame_shape == (1, 8, 8)
    assert imported.unused == ("stlstm_layer_diff.0.conv_last.weight",)
    model = build_model(imported.model, imported.frame_shape, imported.keys)
    model.load_state_dict(imported.state_dict)
    ours = imported.state_dict
    both = torch.cat((ours["differences.0.peep_i"], ours["differences.0.peep_f"]))
    assert torch.equal(both, tensors["stlstm_layer_diff.0.ct_weight"])
    assert torch.equal(
        ours["blocks.0.conv_h.conv.weight"], tensors["stlstm_layer.1.conv_t_cc.0.weight"]
    )
    if layer_norm:
        assert torch.equal(
            ours["blocks.0.inner.conv_x.norm.bias"], tensors["stlstm_layer.1.conv_x_concat.1.bias"]
        )


@pytest.mark.parametrize(
    "name", ["stlstm_layer.1.oc_weight", "stlstm_layer_diff.0.ct_weight", "conv_last.weight"]
)
def test_openstl_mim_without_a_tensor_is_refused_by_its_name(name: str) -> None:
    tensors = _openstl_mim(layer_norm=False)
    del tensors[name]
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        convert("openstl", tensors)


def test_openstl_mim_with_a_scalar_for_a_peephole_is_refused() -> None:
    tensors = _openstl_mim(layer_norm=False) | {"stlstm_layer_diff.0.ct_weight": torch.ones(())}
    with pytest.raises(CheckpointError, match="ct_weight"):
        convert("openstl", tensors, Hints())


class PlainE3D:
    """E3D-LSTM written out: 3-D convolutions, every past cell in a list, loops over tokens' slices.

    Maps are `(B, D, 2, h, w)`, as in the paper's code. `keep` bounds the list.
    """

    def __init__(self, model: ForecasterModule, widths: list[int], keep: int | None) -> None:
        self.weights = model.state_dict()
        self.widths, self.keep = widths, keep

    def conv(self, name: str, x: Tensor) -> Tensor:
        here, behind = self.weights[f"{name}.here.weight"], self.weights[f"{name}.behind.weight"]
        rows = here.shape[-1] // 2
        padded = F.pad(x, (rows, rows, rows, rows, 0, 1))
        kernel = torch.stack((here, behind), dim=2)  # (O, I, 2, k, k)
        y = F.conv3d(padded, kernel, self.weights[f"{name}.here.bias"])
        return self.normed(f"{name}.norm", y) if f"{name}.norm.weight" in self.weights else y

    def normed(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(
            x, 1, self.weights[f"{name}.weight"].flatten(), self.weights[f"{name}.bias"].flatten()
        )

    @staticmethod
    def recall(r: Tensor, past: list[Tensor]) -> Tensor:
        keys = torch.cat([c.flatten(2) for c in past], dim=2)  # (B, D, N*2hw)
        logits = torch.einsum("bdq,bdk->bqk", r.flatten(2), keys)
        return torch.einsum("bqk,bdk->bdq", logits.softmax(-1), keys).reshape(r.shape)

    def layer(
        self, cell: str, x: Tensor, h: Tensor, m: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        xi, xg, xr, xo, xi2, xg2, xf2 = self.conv(f"{cell}.conv_x", x).chunk(7, 1)
        hi, hg, hr, ho = self.conv(f"{cell}.conv_h", h).chunk(4, 1)
        mi, mf, mg, mm = self.conv(f"{cell}.conv_m", m).chunk(4, 1)
        recalled = self.recall(
            (xr + hr).sigmoid(), past if self.keep is None else past[-self.keep :]
        )
        c = self.normed(f"{cell}.norm_c", past[-1] + recalled)
        c = c + (xi + hi).sigmoid() * (xg + hg).tanh()
        m = (xf2 + mf + 1).sigmoid() * mm.tanh() + (xi2 + mi).sigmoid() * (xg2 + mg).tanh()
        o = xo + ho + self.conv(f"{cell}.conv_c_new", c) + self.conv(f"{cell}.conv_m_new", m)
        kernel = self.weights[f"{cell}.merge.weight"].unsqueeze(2)
        merged = F.conv3d(torch.cat((c, m), 1), kernel, self.weights[f"{cell}.merge.bias"])
        return o.tanh().sigmoid() * merged.tanh(), c, m

    def emissions(self, patched: Tensor, context: int) -> tuple[list[Tensor], list[list[Tensor]]]:
        """`patched` (B, T + K - 1, C, h, w): every emission, and every layer's list of cells."""
        batch, steps, channels, height, width = patched.shape
        zero = [patched.new_zeros(batch, d, 2, height, width) for d in self.widths]
        hidden, past, m = list(zero), [[z] for z in zero], zero[-1]
        before, guess, out = torch.zeros_like(patched[:, 0]), patched[:, 0], []
        for t in range(steps):
            frame = patched[:, t] if t < context else guess
            x = torch.stack((before, frame), dim=2)  # (B, C, 2, h, w)
            before = frame
            for n in range(len(self.widths)):
                x, c, m = self.layer(f"cells.{n}", x, hidden[n], m, past[n])
                hidden[n] = x
                past[n].append(c)
            slices = self.weights["decode.weight"].reshape(channels, 2, -1, 1, 1).transpose(1, 2)
            guess = F.conv3d(x, slices, self.weights["decode.bias"])[:, :, 0]
            out.append(guess)
        return out, past


@pytest.mark.parametrize(
    ("history", "keep"),
    [(7, None), (12, None), (3, 3), (2, 2)],
    ids=["just enough", "roomy", "bounded", "two"],
)
def test_e3d_lstm_equals_the_equations_with_a_list_as_history(
    history: int, keep: int | None
) -> None:
    """Within its capacity the ring buffer changes nothing; beyond it the oldest cells go."""
    widths, shape, context, steps = [3, 2], (1, 6, 8), 4, 7
    model = build("e3d-lstm", shape, hidden=widths, kernel=3, patch=1, history=history).double()
    stir(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm_c.weight"):
                parameter.mul_(3)  # larger cells, so that attention is far from uniform
    frames = clip(shape, context).double()
    with torch.no_grad():
        found = list(emissions(model, frames, steps - context + 1))
        patched = torch.cat((frames, frames.new_zeros(2, steps - context, *shape)), dim=1)
        plain = PlainE3D(model, widths, keep)
        expected, past = plain.emissions(patched, context)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
        forgetful = PlainE3D(model, widths, 1).emissions(patched, context)[0]
    assert (forgetful[-1] - expected[-1]).abs().max() > 1e-6  # the recall does matter here
    assert len(past[0]) == steps + 1


def test_e3d_lstm_keeps_the_newest_cells_in_order_and_counts_them() -> None:
    shape = (1, 8, 8)
    model = build("e3d-lstm", shape, history=4)
    frames = clip(shape, 6)
    cells, counts = [], []
    state = model.initial_state(2)
    with torch.no_grad():
        for t in range(6):
            cells.append(state["layer0.c"])
            _, state = model.step(frames[:, t], state)
            counts.append(state["count"][0].item())
    assert counts == [1, 2, 3, 3, 3, 3]
    kept = state["layer0.history"].reshape(2, 3, 2, 2, 2, 6)  # (B, slots, depth, h, w, D)
    for slot, cell in enumerate(cells[-3:]):
        assert torch.equal(kept[:, slot], cell.permute(0, 1, 3, 4, 2))


def test_e3d_lstm_gives_an_empty_slot_no_weight() -> None:
    """Whatever lies in the slots that the count calls empty does not reach the output."""
    shape = (1, 8, 8)
    model, frames = build("e3d-lstm", shape), clip(shape, 3)
    with torch.no_grad():
        _, state = run(model, frames[:, :2])
        spoilt = dict(state)
        tokens = 2 * 2 * 2  # of one slot; 4 slots, 2 filled
        junk = state["layer0.history"].clone()
        junk[:, : 2 * tokens] = 50.0
        spoilt["layer0.history"] = junk
        clean, dirty = model.step(frames[:, 2], state)[0], model.step(frames[:, 2], spoilt)[0]
        assert torch.equal(clean, dirty)
        junk[:, 2 * tokens :] = 50.0
        assert not torch.allclose(clean, model.step(frames[:, 2], spoilt)[0])


def test_e3d_lstm_updates_the_global_memory() -> None:
    model = build("e3d-lstm", (1, 8, 8))
    with torch.no_grad():
        _, one = run(model, clip((1, 8, 8), 1))
        _, two = run(model, clip((1, 8, 8), 2))
    assert one["m"].abs().max() > 0.01
    assert not torch.allclose(one["m"], two["m"])
