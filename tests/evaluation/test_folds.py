"""Cross-validation: mean and spread of the folds' figures, counted by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clapkit.errors import CheckpointError
from clapkit.evaluation.folds import summarise_folds

TRUTH = [0, 0, 1, 2]
PREDICTED = {1: [0, 0, 1, 2], 2: [0, 1, 1, 2], 3: [1, 1, 1, 0]}  # accuracy 1, 0.75, 0.25
ACCURACY = [1, 0.75, 0.25]


def _folds(made_up: Any, root: Path, *, leaky_fold: int | None = None) -> dict[int, Path]:
    return {
        fold: made_up.write_run(root / f"fold{fold}", predicted, TRUTH, "train.epochs=4", leaky=fold == leaky_fold)
        for fold, predicted in PREDICTED.items()
    }


def test_mean_and_sample_standard_deviation(made_up: Any, tmp_path: Path) -> None:
    summary = summarise_folds(tmp_path, _folds(made_up, tmp_path))
    assert summary["mean"]["head"]["accuracy"] == pytest.approx(2 / 3)
    assert summary["std"]["head"]["accuracy"] == pytest.approx(statistics.stdev(ACCURACY))
    assert (summary["mean"]["zeroshot"]["accuracy"], summary["std"]["zeroshot"]["accuracy"]) == (1.0, 0.0)
    assert summary["mean"]["retrieval"]["map_at_10"] == 1.0
    assert summary["leaky"] is False
    assert summary["folds"]["2"] == made_up.metrics(PREDICTED[2], TRUTH)
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary


def test_mean_and_spread_of_each_class(made_up: Any, tmp_path: Path) -> None:
    classes = summarise_folds(tmp_path, _folds(made_up, tmp_path))["per_class"]["head"]
    assert classes["dog barking"] == pytest.approx({"mean": 0.5, "std": 0.5, "n_folds": 3})
    assert classes["siren"] == pytest.approx({"mean": 1.0, "std": 0.0, "n_folds": 3})
    assert classes["drilling"]["mean"] == pytest.approx(2 / 3)


def test_a_class_counts_in_the_folds_that_have_it(made_up: Any, tmp_path: Path) -> None:
    folders = _folds(made_up, tmp_path)
    folders[4] = made_up.write_run(tmp_path / "fold4", [0, 1], [0, 1])
    classes = summarise_folds(tmp_path, folders)["per_class"]["head"]
    assert (classes["drilling"]["n_folds"], classes["siren"]["n_folds"]) == (3, 4)
    assert classes["drilling"]["mean"] == pytest.approx(2 / 3)


def test_predictions_are_pooled(made_up: Any, tmp_path: Path) -> None:
    summarise_folds(tmp_path, _folds(made_up, tmp_path))
    pooled = pd.read_csv(tmp_path / "predictions.csv")
    assert list(pooled["fold"]) == [1] * 4 + [2] * 4 + [3] * 4
    assert (pooled["head"] == pooled["label"]).mean() == pytest.approx(2 / 3)


def test_the_page_shows_folds_mean_and_classes(made_up: Any, tmp_path: Path) -> None:
    summarise_folds(tmp_path, _folds(made_up, tmp_path))
    page = (tmp_path / "report.md").read_text()
    assert "clapkit train --dataset us8k --folds all" in page
    assert "| [fold 2](fold2/report.md) | 4 | 0.750 |" in page
    assert "**0.667 ± 0.382**" in page
    assert "| dog barking | 0.500 ± 0.500 | 3 |" in page
    assert "sample standard deviation" in page
    assert "270 s" in page  # the folds' times together
    assert "leaky" not in page
    for picture in ("confusion_matrix.png", "per_class.png"):
        assert f"]({picture})" in page
        assert (tmp_path / picture).stat().st_size > 5000


def test_one_leaky_fold_makes_the_whole_leaky(made_up: Any, tmp_path: Path) -> None:
    summary = summarise_folds(tmp_path, _folds(made_up, tmp_path, leaky_fold=3))
    assert summary["leaky"] is True
    page = (tmp_path / "report.md").read_text()
    assert "[fold 3](fold3/report.md) **leaky**" in page
    assert "[fold 1](fold1/report.md) |" in page
    assert "**mean ± std** **leaky**" in page


def test_one_fold_has_no_spread(made_up: Any, tmp_path: Path) -> None:
    summary = summarise_folds(tmp_path, {2: made_up.write_run(tmp_path / "fold2", PREDICTED[2], TRUTH)})
    assert summary["std"]["head"]["accuracy"] is None
    assert "| **0.750** |" in (tmp_path / "report.md").read_text()
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_what_the_folds_share_is_kept(made_up: Any, tmp_path: Path) -> None:
    summarise_folds(tmp_path, _folds(made_up, tmp_path))
    common = json.loads((tmp_path / "folds.json").read_text())
    assert common["folds"] == {"1": "fold1", "2": "fold2", "3": "fold3"}
    assert common["config"] == made_up.record("train.epochs=4")["config"]


def test_a_fold_that_is_not_finished_is_named(made_up: Any, tmp_path: Path) -> None:
    folders = _folds(made_up, tmp_path) | {4: tmp_path / "fold4"}
    with pytest.raises(CheckpointError, match=r"fold4: holds no metrics\.json, so it is no finished run"):
        summarise_folds(tmp_path, folders)
