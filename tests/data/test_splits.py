"""Recordings never part, leaks are named, and the note says what really trains, is watched and is tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clapkit.data import esc50, us8k
from clapkit.data.manifest import Manifest, make_table
from clapkit.data.mixture import mix_manifests
from clapkit.data.splits import Split, check_leakage, leaks, make_split
from clapkit.errors import DatasetError


def with_folds(*folds: int, recordings: int = 1) -> Manifest:
    """Two clips of each recording, and as many recordings per fold."""
    names = [(fold, number) for fold in folds for number in range(recordings) for _ in (0, 1)]
    table = make_table(
        path=[f"{fold}-{number}-{clip % 2}.wav" for clip, (fold, number) in enumerate(names)],
        label=["dog"] * len(names), fold=[fold for fold, _ in names],
        source=[f"r{fold}-{number}" for fold, number in names],
    )  # fmt: skip
    return Manifest("made up", table, ("dog",), "")


def with_sources(n_per_label: dict[str | None, int]) -> Manifest:
    """Three clips of each recording."""
    recordings = [(label, f"{label}-{number}") for label, count in n_per_label.items() for number in range(count)]
    labels, sources = zip(*[recording for recording in recordings for _ in range(3)], strict=True)
    table = make_table(path=[f"{clip}.wav" for clip in range(len(labels))], label=list(labels), source=list(sources))
    return Manifest("made up", table, tuple(n_per_label), "")


def rows(*clips: tuple[str, str]) -> pd.DataFrame:
    """Rows of path and source."""
    return make_table(path=[path for path, _ in clips], source=[source for _, source in clips])


def assert_parts(split: Split, manifest: Manifest) -> None:
    """Every clip is in one part, and no recording in two."""
    parts = (split.train, split.validation, split.test)
    assert sorted(path for part in parts for path in part["path"]) == sorted(manifest.table["path"])
    assert_unshared(split)


def assert_unshared(split: Split) -> None:
    train, validation, test = (set(part["source"]) for part in (split.train, split.validation, split.test))
    assert train.isdisjoint(validation)
    assert (train | validation).isdisjoint(test)


def error_of(manifest: Manifest, **options: object) -> str:
    with pytest.raises(DatasetError) as caught:
        make_split(manifest, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# By fold


def test_the_chosen_fold_is_tested_and_the_others_train() -> None:
    manifest = with_folds(1, 2, 3)
    split = make_split(manifest, test_fold=2, default_fold=1)
    assert_parts(split, manifest)
    assert set(split.test["fold"]) == {2}
    assert split.validation.empty
    assert not split.leaky
    assert split.note == "training on fold 1, 3, tested on the unseen fold 2"


@pytest.mark.parametrize(("folds", "default", "chosen"), [((1, 5, 10), 10, 10), ((2, 5, 7), 10, 7), ((1, 2), None, 2)])
def test_without_a_choice_it_is_the_default_fold_or_the_last(folds: tuple, default: int | None, chosen: int) -> None:
    assert set(make_split(with_folds(*folds), default_fold=default).test["fold"]) == {chosen}


@pytest.mark.parametrize("fold", [4, -1])
def test_a_fold_that_is_not_there_is_answered_with_those_that_are(fold: int) -> None:
    assert error_of(with_folds(1, 2), test_fold=fold) == (
        f"test fold {fold} of made up is not there; the folds at hand are 1, 2."
    )
    assert error_of(with_folds(1, 2), val_fold=fold).startswith(f"validation fold {fold} of made up is not there")


def test_a_single_fold_leaves_nothing_to_train_on() -> None:
    assert "no clip is left to train on" in error_of(with_folds(3))


def test_a_recording_in_two_folds_is_left_out_of_training_and_named() -> None:
    manifest = with_folds(1, 2, recordings=2)
    manifest.table.loc[[0, 1], "source"] = "r2-0"
    split = make_split(manifest, test_fold=2)
    assert len(split.train) == 2
    assert_unshared(split)
    assert split.note.endswith("; left out of training: 2 clips that share 1 recording (r2-0) with the test")
    assert check_leakage(split) == "leakage check: none of 1 training recordings is in the test"


def test_a_file_in_two_folds_is_left_out_whatever_its_sources() -> None:
    manifest = with_folds(1, 2, recordings=2)
    manifest.table.loc[0, "path"] = manifest.table["path"].iloc[-1]
    assert len(make_split(manifest, test_fold=2).train) == 3


def test_fold_0_tests_nothing_and_the_note_counts_what_trains() -> None:
    manifest = with_folds(1, 2, recordings=5)
    split = make_split(manifest, test_fold=0)
    assert split.test.empty
    assert split.note == "training on 20 clips, no test"
    watched = make_split(manifest, test_fold=0, val_fold=2)
    assert watched.note == "training on 10 clips, no test; 10 clips of 5 training recordings watched"
    assert check_leakage(watched) == "leakage check: none of 10 training recordings is in the test"


# By recording


def test_a_part_of_each_labels_recordings_is_tested() -> None:
    manifest = with_sources({"dog": 10, "cat": 5, "owl": 2})
    split = make_split(manifest)
    assert_parts(split, manifest)
    assert split.test.drop_duplicates("source")["label"].value_counts().to_dict() == {"dog": 2, "cat": 1, "owl": 1}
    assert split.note == "training on 39 clips, tested on 12 of 4 unseen recordings"


@pytest.mark.parametrize("test_part", [0.01, 0.5, 0.99])
def test_every_label_keeps_a_recording_on_both_sides(test_part: float) -> None:
    manifest = with_sources({"dog": 10, "cat": 2})
    split = make_split(manifest, test_part=test_part)
    assert_parts(split, manifest)
    assert set(split.train["label"]) == set(split.test["label"]) == {"dog", "cat"}


def test_a_label_with_one_recording_only_trains() -> None:
    split = make_split(with_sources({"dog": 3, "owl": 1}), test_part=0.3)
    assert "owl" in set(split.train["label"])
    assert "owl" not in set(split.test["label"])


@pytest.mark.parametrize("kind", ["official", "random"])
def test_the_seed_decides_the_draw(kind: str) -> None:
    splits = [make_split(with_sources({"dog": 30}), kind=kind, seed=seed, validation_part=0.1) for seed in (0, 0, 1)]
    for part in ("test", "validation"):
        drawn = [tuple(getattr(split, part)["path"]) for split in splits]
        assert drawn[0] == drawn[1] != drawn[2]


def test_captions_and_several_labels_are_split_too() -> None:
    manifest = with_sources({None: 10})
    assert make_split(manifest).test["source"].nunique() == 2
    tagged = with_sources({"dog": 10, "cat": 10})
    tags = [(label, "animal") for label in tagged.table["label"]]
    table = tagged.table.assign(label=None, tags=pd.Series(tags, dtype=object))
    split = make_split(replace(tagged, table=table))
    assert_parts(split, tagged)
    assert split.test["tags"].value_counts().to_dict() == {("dog", "animal"): 6, ("cat", "animal"): 6}


def test_one_recording_per_label_cannot_be_split() -> None:
    assert "expected at least two recordings of a label" in error_of(with_sources({"dog": 1, "cat": 1}))


def test_folds_that_are_named_where_there_are_none_are_refused() -> None:
    manifest = with_sources({"dog": 10})
    assert "made up has no folds, so --test-fold 2" in error_of(manifest, test_fold=2)
    assert "made up has no folds, so --val-fold 2" in error_of(manifest, val_fold=2)


# Validation


@pytest.mark.parametrize("manifest", [with_folds(1, 2, 3, recordings=10), with_sources({"dog": 20, "cat": 9})])
@pytest.mark.parametrize("seed", range(5))
def test_validation_by_recording_shares_no_source_with_train_or_test(manifest: Manifest, seed: int) -> None:
    split = make_split(manifest, validation_part=0.1, seed=seed)
    assert_parts(split, manifest)
    assert len(split.validation) > 0
    assert set(split.validation["label"]) == set(manifest.labels)
    n_recordings = split.validation["source"].nunique()
    assert split.note.endswith(f"; {len(split.validation)} clips of {n_recordings} training recordings watched")


def test_looking_at_validation_clips_does_not_change_the_test() -> None:
    manifest = with_sources({"dog": 20})
    assert make_split(manifest, validation_part=0.3).test.equals(make_split(manifest).test)


def test_a_training_fold_may_be_watched() -> None:
    manifest = with_folds(1, 2, 3)
    split = make_split(manifest, test_fold=1, val_fold=3, validation_part=0.5)
    assert_parts(split, manifest)
    assert set(split.validation["fold"]) == {3}
    assert split.note == ("training on fold 2, tested on the unseen fold 1; 2 clips of 1 training recordings watched")


@pytest.mark.parametrize("options", [{"test_fold": 2}, {"default_fold": 2}])
def test_the_test_fold_is_never_watched(options: dict[str, int]) -> None:
    assert error_of(with_folds(1, 2, 3), val_fold=2, **options) == (
        "--val-fold 2: is the test fold; choose another of 1, 2, 3."
    )


def test_clips_beside_watched_ones_are_dropped_and_counted() -> None:
    manifest = with_folds(1, 2, 3, recordings=2)
    manifest.table.loc[manifest.table["source"] == "r1-0", "source"] = "r3-0"
    split = make_split(manifest, test_fold=2, val_fold=3)
    assert_unshared(split)
    assert len(split.train) == 2
    assert split.note.endswith("; left out of training: 2 clips that share 1 recording (r3-0) with the watched ones")


def test_a_watched_fold_that_the_test_shares_is_refused() -> None:
    manifest = with_folds(1, 2, 3)
    manifest.table.loc[manifest.table["fold"] == 3, "source"] = "r2-0"
    assert "--val-fold 3: all its recordings are in the test too" in error_of(manifest, test_fold=2, val_fold=3)


def test_nothing_to_watch_is_said() -> None:
    assert "no recording can be watched" in error_of(with_folds(1, 2), validation_part=0.1)


# At random


def test_a_random_split_leaks_and_says_how_much() -> None:
    manifest = with_sources({"dog": 10})
    split = make_split(manifest, kind="random")
    assert split.leaky
    assert (len(split.train), len(split.validation), len(split.test)) == (24, 0, 6)
    assert split.note == "a random split: training on 24 clips, tested on 6, recordings ignored"
    n_leaky = sum(source in set(split.train["source"]) for source in split.test["source"])
    assert n_leaky > 0
    assert check_leakage(split).startswith(f"LEAKY: {n_leaky} of 6 test clips come from recordings that are trained on")


def test_a_random_split_watches_clips_at_random() -> None:
    manifest = with_folds(1, 2, recordings=25)
    split = make_split(manifest, kind="random", validation_part=0.1)
    assert (len(split.train), len(split.validation), len(split.test)) == (72, 8, 20)
    parts = (split.train, split.validation, split.test)
    assert sorted(path for part in parts for path in part["path"]) == sorted(manifest.table["path"])
    assert split.test.equals(make_split(manifest, kind="random").test)
    assert split.note.endswith("; 8 clips watched")


def test_a_random_split_that_shares_by_validation_alone_is_no_bug() -> None:
    split = Split(rows(("a", "r1")), rows(("b", "r1")), rows(("c", "r2")), "", leaky=True)
    assert check_leakage(split).startswith("leakage check: none")


@pytest.mark.parametrize("options", [{"val_fold": 1}, {"test_fold": 1}])
def test_a_random_split_has_no_folds(options: dict[str, int]) -> None:
    assert "a random split ignores folds" in error_of(with_folds(1, 2), kind="random", **options)


def test_one_clip_cannot_be_split_at_random() -> None:
    manifest = with_folds(1)
    assert "at least two" in error_of(replace(manifest, table=manifest.table[:1]), kind="random")


def test_an_unknown_kind_is_refused() -> None:
    assert error_of(with_folds(1, 2), kind="honest") == "split 'honest': unknown; expected official or random."


# The leakage check


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("leak", [("other.wav", "r3"), ("3.wav", "r9"), ("folder/../3.wav", "r9")])
def test_a_planted_leak_is_caught(part: str, leak: tuple[str, str]) -> None:
    split = Split(rows(("1.wav", "r1")), rows(("2.wav", "r2")), rows(("3.wav", "r3")), "")
    assert check_leakage(split) == "leakage check: none of 2 training recordings is in the test"
    planted = replace(split, **{part: pd.concat([getattr(split, part), rows(leak)])})
    assert leaks(getattr(planted, part), planted.test) == [leak[1]]
    with pytest.raises(DatasetError, match=rf"training and test share 1 recording \({leak[1]}\)"):
        check_leakage(planted)


def test_a_link_to_a_tested_file_is_a_leak(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    assert leaks(rows((str(tmp_path / "b.wav"), "r1")), rows((str(tmp_path / "a.wav"), "r2"))) == ["r1"]


def test_validation_that_shares_with_training_is_a_bug() -> None:
    split = Split(rows(("1.wav", "r1")), rows(("2.wav", "r1")), rows(("3.wav", "r3")), "")
    with pytest.raises(DatasetError, match=r"training and validation share 1 recording \(r1\)"):
        check_leakage(split)


def test_many_leaks_are_counted_and_three_named() -> None:
    clips = [(f"{number}.wav", f"r{number}") for number in range(5)]
    with pytest.raises(DatasetError, match=r"share 5 recordings \(r0, r1, r2 and 2 more\)"):
        check_leakage(Split(rows(*clips), rows()[:0], rows(*clips), ""))


# Mixtures


@pytest.mark.parametrize("kind", ["official", "random"])
@pytest.mark.parametrize("first", [with_folds(1, 2, recordings=10), with_sources({"dog": 20})])
def test_only_the_first_dataset_is_tested_or_watched(first: Manifest, kind: str) -> None:
    second = with_sources({"cat": 30})
    paths = [f"second/{path}" for path in second.table["path"]]
    mixed = mix_manifests([first, replace(second, table=second.table.assign(path=paths))], [1.0, 1.0])
    split = make_split(mixed, kind=kind, validation_part=0.2)
    assert set(split.test["label"]) == set(split.validation["label"]) == {"dog"}
    assert (split.train["label"] == "cat").sum() == len(second.table)


def test_a_mixture_trains_on_other_datasets_when_nothing_is_tested() -> None:
    mixed = mix_manifests([with_folds(1, 2), with_sources({"cat": 2})], [1.0, 1.0])
    assert make_split(mixed, test_fold=0).note == "training on 10 clips, no test"
    assert make_split(mixed, test_fold=1).note == (
        "training on fold 2 and 6 clips without a fold, tested on the unseen fold 1"
    )


def lay_out(root: Path, metadata: Path, target: Path, clips: list[str]) -> None:
    """A publisher's layout whose sounds are empty files."""
    (root / target).parent.mkdir(parents=True)
    (root / target).write_bytes(metadata.read_bytes())
    for folder in {Path(clip).parent for clip in clips}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for clip in clips:
        (root / clip).touch()


