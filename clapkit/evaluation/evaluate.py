"""Score a model on labelled clips: by its head, by prompts, and by retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clapkit.data.cache import load_clip
from clapkit.errors import ClapkitError
from clapkit.evaluation.metrics import (
    classification_metrics,
    generalised_zero_shot,
    multilabel_metrics,
    retrieval_metrics,
)
from clapkit.model import AudioTextModel
from clapkit.models.inference import ClipOutput
from clapkit.progress import progress_bar

TASKS = ("head", "zeroshot", "retrieval")

Waveforms = Mapping[int, np.ndarray] | Sequence[np.ndarray]
"""Decoded clips by the index of their manifest row: ``(n_channels, n_samples)`` float32 at the model's rate."""


@dataclass(frozen=True)
class Evaluation:
    """What a model got right, and what it said of each clip.

    Attributes:
        figures: ``{task: {figure: value}}``, ready for ``metrics.json``.
        predictions: a row per clip: ``path``, ``start_s``, ``end_s``, ``source``, ``label`` (several are joined by
            ``;``), ``seen_in_training``, and of the tasks run ``head`` with ``head_score`` (probability) and
            ``zeroshot`` with ``zeroshot_score`` (cosine): the best label and its score.
    """

    figures: dict[str, dict[str, Any]]
    predictions: pd.DataFrame


