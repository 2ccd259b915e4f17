"""Several processes as one: devices through accelerate, one global batch, and batch statistics over all of it."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from clapkit.errors import ConfigError


def make_accelerator(device: torch.device, dtype: torch.dtype) -> Accelerator:
    """Set up this process, and its place among others when ``torchrun`` started several.

    Args:
        device: ``cpu`` or ``cuda``; with several processes each takes a GPU of its own.
        dtype: of the forward pass; bfloat16 uses autocast.
    """
    AcceleratorState._reset_state()  # it is global, and would keep another run's precision
    mixed_precision = "bf16" if dtype == torch.bfloat16 else "no"
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)


def own_slice(batch_size: int, accelerator: Accelerator) -> slice:
    """The clips of a batch that this process trains on.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """
    n_own, rest = divmod(batch_size, accelerator.num_processes)
    if rest:
        raise ConfigError(
            f"train.batch_size={batch_size} cannot be shared by {accelerator.num_processes} processes; "
            "choose a multiple of their number."
        )
    first = accelerator.process_index * n_own
    return slice(first, first + n_own)


def gather_with_gradient(values: Tensor) -> Tensor:
    """``(n_own, ...)`` of every process → ``(batch, ...)`` on each; gradients flow back to where they belong."""
    return _Gather.apply(values) if is_shared() else values


def is_shared() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def leave_processes() -> None:
    """Part from the other processes at the end of a command."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process speaks and saves; ``torchrun`` numbers its processes in ``RANK``."""
    return os.environ.get("RANK", "0") == "0"


class _Gather(torch.autograd.Function):
    """Every process contributes its rows; a row's gradient is what all processes want of it."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    """The sum over processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batch of all processes; PyTorch's own ``SyncBatchNorm`` works on GPUs only.

    Source: Ioffe and Szegedy 2015; mean and variance are averaged over processes, whose shares are equally large.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``(n_own, n_channels, height, width)`` → the same shape."""
        if not self.training:
            return super().forward(features)
        own_variance, own_mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
        n_processes = dist.get_world_size()
        moments = _Sum.apply(torch.stack([own_mean, own_variance + own_mean.square()])) / n_processes
        mean, variance = moments[0], (moments[1] - moments[0].square()).clamp_min(0)
        with torch.no_grad():
            n_values = features.numel() / features.shape[1] * n_processes
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n_values / max(n_values - 1, 1), self.momentum)
            self.num_batches_tracked += 1
        factor = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * factor
        return torch.addcmul(shift[None, :, None, None], features, factor[None, :, None, None])


def with_global_statistics(module: nn.Module) -> nn.Module:
    """Replace every batch normalisation by one over all processes; names and weights stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            replacement = GlobalBatchNorm2d(child.num_features, child.eps, child.momentum)
            replacement.load_state_dict(child.state_dict())
            setattr(module, name, replacement.to(child.weight.device))
        else:
            with_global_statistics(child)
    return module
