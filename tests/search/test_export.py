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


@pytest.fixture
def metadata(sounds: Path) -> pd.DataFrame:
    """The eighteen sounds with a number and a word that is not known of all."""
    paths = sorted(map(str, sounds.rglob("*.wav")))
    return pd.DataFrame({"path": paths, "fold": range(len(paths)), "place": ["here", None, "there"] * 6})


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
    monkeypatch.setattr("clapkit.search.parts.PART_FILES", 2)
    real, embedded = engines.embed_part, []

    def stopping(model: AudioTextModel, files: pd.DataFrame, *rest: object, **options: object) -> object:
        if len(embedded) == 4:
            raise KeyboardInterrupt
        embedded.extend(files["path"])
        return real(model, files, *rest, **options)

    monkeypatch.setattr(engines, "embed_part", stopping)
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
