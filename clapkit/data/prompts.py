"""From class names to texts: clean labels, paraphrases, acoustic descriptions, and prompt templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from clapkit.errors import ClapkitError
from clapkit.resources import PACKAGE_DIR

TEMPLATES = ("{label}", "the sound of {label}", "a recording of {label}")
"""Prompts for one label; their vectors are averaged."""

LONGEST_LABEL = 200
"""Characters."""

DESCRIBED_DATASETS = ("us8k", "esc50")


@dataclass(frozen=True)
class ClassTexts:
    """What ``data/descriptions/<dataset>.yaml`` says about one class.

    Attributes:
        label: the clean label.
        paraphrases: other names.
        descriptions: what it sounds like, without naming it.
        held_out: names never used in training, for tests.
    """

    label: str
    paraphrases: tuple[str, ...]
    descriptions: tuple[str, ...]
    held_out: tuple[str, ...]


@cache
def load_descriptions(dataset: str) -> dict[str, ClassTexts]:
    """The described classes of ``us8k`` or ``esc50`` by the publisher's class name, in class-id order."""
    tree = yaml.safe_load((PACKAGE_DIR / "data" / "descriptions" / f"{dataset}.yaml").read_text(encoding="utf-8"))
    return {
        name: ClassTexts(entry["label"], *(tuple(entry[key]) for key in ("paraphrases", "descriptions", "held_out")))
        for name, entry in tree.items()
    }


def class_names(dataset: str) -> tuple[str, ...]:
    """The publisher's class names in class-id order."""
    return tuple(load_descriptions(dataset))


def label_of_class(dataset: str, class_name: str) -> str:
    """The clean label of a publisher's class name."""
    return load_descriptions(dataset)[class_name].label


def clean_label(text: str) -> str:
    """``Dog_Bark`` → ``dog bark``: lower case, spaces for underscores, single spaces."""
    return " ".join(text.replace("_", " ").lower().split())


def training_texts(label: str) -> list[str]:
    """Every text a clip of this label is paired with: names in each template, and acoustic descriptions."""
    names = [label, *(name for texts in _texts_about(label) for name in texts.paraphrases)]
    prompts = [template.format(label=name) for name in names for template in TEMPLATES]
    return list(dict.fromkeys(prompts + acoustic_descriptions(label)))


def acoustic_descriptions(label: str) -> list[str]:
    """How a label's sounds sound, without a name for what makes them; none for a label that nobody described."""
    return [description for texts in _texts_about(label) for description in texts.descriptions]


def known_texts(label: str) -> list[str]:
    """Texts whose vectors a checkpoint keeps, so that they need no text tower: training texts and plain queries."""
    article = "an" if label[:1] in "aeiou" else "a"
    return list(dict.fromkeys([*training_texts(label), f"{article} {label}", f"{label} sound"]))


def prompts_for(label: str, template: str | None = None) -> list[str]:
    """The texts whose vectors are averaged to stand for a label.

    Args:
        label: underscores become spaces and capitals small, as in training.
        template: one template in place of the default ones; must contain ``{label}``.

    Raises:
        ClapkitError: the template has no ``{label}``.
    """
    if template is not None and "{label}" not in template:
        raise ClapkitError(f"template '{template}': must contain {{label}}, such as 'the sound of {{label}}'.")
    templates = TEMPLATES if template is None else (template,)
    return [each.replace("{label}", clean_label(label)) for each in templates]


def read_labels(text: str, option: str = "--labels") -> list[str]:
    """Labels from ``a,b,c``, or from ``@FILE`` with one label per line; empty lines and ``#`` lines are skipped.

    Args:
        text: what the user gave.
        option: where, for messages.

    Raises:
        ClapkitError: no such file, not text, or a label that is empty, doubled or too long; the line is named.
    """
    if not text.startswith("@"):
        return check_labels(text.split(","))
    file = Path(text[1:])
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ClapkitError(f"{option} {text}: no such file; expected one label per line.") from None
    except UnicodeDecodeError:
        raise ClapkitError(f"{file}: not UTF-8 text; expected one label per line.") from None
    labels = []
    for number, line in enumerate(lines, start=1):
        if not (label := line.strip()) or label.startswith("#"):
            continue
        if not _is_label(label):
            raise ClapkitError(f"{file}, line {number}: not a label ({label[:20]!r}…); expected a few words.")
        labels.append(label)
    try:
        return check_labels(labels)
    except ClapkitError as error:
        raise ClapkitError(f"{file}: {error}") from None


def read_described_labels(text: str) -> dict[str, list[str]]:
    """Labels as :func:`read_labels` reads them, each with the descriptions behind its colon, if it has one.

    ``lion roaring: deep rumbling animal voice; low hoarse roar`` is one label with two descriptions.

    Raises:
        ClapkitError: what :func:`read_labels` refuses, or a colon without a description behind it.
    """
    described = {}
    for entry in read_labels(text):
        label, *rest = re.split(r":(?:\s|$)", entry, maxsplit=1)  # 12:30 is no description
        descriptions = [each.strip() for part in rest for each in part.split(";") if each.strip()]
        if rest and not descriptions:
            raise ClapkitError(
                f"label '{entry}': nothing behind its colon; expected descriptions, such as "
                "'lion roaring: deep rumbling animal voice; low hoarse roar'."
            )
        check_labels([*described, label])
        described[label.strip()] = descriptions
    return described


def _texts_about(label: str) -> list[ClassTexts]:
    """The texts of every described dataset that has this label."""
    described = (texts for dataset in DESCRIBED_DATASETS for texts in load_descriptions(dataset).values())
    return [texts for texts in described if texts.label == label]


def _is_label(text: str) -> bool:
    """Whether a label and each of its descriptions has a label's length, and none a control character."""
    return text.isprintable() and max(map(len, re.split("[:;]", text))) <= LONGEST_LABEL


def check_labels(labels: list[str]) -> list[str]:
    """Strip labels and refuse an empty list, empty labels and duplicates.

    Raises:
        ClapkitError: says which label is wrong.
    """
    stripped = [label.strip() for label in labels]
    if not stripped or not any(stripped):
        raise ClapkitError('no labels given; expected at least one, such as "dog barking,siren".')
    if "" in stripped:
        raise ClapkitError(
            f"label {stripped.index('') + 1} of {len(stripped)} is empty; remove the extra comma or line."
        )
    seen: set[str] = set()
    for number, label in enumerate(stripped, start=1):
        if not _is_label(label):
            raise ClapkitError(f"label {number} is not a label ({label[:20]!r}…); expected a few words.")
        if clean_label(label) in seen:
            raise ClapkitError(f"label '{label}' is given twice; each label must be different.")
        seen.add(clean_label(label))
    return stripped
