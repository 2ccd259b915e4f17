"""A table of your own: texts, spans, folds, and errors that give the line to mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapkit.data import csv_table
from clapkit.data.manifest import COLUMNS
from clapkit.data.splits import make_split
from clapkit.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one-second sounds ``a.wav`` to ``d.wav``."""
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.wav", np.full(8_000, 0.1), 8_000)
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    file = folder / "table.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def error_of(file: Path) -> str:
    """The message of the DatasetError, which must be one line that begins with the file."""
    with pytest.raises(DatasetError) as caught:
        csv_table.load(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)


# What a table says


def test_paths_are_relative_to_the_table_and_each_is_its_own_recording(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,label", "a.wav,dog", f"{folder}/b.wav,cat"))
    assert manifest.table["path"].tolist() == [str(folder / "a.wav"), str(folder / "b.wav")]
    assert manifest.table["source"].tolist() == manifest.table["path"].tolist()
    assert tuple(manifest.table.columns) == COLUMNS


def test_texts_that_repeat_are_labels(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,text", "a.wav,Dog_Bark", "b.wav,cat", "c.wav,cat", "d.wav,Dog_Bark"))
    assert manifest.labels == ("dog bark", "cat")
    assert manifest.table["label"].tolist() == ["dog bark", "cat", "cat", "dog bark"]
    assert manifest.table["caption"].isna().all()


def test_a_weight_is_how_often_a_clip_is_drawn(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,label,weight", "a.wav,dog,0.5", "b.wav,cat,", "c.wav,cat,2"))
    assert manifest.table["weight"].tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("weight", ["0", "-1", "often", "inf", "nan"])
def test_a_weight_that_is_none_is_refused(folder: Path, weight: str) -> None:
    assert f"line 2: weight '{weight}'" in error_of(write(folder, "path,label,weight", f"a.wav,dog,{weight}"))


def test_texts_that_do_not_repeat_are_captions(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,text", "a.wav,a dog barks", "b.wav,a cat", "c.wav,a dog barks"))
    assert manifest.labels == ()
    assert manifest.table["caption"].tolist() == ["a dog barks", "a cat", "a dog barks"]
    assert manifest.table["label"].isna().all()


def test_label_and_caption_columns_are_taken_at_their_word(folder: Path) -> None:
    lines = ["path,label,caption", "a.wav,dog,it barks", 'b.wav,cat,"soft, slow purring"']
    manifest = csv_table.load(write(folder, *lines))
    assert manifest.table["label"].tolist() == ["dog", "cat"]
    assert manifest.table["caption"].tolist() == ["it barks", "soft, slow purring"]


def test_a_row_may_have_a_label_or_a_caption(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,label,caption", "a.wav,dog,", "b.wav,,a cat purrs"))
    assert manifest.labels == ("dog",)
    assert manifest.table["label"].isna().tolist() == [False, True]


def test_numbers_are_texts_too(folder: Path) -> None:
    assert csv_table.load(write(folder, "path,label", "a.wav,1", "b.wav,2")).labels == ("1", "2")


def test_words_that_pandas_takes_for_nothing_are_texts_too(folder: Path) -> None:
    assert csv_table.load(write(folder, "path,label", "a.wav,None", "b.wav,null")).labels == ("none", "null")


def test_spans_sources_and_folds_are_kept(folder: Path) -> None:
    lines = ["a.wav,dog,0.25,0.5,r1,1", "a.wav,cat,0.5,,r1,2", "b.wav,cat,,,r2,2"]
    manifest = csv_table.load(write(folder, "path,label,start_s,end_s,source,fold", *lines))
    assert manifest.table["start_s"].tolist() == pytest.approx([0.25, 0.5, np.nan], nan_ok=True)
    assert manifest.table["end_s"].tolist() == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert manifest.table["source"].tolist() == ["r1", "r1", "r2"]
    assert manifest.folds == [1, 2]


def test_a_row_without_source_is_its_own_recording(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,label,source", "a.wav,dog,r1", "b.wav,cat,", "c.wav,cat,"))
    assert manifest.table["source"].tolist() == ["r1", str(folder / "b.wav"), str(folder / "c.wav")]


def test_several_labels_are_tags(folder: Path) -> None:
    manifest = csv_table.load(write(folder, "path,tags", "a.wav,Dog_Bark; siren;", "b.wav,siren;siren", "c.wav,cat"))
    assert manifest.labels == ("dog bark", "siren", "cat")
    assert manifest.table["tags"].tolist() == [("dog bark", "siren"), ("siren",), ("cat",)]
    assert manifest.table["label"].isna().all()


def test_a_table_may_mix_labels_tags_and_captions(folder: Path) -> None:
    lines = ["a.wav,dog,,", "b.wav,,siren;cat,", "c.wav,,,it rains"]
    manifest = csv_table.load(write(folder, "path,label,tags,caption", *lines))
    assert manifest.labels == ("dog", "siren", "cat")
    assert manifest.table["tags"].isna().tolist() == [True, False, True]
    assert manifest.table["caption"].isna().tolist() == [True, True, False]


def test_a_split_column_is_followed(folder: Path) -> None:
    lines = ["a.wav,dog,train", "b.wav,cat,Test", "c.wav,cat,", "d.wav,cat,val"]
    manifest = csv_table.load(write(folder, "path,label,split", *lines))
    assert manifest.table["fold"].tolist() == [1, 2, 1, 3]
    split = make_split(manifest, val_fold=3)
    parts = [[Path(path).stem for path in part["path"]] for part in (split.train, split.validation, split.test)]
    assert parts == [["a", "c"], ["d"], ["b"]]
    assert len(make_split(manifest).train) == 3


@pytest.mark.parametrize(("splits", "n_tested"), [(("train", "train", "val", ""), 1), (("train",) * 4, 2)])
def test_a_split_column_without_test_clips_tests_others(folder: Path, splits: tuple[str, ...], n_tested: int) -> None:
    labelled = ("a.wav,dog", "b.wav,dog", "c.wav,cat", "d.wav,cat")
    lines = [f"{cells},{split}" for cells, split in zip(labelled, splits, strict=True)]
    split = make_split(csv_table.load(write(folder, "path,label,split", *lines)))
    assert len(split.test) == n_tested
    assert len(split.train) == 4 - n_tested


def test_without_folds_there_are_none(folder: Path) -> None:
    assert csv_table.load(write(folder, "path,label", "a.wav,dog", "b.wav,cat")).folds == []


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Path) -> None:
    assert csv_table.load(write(folder, "\ufeffpath,label", "a.wav,dog")).labels == ("dog",)


# What is wrong with a table


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.csv")


def test_a_folder_in_place_of_the_table_is_named(folder: Path) -> None:
    error_of(folder)


@pytest.mark.parametrize(
    "content",
    [b"", bytes(range(256)), "path,label\na.wav,Möwe\n".encode("latin-1"), b"path,label\na.wav,dog\nb.wav,cat,x,y\n"],
    ids=["empty", "binary", "latin-1", "ragged"],
)
def test_a_file_that_is_no_table_is_refused(folder: Path, content: bytes) -> None:
    (folder / "table.csv").write_bytes(content)
    assert "not a readable CSV" in error_of(folder / "table.csv")


def test_a_table_without_rows_is_refused(folder: Path) -> None:
    assert "has no rows" in error_of(write(folder, "path,text"))


def test_a_table_without_paths_says_what_it_found(folder: Path) -> None:
    assert "lacks the column(s) path; found file, text" in error_of(write(folder, "file,text", "a.wav,dog"))


def test_a_table_without_texts_says_what_to_add(folder: Path) -> None:
    assert "lacks a text column; add one of text, label, tags, caption" in error_of(write(folder, "path", "a.wav"))


@pytest.mark.parametrize("column", ["text", "label", "tags", "caption"])
@pytest.mark.parametrize("cell", ["", '"  "'])
def test_a_line_without_text_is_numbered(folder: Path, column: str, cell: str) -> None:
    message = error_of(write(folder, f"path,{column}", "a.wav,dog", f"b.wav,{cell}"))
    assert f"line 3: {folder / 'b.wav'} has no text" in message


def test_a_line_without_path_is_numbered(folder: Path) -> None:
    message = error_of(write(folder, "path,label", "a.wav,dog", ",cat"))
    assert "line 3" in message
    assert "nan" not in message


def test_a_line_whose_file_is_missing_is_numbered(folder: Path) -> None:
    message = error_of(write(folder, "path,label", "a.wav,dog", "gone.wav,cat"))
    assert f"line 3: {folder / 'gone.wav'} is missing" in message


def test_blank_lines_count_as_lines(folder: Path) -> None:
    assert "line 4" in error_of(write(folder, "path,label", "a.wav,dog", "", "gone.wav,cat"))


@pytest.mark.parametrize(("start", "end"), [("0.5", "0.25"), ("0.5", "0.5"), ("", "0")])
def test_a_span_that_ends_before_it_starts_is_numbered(folder: Path, start: str, end: str) -> None:
    message = error_of(write(folder, "path,label,start_s,end_s", "a.wav,dog,0,1", f"b.wav,cat,{start},{end}"))
    assert "line 3: end_s" in message
    assert "is not after start_s" in message
    assert "nan" not in message


@pytest.mark.parametrize(
    "span",
    ["-0.5,0.5", "soon,1", "0,later"],
)
def test_a_span_that_is_no_time_is_numbered(folder: Path, span: str) -> None:
    assert "line 3" in error_of(write(folder, "path,label,start_s,end_s", "a.wav,dog,0,1", f"b.wav,cat,{span}"))


@pytest.mark.parametrize("fold", ["one", "1.5"])
def test_a_fold_that_is_no_number_is_numbered(folder: Path, fold: str) -> None:
    assert "line 3" in error_of(write(folder, "path,label,fold", "a.wav,dog,1", f"b.wav,cat,{fold}"))


def test_a_split_of_another_name_is_numbered(folder: Path) -> None:
    message = error_of(write(folder, "path,label,split", "a.wav,dog,train", "b.wav,cat,dev"))
    assert "line 3: split 'dev' is unknown; expected train, val or test." in message


def test_a_line_with_a_label_and_tags_is_numbered(folder: Path) -> None:
    message = error_of(write(folder, "path,label,tags", "a.wav,,dog;cat", "b.wav,cat,dog"))
    assert "line 3: has a label and tags" in message


def test_tags_of_separators_alone_are_no_text(folder: Path) -> None:
    assert "line 2" in error_of(write(folder, "path,tags", "a.wav, ; "))
