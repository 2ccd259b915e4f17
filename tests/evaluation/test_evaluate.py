"""Figures of a model on labelled clips: which keys, which clips count as heard before, and which labels compete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import clapkit
from clapkit.cli.evaluate import describe
from clapkit.data.datasets import load_manifest
from clapkit.data.manifest import Manifest
from clapkit.errors import ClapkitError
from clapkit.evaluation.evaluate import TASKS, evaluate
from clapkit.model import AudioTextModel


@pytest.fixture(scope="module")
def manifest(sounds: Path) -> Manifest:
    return load_manifest("folder", sounds)


@pytest.fixture
def own_model(tiny_run: Path) -> AudioTextModel:
    """The tiny model, to be changed."""
    return clapkit.load(tiny_run, device="cpu")


def test_each_task_says_what_was_measured(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    results = evaluate(tiny_model, "folder", manifest.table, list(manifest.labels), TASKS).figures
    assert list(results) == ["head", "zeroshot", "retrieval"]
    common = {"dataset", "task", "n_clips", "n_seen_in_training", "leaky"}
    of_classes = {"accuracy", "macro_precision", "macro_recall", "macro_f1", "per_class", "labels", "confusion_matrix"}
    assert set(results["head"]) == set(results["zeroshot"]) == common | of_classes
    assert set(results["retrieval"]) == common | {"map_at_10", "r_at_1", "r_at_5", "r_at_10"}
    for task, figures in results.items():
        assert (figures["dataset"], figures["task"], figures["n_clips"]) == ("folder", task, 18)
    json.dumps(results)


def test_only_the_tasks_asked_for_are_run(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    evaluation = evaluate(tiny_model, "folder", manifest.table, list(manifest.labels), ["retrieval"])
    assert list(evaluation.figures) == ["retrieval"]
    assert "head" not in evaluation.predictions


def test_figures_are_those_of_the_models_own_answers(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    labels, rows = list(manifest.labels), manifest.table
    results = evaluate(tiny_model, "folder", rows, labels, ["head", "zeroshot"]).figures
    by_head = [scores[0].label for scores in tiny_model.classify(list(rows["path"]))]
    by_prompts = [scores[0].label for scores in tiny_model.zeroshot(list(rows["path"]), labels)]
    assert results["head"]["accuracy"] == pytest.approx(np.mean(rows["label"] == by_head))
    assert results["zeroshot"]["accuracy"] == pytest.approx(np.mean(rows["label"] == by_prompts))


def test_clips_of_training_recordings_are_counted(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table
    in_training = rows["source"].isin(tiny_model.checkpoint.sources)
    assert 0 < in_training.sum() < len(rows)

    def n_seen(part: pd.DataFrame) -> int:
        return evaluate(tiny_model, "folder", part, list(manifest.labels), ["head"]).figures["head"][
            "n_seen_in_training"
        ]

    assert n_seen(rows) == in_training.sum()
    assert n_seen(rows[in_training]) == in_training.sum()
    assert n_seen(rows[~in_training]) == 0


def test_training_recordings_are_recognised_from_another_working_folder(
    tiny_model: AudioTextModel, manifest: Manifest, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sounds.parent)
    relative = load_manifest("folder", Path(sounds.name))
    results = evaluate(tiny_model, "folder", relative.table, list(manifest.labels), ["head"])
    assert results.figures["head"]["n_seen_in_training"] == len(tiny_model.checkpoint.sources)


def test_the_head_chooses_among_the_datasets_labels_only(own_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table[manifest.table["label"] != "middle"]
    labels = ["low", "high"]  # not the head's order either
    before = evaluate(own_model, "folder", rows, labels, ["head"]).figures["head"]
    assert set(before["per_class"]) == {"low", "high"}
    with torch.no_grad():
        own_model.clap.head.bias[own_model.labels.index("middle")] += 5  # it would win every time
    assert own_model.classify(rows["path"].iloc[0])[0].label == "middle"
    assert evaluate(own_model, "folder", rows, labels, ["head"]).figures["head"] == before


def test_the_head_follows_its_own_order_of_labels(own_model: AudioTextModel, manifest: Manifest) -> None:
    with torch.no_grad():
        own_model.clap.head.bias[own_model.labels.index("low")] += 50
    result = evaluate(own_model, "folder", manifest.table, ["middle", "low", "high"], ["head"]).figures["head"]
    assert {label: each["recall"] for label, each in result["per_class"].items()} == {"middle": 0, "low": 1, "high": 0}


def test_the_head_refuses_labels_it_does_not_know(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table.assign(label="rain")
    with pytest.raises(ClapkitError, match="does not know 1 of the 2 labels, such as 'rain'"):
        evaluate(tiny_model, "folder", rows, ["low", "rain"], ["head"])
    assert evaluate(tiny_model, "folder", rows, ["low", "rain"], ["zeroshot"]).figures["zeroshot"]["n_clips"] == 18


def test_a_model_without_head_names_the_other_tasks(own_model: AudioTextModel, manifest: Manifest) -> None:
    own_model.clap.head = None
    with pytest.raises(ClapkitError, match="has no linear head"):
        evaluate(own_model, "folder", manifest.table, list(manifest.labels), ["head"])
    assert evaluate(own_model, "folder", manifest.table, list(manifest.labels), ["zeroshot"]).figures


def test_spans_of_one_file_are_clips_of_their_own(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    path = manifest.table["path"].iloc[0]
    rows = pd.concat([manifest.table.iloc[[0]].assign(start_s=start, end_s=start + 0.2) for start in (0.0, 0.2, 0.4)])
    assert set(rows["path"]) == {path}
    assert evaluate(tiny_model, "csv", rows, list(manifest.labels), ["head"]).figures["head"]["n_clips"] == 3


def test_a_result_is_leaky_where_recordings_or_the_training_split_are(
    own_model: AudioTextModel, manifest: Manifest
) -> None:
    rows = manifest.table

    def leaky(part: pd.DataFrame) -> bool:
        return evaluate(own_model, "folder", part, list(manifest.labels), ["zeroshot"]).figures["zeroshot"]["leaky"]

    in_training = rows["source"].isin(own_model.checkpoint.sources)
    assert leaky(rows) is True
    assert leaky(rows[~in_training]) is False
    own_model.checkpoint.training["leaky"] = True  # trained on a random split
    assert leaky(rows[~in_training]) is True


def test_each_clip_has_its_prediction(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table.sample(frac=1, random_state=0)
    evaluation = evaluate(tiny_model, "folder", rows, list(manifest.labels), TASKS)
    table = evaluation.predictions
    assert list(table) == [
        "path", "start_s", "end_s", "source", "label", "seen_in_training", "head", "head_score", "zeroshot",
        "zeroshot_score",
    ]  # fmt: skip
    assert list(table["path"]) == list(rows["path"])
    assert list(table["label"]) == list(rows["label"])
    assert (table["head"] == table["label"]).mean() == evaluation.figures["head"]["accuracy"]
    assert table["seen_in_training"].sum() == evaluation.figures["head"]["n_seen_in_training"]
    best = tiny_model.classify(rows["path"].iloc[0])[0]
    assert (table["head"].iloc[0], table["head_score"].iloc[0]) == (best.label, pytest.approx(best.score, rel=1e-5))
    nearest = max(tiny_model.zeroshot(rows["path"].iloc[0], list(manifest.labels)), key=lambda each: each.similarity)
    assert table["zeroshot"].iloc[0] == nearest.label
    assert table["zeroshot_score"].iloc[0] == pytest.approx(nearest.similarity, rel=1e-5)


def test_decoded_clips_are_taken_as_they_are(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table.iloc[[7, 2, 11]]
    labels = list(manifest.labels)
    decoded = {index: tiny_model.load_waveform(path) for index, path in rows["path"].items()}
    from_files = evaluate(tiny_model, "folder", rows, labels, TASKS)
    lost = rows.assign(path="no such file")
    from_memory = evaluate(tiny_model, "folder", lost, labels, TASKS, waveforms=decoded)
    assert from_memory.figures == from_files.figures
    assert from_memory.predictions["head_score"].tolist() == from_files.predictions["head_score"].tolist()


def test_held_out_classes_are_asked_of_the_prompts_only(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows, labels = manifest.table, list(manifest.labels)
    evaluation = evaluate(tiny_model, "folder", rows, labels, TASKS, unseen_labels=["high"])
    assert set(evaluation.figures["head"]["per_class"]) == {"low", "middle"}
    assert evaluation.figures["head"]["n_clips"] == 12
    assert "high" not in set(evaluation.predictions["head"])
    generalised = evaluation.figures["zeroshot"]["generalised"]
    assert generalised["unseen_labels"] == ["high"]
    assert generalised["unseen_among_unseen"] == 1.0  # there is only one
    recall = {label: each["recall"] for label, each in evaluation.figures["zeroshot"]["per_class"].items()}
    assert generalised["unseen"] == pytest.approx(recall["high"])
    assert generalised["seen"] == pytest.approx((recall["low"] + recall["middle"]) / 2)
    assert "generalised" not in evaluation.figures["head"]


def test_the_head_has_no_figures_when_every_class_was_held_out(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table[manifest.table["label"] == "high"]
    evaluation = evaluate(tiny_model, "folder", rows, list(manifest.labels), TASKS, unseen_labels=["high"])
    assert list(evaluation.figures) == ["zeroshot", "retrieval"]


def test_clips_with_several_labels(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table.assign(
        tags=[(label, "low") if label != "low" else ("low",) for label in manifest.table["label"]]
    )
    rows = rows.assign(label=None)
    evaluation = evaluate(tiny_model, "fsd50k", rows, list(manifest.labels), TASKS)
    for task in ("head", "zeroshot"):
        figures = evaluation.figures[task]
        assert set(figures) >= {"map", "lwlrap", "per_class", "leaky", "n_clips"}
        assert figures["per_class"]["low"] == {"average_precision": 1.0, "n_clips": 18}  # every clip has it
        assert figures["per_class"]["high"]["n_clips"] == 6
    assert set(evaluation.figures["retrieval"]) >= {"map_at_10", "r_at_1"}
    joined = evaluation.predictions["label"]
    assert {frozenset(names.split(";")) for names in joined} == {
        frozenset({"low"}), frozenset({"low", "middle"}), frozenset({"low", "high"})
    }  # fmt: skip
    json.dumps(evaluation.figures)


def test_a_clip_without_any_label_is_a_negative_of_each(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    rows = manifest.table.assign(
        tags=[(label,) if label != "low" else () for label in manifest.table["label"]], label=None
    )
    figures = evaluate(tiny_model, "fsd50k", rows, list(manifest.labels), ["head"]).figures["head"]
    assert figures["n_clips"] == 18
    assert set(figures["per_class"]) == {"middle", "high"}


def test_a_label_that_was_not_given_is_named(tiny_model: AudioTextModel, manifest: Manifest) -> None:
    with pytest.raises(ClapkitError, match="label 'high' is not among the 2 labels given"):
        evaluate(tiny_model, "folder", manifest.table, ["low", "middle"], ["zeroshot"])


def test_people_get_a_table_of_the_classes_best_first() -> None:
    per_class = {
        "rain": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "n_clips": 4},
        "siren": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "n_clips": 11},
    }
    lines = describe({"task": "head", "leaky": True, "accuracy": 0.625, "labels": ["rain"], "per_class": per_class})
    assert lines == [
        "task                 head",
        "leaky                LEAKY",
        "accuracy             0.625",
        "",
        "class  precision  recall     f1  clips",
        "siren      1.000   1.000  1.000     11",
        "rain       0.500   0.250  0.333      4",
    ]


def test_people_get_average_precision_of_clips_with_several_labels() -> None:
    lines = describe({"map": 0.5, "per_class": {"rain": {"average_precision": 0.5, "n_clips": 4}}})
    assert lines[2:] == ["class  average precision  clips", "rain               0.500      4"]
    assert describe({"map_at_10": 1.0}) == ["map_at_10            1.000"]
