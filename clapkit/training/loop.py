"""The training loop: batches in, a trained model out; it can be killed at any moment and goes on bit for bit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from clapkit.config import Config
from clapkit.errors import TrainingError
from clapkit.models.clap import CLAP
from clapkit.progress import progress_bar
from clapkit.training.batches import TrainingData, epoch_order, n_drawn, seeded_generator, training_batch
from clapkit.training.objective import Number, batch_losses, total_loss, validate
from clapkit.training.optimizers import make_optimizer, running_average, set_learning_rate
from clapkit.training.processes import is_shared, own_slice, with_global_statistics
from clapkit.training.record import write_events
from clapkit.training.schedules import best_epoch, learning_rate
from clapkit.training.state import TrainingState, load_state, save_state

HISTORY_FILE = "history.csv"
STEPS_BETWEEN_NOTES = 10
"""Reading a loss makes a GPU wait, so it is not done every step."""

NOT_SHOWN = ("epoch", "learning_rate", "seconds")


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves.

    Attributes:
        network: the model with the weights to score: averaged, or of the best epoch, where the config says so.
        history: one row for each epoch.
        n_steps: optimizer steps done.
        seconds: time spent, over all sittings of a resumed run.
    """

    network: nn.Module
    history: pd.DataFrame
    n_steps: int
    seconds: float


