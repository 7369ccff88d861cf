"""Advect: the newest frame is moved along the motion that was seen, and corrected.

A nowcaster of fields that drift: rain on radar. It has the parts of Lagrangian extrapolation, each
inside one step, and learns what that lacks. For a frame f at time t (`W(x, s)` reads x at x + s):

    v   motion from frame to frame, by Lucas and Kanade (`stpl_train.models.motion`), averaged
    u   the same with what is finer; u <- v + 0.85 (u - v) from lead time to lead time
    h   <- ConvGRU(conv[f, f - W(last, u)], W(h, u))      features that move with the field
    u   <- W(u, W(u, u)), and v along the same way        motion goes with what moves
    d   <- u + W(d, u)                                    the whole way back to the last observation
    x   = W(anchor, d)                                    one interpolation at any lead time
    guess = x + g (sigmoid(a) x + r - x), moved to the events that are likely
            (`stpl_train.models.events`)

a, r and the events' logits are decoded from x, W(h, d), the lead time and how far the way leads out
of the frame. g is how far they are trusted at that lead time (`stpl_train.models.trust`). Events
cover as much as those of f do when they are moved. Beside the guess it gives the chance of each
event in it. The later, the more of a chance is that of the places around, and of a rare event that
of all places; all of them amount to what there was before it moved.

A pixel below 0 was not observed (`FrameCodec.marks_no_data`): what comes from there comes from
outside, and counts nowhere as no rain.

Observed or fed back? A frame that equals the state's `guess` in every pixel is this model's own
emission, and only u, d and the lead time advance; any other frame is an observation, as is the
first.
The comparison allows for the last digits (8 units of rounding), so that an engine may compute its
output and its state apart. An observation that equals the guess everywhere is taken for it, and
loses nothing: what is read is what was expected.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from stpl_core.codec import NO_DATA, Array
from stpl_core.manifest import OutputSpec
from stpl_core.reader import Mask
from stpl_train.forecaster import FrameShape, State
from stpl_train.models.events import (
    EXACT,
    RAMP,
    Around,
    chances_of,
    cutoffs_of_areas,
    events_in,
    moved_to_events,
    share_anywhere,
    share_inside,
    shift_of_chances,
)
from stpl_train.models.layers import ModelConfig, Patching, zeros_state
from stpl_train.models.motion import LucasKanade, PixelGrid, area_read, finer, resized
from stpl_train.models.trust import HeldOut, above, as_learned, trusted_field, trusted_logits

CHANCE = "chance"
"""What is given beside the guess."""
_KEEPS = 0.85
"""Share of the fine motion that lasts from one step to the next."""
_REMEMBER = 2.5
"""Motions whose mean is taken: the newest one weighs 1 over this at least."""
_DEEP = 8.0
"""Patches outside the frame beyond which it makes no difference."""
_STEEP = 5.0
"""What turns a distance from a level, model units, into logits."""
_ROUNDINGS = 8.0
_UNSEEN = NO_DATA / 2
"""What is below it was not observed; a guess may lie a little below 0."""
_SLIVER = 0.05
"""Share of a patch that comes from within the frame below which the rest decides."""
_VAGUE = 6.0
"""How much wider an event's ramp is where nothing was seen move in, in its own width, less one:
pixels there hardly differ, and the digits of bf16 would move them from event to none."""
_ENOUGH = 64.0
"""Pixels that come from within the frame below which less and less is concluded from their events:
of a tile that shows next to nothing, chances are as they are, and an event is one of 50%."""
_SAMPLES, _FARTHEST = 20_000, 4
"""Pixels of a frame by which areas of events are compared, at most, and how far they are apart, at
most."""


class AdvectConfig(ModelConfig):
    """The recipe keys of `[model] name = "advect"`."""

    hidden: PositiveInt = 32
    """Channels that move with the field."""
    width: PositiveInt = 64
    """Channels of the decoder."""
    patch: PositiveInt = 4
    """Side of the space-to-depth patches; motion has one vector for each."""
    levels: tuple[float, ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)
    """Events: values at or above these, rising, in model units."""
    horizon: PositiveInt = 12
    """Lead times that are trusted each as far as it is worth; later ones have the last one's."""

    @model_validator(mode="after")
    def _rising(self) -> AdvectConfig:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels {list(self.levels)} must rise")
        return self


