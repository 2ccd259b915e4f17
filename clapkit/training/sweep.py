"""Many experiments under honest folds, and one table: what was reported, what is really got, what the default gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clapkit.config import Config, load_config, preset
from clapkit.data.datasets import load_manifest
from clapkit.errors import ConfigError
from clapkit.training.folds import read_folds, train_folds
from clapkit.training.plan import plan_run
from clapkit.training.processes import is_main_process

TABLE_FILE, REPORT_FILE = "sweep.csv", "report.md"
DEFAULT_NAME = "clapkit's default"


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Attributes:
        name: of the config file.
        config: its settings.
    """

    name: str
    config: Config


def read_experiments(paths: list[Path], overrides: list[str], most_epochs: int | None = None) -> list[Experiment]:
    """Experiments from YAML files and folders of them; files whose name begins with ``_`` are parts of others.

    Args:
        paths: files and folders.
        overrides: ``section.key=value`` for all of them.
        most_epochs: longer trainings are cut to so many.

    Raises:
        ConfigError: none found, a file is wrong, or it names no dataset.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        files += [file for file in found if not file.name.startswith("_")]
    if not files:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: holds no YAML file; expected experiments such as configs/thesis."
        )
    experiments = [Experiment(file.stem, load_config([file], overrides)) for file in files]
    for file, experiment in zip(files, experiments, strict=True):
        if not experiment.config.experiment.dataset:
            raise ConfigError(f"{file}: names no experiment.dataset; expected us8k or esc50, for example.")
    return experiments if most_epochs is None else [_shortened(each, most_epochs) for each in experiments]


def _shortened(experiment: Experiment, most_epochs: int) -> Experiment:
    config = experiment.config
    train = config.train.model_copy(update={"epochs": min(config.train.epochs, most_epochs)})
    return Experiment(experiment.name, config.model_copy(update={"train": train}))


def run_sweep(
    experiments: list[Experiment], root: Path | None, output: Path, *, folds: str, with_defaults: bool,
    overrides: list[str], device: torch.device, overwrite: bool, resume: bool, command: str,
    report: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """Cross-validate every experiment, and clapkit's default for each dataset.

    Args:
        experiments: what to run.
        root: the parent folder of the datasets.
        output: a folder for each experiment, the table and its report.
        folds: ``all``, or fold numbers.
        with_defaults: run ``configs/<dataset>.yaml`` too.
        overrides: of the defaults' settings; the experiments have theirs already.
        device: where to train.
        overwrite: train everything anew.
        resume: keep what is finished.
        command: what was typed, for the report.
        report: told one line for each step.

    Returns:
        One row for each experiment: ``experiment``, ``title``, ``dataset``, ``reported``, ``accuracy``, ``std``, and
        ``default`` and ``default_std`` of clapkit on the same folds.
    """
    datasets = list(dict.fromkeys(each.config.experiment.dataset for each in experiments))
    manifests = {name: load_manifest(name, root) for name in datasets}
    work = {"device": device, "overwrite": overwrite, "resume": resume, "report": report}

    def measure(name: str, config: Config, dataset: str) -> tuple[float, float]:
        manifest, folder = manifests[dataset], output / name
        report(f"{name}: {dataset}")
        make = lambda fold, place: plan_run(config, manifest, place, test_fold=fold, command=command)  # noqa: E731
        figures = train_folds(make, read_folds(folds, manifest.folds), folder, **work)
        if not is_main_process():
            return math.nan, math.nan
        task, figure = _main_figure(figures["mean"])
        return figures["mean"][task][figure], figures["std"][task][figure]

    rows: list[dict[str, Any]] = []
    for each in experiments:
        told = each.config.experiment
        accuracy, std = measure(each.name, each.config, told.dataset)
        rows.append({
            "experiment": each.name, "title": told.title, "dataset": told.dataset, "reported": told.reported,
            "accuracy": accuracy, "std": std,
        })  # fmt: skip
        _write(rows, output, command)
    for dataset in datasets if with_defaults else ():
        default, std = measure(f"default-{dataset}", load_config([preset(dataset)], overrides), dataset)
        for row in rows:
            if row["dataset"] == dataset:
                row |= {"default": default, "default_std": std}
        _write(rows, output, command)
    return pd.DataFrame(rows)


def sweep_lines(table: pd.DataFrame) -> list[str]:
    """The table in Markdown, which is readable in a terminal too."""
    head = ["dataset", "experiment", "the thesis reported", "its recipe gets on unseen folds"]
    head += ["clapkit's default gets"] if "default" in table else []
    lines = [head, ["---"] * len(head)]
    for row in table.itertuples():
        cells = [
            row.dataset,
            row.title or row.experiment,
            f"{row.reported:.2f}" if row.reported == row.reported else "",
        ]
        cells.append(f"{row.accuracy:.3f} ± {row.std:.3f}")
        if "default" in table:
            cells.append(f"{row.default:.3f} ± {row.default_std:.3f}")
        lines.append(cells)
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(head))]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    ]


def _main_figure(means: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """The head's accuracy, or what comes nearest to it."""
    task = "head" if "head" in means else "zeroshot"
    return task, "accuracy" if "accuracy" in means[task] else "map"


def _write(rows: list[dict[str, Any]], output: Path, command: str) -> None:
    if not is_main_process():
        return
    table = pd.DataFrame(rows)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / TABLE_FILE, index=False)
    text = [f"# Sweep\n\n`{command}`\n", "Accuracy of the head, mean ± standard deviation over the official folds.\n"]
    (output / REPORT_FILE).write_text("\n".join([*text, *sweep_lines(table)]) + "\n", encoding="utf-8")
