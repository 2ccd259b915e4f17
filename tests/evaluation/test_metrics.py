"""Figures of merit on cases small enough to count by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from clapkit.evaluation.metrics import (
    average_precision_at_k,
    best_offset,
    classification_metrics,
    generalised_zero_shot,
    multilabel_metrics,
    retrieval_metrics,
)

LABELS = ["dog", "siren", "drill"]


def _classification(truth: list[int], predicted: list[int]) -> dict[str, Any]:
    return classification_metrics(np.array(truth), np.array(predicted), LABELS)


def _recall(figures: dict[str, Any]) -> dict[str, float]:
    return {label: each["recall"] for label, each in figures["per_class"].items()}


def test_accuracy_is_the_share_of_right_clips() -> None:
    assert _classification([0, 0, 1, 2], [0, 1, 1, 0])["accuracy"] == 0.5
    assert _classification([0, 1, 2], [0, 1, 2])["accuracy"] == 1.0
    assert _classification([0, 1, 2], [1, 2, 0])["accuracy"] == 0.0


def test_each_class_has_the_share_of_its_own_clips() -> None:
    figures = _classification([0, 0, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1])
    assert _recall(figures) == {"dog": 0.75, "siren": 1.0, "drill": 0.0}


def test_classes_without_clips_are_left_out() -> None:
    figures = _classification([0, 2, 2], [0, 1, 2])
    assert _recall(figures) == {"dog": 1.0, "drill": 0.5}
    # F1: dog 1; drill has precision 1 and recall 1/2, so 2/3
    assert figures["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_macro_f1_weighs_classes_alike() -> None:
    # dog: precision 3/3, recall 3/4, F1 6/7; siren: precision 1/2, recall 1, F1 2/3
    figures = _classification([0, 0, 0, 0, 1], [0, 0, 0, 1, 1])
    assert figures["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_precision_recall_and_f1_of_each_class() -> None:
    # dog: 2 of its 3 clips are found, and 2 of the 3 said to be dogs are; siren: 1 of 2 both ways; drill: 1 of 1
    figures = _classification([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2])
    assert figures["per_class"]["dog"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "n_clips": 3}
    )
    assert figures["per_class"]["siren"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "n_clips": 2}
    assert figures["per_class"]["drill"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "n_clips": 1}
    assert figures["macro_precision"] == figures["macro_recall"] == pytest.approx((2 / 3 + 0.5 + 1) / 3)


def test_the_confusion_matrix_has_a_row_for_each_truth() -> None:
    figures = _classification([0, 0, 0, 1], [0, 1, 2, 0])
    assert figures["labels"] == LABELS
    assert figures["confusion_matrix"] == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_scores_give_the_figures_of_their_best_label() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    assert classification_metrics(np.array([1, 2]), scores, LABELS) == _classification([1, 2], [1, 0])


def test_top_5_needs_more_than_five_labels() -> None:
    labels = list("abcdef")
    scores = np.array([[6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]])
    figures = classification_metrics(np.array([0, 4, 5, 5]), scores, labels)
    assert (figures["accuracy"], figures["top5_accuracy"]) == (0.25, 0.5)
    assert "top5_accuracy" not in classification_metrics(np.array([0]), scores[:1, :5], labels[:5])
    assert "top5_accuracy" not in classification_metrics(np.array([0]), np.array([0]), labels)


def test_figures_are_plain_numbers_for_json() -> None:
    figures = _classification([0, 1], [0, 1])
    assert json.loads(json.dumps(figures)) == figures
    truth = np.array([[True, False], [False, True]])
    figures = multilabel_metrics(truth, np.eye(2, dtype=np.float32), ["dog", "siren"])
    assert json.loads(json.dumps(figures)) == figures


def test_average_precision_of_each_label_and_their_mean() -> None:
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    # dog ranks clips 0, 1, 2: right, wrong, right; siren ranks 0, 1, 2: wrong, right, right; nothing is a drill
    scores = np.array([[0.9, 0.9, 0.1], [0.8, 0.8, 0.1], [0.7, 0.7, 0.1]])
    figures = multilabel_metrics(truth, scores, LABELS)
    dog, siren = (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2
    assert list(figures["per_class"]) == ["dog", "siren"]
    assert figures["per_class"]["dog"] == pytest.approx({"average_precision": dog, "n_clips": 2})
    assert figures["per_class"]["siren"] == pytest.approx({"average_precision": siren, "n_clips": 2})
    assert figures["map"] == pytest.approx((dog + siren) / 2)


def test_lwlrap_weighs_every_clip_and_label_pair_alike() -> None:
    truth = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)
    # the first clip ranks dog, siren, drill: precision 1 at dog, 2/3 at drill; the second has its siren in third place
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.1, 0.5], [0.3, 0.2, 0.1]])
    assert multilabel_metrics(truth, scores, LABELS)["lwlrap"] == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)


def test_unseen_classes_alone_and_beside_the_seen_ones() -> None:
    labels = ["dog", "siren", "rain", "wind"]
    truth = np.array([0, 0, 1, 2, 2, 3, 3])
    scores = np.array(
        [
            [9, 0, 0, 0],  # dog: right
            [0, 9, 0, 0],  # dog: taken for a siren
            [0, 9, 0, 0],  # siren: right
            [9, 0, 5, 0],  # rain: loses to dog, wins among the unseen
            [0, 0, 9, 0],  # rain: right
            [9, 0, 5, 0],  # wind: wrong both ways
            [9, 0, 0, 5],  # wind: wins among the unseen
        ]
    )
    figures = generalised_zero_shot(truth, scores, labels, ["rain", "wind"])
    seen, unseen = (0.5 + 1) / 2, (0.5 + 0) / 2
    assert figures == pytest.approx(
        {
            "unseen_among_unseen": (1 + 0.5) / 2,
            "unseen": unseen,
            "seen": seen,
            "harmonic_mean": 2 * seen * unseen / (seen + unseen),
        }
    )


def test_an_offset_is_taken_from_heard_classes_only_and_the_best_one_balances() -> None:
    labels = ["dog", "siren", "rain", "wind"]
    truth = np.array([0, 1, 2, 3])
    scores = np.array([[9.0, 0, 4, 0], [0, 9, 0, 4], [8, 0, 6, 0], [0, 8, 0, 6]])  # heard ones are 2 too sure
    unseen = ["rain", "wind"]
    assert generalised_zero_shot(truth, scores, labels, unseen)["harmonic_mean"] == 0.0
    shifted = generalised_zero_shot(truth, scores, labels, unseen, 3.0)
    assert (shifted["seen"], shifted["unseen"], shifted["harmonic_mean"]) == (1.0, 1.0, 1.0)
    assert generalised_zero_shot(truth, scores, labels, unseen, 6.0)["seen"] == 0.0
    offset = best_offset(truth, scores, labels, unseen)
    assert 2.0 <= offset <= 5.0
    assert generalised_zero_shot(truth, scores, labels, unseen, offset)["harmonic_mean"] == 1.0


def test_classes_count_alike_however_many_clips_they_have() -> None:
    truth, scores = np.array([0, 0, 0, 1, 2]), np.eye(3)[[0, 0, 0, 0, 2]]
    assert generalised_zero_shot(truth, scores, LABELS, ["drill"])["seen"] == 0.5  # dog 1, siren 0


def test_a_side_without_clips_has_no_figure() -> None:
    scores = np.eye(3)
    assert set(generalised_zero_shot(np.array([2]), scores[[2]], LABELS, ["drill"])) == {
        "unseen_among_unseen",
        "unseen",
    }
    assert generalised_zero_shot(np.array([0, 1]), scores[:2], LABELS, ["drill"]) == {"seen": 1.0}


def test_the_harmonic_mean_of_nothing_is_nothing() -> None:
    figures = generalised_zero_shot(np.array([0, 2]), np.eye(3)[[1, 1]], LABELS, ["drill"])
    assert figures["harmonic_mean"] == 0.0


@pytest.mark.parametrize(
    ("relevant", "k", "expected"),
    [
        ([1, 0, 0], 10, 1.0),
        ([0, 1, 0], 10, 1 / 2),
        ([1, 0, 1], 10, (1 + 2 / 3) / 2),
        ([0, 1, 0, 1, 1], 3, (1 / 2) / 3),  # three are relevant, one of them is among the first three
        ([0, 0, 1], 2, 0.0),
        ([1, 1, 1, 1], 2, 1.0),  # more relevant clips than ranks: still perfect
        ([0, 0, 0], 10, 0.0),
        ([1], 1, 1.0),
    ],
)
def test_average_precision_at_k(relevant: list[int], k: int, expected: float) -> None:
    assert average_precision_at_k(np.array(relevant, dtype=bool), k) == pytest.approx(expected)


def test_retrieval_averages_over_queries() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    relevant = np.array([[True, False, False], [False, False, True]])
    figures = retrieval_metrics(similarity, relevant)
    assert figures == pytest.approx({"map_at_10": (1 + 1 / 3) / 2, "r_at_1": 0.5, "r_at_5": 1.0, "r_at_10": 1.0})


def test_retrieval_counts_a_query_as_found_when_any_right_clip_is_in_the_top_k() -> None:
    similarity = np.linspace(1, 0, 20)[None]
    relevant = np.zeros((1, 20), dtype=bool)
    relevant[0, [6, 7]] = True
    figures = retrieval_metrics(similarity, relevant)
    assert (figures["r_at_1"], figures["r_at_5"], figures["r_at_10"]) == (0.0, 0.0, 1.0)
    assert figures["map_at_10"] == pytest.approx((1 / 7 + 2 / 8) / 2)


def test_queries_without_a_right_clip_are_left_out() -> None:
    similarity = np.array([[0.9, 0.1], [0.9, 0.1]])
    relevant = np.array([[True, False], [False, False]])
    assert retrieval_metrics(similarity, relevant)["map_at_10"] == 1.0


def test_the_nearest_clip_ranks_first() -> None:
    relevant = np.array([[False, True]])
    assert retrieval_metrics(np.array([[-0.5, 0.2]]), relevant)["r_at_1"] == 1.0
    assert retrieval_metrics(np.array([[0.2, -0.5]]), relevant)["r_at_1"] == 0.0
