"""Advect: what it is before it has learned anything, what it tells apart, and how it is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass, gaussian_filter, map_coordinates
from torch import Tensor

from stpl_core.codec import NO_DATA, FrameCodec
from stpl_core.errors import RecipeError
from stpl_train.forecaster import LeadForecaster, State, emissions, rollout
from stpl_train.models import build_model, check_codec
from stpl_train.models.advect import Advect
from stpl_train.models.events import (
    MARGIN,
    chances_of,
    cutoffs_of_areas,
    events_in,
    moved_to_events,
    share_inside,
    shift_of_chances,
)
from stpl_train.unroll import TrainingPass

SIDE, CONTEXT, HORIZON = 128, 6, 12
LEVELS = torch.tensor([0.3, 0.6, 0.9])


def make(side: int = 32, *, shaken: float = 0.0, channels: int = 1, **keys: Any) -> Advect:
    torch.manual_seed(0)
    model = build_model("advect", (channels, side, side), {"hidden": 8, "width": 16, **keys})
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(shaken * torch.randn_like(tensor))
    assert isinstance(model, Advect)
    return model.eval()


def drifting(right: float, down: float, frames: int = CONTEXT + HORIZON) -> Tensor:
    """A texture that moves as a whole, `(1, T + K, 1, H, W)`."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((400, 400)), 3)
    texture = np.clip(noise / noise.std() * 0.3, 0, 1)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float) + 130
    made = [
        map_coordinates(texture, [rows - down * t, columns - right * t], order=3)
        for t in range(frames)
    ]
    return torch.from_numpy(np.stack(made).astype(np.float32))[None, :, None]


@pytest.fixture(scope="module")
def plain() -> Advect:
    return make(SIDE)


@torch.no_grad()
def run(model: Advect, frames: Tensor) -> list[tuple[Tensor, State]]:
    """Every guess and state after `(B, T, C, H, W)`."""
    state, made = model.initial_state(len(frames)), []
    for t in range(frames.shape[1]):
        guess, state = model.step(frames[:, t], state)
        made.append((guess, state))
    return made


@pytest.mark.parametrize(("right", "down"), [(1.3, -0.7), (3.2, 2.1)])
def test_untrained_it_forecasts_a_drifting_field_at_its_place(
    plain: Advect, right: float, down: float
) -> None:
    frames = drifting(right, down)
    with torch.no_grad():
        found = rollout(plain, frames[:, :CONTEXT], HORIZON)
    inner = (..., slice(45, -45), slice(45, -45))  # what was inside all the time
    truth, still = frames[:, CONTEXT:][inner], frames[:, CONTEXT - 1 : CONTEXT][inner]
    error = (found[inner] - truth).abs().mean((0, 2, 3, 4))
    # It keeps 95% of a value at the start, which costs most where persistence costs least.
    assert (error < 0.25 * (still - truth).abs().mean((0, 2, 3, 4))).all()
    # One interpolation, at lead 12 as at lead 1: it is as sharp.
    steepness = found[inner].diff(dim=-1).abs().mean((0, 2, 3, 4))
    true = truth.diff(dim=-1).abs().mean((0, 2, 3, 4))
    ratio = steepness / true
    assert float((ratio[-1] / ratio[0] - 1).abs()) < 0.1


def test_a_shower_is_an_hour_later_where_it_goes(plain: Advect) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = np.stack(
        [
            np.exp(-((rows - 40 - 1.5 * t) ** 2 + (columns - 30 - 3 * t) ** 2) / 50)
            for t in range(CONTEXT + HORIZON)
        ]
    ).astype(np.float32)
    with torch.no_grad():
        context = torch.from_numpy(frames[None, :CONTEXT, None])
        found = rollout(plain, context, HORIZON)[0, -1, 0].numpy()
    where, truth = (np.array(center_of_mass(one)) for one in (found, frames[-1]))
    # 18 rows and 36 columns on. A shower alone has no texture: its edges decide, to 3% of the way.
    assert np.abs(where - truth).max() < 1.5


@pytest.mark.parametrize("speed", [4.0, 12.0])
def test_what_is_learned_does_not_depend_on_the_speed(speed: float) -> None:
    """A model with any weights forecasts of a drifting field what it does of the same at rest."""
    model = make(SIDE, shaken=0.05)
    still, fast = drifting(0.0, 0.0)[:, :CONTEXT], drifting(speed, 0.0)[:, :CONTEXT]
    with torch.no_grad():
        at_rest, drifted = rollout(model, still, 1), rollout(model, fast, 1)
    gone = round(speed) * CONTEXT  # columns, a multiple of the patches
    inner = slice(8, -8), slice(gone + 16, -16)
    seen = drifted[0, 0, 0][inner]
    same = at_rest[0, 0, 0].roll(gone, dims=-1)[inner]
    # The field itself is another one where it has drifted to; what was learned changed it by more.
    changed = (at_rest - still[:, -1:])[0, 0, 0].roll(gone, dims=-1)[inner].abs().mean()
    assert changed > 0.01
    assert (seen - same).abs().mean() < 0.2 * changed


