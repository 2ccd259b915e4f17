"""Vectors for other programs: the same as in an index, whole or not at all, with what the user knows of the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clapkit.errors import AudioError, ClapkitError, StorageError
from clapkit.model import AudioTextModel
from clapkit.search import engines
from clapkit.search.export import embed_sounds, export_index
from clapkit.search.index import AudioIndex
from clapkit.search.store import changing


@pytest.fixture
def metadata(sounds: Path) -> pd.DataFrame:
    """The eighteen sounds with a number and a word that is not known of all."""
    paths = sorted(map(str, sounds.rglob("*.wav")))
    return pd.DataFrame({"path": paths, "fold": range(len(paths)), "place": ["here", None, "there"] * 6})


def stop_after(monkeypatch: pytest.MonkeyPatch, n_files: int) -> list[str]:
    """Interrupt embedding once this many files are done, two in a part; gives the list of what is embedded."""
    monkeypatch.setattr("clapkit.search.parts.PART_FILES", 2)
    real, embedded = engines.embed_part, []

    def stopping(model: AudioTextModel, files: pd.DataFrame, *rest: object, **options: object) -> object:
        if len(embedded) == n_files:
            raise KeyboardInterrupt
        embedded.extend(files["path"])
        return real(model, files, *rest, **options)

    monkeypatch.setattr(engines, "embed_part", stopping)
    return embedded


def vectors(table: pd.DataFrame) -> np.ndarray:
    return np.stack(table["vector"].to_list())


def test_a_file_of_vectors_holds_what_an_index_holds(
    tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path
) -> None:
    done = embed_sounds(tiny_model, metadata, tmp_path / "new" / "vectors.parquet", overlap=0.25)
    table = pd.read_parquet(tmp_path / "new" / "vectors.parquet")
    assert table.columns.tolist() == ["path", "start_s", "end_s", "fold", "place", "vector"]
    indexed = AudioIndex.build(tiny_model, metadata, overlap=0.25).to_pandas()
    assert (done.n_files, done.n_rows, done.bad_files) == (18, len(indexed), [])
    both = table.merge(indexed, on=["path", "start_s", "end_s", "fold"])
    assert len(both) == len(table) == len(indexed)
    assert np.array_equal(np.stack(both["vector_x"].to_list()), np.stack(both["vector_y"].to_list()))
    assert table["place"].isna().any()
    about = json.loads(pq.read_schema(tmp_path / "new" / "vectors.parquet").metadata[b"clapkit"])
    assert about["fingerprint"] == tiny_model.fingerprint
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vectors.parquet"]


def test_one_vector_per_file_is_the_mean_of_its_windows(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    embed_sounds(tiny_model, sounds, tmp_path / "windows.parquet")
    embed_sounds(tiny_model, sounds, tmp_path / "files.parquet", per_file=True)
    windows, files = pd.read_parquet(tmp_path / "windows.parquet"), pd.read_parquet(tmp_path / "files.parquet")
    assert (len(files), files["path"].nunique()) == (18, 18)
    assert len(windows) > 18
    for _, row in files.iterrows():
        own = windows[windows["path"] == row["path"]]
        mean = vectors(own).mean(axis=0)
        np.testing.assert_allclose(row["vector"], mean / np.linalg.norm(mean), atol=1e-6)
        assert (row["start_s"], row["end_s"]) == (own["start_s"].min(), own["end_s"].max())


def test_bad_files_are_left_out_and_named(tiny_model: AudioTextModel, sounds: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    done = embed_sounds(tiny_model, [sounds / "low", bad], tmp_path / "v.parquet")
    assert done.n_files == 6
    assert "bad.wav" in done.bad_files[0]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        embed_sounds(tiny_model, [sounds / "low", bad], tmp_path / "strict.parquet", strict=True)
    with pytest.raises(AudioError, match="none of the 1 file"):
        embed_sounds(tiny_model, bad, tmp_path / "none.parquet")
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"bad.wav", "v.parquet", "strict.parquet.building"}


def test_a_file_that_is_there_stays_unless_told_otherwise(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path
) -> None:
    file = tmp_path / "v.parquet"
    file.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        embed_sounds(tiny_model, sounds / "low", file)
    assert file.read_text() == "mine"
    embed_sounds(tiny_model, sounds / "low", file, overwrite=True)
    assert pd.read_parquet(file)["path"].nunique() == 6


def test_what_was_embedded_before_a_kill_is_not_embedded_again(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        embed_sounds(tiny_model, sounds, tmp_path / "v.parquet")
    assert not (tmp_path / "v.parquet").exists()
    first = list(embedded)
    embedded[:] = [""]  # no longer four: it goes on to the end
    embed_sounds(tiny_model, sounds, tmp_path / "v.parquet")
    assert len(embedded) == 1 + 14
    assert not set(first) & set(embedded)
    assert pd.read_parquet(tmp_path / "v.parquet")["path"].nunique() == 18


def test_an_index_is_exported_without_what_was_removed(
    tiny_model: AudioTextModel, metadata: pd.DataFrame, sounds: Path, tmp_path: Path
) -> None:
    index = AudioIndex.build(tiny_model, metadata.iloc[:9], tmp_path / "index")
    index.add(metadata.iloc[9:])
    index.remove([metadata["path"][0]])
    done = export_index(tmp_path / "index", tmp_path / "v.parquet", to="parquet")
    table, own = pd.read_parquet(tmp_path / "v.parquet"), index.to_pandas()
    assert (done.n_files, done.n_rows) == (17, len(own))
    assert table["id"].tolist() == own["id"].tolist()
    assert np.array_equal(vectors(table), vectors(own))
    assert table["fold"].tolist() == own["fold"].tolist()
    with pytest.raises(StorageError, match="exists already"):
        export_index(tmp_path / "index", tmp_path / "v.parquet", to="parquet")


def test_lancedb_finds_what_the_index_finds(tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    index = AudioIndex.build(tiny_model, metadata, tmp_path / "index")
    for _ in range(2):  # the second time it takes the first one's place
        export_index(tmp_path / "index", tmp_path / "lance", to="lancedb", overwrite=True)
    table = lancedb.connect(tmp_path / "lance").open_table("sounds")
    assert table.count_rows() == len(index)
    query = tiny_model.embed_text(["low"])[0]
    asked = table.search(query).distance_type("cosine").where("fold >= 6", prefilter=True).limit(5).to_pandas()
    (expected,) = [each for _, each in index.search_batch(query[None], 5, where="fold >= 6").groupby("query")]
    assert asked["id"].tolist() == expected["id"].tolist()
    np.testing.assert_allclose(1 - asked["_distance"], expected["score"], atol=1e-5)


def test_without_the_extra_it_is_named(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    AudioIndex.build(tiny_model, sounds / "low", tmp_path / "index")
    with pytest.raises(ClapkitError, match=r"pip install 'clapkit\[lancedb\]'"):
        export_index(tmp_path / "index", tmp_path / "lance", to="lancedb")
    with pytest.raises(ClapkitError, match=r"pip install 'clapkit\[cluster\]'"):
        embed_sounds(tiny_model, sounds / "low", tmp_path / "v.parquet", engine="ray")
    assert not (tmp_path / "lance").exists()


def test_embed_and_export_as_typed(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    done = cli("embed", sounds / "low", "--output", tmp_path / "v.parquet", "--checkpoint", tiny_run, "--per-file")
    assert done.code == 0, done.err
    assert done.out == f"6 files, 6 vectors of 32 numbers in {tmp_path / 'v.parquet'}\n"
    again = cli("embed", sounds / "low", "--output", tmp_path / "v.parquet", "--checkpoint", tiny_run)
    assert again.code == 2
    assert "--overwrite" in again.err
    cli("index", sounds / "low", "--output", tmp_path / "index", "--checkpoint", tiny_run)
    done = cli("index-export", tmp_path / "index", "--to", "parquet", "--output", tmp_path / "index.parquet")
    assert done.out.startswith("6 files, ")
    assert cli("embed", "--output", tmp_path / "none.parquet", "--checkpoint", tiny_run).code == 2


@pytest.mark.slow
def test_ray_embeds_as_this_machine_does(
    cli: Callable, tiny_run: Path, tiny_model: AudioTextModel, sounds: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("ray")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    words = ("index", sounds, bad, "--checkpoint", tiny_run, "--engine", "ray", "--output")
    strict = cli(*words, tmp_path / "index", "--strict")
    assert strict.code == 2
    assert "bad.wav" in strict.err
    done = cli(*words, tmp_path / "index")  # goes on where the strict one stopped
    assert done.code == 0, done.err
    assert "1 of 19 files were skipped" in done.err
    ours = AudioIndex.build(tiny_model, sounds).to_pandas()
    theirs = AudioIndex.load(tmp_path / "index", tiny_model).to_pandas()
    both = ours.merge(theirs, on=["path", "start_s", "end_s"])
    assert len(both) == len(ours) == len(theirs)
    np.testing.assert_allclose(
        np.stack(both["vector_x"].to_list()), np.stack(both["vector_y"].to_list()), rtol=0, atol=1e-6
    )
    monkeypatch.setitem(vars(tiny_model), "fingerprint", {"weights": "0", "preprocessing": "0"})  # here, not there
    with pytest.raises(ClapkitError, match="another model under this name"):
        embed_sounds(tiny_model, sounds, tmp_path / "v.parquet", engine="ray")


def test_a_folder_in_the_way_is_left_alone(tiny_model: AudioTextModel, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "v.parquet.building").mkdir()
    (tmp_path / "v.parquet.building" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="in the way"):
        embed_sounds(tiny_model, sounds / "low", tmp_path / "v.parquet")
    assert (tmp_path / "v.parquet.building" / "thesis.txt").read_text() == "mine"
    with pytest.raises(StorageError, match="is a folder"):
        embed_sounds(tiny_model, sounds / "low", tmp_path, overwrite=True)


def test_two_at_once_do_not_mix(tiny_model: AudioTextModel, sounds: Path, tmp_path: Path) -> None:
    with changing(tmp_path / "v.parquet.building"), pytest.raises(StorageError, match="another clapkit"):
        embed_sounds(tiny_model, sounds / "low", tmp_path / "v.parquet")
    embed_sounds(tiny_model, sounds / "low", tmp_path / "v.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["v.parquet"]


def test_another_overlap_starts_anew(
    tiny_model: AudioTextModel, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        embed_sounds(tiny_model, sounds, tmp_path / "v.parquet", overlap=0.75)
    monkeypatch.undo()
    embed_sounds(tiny_model, sounds, tmp_path / "v.parquet", overlap=0)
    embed_sounds(tiny_model, sounds, tmp_path / "expected.parquet", overlap=0)
    table, expected = pd.read_parquet(tmp_path / "v.parquet"), pd.read_parquet(tmp_path / "expected.parquet")
    assert table[["path", "start_s"]].equals(expected[["path", "start_s"]])


def test_large_numbers_and_any_name_survive_a_stop(
    tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = metadata.assign(n=2**60 + np.arange(len(metadata)), found="a", done="b", known="c", **{"x.y": 1})
    metadata[7] = 8
    stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        embed_sounds(tiny_model, metadata, tmp_path / "v.parquet")
    monkeypatch.undo()
    embed_sounds(tiny_model, metadata.iloc[1:], tmp_path / "v.parquet", per_file=True)
    table = pd.read_parquet(tmp_path / "v.parquet").sort_values("path")
    assert table["n"].tolist() == metadata["n"].tolist()[1:]
    assert table["7"].tolist() == [8] * 17
    index = AudioIndex.build(tiny_model, metadata, tmp_path / "index")
    index.add(metadata)
    assert len(index.search_batch(["low"], 5, where="found == 'a'")) == 5
    with pytest.raises(ClapkitError, match=r"'x\.y'"):
        export_index(tmp_path / "index", tmp_path / "lance", to="lancedb")


@pytest.mark.parametrize("name", ["vector", "score", "query", "id"])
def test_names_that_tables_of_an_index_use_are_refused(
    name: str, tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match=f"'{name}'"):
        AudioIndex.build(tiny_model, metadata.assign(**{name: 1}))


def test_columns_of_several_types_are_refused_before_anything_is_embedded(
    tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path
) -> None:
    mixed = metadata.assign(fold=[1, "a"] * 9)
    with pytest.raises(ClapkitError, match="'fold': has values of several types"):
        embed_sounds(tiny_model, mixed, tmp_path / "v.parquet")
    index = AudioIndex.build(tiny_model, metadata.iloc[:9], tmp_path / "index")
    with pytest.raises(ClapkitError, match="'fold': has values of several types"):
        index.add(metadata.iloc[9:].assign(fold="a"))
    assert index.n_files == 9


def test_an_index_whose_parts_have_other_columns_is_searched_and_exported(
    tiny_model: AudioTextModel, metadata: pd.DataFrame, tmp_path: Path
) -> None:
    index = AudioIndex.build(tiny_model, metadata.iloc[:9], tmp_path / "index")
    index.add([metadata["path"][12]])
    assert set(index.search_batch(["low"], 50, where="fold == 2")["path"]) == {metadata["path"][2]}
    export_index(tmp_path / "index", tmp_path / "v.parquet", to="parquet")
    table = pd.read_parquet(tmp_path / "v.parquet").drop_duplicates("path").set_index("path")["fold"]
    assert table.isna().to_dict() == {
        path: number == 12 for number, path in enumerate(metadata["path"]) if path in table
    }


def test_a_row_without_a_path_is_named_by_its_line(cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    file = sounds.parent / "empty.csv"
    file.write_text(f"path,fold\n{sounds / 'low' / '0.wav'},1\n,2\n")
    failed = cli("embed", "--metadata", file, "--output", tmp_path / "v.parquet", "--checkpoint", tiny_run)
    assert failed.code == 2
    assert "empty.csv, line 3" in failed.err


def test_sounds_that_are_named_get_what_a_csv_says_of_them(
    cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path
) -> None:
    file = sounds.parent / "own.csv"
    file.write_text(f"path,fold\n{sounds.name}/low/0.wav,1\nelsewhere.wav,2\n")
    options = ("--metadata", file, "--checkpoint", tiny_run)
    built = cli("index", sounds / "low", "--output", tmp_path / "own", *options)
    assert built.code == 0, built.err
    table = AudioIndex.load(tmp_path / "own").to_pandas().drop_duplicates("path").set_index("path")["fold"]
    assert len(table) == len(list((sounds / "low").iterdir()))
    assert table.dropna().to_dict() == {str((sounds / "low" / "0.wav").resolve()): 1}
    new = sounds / "low" / "new.wav"
    new.write_bytes((sounds / "low" / "0.wav").read_bytes())
    assert "1 files added" in cli("index-update", tmp_path / "own").out
    new.unlink()
    failed = cli("index", sounds / "high", "--output", tmp_path / "other", *options)
    assert failed.code == 2
    assert "none of its 2 paths is among the sounds" in failed.err


def test_only_parquet_files_are_written_or_replaced(
    cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken.wav"
    taken.write_text("mine")
    failed = cli("embed", sounds / "low", "--output", taken, "--overwrite", "--checkpoint", tiny_run)
    assert failed.code == 2
    assert "expected a name such as taken.parquet" in failed.err
    assert taken.read_text() == "mine"
