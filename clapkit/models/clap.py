"""The model: a log-mel front-end, two towers, two projections into one space, a temperature, and a linear head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.audio.log_mel import LogMel
from clapkit.config import Config
from clapkit.models.audio_encoders import build_audio_encoder

if TYPE_CHECKING:  # transformers takes seconds to import and is not needed to embed audio
    from clapkit.models.text_encoder import TextEncoder

LARGEST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the learned temperature: 1/100."""

FIRST_LOGIT_BIAS = -10.0
"""Source: Zhai et al. 2023, SigLIP; most pairs of a batch do not belong together."""


class Projection(nn.Module):
    """A linear map with a residual two-layer correction and a LayerNorm.

    Source: Elizalde et al. 2023, CLAP: Linear → GELU → Linear → Dropout, added to the first map, normalised.
    """

    def __init__(self, n_in: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_in, embed_dim, bias=False)
        self.linear2 = nn.Linear(embed_dim, embed_dim, bias=False)
        self.layer_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_in)`` → ``(batch, embed_dim)`` of unit length."""
        first = self.linear1(features)
        return F.normalize(self.layer_norm(first + self.dropout(self.linear2(F.gelu(first)))), dim=-1)


class CLAP(nn.Module):
    """Contrastive language–audio model.

    Args:
        config: sizes and names of the towers.
        n_labels: outputs of the linear head; 0 for none.
        text_dim: size of the text tower's vectors.
        text_encoder: the text tower when it is trained with the rest, so that its weights belong to the
            checkpoint; None for a frozen pretrained one, which is found on the machine when needed.
    """

    def __init__(self, config: Config, n_labels: int, text_dim: int, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.audio)
        self.audio_encoder = build_audio_encoder(config.encoder, config.audio)
        feature_dim = self.audio_encoder.feature_dim
        embed_dim, dropout = config.model.embed_dim, config.model.projection_dropout
        self.audio_projection = Projection(feature_dim, embed_dim, dropout)
        self.text_encoder = text_encoder
        self.text_projection = Projection(text_dim, embed_dim, dropout)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.model.temperature)))
        is_sigmoid = config.train.contrastive == "sigmoid"
        self.logit_bias = nn.Parameter(torch.tensor(FIRST_LOGIT_BIAS)) if is_sigmoid else None
        self.head = nn.Linear(feature_dim, n_labels) if n_labels else None
        self.audio_encoder.initialize()
        self.audio_encoder.to(memory_format=torch.channels_last)  # a fifth faster on CPUs, more on GPUs with bf16

    def forward(self, log_mel: Tensor, n_valid_frames: Tensor, text: Tensor | Sequence[str]) -> dict[str, Tensor]:
        """One training step's way through both towers.

        Args:
            log_mel: ``(batch, n_channels, n_mels, n_frames)`` normalised dB.
            n_valid_frames: ``(batch,)`` int64.
            text: ``(n_texts, text_dim)`` vectors of a frozen text tower, or the texts themselves for a trained one.

        Returns:
            ``audio`` ``(batch, embed_dim)`` and ``text`` ``(n_texts, embed_dim)`` of unit length, and ``head``
            ``(batch, n_labels)`` logits where there is a head.
        """
        features = self.audio_encoder(log_mel, n_valid_frames)
        text_features = text if isinstance(text, Tensor) else self.text_encoder(text)
        outputs = {"audio": self.audio_projection(features), "text": self.text_projection(text_features)}
        if self.head is not None:
            outputs["head"] = self.head(features)
        return outputs

    def logits(self, audio: Tensor, text: Tensor) -> Tensor:
        """Cosines ``(n_clips, n_texts)`` at the learned temperature, in float32."""
        with torch.autocast(audio.device.type, enabled=False):  # bfloat16 is too coarse for cosines times 100
            logits = self.scale() * audio.float() @ text.float().T
        return logits if self.logit_bias is None else logits + self.logit_bias

    def audio_features(self, waveform: Tensor, n_valid_samples: Tensor) -> Tensor:
        """Windows → the audio tower's vectors.

        Args:
            waveform: ``(batch, n_channels, n_samples)`` float32 in [-1, 1] at ``config.audio.sample_rate`` Hz.
            n_valid_samples: ``(batch,)`` int64, samples before padding.

        Returns:
            ``(batch, feature_dim)``; feed it to ``audio_projection`` or ``head``.
        """
        return self.audio_encoder(*self.log_mel(waveform, n_valid_samples))

    def encode_audio(self, waveform: Tensor, n_valid_samples: Tensor) -> Tensor:
        """Windows (as in :meth:`audio_features`) → ``(batch, embed_dim)`` of unit length."""
        return self.audio_projection(self.audio_features(waveform, n_valid_samples))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts → ``(n_texts, embed_dim)`` of unit length, through the text tower held by this model."""
        if self.text_encoder is None:
            raise RuntimeError("this CLAP holds no text tower; pass text features to text_projection instead")
        return self.text_projection(self.text_encoder(texts))

    def scale(self) -> Tensor:
        """1 / temperature."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def bound_logit_scale(self) -> None:
        """Keep the temperature above 1/100 after an optimizer step; a bound in the loss would stop its gradient."""
        self.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
