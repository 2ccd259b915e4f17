"""Losses over one batch; pure functions of logits and targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

LEAST_DESCRIBED = 0.01
"""Shares of clips that a text must describe to be asked which clips it fits."""


def contrastive_loss(logits: Tensor, same: Tensor, text_logits: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy between clips and texts, in which all pairs of one description are positives.

    Source: Radford et al. 2021, CLIP (symmetric loss); Yang et al. 2022, UniCL (all matching pairs as targets).

    Args:
        logits: ``(n_clips, n_texts)``, temperature applied.
        same: ``(n_clips, n_texts)`` weight ≥ 0 of each pair: 1 where the text describes the clip, 0 elsewhere,
            in between for mixed clips; every row has a positive one. Texts that describe no clip are wrong answers
            only, and are not asked about themselves.
        text_logits: ``logits`` at another temperature, for the way from text to sound; None: the same.

    Returns:
        A scalar.
    """
    to_text = same / same.sum(dim=1, keepdim=True).clamp_min(LEAST_DESCRIBED)
    describes = same.sum(dim=0)  # (n_texts,)
    asked = describes > LEAST_DESCRIBED
    to_audio = same / describes.clamp_min(LEAST_DESCRIBED)
    from_audio = -(to_text * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    of_texts = -(to_audio * F.log_softmax(logits if text_logits is None else text_logits, dim=0)).sum(dim=0)
    from_text = (of_texts * asked).sum() / asked.sum().clamp_min(1)
    return (from_audio + from_text) / 2


def sigmoid_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Each pair of clip and text is a decision of its own: do they belong together?

    Source: Zhai et al. 2023, SigLIP, with all pairs of one description as positives.

    Args:
        logits: ``(n_clips, n_texts)``, temperature and bias applied.
        same: as in :func:`contrastive_loss`, in [0, 1].

    Returns:
        A scalar: the sum over all pairs for each clip, averaged over the clips.
    """
    return F.binary_cross_entropy_with_logits(logits, same, reduction="sum") / len(logits)


def head_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of the linear head, for clips with one label.

    Args:
        logits: ``(n_clips, n_labels)``.
        targets: ``(n_clips, n_labels)`` rows that sum to 1, or to 0 for clips without a label, which are ignored.
        label_smoothing: part of the target spread over all labels.

    Returns:
        A scalar.
    """
    labelled = targets.sum(dim=1)
    smoothed = targets * (1 - label_smoothing) + labelled[:, None] * label_smoothing / targets.shape[1]
    losses = -(smoothed * F.log_softmax(logits, dim=1)).sum(dim=1)
    return losses.sum() / labelled.sum().clamp_min(1)


def multilabel_head_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Binary cross-entropy of the linear head, for clips with several labels.

    Args:
        logits: ``(n_clips, n_labels)``.
        targets: ``(n_clips, n_labels)`` in [0, 1].
        label_smoothing: targets are moved by half of it towards one half.

    Returns:
        A scalar: the sum over labels, averaged over the clips.
    """
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smoothed, reduction="sum") / len(logits)