def fit(
    clap: CLAP, train: TrainingData, validation: TrainingData | None, accelerator: Accelerator, folder: Path,
    run: str, report: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """Train until the epochs are over or validation stops improving.

    Args:
        clap: the model, on its device.
        train: clips to learn from.
        validation: clips that patience and plateau watch; None when nothing does.
        accelerator: this process among others.
        folder: where the state is kept until the run is done, with history.csv to look at meanwhile.
        run: identifies settings and clips.
        report: told one line for each epoch.

    Raises:
        TrainingError: the loss is no longer a number.
        CheckpointError: the state in ``folder`` belongs to another run.
    """
    return _ClapFit(clap, train, validation, accelerator, folder, run, report).run()


class Fit:
    """One training; its whole moving state is ``self.state``. What is learned say ``losses``, ``total``, ``validate``.

    Args:
        network: what learns, on its device.
        config: all settings.
        weights: ``(n_clips,)`` how often each clip is drawn in one epoch, on average.
        accelerator: this process among others.
        folder: where the state is kept until the run is done.
        run: identifies settings and clips.
        report: told one line for each epoch.
    """

    def __init__(
        self, network: nn.Module, config: Config, weights: Tensor, accelerator: Accelerator, folder: Path, run: str,
        report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.config, self.weights, self.accelerator = config, weights, accelerator
        self.folder, self.run_id, self.report = folder, run, report
        settings = self.config.train
        n_clips = n_drawn(weights)
        self.batch_size = min(settings.batch_size, n_clips)
        self.own = own_slice(self.batch_size, accelerator)
        self.n_batches = n_clips // self.batch_size  # what is left over waits for another epoch's order
        self.steps_per_epoch = math.ceil(self.n_batches / settings.accumulate)
        self.n_steps = settings.epochs * self.steps_per_epoch
        averaged = None
        if settings.ema:
            averaged = AveragedModel(network, multi_avg_fn=running_average(settings.ema), use_buffers=True)
        self.state = TrainingState(network, make_optimizer(network, config), averaged)
        if load_state(folder, self.state, run):
            report(f"going on after step {self.state.step} of {self.n_steps}")
        self.model = accelerator.prepare(network)  # also other processes' gradients, where there are some
        self.state.optimizer = accelerator.prepare(self.state.optimizer)
        self.saved_at = self.started_at = time.monotonic()

    def losses(self, clips: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of one batch, by name."""
        raise NotImplementedError

    def total(self, losses: Mapping[str, Number]) -> Number:
        """What is minimised."""
        return sum(losses.values())

    def validate(self, network: nn.Module) -> dict[str, float]:
        """``val_loss`` and other figures of these weights; nothing where nothing is watched."""
        return {}

    def after_step(self) -> None:
        """What is put right after each optimizer step."""

    def run(self) -> Outcome:
        """Train until the epochs are over or validation stops improving."""
        settings, state = self.config.train, self.state
        with progress_bar("Training", self.n_steps) as advance, _own_random_state(self.accelerator.device):
            advance(state.step)
            while state.step < self.n_steps and not self._has_stalled():
                self._run_epoch(advance)
                self._end_epoch()
            advance(self.n_steps - state.step)
        best = best_epoch(self._val_losses()) + 1 if settings.patience and state.history else None
        if best:
            self.report(f"best epoch {best} of {len(state.history)}, by validation loss")
        network = self._scored()
        if state.best:
            network.load_state_dict(state.best)
        return Outcome(network, pd.DataFrame(state.history), state.step, self._seconds())

    def _run_epoch(self, advance: Callable[..., None]) -> None:
        """The steps that are left of the epoch under way."""
        settings, state = self.config.train, self.state
        epoch, done = divmod(state.step, self.steps_per_epoch)
        order = epoch_order(self.weights, seeded_generator(settings.seed, "epoch", epoch))
        self.model.train()
        for step in range(done, self.steps_per_epoch):
            first = step * settings.accumulate
            chunk = range(first, min(first + settings.accumulate, self.n_batches))
            batches = [order[number * self.batch_size : (number + 1) * self.batch_size] for number in chunk]
            loss = self._step(batches, epoch * self.n_batches + first)
            looks = step % STEPS_BETWEEN_NOTES == 0
            advance(note=f"epoch {epoch + 1}/{settings.epochs} loss {self._checked(loss, epoch):.3f}" if looks else "")
            is_last = step + 1 == self.steps_per_epoch  # saved when its figures are there
            if not is_last and time.monotonic() - self.saved_at >= settings.save_every_s:
                self._save()

    def _step(self, batches: list[Tensor], first: int) -> Tensor:
        """One optimizer step on one batch or several; returns the last batch's loss."""
        settings, state = self.config.train, self.state
        set_learning_rate(state.optimizer, learning_rate(state.step, self.n_steps, settings, self._val_losses()))
        for number, clips in enumerate(batches, start=first):
            generator = seeded_generator(settings.seed, "batch", number)
            losses = self.losses(clips, generator)
            loss = self.total(losses)
            self.accelerator.backward(loss / len(batches))
            for name, value in losses.items():
                added = value.detach().double()
                state.sums[name] = state.sums[name].to(added.device) + added if name in state.sums else added
        if settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        self.after_step()
        if state.averaged is not None:
            state.averaged.update_parameters(state.network)
        state.step += 1
        return loss.detach()

    def _end_epoch(self) -> None:
        """Validate, note the figures, keep the best weights, and save."""
        state, epoch = self.state, self.state.step // self.steps_per_epoch
        row: dict[str, float] = {"epoch": epoch, "learning_rate": state.optimizer.param_groups[0]["lr"]}
        means = {name: float(value) / self.n_batches for name, value in state.sums.items()}
        row["loss"] = self._checked(self.total(means), epoch - 1)
        row |= means
        row |= self.validate(self._scored())
        self._checked(row.get("val_loss", 0.0), epoch - 1)
        row["seconds"] = round(self._seconds(), 2)
        state.history.append(row)
        state.sums = {}
        if self.config.train.patience and best_epoch(self._val_losses()) == epoch - 1:
            state.best = {name: value.detach().clone() for name, value in self._scored().state_dict().items()}
        self._save()
        shown = " ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in NOT_SHOWN)
        self.report(f"epoch {epoch}/{self.config.train.epochs}: {shown}")
        if self.accelerator.is_main_process:
            pd.DataFrame(state.history).to_csv(self.folder / HISTORY_FILE, index=False)
            if self.config.train.tensorboard:
                write_events(self.folder, row)

    def _scored(self) -> nn.Module:
        """The model that is validated and kept."""
        return self.state.network if self.state.averaged is None else self.state.averaged.module

    def _val_losses(self) -> list[float]:
        return [row["val_loss"] for row in self.state.history if "val_loss" in row]

    def _has_stalled(self) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        losses, patience = self._val_losses(), self.config.train.patience
        return bool(patience and losses) and len(losses) - 1 - best_epoch(losses) >= patience

    def _checked(self, loss: Tensor | float, epoch: int) -> float:
        if not math.isfinite(float(loss)):
            raise TrainingError(
                f"the loss became {float(loss)} in epoch {epoch + 1}; lower train.learning_rate "
                f"(now {self.config.train.learning_rate:g}) or set train.clip_norm."
            )
        return float(loss)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.state.seconds = self._seconds()
            self.started_at = self.saved_at = time.monotonic()
            save_state(self.folder, self.state, self.run_id)

    def _seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self.started_at


class _ClapFit(Fit):
    """The training of a CLAP on pictures and texts."""

    def __init__(
        self, clap: CLAP, train: TrainingData, validation: TrainingData | None, accelerator: Accelerator,
        folder: Path, run: str, report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.train, self.validation = train, validation
        if is_shared():
            with_global_statistics(clap)
        if clap.config.train.compile:
            clap.audio_encoder.compile()
        super().__init__(clap, clap.config, train.weights, accelerator, folder, run, report)

    def losses(self, clips: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        batch = training_batch(self.train, clips, self.config, generator, self.own, self.accelerator.device)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # dropout's
        return batch_losses(self.model, self.config, batch)

    def total(self, losses: Mapping[str, Number]) -> Number:
        return total_loss(losses, self.config)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {} if self.validation is None else validate(network, self.validation, self.accelerator.device)

    def after_step(self) -> None:
        self.state.network.bound_logit_scale()


@contextlib.contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
