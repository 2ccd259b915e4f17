"""Runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clapkit.cli.compare import compare
from clapkit.config import load_config, save_config
from clapkit.errors import CheckpointError
from clapkit.evaluation.compare import compare_runs
from clapkit.evaluation.folds import summarise_folds

TRUTH = [0, 0, 1, 2]


@pytest.fixture
def runs(made_up: Any, tmp_path: Path) -> list[Path]:
    """A run, a leaky run with other settings, and a cross-validation."""
    single = made_up.write_run(tmp_path / "single", [0, 1, 1, 2], TRUTH, "train.epochs=4")
    leaky = made_up.write_run(tmp_path / "random", TRUTH, TRUTH, "train.epochs=9", "encoder.name=cnn4", leaky=True)
    folds = {
        fold: made_up.write_run(tmp_path / "folds" / f"fold{fold}", predicted, TRUTH, "train.epochs=4")
        for fold, predicted in {1: TRUTH, 2: [1, 1, 1, 2]}.items()
    }
    summarise_folds(tmp_path / "folds", folds)
    return [single, leaky, tmp_path / "folds"]


def test_a_column_for_each_run(runs: list[Path]) -> None:
    table = compare_runs(runs)
    assert list(table) == [str(folder) for folder in runs]
    assert list(table.loc["accuracy by the head"]) == [0.75, 1.0, 0.75]
    assert list(table.loc["accuracy by the head std"]) == [None, None, pytest.approx(0.5 / 2**0.5)]
    assert list(table.loc["leaky"]) == [False, True, False]
    assert list(table.loc["folds"]) == [None, None, 2]
    assert list(table.loc["clips"]) == [4, 4, 8]
    assert list(table.loc["minutes"]) == [1.5, 1.5, 3.0]


def test_only_settings_that_differ(runs: list[Path]) -> None:
    table = compare_runs(runs)
    settings = [row for row in table.index if "." in row]
    assert settings == ["encoder.name", "train.epochs"]
    assert list(table.loc["train.epochs"]) == [4, 9, 4]
    assert not [row for row in compare_runs([runs[0], runs[2]]).index if "." in row]


def test_an_older_checkpoint_has_what_it_has(runs: list[Path], tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    figures = {"dataset": "us8k", "n_clips": 3, "n_seen_in_training": 0, "accuracy": 0.5, "per_class": {"siren": 0.5}}
    (old / "metrics.json").write_text(json.dumps({"head": figures}))
    save_config(load_config([], ["train.epochs=30"]), old / "config.yaml")
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(config.replace("  momentum: 0.9\n", ""))  # a setting of a later clapkit
    column = compare_runs([runs[0], old])[str(old)]
    assert (column["accuracy by the head"], column["leaky"], column["train.epochs"]) == (0.5, False, 30)
    assert column["minutes"] is None
    assert "train.momentum" not in column.index


def test_a_checkpoint_without_figures_is_shown(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "metrics.json").write_text("{}")
    assert compare_runs([runs[0], tmp_path / "captions"]).loc["accuracy by the head"].iloc[1] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "holds no metrics.json, so it is no finished run"), ('{"head": ', "metrics.json: damaged")],
)
def test_a_folder_that_is_no_run_is_named(runs: list[Path], tmp_path: Path, content: str | None, said: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if content:
        (other / "metrics.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        compare_runs([runs[0], other])
    with pytest.raises(CheckpointError, match="nowhere"):
        compare_runs([tmp_path / "nowhere"])


def test_the_command_prints_an_aligned_table(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    compare(runs)
    lines = {line[: len("accuracy by the head")].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["leaky"].split() == ["leaky", "no", "LEAKY", "no"]
    assert lines["accuracy by the head"].split("  ")[-1] == "0.750 ± 0.354"
    assert lines["train.epochs"].split() == ["train.epochs", "4", "9", "4"]
    starts = {name: line.index(first) for name, line, first in [
        ("leaky", lines["leaky"], "no"), ("train.epochs", lines["train.epochs"], "4")
    ]}  # fmt: skip
    assert len(set(starts.values())) == 1
    assert not any("std" in line for line in lines.values())


def test_the_command_prints_one_json_document(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    compare(runs, json=True)
    document = json.loads(capsys.readouterr().out)["runs"]
    assert list(document) == [str(folder) for folder in runs]
    assert document[str(runs[1])]["leaky"] is True
