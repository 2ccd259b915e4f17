"""Learning rates as functions of what has happened so far, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clapkit.config import TrainConfig


def learning_rate(step: int, n_steps: int, config: TrainConfig, val_losses: Sequence[float] = ()) -> float:
    """The rate of one optimizer step.

    Args:
        step: from 0 to ``n_steps - 1``.
        n_steps: of the whole training.
        config: schedule, peak and shape.
        val_losses: validation loss of each finished epoch, for ``plateau``.
    """
    peak = config.learning_rate
    match config.schedule:
        case "one_cycle":
            return one_cycle(step, n_steps, peak, config.warmup, config.anneal)
        case "cosine":
            return cosine_with_warmup(step, n_steps, peak, config.warmup)
        case "plateau":
            return peak * config.plateau_factor ** n_plateaus(val_losses, config.plateau_patience)
    return peak


def one_cycle(step: int, n_steps: int, peak: float, warmup: float, anneal: str = "cosine") -> float:
    """Rise from peak/25 to the peak, then fall to nearly zero.

    Source: Smith and Topin 2018, Super-Convergence; shape as in ``torch.optim.lr_scheduler.OneCycleLR``.

    Args:
        step: from 0 to ``n_steps - 1``.
        n_steps: of the whole training.
        peak: highest learning rate.
        warmup: part of the steps before the peak, in [0, 1).
        anneal: ``cosine`` or ``linear``.
    """
    between = _cosine if anneal == "cosine" else _linear
    n_rise = warmup * n_steps
    if step < n_rise:
        return between(peak / 25, peak, step / n_rise)
    return between(peak, peak / 25e4, (step - n_rise) / max(n_steps - 1 - n_rise, 1))


def cosine_with_warmup(step: int, n_steps: int, peak: float, warmup: float) -> float:
    """Linear rise from zero, then a cosine fall to zero.

    Source: Loshchilov and Hutter 2017, SGDR, without restarts.
    """
    n_rise = warmup * n_steps
    if step < n_rise:
        return peak * (step + 1) / (n_rise + 1)
    return _cosine(peak, 0.0, (step - n_rise) / max(n_steps - n_rise, 1))


def n_plateaus(val_losses: Sequence[float], patience: int) -> int:
    """How often the loss has failed to improve for more than ``patience`` epochs in a row.

    Source: as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` counts, without threshold and cooldown.
    """
    best, n_bad, n_found = math.inf, 0, 0
    for loss in val_losses:
        best, n_bad = (loss, 0) if loss < best else (best, n_bad + 1)
        if n_bad > patience:
            n_bad, n_found = 0, n_found + 1
    return n_found


def best_epoch(val_losses: Sequence[float]) -> int:
    """Place of the lowest loss, the first one where several are equal."""
    return min(range(len(val_losses)), key=val_losses.__getitem__)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * min(part, 1.0)