def test_the_fine_motion_fades() -> None:
    """A motion that is the same everywhere goes nowhere: what remains is how it fades."""
    model = make()
    guess, state = run(model, torch.rand(2, 3, 1, 32, 32))[-1]
    even = torch.ones_like(state["v"])
    state |= {"v": 2.0 * even, "u": 2.5 * even}
    for lead in (1, 2):
        with torch.no_grad():
            guess, state = model.step(guess, state)
        left = 0.85**lead * 0.5 * even
        torch.testing.assert_close(state["u"] - state["v"], left, rtol=0, atol=1e-5)


def test_motion_goes_with_what_moves() -> None:
    """What is fast stays fast where it goes, and where it was another motion arrives."""
    model = make(256)
    guess, state = run(model, torch.rand(1, 2, 1, 256, 256))[-1]
    rows, columns = np.mgrid[:64, :64]
    fast = np.exp(-((rows - 32) ** 2 + (columns - 16) ** 2) / (2 * 10**2))
    way = torch.zeros_like(state["v"])  # (1, 2, h, w)
    way[0, 0] = -4 * torch.from_numpy(fast)  # pixels back: at most a patch to the right in a step
    begun, state = float(state["d"][0, 0, 32, 16]), state | {"v": way, "u": way}
    for _ in range(12):
        with torch.no_grad():
            guess, state = model.step(guess, state)
    found = -state["v"][0, 0].numpy()
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 32) <= 1
    assert abs(column - (16 + 12)) <= 1
    assert found.max() > 3.8
    assert found[32, 16] < 0.75 * 4  # it was the fastest, and has gone
    assert abs(float(state["d"][0, 0, 32, 28]) - begun + 12 * 4) < 3


def test_a_first_frame_has_no_motion() -> None:
    model = make(shaken=0.02)
    frames = torch.rand(2, 3, 1, 32, 32)
    (_, first), (_, second), _ = run(model, frames)
    assert not first["v"].any()
    assert second["v"].any()
    assert first["seen"].flatten().tolist() == [1, 1]
    assert list(first) == list(model.initial_state(1))
    assert not any(tensor.any() for tensor in model.initial_state(2).values())


def test_lead_forecasts_are_those_of_the_steps() -> None:
    """Two ways through the same equations: one step at a time, and each lead time at once."""
    model = make(shaken=0.05)
    frames = torch.rand(3, 4, 1, 32, 32)
    with torch.no_grad():
        model.trust.copy_(torch.rand_like(model.trust))
        state = run(model, frames)[-1][1]
        guess, leads = state["guess"], (1, 3, 12, 14)  # two beyond the last calibration
        steps, chances = [guess], [state["chance"]]
        for _ in range(13):
            guess, state = model.step(guess, state)
            steps.append(guess)
            chances.append(state["chance"])
        made, chance = model.matched_forecasts(frames, leads)
    for n, lead in enumerate(leads):
        torch.testing.assert_close(made[:, n], steps[lead - 1], rtol=0, atol=5e-5)
        torch.testing.assert_close(chance[:, n], chances[lead - 1], rtol=0, atol=5e-5)


# Observed or fed back


def after_context(model: Advect) -> tuple[Tensor, State]:
    return run(model, torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1)))[-1]


@torch.no_grad()
def leads(model: Advect, frame: Tensor, state: State) -> list[float]:
    """Lead time of the guess after `frame`: 1 where it was taken for an observation."""
    found: list[float] = model.step(frame, state)[1]["lead"].flatten().tolist()
    return found


def test_its_own_emission_is_known_in_each_sequence_alone() -> None:
    model = make(shaken=0.05)
    guess, state = after_context(model)
    assert leads(model, guess, state) == [2, 2]
    mixed = guess.clone()
    mixed[1] = torch.rand(1, 32, 32)
    assert leads(model, mixed, state) == [2, 1]


