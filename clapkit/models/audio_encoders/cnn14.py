"""Cnn14 of PANNs, the tower of msclap-2022 and of MGA-CLAP."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.audio.log_mel import mask_frames
from clapkit.models.audio_encoders.pooling import masked_max, masked_mean

SMALLEST_PICTURE = 32
"""Frames and mel bins that five halvings need; smaller pictures are padded with zeros."""


class ConvBlock(nn.Module):
    """Two 3×3 convolutions, then average pooling; names as in PANNs."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, features: Tensor, n_valid_frames: Tensor | None, pool: int) -> Tensor:
        """``(batch, n_in, n_frames, n_mels)`` → ``(batch, n_out, n_frames // pool, n_mels // pool)``."""
        hidden = _mask(F.relu(self.bn1(self.conv1(features)), inplace=True), n_valid_frames)
        hidden = _mask(F.relu(self.bn2(self.conv2(hidden)), inplace=True), n_valid_frames)
        return F.avg_pool2d(hidden, pool) if pool > 1 else hidden


class Cnn14(nn.Module):
    """Six blocks of 64 to 2048 channels; mean over frequency, max + mean over time, one dense layer.

    Source: Kong et al. 2020, PANNs; layer names match the published weights, so that they load without renaming.
    """

    feature_dim = 2048

    def __init__(self, n_channels: int, n_mels: int, dropout: float) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(n_mels)
        widths = [n_channels, 64, 128, 256, 512, 1024, 2048]
        for number, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            self.add_module(f"conv_block{number}", ConvBlock(n_in, n_out))
        self.fc1 = nn.Linear(2048, 2048)
        self.dropout = nn.Dropout(dropout)

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_channels, n_mels, n_frames)`` and ``(batch,)`` → ``(batch, 2048)``."""
        features = self.bn0(log_mel.transpose(1, 2)).permute(0, 2, 3, 1)  # (batch, n_channels, n_frames, n_mels)
        valid = n_valid_frames
        features = _pad_to(_mask(features, valid), SMALLEST_PICTURE)
        has_padding = _has_padding(features, valid)
        for number in range(1, 7):
            pool = 2 if number < 6 else 1
            features = getattr(self, f"conv_block{number}")(features, valid if has_padding else None, pool)
            valid = (valid // pool).clamp_min(1)
            features = _mask(features, valid if has_padding else None)
        features = features.mean(dim=3)  # (batch, 2048, n_frames)
        pooled = masked_max(features, valid) + masked_mean(features, valid)
        return self.dropout(F.relu(self.fc1(self.dropout(pooled))))

    def initialize(self) -> None:
        """PANNs' Xavier weights and zero biases."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _pad_to(features: Tensor, smallest: int) -> Tensor:
    """``(batch, n_channels, n_frames, n_mels)`` with at least ``smallest`` frames and mel bins."""
    missing_frames, missing_mels = (max(smallest - size, 0) for size in features.shape[2:])
    return F.pad(features, (0, missing_mels, 0, missing_frames))


def _has_padding(features: Tensor, n_valid_frames: Tensor) -> bool:
    """Whether a mask may change anything; not asked where it would stop a GPU, or cannot be known while exporting."""
    if n_valid_frames.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return bool((n_valid_frames < features.shape[2]).any())


def _mask(features: Tensor, n_valid_frames: Tensor | None) -> Tensor:
    """Zero frames past each clip's end; None: there are none. Masks of large feature maps cost a tenth of the time."""
    if n_valid_frames is None:
        return features
    return mask_frames(features.transpose(2, 3), n_valid_frames).transpose(2, 3)
