"""Which clips train, which are watched, and which test: by official fold, or by recording; recordings never part."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clapkit.data.manifest import Manifest
from clapkit.errors import DatasetError

N_NAMED = 3
"""Recordings that a note names before it counts the rest."""


@dataclass(frozen=True)
class Split:
    """Rows of a manifest by what they are for; the index stays the manifest's.

    Attributes:
        train: clips to learn from.
        validation: clips that early stopping watches; often none.
        test: clips that are looked at once, at the end.
        note: one line that says how they were cut.
        leaky: whether recordings lie on both sides, as in a random split.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    note: str
    leaky: bool = False


def make_split(
    manifest: Manifest, *, kind: str = "official", test_fold: int | None = None, default_fold: int | None = None,
    test_part: float = 0.2, seed: int = 0, validation_part: float = 0.0, val_fold: int | None = None,
) -> Split:  # fmt: skip
    """Cut a dataset.

    Args:
        manifest: the dataset.
        kind: ``official``: by fold where the dataset has folds, else by recording; ``random``: clip by clip, as in
            leaky papers.
        test_fold: the fold to keep for the test; 0 keeps nothing; None takes ``default_fold`` or the highest.
        default_fold: the dataset's usual test fold.
        test_part: of the recordings (``random``: of the clips) that are tested where no fold is.
        seed: of every draw.
        validation_part: of the training recordings of each label that are watched; 0 for none.
        val_fold: a training fold that is watched instead.

    Raises:
        DatasetError: a fold is not there, or nothing is left to train on.
    """
    table = manifest.table
    if kind == "random":
        in_test, note = _random_rows(table, test_part, seed)
    elif test_fold == 0:
        in_test, note = pd.Series(False, index=table.index), f"training on all {len(table)} clips, no test"
    elif manifest.folds:
        in_test, note = _fold_rows(manifest, test_fold, default_fold)
    elif test_fold is not None:
        raise DatasetError(f"{manifest.dataset} has no folds, so --test-fold {test_fold} names nothing; leave it out.")
    else:
        in_test, note = _source_rows(manifest, test_part, seed)
    train, test = table[~in_test], table[in_test]
    if kind == "random":
        return Split(train, table[:0], test, note, leaky=True)
    train, dropped = _without_shared(train, test)
    if dropped:
        note += f"; left out of training: {dropped}"
    validation = table[:0]
    if val_fold is not None:
        validation = _watched_fold(train, val_fold, manifest)
    elif validation_part:
        validation = train[train["source"].isin(_part_of_sources(train, validation_part, seed))]
    train, _ = _without_shared(train.drop(validation.index), validation)
    if len(validation):
        note += f"; {len(validation)} clips of {validation['source'].nunique()} training recordings watched"
    if train.empty:
        raise DatasetError(f"{manifest.dataset}: no clip is left to train on; training needs at least one more fold.")
    return Split(train, validation, test, note)


def leaks(train: pd.DataFrame, test: pd.DataFrame) -> list[str]:
    """Recordings on both sides, those of shared files too, sorted."""
    shared = _shared(train, test)
    return sorted(set(train["source"][shared]))


def check_leakage(split: Split) -> str:
    """The line that is printed before every training.

    Raises:
        DatasetError: a split that is not known to be leaky has recordings on both sides.
    """
    heard = pd.concat([split.train, split.validation])
    found = leaks(heard, split.test)
    n_recordings = heard["source"].nunique()
    if not found:
        watched = leaks(split.train, split.validation)
        if watched:
            raise DatasetError(f"training and validation share {_named(watched)}; this is a bug in the split.")
        return f"leakage check: none of {n_recordings} training recordings is in the test"
    if not split.leaky:
        raise DatasetError(f"training and test share {_named(found)}; give clips of one recording the same source.")
    n_leaky = int(_shared(split.test, heard).sum())
    return f"LEAKY: {n_leaky} of {len(split.test)} test clips come from recordings that are trained on: {_named(found)}"


