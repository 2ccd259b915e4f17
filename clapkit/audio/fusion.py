"""The picture of a long clip for LAION's fused tower: the whole clip shrunk, and three crops of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def fuse(log_mel: Tensor, n_frames: int) -> Tensor:
    """Turn long pictures into four channels of ``n_frames`` each.

    The crops are the middle one of each third of all possible crops, where the original draws one at random.

    Args:
        log_mel: ``(batch, 1, n_mels, n_long_frames)``, longer than ``n_frames``.
        n_frames: frames of one window.

    Returns:
        ``(batch, 4, n_mels, n_frames)``: shrunk, front, middle, back.

    Source: Wu et al. 2023, LAION-CLAP, feature fusion.
    """
    n_mels = log_mel.shape[2]
    shrunk = F.interpolate(log_mel.transpose(2, 3), (n_frames, n_mels), mode="bilinear", align_corners=False)
    thirds = np.array_split(np.arange(log_mel.shape[3] - n_frames + 1), 3)
    starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
    crops = [log_mel[..., start : start + n_frames] for start in starts]
    return torch.cat([shrunk.transpose(2, 3), *crops], dim=1)
