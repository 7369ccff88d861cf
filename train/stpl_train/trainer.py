"""The training loop itself, on one or several devices.

It always starts from the run directory's training.safetensors: a new run has one with iteration 0,
so a resumed run takes the same way. Everything random is a function of (seed, iteration).
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Generator
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stpl_core.codec import Array
from stpl_core.errors import DivergedError
from stpl_core.reader import Mask
from stpl_train.checkpoint import (
    Progress,
    ValidationRow,
    load_training,
    plain_weights,
    restore_optimizer,
    save_training,
    save_weights,
)
from stpl_train.data import DataSplit, masked_batch, training_indices
from stpl_train.forecaster import LeadForecaster
from stpl_train.interrupt import StoppedError, StopRequest
from stpl_train.logs import NoScalars, Scalars, open_scalars, save_metrics
from stpl_train.losses import lead_loss, sequence_loss, shard_weight
from stpl_train.models import build_model
from stpl_train.prefetch import prefetched
from stpl_train.progress import Reporter
from stpl_train.randomness import Stream, torch_seed
from stpl_train.run import METRICS, TRAINING, WEIGHTS, Run, load_weights
from stpl_train.schedules import TrueFrameMask, drawn_leads, learning_rate, true_frame_mask
from stpl_train.unroll import training_pass
from stpl_train.validation import forecast_mse, forecasts, persistence_mse, save_strips

_SAFE_LR = 1e-3
"""AdamW's usual rate: what is offered where a higher one diverged."""
_CHECK_EVERY = 10
"""Iterations between looks at the loss on a GPU, which has to finish its queue for that."""


