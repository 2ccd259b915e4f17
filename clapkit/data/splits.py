"""Which clips train, which are watched, and which test: by official fold, or by recording; recordings never part."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from clapkit.data.manifest import Manifest
from clapkit.errors import DatasetError

KINDS = ("official", "random")
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
    """Cut a dataset; rows that are not ``testable`` (a column of mixtures) are never drawn for test or validation.

    Args:
        manifest: the dataset.
        kind: ``official``: by fold where the dataset has folds, else by recording; ``random``: clip by clip, as in
            leaky papers.
        test_fold: the fold to keep for the test; 0 keeps nothing; None takes ``default_fold`` or the highest.
        default_fold: the dataset's usual test fold.
        test_part: of the recordings (``random``: of the clips) that are tested where no fold is.
        seed: of every draw.
        validation_part: of the training recordings of each label (``random``: of the training clips) that are watched;
            0 for none.
        val_fold: a training fold that is watched instead.

    Raises:
        DatasetError: an unknown kind, a fold that is not there, or nothing left to train on, to watch or to test.
    """
    if kind not in KINDS:
        raise DatasetError(f"split '{kind}': unknown; expected {' or '.join(KINDS)}.")
    if kind == "random":
        if test_fold is not None or val_fold is not None:
            raise DatasetError("a random split ignores folds; leave out --test-fold and --val-fold.")
        return _random_split(manifest, test_part, validation_part, seed)
    table = manifest.table
    in_test = _tested_rows(manifest, test_fold, default_fold, test_part, seed)
    test = table[in_test]
    train, beside_test = _without_shared(table[~in_test], test)
    validation = table[:0]
    if val_fold is not None:
        validation = _watched_fold(train, test, val_fold, manifest)
    elif validation_part:
        validation = _watched_part(train, validation_part, seed, manifest)
    train, beside_validation = _without_shared(train.drop(validation.index), validation)
    if train.empty:
        raise DatasetError(f"{manifest.dataset}: no clip is left to train on; expected a further fold or recording.")
    note = _note(train, test, by_fold=bool(manifest.folds) and test_fold != 0)
    if beside_test:
        note += f"; left out of training: {beside_test} with the test"
    if len(validation):
        note += f"; {len(validation)} clips of {validation['source'].nunique()} training recordings watched"
    if beside_validation:
        note += f"; left out of training: {beside_validation} with the watched ones"
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
    if found and not split.leaky:
        raise DatasetError(f"training and test share {_named(found)}; give clips of one recording the same source.")
    if found:
        n_leaky = int(_shared(split.test, heard).sum())
        of_test = f"{n_leaky} of {len(split.test)} test clips"
        return f"LEAKY: {of_test} come from recordings that are trained on: {_named(found)}"
    watched = leaks(split.train, split.validation)
    if watched and not split.leaky:
        raise DatasetError(f"training and validation share {_named(watched)}; this is a bug in the split.")
    return f"leakage check: none of {heard['source'].nunique()} training recordings is in the test"


def _shared(rows: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Which rows have their recording or their file among the others."""
    files = {_real_path(path) for path in others["path"]}
    same_file = rows["path"].map(lambda path: _real_path(path) in files).astype(bool)
    return rows["source"].isin(others["source"]) | same_file


@cache
def _real_path(path: str) -> str:
    return os.path.realpath(path)  # asks the disk about every folder on the way: seconds for FSD50K


