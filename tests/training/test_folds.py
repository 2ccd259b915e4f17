"""Cross-validation and sweeps: every fold is tested once, finished ones are kept, and the table says what was got."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from clapkit.config import Config
from clapkit.data.datasets import load_manifest
from clapkit.data.manifest import Manifest, make_table
from clapkit.errors import CheckpointError, ClapkitError, ConfigError, DatasetError, StorageError
from clapkit.training import sweep
from clapkit.training.build import drawing_weights
from clapkit.training.folds import read_folds, train_folds
from clapkit.training.plan import plan_run
from clapkit.training.run import Run

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return tiny_config.model_copy(update={"train": tiny_config.train.model_copy(update={"epochs": 1})})


@pytest.fixture
def manifest(sounds: Path, tmp_path: Path) -> Manifest:
    """Three folds of each class."""
    files = sorted(sounds.rglob("*.wav"))
    rows = [f"{file},{file.parent.name},{1 + int(file.stem) % 3}" for file in files]
    (tmp_path / "folds.csv").write_text("\n".join(["path,label,fold", *rows]))
    return load_manifest("csv", tmp_path / "folds.csv")


def maker(config: Config, manifest: Manifest) -> Callable[[int, Path], Run]:
    return lambda fold, folder: plan_run(config, manifest, folder, test_fold=fold)


@pytest.mark.parametrize(("text", "folds"), [("all", [1, 2, 5]), ("5,1", [1, 5]), (" 2, 5", [2, 5]), ("1,1,2", [1, 2])])
def test_folds_are_read(text: str, folds: list[int]) -> None:
    assert read_folds(text, [1, 2, 5]) == folds


@pytest.mark.parametrize(
    ("text", "present", "part"),
    [
        ("some", [1, 2], "expected 'all' or fold numbers"), ("1,3", [1, 2], "fold 3 is not there"),
        ("1", [1, 2], "needs two folds"), ("all", [1], "needs two folds"), ("all", [], "at hand are none"),
    ],
)  # fmt: skip
def test_folds_that_make_no_sense_are_one_line(text: str, present: list[int], part: str) -> None:
    with pytest.raises(DatasetError, match=part) as error:
        read_folds(text, present)
    assert "\n" not in str(error.value)


def test_every_fold_is_tested_once_and_the_mean_is_theirs(config: Config, manifest: Manifest, tmp_path: Path) -> None:
    output = tmp_path / "cv"
    summary = train_folds(maker(config, manifest), [1, 2, 3], output, device=CPU)
    tested = [pd.read_csv(output / f"fold{fold}" / "split.csv").query("part == 'test'") for fold in (1, 2, 3)]
    assert sorted(path for rows in tested for path in rows["path"]) == sorted(manifest.table["path"])
    found = [
        json.loads((output / f"fold{fold}" / "metrics.json").read_text())["head"]["accuracy"] for fold in (1, 2, 3)
    ]
    assert summary["mean"]["head"]["accuracy"] == pytest.approx(np.mean(found))
    assert summary["std"]["head"]["accuracy"] == pytest.approx(np.std(found, ddof=1))
    assert len(pd.read_csv(output / "predictions.csv")) == len(manifest.table)
    assert (output / "report.md").is_file()


def test_finished_folds_are_kept_and_only_the_others_trained(
    config: Config, manifest: Manifest, tmp_path: Path
) -> None:
    output, make, reported = tmp_path / "cv", maker(config, manifest), []
    train_folds(make, [1, 2], output, device=CPU)
    before = (output / "fold1" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(StorageError, match="--resume"):
        train_folds(make, [1, 2, 3], output, device=CPU)
    train_folds(make, [1, 2, 3], output, device=CPU, resume=True, report=reported.append)
    assert (output / "fold1" / "model.safetensors").stat().st_mtime_ns == before
    assert [line for line in reported if "done before" in line] == ["fold 1: done before", "fold 2: done before"]
    assert (output / "fold3" / "metrics.json").is_file()


def test_a_finished_fold_with_other_settings_is_refused(config: Config, manifest: Manifest, tmp_path: Path) -> None:
    train_folds(maker(config, manifest), [1, 2], tmp_path / "cv", device=CPU)
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 5})})
    with pytest.raises(CheckpointError, match="other settings"):
        train_folds(maker(other, manifest), [1, 2], tmp_path / "cv", device=CPU, resume=True)


def test_nothing_that_is_no_cross_validation_is_touched(config: Config, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="something else"):
        train_folds(maker(config, manifest), [1, 2], tmp_path / "mine", device=CPU, overwrite=True)
    with pytest.raises(ClapkitError, match="only one of them"):
        train_folds(maker(config, manifest), [1, 2], tmp_path / "cv", device=CPU, overwrite=True, resume=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_recordings_are_drawn_more_evenly_with_balance() -> None:
    rows = make_table(path=list("abcde"), label=["dog"] * 5, source=["x", "x", "x", "x", "y"])
    assert drawing_weights(rows, 0.0).tolist() == [1] * 5
    even = drawing_weights(rows, 1.0)
    assert float(even[:4].sum()) == pytest.approx(float(even[4]))
    halfway = drawing_weights(rows, 0.5)
    assert float(halfway[4] / halfway[0]) == pytest.approx(2)
    doubled = drawing_weights(rows.assign(weight=[2.0, 2, 2, 2, 1]), 0.5)
    assert float(doubled.sum()) == pytest.approx(9)


def test_experiments_are_read_without_their_common_part(tmp_path: Path) -> None:
    (tmp_path / "_base.yaml").write_text("train: {optimizer: sgd}\nexperiment: {dataset: us8k}\n")
    (tmp_path / "b.yaml").write_text("base: _base.yaml\nexperiment: {title: second}\n")
    (tmp_path / "a.yaml").write_text("base: _base.yaml\ntrain: {optimizer: adam}\n")
    found = sweep.read_experiments([tmp_path], ["train.epochs=2"])
    assert [each.name for each in found] == ["a", "b"]
    assert [each.config.train.optimizer for each in found] == ["adam", "sgd"]
    assert {each.config.train.epochs for each in found} == {2}
    assert found[1].config.experiment.title == "second"


def test_a_sweep_cuts_long_trainings_and_lengthens_none(tmp_path: Path) -> None:
    for name, epochs in (("short", 10), ("long", 100)):
        (tmp_path / f"{name}.yaml").write_text(f"train: {{epochs: {epochs}}}\nexperiment: {{dataset: us8k}}\n")
    found = sweep.read_experiments([tmp_path], [], most_epochs=30)
    assert {each.name: each.config.train.epochs for each in found} == {"short": 10, "long": 30}


def test_experiments_that_cannot_be_run_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no YAML file"):
        sweep.read_experiments([tmp_path], [])
    (tmp_path / "a.yaml").write_text("train: {epochs: 2}\n")
    with pytest.raises(ConfigError, match=r"names no experiment\.dataset"):
        sweep.read_experiments([tmp_path], [])


def test_the_thesis_has_its_nine_and_its_five_experiments() -> None:
    folder = Path(__file__).resolve().parents[2] / "configs" / "thesis"
    found = [each.config.experiment for each in sweep.read_experiments([folder], [])]
    reported = {name: [each.reported for each in found if each.dataset == name] for name in ("us8k", "esc50")}
    assert reported["us8k"] == [0.71, 0.69, 0.71, 0.26, 0.72, 0.89, 0.43, 0.72, 0.91]
    assert reported["esc50"] == [0.53, 0.59, 0.62, 0.68, 0.70]


def test_a_sweep_puts_reported_and_measured_side_by_side(
    manifest: Manifest, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    monkeypatch.setattr(sweep, "preset", lambda name: preset)
    monkeypatch.setattr(sweep, "load_manifest", lambda name, root: manifest)
    told = config.experiment.model_copy(update={"dataset": "csv", "title": "the first", "reported": 0.91})
    experiments = [sweep.Experiment("first", config.model_copy(update={"experiment": told}))]
    table = sweep.run_sweep(
        experiments, None, tmp_path / "sweep", folds="1,2", with_defaults=True, overrides=[], device=CPU,
        overwrite=False, resume=False, command="clapkit sweep", report=lambda line: None,
    )  # fmt: skip
    measured = json.loads((tmp_path / "sweep" / "first" / "metrics.json").read_text())["mean"]["head"]["accuracy"]
    assert table.loc[0, "accuracy"] == pytest.approx(measured)
    assert table.loc[0, "default"] == pytest.approx(measured)  # the same settings under another name
    lines = sweep.sweep_lines(table)
    assert "the first" in lines[2]
    assert "0.91" in lines[2]
    assert f"{measured:.3f} ±" in lines[2]
    assert len({len(line) for line in lines}) == 1
    assert "| the first" in (tmp_path / "sweep" / "report.md").read_text()
    assert pd.read_csv(tmp_path / "sweep" / "sweep.csv").loc[0, "reported"] == 0.91