def evaluate(
    model: AudioTextModel, dataset: str, rows: pd.DataFrame, labels: list[str], tasks: Sequence[str],
    *, waveforms: Waveforms | None = None, unseen_labels: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """Run the model over the rows once and compute the figures of each task.

    Args:
        model: the model to score.
        dataset: its name, for the result.
        rows: manifest rows with a ``label``, or with several in ``tags``; where any row has tags, the figures are
            average precisions in place of accuracies.
        labels: the dataset's labels; prompts and the head choose among these.
        tasks: of ``head``, ``zeroshot`` and ``retrieval``.
        waveforms: the clips already decoded; without them each is read from its file.
        unseen_labels: classes held out of training: prompts get ``generalised`` zero-shot figures too, and the head,
            which cannot know them, chooses among the other classes and is asked about their clips only.

    Returns:
        Figures and predictions. Each task has ``dataset``, ``task``, ``n_clips``, ``n_seen_in_training`` (clips whose
        recording the model was trained on) and ``leaky`` (there are such clips, or its training split was leaky). A
        task without clips to ask about has no figures.

    Raises:
        ClapkitError: a clip's label is not among ``labels``, or the head was asked for and does not know one.
    """
    truth = truth_matrix(rows, labels)
    known = np.array([label not in set(unseen_labels) for label in labels])
    head_places = _head_places(model, [label for label, is_known in zip(labels, known, strict=True) if is_known], tasks)
    outputs = encode_rows(model, rows, waveforms)
    similarity = np.stack([output.embedding for output in outputs]) @ model.embed_labels(labels).T
    heard = rows["source"].isin(model.checkpoint.sources).to_numpy()
    predictions = _describe(rows, truth, labels).assign(seen_in_training=heard)
    figures = {}
    for task in tasks:
        scores, relevant = similarity, truth  # (n_clips, n_labels) both
        if task == "head":
            scores, relevant = np.zeros_like(similarity), truth & known
            scores[:, known] = np.stack([output.probabilities for output in outputs])[:, head_places]
        if task != "retrieval":
            _add_best(predictions, task, scores, labels)
        asked = relevant.any(axis=1) | has_tags(rows)  # a clip without any of the labels is a negative of each
        if relevant.any():
            values = _figures(task, relevant[asked], scores[asked], labels, has_tags(rows), unseen_labels)
            figures[task] = {"dataset": dataset, "task": task, **_leak(model, heard[asked]), **values}
    return Evaluation(figures, predictions)


def encode_rows(model: AudioTextModel, rows: pd.DataFrame, waveforms: Waveforms | None = None) -> list[ClipOutput]:
    """Encode manifest rows, in their order, with a progress bar; decode them unless ``waveforms`` holds them."""
    if waveforms is None:
        clips = rows[["path", "start_s", "end_s"]].itertuples(index=False)
        decoded = (load_clip(*clip, model.config.audio) for clip in clips)
    else:
        decoded = (waveforms[index] for index in rows.index)
    with progress_bar("Scoring clips", len(rows)) as advance:
        outputs = []
        for output in model.encode(decoded):
            outputs.append(output)
            advance()
    return outputs


def has_tags(rows: pd.DataFrame) -> bool:
    """Whether clips may have several labels."""
    return "tags" in rows and bool(rows["tags"].notna().any())


def truth_matrix(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """``(n_clips, n_labels)`` bool: the labels of each clip, from ``tags`` where a row has them, else from ``label``.

    Raises:
        ClapkitError: a clip's label is not among ``labels``.
    """
    place = {label: number for number, label in enumerate(labels)}
    truth = np.zeros((len(rows), len(labels)), dtype=bool)
    all_tags = rows["tags"] if "tags" in rows else [None] * len(rows)
    for row, label, tags in zip(truth, rows["label"], all_tags, strict=True):
        own = tags if isinstance(tags, list | tuple) else [label] if isinstance(label, str) else []
        if unknown := [tag for tag in own if tag not in place]:
            raise ClapkitError(f"a clip's label '{unknown[0]}' is not among the {len(labels)} labels given; add it.")
        row[[place[tag] for tag in own]] = True
    return truth


def _leak(model: AudioTextModel, heard: np.ndarray) -> dict[str, Any]:
    n_heard = int(heard.sum())
    leaky = n_heard > 0 or bool(model.checkpoint.training.get("leaky"))
    return {"n_clips": len(heard), "n_seen_in_training": n_heard, "leaky": leaky}


def _figures(
    task: str, truth: np.ndarray, scores: np.ndarray, labels: list[str], multilabel: bool, unseen_labels: Sequence[str]
) -> dict[str, Any]:
    """Figures of one task from two ``(n_clips, n_labels)`` arrays."""
    if task == "retrieval":
        return retrieval_metrics(scores.T, truth.T)
    if multilabel:
        return multilabel_metrics(truth, scores, labels)
    truth = truth.argmax(axis=1)
    figures = classification_metrics(truth, scores, labels)
    if task == "zeroshot" and unseen_labels:
        generalised = generalised_zero_shot(truth, scores, labels, unseen_labels)
        figures["generalised"] = {"unseen_labels": list(unseen_labels), **generalised}
    return figures


def _describe(rows: pd.DataFrame, truth: np.ndarray, labels: list[str]) -> pd.DataFrame:
    names = [";".join(label for label, has in zip(labels, own, strict=True) if has) for own in truth]
    return rows[["path", "start_s", "end_s", "source"]].assign(label=names)


def _add_best(predictions: pd.DataFrame, task: str, scores: np.ndarray, labels: list[str]) -> None:
    best = scores.argmax(axis=1)
    predictions[task] = [labels[place] for place in best]
    predictions[f"{task}_score"] = np.take_along_axis(scores, best[:, None], axis=1)[:, 0]


def _head_places(model: AudioTextModel, labels: list[str], tasks: Sequence[str]) -> list[int]:
    """Where the labels are in the head's order; nowhere when the head is not asked."""
    if "head" not in tasks:
        return []
    if model.clap.head is None:
        raise ClapkitError(f"{model.name}: has no linear head; use --task zeroshot or retrieval.")
    if unknown := [label for label in labels if label not in model.labels]:
        raise ClapkitError(
            f"{model.name}: its head does not know {len(unknown)} of the {len(labels)} labels, such as '{unknown[0]}'; "
            "use --task zeroshot."
        )
    return [model.labels.index(label) for label in labels]
