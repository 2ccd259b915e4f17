"""An index that lasts: adding, updating, removing, merging, filtering, and being killed in the middle of each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import clapkit
from clapkit.errors import AudioError, ClapkitError, IndexMismatchError, StorageError
from clapkit.model import AudioTextModel
from clapkit.search import changes as changes_module
from clapkit.search import engines
from clapkit.search import store as store_module
from clapkit.search.changes import MOST_SEGMENTS, Changes
from clapkit.search.index import AudioIndex
from clapkit.search.parts import Part
from clapkit.search.store import changing
from clapkit.search.verify import verify_index
from tests.conftest import tone


def write(file: Path, frequency_hz: float, duration_s: float = 1.0) -> Path:
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, tone(frequency_hz, duration_s, 22_050), 22_050)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six short sounds in two folders."""
    for number in range(6):
        write(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav", 200.0 + 150 * number)
    return tmp_path / "sounds"


@pytest.fixture
def index(tiny_model: AudioTextModel, folder: Path, tmp_path: Path) -> AudioIndex:
    return AudioIndex.build(tiny_model, folder, tmp_path / "index")


def names(index: AudioIndex) -> list[str]:
    return sorted(Path(path).name for path in index.to_pandas()["path"].unique())


def ids(index: AudioIndex) -> dict[str, int]:
    return {Path(path).name: id_ for path, id_ in index.to_pandas()[["path", "id"]].values}


def vector_of(index: AudioIndex, name: str) -> np.ndarray:
    table = index.to_pandas()
    return table[table["path"].str.endswith(name)]["vector"].iloc[0]


def test_adding_embeds_what_is_new_and_keeps_ids(index: AudioIndex, folder: Path) -> None:
    before = ids(index)
    write(folder / "a" / "new.wav", 900)
    done = index.add(folder)
    assert (done.n_added, done.n_changed, done.n_removed) == (1, 0, 0)
    assert ids(index).items() >= before.items()
    assert len(set(ids(index).values())) == 7
    assert index.add(folder) == Changes()


def test_adding_nothing_usable_is_refused_and_forgotten(index: AudioIndex, folder: Path) -> None:
    before, text = index.facts, folder / "text.wav"
    text.write_text("no sound")
    with pytest.raises(AudioError, match="none of the 1 file"):
        index.add(text)
    assert AudioIndex.load(index.folder, index.model).facts["roots"] == before["roots"]
    done = index.add(folder)  # where something is usable, what is not is listed
    assert (done.n_added, len(done.bad_files)) == (0, 1)


def test_updating_follows_the_folder(index: AudioIndex, folder: Path) -> None:
    before, old = ids(index), vector_of(index, "0.wav")
    write(folder / "a" / "0.wav", 3_000)
    (folder / "b" / "1.wav").unlink()
    write(folder / "c" / "new.wav", 900)
    done = index.update()
    assert (done.n_added, done.n_changed, done.n_removed) == (1, 1, 1)
    assert names(index) == ["0.wav", "2.wav", "3.wav", "4.wav", "5.wav", "new.wav"]
    assert ids(index)["0.wav"] not in before.values()
    assert {name: ids(index)[name] for name in ("2.wav", "3.wav")} == {
        name: before[name] for name in ("2.wav", "3.wav")
    }
    assert float(vector_of(index, "0.wav") @ old) < 0.999
    assert AudioIndex.load(index.folder, index.model).search("x", k=20)[0].path == index.search("x", k=20)[0].path
    assert verify_index(index, 10) == []


def test_only_new_and_changed_files_are_embedded(
    index: AudioIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    real = engines.embed_part
    monkeypatch.setattr(
        engines,
        "embed_part",
        lambda model, files, *a, **k: embedded.extend(files["path"]) or real(model, files, *a, **k),
    )
    write(folder / "a" / "2.wav", 2_500)
    write(folder / "new.wav", 900)
    index.update()
    assert sorted(Path(path).name for path in embedded) == ["2.wav", "new.wav"]


def test_removed_files_are_never_found_again(index: AudioIndex, folder: Path, tiny_model: AudioTextModel) -> None:
    assert index.remove([folder / "a" / "0.wav"]).n_removed == 1
    assert index.remove([folder / "b"]).n_removed == 3
    for opened in (index, AudioIndex.load(index.folder, tiny_model)):
        assert names(opened) == ["2.wav", "4.wav"]
        assert len(opened) == opened.n_files == 2
        assert {Path(hit.path).name for hit in opened.search("low", k=50)} == {"2.wav", "4.wav"}
        assert set(opened.search_batch(["low"], 50)["path"]) == {hit.path for hit in opened.search("low", k=50)}


def test_single_windows_are_removed_by_id(index: AudioIndex) -> None:
    table = index.to_pandas()
    index.remove(ids=[int(table["id"].iloc[0])])
    assert table["path"].iloc[0] not in set(index.to_pandas()["path"])


@pytest.mark.parametrize("what", [{"paths": ["/not/there.wav"]}, {"ids": [99]}])
def test_what_is_not_in_the_index_cannot_be_removed(index: AudioIndex, what: dict) -> None:
    with pytest.raises(IndexMismatchError, match="is not in the index"):
        index.remove(**what)
    assert index.n_files == 6


def test_an_emptied_index_finds_nothing_and_can_be_filled_again(index: AudioIndex, folder: Path) -> None:
    index.remove([folder])
    assert (len(index), index.n_files) == (0, 0)
    assert index.search("low") == []
    assert index.search_batch(["low"]).empty
    assert index.add(folder).n_added == 6
    assert len(index.search("low", k=50)) == 6


def test_many_changes_are_written_as_one_segment_and_ids_stay(index: AudioIndex, folder: Path) -> None:
    for number in range(9):
        write(folder / "more" / f"more-{number}.wav", 300.0 + 90 * number)
        index.add(folder)
        kept = ids(index)
    assert len(index.facts["segments"]) <= MOST_SEGMENTS
    assert ids(index) == kept
    assert len(list((index.folder / "segments").iterdir())) == len(index.facts["segments"])
    index.remove([folder / "a", folder / "b"])
    assert len(index.facts["segments"]) == 1
    assert ids(index) == {name: id_ for name, id_ in kept.items() if name.startswith("more")}


def test_shards_built_apart_are_merged(tiny_model: AudioTextModel, folder: Path, tmp_path: Path) -> None:
    whole = AudioIndex.build(tiny_model, folder, tmp_path / "whole")
    first = AudioIndex.build(tiny_model, folder / "a", tmp_path / "first")
    n_before = first.n_files
    done = first.merge(AudioIndex.build(tiny_model, [folder / "b", folder / "a" / "0.wav"]))
    assert done == Changes(n_added=whole.n_files - n_before)
    assert names(first) == names(whole)
    assert len(first) == len(whole)
    best = [hit.path for hit in whole.search("high", k=6)]
    assert [hit.path for hit in first.search("high", k=6)] == best
    third = AudioIndex.build(tiny_model, write(folder / "c" / "9.wav", 777), tmp_path / "third")
    AudioIndex.load(third.folder, tiny_model).add(write(folder / "c" / "8.wav", 555))  # unknown to `third`
    assert first.merge(third.folder) == Changes(n_added=2)
    apart = AudioIndex.build(tiny_model, folder / "b", overlap=0)
    with pytest.raises(IndexMismatchError, match="hop_s"):
        first.merge(apart)


def test_columns_of_the_users_filter_hits(tiny_model: AudioTextModel, folder: Path) -> None:
    files = sorted(folder.rglob("*.wav"))
    table = pd.DataFrame({"path": files, "fold": [1, 2, 1, 2, 1, 2], "kind": list("xxyyzz")})
    index = AudioIndex.build(tiny_model, table)
    wanted = {str(file) for file, fold in zip(files, table["fold"], strict=True) if fold == 2}
    assert {hit.path for hit in index.search("low", k=10, where="fold == 2")} == wanted
    assert len(index.search("low", k=2, where="fold == 2")) == 2
    assert len(index.search("low", where="fold == 2 and kind != 'x'")) == 2
    assert index.search("low", where="fold == 3") == []
    assert len(index.search("low", where="path.str.endswith('0.wav')")) == 1
    assert len(index.search("low", where="start_s < 1")) == 6
    assert set(index.search_batch(["low"], where="kind == 'y'")["kind"]) == {"y"}
    index.remove([next(iter(wanted))])
    assert len(index.search("low", k=10, where="fold == 2")) == 2


@pytest.mark.parametrize(
    ("where", "words"), [("fold = 2", "--where"), ("nothing == 1", "nothing"), ("start_s", "no condition")]
)
def test_a_condition_that_cannot_be_read_is_one_line(index: AudioIndex, where: str, words: str) -> None:
    with pytest.raises(ClapkitError, match=words) as caught:
        index.search("low", where=where)
    assert "\n" not in str(caught.value)
    assert "start_s" in str(caught.value)


def test_names_that_need_backticks_are_shown_with_them(tiny_model: AudioTextModel, folder: Path) -> None:
    table = pd.DataFrame({"path": [folder / "a" / "0.wav"], "class": ["dog"], "fold": [1]})
    index = AudioIndex.build(tiny_model, table)
    with pytest.raises(ClapkitError, match="expected a condition on path, `class`, fold, start_s, end_s"):
        index.search("low", where="class == 'dog'")
    assert len(index.search("low", where="`class` == 'dog'")) == 1


def test_columns_that_only_a_part_of_the_index_has_are_empty_elsewhere(
    tiny_model: AudioTextModel, folder: Path, tmp_path: Path
) -> None:
    table = pd.DataFrame({"path": [folder / "a" / "0.wav", folder / "a" / "2.wav"]})
    table = table.assign(place=["wood", "town"], loud=[True, False], fold=[1, 2])
    index = AudioIndex.build(tiny_model, table, tmp_path / "own")
    index.add(folder)
    for where, found in {
        'place.str.startswith("w")': {"0.wav"}, 'place == "town"': {"2.wav"}, "loud": {"0.wav"}, "not loud": {"2.wav"},
        "fold > 1": {"2.wav"}, 'not path.str.contains("/a/")': {"1.wav", "3.wav", "5.wav"},
    }.items():  # fmt: skip
        assert {Path(hit.path).name for hit in index.search("low", 50, where=where)} == found, where


def test_a_folder_that_is_gone_as_a_whole_is_not_taken_for_emptied(index: AudioIndex, folder: Path) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(AudioError, match="is gone, with 6 files of the index"):
        index.update()
    assert index.n_files == 6
    moved.rename(folder)
    assert index.update() == Changes()
    folder.rename(moved)
    assert index.remove([folder]).n_removed == 6
    assert index.update() == Changes()


def test_a_table_needs_paths_and_no_names_of_the_index(tiny_model: AudioTextModel, folder: Path) -> None:
    with pytest.raises(AudioError, match="no rows with a path"):
        AudioIndex.build(tiny_model, pd.DataFrame({"file": [1]}))
    with pytest.raises(AudioError, match="'size'"):
        AudioIndex.build(tiny_model, pd.DataFrame({"path": [folder / "a" / "0.wav"], "size": [3]}))


def test_pages_follow_one_another(index: AudioIndex) -> None:
    whole = index.search("low", k=6)
    assert index.search("low", k=2) + index.search("low", k=2, offset=2) + index.search("low", k=9, offset=4) == whole
    assert index.search("low", offset=6) == []
    with pytest.raises(ClapkitError, match="offset=-1"):
        index.search("low", offset=-1)


@pytest.mark.parametrize("k", [0, 2.5, "3", True])
def test_a_number_of_hits_that_makes_no_sense_is_refused(index: AudioIndex, k: object) -> None:
    for search in (index.search, lambda query, k: index.search_batch([query], k)):
        with pytest.raises(ClapkitError, match="expected a whole number, at least 1"):
            search("low", k)


def test_a_folder_that_cannot_be_read_keeps_what_the_index_has_of_it(
    index: AudioIndex, folder: Path, tiny_model: AudioTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: object, listed: Callable = os.scandir) -> Any:
        if str(path) == str(folder / "a"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (folder / "b" / "1.wav").unlink()
    changed = index.update()
    assert changed.n_removed == 1
    assert changed.bad_files == [f"{folder / 'a'}: this folder cannot be read (Permission denied)."]
    assert names(index) == ["0.wav", "2.wav", "3.wav", "4.wav", "5.wav"]
    with pytest.raises(AudioError, match="this folder cannot be read"):
        AudioIndex.build(tiny_model, folder, tmp_path / "other", strict=True)
    assert names(AudioIndex.build(tiny_model, folder, tmp_path / "other")) == ["3.wav", "5.wav"]


def test_a_sound_finds_itself_first(index: AudioIndex, folder: Path) -> None:
    hit = index.search(like=[folder / "b" / "3.wav"], k=1)[0]
    assert Path(hit.path).name == "3.wav"
    assert hit.score == pytest.approx(1, abs=1e-4)
    again = index.search(vector_of(index, "3.wav"), k=1)[0]
    assert (again.path, again.id) == (hit.path, hit.id)


def test_a_batch_gives_the_nearest_windows_of_each_query(index: AudioIndex) -> None:
    found = index.search_batch(["low", "high"], k=3)
    assert list(found.columns) == ["query", "score", "id", "start_s", "end_s", "path"]
    assert found["query"].tolist() == [0, 0, 0, 1, 1, 1]
    table = index.to_pandas()
    scores = np.stack(table["vector"]) @ index.model.embed_text(["high"])[0]
    best = table["id"].to_numpy()[np.argsort(-scores, kind="stable")[:3]]
    assert found["id"].tolist()[3:] == best.tolist()


def test_moments_of_a_long_file_are_told_apart(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    import soundfile

    rate = 22_050
    track = 1e-4 * np.random.default_rng(0).standard_normal(60 * rate).astype(np.float32)
    for start in (10, 40):
        track[start * rate : (start + 6) * rate] += tone(300, 6.0, rate)
    soundfile.write(tmp_path / "day.wav", track, rate)
    index = AudioIndex.build(tiny_model, tmp_path)
    like = tone(300, 2.0, rate)
    first, second = index.search(like=[like], k=2)
    for hit, start in zip(sorted((first, second), key=lambda hit: hit.start_s), (10, 40), strict=True):
        assert hit.start_s == pytest.approx(start, abs=1.0)
        assert hit.end_s == pytest.approx(start + 6, abs=1.0)


def test_verifying_names_what_is_wrong(index: AudioIndex, folder: Path) -> None:
    assert verify_index(index, 6) == []
    (folder / "a" / "0.wav").unlink()
    write(folder / "b" / "1.wav", 4_000)
    problems = "\n".join(verify_index(index, 6))
    assert "0.wav: has vanished" in problems
    assert "1.wav: has changed" in problems
    assert "1.wav: gives other vectors" in problems


def test_two_processes_do_not_change_it_at_once(index: AudioIndex, folder: Path) -> None:
    with changing(index.folder), pytest.raises(StorageError, match="another clapkit"):
        index.add(folder)


def test_a_change_that_fails_leaves_the_index_as_it_was(
    index: AudioIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids(index)
    write(folder / "new.wav", 900)
    (folder / "bad.wav").write_bytes(b"junk")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        index.add(folder, strict=True)
    monkeypatch.setattr("clapkit.search.store.write_record", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="no space left"):
        index.add(folder)
    monkeypatch.undo()
    assert ids(AudioIndex.load(index.folder, index.model)) == before
    done = AudioIndex.load(index.folder, index.model).add(folder)
    assert (done.n_added, len(done.bad_files)) == (1, 1)


def made_up(model: AudioTextModel, files: pd.DataFrame, *_: object, **__: object) -> Part:
    """Embedding without PyTorch, which must not run in a forked process."""
    vectors = np.stack([np.random.default_rng(size).standard_normal(model.embed_dim) for size in files["size"]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spans = pd.DataFrame({"file": np.arange(len(files)), "start_s": 0.0, "end_s": 1.0})
    return Part(files, spans, vectors.astype(np.float32), {})


def run_and_die(work: Callable[[], object], moment: int) -> bool:
    """Do the work in another process that kills itself at the n-th write; whether it lived to the end."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    count = 0

    def dying(real: Callable) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    try:
        for module, names in ((engines, ("embed_part", "write_part")), (store_module, WRITES), (shutil, ("rmtree",))):
            for name in names:
                setattr(module, name, dying(getattr(module, name)))
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


WRITES = ("write_table", "save_vectors", "write_record")


@pytest.mark.parametrize("kind", ["build", "add", "update"])
def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new_one(
    kind: str, tiny_model: AudioTextModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "embed_part", made_up)
    monkeypatch.setattr("clapkit.search.parts.PART_FILES", 2)
    old = tmp_path / "old"
    if kind != "build":
        AudioIndex.build(tiny_model, folder, old)
        write(folder / "a" / "0.wav", 3_000, 2.0)
        for number in range(4):
            write(folder / "new" / f"{number}.wav", 800.0, 1.5 + number)
    n_killed, n_final = 0, 6 if kind == "build" else 10
    for moment in range(1, 60):
        index = tmp_path / f"index-{moment}"
        if old.exists():
            shutil.copytree(old, index)

        def work(index: Path = index) -> None:
            if kind == "build":
                AudioIndex.build(tiny_model, folder, index)
            else:
                opened = AudioIndex.load(index, tiny_model)
                opened.add(folder) if kind == "add" else opened.update()

        lived = run_and_die(work, moment)
        if (index / "index.json").exists():
            found = AudioIndex.load(index, tiny_model)
            assert len(found) in (6, n_final)
            assert len(found.search("low", k=50)) == len(found)
        else:
            assert kind == "build"
            found = AudioIndex.build(tiny_model, folder, index)
        found.update()
        assert len(found) == n_final
        assert {path.name for path in index.iterdir()} - {"index.json", "segments", "lock"} <= {found.facts["removed"]}
        assert len(list((index / "segments").iterdir())) == len(found.facts["segments"])
        if lived:
            break
        n_killed += 1
    assert lived
    assert n_killed >= 8


def test_a_killed_build_embeds_only_what_is_missing(
    tiny_model: AudioTextModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clapkit.search.parts.PART_FILES", 2)
    real, embedded = engines.embed_part, []

    def stopping(model: AudioTextModel, files: pd.DataFrame, *rest: object, **options: object):
        if len(embedded) == 4:
            raise KeyboardInterrupt
        embedded.extend(files["path"])
        return real(model, files, *rest, **options)

    monkeypatch.setattr(engines, "embed_part", stopping)
    with pytest.raises(KeyboardInterrupt):
        AudioIndex.build(tiny_model, folder, tmp_path / "index")
    write(Path(embedded[0]), 5_000)  # changed since: it is embedded again
    first, embedded[:] = list(embedded), []
    monkeypatch.setattr(
        engines,
        "embed_part",
        lambda model, files, *a, **k: embedded.extend(files["path"]) or real(model, files, *a, **k),
    )
    index = AudioIndex.build(tiny_model, folder, tmp_path / "index")
    assert len(embedded) == 3
    assert set(embedded) & set(first) == {first[0]}
    assert index.n_files == 6
    assert verify_index(index, 6) == []


def test_opening_a_large_index_reads_little(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    from clapkit.search.store import create_store

    generator = np.random.default_rng(0)
    n = 150_000
    vectors = generator.standard_normal((n, tiny_model.embed_dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = pd.DataFrame({"path": [f"/sounds/{number}.wav" for number in range(n)], "size": 1, "mtime_ns": 1})
    spans = pd.DataFrame({"file": np.arange(n), "start_s": 0.0, "end_s": 1.0})
    store = create_store(tmp_path / "index", "tiny", tiny_model.fingerprint, tiny_model.embed_dim, 0.5)
    segment, next_id = store.write_segment([Part(files, spans, vectors, {})], 0)
    store.commit([segment], np.zeros(0, np.int64), next_id)
    start = time.perf_counter()
    index = AudioIndex.load(tmp_path / "index", tiny_model)
    assert time.perf_counter() - start < 1
    (hit,) = index.search(vectors[77_777], k=1)
    assert hit.path == "/sounds/77777.wav"
    assert json.loads((tmp_path / "index" / "index.json").read_text())["segments"][0]["n_spans"] == n
    assert os.path.getsize(tmp_path / "index" / "index.json") < 2_000


def test_the_package_names_it() -> None:
    assert clapkit.AudioIndex is AudioIndex


def test_a_file_that_became_unreadable_is_counted_as_gone(index: AudioIndex, folder: Path) -> None:
    (folder / "a" / "0.wav").write_bytes(b"nothing")
    done = index.update()
    assert (done.n_added, done.n_changed, done.n_removed, len(done.bad_files)) == (0, 0, 1, 1)


def test_a_named_file_that_is_not_utf8_is_skipped(tiny_model: AudioTextModel, folder: Path, tmp_path: Path) -> None:
    odd = folder / "b\udcff.wav"
    try:
        shutil.copy(folder / "a" / "0.wav", odd)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    index = AudioIndex.build(tiny_model, [folder / "a", odd], tmp_path / "index")
    assert "not UTF-8" in index.bad_files[0]
    assert index.n_files == 3


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_few_windows_are_searched_exactly_whatever_is_asked_for(
    kind: str, tiny_model: AudioTextModel, folder: Path
) -> None:
    index = AudioIndex.build(tiny_model, folder, kind=kind)
    assert index.facts["segments"][0]["kind"] == "exact"
    assert len(index.search("low", k=6)) == 6


def test_no_hits_have_the_columns_still(index: AudioIndex) -> None:
    found = index.search_batch(["low"], 5, where="start_s > 1e9")
    assert found.columns.tolist() == ["query", "score", "id", "start_s", "end_s", "path"]
    assert found.empty
    assert found["path"].str.split("/").tolist() == []
    assert found["id"].dtype == int


def test_an_open_index_follows_what_others_change(index: AudioIndex, folder: Path) -> None:
    other = AudioIndex.load(index.folder, index.model)
    other.search("low")
    index.remove([folder / "a" / "0.wav"])
    index.add(write(folder / "a" / "new.wav", 888))
    changes_module.compact(index._store)  # the segments that `other` has opened are gone
    found = {Path(hit.path).name for hit in other.search("low", k=50, per_file=True)}
    assert found == {"1.wav", "2.wav", "3.wav", "4.wav", "5.wav", "new.wav"}
    assert len(other.search_batch("low", 50)["path"].unique()) == 6
    assert names(other) == names(index)


def test_an_index_that_changes_while_it_is_opened_is_read_again(
    index: AudioIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_record = store_module.read_record

    def reads_the_old_one(place: Path) -> dict:
        monkeypatch.setattr(store_module, "read_record", read_record)
        record = read_record(place)
        changes_module.compact(index._store)  # sweeps what the record names
        return record

    index.remove([folder / "a" / "0.wav"])
    monkeypatch.setattr(store_module, "read_record", reads_the_old_one)
    assert AudioIndex.load(index.folder, index.model).n_files == 5


def test_one_name_may_stand_for_a_list_of_one(index: AudioIndex, folder: Path) -> None:
    file = str(folder / "a" / "0.wav")
    assert index.search(like=file, k=1)[0].path == file
    assert index.search_batch("low", 3).equals(index.search_batch(["low"], 3))
    assert index.search_batch([], 3).columns.tolist() == ["query", "score", "id", "start_s", "end_s", "path"]
    assert index.remove(file).n_removed == 1


def test_a_folder_that_only_shares_the_name_does_not_hide_the_shipped_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert clapkit.load("base", device="cpu").origin == "base"