def _without_shared(rows: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows that share nothing with the others, and what was dropped in words."""
    shared = _shared(rows, others) if len(others) else pd.Series(False, index=rows.index)
    if not shared.any():
        return rows, ""
    return rows[~shared], f"{shared.sum()} clips that share {_named(sorted(set(rows['source'][shared])))}"


def _testable(table: pd.DataFrame) -> pd.Series:
    """Which rows may be drawn for test or validation: all, but for the rows that a ``testable`` column excludes.

    A mixture excludes all datasets but the first, a CSV its validation clips.
    """
    return table["testable"] if "testable" in table else pd.Series(True, index=table.index)


def _random_split(manifest: Manifest, test_part: float, validation_part: float, seed: int) -> Split:
    table = manifest.table
    rows = table.index[_testable(table)]
    if len(rows) < 2:
        raise DatasetError(f"{manifest.dataset}: {len(rows)} clip(s) to draw from; a random split needs at least two.")
    n_test = min(max(round(len(rows) * test_part), 1), len(rows) - 1)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    n_left = len(rows) - n_test
    n_watched = min(max(round(n_left * validation_part), 1), n_left - 1) if validation_part else 0
    tested, watched = rows[np.sort(drawn[:n_test])], rows[np.sort(drawn[n_test : n_test + n_watched])]
    train = table.drop(tested).drop(watched)
    note = f"a random split: training on {len(train)} clips, tested on {n_test}, recordings ignored"
    if n_watched:
        note += f"; {n_watched} clips watched"
    return Split(train, table.loc[watched], table.loc[tested], note, leaky=True)


def _tested_rows(
    manifest: Manifest, test_fold: int | None, default_fold: int | None, test_part: float, seed: int
) -> pd.Series:
    """Which rows an official split tests."""
    table = manifest.table
    if test_fold == 0:
        return pd.Series(False, index=table.index)
    if manifest.folds:
        if test_fold is None:
            usual = [fold for fold in manifest.folds if fold in set(table["fold"][_testable(table)])]
            test_fold = default_fold if default_fold in usual else (usual or manifest.folds)[-1]
        _check_fold(test_fold, manifest, "test")
        return table["fold"] == test_fold
    if test_fold is not None:
        raise DatasetError(f"{manifest.dataset} has no folds, so --test-fold {test_fold} names nothing; leave it out.")
    in_test = table["source"].isin(_part_of_sources(table[_testable(table)], test_part, seed)) & _testable(table)
    if not in_test.any():
        raise DatasetError(
            f"{manifest.dataset}: no recording can be kept for the test; expected at least two recordings of a label."
        )
    return in_test


def _watched_fold(train: pd.DataFrame, test: pd.DataFrame, val_fold: int, manifest: Manifest) -> pd.DataFrame:
    if not manifest.folds:
        raise DatasetError(f"{manifest.dataset} has no folds, so --val-fold {val_fold} names nothing; leave it out.")
    _check_fold(val_fold, manifest, "validation")
    if (test["fold"] == val_fold).any():
        raise DatasetError(f"--val-fold {val_fold}: is the test fold; choose another of {_listed(manifest.folds)}.")
    rows = train[train["fold"] == val_fold]
    if rows.empty:
        raise DatasetError(f"--val-fold {val_fold}: all its recordings are in the test too; choose another fold.")
    return rows


def _watched_part(train: pd.DataFrame, part: float, seed: int, manifest: Manifest) -> pd.DataFrame:
    drawable = train[_testable(train)]
    rows = drawable[drawable["source"].isin(_part_of_sources(drawable, part, seed))]
    if rows.empty:
        raise DatasetError(
            f"{manifest.dataset}: no recording can be watched; expected at least two training recordings of a label, "
            "or no early stopping."
        )
    return rows


def _note(train: pd.DataFrame, test: pd.DataFrame, *, by_fold: bool) -> str:
    if test.empty:
        return f"training on {len(train)} clips, no test"
    if not by_fold:
        n_unseen = test["source"].nunique()
        return f"training on {len(train)} clips, tested on {len(test)} of {n_unseen} unseen recordings"
    folds = sorted({int(fold) for fold in train["fold"]} - {0})
    n_foldless = int((train["fold"] == 0).sum())
    parts = [f"fold {_listed(folds)}"] if folds else []
    parts += [f"{n_foldless} clips without a fold"] if n_foldless else []
    return f"training on {' and '.join(parts)}, tested on the unseen fold {test['fold'].iloc[0]}"


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
