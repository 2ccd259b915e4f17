"""From a dataset to a run: which clips train, which are watched, which test, and what is never heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clapkit.config import Config
from clapkit.data.datasets import PUBLISHED
from clapkit.data.hold_out import hold_out_classes, read_hold_out
from clapkit.data.manifest import Manifest
from clapkit.data.splits import make_split
from clapkit.errors import ClapkitError, DatasetError
from clapkit.training.run import Run


def plan_run(
    config: Config, manifest: Manifest, output: Path, *, test_fold: int | None = None, kind: str = "official",
    val_fold: int | None = None, hold_out: str | None = None, command: str = "",
) -> Run:  # fmt: skip
    """Cut the split, and take held-out classes out of training clips and training texts.

    Args:
        config: all settings.
        manifest: the dataset.
        output: the run folder.
        test_fold: official fold kept for the test; None for the dataset's usual one; 0 keeps none.
        kind: ``official`` or ``random``.
        val_fold: training fold that early stopping watches, in place of a part of the recordings.
        hold_out: labels or groups that are never trained on, with commas.
        command: what was typed, for the report.

    Raises:
        DatasetError: a fold or a label is not there.
        ClapkitError: a validation fold is named and nothing watches it.
    """
    settings = config.train
    watched = settings.watches_validation
    if val_fold is not None and not watched:
        raise ClapkitError(
            f"--val-fold {val_fold}: nothing looks at validation clips; add --set train.patience=N "
            "or --set train.schedule=plateau."
        )
    first = manifest.dataset.split("+")[0]
    split = make_split(
        manifest, kind=kind, test_fold=test_fold, val_fold=val_fold,
        default_fold=PUBLISHED[first].default_test_fold if first in PUBLISHED else None,
        test_part=settings.test_part, seed=settings.seed,
        validation_part=settings.validation_part if watched and val_fold is None else 0.0,
    )  # fmt: skip
    if hold_out is None:
        return Run(config, manifest, split, output, command=command)
    held_out = hold_out_classes(read_hold_out(hold_out, manifest))
    train, validation = held_out.without(split.train), held_out.without(split.validation)
    if len(train) < 2 or (watched and validation.empty):
        raise DatasetError(
            f"--hold-out-classes {hold_out}: leaves too few clips to train on and to watch; hold out fewer."
        )
    n_left_out = len(split.train) - len(train)
    note = (
        f"{split.note}; never heard nor named in training: {', '.join(held_out.labels)} ({n_left_out} clips left out)"
    )
    split = replace(split, train=train, validation=validation, note=note)
    return Run(config, manifest, split, output, held_out.labels, held_out.texts_of, command)