def channels_last(model: nn.Module) -> None:
    """Lay out the weights of two-dimensional convolutions with the channels innermost."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class Trainer:
    """One process's part of a training run."""

    def __init__(self, fabric: Fabric, run: Run, data: DataSplit) -> None:
        """Read the run's state and set model and optimiser up on this process's device."""
        self.fabric, self.run, self.data = fabric, run, data
        self.training = run.recipe.training
        self.context, self.horizon = run.recipe.data.context, run.recipe.data.horizon
        state = load_training(run.file(TRAINING))
        self.progress: Progress = state.progress
        model = build_model(run.recipe.model.name, run.frame_shape, run.recipe.model.keys)
        load_weights(model, state.weights, str(run.file(TRAINING)))
        self.model = model.train()
        # Built after the weights lie on the device, so that the moments are put there too.
        fabric.to_device(self.model)
        if self.training.channels_last:
            channels_last(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.training.lr,
            betas=self.training.betas,
            weight_decay=self.training.weight_decay,
        )
        restore_optimizer(self.model, self.optimizer, state.moments)
        unrolled = training_pass(self.model, self.training)
        self._pass = unrolled
        self.unrolled, self.stepper = fabric.setup(unrolled, self.optimizer)
        if state.progress.precision:
            fabric.strategy.precision.load_state_dict(state.progress.precision)
        self.loss_sum = torch.tensor(
            self.progress.loss_sum, dtype=torch.float64, device=fabric.device
        )

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return self.fabric.is_global_zero

    def fit(self, reporter: Reporter) -> int | None:
        """Train to the end, or to a wish to stop.

        Returns:
            The signal that stopped it, or None at the end.

        Raises:
            DivergedError: the loss or a weight is no longer finite; the last saved state stays.
        """
        scalars = self._scalars()
        reporter.start(self.progress.iteration, self.training.iterations)
        try:
            with StopRequest() as stop:
                if self.owes_validation:
                    stopped = self._owed(stop, reporter, scalars)
                    if stopped is not None:
                        return stopped
                for iteration, (frames, observed) in self._batches():
                    if self.fabric.world_size == 1:  # else the others would wait for this one
                        self._pass.between = stop.check_patience
                    try:
                        loss = self._iterate(iteration, frames, observed)
                    except StoppedError:
                        return self._left_off(stop)
                    stopped = self._after(iteration + 1, loss, stop, reporter, scalars)
                    if stopped is not None:
                        return stopped
        finally:
            reporter.close()
            scalars.close()
        return None

    def _left_off(self, stop: StopRequest) -> int | None:
        """Save what was before the iteration that was left off, which changed no weight yet."""
        self.progress.loss_sum = float(self.loss_sum)
        self._save()
        return stop.signal

    def _scalars(self) -> Scalars:
        if not self.main:
            return NoScalars()
        return open_scalars(self.run.file("tensorboard"), self.progress.iteration)

    def _batches(self) -> Generator[tuple[int, tuple[Array, Mask | None]], None, None]:
        def load(iteration: int) -> tuple[Array, Mask | None]:
            indices = training_indices(
                self.data.training, self.training.seed, iteration, self.training.batch
            )
            return masked_batch(self.data.training, indices[self._share])

        return prefetched(load, self.progress.iteration, self.training.iterations)

    @property
    def _share(self) -> slice:
        """This device's rows of the whole batch."""
        return slice(self.fabric.global_rank, None, self.fabric.world_size)

    def _iterate(self, iteration: int, batch: Array, mask: Mask | None) -> Tensor:
        """One optimiser step forward in time and, where the recipe asks for it, one backward."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, iteration)
        frames = self._on_device(batch)  # (B, T + K, C, H, W)
        observed = None if mask is None else self._on_device(mask)  # (B, T + K, H, W)
        # A model's own random layers: the same after a resume.
        torch.manual_seed(torch_seed(self.training.seed, Stream.MODEL, iteration))
        if self.training.leads is not None:
            read, leads = drawn_leads(self.training, iteration, self.context, self.horizon)
            return self._optimised(*self._of_leads(frames, read, leads, observed), len(frames))
        use_true = true_frame_mask(self.training, iteration, self.context, self.horizon)[
            self._share
        ]
        loss = self._step(frames, use_true, observed)
        if self.training.reversed_pass:
            back = None if observed is None else observed.flip(1)
            loss = self._step(frames.flip(1), use_true, back)
        return loss

    def _on_device(self, values: Array | Mask) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.fabric.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.fabric.device, non_blocking=True)

    def _step(self, frames: Tensor, use_true: TrueFrameMask, observed: Tensor | None) -> Tensor:
        """One optimiser step on `(B, T + K, C, H, W)`; returns the loss of the whole batch."""
        guesses, penalty = self.unrolled(frames, use_true)
        loss = sequence_loss(
            self.training.loss,
            guesses,
            frames,
            skip_first=self.training.skip_first_guess,
            observed=observed,
        )
        return self._optimised(loss, penalty, len(frames))

    def _of_leads(
        self, frames: Tensor, read: int, leads: tuple[int, ...], observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of some lead times after the first `read` frames, and no penalty."""
        assert self.training.leads is not None
        field, logits = self.unrolled(frames[:, :read], leads)
        at = [read - 1 + lead for lead in leads]
        loss = lead_loss(
            field,
            logits,
            frames[:, at],
            cast(LeadForecaster, self.model).levels,
            leads,
            self.training.leads,
            observed=None if observed is None else observed[:, at],
        )
        return loss, loss.new_zeros(())

    def _optimised(self, loss: Tensor, penalty: Tensor, local: int) -> Tensor:
        """One optimiser step by the loss of `local` sequences; returns that of the whole batch."""
        kind, devices, total = self.training.loss, self.fabric.world_size, self.training.batch
        self.stepper.zero_grad()
        weight = shard_weight(kind, local, total, devices)
        self.fabric.backward(loss * weight + penalty * (devices * local / total))
        if self.training.clip_norm is not None:
            self.fabric.clip_gradients(
                self.unrolled,
                self.stepper,
                max_norm=self.training.clip_norm,
                error_if_nonfinite=False,
            )
        self.stepper.step()
        self._pass.between = lambda: None  # from now on the iteration has to be finished
        whole = loss.detach() * (weight / devices)
        if devices > 1:
            whole = self._sum(whole)
        self.loss_sum += whole
        self.progress.loss_steps += 1
        return whole

    def _agreed(self, wish: int | None) -> int | None:
        """The signal that any process got: all stop after the same iteration."""
        if self.fabric.world_size == 1:
            return wish
        # SIGINT is 2 and SIGTERM 15: the sum over processes is positive where any got one.
        total = self._sum(torch.tensor(float(wish or 0), device=self.fabric.device))
        return None if float(total) == 0 else wish or signal.SIGINT

    def _sum(self, value: Tensor) -> Tensor:
        """Over all processes."""
        total = self.fabric.all_reduce(value, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    @property
    def owes_validation(self) -> bool:
        """Whether the run was stopped while it validated."""
        return self.progress.owes_validation(self.training.validate_every, self.training.iterations)

    def _owed(self, stop: StopRequest, reporter: Reporter, scalars: Scalars) -> int | None:
        """Validate where the run was stopped, as if it had not been; the signal that stops it."""
        self._validate(self.progress.iteration, stop, reporter, scalars)
        if self.main:
            self._save()
        return self._agreed(stop.signal)

    def _after(
        self, done: int, loss: Tensor, stop: StopRequest, reporter: Reporter, scalars: Scalars
    ) -> int | None:
        """Check, report, validate and save, as far as each is due after `done` iterations.

        Returns:
            The signal that stops it, or None. A validation that is due then is left for later.
        """
        stopped = self._agreed(stop.signal)
        self.progress.iteration = done
        last = done == self.training.iterations
        validate = last or done % self.training.validate_every == 0
        save = last or stopped is not None or done % self.training.checkpoint_every == 0
        shows = self.main and reporter.wants_step()
        if (
            self.fabric.device.type == "cpu"
            or done % _CHECK_EVERY == 0
            or validate
            or save
            or shows
        ):
            value = self._finite(float(loss), "loss", done)
            if done % _CHECK_EVERY == 0:
                scalars.loss(done, value)
            if shows:
                reporter.step(done, value)
        if validate or save:
            self.progress.loss_sum = float(self.loss_sum)
        if validate and stopped is None:
            self._validate(done, stop, reporter, scalars)
            stopped = self._agreed(stop.signal)
        if self.main and (save or stopped is not None):
            self._save()
        return stopped

    def _save(self) -> None:
        self.progress.precision = self.fabric.strategy.precision.state_dict()
        save_training(self.run.file(TRAINING), self.model, self.optimizer, self.progress)

    def _finite(self, value: float, what: str, done: int) -> float:
        if math.isfinite(value):
            return value
        lr = min(self.training.lr / 3, _SAFE_LR)
        raise DivergedError(
            f"the {what} is {value} at iteration {done}",
            expected="a finite number",
            fix=f"--set training.lr={lr:.2g} with another --out ({self.run.path} keeps the "
            "last saved state)",
        )

    def _validate(self, done: int, stop: StopRequest, reporter: Reporter, scalars: Scalars) -> None:
        """Validate in the main process; a wish to stop is obeyed between its batches."""
        if self.main:
            with contextlib.suppress(StoppedError):
                self._validate_here(done, stop, reporter, scalars)
            if self.owes_validation:
                return
        self.progress.loss_sum, self.progress.loss_steps = 0.0, 0
        self.loss_sum.zero_()

    def _validate_here(
        self, done: int, stop: StopRequest, reporter: Reporter, scalars: Scalars
    ) -> None:
        sequences, observed = self.data.validation, self.data.validation_observed
        if self.training.leads is not None:
            cast(LeadForecaster, self.model).fit_events(sequences, observed, self.context)
        # Weights that are not finite end here, before anything is written.
        weights = plain_weights(self.model)

        def step(predicted: int) -> None:
            reporter.validating(predicted, len(sequences))

        def between() -> None:
            if stop.signal is not None:
                raise StoppedError

        with self.fabric.autocast():
            forecast = forecasts(
                self.model, sequences, self.context, self.training.batch, step, between
            )
        mse = forecast_mse(forecast, sequences, observed)
        self._finite(float(mse.sum()), "validation error", done)
        row = ValidationRow(
            iteration=done,
            loss=self.progress.loss_sum / max(1, self.progress.loss_steps),
            lr=learning_rate(self.training, done - 1),
            mse=tuple(mse.tolist()),
            persistence=tuple(persistence_mse(sequences, self.context, observed).tolist()),
        )
        self.progress.rows.append(row)
        best = self.progress.best is row
        if best:
            save_weights(self.run.file(WEIGHTS), weights)
        save_metrics(self.run.file(METRICS), self.progress.rows)
        picture = self.run.file("samples") / f"{done:06d}.png"
        save_strips(picture, sequences, forecast, observed)
        scalars.row(row)
        reporter.validated(row, best)
