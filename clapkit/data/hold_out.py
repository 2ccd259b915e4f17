"""Classes that are never heard in training, neither as sound nor as word, so that prompts can be tested on them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from clapkit.data.manifest import Manifest
from clapkit.data.prompts import (
    DESCRIBED_DATASETS,
    class_names,
    clean_label,
    label_of_class,
    load_descriptions,
    training_texts,
)
from clapkit.errors import DatasetError

GROUPS = ("animals", "nature", "human", "domestic", "urban")
"""ESC-50's five groups of ten classes, in the order of its class ids; Piczak 2015, table 1."""


@dataclass(frozen=True)
class HeldOut:
    """What training never meets.

    Attributes:
        labels: the held-out labels, which are tested; datasets that share a sound share its label.
        texts_of: the training texts of any other label, without a word for a held-out one.
    """

    labels: tuple[str, ...]
    texts_of: Callable[[str], list[str]]

    def without(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows that have none of the labels."""
        has_tag = rows["tags"].map(lambda tags: isinstance(tags, tuple) and not set(self.labels).isdisjoint(tags))
        return rows[~rows["label"].isin(self.labels) & ~has_tag.astype(bool)]


def read_hold_out(text: str, manifest: Manifest) -> tuple[str, ...]:
    """``animals`` or ``dog barking,siren`` → labels of the dataset.

    Raises:
        DatasetError: a name is neither a label of the dataset nor a group, or none would be left to train on.
    """
    labels: list[str] = []
    for part in text.split(","):
        name = clean_label(part)
        if name in GROUPS and "esc50" in manifest.dataset:
            labels += group_labels(name)
        elif name in manifest.labels:
            labels.append(name)
        else:
            known = [*manifest.labels, *GROUPS]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"expected labels such as '{manifest.labels[0]}'."
            raise DatasetError(f"--hold-out-classes '{part.strip()}': not a label of {manifest.dataset}; {hint}")
    chosen = tuple(dict.fromkeys(labels))
    if len(set(manifest.labels) - set(chosen)) < 2:
        raise DatasetError(f"--hold-out-classes {text}: leaves fewer than two classes to train on; hold out fewer.")
    return chosen


def group_labels(group: str) -> list[str]:
    """The ten labels of one of ESC-50's groups."""
    first = 10 * GROUPS.index(group)
    return [label_of_class("esc50", name) for name in class_names("esc50")[first : first + 10]]


def hold_out_classes(labels: tuple[str, ...]) -> HeldOut:
    """Work out which clips and which texts training must not see."""
    pattern = _words_pattern(labels)

    def texts_of(label: str) -> list[str]:
        texts = [text for text in training_texts(label) if not pattern.search(text)]
        return texts or [label]  # its own name, even where that holds another's

    return HeldOut(labels, texts_of)


def _words_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any name of these labels as whole words."""
    names = set(labels)
    for dataset in DESCRIBED_DATASETS:
        for texts in load_descriptions(dataset).values():
            if texts.label in labels:
                names |= {clean_label(name) for name in texts.paraphrases}
    return re.compile(r"\b(" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + r")", re.IGNORECASE)
