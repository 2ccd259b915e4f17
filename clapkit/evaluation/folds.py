"""Official cross-validation: what the folds' runs say together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from clapkit.evaluation.plots import plot_confusion_matrix, plot_per_class
from clapkit.evaluation.report import LEAKY, describe_run, mark, markdown_table, picture_links
from clapkit.evaluation.run_folder import (
    CLASSES_FILE,
    CONFUSION_FILE,
    FIGURE_NAMES,
    MAIN_FIGURES,
    PREDICTIONS_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    TASK_NAMES,
    class_figure,
    flat_figures,
    is_leaky,
    main_task,
    read_metrics,
    read_record,
)  # fmt: skip
from clapkit.models.checkpoint import METRICS_FILE


def summarise_folds(folder: Path, fold_folders: Mapping[int, Path]) -> dict[str, Any]:
    """Write the mean and the spread of the folds' figures: ``metrics.json``, ``report.md`` and pictures.

    ``predictions.csv`` pools the folds' test clips, ``folds.json`` holds what the runs have in common.

    Args:
        folder: where; it is made if need be.
        fold_folders: the run folder in which each fold was the test fold.

    Returns:
        What ``metrics.json`` holds: ``folds``, ``{fold: metrics}``; ``mean`` and ``std``, ``{task: {figure: value}}``,
        with the sample standard deviation (n - 1), None for a single fold; ``per_class``, ``{task: {label: {mean, std,
        n_folds}}}``; ``leaky``, whether any fold is.

    Raises:
        CheckpointError: a fold's folder holds no finished run.
    """
    folds = {str(fold): read_metrics(path) for fold, path in sorted(fold_folders.items())}
    record = _common_record([read_record(path) for _, path in sorted(fold_folders.items())])
    record["folds"] = {str(fold): path.name for fold, path in sorted(fold_folders.items())}
    record["leaky"] = any(is_leaky(metrics, record) for metrics in folds.values())
    summary = {"leaky": record["leaky"], **_mean_and_std(folds), "per_class": _classes(folds), "folds": folds}
    folder.mkdir(parents=True, exist_ok=True)
    predictions = _pooled_predictions(fold_folders)
    if predictions is not None:
        predictions.to_csv(folder / PREDICTIONS_FILE, index=False)
    _draw(folder, record, summary, predictions)
    for file, content in ((METRICS_FILE, summary), (SUMMARY_FILE, record)):
        (folder / file).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page = [
        f"# {record.get('dataset', folder.name)}: {len(folds)} folds, each tested once", *describe_run(record),
        *_fold_table(summary, record["folds"]), *_class_table(summary), *picture_links(folder),
    ]  # fmt: skip
    (folder / REPORT_FILE).write_text("\n".join(page) + "\n", encoding="utf-8")
    return summary


def with_spread(mean: float, std: float | None) -> str:
    """``0.571 ± 0.020``, or the mean alone."""
    return f"{mean:.3f}" if std is None or np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _common_record(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all folds share; times are added up, and any leaky split makes the whole leaky."""
    first = records[0]
    shared = {name: value for name, value in first.items() if all(each.get(name) == value for each in records)}
    if all("seconds" in record for record in records):
        shared["seconds"] = sum(record["seconds"] for record in records)
    shared["leaky"] = any(record.get("leaky") for record in records)
    notes = dict.fromkeys(record["leakage"].split(": ", 1)[-1] for record in records if record.get("leakage"))
    return shared | ({"leakage": "; ".join(notes)} if notes else {})


def _mean_and_std(folds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    mean: dict[str, dict[str, float]] = {}
    std: dict[str, dict[str, float | None]] = {}
    for task in TASK_NAMES:
        tested = [flat_figures(metrics[task]) for metrics in folds.values() if task in metrics]
        if tested:
            values = pd.DataFrame(tested)
            mean[task] = {name: float(value) for name, value in values.mean().items()}
            std[task] = {name: _number(value) for name, value in values.std(ddof=1).items()}
    return {"mean": mean, "std": std}


def _classes(folds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each class's figure over the folds that have clips of it."""
    classes: dict[str, Any] = {}
    for task in ("head", "zeroshot"):
        tested = [class_figure(metrics[task])[1] for metrics in folds.values() if task in metrics]
        if tested:
            values = pd.DataFrame(tested)
            classes[task] = {
                label: {
                    "mean": float(column.mean()),
                    "std": _number(column.std(ddof=1)),
                    "n_folds": int(column.count()),
                }
                for label, column in values.items()
            }
    return classes


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _pooled_predictions(fold_folders: Mapping[int, Path]) -> pd.DataFrame | None:
    tables = [
        pd.read_csv(path / PREDICTIONS_FILE, keep_default_na=False).assign(fold=fold)
        for fold, path in sorted(fold_folders.items())
        if (path / PREDICTIONS_FILE).exists()
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def _draw(
    folder: Path, record: Mapping[str, Any], summary: Mapping[str, Any], predictions: pd.DataFrame | None
) -> None:
    """The pooled confusion matrix, and the classes with whiskers."""
    task, figures = main_task(next(iter(summary["folds"].values())))
    where = f"{record.get('dataset', folder.name)}, {len(summary['folds'])} folds, {TASK_NAMES.get(task)}"
    where += mark(summary["leaky"])
    labels = figures.get("labels", [])
    if labels and predictions is not None and task in predictions:
        matrix = confusion_matrix(predictions["label"], predictions[task], labels=labels)
        plot_confusion_matrix(matrix, labels, f"Who is taken for whom: {where}", folder / CONFUSION_FILE)
    if classes := summary["per_class"].get(task):
        means = {label: each["mean"] for label, each in classes.items()}
        stds = {label: each["std"] for label, each in classes.items()}
        name = class_figure(figures)[0]
        plot_per_class(means, list(means), f"Each class: {where}", folder / CLASSES_FILE, std=stds, xlabel=name)


def _fold_table(summary: Mapping[str, Any], folders: Mapping[str, str]) -> list[str]:
    columns = [(task, name) for task, means in summary["mean"].items() for name in means]
    columns = [(task, name) for task, name in columns if name in MAIN_FIGURES]
    rows = []
    for fold, metrics in summary["folds"].items():
        n_clips = main_task(metrics)[1].get("n_clips", 0)
        cells = [flat_figures(metrics.get(task, {})).get(name) for task, name in columns]
        flag = f" {LEAKY}" if is_leaky(metrics, {}) else ""
        link = f"[fold {fold}]({folders[fold]}/{REPORT_FILE})"
        rows.append([f"{link}{flag}", str(n_clips), *("" if cell is None else f"{cell:.3f}" for cell in cells)])
    spread = [with_spread(summary["mean"][task][name], summary["std"][task][name]) for task, name in columns]
    flag = f" {LEAKY}" if summary["leaky"] else ""
    rows.append([f"**mean ± std**{flag}", "", *(f"**{cell}**" for cell in spread)])
    header = ["test fold", "clips", *(f"{FIGURE_NAMES[name]}, {TASK_NAMES[task]}" for task, name in columns)]
    note = ["", "± is the sample standard deviation over the folds (n - 1)."]
    return markdown_table(header, rows) + note


def _class_table(summary: Mapping[str, Any]) -> list[str]:
    task, figures = main_task(next(iter(summary["folds"].values())))
    classes = summary["per_class"].get(task, {})
    rows = [[label, with_spread(each["mean"], each["std"]), str(each["n_folds"])] for label, each in classes.items()]
    return markdown_table([f"class, {TASK_NAMES[task]}", class_figure(figures)[0], "folds"], rows) if rows else []
