from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

import clapkit
from clapkit.data.city_sounds import CLASS_NAMES
from clapkit.data.synthetic import write_synthetic_us8k
from clapkit.resources import example_clip

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run_example(name: str, *words: object) -> str:
        file = next(file for file in EXAMPLES if file.stem == name)
        monkeypatch.setattr(sys, "argv", [str(file), *map(str, words)])
        runpy.run_path(str(file), run_name="__main__")
        return capsys.readouterr().out

    return run_example


@pytest.fixture
def shipped_is_tiny(monkeypatch: pytest.MonkeyPatch, tiny_model) -> None:
    """The examples use the shipped model; the tiny one knows no less about how to run them, only about sounds."""
    monkeypatch.setattr(clapkit, "load", lambda *args, **kwargs: tiny_model, raising=False)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_short_and_says_how_to_run_it(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 40
    assert any(f"python examples/{file.name}" in line for line in lines)


def test_classify_and_score_prints_labels_and_scores(run, shipped_is_tiny: None) -> None:
    printed = run("classify_and_score", example_clip())
    assert "siren" in printed
    assert "similarity" in printed


def test_search_a_folder_prints_hits(run, shipped_is_tiny: None, sounds: Path) -> None:
    assert len(run("search_a_folder", sounds, "a low tone").splitlines()) == 5


def test_compare_sounds_gives_one_for_a_sound_with_itself(run, shipped_is_tiny: None, sounds: Path) -> None:
    first, second = run("compare_sounds", sounds / "low" / "0.wav", sounds / "high" / "0.wav").splitlines()
    assert "+1.00" in first.split()
    assert "+1.00" in second.split()


def test_mix_datasets_leaves_out_what_it_is_told(run, tmp_path: Path) -> None:
    root = write_synthetic_us8k(tmp_path / "set", n_folds=2, recordings_per_class=1)
    (tmp_path / "without.txt").write_text("freesound:100001\n")
    printed = run("mix_datasets", tmp_path / "mixed.csv", f"us8k={root}", f"without={tmp_path / 'without.txt'}")
    mixed = (tmp_path / "mixed.csv").read_text()
    assert f"{len(CLASS_NAMES)} labels" in printed
    assert "freesound:100001" not in mixed
    assert "freesound:100002" in mixed


def test_mix_datasets_numbers_folds_by_rank_and_keeps_weights(run, tmp_path: Path) -> None:
    root = write_synthetic_us8k(tmp_path / "set", n_folds=3, recordings_per_class=1)
    metadata = root / "metadata" / "UrbanSound8K.csv"
    table = pd.read_csv(metadata)
    table[table["fold"] != 1].to_csv(metadata, index=False)
    run("mix_datasets", tmp_path / "mixed.csv", f"us8k={root}", "us8k.weight=0.5")
    mixed = pd.read_csv(tmp_path / "mixed.csv")
    assert sorted(mixed["fold"].unique()) == [1, 2]
    assert (mixed["weight"] == 0.5).all()
