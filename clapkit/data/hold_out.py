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

CATEGORIES = ("animals", "nature", "human", "domestic", "urban")
"""ESC-50's five groups of ten classes, in the order of its class ids; Piczak 2015, table 1."""
MIXED = ("mixed-1", "mixed-2", "mixed-3", "mixed-4", "mixed-5")
"""Every fifth class, from the first, second, … on: two of each category."""
GROUPS = CATEGORIES + MIXED

ENDINGS = ("e", "s", "es", "'s", "ed", "er", "ers", "ing", "ings", "ter", "y")
"""What inflections of an English word put after its stem: sneeze, sneezes, sneezing; laughter, rainy."""


@dataclass(frozen=True)
class HeldOut:
    """What training never meets.

    Attributes:
        labels: the held-out labels, which are tested; datasets that share a sound share its label.
        names: finds any of their names in a text, inflected or not.
        texts_of: the training texts of any other label, without a word for a held-out one.
    """

    labels: tuple[str, ...]
    names: re.Pattern[str]
    texts_of: Callable[[str], list[str]]

    def without(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows that have none of the labels, neither as label or tag nor as words of these or of a caption."""
        named = [
            any(self.names.search(text) for text in _texts_of_row(label, tags, caption))
            for label, tags, caption in zip(rows["label"], rows["tags"], rows["caption"], strict=True)
        ]
        return rows[~pd.Series(named, index=rows.index, dtype=bool)]


def read_hold_out(text: str, manifest: Manifest) -> tuple[str, ...]:
    """``animals`` or ``dog barking,siren`` → labels of the dataset.

    Raises:
        DatasetError: a name is neither a label of the dataset nor a group, or none would be left to train on.
    """
    labels: list[str] = []
    groups = [group for group in GROUPS if set(group_labels(group)) <= set(manifest.labels)]
    for part in text.split(","):
        name = clean_label(part)
        if name in groups:
            labels += group_labels(name)
        elif name in manifest.labels:
            labels.append(name)
        else:
            near = difflib.get_close_matches(name, [*manifest.labels, *groups], n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"expected labels such as '{manifest.labels[0]}'."
            raise DatasetError(f"--hold-out-classes '{part.strip()}': not a label of {manifest.dataset}; {hint}")
    chosen = tuple(dict.fromkeys(labels))
    if len(set(manifest.labels) - set(chosen)) < 2:
        raise DatasetError(f"--hold-out-classes {text}: leaves fewer than two classes to train on; hold out fewer.")
    return chosen


def group_labels(group: str) -> list[str]:
    """The ten labels of one of :data:`GROUPS`."""
    if group in MIXED:
        chosen = class_names("esc50")[MIXED.index(group) :: len(MIXED)]
    else:
        first = 10 * CATEGORIES.index(group)
        chosen = class_names("esc50")[first : first + 10]
    return [label_of_class("esc50", name) for name in chosen]


def hold_out_classes(labels: tuple[str, ...]) -> HeldOut:
    """Work out which clips and which texts training must not see."""
    pattern = _names_pattern(labels)

    def texts_of(label: str) -> list[str]:
        texts = [text for text in training_texts(label) if not pattern.search(text)]
        return texts or [label]  # a held-out label's own name, by which it is tested

    return HeldOut(labels, pattern, texts_of)


def _names_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Finds labels, their publishers' class names and their paraphrases as words in any inflection."""
    names, words_of_others = set(labels), set()
    for dataset in DESCRIBED_DATASETS:
        for class_name, texts in load_descriptions(dataset).items():
            if texts.label in labels:
                names |= {clean_label(name) for name in (class_name, *texts.paraphrases)}
            else:
                words_of_others |= set(texts.label.split())
    words = [re.findall(r"\w+", re.sub("^(an?|the) ", "", name)) for name in sorted(names, key=len, reverse=True)]
    spared = words_of_others.difference(*words)
    forms = [r"\W+".join(_any_inflection(word, spared) for word in name) for name in words if name]
    if not forms:  # names of signs alone, such as "?"
        return re.compile("|".join(re.escape(name) for name in names))
    return re.compile(r"\b(?:" + "|".join(forms) + r")\b", re.IGNORECASE)


def _any_inflection(word: str, spared: set[str]) -> str:
    """``dog`` → a pattern of dog, dogs, doggy …, ``crying`` → of cry, cries, cried …, ``cat`` → but not of cattle.

    Words to be spared are in other classes' labels: a rooster crowing is no crow.
    """
    ending = re.fullmatch(r"(\w{3,}?)(e?s|ed?|ings?)", word)
    stem = ending[1] if ending else word
    if stem[-1] in "yi":
        form = f"{stem[:-1]}(?:y|i|ied)"
    else:
        single = stem[:-1] if stem[-2:-1] == stem[-1] else stem
        form = f"{single}{stem[-1]}?"  # drip, dripping
    form += f"(?:{'|'.join(ENDINGS)})?"
    kept = [other for other in sorted(spared) if re.fullmatch(form, other)]
    return rf"(?!(?:{'|'.join(kept)})\b){form}" if kept else form


def _texts_of_row(label: object, tags: object, caption: object) -> list[str]:
    texts = [text for text in (label, caption) if isinstance(text, str)]
    return texts + list(tags) if isinstance(tags, tuple) else texts
