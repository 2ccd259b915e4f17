"""Optimizers by name, which parameters they treat how, and the average of their steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clapkit.config import NEW_TOWERS, Config

PRETRAINED_FACTOR = 0.02
"""A pretrained text tower learns so much slower than what starts from scratch."""


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay touches matrices and filters only."""
    slow = config.text.name not in NEW_TOWERS
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = PRETRAINED_FACTOR if slow and name.startswith("text_encoder.") else 1.0
            groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    settings = config.train
    parameters = [
        {"params": group, "weight_decay": settings.weight_decay if decays else 0.0, "lr_factor": factor}
        for (decays, factor), group in groups.items()
    ]
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=settings.learning_rate)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=settings.learning_rate)
        case "sgd":
            return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_factor"]


def running_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """Exponential average of weights and float buffers; whole numbers, such as positions, are copied."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, n_averaged)
        else:
            torch._foreach_copy_(averaged, current)

    return update
