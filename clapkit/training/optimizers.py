"""Optimizers by name, and which parameters they treat how."""

from __future__ import annotations

import torch
from torch import nn

from clapkit.config import NEW_TOWERS, Config
from clapkit.models.clap import CLAP

PRETRAINED_FACTOR = 0.02
"""A pretrained text tower learns so much slower than what starts from scratch."""


def make_optimizer(clap: CLAP, config: Config) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay touches matrices and filters only."""
    slow = clap.text_encoder is not None and config.text.name not in NEW_TOWERS
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in clap.named_parameters():
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
