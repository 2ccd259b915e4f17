"""What a run folder tells a reader: tables, pictures and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clapkit.evaluation.plots import plot_confusion_matrix, plot_learning_curves, plot_per_class
from clapkit.evaluation.run_folder import (
    CLASSES_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    FIGURE_NAMES,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    SAMPLES_FILE,
    TASK_NAMES,
    class_figure,
    flat_figures,
    is_leaky,
    main_task,
)  # fmt: skip

LEAKY = "**leaky**"


def write_run_report(
    folder: Path, record: Mapping[str, Any], history: pd.DataFrame, metrics: Mapping[str, Any],
    predictions: pd.DataFrame | None,
) -> None:  # fmt: skip
    """Write ``history.csv``, ``predictions.csv``, the pictures of curves and classes, and ``report.md``.

    Args:
        folder: the run folder, which exists; pictures of augmented clips already in it are shown too.
        record: what ``run.json`` holds: command, dataset, split, leakage, leaky, seed, versions, device, n_clips,
            seconds, differences.
        history: a row per epoch; empty when nothing was trained.
        metrics: what ``metrics.json`` holds; empty when there was nothing to test.
        predictions: a row per test clip, or None.
    """
    history.to_csv(folder / HISTORY_FILE, index=False)
    if not history.empty:
        plot_learning_curves(history, folder / CURVES_FILE)
    if predictions is not None:
        predictions.to_csv(folder / PREDICTIONS_FILE, index=False)
    task, figures = main_task(metrics)
    if "confusion_matrix" in figures:
        title = f"{record['dataset']}: who is taken for whom, {TASK_NAMES[task]}{mark(is_leaky(metrics, record))}"
        plot_confusion_matrix(figures["confusion_matrix"], figures["labels"], title, folder / CONFUSION_FILE)
    name, values = class_figure(figures)
    if values:
        title = f"{record['dataset']}: {name} of each class, {TASK_NAMES[task]}{mark(is_leaky(metrics, record))}"
        plot_per_class(values, list(values), title, folder / CLASSES_FILE, xlabel=name)
    page = [
        f"# {record['dataset']}", *describe_run(record), *_figures_table(metrics, record),
        *_classes_table(metrics), *picture_links(folder),
    ]  # fmt: skip
    (folder / REPORT_FILE).write_text("\n".join(page) + "\n", encoding="utf-8")


def mark(leaky: bool) -> str:
    """What follows the name of a leaky result."""
    return " (leaky)" if leaky else ""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table with figures to the right, and an empty line before it."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["", *(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))]


def describe_run(record: Mapping[str, Any]) -> list[str]:
    """Command, data, leakage, seed, time and settings of a run as Markdown lines."""
    n_clips = ", ".join(f"{count} {part}" for part, count in record.get("n_clips", {}).items() if count)
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    settings = ", ".join(f"`{name}={value}`" for name, value in record.get("differences", {}).items())
    leakage = str(record.get("leakage") or "").removeprefix("leakage check: ").removeprefix("LEAKY: ")
    facts = {
        "data": record.get("split"),
        "clips": n_clips,
        "leakage check": f"{LEAKY}: {leakage}" if record.get("leaky") else leakage,
        "seed": record.get("seed"),
        "time": f"{record['seconds']:.0f} s on {record.get('device')}" if "seconds" in record else None,
        "settings that are not the defaults": settings or "none",
        "versions": versions,
    }
    lines = ["", "```", str(record["command"]), "```", ""] if record.get("command") else [""]
    return lines + [f"- {name}: {fact}" for name, fact in facts.items() if fact not in (None, "")]


def picture_links(folder: Path) -> list[str]:
    """Markdown of the pictures that the folder holds."""
    titles = {
        CURVES_FILE: "Learning curves", CONFUSION_FILE: "Confusion matrix", CLASSES_FILE: "Classes",
        SAMPLES_FILE: "Training clips before and after augmentation",
    }  # fmt: skip
    there = [(title, file) for file, title in titles.items() if (folder / file).exists()]
    return [line for title, file in there for line in ("", f"![{title}]({file})")]


def _figures_table(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """A column per task, a row per figure."""
    if not metrics:
        return ["", "There were no labelled clips to test."]
    values = {task: flat_figures(figures) for task, figures in metrics.items()}
    header = [
        f"{TASK_NAMES[task]}, {figures['n_clips']} clips" + (f" {LEAKY}" if is_leaky({task: figures}, record) else "")
        for task, figures in metrics.items()
    ]
    rows = [
        [name, *(f"{each[key]:.3f}" if key in each else "" for each in values.values())]
        for key, name in FIGURE_NAMES.items()
        if any(key in each for each in values.values())
    ]
    return markdown_table(["figure", *header], rows)


def _classes_table(metrics: Mapping[str, Any]) -> list[str]:
    task, figures = main_task(metrics)
    per_class = {label: each for label, each in figures.get("per_class", {}).items() if isinstance(each, dict)}
    if not per_class:
        return []
    names = [name for name in next(iter(per_class.values())) if name != "n_clips"]
    rows = [
        [label, str(each["n_clips"]), *(f"{each[name]:.3f}" for name in names)] for label, each in per_class.items()
    ]
    header = [f"class, {TASK_NAMES[task]}", "clips", *(name.replace("_", " ") for name in names)]
    return markdown_table(header, rows)
