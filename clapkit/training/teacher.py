"""Learning from another model: what it believes of a clip replaces a part of what the label says.

Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network; Beyer et al. 2021, Knowledge distillation: A
good teacher is patient and consistent (the teacher hears the same changed and mixed clip).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clapkit.config import Config
from clapkit.errors import ConfigError
from clapkit.models.clap import CLAP
from clapkit.models.opening import open_checkpoint
from clapkit.training.texts import TrainingTexts


@dataclass
class Teacher:
    """A trained model that sees the learner's pictures.

    Attributes:
        clap: with a head for the learner's labels.
        label_of_topic: ``(n_topics,)`` int64 place of each text topic among the labels; −1 for captions.
        sources: recordings that it has heard.
        training: how it was trained, as its checkpoint says.
    """

    clap: CLAP
    label_of_topic: Tensor
    sources: list[str]
    training: dict[str, Any]

    @torch.no_grad()
    def believe(self, log_mel: Tensor, n_valid_frames: Tensor) -> Tensor:
        """``(batch, n_channels, n_mels, n_frames)`` and ``(batch,)`` → ``(batch, n_labels)`` that sum to 1."""
        return self.clap.head(self.clap.audio_encoder(log_mel, n_valid_frames)).float().softmax(dim=1)

    def of_texts(self, believed: Tensor, topics: Tensor, same: Tensor) -> Tensor:
        """Beliefs ``(batch, n_labels)`` about the texts of these topics ``(n_texts,)``; ``same`` for captions."""
        labels = self.label_of_topic[topics].to(believed.device)
        return torch.where(labels >= 0, believed[:, labels.clamp_min(0)], same)


def open_teacher(config: Config, labels: Sequence[str], texts: TrainingTexts, device: torch.device) -> Teacher | None:
    """The model that ``train.teacher`` names; None where it names none.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: it has other labels or another preprocessing than what is trained.
    """
    name = config.train.teacher
    if name is None:
        return None
    opened = open_checkpoint(name)
    clap, problem = opened.clap, ""
    if clap.head is None or config.model.multilabel or clap.config.model.multilabel:
        problem = "clips must have one label each, and the teacher a head for them"
    elif list(opened.labels) != list(labels):
        problem = f"it knows {len(opened.labels)} labels other than these {len(labels)}, or in another order"
    elif clap.config.audio != config.audio:
        problem = "it has other settings of 'audio'"
    if problem:
        raise ConfigError(f"train.teacher={name}: {problem}; give a model of the same dataset and preprocessing.")
    place = {label: number for number, label in enumerate(labels)}
    label_of_topic = torch.tensor([place.get(topic, -1) for topic in texts.topic_names])
    return Teacher(clap.eval().requires_grad_(False).to(device), label_of_topic, opened.sources, opened.training)
