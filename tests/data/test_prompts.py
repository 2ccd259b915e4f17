"""Labels become prompts, and every way of giving labels wrongly ends in one readable line."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapkit.data.prompts import (
    DESCRIBED_DATASETS,
    LONGEST_LABEL,
    TEMPLATES,
    acoustic_descriptions,
    class_names,
    clean_label,
    label_of_class,
    load_descriptions,
    prompts_for,
    read_described_labels,
    read_labels,
    training_texts,
)
from clapkit.errors import ClapkitError

DESCRIBED = [(dataset, name) for dataset in DESCRIBED_DATASETS for name in load_descriptions(dataset)]


def error_of(text: str) -> str:
    with pytest.raises(ClapkitError) as caught:
        read_labels(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def label_file(folder: Path, content: bytes) -> Path:
    file = folder / "labels.txt"
    file.write_bytes(content)
    return file


# Class names and descriptions


def test_described_classes_are_those_of_their_publishers_in_order() -> None:
    us8k = class_names("us8k")
    assert (us8k[0], us8k[3], us8k[9], len(us8k)) == ("air_conditioner", "dog_bark", "street_music", 10)
    esc50 = class_names("esc50")
    assert (esc50[0], esc50[14], esc50[49], len(set(esc50))) == ("dog", "chirping_birds", "hand_saw", 50)


@pytest.mark.parametrize(("dataset", "name"), DESCRIBED)
def test_a_description_has_distinct_clean_texts_and_held_out_names_apart(dataset: str, name: str) -> None:
    texts = load_descriptions(dataset)[name]
    assert texts.label == clean_label(texts.label) == label_of_class(dataset, name)
    everything = [texts.label, *texts.paraphrases, *texts.descriptions, *texts.held_out]
    assert len(texts.paraphrases) >= 1
    assert len(texts.held_out) >= 1
    assert all(text == text.strip() and 0 < len(text) <= LONGEST_LABEL for text in everything)
    assert len({clean_label(text) for text in everything}) == len(everything)
    assert not set(texts.held_out) & set(training_texts(texts.label))


@pytest.mark.parametrize("dataset", DESCRIBED_DATASETS)
def test_no_two_classes_share_a_text(dataset: str) -> None:
    owners: dict[str, str] = {}
    for name, texts in load_descriptions(dataset).items():
        for text in (texts.label, *texts.paraphrases, *texts.descriptions, *texts.held_out):
            assert owners.setdefault(text, name) == name, f"'{text}' belongs to {owners[text]} and {name}"


def test_labels_are_cleaned() -> None:
    assert clean_label("  Dog_Bark \t loud") == "dog bark loud"


def test_training_texts_are_names_in_every_template_then_descriptions() -> None:
    dog = load_descriptions("us8k")["dog_bark"]
    texts = training_texts(dog.label)
    assert texts[: len(TEMPLATES)] == [template.format(label=dog.label) for template in TEMPLATES]
    assert f"the sound of {dog.paraphrases[0]}" in texts
    assert set(dog.descriptions) <= set(texts)
    assert len(texts) == len(set(texts))


def test_training_texts_of_an_unknown_label_are_its_prompts() -> None:
    assert training_texts("zither") == ["zither", "the sound of zither", "a recording of zither"]


def test_prompts_spell_labels_as_in_training() -> None:
    assert prompts_for("Big_Ben  bell") == ["big ben bell", "the sound of big ben bell", "a recording of big ben bell"]


def test_a_template_replaces_the_usual_ones() -> None:
    assert prompts_for("dog", "one {label} {here}") == ["one dog {here}"]


def test_a_template_without_a_place_for_the_label_is_refused() -> None:
    with pytest.raises(ClapkitError, match=r"must contain \{label\}"):
        prompts_for("dog", "a sound")


# Reading labels


def test_labels_are_split_at_commas_and_stripped() -> None:
    assert read_labels("dog, Big Ben ,car_horn") == ["dog", "Big Ben", "car_horn"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_label_file_has_a_label_per_line(tmp_path: Path, newline: bytes) -> None:
    lines = [b"# animals", b"dog", b"", b" a cat, purring ", "Möwe".encode()]
    assert read_labels(f"@{label_file(tmp_path, newline.join(lines))}") == ["dog", "a cat, purring", "Möwe"]


def test_a_label_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = label_file(tmp_path, b"\xef\xbb\xbfdog\ncat\n")
    assert read_labels(f"@{file}") == ["dog", "cat"]


@pytest.mark.parametrize("text", ["", "  ", " , "])
def test_no_label_at_all_is_answered_with_an_example(text: str) -> None:
    assert error_of(text) == 'no labels given; expected at least one, such as "dog barking,siren".'


def test_an_empty_label_is_counted_out() -> None:
    assert error_of("dog,,cat").startswith("label 2 of 3 is empty")


@pytest.mark.parametrize("text", ["dog,Dog", "Dog,dog", "dog bark,dog_bark", "dog,cat, dog"])
def test_a_label_given_twice_is_named(text: str) -> None:
    assert error_of(text).startswith(f"label '{text.split(',')[-1].strip()}' is given twice")


@pytest.mark.parametrize("text", ["dog," + "a" * 300, "dog\x01,cat"], ids=["too long", "control character"])
def test_a_label_that_is_no_word_is_refused_without_a_file_too(text: str) -> None:
    assert "not a label" in error_of(text)


@pytest.mark.parametrize("name", ["none.txt", "", "labels.txt/deeper"])
def test_a_label_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    label_file(tmp_path, b"dog\n")
    assert error_of(f"@{tmp_path / name}") == f"--labels @{tmp_path / name}: no such file; expected one label per line."


def test_a_label_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = label_file(tmp_path, "Möwe\n".encode("utf-16"))
    assert error_of(f"@{file}") == f"{file}: not UTF-8 text; expected one label per line."


@pytest.mark.parametrize("line", [b"\x00\x01\x02", b"RIFF\x00WAVE", b"a" * (LONGEST_LABEL + 1)])
def test_a_line_that_is_no_label_is_numbered(tmp_path: Path, line: bytes) -> None:
    file = label_file(tmp_path, b"# comment\ndog\n" + line + b"\n")
    assert error_of(f"@{file}").startswith(f"{file}, line 3: not a label (")


def test_a_doubled_line_is_named_with_its_file(tmp_path: Path) -> None:
    file = label_file(tmp_path, b"dog\ncat\nDog\n")
    assert error_of(f"@{file}").startswith(f"{file}: label 'Dog' is given twice")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n"])
def test_a_file_without_labels_is_named(tmp_path: Path, content: bytes) -> None:
    file = label_file(tmp_path, content)
    assert error_of(f"@{file}").startswith(f"{file}: no labels given")


# Labels with descriptions


def test_descriptions_stand_behind_a_colon() -> None:
    described = read_described_labels("the 12:30 train, lion roaring: a low growl; a hoarse roar ;")
    assert described == {"the 12:30 train": [], "lion roaring": ["a low growl", "a hoarse roar"]}


def test_a_label_file_may_describe_labels_with_commas(tmp_path: Path) -> None:
    growl = "a low, hoarse growl" + " that goes on" * 10
    file = label_file(tmp_path, f"dog\nlion: {growl}; {growl}s\n".encode())
    assert read_described_labels(f"@{file}") == {"dog": [], "lion": [growl, growl + "s"]}


@pytest.mark.parametrize("text", ["dog,lion:", "dog,lion: ; "])
def test_a_colon_without_a_description_is_refused(text: str) -> None:
    with pytest.raises(ClapkitError, match="label 'lion:.*nothing behind its colon"):
        read_described_labels(text)


@pytest.mark.parametrize("text", ["lion: a,Lion: b", "lion,lion: a"])
def test_a_label_is_described_once(text: str) -> None:
    with pytest.raises(ClapkitError, match="given twice"):
        read_described_labels(text)


def test_a_description_without_a_label_is_refused() -> None:
    with pytest.raises(ClapkitError, match="label 2 of 2 is empty"):
        read_described_labels("dog, : a low growl")


def test_acoustic_descriptions_are_texts_of_training_that_name_nothing() -> None:
    descriptions = acoustic_descriptions("dog barking")
    assert descriptions == training_texts("dog barking")[-len(descriptions) :]
    assert len(descriptions) == 10  # five in each dataset
    assert not any("dog" in text for text in descriptions)
    assert acoustic_descriptions("zither") == []