def test_one_pixel_makes_an_observation_and_one_rounding_does_not() -> None:
    model = make(shaken=0.05)
    guess, state = after_context(model)
    rounded = torch.nextafter(guess, torch.full_like(guess, 2.0))
    assert leads(model, rounded, state) == [2, 2]
    for change in (1e-5, -1e-5, 1.0, float("inf")):
        other = guess.clone()
        other[0, 0, 31, 31] += change
        assert leads(model, other, state) == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_roundings_are_those_of_the_frame(dtype: torch.dtype) -> None:
    model = make(shaken=0.05)
    guess, state = after_context(model)
    frame = state["guess"].to(dtype)
    size = frame.abs().clamp(min=1) * torch.finfo(dtype).eps
    assert model._differs(frame + 2 * size, frame).flatten().tolist() == [0, 0]
    assert model._differs(frame + 32 * size, frame).flatten().tolist() == [1, 1]
    assert guess.dtype == torch.float32


def test_a_dry_start_and_a_field_that_stays_are_observations() -> None:
    model = make(shaken=0.05)
    dry = torch.zeros(1, 4, 1, 32, 32)
    assert run(model, dry)[0][1]["seen"].item() == 1  # though the zero state's guess is dry too
    still = torch.rand(1, 1, 1, 32, 32).expand(1, 5, 1, 32, 32)
    states = [state for _, state in run(model, still)]
    assert [state["seen"].item() for state in states] == [1, 2, 3, 4, 5]
    assert all(float(state["v"].abs().max()) < 1e-3 for state in states)


def test_an_observation_equal_to_the_guess_loses_nothing(plain: Advect) -> None:
    """A field that moves just as forecast, bit for bit, is forecast as well as any other."""
    frames = drifting(1.3, -0.7)
    with torch.no_grad():
        every = list(emissions(plain, frames[:, :CONTEXT], HORIZON))
        guess = every[CONTEXT - 1]
        perfect = torch.cat([frames[:, :CONTEXT], guess[:, None]], 1)
        found = rollout(plain, perfect, HORIZON - 1)
    torch.testing.assert_close(found, torch.stack(every[CONTEXT:], 1), rtol=0, atol=0)


def test_an_observation_after_emissions_starts_a_forecast_anew(plain: Advect) -> None:
    frames = drifting(1.3, -0.7)
    with torch.no_grad():
        guess, state = run(plain, frames[:, :4])[-1]
        guess, state = plain.step(guess, state)
        guess, state = plain.step(frames[:, 5], state)
    assert (state["lead"].item(), state["seen"].item()) == (1, 5)
    torch.testing.assert_close(state["anchor"], frames[:, 5])
    inner = (..., slice(20, -20), slice(20, -20))
    assert float((guess - frames[:, 6])[inner].abs().mean()) < 0.02


def test_what_comes_from_where_nothing_was_observed_comes_from_outside(plain: Advect) -> None:
    frames = drifting(3.0, 0.0)[:, :CONTEXT]
    half = frames.shape[-1] // 2
    hidden = frames.clone()
    hidden[..., :half] = NO_DATA
    guess, state = run(plain, hidden)[-1]
    with torch.no_grad():
        for _ in range(3):
            guess, state = plain.step(guess, state)
        decoded = [state[name] for name in ("anchor", "h", "d", "lead")]
        inside = plain._decoded(*decoded)[3][0, 0]
    assert state["seen"].item() == CONTEXT
    assert float(state["guess"].min()) > -0.1
    # In four steps of 3 pixels, what was hidden came 12 pixels further; a patch is 4.
    rows = slice(16, -16)
    assert float(inside[rows, 4 : half + 4].max()) < 0.01
    assert float(inside[rows, half + 16 : -4].min()) > 0.99
    other = torch.where(hidden == NO_DATA, -0.7, hidden)
    torch.testing.assert_close(run(plain, other)[-1][0], run(plain, hidden)[-1][0])


def test_nothing_is_concluded_from_a_frame_that_shows_nothing() -> None:
    model = make(shaken=0.05)
    hidden = torch.full((1, 3, 1, 32, 32), NO_DATA)
    guess, state = run(model, hidden)[-1]
    logits = model.lead_forecasts(hidden, (1,))[1][0, 0]  # (Q, C, H, W)
    none = torch.zeros(1, len(logits))
    torch.testing.assert_close(state["chance"][0], chances_of(logits[None], none, none)[0])
    assert (logits < 0).all()
    assert float(guess.max()) < float(model.levels[0])


def test_only_a_model_that_knows_no_data_is_given_its_mark() -> None:
    codec = FrameCodec(marks_no_data=True)
    check_codec(make(), "advect", codec)
    other = build_model("convlstm", (1, 32, 32), {"hidden": [4]})
    with pytest.raises(
        RecipeError, match=r"convlstm, which takes every pixel.*marks_no_data=false"
    ):
        check_codec(other, "convlstm", codec)


