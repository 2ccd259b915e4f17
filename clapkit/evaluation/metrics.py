"""Figures of merit as pure functions of scores and truths."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    recall_score,
    top_k_accuracy_score,
)

TOP_K = 5


def classification_metrics(truth: np.ndarray, scores_or_predicted: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Accuracy, macro precision, recall and F1, the same per class, and who is taken for whom.

    Args:
        truth: ``(n_clips,)`` places in ``labels``.
        scores_or_predicted: ``(n_clips, n_labels)`` scores, of which the largest wins, or ``(n_clips,)`` places in
            ``labels``.
        labels: names; classes without clips are left out of the means and of ``per_class``.

    Returns:
        ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1``; ``per_class``, ``{label: {precision, recall,
        f1, n_clips}}``; ``labels`` and ``confusion_matrix``, counts in their order with a row for each truth; and with
        scores over more than five labels ``top5_accuracy``.
    """
    scores = scores_or_predicted if scores_or_predicted.ndim == 2 else None
    predicted = scores_or_predicted if scores is None else scores.argmax(axis=1)
    present = np.unique(truth)
    precision, recall, f1, n_clips = precision_recall_fscore_support(truth, predicted, labels=present, zero_division=0)
    figures = {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "per_class": {
            labels[place]: {"precision": float(p), "recall": float(r), "f1": float(f), "n_clips": int(n)}
            for place, p, r, f, n in zip(present, precision, recall, f1, n_clips, strict=True)
        },
        "labels": list(labels),
        "confusion_matrix": confusion_matrix(truth, predicted, labels=np.arange(len(labels))).tolist(),
    }
    if scores is not None and len(labels) > TOP_K:
        figures["top5_accuracy"] = float(top_k_accuracy_score(truth, scores, k=TOP_K, labels=np.arange(len(labels))))
    return figures


def multilabel_metrics(truth: np.ndarray, scores: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """How well each label ranks the clips, and each clip its labels.

    Source: lwlrap, Fonseca et al. 2019 (DCASE 2019, task 2): label-ranking average precision over clip-label pairs.

    Args:
        truth: ``(n_clips, n_labels)`` bool.
        scores: ``(n_clips, n_labels)``, larger for likelier labels.
        labels: names; those that no clip has are left out of the mean and of ``per_class``.

    Returns:
        ``map``, the mean over labels of ``average_precision``; ``lwlrap``; ``per_class``, ``{label:
        {average_precision, n_clips}}``.
    """
    present = np.flatnonzero(truth.any(axis=0))
    per_class = {
        labels[place]: {
            "average_precision": float(average_precision_score(truth[:, place], scores[:, place])),
            "n_clips": int(truth[:, place].sum()),
        }
        for place in present
    }
    tagged = truth.any(axis=1)
    return {
        "map": float(np.mean([figures["average_precision"] for figures in per_class.values()])),
        "lwlrap": float(
            label_ranking_average_precision_score(
                truth[tagged], scores[tagged], sample_weight=truth[tagged].sum(axis=1)
            )
        ),
        "per_class": per_class,
    }


def generalised_zero_shot(
    truth: np.ndarray, scores: np.ndarray, labels: list[str], unseen_labels: Collection[str], offset: float = 0.0
) -> dict[str, float]:
    """How well classes held out of training are found, alone and beside the classes trained on.

    Source: Xian et al. 2018, section 3.3; every figure is a mean of the classes' own accuracies. Calibrated stacking
    (``offset``): Chao et al. 2016.

    Args:
        truth: ``(n_clips,)`` places in ``labels``.
        scores: ``(n_clips, n_labels)``.
        labels: names.
        unseen_labels: those of them that training never met.
        offset: taken from the scores of all other labels, which training made too confident.

    Returns:
        ``unseen_among_unseen``, clips of unseen classes scored against the unseen labels only; ``unseen`` and
        ``seen``, the clips of either side scored against all labels; their ``harmonic_mean``. A side without clips has
        no figure.
    """
    unseen = np.isin(labels, list(unseen_labels))  # (n_labels,)
    of_unseen = unseen[truth]  # (n_clips,)
    predicted = np.where(unseen, scores, scores - offset).argmax(axis=1)
    figures = {}
    if of_unseen.any():
        among_unseen = np.where(unseen, scores, -np.inf).argmax(axis=1)
        figures["unseen_among_unseen"] = _mean_class_accuracy(truth[of_unseen], among_unseen[of_unseen])
        figures["unseen"] = _mean_class_accuracy(truth[of_unseen], predicted[of_unseen])
    if not of_unseen.all():
        figures["seen"] = _mean_class_accuracy(truth[~of_unseen], predicted[~of_unseen])
    if {"seen", "unseen"} <= figures.keys():
        product, total = figures["seen"] * figures["unseen"], figures["seen"] + figures["unseen"]
        figures["harmonic_mean"] = 2 * product / total if total else 0.0
    return figures


def best_offset(
    truth: np.ndarray, scores: np.ndarray, labels: list[str], unseen_labels: Collection[str], n_offsets: int = 200
) -> float:
    """The ``offset`` of :func:`generalised_zero_shot` with the largest harmonic mean on these clips.

    It belongs to the classes it was found on; find it on other held-out classes than those it is used for.
    """
    gaps = scores.max(axis=1) - scores.min(axis=1)
    offsets = np.linspace(0, float(gaps.max()), n_offsets)
    means = [generalised_zero_shot(truth, scores, labels, unseen_labels, offset)["harmonic_mean"] for offset in offsets]
    return float(offsets[int(np.argmax(means))])


def _mean_class_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0))


def average_precision_at_k(relevant: np.ndarray, k: int) -> float:
    """AP@k of one ranking.

    Source: Manning et al. 2008; the sum of precision at each relevant rank ≤ k over min(k, all relevant).

    Args:
        relevant: ``(n_ranked,)`` bool over the whole ranking, best first.
        k: ranks counted.
    """
    n_relevant = int(relevant.sum())
    if not n_relevant:
        return 0.0
    top = relevant[:k]
    precision = np.cumsum(top) / np.arange(1, len(top) + 1)
    return float((precision * top).sum() / min(k, n_relevant))


def retrieval_metrics(similarity: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Text→audio figures averaged over queries: mAP@10 and R@k, the share of queries with a right clip in the top k.

    Args:
        similarity: ``(n_queries, n_clips)``.
        relevant: ``(n_queries, n_clips)`` bool; queries without a relevant clip are left out.
    """
    asked = relevant.any(axis=1)
    order = np.argsort(-similarity[asked], axis=1, kind="stable")
    ranked = np.take_along_axis(relevant[asked], order, axis=1)
    metrics = {"map_at_10": float(np.mean([average_precision_at_k(row, 10) for row in ranked]))}
    return metrics | {f"r_at_{k}": float(ranked[:, :k].any(axis=1).mean()) for k in (1, 5, 10)}
