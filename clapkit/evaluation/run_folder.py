"""What a run folder holds beside the checkpoint: names of its files, and readers that know results of any age."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import METRICS_FILE

RUN_FILE, SUMMARY_FILE = "run.json", "folds.json"
REPORT_FILE, HISTORY_FILE, PREDICTIONS_FILE = "report.md", "history.csv", "predictions.csv"
CURVES_FILE, CONFUSION_FILE, CLASSES_FILE = "learning_curves.png", "confusion_matrix.png", "per_class.png"
SAMPLES_FILE = "augmentation.png"

TASK_NAMES = {
    "head": "by the head", "zeroshot": "by prompts", "retrieval": "text finds sound", "caption": "of captions"
}  # fmt: skip
FIGURE_NAMES = {
    "accuracy": "accuracy", "top5_accuracy": "top-5 accuracy", "macro_precision": "macro precision",
    "macro_recall": "macro recall", "macro_f1": "macro F1", "map": "mAP", "lwlrap": "lwlrap",
    "unseen_among_unseen": "unseen among unseen", "unseen": "unseen among all", "seen": "seen among all",
    "harmonic_mean": "harmonic mean of both", "map_at_10": "mAP@10", "r_at_1": "R@1", "r_at_5": "R@5",
    "r_at_10": "R@10", "loss_per_token": "loss per token", "perplexity": "perplexity",
}  # fmt: skip
MAIN_FIGURES = (
    "accuracy", "macro_f1", "map", "unseen_among_unseen", "harmonic_mean", "map_at_10", "r_at_1", "loss_per_token"
)  # fmt: skip


def read_metrics(folder: Path) -> dict[str, Any]:
    """The figures of a run, or of a cross-validation.

    Raises:
        CheckpointError: the folder holds no finished run, or a damaged one.
    """
    file = folder / METRICS_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: holds no {METRICS_FILE}, so it is no finished run; give a folder written by clapkit train."
        )
    return _read_json(file)


def read_record(folder: Path) -> dict[str, Any]:
    """How a run, or a cross-validation, was made; empty for a checkpoint from before there were such records.

    Raises:
        CheckpointError: a damaged record.
    """
    files = [file for file in (folder / RUN_FILE, folder / SUMMARY_FILE) if file.is_file()]
    return _read_json(files[0]) if files else {}


def main_task(metrics: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The task whose classes are shown, the head if there is one, with its figures; empty without labels."""
    task = next((task for task in ("head", "zeroshot") if task in metrics), "")
    return task, metrics.get(task, {})


def flat_figures(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a task that are one number each, in the order of ``FIGURE_NAMES``."""
    every = {**figures, **figures.get("generalised", {})}
    return {name: every[name] for name in FIGURE_NAMES if name in every}


def class_figure(figures: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The one figure that tells a task's classes apart; older results have nothing but the recall of each.

    Returns:
        Its name, ``recall`` or for clips with several labels ``average precision``, and its value for each label;
        no values for retrieval.
    """
    values = {
        label: each.get("recall", each.get("average_precision")) if isinstance(each, dict) else each
        for label, each in figures.get("per_class", {}).items()
    }
    return ("average precision" if "map" in figures else "recall"), values


def is_leaky(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a split, or any task's figures, rest on recordings that lie on both sides."""
    tasks = [metrics[task] for task in TASK_NAMES if task in metrics]
    heard = any(figures.get("leaky") or figures.get("n_seen_in_training") for figures in tasks)
    return bool(record.get("leaky") or metrics.get("leaky") or heard)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise CheckpointError(f"{file}: damaged; restore the folder as it was saved.") from None
