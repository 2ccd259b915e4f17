"""ResNet-18 on log-mel pictures, the tower of Wav2CLIP, through transformers."""

from __future__ import annotations

from torch import Tensor, nn

from clapkit.audio.log_mel import mask_frames
from clapkit.models.audio_encoders.pooling import masked_mean, n_strided

N_HALVINGS = 5


class ResNet18(nn.Module):
    """Four stages of two basic blocks, 64 to 512 channels; the mean over frequency and valid frames.

    Source: He et al. 2016, ResNet; Wu et al. 2022, Wav2CLIP.
    """

    feature_dim = 512

    def __init__(self, n_channels: int, dropout: float) -> None:
        from transformers import ResNetConfig, ResNetModel  # takes seconds, and most towers don't need it

        super().__init__()
        structure = ResNetConfig(
            num_channels=n_channels, embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2],
            layer_type="basic",
        )  # fmt: skip
        self.network = ResNetModel(structure)
        self.dropout = nn.Dropout(dropout)

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_channels, n_mels, n_frames)`` and ``(batch,)`` → ``(batch, 512)``."""
        features = self.network.embedder(log_mel)
        features = self.network.encoder(features).last_hidden_state  # (batch, 512, n_mels / 32, n_frames / 32)
        valid = n_valid_frames
        for _ in range(N_HALVINGS):
            valid = n_strided(valid, 2)
        pooled = masked_mean(mask_frames(features, valid).mean(dim=2), valid)
        return self.dropout(pooled)

    def initialize(self) -> None:
        """transformers has already given the weights their first values."""
