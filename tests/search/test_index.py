"""Searching sounds by text: what is found, what is skipped, and which indexes are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import clapkit
from clapkit.errors import AudioError, ClapkitError, IndexMismatchError, StorageError
from clapkit.model import AudioTextModel
from clapkit.search.index import AudioIndex, Hit

RATE = 16_000


def _write_sound(file: Path, duration_s: float, frequency_hz: float = 440.0) -> Path:
    """A tone that rises slowly, so that no two windows of it are alike."""
    time_s = np.arange(round(duration_s * RATE)) / RATE
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * frequency_hz * (1 + 0.1 * time_s) * time_s), RATE)
    return file


@pytest.fixture(scope="module")
def built(tiny_model: AudioTextModel, sounds: Path) -> AudioIndex:
    """The 18 tones of ``sounds``."""
    return AudioIndex.build(tiny_model, sounds)


@pytest.fixture
def saved(built: AudioIndex, tmp_path: Path) -> Path:
    built.save(tmp_path / "index")
    return tmp_path / "index"


def test_the_public_name() -> None:
    assert clapkit.AudioIndex is AudioIndex
    assert clapkit.Hit is Hit


def test_hits_are_the_nearest_windows_of_their_files(
    tiny_model: AudioTextModel, built: AudioIndex, sounds: Path
) -> None:
    query = tiny_model.embed_text("a low hum")[0]
    best = {}
    for file in sorted(sounds.rglob("*.wav")):
        (output,) = tiny_model.encode([tiny_model.load_waveform(file)])
        best[str(file.resolve())] = float((output.windows @ query).max())
    hits = built.search("a low hum", k=5)
    assert [hit.path for hit in hits] == sorted(best, key=best.get, reverse=True)[:5]
    np.testing.assert_allclose([hit.score for hit in hits], [best[hit.path] for hit in hits], atol=1e-5)


def test_fewer_hits_come_from_a_smaller_index(built: AudioIndex) -> None:
    hits = built.search("a low hum", k=1000)
    assert len(hits) == len({hit.path for hit in hits}) == built.n_files == 18
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[:3] == built.search("a low hum", k=3)


def test_per_file_gives_one_moment_of_each_and_moments_lie_inside(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    durations = {"long.wav": 40.3, "longer.wav": 55.0, "short.wav": 0.2, "window.wav": 1.0}
    for number, (name, duration_s) in enumerate(durations.items()):
        _write_sound(tmp_path / name, duration_s, 200.0 + 300 * number)
    index = AudioIndex.build(tiny_model, tmp_path, overlap=0)
    assert (len(index), index.n_files) == (41 + 55 + 1 + 1, 4)
    assert len(AudioIndex.build(tiny_model, tmp_path)) == 80 + 109 + 1 + 1  # half-overlapping windows of 1 s
    for k in (1, 2, 4, 50):
        hits = index.search("a rising tone", k=k, per_file=True)
        assert len(hits) == min(k, 4)
        assert len({hit.path for hit in hits}) == len(hits)
        for hit in hits:
            duration_s = durations[Path(hit.path).name]
            assert 0 <= hit.start_s < hit.end_s <= duration_s + 1e-6
            assert hit.end_s - hit.start_s >= min(1.0, duration_s) - 1e-4


def test_a_file_and_a_list_of_files_can_be_built(tiny_model: AudioTextModel, sounds: Path) -> None:
    low, high = sounds / "low" / "0.wav", sounds / "high" / "0.wav"
    assert AudioIndex.build(tiny_model, low).n_files == 1
    assert AudioIndex.build(tiny_model, [str(low), sounds / "middle", high]).n_files == 8


def test_paths_are_absolute(tiny_model: AudioTextModel, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sounds)
    (hit,) = AudioIndex.build(tiny_model, "low/0.wav").search("low")
    assert hit.path == str((sounds / "low" / "0.wav").resolve())


@pytest.mark.parametrize("k", [0, -1])
def test_no_hits_cannot_be_asked_for(built: AudioIndex, k: int) -> None:
    with pytest.raises(ClapkitError, match=f"k={k}"):
        built.search("low", k=k)


def test_a_loaded_index_finds_the_same(built: AudioIndex, saved: Path, tiny_model: AudioTextModel) -> None:
    loaded = AudioIndex.load(saved, tiny_model)
    for query in ("low", "something never heard"):
        for hit, expected in zip(loaded.search(query, k=18), built.search(query, k=18), strict=True):
            assert (hit.path, hit.score) == (expected.path, expected.score)
            assert hit.start_s == pytest.approx(expected.start_s)
            assert hit.end_s == pytest.approx(expected.end_s)


def test_without_a_model_the_recorded_checkpoint_is_loaded(saved: Path, tiny_run: Path, built: AudioIndex) -> None:
    loaded = AudioIndex.load(saved)
    assert Path(loaded.model.name) == tiny_run.resolve()
    found, expected = loaded.search("low", k=1)[0], built.search("low", k=1)[0]
    assert found.path == expected.path
    assert found.score == pytest.approx(expected.score, abs=1e-5)


def test_an_index_finds_its_relative_checkpoint_from_elsewhere(
    tiny_run: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.parent)
    AudioIndex.build(clapkit.load(tiny_run.name), sounds / "low").save(tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    assert AudioIndex.load("index").n_files == 6


@pytest.mark.parametrize(
    "name",
    [
        "a,b.wav", 'say "hi".wav', "'.wav", "NA.wav", "null.wav", "1e5.wav", "звук 音.wav", "  space .wav",
        "new\nline.wav", "carriage\rreturn.wav",
    ],
)  # fmt: skip
def test_odd_file_names_come_back_as_they_are(name: str, tiny_model: AudioTextModel, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    file = _write_sound(tmp_path / "sounds" / name, 0.5)
    AudioIndex.build(tiny_model, tmp_path / "sounds").save(tmp_path / "index")
    (hit,) = AudioIndex.load(tmp_path / "index", tiny_model).search("low")
    assert hit.path == str(file.resolve())


def test_a_file_name_that_is_not_utf8_does_not_stop_a_run(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    good = _write_sound(tmp_path / "good.wav", 0.5)
    good.with_name("caf\udce9.wav").write_bytes(good.read_bytes())
    index = AudioIndex.build(tiny_model, tmp_path)
    index.save(tmp_path / "index")
    assert index.n_files + len(index.bad_files) == 2
    assert str(good.resolve()) in [hit.path for hit in AudioIndex.load(tmp_path / "index", tiny_model).search("low")]


def test_bad_files_are_skipped_and_listed(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    good = _write_sound(tmp_path / "good.wav", 0.5)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound")
    soundfile.write(tmp_path / "nan.wav", np.full(1000, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    index = AudioIndex.build(tiny_model, tmp_path)
    assert [hit.path for hit in index.search("low")] == [str(good.resolve())]
    assert len(index.bad_files) == 3
    for name, line in zip(["empty.wav", "nan.wav", "text.wav"], index.bad_files, strict=True):
        assert line.startswith(str(tmp_path / name))
        assert "\n" not in line


def test_strict_makes_a_bad_file_an_error(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    _write_sound(tmp_path / "a.wav", 0.5)
    (tmp_path / "b.wav").touch()
    with pytest.raises(AudioError, match=r"b\.wav: is empty"):
        AudioIndex.build(tiny_model, tmp_path, strict=True)


def test_only_bad_files_are_an_error(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    with pytest.raises(AudioError, match=r"none of the 2 file\(s\) could be used.*a\.wav: is empty"):
        AudioIndex.build(tiny_model, tmp_path)


def test_missing_and_empty_folders_are_errors(tiny_model: AudioTextModel, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file or folder"):
        AudioIndex.build(tiny_model, tmp_path / "nowhere")
    with pytest.raises(AudioError, match="no sounds inside"):
        AudioIndex.build(tiny_model, tmp_path)


def test_nothing_to_index_is_an_error(tiny_model: AudioTextModel) -> None:
    with pytest.raises(ClapkitError):
        AudioIndex.build(tiny_model, [])


def _edit_record(folder: Path, edit: Callable[[dict], object]) -> None:
    record = json.loads((folder / "index.json").read_text())
    edit(record)
    (folder / "index.json").write_text(json.dumps(record))


def _refusal(folder: Path, model: AudioTextModel) -> str:
    with pytest.raises(IndexMismatchError) as error:
        AudioIndex.load(folder, model)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("part", ["weights", "preprocessing"])
def test_another_model_or_preprocessing_is_refused_with_both_fingerprints(
    part: str, saved: Path, tiny_model: AudioTextModel
) -> None:
    _edit_record(saved, lambda record: record["fingerprint"].update({part: "0123456789abcdef"}))
    message = _refusal(saved, tiny_model)
    assert part in message
    assert "0123456789abcdef" in message
    assert tiny_model.fingerprint[part] in message


def test_another_format_version_is_refused(saved: Path, tiny_model: AudioTextModel) -> None:
    _edit_record(saved, lambda record: record.update(format_version=99))
    assert "format version 99" in _refusal(saved, tiny_model)


@pytest.mark.parametrize("content", ["", "{", '{"format_version": 1}', "[]", "\x00\xff"])
def test_a_damaged_record_is_refused(content: str, saved: Path, tiny_model: AudioTextModel) -> None:
    (saved / "index.json").write_text(content, encoding="latin-1")
    message = _refusal(saved, tiny_model)
    assert "index.json: format version 1" in message if "version" in content else "index.json: damaged" in message


@pytest.mark.parametrize("name", ["vectors.faiss", "spans.parquet"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
def test_damaged_vectors_and_spans_are_refused(name: str, damage: str, saved: Path, tiny_model: AudioTextModel) -> None:
    (file,) = saved.glob(f"segments/*/{name}")
    if damage == "missing":
        file.unlink()
    else:
        content = file.read_bytes()
        noise = np.random.default_rng(0).bytes(500)
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": noise}[damage])
    assert "build the index again" in _refusal(saved, tiny_model)


def test_other_folders_are_not_indexes(tmp_path: Path, tiny_run: Path, tiny_model: AudioTextModel) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", tiny_run, tiny_run / "checkpoint.yaml"):
        assert "is not an index" in _refusal(folder, tiny_model)


def test_a_recorded_checkpoint_that_is_gone_is_named(saved: Path) -> None:
    _edit_record(saved, lambda record: record.update(checkpoint="/gone/checkpoint"))
    with pytest.raises(clapkit.CheckpointError, match="/gone/checkpoint"):
        AudioIndex.load(saved)


def test_an_existing_index_is_kept_unless_told_otherwise(built: AudioIndex, saved: Path) -> None:
    (saved / "mine.txt").touch()
    with pytest.raises(StorageError, match="exists already"):
        built.save(saved)
    assert (saved / "mine.txt").exists()
    built.save(saved, overwrite=True)
    assert not (saved / "mine.txt").exists()


def test_a_folder_that_is_no_index_is_never_replaced(built: AudioIndex, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    song = _write_sound(tmp_path / "music" / "song.wav", 0.5)
    with pytest.raises(StorageError):
        built.save(tmp_path / "music", overwrite=True)
    assert song.exists()


def test_a_full_disk_leaves_the_old_index(
    sounds: Path, saved: Path, tiny_model: AudioTextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise RuntimeError("Error in write: ret == size: write error: No space left on device")

    monkeypatch.setattr("clapkit.search.vectors.faiss.write_index", full_disk)
    with pytest.raises(StorageError, match="no space left"):
        AudioIndex.build(tiny_model, sounds / "low", saved, overwrite=True)
    assert AudioIndex.load(saved, tiny_model).n_files == 18
