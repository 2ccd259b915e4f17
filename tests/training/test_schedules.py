"""Learning rates are PyTorch's, as functions of the step and the losses alone."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from clapkit.config import TrainConfig
from clapkit.training.schedules import best_epoch, cosine_with_warmup, learning_rate, n_plateaus, one_cycle

PEAK = 2e-3


def _rates(n_steps: int, warmup: float, anneal: str = "cosine") -> list[float]:
    return [one_cycle(step, n_steps, PEAK, warmup, anneal) for step in range(n_steps)]


def _optimizer(rate: float = PEAK) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def _rates_of_torch(n_steps: int, warmup: float, anneal: str) -> list[float]:
    """``warmup`` counts the steps before the peak; PyTorch's ``pct_start`` counts the peak's own step too."""
    optimizer = _optimizer()
    part = warmup + 1 / n_steps
    strategy = {"cosine": "cos", "linear": "linear"}[anneal]
    schedule = OneCycleLR(optimizer, PEAK, total_steps=n_steps, pct_start=part, anneal_strategy=strategy)
    rates = []
    for step in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < n_steps - 1:
            schedule.step()
    return rates


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(("n_steps", "warmup"), [(200, 0.25), (100, 0.15), (97, 0.3), (10, 0.5)])
def test_one_cycle_is_the_one_of_pytorch(n_steps: int, warmup: float, anneal: str) -> None:
    assert _rates(n_steps, warmup, anneal) == pytest.approx(_rates_of_torch(n_steps, warmup, anneal), rel=1e-6)


def test_it_starts_low_peaks_after_the_warmup_and_ends_near_zero() -> None:
    rates = _rates(200, 0.25)
    assert rates[0] == pytest.approx(PEAK / 25)
    assert rates[50] == pytest.approx(PEAK)
    assert rates[-1] == pytest.approx(PEAK / 25e4)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_it_rises_then_falls_without_jumps(anneal: str) -> None:
    rates = _rates(200, 0.25, anneal)
    assert all(before < after for before, after in pairwise(rates[:51]))
    assert all(before > after for before, after in pairwise(rates[50:]))
    assert max(abs(after - before) for before, after in pairwise(rates)) < 0.04 * PEAK


def test_linear_halves_are_straight() -> None:
    rates = _rates(200, 0.25, "linear")
    for part in (rates[:51], rates[50:]):
        slopes = [after - before for before, after in pairwise(part)]
        assert slopes == pytest.approx([slopes[0]] * len(slopes))


def test_without_warmup_it_starts_at_the_peak() -> None:
    assert one_cycle(0, 100, PEAK, 0.0) == PEAK


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.15, 0.5, 0.99])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
def test_short_trainings_have_rates_in_range(n_steps: int, warmup: float, schedule: str) -> None:
    config = TrainConfig(schedule=schedule, warmup=warmup, learning_rate=PEAK)
    rates = [learning_rate(step, n_steps, config) for step in range(n_steps)]
    assert all(math.isfinite(rate) and 0 < rate <= PEAK * 1.001 for rate in rates)


def test_cosine_rises_in_a_line_and_falls_along_a_half_wave() -> None:
    rates = [cosine_with_warmup(step, 120, PEAK, 1 / 6) for step in range(120)]
    slopes = [after - before for before, after in pairwise(rates[:21])]
    assert slopes == pytest.approx([PEAK / 21] * 20)
    assert rates[0] > 0
    assert rates[20] == max(rates) == pytest.approx(PEAK)
    for step in (45, 70, 95, 119):
        assert rates[step] == pytest.approx(PEAK * math.cos((step - 20) / 100 * math.pi / 2) ** 2)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateaus_are_found_where_pytorch_finds_them(seed: int, patience: int) -> None:
    randoms = random.Random(seed)
    losses = [randoms.choice([randoms.random(), 0.5, 1 / (epoch + 1)]) for epoch in range(60)]
    config = TrainConfig(schedule="plateau", learning_rate=1.0, plateau_patience=patience, plateau_factor=0.9)
    optimizer = _optimizer(1.0)
    schedule = ReduceLROnPlateau(optimizer, "min", factor=0.9, patience=patience, threshold=0, eps=0)
    for epoch, loss in enumerate(losses, start=1):
        schedule.step(loss)
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(7, 100, config, losses[:epoch]) == pytest.approx(expected), epoch
    assert n_plateaus(losses, patience) > 0  # else nothing was shown


def test_no_validation_yet_means_the_whole_rate() -> None:
    config = TrainConfig(schedule="plateau", learning_rate=PEAK)
    assert learning_rate(0, 100, config) == PEAK


def test_a_constant_rate_stays() -> None:
    config = TrainConfig(schedule="constant", learning_rate=PEAK)
    assert {learning_rate(step, 50, config, [1.0, 2.0, 3.0, 4.0, 5.0]) for step in range(50)} == {PEAK}


def test_the_configs_shape_is_used() -> None:
    for anneal in ("cosine", "linear"):
        config = TrainConfig(anneal=anneal, warmup=0.3, learning_rate=PEAK)
        assert [learning_rate(step, 40, config) for step in range(40)] == _rates(40, 0.3, anneal)


def test_the_best_epoch_has_the_lowest_loss_and_is_the_first_of_equals() -> None:
    assert best_epoch([3.0, 1.0, 2.0, 1.0]) == 1
    assert best_epoch([3.0]) == 0
