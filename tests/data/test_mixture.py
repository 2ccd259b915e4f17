"""Several datasets as one: the first is tested, all are trained on, each as often as its weight says."""

from __future__ import annotations

import pytest

from clapkit.data.manifest import COLUMNS, Manifest, make_table
from clapkit.data.mixture import mix_manifests


def made_up(name: str, folds: list[int], *labels: str) -> Manifest:
    """One clip per fold, labelled in turn."""
    table = make_table(
        path=[f"{name}/{clip}.wav" for clip in range(len(folds))], fold=folds,
        label=[labels[clip % len(labels)] for clip in range(len(folds))],
    )  # fmt: skip
    return Manifest(name, table, labels, f"{name}: {len(folds)} clips")


FIRST, SECOND = made_up("city", [1, 2, 2], "siren", "dog"), made_up("farm", [1, 5], "cow", "dog")


def test_the_first_keeps_its_folds_and_alone_may_be_tested() -> None:
    mixed = mix_manifests([FIRST, SECOND], [1, 1])
    assert mixed.table["fold"].tolist() == [1, 2, 2, 0, 0]
    assert mixed.table["testable"].tolist() == [True, True, True, False, False]
    assert mixed.folds == [1, 2]
    assert tuple(mixed.table.columns) == (*COLUMNS, "testable")
    assert mixed.table.index.tolist() == [0, 1, 2, 3, 4]


def test_the_given_datasets_stay_as_they_were() -> None:
    mix_manifests([FIRST, SECOND], [2, 3])
    assert tuple(SECOND.table.columns) == COLUMNS
    assert SECOND.folds == [1, 5]
    assert set(SECOND.table["weight"]) == {1.0}


def test_each_clip_has_the_weight_of_its_dataset() -> None:
    assert mix_manifests([FIRST, SECOND], [1, 0.5]).table["weight"].tolist() == [1, 1, 1, 0.5, 0.5]


def test_labels_are_those_of_all_and_shared_ones_count_once() -> None:
    assert mix_manifests([FIRST, SECOND], [1, 1]).labels == ("siren", "dog", "cow")
    assert mix_manifests([SECOND, FIRST], [1, 1]).labels == ("cow", "dog", "siren")


def test_name_and_note_say_what_was_mixed() -> None:
    mixed = mix_manifests([FIRST, SECOND], [1, 0.5])
    assert mixed.dataset == "city+farm"
    assert mixed.note == "city: 3 clips, weight 1; farm: 2 clips, weight 0.5"


def test_clips_that_the_first_excludes_stay_excluded() -> None:
    own = made_up("csv", [1, 3], "siren")
    own.table["testable"] = [True, False]
    assert mix_manifests([own, SECOND], [1, 1]).table["testable"].tolist() == [True, False, False, False]


def test_every_dataset_needs_a_weight() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mix_manifests([FIRST, SECOND], [1])
