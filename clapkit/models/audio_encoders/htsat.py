"""HTSAT, the Swin transformer of msclap-2023 and of LAION's CLAP, through transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clapkit.config import EncoderConfig

if TYPE_CHECKING:
    from transformers import ClapAudioConfig

PICTURE_SIZE = 256
"""Side of the square that the tower sees: four times 64 mel bins, by a quarter of 1024 frames."""
N_MELS = 64
MOST_FRAMES = PICTURE_SIZE * PICTURE_SIZE // N_MELS


class Htsat(nn.Module):
    """``ClapAudioModel`` behind clapkit's pictures; the mean of its last feature map is the clip's vector.

    Source: Chen et al. 2022, HTS-AT; Wu et al. 2023, LAION-CLAP (fusion of long clips).
    """

    def __init__(self, config: EncoderConfig, *, is_fused: bool) -> None:
        from transformers import ClapAudioModel  # takes seconds, and no other audio tower needs it

        super().__init__()
        self.is_fused = is_fused
        self.transformer = ClapAudioModel(structure_of(config, is_fused=is_fused))
        self.feature_dim = self.transformer.config.hidden_size

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """Compute one vector per picture.

        Args:
            log_mel: ``(batch, 1, 64, n_frames)``, at most 1024 frames, to which it is stretched; or
                ``(batch, 4, ...)`` from :func:`clapkit.audio.fusion.fuse`.
            n_valid_frames: not used; clips are repeated until they fill their window.

        Returns:
            ``(batch, feature_dim)``.
        """
        pictures = log_mel.transpose(2, 3)  # (batch, n_channels, n_frames, n_mels)
        is_longer = None
        if self.is_fused:
            is_longer = torch.full((len(log_mel), 1), log_mel.shape[1] > 1, device=log_mel.device)
        return self.transformer(input_features=pictures, is_longer=is_longer).pooler_output

    def initialize(self) -> None:
        """transformers has already given the weights their first values."""


def structure_of(config: EncoderConfig, *, is_fused: bool) -> ClapAudioConfig:
    """The settings of transformers' tower."""
    from transformers import ClapAudioConfig

    return ClapAudioConfig(
        spec_size=PICTURE_SIZE, num_mel_bins=N_MELS, patch_embeds_hidden_size=config.width,
        hidden_size=config.width * 2 ** (len(config.depths) - 1), depths=list(config.depths),
        num_attention_heads=list(config.n_heads), num_hidden_layers=len(config.depths),
        hidden_dropout_prob=config.dropout,
        enable_fusion=is_fused, fusion_type="aff_2d" if is_fused else None,
    )  # fmt: skip
