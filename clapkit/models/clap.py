"""The model: a log-mel front-end, two towers, two projections into one space, a temperature, and a linear head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clapkit.audio.fusion import fuse
from clapkit.audio.log_mel import LogMel
from clapkit.audio.windows import n_window_frames
from clapkit.config import Config
from clapkit.errors import ConfigError
from clapkit.models.audio_encoders import build_audio_encoder
from clapkit.models.branches import Branches, BranchProjections
from clapkit.models.projections import UnitLength, build_projection

if TYPE_CHECKING:  # transformers takes seconds to import and is not needed to embed audio
    from clapkit.models.text_encoder import TextEncoder

LARGEST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the learned temperature: 1/100."""

FIRST_LOGIT_BIAS = -10.0
"""Source: Zhai et al. 2023, SigLIP; most pairs of a batch do not belong together."""


class CLAP(nn.Module):
    """Contrastive language–audio model.

    Args:
        config: sizes and names of the towers.
        n_labels: outputs of the linear head; 0 for none.
        text_dim: size of the text tower's vectors.
        text_encoder: the text tower when its weights belong to the checkpoint, as those of a trained one do; None for
            a frozen pretrained one, which is found on the machine when needed.

    Raises:
        ConfigError: settings that do not fit together.
    """

    def __init__(self, config: Config, n_labels: int, text_dim: int, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.audio)
        self.audio_encoder = self._audio_encoder()
        feature_dim = self.audio_encoder.feature_dim
        self.text_dim = text_dim
        self.audio_projection = self._projection(feature_dim)
        self.text_encoder = text_encoder
        self.text_projection = self._projection(text_dim, is_text=True)
        first_scale = torch.tensor(math.log(1 / config.model.temperature))
        self.logit_scale = nn.Parameter(first_scale.clone())
        self.text_logit_scale = nn.Parameter(first_scale.clone()) if config.model.text_logit_scale else None
        is_sigmoid = config.train.contrastive == "sigmoid"
        self.logit_bias = nn.Parameter(torch.tensor(FIRST_LOGIT_BIAS)) if is_sigmoid else None
        self.head = nn.Linear(feature_dim, n_labels) if n_labels else None
        self.audio_encoder.initialize()
        self.audio_encoder.to(memory_format=torch.channels_last)  # a fifth faster on CPUs, more on GPUs with bf16

    def _audio_encoder(self) -> nn.Module:
        encoder, audio = self.config.encoder, self.config.audio
        if encoder.branches == 1:
            return build_audio_encoder(encoder, audio)
        return Branches(encoder.branches, lambda: build_audio_encoder(encoder, audio))

    def _projection(self, n_in: int, *, is_text: bool = False) -> nn.Module:
        settings, n_branches = self.config.model, self.config.encoder.branches
        if n_branches > 1:
            n_own, n_out = n_in if is_text else n_in // n_branches, settings.embed_dim // n_branches
            if settings.text_projection == "none" or n_out * n_branches != settings.embed_dim:
                raise ConfigError(
                    f"encoder.branches={n_branches}: needs model.text_projection=same, and model.embed_dim "
                    f"({settings.embed_dim}) must be a multiple of it."
                )
            build = lambda: build_projection(settings.projection, n_own, n_out, settings.projection_dropout)  # noqa: E731
            return BranchProjections(n_branches, build, splits=not is_text)
        if not is_text or settings.text_projection == "same":
            return build_projection(settings.projection, n_in, settings.embed_dim, settings.projection_dropout)
        if n_in != settings.embed_dim:
            raise ConfigError(
                f"model.text_projection=none: the text tower's vectors have {n_in} numbers, so model.embed_dim must be "
                f"{n_in}, not {settings.embed_dim}."
            )
        return UnitLength()

    def train(self, mode: bool = True) -> CLAP:
        """Switch to training or evaluation; a frozen audio tower always evaluates."""
        super().train(mode)
        if self.config.train.freeze_audio:
            self.audio_encoder.eval()
        return self

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

    def logits(self, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines ``(n_clips, n_texts)`` in float32, at the temperature from sound to text and at that back."""
        with torch.autocast(audio.device.type, enabled=False):  # bfloat16 is too coarse for cosines times 100
            similarity = audio.float() @ text.float().T
        from_audio = self.logit_scale.exp() * similarity
        if self.logit_bias is not None:
            from_audio = from_audio + self.logit_bias
        return from_audio, from_audio if self.text_logit_scale is None else self.text_logit_scale.exp() * similarity

    def audio_features(self, waveform: Tensor, n_valid_samples: Tensor) -> Tensor:
        """Windows → the audio tower's vectors.

        Args:
            waveform: ``(batch, n_channels, n_samples)`` float32 in [-1, 1] at ``config.audio.sample_rate`` Hz, as
                :func:`clapkit.audio.windows.cut_windows` gives them.
            n_valid_samples: ``(batch,)`` int64, samples of the clip itself.

        Returns:
            ``(batch, feature_dim)``; feed it to ``audio_projection`` or ``head``.
        """
        log_mel, n_valid_frames = self.log_mel(waveform, n_valid_samples)
        n_frames = n_window_frames(self.config.audio)
        if self.config.audio.fused_s is not None and log_mel.shape[-1] > n_frames:
            log_mel = fuse(log_mel, n_frames)
        return self.audio_encoder(log_mel, n_valid_frames)

    def encode_audio(self, waveform: Tensor, n_valid_samples: Tensor) -> Tensor:
        """Windows (as in :meth:`audio_features`) → ``(batch, embed_dim)`` of unit length."""
        return self.audio_projection(self.audio_features(waveform, n_valid_samples))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts → ``(n_texts, embed_dim)`` of unit length, through the text tower held by this model."""
        if self.text_encoder is None:
            raise RuntimeError("this CLAP holds no text tower; pass text features to text_projection instead")
        return self.text_projection(self.text_encoder(texts))

    def scale(self) -> Tensor:
        """1 / temperature, from a sound to texts."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def bound_logit_scale(self) -> None:
        """Keep the temperature above 1/100 after an optimizer step; a bound in the loss would stop its gradient."""
        self.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        if self.text_logit_scale is not None:
            self.text_logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
