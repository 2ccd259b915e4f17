"""The texts of a training set: which belong to which clip, and their vectors in the text tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clapkit.data.prompts import training_texts
from clapkit.models.text_encoder import TextEncoder

BATCH_TEXTS = 64
NO_TOPIC = -1


class TrainingTexts:
    """All texts of a training table.

    A clip has one topic or several: its label, its tags, or a caption of its own. A text drawn for a topic describes
    every clip that has it; a clip with both a caption and a label is paired with the caption.

    Args:
        table: manifest rows with ``label``, ``tags`` or ``caption``.
        texts_of: every text of a label.

    Attributes:
        texts: every text once.
        topics: ``(n_clips, most_topics)`` int64 topics of each clip, padded with −1.
        topic_names: the label, tag or caption that each topic is.
    """

    def __init__(self, table: pd.DataFrame, texts_of: Callable[[str], list[str]] = training_texts) -> None:
        places: dict[str, int] = {}
        topics: dict[str, int] = {}
        of_label: dict[str, list[int]] = {}
        self._choices: list[list[tuple[int, list[int]]]] = []  # for each clip its topics, each with places in texts
        for label, tags, caption in zip(table["label"], table["tags"], table["caption"], strict=True):
            labels = [label] if isinstance(label, str) else list(tags) if isinstance(tags, tuple) else []
            for name in labels:
                if name not in of_label:
                    of_label[name] = [places.setdefault(text, len(places)) for text in texts_of(name)]
            if isinstance(caption, str):
                own = {name: [places.setdefault(caption, len(places))] for name in labels or [caption]}
            else:
                own = {name: of_label[name] for name in labels}
            self._choices.append([(topics.setdefault(name, len(topics)), texts) for name, texts in own.items()])
        self.texts = list(places)
        self.topic_names = list(topics)
        self._labels = [(topics[name], texts) for name, texts in of_label.items() if name in topics]
        of_clip = [torch.tensor([topic for topic, _ in choices]) for choices in self._choices]
        self.topics = pad_sequence(of_clip, batch_first=True, padding_value=NO_TOPIC)

    def draw(self, clips: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One random text for each clip: places in ``texts`` and topics, each ``(batch,)`` int64."""
        draws = torch.rand((len(clips), 2), generator=generator).tolist()
        return self._take(clips, draws)

    def first(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The first text of each clip: places in ``texts`` and topics, each ``(batch,)`` int64."""
        return self._take(clips, [[0.0, 0.0]] * len(clips))

    def draw_labels(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One random text for each label or tag: places in ``texts`` and topics, each ``(n_labels,)`` int64."""
        draws = torch.rand(len(self._labels), generator=generator).tolist()
        taken = [
            (texts[int(draw * len(texts))], topic) for (topic, texts), draw in zip(self._labels, draws, strict=True)
        ]
        places, topics = torch.tensor(taken, dtype=torch.int64).view(-1, 2).T
        return places, topics

    def same(self, clips: Tensor, topics: Tensor) -> Tensor:
        """``(n_clips, n_texts)`` float32: 1 where a text of that topic describes the clip."""
        return (self.topics[clips][:, None, :] == topics[None, :, None]).any(dim=2).float()

    def _take(self, clips: Tensor, draws: list[list[float]]) -> tuple[Tensor, Tensor]:
        taken = []
        for clip, (for_topic, for_text) in zip(clips.tolist(), draws, strict=True):
            choices = self._choices[clip]
            topic, texts = choices[int(for_topic * len(choices))]
            taken.append((texts[int(for_text * len(texts))], topic))
        places, topics = torch.tensor(taken).T
        return places, topics


@torch.no_grad()
def encode_all(tower: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Vectors of a frozen tower: ``(n_texts, text_dim)`` float32."""
    tower.eval()
    parts = [tower(texts[start : start + BATCH_TEXTS]) for start in range(0, len(texts), BATCH_TEXTS)]
    return torch.cat(parts)
