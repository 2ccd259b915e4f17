"""Which texts belong to which clip, for labels, tags, captions and all of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest
import torch

from clapkit.data.manifest import make_table
from clapkit.data.prompts import training_texts
from clapkit.training.texts import TrainingTexts, encode_all


def table(**columns: object) -> pd.DataFrame:
    n_clips = len(next(iter(columns.values())))
    return make_table(path=[f"{number}.wav" for number in range(n_clips)], **columns)


def drawn(texts: TrainingTexts, clips: list[int], times: int = 300) -> list[set[str]]:
    """All texts that are drawn for each clip."""
    generator = torch.Generator().manual_seed(0)
    rounds = [texts.draw(torch.tensor(clips), generator)[0].tolist() for _ in range(times)]
    return [{texts.texts[places[number]] for places in rounds} for number in range(len(clips))]


def same(texts: TrainingTexts, clips: list[int]) -> list[list[float]]:
    places = torch.tensor(clips)
    return texts.same(places, texts.first(places)[1]).tolist()


def test_each_clip_is_paired_with_every_text_of_its_label() -> None:
    texts = TrainingTexts(table(label=["dog", "rain", "dog"]))
    of_dog, of_rain, of_other_dog = drawn(texts, [2, 1, 0])
    assert of_dog == of_other_dog == set(training_texts("dog"))
    assert of_rain == set(training_texts("rain"))
    assert len(texts.texts) == len(set(texts.texts))


def test_texts_of_a_label_may_be_given() -> None:
    texts = TrainingTexts(table(label=["dog", "rain"]), texts_of=lambda label: [label.upper(), f"a {label}"])
    assert texts.texts == ["DOG", "a dog", "RAIN", "a rain"]
    assert drawn(texts, [1]) == [{"RAIN", "a rain"}]


def test_clips_of_one_label_or_one_caption_describe_each_other() -> None:
    assert same(TrainingTexts(table(label=["dog", "rain", "dog"])), [0, 1, 2]) == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    captions = ["a dog barks", "rain falls", "a dog barks"]
    assert same(TrainingTexts(table(caption=captions)), [0, 1, 2]) == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_same_follows_the_clips_asked_for() -> None:
    texts = TrainingTexts(table(label=["dog", "rain", "dog", "wind"]))
    assert same(texts, [3, 0, 2]) == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_captions_are_paired_with_their_own_clip_only() -> None:
    texts = TrainingTexts(table(caption=["a dog barks", "rain falls"]))
    assert drawn(texts, [0, 1], 20) == [{"a dog barks"}, {"rain falls"}]


def test_a_clip_with_tags_is_paired_with_texts_of_each_and_described_by_any() -> None:
    tags = [("dog", "rain"), ("rain",), ("wind",)]
    texts = TrainingTexts(table(tags=tags), texts_of=lambda label: [label])
    assert drawn(texts, [0, 1, 2]) == [{"dog", "rain"}, {"rain"}, {"wind"}]
    clips = torch.tensor([0, 1, 2])
    for seed in range(10):
        places, topics = texts.draw(clips, torch.Generator().manual_seed(seed))
        described = texts.same(clips, topics)
        for row, own in enumerate(tags):
            assert described[row].tolist() == [float(texts.texts[place] in own) for place in places.tolist()]


def test_tags_of_different_numbers_never_match_by_their_padding() -> None:
    texts = TrainingTexts(table(tags=[("dog", "rain", "wind"), ("siren",), ("bell",)]))
    assert same(texts, [1, 2]) == [[1, 0], [0, 1]]


def test_a_caption_beside_a_label_is_what_is_read() -> None:
    texts = TrainingTexts(table(label=["dog", "dog", "rain"], caption=["two barks", None, None]))
    first, second, third = drawn(texts, [0, 1, 2])
    assert first == {"two barks"}
    assert second == set(training_texts("dog"))
    assert third == set(training_texts("rain"))
    assert same(texts, [0, 1, 2]) == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]  # the label still says which clips are alike


def test_the_first_text_is_one_that_can_be_drawn_and_always_the_same() -> None:
    texts = TrainingTexts(table(label=["dog", "rain"]))
    places = [texts.first(torch.tensor([0, 1]))[0].tolist() for _ in range(3)]
    assert places[0] == places[1] == places[2]
    assert texts.texts[places[0][1]] in training_texts("rain")


def test_draws_repeat_with_the_generator() -> None:
    texts = TrainingTexts(table(label=["dog", "rain"] * 10))
    draws = [texts.draw(torch.arange(20), torch.Generator().manual_seed(seed))[0].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("n_texts", [1, 64, 65])
def test_texts_are_encoded_in_parts_and_keep_their_order(n_texts: int) -> None:
    class Tower(torch.nn.Module):
        def forward(self, texts: Sequence[str]) -> torch.Tensor:
            assert not self.training
            assert len(texts) <= 64
            return torch.tensor([[float(text)] for text in texts], requires_grad=True)

    vectors = encode_all(Tower(), [str(number) for number in range(n_texts)])
    assert vectors[:, 0].tolist() == list(range(n_texts))


def test_a_text_of_every_label_is_drawn_and_belongs_to_its_clips() -> None:
    texts = TrainingTexts(
        table(label=["dog", "rain", "dog"]), texts_of=lambda label: [f"{label} {n}" for n in range(4)]
    )
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        places, topics = texts.draw_labels(generator)
        names = [texts.texts[place] for place in places.tolist()]
        assert [name.split()[0] for name in names] == ["dog", "rain"]
        assert texts.same(torch.tensor([0, 1, 2]), topics).tolist() == [[1, 0], [0, 1], [1, 0]]
        seen.update(names)
    assert len(seen) == 8


def test_captions_have_no_labels_to_draw() -> None:
    texts = TrainingTexts(table(caption=["a dog barks", "rain falls"]))
    places, topics = texts.draw_labels(torch.Generator())
    assert (len(places), len(topics)) == (0, 0)
