"""The one page of a run and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clapkit.evaluation.report import write_run_report

TRUTH, PREDICTED = [0, 0, 1, 2], [0, 1, 1, 2]
PICTURES = {"learning_curves.png", "confusion_matrix.png", "per_class.png"}


def test_a_run_folder_tells_its_story(made_up: Any, tmp_path: Path) -> None:
    figures, table = made_up.metrics(PREDICTED, TRUTH), made_up.predictions(PREDICTED, TRUTH)
    write_run_report(tmp_path, made_up.record("train.epochs=4"), made_up.history(), figures, table)
    assert {file.name for file in tmp_path.iterdir()} == PICTURES | {"report.md", "history.csv", "predictions.csv"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), made_up.history())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "predictions.csv", dtype={"source": str}), table)
    page = (tmp_path / "report.md").read_text()
    for fact in (
        "clapkit train --dataset us8k --folds all", "tested on the unseen fold 2", "no recording lies on both sides",
        "seed: 7", "90 s on cpu (1 thread)", "torch 2.14", "train.epochs=4", "20 train, 4 test",
    ):  # fmt: skip
        assert fact in page
    assert "| accuracy | 0.750 | 1.000 |" in page
    assert "| mAP@10 |  |  | 1.000 |" in page
    assert "| dog barking | 2 | 1.000 | 0.500 | 0.667 |" in page
    for picture in PICTURES:
        assert f"]({picture})" in page
    assert "leaky" not in page


@pytest.mark.parametrize("by", ["split", "figures"])
def test_a_leak_is_marked_at_every_figure(made_up: Any, tmp_path: Path, by: str) -> None:
    made, figures = made_up.record(leaky=by == "split"), made_up.metrics(PREDICTED, TRUTH, leaky=by == "figures")
    write_run_report(tmp_path, made, made_up.history(), figures, None)
    page = (tmp_path / "report.md").read_text()
    header = next(line for line in page.splitlines() if line.startswith("| figure"))
    assert header.count("**leaky**") == 3
    assert ("**leaky**: 2 recordings lie on both sides" in page) == (by == "split")


def test_captions_alone_leave_curves_alone(made_up: Any, tmp_path: Path) -> None:
    write_run_report(tmp_path, made_up.record(), made_up.history(validated=False), {}, None)
    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "history.csv", "learning_curves.png"}
    assert "no labelled clips" in (tmp_path / "report.md").read_text()


def test_clips_with_several_labels_have_average_precision(made_up: Any, tmp_path: Path) -> None:
    per_class = {"dog barking": {"average_precision": 0.5, "n_clips": 3}}
    figures = {"head": {"n_clips": 9, "leaky": False, "map": 0.5, "lwlrap": 0.6, "per_class": per_class}}
    write_run_report(tmp_path, made_up.record(), made_up.history(), figures, None)
    page = (tmp_path / "report.md").read_text()
    assert "| mAP | 0.500 |" in page
    assert "| dog barking | 3 | 0.500 |" in page
    assert (tmp_path / "per_class.png").exists()
    assert not (tmp_path / "confusion_matrix.png").exists()


def test_figures_of_held_out_classes_are_in_the_table(made_up: Any, tmp_path: Path) -> None:
    figures = made_up.metrics(PREDICTED, TRUTH)
    figures["zeroshot"]["generalised"] = {"unseen_labels": ["siren"], "unseen_among_unseen": 0.9, "harmonic_mean": 0.4}
    write_run_report(tmp_path, made_up.record(), made_up.history(), figures, made_up.predictions(PREDICTED, TRUTH))
    page = (tmp_path / "report.md").read_text()
    assert "| unseen among unseen |  | 0.900 |  |" in page
    assert "| harmonic mean of both |  | 0.400 |  |" in page


def test_results_from_before_there_was_precision_per_class(made_up: Any, tmp_path: Path) -> None:
    old = {"dataset": "us8k", "n_clips": 4, "n_seen_in_training": 1, "accuracy": 0.5, "per_class": {"siren": 0.5}}
    write_run_report(tmp_path, made_up.record(), made_up.history(), {"head": old}, None)
    assert "**leaky**" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "per_class.png").exists()


def test_pictures_of_augmentation_are_shown_where_there_are_some(made_up: Any, tmp_path: Path) -> None:
    (tmp_path / "augmentation.png").write_bytes(b"")
    write_run_report(tmp_path, made_up.record(), made_up.history(), made_up.metrics(PREDICTED, TRUTH), None)
    assert "](augmentation.png)" in (tmp_path / "report.md").read_text()