class Decoder(nn.Module):
    """From the moved frame and features to field and events: residual dilated convolutions."""

    def __init__(self, inputs: int, channels: int, levels: int, config: AdvectConfig) -> None:
        """Read maps of `inputs` channels; give frames of `channels`."""
        super().__init__()
        width, pixels = config.width, channels * config.patch**2
        self.patch, self.channels, self.levels = config.patch, channels, levels
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.more = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
            for dilation in (2, 4, 1)
        )
        self.field = nn.Conv2d(width, 2 * pixels, 1)
        self.event = nn.Conv2d(width, 2 * levels * pixels, 1)
        # At the start, the moved frame nearly as it is, and events where it has them.
        start = torch.zeros(2 * pixels), torch.zeros(2 * levels * pixels)
        start[0][:pixels], start[1][: levels * pixels] = 3.0, 2.0
        for layer, bias in zip((self.field, self.event), start, strict=True):
            nn.init.zeros_(layer.weight)
            layer.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, features: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Decode `(B, inputs, h, w)` beside the moved frame `x` `(B, C, H, W)`.

        Returns:
            The field as `x`, and logits of its events, `(B, Q, C, H, W)`.
        """
        y = F.relu(self.first(features))
        for layer in self.more:
            y = y + F.relu(layer(y))  # (B, width, h, w)
        keep, add = F.pixel_shuffle(self.field(y), self.patch).chunk(2, dim=1)  # (B, C, H, W) each
        size = (-1, self.levels, self.channels, *x.shape[2:])
        steep, shift = (
            part.reshape(size)  # (B, Q, C, H, W)
            for part in F.pixel_shuffle(self.event(y), self.patch).chunk(2, dim=1)
        )
        # No observation is further from a level: it lies between 0 and 1.
        distance = (x[:, None] - levels.view(1, -1, 1, 1, 1)).clamp(-1.0, 1.0)
        return torch.sigmoid(keep) * x + add, F.softplus(steep) * distance * _STEEP + shift


def _known(frame: Tensor) -> Tensor:
    """`(B, 1, H, W)`: 1 where every channel of a frame was observed, else 0."""
    return (frame > _UNSEEN).to(frame.dtype).amin(1, keepdim=True)


class Advect(nn.Module):
    """Lucas-Kanade motion, a recurrent map that moves with it, one interpolation, a decoder.

    State: `anchor` the last observation, `last` the last frame read, `guess` the last emission,
    each `(B, C, H, W)`; `v`, `u`, `d` `(B, 2, H/patch, W/patch)` in pixels to the right and down,
    as they are in the frame of `guess`;
    `h` `(B, hidden, H/patch, W/patch)`; `seen` and `lead` `(B, 1, 1, 1)`: observations so far, and
    the lead time of `guess`. Beside the guess: `chance` `(B, Q, C, H, W)`, of the events in it.
    """

    Config = AdvectConfig
    knows_its_guess = True
    knows_no_data = True
    levels: Tensor
    trust: Tensor

    def __init__(self, frame_shape: FrameShape, config: AdvectConfig) -> None:
        """Build the model for frames of `frame_shape` (C, H, W)."""
        super().__init__()
        self.frame_shape, self.patch, self.horizon = frame_shape, config.patch, config.horizon
        patching = Patching(frame_shape, config.patch, "channel-row-col")
        channels, height, width = frame_shape
        pixels, size = patching.map_channels, (patching.map_height, patching.map_width)
        hidden, count = config.hidden, len(config.levels)
        apart = math.ceil(math.sqrt(height * width / _SAMPLES))
        self.apart = min(apart, _FARTHEST)
        self.motion = LucasKanade(height, width, config.patch)
        self.frame_grid, self.map_grid = PixelGrid(height, width), PixelGrid(*size)
        self.encode = nn.Conv2d(2 * pixels, hidden, 3, padding=1)
        self.gates = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(2 * hidden, hidden, 3, padding=1)
        self.decode = Decoder(pixels + hidden + 3, channels, count, config)
        self.around = Around(size, config.patch, config.horizon)
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.register_buffer("trust", as_learned(config.horizon, count))
        self.state_shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("anchor", "last", "guess"), (channels, height, width)),
            **dict.fromkeys(("v", "u", "d"), (2, *size)),
            "h": (hidden, *size),
            **dict.fromkeys(("seen", "lead"), (1, 1, 1)),
            CHANCE: (count, channels, height, width),
        }
        self.outputs = (OutputSpec(name=CHANCE, levels=config.levels),)

    def initial_state(self, batch: int) -> State:
        """All zero: nothing was seen."""
        return zeros_state(self, self.state_shapes, batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """`(B, C, H, W)` at t -> guess at t+1 of the same shape, and the next state."""
        seen, last = state["seen"], state["last"]
        begun = seen.clamp(0.0, 1.0)  # (B, 1, 1, 1)
        new = torch.maximum(self._differs(frame, state["guess"]), 1 - begun)  # 1: observed
        pair = new * begun  # 1 where there is an earlier frame to compare with
        shown = frame.clamp(min=0.0)
        v, u = self._moved(shown, last, state["v"], state["u"], seen, pair)
        h = state["h"] + new * (self._encoded(shown, last, state["h"], u, pair) - state["h"])
        anchor = state["anchor"] + new * (frame - state["anchor"])
        u = v + (_KEEPS + new * (1 - _KEEPS)) * (u - v)
        v, u, d = self._further(v, u, (1 - new) * state["d"])
        lead = (1 - new) * state["lead"] + 1
        decoded = self._decoded(anchor, h, d, lead)
        areas = self._areas(anchor, d, decoded[-1])
        guess, _, chances = self._matched(*decoded, areas, anchor, lead)
        after = {"anchor": anchor, "last": shown, "guess": guess, "v": v, "u": u, "d": d, "h": h}
        after |= {"seen": seen + new, "lead": lead, CHANCE: chances}
        return guess, after

    def _areas(self, anchor: Tensor, d: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Share of what comes from inside that has each event, `(B, Q)`: once moved, and before.

        Events are moved, and not found in the moved frame: interpolation takes from its peaks.
        Motion that is read off two frames widens some of them and narrows others; how much there
        was before, of the part of the newest frame that is inside, is the better guess of how much
        there will be.
        """
        shown = events_in(anchor, self.levels)  # (B, Q, C, H, W)
        events = torch.cat([shown, events_in(anchor, self.levels, EXACT)], dim=1)
        size = anchor.shape[2:]
        way, read = resized(d, *size), resized(area_read(d / self.patch), *size)
        moved = self.frame_grid.sample(events.flatten(1, 2), way, "zeros", self.apart)
        shown, exact = moved.unflatten(1, events.shape[1:3]).chunk(2, dim=1)
        inside = self._some(inside)
        return share_inside(shown, inside), share_inside(exact, self._some(read) * inside)

    def _some(self, x: Tensor) -> Tensor:
        """The pixels by which areas are compared."""
        return x[..., :: self.apart, :: self.apart]

    def _matched(
        self,
        field: Tensor,
        logits: Tensor,
        moved: Tensor,
        inside: Tensor,
        areas: tuple[Tensor, Tensor],
        anchor: Tensor,
        lead: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The field with events, logits and chances, that cover `areas`: see `_areas`.

        All are taken as far as they are trusted at the lead time. What is rare is spread in the
        chances alone.
        """
        beside = above(moved, self.levels)
        field = trusted_field(self.trust, lead, moved, field)
        chances = trusted_logits(self.trust, lead, self.around(logits, lead), beside)
        logits = trusted_logits(self.trust, lead, logits, beside)
        ramp = RAMP * (1 + _VAGUE * (1 - inside))  # (B, 1, H, W)
        known, inside, some = self._some(_known(anchor)), self._some(inside), self._some(logits)
        enough = (inside.sum((1, 2, 3)) / _ENOUGH).clamp(max=1.0)[:, None]  # (B, 1)
        shown, expected = areas
        cutoffs = enough * cutoffs_of_areas(some, shown, known, self._some(ramp))  # (B, Q)
        guess = moved_to_events(field, logits, self.levels, cutoffs, ramp)
        shift = enough * shift_of_chances(self._some(chances), expected, inside)  # (B, Q)
        logits = chances + shift[:, :, None, None, None]
        anywhere = enough * share_anywhere(expected, lead, self.horizon)  # (B, Q)
        return guess, logits, chances_of(logits, expected, anywhere)

    def _differs(self, frame: Tensor, guess: Tensor) -> Tensor:
        """`(B, 1, 1, 1)`: 0 where `frame` is the guess but for rounding, else 1."""
        rounding = _ROUNDINGS * torch.finfo(frame.dtype).eps
        other = (frame - guess).abs() > rounding * guess.abs().clamp(min=1.0)
        return other.to(frame.dtype).amax((1, 2, 3), keepdim=True)

    def _moved(
        self, frame: Tensor, last: Tensor, v: Tensor, u: Tensor, seen: Tensor, pair: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The means of the motions so far, smooth and fine, as `v` and `u`."""
        weight = pair / (1 + (seen - 1).clamp(0.0, _REMEMBER - 1.0))
        smooth: Tensor = self.motion(frame, last, v)
        fine = finer(self.frame_grid, self.patch, frame, last, smooth)
        return v + weight * (smooth - v), u + weight * (fine - u)

    def _encoded(self, frame: Tensor, last: Tensor, h: Tensor, u: Tensor, pair: Tensor) -> Tensor:
        """The features after a frame, `(B, hidden, h, w)`."""
        height, width = frame.shape[2:]
        moved = self.frame_grid.sample(last, resized(u, height, width), "zeros")
        both = torch.cat([frame, (frame - moved) * pair], dim=1)
        x = F.relu(self.encode(F.pixel_unshuffle(both, self.patch)))
        h = self.map_grid.sample(h, u / self.patch, "border") * pair
        update, reset = torch.sigmoid(self.gates(torch.cat([x, h], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * h], dim=1)))
        new: Tensor = h + update * (candidate - h)
        return new

    def _further(self, v: Tensor, u: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The motions and the way back to the last observation, one step later.

        What arrives somewhere brings its motion with it.
        """

        def came_from(x: Tensor, way: Tensor) -> Tensor:
            return self.map_grid.sample(x, way / self.patch, "border")

        v, u = came_from(torch.cat([v, u], dim=1), came_from(u, u)).chunk(2, dim=1)
        return v, u, u + came_from(d, u)

    def _decoded(
        self, anchor: Tensor, h: Tensor, d: Tensor, lead: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Field and logits at a lead time `(B, 1, 1, 1)`, and what they were decoded from.

        Returns:
            Field `(B, C, H, W)` and logits `(B, Q, C, H, W)`; the moved frame, as the field, and
            where it comes from inside, `(B, 1, H, W)`.
        """
        height, width = anchor.shape[2:]
        known = _known(anchor)
        parts = torch.cat([anchor.clamp(min=0.0), known, torch.ones_like(known)], dim=1)
        there = self.frame_grid.sample(parts, resized(d, height, width), "zeros")
        x, known, within = there.split([anchor.shape[1], 1, 1], dim=1)
        within, known = F.avg_pool2d(within, self.patch), F.avg_pool2d(known, self.patch)
        unknown = (within - known) / within.clamp(min=_SLIVER)  # (B, 1, h, w), of what is within
        shift = d / self.patch
        out = torch.maximum(self.map_grid.outside(shift), unknown)  # (B, 1, h, w), patches
        carried = self.map_grid.sample(h, shift, "border")
        time = (lead.clamp(max=float(self.horizon)) / self.horizon).expand(-1, 1, *h.shape[2:])
        inside, depth = (1 - out).clamp(min=0.0), out.clamp(max=_DEEP) / _DEEP
        pixels = F.pixel_unshuffle(x, self.patch)  # (B, C*p*p, h, w)
        features = torch.cat([pixels, carried, inside, depth, time], dim=1)
        field, logits = self.decode(x, features, self.levels)
        return field, logits, x, F.interpolate(inside, (height, width))

    def lead_forecasts(self, frames: Tensor, leads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """See `stpl_train.forecaster.LeadForecaster`: the equations of `step`, at once."""
        field, logits, *_ = self._decoded(*self._at_leads(frames, leads))
        return self._by_lead(field, len(frames)), self._by_lead(logits, len(frames))

    def matched_forecasts(self, frames: Tensor, leads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """What `step` would come to, at some lead times at once.

        Args:
            frames: the context, `(B, T, C, H, W)`, in model units.
            leads: n lead times, from 1.

        Returns:
            The guesses `(B, n, C, H, W)` and chances `(B, n, Q, C, H, W)`.
        """
        _, _, guess, _, chances = self._ahead(frames, leads)
        return self._by_lead(guess, len(frames)), self._by_lead(chances, len(frames))

    def _ahead(
        self, frames: Tensor, leads: tuple[int, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At some lead times, all in one batch.

        Returns:
            Field as learned, moved frame and guess `(n B, C, H, W)`; logits and chances
            `(n B, Q, C, H, W)`.
        """
        anchor, h, d, lead = self._at_leads(frames, leads)
        decoded = self._decoded(anchor, h, d, lead)
        areas = self._areas(anchor, d, decoded[-1])
        return decoded[0], decoded[2], *self._matched(*decoded, areas, anchor, lead)

    @staticmethod
    def _by_lead(x: Tensor, batch: int) -> Tensor:
        """`(n B, ...)` -> `(B, n, ...)`."""
        parted: Tensor = x.unflatten(0, (-1, batch))
        return parted.transpose(0, 1)

    def _at_leads(
        self, frames: Tensor, leads: tuple[int, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `_decoded` is given at some lead times after the context, all in one batch."""
        batch, context = frames.shape[:2]
        state = self.initial_state(batch)
        shown = frames.clamp(min=0.0)
        v, u, h, last = state["v"], state["u"], state["h"], shown[:, 0]
        for t in range(context):
            seen = frames.new_full((batch, 1, 1, 1), float(t))
            pair = seen.clamp(0.0, 1.0)
            if t:
                v, u = self._moved(shown[:, t], last, v, u, seen, pair)
            h = self._encoded(shown[:, t], last, h, u, pair)
            last = shown[:, t]
            v, u, d = self._further(v, u, state["d"])
        ways = [d]
        for _ in range(1, max(leads)):
            v, u, d = self._further(v, v + _KEEPS * (u - v), d)
            ways.append(d)
        many = len(leads)
        return (
            frames[:, -1].repeat(many, 1, 1, 1),
            h.repeat(many, 1, 1, 1),
            torch.cat([ways[lead - 1] for lead in leads]),
            frames.new_tensor(leads).repeat_interleave(batch).view(-1, 1, 1, 1),
        )

    @torch.no_grad()
    def try_out(
        self, sequences: Array, observed: Mask | None, context: int, found: HeldOut
    ) -> None:
        """Add to `found` what comes of held-out sequences, with all that was learned applied."""
        trust = self.trust.clone()
        self.trust.copy_(as_learned(self.horizon, len(self.levels)))
        horizon = min(self.horizon, sequences.shape[1] - context)
        every = tuple(range(1, horizon + 1))
        for n, sequence in enumerate(sequences):
            frames = torch.from_numpy(sequence[None]).to(self.trust)
            field, moved, _, logits, _ = self._ahead(frames[:, :context], every)
            for k in range(horizon):
                seen = slice(None) if observed is None else observed[n, context + k]
                parts = (moved[k], field[k], logits[k])
                found.add(k, sequence[context + k], seen, self.levels, *parts)
        self.trust.copy_(trust)

    def nothing_yet(self) -> HeldOut:
        """For `try_out`."""
        return HeldOut(self.horizon, len(self.levels))

    @torch.no_grad()
    def trust_as(self, found: HeldOut) -> None:
        """Trust what was learned as far as it was worth."""
        self.trust.copy_(found.table())

    def fit_events(self, sequences: Array, observed: Mask | None, context: int) -> None:
        """See `stpl_train.forecaster.LeadForecaster`."""
        found = self.nothing_yet()
        self.try_out(sequences, observed, context, found)
        self.trust_as(found)
