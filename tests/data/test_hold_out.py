"""Held-out classes are never heard in training, and no training text names them."""

from __future__ import annotations

import re
from functools import cache

import pytest

from clapkit.data.hold_out import CATEGORIES, GROUPS, MIXED, group_labels, hold_out_classes, read_hold_out
from clapkit.data.manifest import Manifest, make_table
from clapkit.data.prompts import class_names, clean_label, label_of_class, load_descriptions, training_texts
from clapkit.errors import DatasetError

LABELS = {
    dataset: tuple(label_of_class(dataset, name) for name in class_names(dataset)) for dataset in ("us8k", "esc50")
}
HELD_OUT = [("esc50", tuple(group_labels(group))) for group in GROUPS]
HELD_OUT += [(dataset, (label,)) for dataset in LABELS for label in LABELS[dataset]]


@cache
def words_of(text: str) -> str:
    """Lower-case words with a space before and after each, plurals as singulars."""
    words = re.sub("[^a-z]", " ", text.lower()).split()
    return f" {' '.join(word[:-1] if word.endswith('s') and len(word) > 3 else word for word in words)} "


def names(text: str, name: str) -> bool:
    """Whether the words of the name follow each other in the text."""
    return words_of(name) in words_of(text)


def names_of(labels: tuple[str, ...]) -> set[str]:
    """Labels, publishers' class names and paraphrases."""
    found = set(labels)
    for dataset in LABELS:
        for class_name, texts in load_descriptions(dataset).items():
            if texts.label in labels:
                found |= {clean_label(class_name), *texts.paraphrases}
    return found


def made_up(dataset: str, *labels: str) -> Manifest:
    return Manifest(dataset, make_table(path=[f"{label}.wav" for label in labels], label=list(labels)), labels, "")


def error_of(text: str, manifest: Manifest) -> str:
    with pytest.raises(DatasetError) as caught:
        read_hold_out(text, manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Texts


@pytest.mark.parametrize(
    ("dataset", "labels"), HELD_OUT, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_no_training_text_of_another_class_names_a_held_out_one(dataset: str, labels: tuple[str, ...]) -> None:
    held_out, forbidden = hold_out_classes(labels), names_of(labels)
    for label in {*LABELS["us8k"], *LABELS["esc50"]} - set(labels):
        texts = held_out.texts_of(label)
        assert len(texts) >= 3
        assert label in texts
        assert set(texts) <= set(training_texts(label))
        assert [(text, name) for text in texts for name in forbidden if names(text, name)] == []


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("dog barking", "a dog"), ("dog barking", "two Dogs"), ("dog barking", "barking dogs"),
        ("dog barking", "the dog's bowl"), ("dog barking", "the barking dog"), ("rain", "it was raining"),
        ("rain", "a rainy day"), ("crying baby", "babies cry in the nursery"), ("crying baby", "a crying   baby"),
        ("laughing", "bursts of laughter"), ("sneezing", "he sneezes"), ("clapping", "they clap"),
        ("glass breaking", "breaking glasses"), ("jackhammer", "jackhammers"), ("helicopter", "helicopter-like"),
    ],
)  # fmt: skip
def test_inflected_names_are_found(label: str, text: str) -> None:
    assert hold_out_classes((label,)).names.search(text)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("cat meowing", "mooing cattle"), ("cat meowing", "a bobcat"), ("rain", "a train"), ("sea waves", "seals"),
        ("crow cawing", "a crowd"), ("crow cawing", "rooster crowing"), ("wind", "a window"), ("dog barking", "dogma"),
        ("hen clucking", "then"), ("engine idling", "an engineer"), ("pig oinking", "pigeons"),
    ],
)  # fmt: skip
def test_other_words_are_not(label: str, text: str) -> None:
    assert not hold_out_classes((label,)).names.search(text)


def test_labels_of_your_own_are_found_too() -> None:
    held_out = hold_out_classes(("space ship",))
    assert held_out.texts_of("two space ships") == ["two space ships"]  # its own name is all it has
    assert held_out.names.search("space-ships")
    assert not hold_out_classes(("?",)).names.search("dog")


# Clips


def test_clips_that_have_or_name_a_held_out_class_are_left_out() -> None:
    table = make_table(
        path=list("abcdefgh"),
        label=["siren", None, None, None, "dog barking", "siren", None, "dog barking"],
        tags=[None, ("siren", "car"), ("car",), None, None, None, ("sirens of the sea",), None],
        caption=[None, None, None, "sirens at night", "with a police siren", "a quiet night", None, None],
    )
    table.index = table.index + 10
    kept = hold_out_classes(("siren",)).without(table)
    assert kept["path"].tolist() == ["c", "h"]
    assert kept.index.tolist() == [12, 17]
    assert hold_out_classes(("siren",)).without(table[:0]).empty


@pytest.mark.parametrize(
    ("dataset", "labels"), HELD_OUT, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_clips_of_all_other_classes_stay(dataset: str, labels: tuple[str, ...]) -> None:
    table = made_up(dataset, *LABELS[dataset]).table
    kept = hold_out_classes(labels).without(table)
    assert set(kept["label"]) == set(LABELS[dataset]) - set(labels)


# Reading


def test_groups_are_the_publishers_tens() -> None:
    assert [group_labels(group)[0] for group in CATEGORIES] == [
        "dog barking", "rain", "crying baby", "door knock", "helicopter",
    ]  # fmt: skip
    for partition in (CATEGORIES, MIXED):
        assert sorted(label for group in partition for label in group_labels(group)) == sorted(LABELS["esc50"])
    for group in MIXED:
        assert [len(set(group_labels(group)) & set(group_labels(category))) for category in CATEGORIES] == [2] * 5


def test_labels_and_groups_may_be_mixed_and_count_once() -> None:
    manifest = made_up("esc50", *LABELS["esc50"])
    assert read_hold_out("animals, Dog_Barking,rain", manifest) == (*group_labels("animals"), "rain")
    assert read_hold_out("urban", made_up("us8k+esc50", *LABELS["us8k"], *LABELS["esc50"]))[0] == "helicopter"


@pytest.mark.parametrize("text", ["sirene", "dog barking,sirene"])
def test_an_unknown_label_is_answered_with_a_near_one(text: str) -> None:
    message = error_of(text, made_up("us8k", *LABELS["us8k"]))
    assert message == "--hold-out-classes 'sirene': not a label of us8k; did you mean 'siren'?"


@pytest.mark.parametrize("text", ["", "siren,", "zzzz"])
def test_what_is_near_nothing_is_answered_with_an_example(text: str) -> None:
    assert "expected labels such as 'air conditioner'." in error_of(text, made_up("us8k", *LABELS["us8k"]))


def test_groups_are_esc50s_alone() -> None:
    message = error_of("animals", made_up("us8k", *LABELS["us8k"]))
    assert "not a label of us8k" in message
    assert "animals'?" not in message
    assert "did you mean 'animals'?" in error_of("animal", made_up("esc50", *LABELS["esc50"]))


def test_a_mixture_with_all_classes_of_a_group_knows_the_group() -> None:
    mixed = made_up("csv", *LABELS["us8k"], *LABELS["esc50"])
    assert read_hold_out("animals", mixed) == tuple(group_labels("animals"))


def test_two_classes_must_be_left() -> None:
    assert "leaves fewer than two classes to train on" in error_of("dog,cat", made_up("own", "dog", "cat", "owl"))
    assert read_hold_out("dog", made_up("own", "dog", "cat", "owl")) == ("dog",)
