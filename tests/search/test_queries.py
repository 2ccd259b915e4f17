"""Queries: signs, averages, sounds; and moments from windows."""

from __future__ import annotations

import numpy as np
import pytest

from clapkit.errors import ClapkitError
from clapkit.model import AudioTextModel
from clapkit.search.events import event_around
from clapkit.search.queries import query_vector, read_terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a dog barking", [(1, "a dog barking")]),
        ("+dog -traffic", [(1, "dog"), (-1, "traffic")]),
        ("dog -heavy traffic +rain", [(1, "dog"), (-1, "heavy traffic"), (1, "rain")]),
        ("hip-hop music", [(1, "hip-hop music")]),
        ("- dash", [(1, "- dash")]),
        ("  two   spaces ", [(1, "two spaces")]),
        ("-traffic", [(-1, "traffic")]),
    ],
)
def test_signs_start_terms_only_before_a_word(text: str, terms: list) -> None:
    assert read_terms(text) == terms


@pytest.mark.parametrize("text", ["", "  ", "+ -", "dog +..."])
def test_no_words_are_an_error(text: str) -> None:
    with pytest.raises(ClapkitError, match="empty text"):
        read_terms(text)


def test_a_query_is_the_sum_of_its_terms_at_unit_length(tiny_model: AudioTextModel) -> None:
    low, high = tiny_model.embed_text(["low", "high"])
    np.testing.assert_allclose(query_vector(tiny_model, "low"), low, atol=1e-6)
    both = query_vector(tiny_model, ["low", "high"])
    np.testing.assert_allclose(both, (low + high) / np.linalg.norm(low + high), atol=1e-6)
    difference = query_vector(tiny_model, "+low -high")
    np.testing.assert_allclose(difference, (low - high) / np.linalg.norm(low - high), atol=1e-6)


def test_sounds_and_words_may_be_joined(tiny_model: AudioTextModel) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    heard = tiny_model.embed_audio(sound)[0]
    np.testing.assert_allclose(query_vector(tiny_model, like=[sound]), heard, atol=1e-6)
    total = heard + tiny_model.embed_text("low")[0]
    joined = query_vector(tiny_model, "low", like=[sound])
    np.testing.assert_allclose(joined, total / np.linalg.norm(total), atol=1e-6)


def test_nothing_and_what_cancels_out_are_errors(tiny_model: AudioTextModel) -> None:
    with pytest.raises(ClapkitError, match="nothing to look for"):
        query_vector(tiny_model)
    with pytest.raises(ClapkitError, match="cancel out"):
        query_vector(tiny_model, "+low -low")


def test_neighbours_that_fit_belong_to_the_event() -> None:
    starts = np.arange(8) * 2.0
    scores = np.array([0.1, 0.5, 0.55, 0.6, 0.2, 0.58, 0.6, 0.1])
    assert event_around(scores, starts, starts + 4, 3) == (1, 3)
    assert event_around(scores, starts, starts + 4, 6) == (5, 6)


def test_windows_that_do_not_touch_are_apart() -> None:
    starts = np.array([0.0, 10.0, 14.0])
    assert event_around(np.full(3, 0.5), starts, starts + 4, 1) == (1, 2)


def test_the_ends_of_a_file_end_an_event() -> None:
    starts = np.arange(3) * 4.0
    assert event_around(np.full(3, 0.5), starts, starts + 4, 1) == (0, 2)
