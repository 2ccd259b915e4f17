"""What is written as ONNX: each tower with all that stands before and behind it, in operations that ONNX has."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.models.clap import CLAP

if TYPE_CHECKING:  # transformers takes seconds to import, and a model that reads no text does without
    from clapkit.models.text_encoder import TextEncoder


class AudioGraph(nn.Module):
    """One window → its vector, and the head's probabilities where there is a head.

    The tower is a copy, changed where ONNX lacks something, without changing any result: see :func:`_prepared_tower`.
    """

    def __init__(self, clap: CLAP) -> None:
        super().__init__()
        self.log_mel, self.audio_encoder = clap.log_mel, _prepared_tower(clap.audio_encoder)
        self.audio_projection, self.head = clap.audio_projection, clap.head
        self.multilabel = clap.config.model.multilabel

    def forward(self, waveform: Tensor, n_valid_samples: Tensor | None = None) -> tuple[Tensor, ...]:
        """``(batch, n_channels, n_window_samples)``, ``(batch,)`` → ``(batch, embed_dim)``, ``(batch, n_labels)``."""
        if n_valid_samples is None:  # with repeated clips every sample counts
            n_valid_samples = torch.full((waveform.shape[0],), waveform.shape[2], dtype=torch.int64)
        features = self.audio_encoder(*self.log_mel(waveform, n_valid_samples))
        embedding = self.audio_projection(features)
        if self.head is None:
            return (embedding,)
        logits = self.head(features)
        return embedding, logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)


class TextGraph(nn.Module):
    """Tokens → their text's vector."""

    def __init__(self, tower: TextEncoder, text_projection: nn.Module) -> None:
        super().__init__()
        self.tower, self.text_projection = tower, text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """``(batch, length)`` twice → ``(batch, embed_dim)``."""
        return (self.text_projection(self.tower.encode_tokens(input_ids, attention_mask)),)


class ZeroPaddedPool(nn.Module):
    """``AvgPool2d(stride, ceil_mode=True, divisor_override=stride²)``, of which ONNX lacks the divisor."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_channels, height, width)`` → the same, divided by the stride and rounded up."""
        height, width = features.shape[2:]
        return F.avg_pool2d(F.pad(features, (0, -width % self.stride, 0, -height % self.stride)), self.stride)


def _prepared_tower(audio_encoder: nn.Module) -> nn.Module:
    """A copy of an audio tower for one window: without LAION's fusion of longer sounds, and with a pool ONNX has."""
    tower = copy.deepcopy(audio_encoder)
    for parent in list(tower.modules()):
        if hasattr(parent, "is_fused"):  # HTSAT; a sound of one window takes the plain way through the fused tower
            parent.is_fused = False
        if hasattr(parent, "enable_fusion"):
            parent.enable_fusion = False
        for name, child in parent.named_children():
            if isinstance(child, nn.AvgPool2d) and child.ceil_mode and child.divisor_override == child.kernel_size**2:
                setattr(parent, name, ZeroPaddedPool(child.kernel_size))
    return tower
