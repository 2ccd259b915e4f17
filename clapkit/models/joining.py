"""Several models trained apart, as one: an ensemble in one checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clapkit.config import Config
from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.weights import load_strictly

TOWERS = ("audio_encoder.", "audio_projection.", "text_projection.")
"""What every part brings whole."""


def join_checkpoints(parts: Sequence[Checkpoint], names: Sequence[str]) -> Checkpoint:
    """Put models side by side: cosines and the head's logits become the means of the parts'.

    Args:
        parts: models of the same settings, labels and frozen text tower, such as runs with different seeds.
        names: what to call them in errors.

    Raises:
        CheckpointError: fewer than two, or one does not fit the first.
    """
    if len(parts) < 2:
        raise CheckpointError(f"{len(parts)} checkpoint to join; expected two or more.")
    first = parts[0]
    for part, name in zip(parts, names, strict=True):
        if difference := _difference(first, part):
            raise CheckpointError(f"{name}: {difference}; join runs that have the same settings and labels.")
    n_labels = 0 if first.clap.head is None else len(first.labels)
    clap = CLAP(_joined_config(first, len(parts)), n_labels, first.clap.text_dim)
    load_strictly(clap, _joined_state([part.clap for part in parts]), "the joined model", "this is a bug")
    common = [text for text in first.texts if all(text in part.texts for part in parts)]
    texts = {text: np.concatenate([part.texts[text] for part in parts]) / math.sqrt(len(parts)) for text in common}
    training = first.training | {"joined": f"{len(parts)} models trained apart"}
    sources = sorted({source for part in parts for source in part.sources})
    return Checkpoint(clap, list(first.labels), first.text_sha256, texts, training, {}, sources)


def _difference(first: Checkpoint, other: Checkpoint) -> str:
    """Why they cannot be joined, in words; empty when they can."""
    own, config = first.clap.config, other.clap.config
    if config.encoder.branches > 1:
        return "is joined already"
    if other.text_sha256 is None or config.model.text_projection == "none":
        return "has no frozen text tower behind a projection"
    if other.captioner is not None:
        return "has a caption model, which reads vectors of one model"
    if other.labels != first.labels:
        return f"has {len(other.labels)} labels other than the {len(first.labels)} of the first, or in another order"
    if other.text_sha256 != first.text_sha256:
        return "has another text tower than the first"
    for section in ("audio", "encoder", "text", "model"):
        if getattr(own, section) != getattr(config, section):
            return f"has other settings of '{section}' than the first"
    if own.train.contrastive != config.train.contrastive:
        return "has another contrastive loss than the first"
    return ""


def _joined_config(first: Checkpoint, n_parts: int) -> Config:
    config = first.clap.config
    encoder = config.encoder.model_copy(update={"branches": n_parts})
    model = config.model.model_copy(update={"embed_dim": n_parts * config.model.embed_dim})
    return config.model_copy(update={"encoder": encoder, "model": model})


def _joined_state(claps: Sequence[CLAP]) -> dict[str, Tensor]:
    states = [clap.state_dict() for clap in claps]
    joined = {}
    for name in states[0]:
        values = torch.stack([state[name] for state in states])
        if tower := next((tower for tower in TOWERS if name.startswith(tower)), None):
            joined |= {f"{tower}parts.{place}.{name.removeprefix(tower)}": value for place, value in enumerate(values)}
        elif name == "head.weight":
            joined[name] = torch.cat(list(values), dim=1) / len(values)
        elif name.endswith("logit_scale"):
            joined[name] = values.exp().mean(dim=0).log()
        else:
            joined[name] = values.mean(dim=0)
    return joined
