"""FSD50K as its publisher lays it out, several labels for each clip, and what a damaged copy is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapkit.data import fsd50k
from clapkit.data.datasets import PUBLISHED
from clapkit.data.splits import check_leakage, make_split
from clapkit.errors import DatasetError

DEV = [
    '10,"Acoustic_guitar,Guitar,Music","/m/042v_gx,/m/0342h,/m/04rlf",train',
    '11,"Chewing_and_mastication","/m/03cczk",train',
    '12,"Boat_and_Water_vehicle,Vehicle","/m/019jd,/m/07yv9",val',
]
EVAL = ['13,"Music","/m/04rlf"']
VOCABULARY = [
    "0,Acoustic_guitar,/m/042v_gx", "1,Boat_and_Water_vehicle,/m/019jd", "2,Chewing_and_mastication,/m/03cczk",
    "3,Guitar,/m/0342h", "4,Music,/m/04rlf", "5,Vehicle,/m/07yv9", "6,Wind,/m/03m9d0z",
]  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """``copy(dev, evaluation, vocabulary)`` lays out a copy with those rows; its clips are those of the constants."""

    def lay_out(dev: list[str] = DEV, evaluation: list[str] = EVAL, vocabulary: list[str] = VOCABULARY) -> Path:
        for folder, names in (("FSD50K.dev_audio", (10, 11, 12)), ("FSD50K.eval_audio", (13,))):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name in names:
                soundfile.write(tmp_path / folder / f"{name}.wav", np.full(800, 0.1), 8_000)
        (tmp_path / fsd50k.DEV).parent.mkdir(exist_ok=True)
        (tmp_path / fsd50k.DEV).write_text("\n".join(["fname,labels,mids,split", *dev]) + "\n")
        (tmp_path / fsd50k.EVAL).write_text("\n".join(["fname,labels,mids", *evaluation]) + "\n")
        (tmp_path / fsd50k.VOCABULARY).write_text("\n".join(vocabulary) + "\n")
        return tmp_path

    return lay_out


def error_of(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        fsd50k.load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_row_becomes_a_clip_with_tags(copy: Callable[..., Path]) -> None:
    root = copy()
    table = fsd50k.load(root).table
    assert table["path"].tolist()[2:] == [
        str(root / "FSD50K.dev_audio" / "12.wav"), str(root / "FSD50K.eval_audio" / "13.wav"),
    ]  # fmt: skip
    assert table["tags"].tolist() == [
        ("acoustic guitar", "guitar", "music"), ("chewing and mastication",), ("boat and water vehicle", "vehicle"),
        ("music",),
    ]  # fmt: skip
    assert table["source"].tolist() == ["freesound:10", "freesound:11", "freesound:12", "freesound:13"]
    assert table["fold"].tolist() == [1, 1, 2, 3]
    assert table[["label", "caption", "start_s", "end_s"]].isna().all(axis=None)


def test_labels_have_the_vocabularys_order_then_those_it_lacks(copy: Callable[..., Path]) -> None:
    expected = (
        "acoustic guitar", "boat and water vehicle", "chewing and mastication", "guitar", "music", "vehicle", "wind",
    )  # fmt: skip
    assert fsd50k.load(copy()).labels == expected
    assert fsd50k.load(copy(vocabulary=VOCABULARY[3:4])).labels[:3] == ("guitar", "acoustic guitar", "music")


def test_evaluation_is_tested_and_validation_may_be_watched(copy: Callable[..., Path]) -> None:
    split = make_split(fsd50k.load(copy()), default_fold=PUBLISHED["fsd50k"].default_test_fold, val_fold=2)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [2, 1, 1]
    assert check_leakage(split).startswith("leakage check: none")


def test_the_note_says_that_a_subset_was_found(copy: Callable[..., Path]) -> None:
    root = copy()
    note = f"fsd50k at {root}: a subset of 4 of 51197 clips, 4 recordings, folds 1, 2, 3"
    assert fsd50k.load(root).note == note


def test_missing_clips_are_counted_and_the_first_named(copy: Callable[..., Path]) -> None:
    absent = [f"{number},Music,/m/04rlf" for number in range(90, 95)]
    message = error_of(copy(evaluation=[*EVAL, *absent]))
    assert "5 of 9 clips in its CSV are missing" in message
    assert ", ".join(f"FSD50K.eval_audio/{number}.wav" for number in (90, 91, 92)) + " and 2 more" in message


@pytest.mark.parametrize("file", [fsd50k.DEV, fsd50k.EVAL, fsd50k.VOCABULARY])
def test_a_missing_csv_is_named(copy: Callable[..., Path], file: Path) -> None:
    root = copy()
    (root / file).unlink()
    assert error_of(root).startswith(f"{root / file}: no such file")


def test_missing_columns_are_named(copy: Callable[..., Path]) -> None:
    root = copy()
    (root / fsd50k.DEV).write_text("fname,labels\n10,Music\n")
    assert "lacks the column(s) split" in error_of(root)


def test_a_split_of_another_name_is_numbered(copy: Callable[..., Path]) -> None:
    assert "dev.csv, line 3: split 'test': expected train or val." in error_of(copy([DEV[0], "11,Music,/m/04rlf,test"]))


@pytest.mark.parametrize("row", [",Music,/m/04rlf,train", "11,,/m/04rlf,train", "11,Music,/m/04rlf,"])
def test_an_empty_cell_is_numbered(copy: Callable[..., Path], row: str) -> None:
    assert "dev.csv, line 3" in error_of(copy([DEV[0], row]))


def test_real_clips_load(real_data: Path) -> None:
    manifest = fsd50k.load(real_data / "layouts" / "FSD50K")
    assert manifest.table["fold"].tolist() == [1, 2, 3]
    assert manifest.labels[:2] == ("crushing", "electric guitar")
    assert manifest.table["tags"][1] == ("crushing",)
