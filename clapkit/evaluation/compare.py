"""Runs side by side: their figures, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clapkit.config import read_yaml
from clapkit.evaluation.run_folder import (
    FIGURE_NAMES,
    MAIN_FIGURES,
    TASK_NAMES,
    flat_figures,
    is_leaky,
    main_task,
    read_metrics,
    read_record,
)  # fmt: skip
from clapkit.models.checkpoint import CONFIG_FILE

STD = " std"
"""Ends the name of the row below a figure that is a mean over folds."""


def compare_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Put runs, cross-validations, or both side by side.

    Args:
        folders: run folders, or folders in which folds were summarised.

    Returns:
        A column for each folder. Rows: ``dataset``, ``leaky``, ``folds``, ``clips`` and ``minutes``; figures such as
        ``accuracy by the head``, each followed by a row that ends in `` std`` where a column is a mean over folds; and
        as ``section.key`` the settings that are not the same everywhere. None where a run has no such value.

    Raises:
        CheckpointError: a folder holds no finished run.
    """
    described = {str(folder): _describe(folder) for folder in folders}
    settings = {str(folder): _settings(folder) for folder in folders}
    names = [f"{name} {by}{end}" for by in TASK_NAMES.values() for name in _main_names() for end in ("", STD)]
    there = {name for each in described.values() for name in each}
    rows = ["dataset", "leaky", "folds", "clips", "minutes", *(name for name in names if name in there)]
    differing = [
        key
        for key in dict.fromkeys(key for each in settings.values() for key in each)
        if len({repr(each[key]) for each in settings.values() if key in each}) > 1  # older runs lack newer settings
    ]
    columns = {
        folder: [described[folder].get(row) for row in rows] + [settings[folder].get(key) for key in differing]
        for folder in described
    }
    return pd.DataFrame(columns, index=rows + differing, dtype=object)


def _main_names() -> list[str]:
    return [FIGURE_NAMES[name] for name in MAIN_FIGURES]


def _describe(folder: Path) -> dict[str, Any]:
    metrics, record = read_metrics(folder), read_record(folder)
    folds = metrics.get("folds", {})
    tested = list(folds.values()) or [metrics]
    described = {
        "dataset": record.get("dataset") or _first_figures(tested[0]).get("dataset"),
        "leaky": is_leaky(metrics, record),
        "folds": len(folds) or None,
        "clips": sum(_first_figures(each).get("n_clips", 0) for each in tested),
        "minutes": round(record["seconds"] / 60, 1) if "seconds" in record else None,
    }
    means = metrics["mean"] if folds else {task: flat_figures(metrics[task]) for task in TASK_NAMES if task in metrics}
    for task, figures in means.items():
        for name in MAIN_FIGURES:
            if name in figures:
                row = f"{FIGURE_NAMES[name]} {TASK_NAMES[task]}"
                described[row] = figures[name]
                if folds:
                    described[row + STD] = metrics["std"][task][name]
    return described


def _first_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return main_task(metrics)[1] or metrics.get("retrieval") or metrics.get("caption", {})


def _settings(folder: Path) -> dict[str, Any]:
    """``{section.key: value}`` of the resolved configuration, without notes that training ignores."""
    config = read_record(folder).get("config")
    if config is None:
        config = read_yaml(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    sections = {section: keys for section, keys in config.items() if section != "experiment"}
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