def test_recordings_that_urbansound8k_and_esc50_share_are_dropped(real_data: Path, tmp_path: Path) -> None:
    metadata = real_data / "us8k" / "UrbanSound8K.csv", real_data / "esc50" / "esc50.csv"
    of_us8k, of_esc50 = map(pd.read_csv, metadata)
    clips = [f"audio/fold{fold}/{file}" for fold, file in zip(of_us8k["fold"], of_us8k["slice_file_name"], strict=True)]
    lay_out(tmp_path / "us8k", metadata[0], us8k.METADATA, clips)
    lay_out(tmp_path / "esc50", metadata[1], esc50.METADATA, [f"audio/{file}" for file in of_esc50["filename"]])
    manifests = [us8k.load(tmp_path / "us8k"), esc50.load(tmp_path / "esc50")]

    n_shared = 0
    for mixed in (mix_manifests(manifests, [1, 1]), mix_manifests(manifests[::-1], [1, 1])):
        for fold in mixed.folds:
            split = make_split(mixed, test_fold=fold, validation_part=0.1)
            assert_unshared(split)
            check_leakage(split)
            others = mixed.table[mixed.table["fold"] == 0]
            shared = set(others["source"]) & set(split.test["source"])
            n_shared += len(shared)
            assert not shared or "left out of training" in split.note
    assert n_shared >= 24