def _shared(rows: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Which rows have their recording or their file among the others."""
    files = {os.path.realpath(path) for path in others["path"]}
    return rows["source"].isin(others["source"]) | rows["path"].map(lambda path: os.path.realpath(path) in files)


def _without_shared(rows: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows that share nothing with the others, and what was dropped in words."""
    shared = _shared(rows, others) if len(others) else pd.Series(False, index=rows.index)
    if not shared.any():
        return rows, ""
    return rows[~shared], f"{shared.sum()} clips that share {_named(sorted(set(rows['source'][shared])))}"


def _random_rows(table: pd.DataFrame, test_part: float, seed: int) -> tuple[pd.Series, str]:
    n_test = min(max(round(len(table) * test_part), 1), len(table) - 1)
    chosen = np.random.default_rng(seed).permutation(len(table))[:n_test]
    in_test = pd.Series(False, index=table.index)
    in_test.iloc[chosen] = True
    return in_test, f"a random split: training on {len(table) - n_test} clips, tested on {n_test}, recordings ignored"


def _fold_rows(manifest: Manifest, test_fold: int | None, default_fold: int | None) -> tuple[pd.Series, str]:
    folds = manifest.folds
    chosen = (default_fold if default_fold in folds else folds[-1]) if test_fold is None else test_fold
    _check_fold(chosen, manifest, "test")
    others = [fold for fold in folds if fold != chosen]
    trained = f"fold {_listed(others)}" if others else "other clips"
    return manifest.table["fold"] == chosen, f"training on {trained}, tested on the unseen fold {chosen}"


def _source_rows(manifest: Manifest, test_part: float, seed: int) -> tuple[pd.Series, str]:
    in_test = manifest.table["source"].isin(_part_of_sources(manifest.table, test_part, seed))
    if not in_test.any():
        raise DatasetError(
            f"{manifest.dataset}: no recording can be kept for the test; expected at least two recordings of a label."
        )
    n_unseen = manifest.table["source"][in_test].nunique()
    return in_test, f"training on {(~in_test).sum()} clips, tested on {in_test.sum()} of {n_unseen} unseen recordings"


def _part_of_sources(table: pd.DataFrame, part: float, seed: int) -> set[str]:
    """A part of the recordings of each label, at least one; at least one stays."""
    generator = np.random.default_rng(seed)
    chosen: set[str] = set()
    sources = table.drop_duplicates("source")
    first_tags = sources["tags"].map(lambda tags: tags[0] if isinstance(tags, tuple) else "")
    for _, group in sources.groupby(sources["label"].fillna(first_tags), sort=True):
        shuffled = generator.permutation(group["source"].to_numpy())
        chosen.update(shuffled[: min(max(1, round(len(shuffled) * part)), len(shuffled) - 1)])
    return chosen


def _watched_fold(train: pd.DataFrame, val_fold: int, manifest: Manifest) -> pd.DataFrame:
    _check_fold(val_fold, manifest, "validation")
    rows = train[train["fold"] == val_fold]
    if rows.empty:
        raise DatasetError(f"--val-fold {val_fold}: is the test fold; choose another of {_listed(manifest.folds)}.")
    return rows


def _check_fold(fold: int, manifest: Manifest, role: str) -> None:
    if fold not in manifest.folds:
        raise DatasetError(
            f"{role} fold {fold} of {manifest.dataset} is not there; the folds at hand are {_listed(manifest.folds)}."
        )


def _named(sources: list[str]) -> str:
    more = f" and {len(sources) - N_NAMED} more" if len(sources) > N_NAMED else ""
    return f"{len(sources)} recording{'s' if len(sources) > 1 else ''} ({', '.join(sources[:N_NAMED])}{more})"


def _listed(folds: list[int]) -> str:
    return ", ".join(str(fold) for fold in folds)
