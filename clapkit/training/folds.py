"""Official cross-validation: a run for each fold, and their mean and spread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clapkit.errors import CheckpointError, ClapkitError, DatasetError, StorageError
from clapkit.evaluation.folds import summarise_folds
from clapkit.evaluation.run_folder import RUN_FILE, SUMMARY_FILE
from clapkit.training.processes import is_main_process
from clapkit.training.run import Run, run_id, train_and_test
from clapkit.training.unfinished import state_folder


def read_folds(text: str, present: list[int]) -> list[int]:
    """``all`` or ``1,2,3`` → fold numbers.

    Raises:
        DatasetError: not numbers, not there, or fewer than two.
    """
    if text == "all":
        folds = present
    else:
        try:
            folds = sorted({int(part) for part in text.split(",")})
        except ValueError:
            raise DatasetError(f"--folds {text}: expected 'all' or fold numbers such as 1,2,3.") from None
    at_hand = ", ".join(map(str, present)) or "none"
    if missing := [str(fold) for fold in folds if fold not in present]:
        raise DatasetError(f"--folds {text}: fold {', '.join(missing)} is not there; the folds at hand are {at_hand}.")
    if len(folds) < 2:
        raise DatasetError(f"--folds {text}: cross-validation needs two folds or more; at hand are {at_hand}.")
    return folds


def train_folds(
    make_run: Callable[[int, Path], Run], folds: list[int], output: Path, *, device: torch.device,
    overwrite: bool = False, resume: bool = False, report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """Train and test once for each fold, then summarise.

    Args:
        make_run: the run that keeps a fold for its test, in a folder.
        folds: each is the test fold once.
        output: one folder for each fold, ``fold1`` …, and the summary; finished folds stay when a run is killed.
        device: where to train.
        overwrite: train every fold anew.
        resume: keep finished folds and go on with the others.
        report: told one line for each step.

    Returns:
        Figures of each fold, their mean and their standard deviation.

    Raises:
        StorageError: the output holds something already.
        CheckpointError: a finished fold belongs to other settings.
    """
    if overwrite and resume:
        raise ClapkitError("--overwrite starts anew and --resume goes on; give only one of them.")
    _refuse_to_lose(output, may_continue=overwrite or resume)
    folders = {fold: output / f"fold{fold}" for fold in folds}
    for number, (fold, folder) in enumerate(folders.items(), start=1):
        run = make_run(fold, folder)
        if resume and (folder / RUN_FILE).exists() and not state_folder(folder).exists():
            _check_same_run(run)
            report(f"fold {fold}: done before")
            continue
        report(f"fold {fold} ({number} of {len(folds)}): {run.split.note}")
        train_and_test(run, device=device, overwrite=overwrite, resume=resume, report=report)
    return summarise_folds(output, folders) if is_main_process() else {}


def _refuse_to_lose(output: Path, *, may_continue: bool) -> None:
    if not output.exists() or not any(output.iterdir()):
        return
    if not may_continue:
        raise StorageError(f"{output}: exists already; add --resume to go on, --overwrite, or choose another --output.")
    if not (output / SUMMARY_FILE).exists() and not any(output.glob("fold*")):
        raise StorageError(f"{output}: holds no folds, so it is something else and stays; choose another --output.")


def _check_same_run(run: Run) -> None:
    record = json.loads((run.output / RUN_FILE).read_text(encoding="utf-8"))
    if record["id"] != run_id(run):
        raise CheckpointError(
            f"{run.output}: is a finished fold with other settings or clips; repeat its settings, or add --overwrite."
        )
