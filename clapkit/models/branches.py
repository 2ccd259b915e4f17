"""Towers side by side: each hears everything and has projections of its own; together they vote.

The cosine of two joined vectors is the mean of the parts' cosines, so a joined model is an ensemble in the form of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Audio towers whose feature vectors are put one behind the other."""

    def __init__(self, n_branches: int, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(build() for _ in range(n_branches))
        self.feature_dim = sum(part.feature_dim for part in self.parts)

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_channels, n_mels, n_frames)`` and ``(batch,)`` → ``(batch, feature_dim)``."""
        return torch.cat([part(log_mel, n_valid_frames) for part in self.parts], dim=-1)

    def initialize(self) -> None:
        """Each part as it does it."""
        for part in self.parts:
            part.initialize()


class BranchProjections(nn.Module):
    """A projection for each branch; their vectors are put one behind the other, at unit length.

    Args:
        n_branches: how many.
        build: makes one projection, which gives unit length.
        splits: each projection reads its branch's part of the features, as those of sounds do; else all of them.
    """

    def __init__(self, n_branches: int, build: Callable[[], nn.Module], *, splits: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(build() for _ in range(n_branches))
        self.splits = splits

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_in)`` → ``(batch, embed_dim)`` of unit length."""
        n_branches = len(self.parts)
        read = features.chunk(n_branches, dim=-1) if self.splits else [features] * n_branches
        vectors = [part(each) for part, each in zip(self.parts, read, strict=True)]
        return torch.cat(vectors, dim=-1) / math.sqrt(n_branches)