def test_it_takes_no_residual_around_it() -> None:
    with pytest.raises(RecipeError, match=r"output = 'residual' with advect.*output=frame"):
        build_model("advect", (1, 32, 32), {"output": "residual"})


def test_levels_rise() -> None:
    with pytest.raises(RecipeError, match="levels"):
        build_model("advect", (1, 32, 32), {"levels": [0.5, 0.25]})


# Training


def test_every_weight_has_a_finite_gradient_both_ways() -> None:
    model = make(shaken=0.05, channels=2).train()
    frames = torch.rand(2, 6, 2, 32, 32)
    frames[0, :, :, :16] = 0.0  # nothing to see in half of it
    for way in ("steps", "leads"):
        model.zero_grad()
        if way == "steps":
            guesses, _ = TrainingPass(model)(frames, np.eye(2, 4, dtype=bool))
            (guesses - frames[:, 1:]).square().mean().backward()
        else:
            field, logits = model.lead_forecasts(frames[:, :3], (1, 2, 3))
            ((field - frames[:, 3:]).square().mean() + logits.sigmoid().mean()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (way, name)
            assert parameter.grad.isfinite().all(), (way, name)
            assert parameter.grad.any(), (way, name)
    assert isinstance(model, LeadForecaster)


# Events


def test_a_field_is_moved_to_its_events_and_no_further() -> None:
    random = np.random.default_rng(0)
    field = random.random((2, 1, 9, 9)).astype(np.float32)
    levels = np.array([0.3, 0.6], np.float32)
    chance = random.choice([-9.0, 9.0], (2, 2, 1, 9, 9)).astype(np.float32)
    chance[:, 1] = np.minimum(chance[:, 1], chance[:, 0])  # 0.6 is above 0.3
    found = moved_to_events(
        torch.from_numpy(field),
        torch.from_numpy(chance),
        torch.from_numpy(levels),
        torch.zeros(2, 2),
    ).numpy()
    low = np.where(chance[:, 1] > 0, 0.6 + MARGIN, np.where(chance[:, 0] > 0, 0.3 + MARGIN, -9))
    high = np.where(chance[:, 0] < 0, 0.3 - MARGIN, np.where(chance[:, 1] < 0, 0.6 - MARGIN, 9))
    np.testing.assert_allclose(found, np.clip(field, low, high), atol=1e-6)


def test_a_rounding_of_a_chance_moves_a_field_by_as_little() -> None:
    logits = torch.linspace(-1, 1, 2001).view(1, 1, 1, 1, -1)
    field = torch.zeros(1, 1, 1, 2001)
    made = moved_to_events(field, logits, torch.tensor([0.7]), torch.zeros(1, 1))
    assert float(made.diff(dim=-1).abs().max()) < 0.7 * 0.001 / 0.2


def matched() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, what was seen where it moved to, which is inside; and the areas of its events."""
    torch.manual_seed(3)
    logits = 2 * torch.randn(2, 3, 1, 60, 50) - 1
    moved = torch.rand(2, 1, 60, 50)
    inside = torch.ones(2, 1, 60, 50)
    inside[:, :, :, :20] = 0
    return logits, moved, inside, share_inside(events_in(moved, LEVELS), inside)


def test_areas_are_those_of_the_events_inside() -> None:
    """A value at its level counts whole, one that is 0.01 below it not at all."""
    _, moved, inside, areas = matched()
    seen = moved[:, 0, :, 20:]
    for q, level in enumerate(LEVELS.tolist()):
        there = (seen >= level - 0.005).float().mean((1, 2))
        torch.testing.assert_close(areas[:, q], there, rtol=0, atol=0.005)
    assert not share_inside(events_in(moved, LEVELS), torch.zeros_like(inside)).any()
    at = torch.tensor([0.289, 0.3, 0.6]).view(1, 1, 1, 3)
    assert events_in(at, LEVELS)[0, :, 0, 0].tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_interpolation_takes_nothing_from_an_event() -> None:
    """A third of a pixel on, a shower of one pixel is nowhere as heavy, and covers as much."""
    model = make(SIDE)
    frames = torch.zeros(1, 2, 1, SIDE, SIDE)
    frames[..., 8:-8:8, 8:-8:8] = 1.0
    state = run(model, frames)[-1][1]
    third = torch.full_like(state["u"], -0.33)
    with torch.no_grad():
        guess, _ = model.step(state["guess"], state | {"v": third, "u": third})
    showers = int((frames[0, -1] > 0).sum())
    for level in model.levels.tolist():
        assert int((guess > level).sum()) == pytest.approx(showers, rel=0.05)


def test_motion_that_draws_apart_makes_no_more_rain_likely() -> None:
    """Of a round shower, read at r^2 / 50 within 50 pixels of its middle: larger, and as likely."""
    model = make(SIDE, levels=[0.5])
    at = torch.arange(SIDE) - (SIDE - 1) / 2
    shower = (torch.hypot(*torch.meshgrid(at, at, indexing="ij")) < 20).float()[None, None]
    at = 4 * torch.arange(SIDE // 4) - (SIDE - 4) / 2
    across, down = torch.meshgrid(at, at, indexing="xy")
    shorter = (torch.hypot(across, down) / 50).clamp(max=1.0) - 1
    way = (shorter * torch.stack([across, down]))[None]
    shown, expected = model._areas(shower, way, torch.ones_like(shower))
    assert float(shown) == pytest.approx(50 / 20 * float(shower.mean()), rel=0.03)
    assert float(expected) == pytest.approx(float(shower.mean()), rel=0.03)


def test_what_is_a_step_below_a_level_counts_for_the_frame_alone() -> None:
    model = make(SIDE)
    below = torch.full((1, 1, SIDE, SIDE), float(model.levels[1]) - 0.005)
    still = torch.zeros(1, 2, SIDE // 4, SIDE // 4)
    shown, expected = model._areas(below, still, torch.ones_like(below))
    assert shown[0].tolist() == pytest.approx(
        [1.0, 0.5, *[0.0] * (len(model.levels) - 2)], abs=0.01
    )
    assert expected[0].tolist() == pytest.approx([1.0, *[0.0] * (len(model.levels) - 1)], abs=0.01)


def test_as_much_is_forecast_and_expected_as_was_seen() -> None:
    logits, _, inside, areas = matched()
    cutoffs = cutoffs_of_areas(logits, areas, torch.ones_like(inside))
    called = (logits > cutoffs[:, :, None, None, None]).float().mean((2, 3, 4))
    torch.testing.assert_close(called, areas, rtol=0, atol=0.01)
    shift = shift_of_chances(logits, areas, inside)
    assert float(shift.abs().max()) < 3.0
    expected = torch.sigmoid(logits[..., 20:] + shift[:, :, None, None, None]).mean((2, 3, 4))
    torch.testing.assert_close(expected, areas, rtol=0, atol=1e-4)


def test_what_is_nowhere_is_not_forecast_and_may_yet_begin() -> None:
    logits, _, inside, areas = matched()
    none = torch.zeros_like(areas)
    assert (cutoffs_of_areas(logits, none, inside) > logits.amax((2, 3, 4))).all()
    shift = shift_of_chances(logits, none, inside)
    torch.testing.assert_close(shift, torch.full_like(shift, -3.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (192, 192), (765, 700)])
def test_few_pixels_stand_for_a_large_frame(size: tuple[int, int]) -> None:
    side = -(-size[0] // 4) * 4, -(-size[1] // 4) * 4
    model = build_model("advect", (1, *side), {"hidden": 4, "width": 4})
    assert isinstance(model, Advect)
    some = torch.zeros(1, 3, 1, *side)[..., :: model.apart, :: model.apart]
    assert some[0, 0].numel() <= 20_000 or some.shape[-2:] == (side[0] // 4, side[1] // 4)


def test_a_higher_level_is_never_likelier() -> None:
    logits, none = torch.randn(2, 4, 1, 8, 8), torch.zeros(2, 4)
    made = chances_of(logits, none, none)
    assert (made.diff(dim=1) <= 0).all()
    torch.testing.assert_close(made, torch.sigmoid(logits).cummin(1).values)


def test_chances_are_calibrated_on_what_was_observed() -> None:
    model = make(shaken=0.05, levels=[0.5])
    sequences = np.random.default_rng(0).random((2, 6, 1, 32, 32)).astype(np.float32)
    observed = np.ones((2, 6, 32, 32), bool)
    model.fit_events(sequences, observed, 3)
    all_seen = model.trust.clone()
    model.fit_events(sequences, None, 3)
    torch.testing.assert_close(model.trust, all_seen)
    observed[..., :16] = False
    model.fit_events(sequences, observed, 3)
    half = model.trust.clone()
    sequences[:, 3:, :, :, :16] = 1.0  # of what nobody saw, nothing counts
    model.fit_events(sequences, observed, 3)
    torch.testing.assert_close(model.trust, half)
    assert not torch.equal(half, all_seen)
