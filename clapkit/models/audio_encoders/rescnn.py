"""The default tower: a small residual CNN that keeps padding out of every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.audio.log_mel import mask_frames
from clapkit.models.audio_encoders.pooling import masked_max, masked_mean, n_strided


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut; the first halves frequency and time when ``stride`` is 2."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride > 1 or n_in != n_out:
            # a lone last frame is averaged with a zero, as everywhere else, so the window's length does not matter
            pool = nn.AvgPool2d(stride, ceil_mode=True, divisor_override=stride**2) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, features: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_in, n_mels, n_frames)`` → ``(batch, n_out, ...)``; ``n_valid_frames`` counts the output's."""
        hidden = mask_frames(F.relu(self.norm1(self.conv1(features))), n_valid_frames)
        hidden = self.norm2(self.conv2(hidden)) + self.shortcut(features)
        return mask_frames(F.relu(hidden), n_valid_frames)


class ResCnn(nn.Module):
    """A stem and four residual stages of 1, 2, 4 and 8 times ``width`` channels; mean and max over time are added.

    Args:
        n_channels: of the pictures.
        width: channels of the first stage.
        dropout: behind the pooling.
        without_mean: pictures come in twice, as they are and without each mel bin's mean over the valid frames, so
            without what microphone and room add to every frame alike.
    """

    def __init__(self, n_channels: int, width: int, dropout: float, *, without_mean: bool = False) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        self.without_mean = without_mean
        self.stem = nn.Conv2d((1 + without_mean) * n_channels, width, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        strides = [1, 2, 2, 2]
        self.blocks = nn.ModuleList(
            ResidualBlock(n_in, n_out, stride) for n_in, n_out, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_channels, n_mels, n_frames)`` and ``(batch,)`` → ``(batch, feature_dim)``."""
        if self.without_mean:
            means = masked_mean(log_mel.flatten(1, 2), n_valid_frames).view(*log_mel.shape[:3], 1)
            log_mel = torch.cat([log_mel, mask_frames(log_mel - means, n_valid_frames)], dim=1)
        valid = n_strided(n_valid_frames, 2)
        features = mask_frames(F.relu(self.stem_norm(self.stem(log_mel))), valid)
        for block in self.blocks:
            valid = n_strided(valid, block.conv1.stride[0])
            features = block(features, valid)
        features = features.mean(dim=2)  # (batch, feature_dim, n_frames)
        pooled = masked_mean(features, valid) + masked_max(features, valid)
        return self.dropout(pooled)

    @torch.no_grad()
    def initialize(self) -> None:
        """Kaiming weights; each block starts as its shortcut."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for block in self.blocks:
            nn.init.zeros_(block.norm2.weight)
