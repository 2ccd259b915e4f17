"""Clips are decoded once, decoded again when anything about them changes, and a stopped build goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from clapkit.audio.io import load_waveform
from clapkit.config import AudioConfig
from clapkit.data import cache, packs
from clapkit.data.cache import load_clip, open_waveforms
from clapkit.data.manifest import make_table
from clapkit.errors import AudioError, StorageError

AUDIO = AudioConfig(sample_rate=16_000)
PROJECT = Path(__file__).resolve().parents[2]


def noise(duration_s: float, rate: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (round(duration_s * rate), n_channels))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Three clips of different lengths, rates and channels, and a cache of their own."""
    monkeypatch.setenv("CLAPKIT_CACHE", str(tmp_path / "cache"))
    kinds = [(0.5, 16_000, 1), (0.3, 44_100, 2), (1.0, 8_000, 1)]
    for number, kind in enumerate(kinds):
        soundfile.write(tmp_path / f"{number}.wav", noise(*kind, seed=number), kind[1])
    return make_table(path=[str(tmp_path / f"{number}.wav") for number in range(3)], label=["dog"] * 3)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files decoded since the test began."""
    names: list[str] = []

    def counting(real: Callable) -> Callable:
        def decode(source: object, *arguments: object, **options: object) -> object:
            if isinstance(source, (str, os.PathLike)):
                names.append(Path(source).name)
            return real(source, *arguments, **options)

        return decode

    monkeypatch.setattr(cache, "load_waveform", counting(cache.load_waveform))
    return names


def packs_there(ending: str = ".waveforms") -> list[Path]:
    """The packs in this test's cache, complete ones unless the ending says otherwise."""
    return sorted((cache.cache_folder() / "packs").glob(f"*{ending}"))


@pytest.mark.parametrize("n_channels", [1, 2])
def test_clips_come_in_the_tables_order_and_equal_their_files(table: pd.DataFrame, n_channels: int) -> None:
    audio = AudioConfig(sample_rate=16_000, n_channels=n_channels)
    store = open_waveforms(table, audio)
    assert len(store) == 3
    for number, path in enumerate(table["path"]):
        assert store[number].dtype == np.float32
        np.testing.assert_array_equal(store[number], load_waveform(path, 16_000, n_channels=n_channels))


def test_the_second_opening_decodes_nothing(table: pd.DataFrame, decoded: list[str]) -> None:
    first = open_waveforms(table, AUDIO)
    assert sorted(decoded) == ["0.wav", "1.wav", "2.wav"]
    second = open_waveforms(table, AUDIO)
    assert len(decoded) == 3
    for number in range(3):
        np.testing.assert_array_equal(first[number], second[number])


def test_settings_that_do_not_change_the_samples_share_the_cache(table: pd.DataFrame, decoded: list[str]) -> None:
    open_waveforms(table, AUDIO)
    open_waveforms(table, AUDIO.model_copy(update={"n_mels": 32, "window_s": 1.0}))
    assert len(decoded) == 3


def test_only_a_changed_file_is_decoded_again(table: pd.DataFrame, tmp_path: Path, decoded: list[str]) -> None:
    open_waveforms(table, AUDIO)
    changed = noise(0.5, 16_000, seed=9)
    soundfile.write(tmp_path / "0.wav", changed, 16_000)  # of the same size
    os.utime(tmp_path / "0.wav", ns=(10**18, 10**18))
    decoded.clear()
    np.testing.assert_allclose(open_waveforms(table, AUDIO)[0][0], changed[:, 0], atol=1 / 32768)
    assert decoded == ["0.wav"]


@pytest.mark.parametrize("change", [{"sample_rate": 22_050}, {"n_channels": 2}])
def test_another_rate_or_channel_count_is_decoded_again(table: pd.DataFrame, change: dict[str, int]) -> None:
    open_waveforms(table, AUDIO)
    audio = AUDIO.model_copy(update=change)
    expected = load_waveform(table["path"][1], audio.sample_rate, n_channels=audio.n_channels)
    np.testing.assert_array_equal(open_waveforms(table, audio)[1], expected)


def test_another_order_is_not_mixed_up(table: pd.DataFrame) -> None:
    open_waveforms(table, AUDIO)
    store = open_waveforms(table[::-1], AUDIO)
    np.testing.assert_array_equal(store[0], load_waveform(table["path"][2], 16_000))


def test_spans_are_cut_before_resampling(table: pd.DataFrame) -> None:
    starts_s, ends_s = [0.25, np.nan, 0.75, np.nan], [0.5, 0.5, np.nan, np.nan]
    spans = make_table(path=[table["path"][2]] * 4, start_s=starts_s, end_s=ends_s)
    store = open_waveforms(spans, AUDIO)
    whole, rate = soundfile.read(table["path"][2], dtype="float32")
    for number, part in enumerate([whole[2000:4000], whole[:4000], whole[6000:], whole]):
        np.testing.assert_array_equal(store[number], load_waveform(part, 16_000, source_rate=rate))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_span_of_a_long_recording_is_decoded_alone_where_the_format_allows(
    suffix: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, noise(20, 16_000), 16_000)
    whole, _ = soundfile.read(path, dtype="float32")
    read: list[int] = []
    read_samples = soundfile.SoundFile.read

    def counting(*arguments: object, **options: object) -> np.ndarray:
        read.append(len(samples := read_samples(*arguments, **options)))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    store = open_waveforms(make_table(path=[str(path)] * 2, start_s=[3.1, 19.0], end_s=[4.2, np.nan]), AUDIO)
    np.testing.assert_array_equal(store[0][0], whole[49_600:67_200])
    np.testing.assert_array_equal(store[1][0], whole[304_000:])
    assert sorted(read) == ([320_000, 320_000] if suffix == "ogg" else [16_000, 17_600])


def test_spans_of_one_file_do_not_share_a_cache(table: pd.DataFrame) -> None:
    path = table["path"][2]
    early, late = (open_waveforms(make_table(path=[path], start_s=[s], end_s=[s + 0.1]), AUDIO)[0] for s in (0.1, 0.2))
    assert early.shape == late.shape == (1, 1600)
    assert not np.array_equal(early, late)


def test_a_span_behind_the_end_names_its_file(table: pd.DataFrame) -> None:
    with pytest.raises(AudioError) as caught:
        load_clip(table["path"][0], 5.0, 6.0, AUDIO)
    assert str(caught.value).startswith(table["path"][0])


def test_moved_and_touched_files_are_not_decoded_again(table: pd.DataFrame, tmp_path: Path, decoded: list[str]) -> None:
    first = open_waveforms(table, AUDIO)
    (tmp_path / "moved").mkdir()
    for number, path in enumerate(table["path"]):
        shutil.move(path, tmp_path / "moved" / f"clip{number}.wav")
        os.utime(tmp_path / "moved" / f"clip{number}.wav", ns=(10**18, 10**18))
    moved = table.assign(path=[str(tmp_path / "moved" / f"clip{number}.wav") for number in range(3)])
    second = open_waveforms(moved, AUDIO)
    assert len(decoded) == 3
    assert second.key == first.key
    np.testing.assert_array_equal(second[1], first[1])


def test_the_key_changes_with_content_order_and_preprocessing(table: pd.DataFrame) -> None:
    stereo = AUDIO.model_copy(update={"n_channels": 2})
    stores = [open_waveforms(table, AUDIO), open_waveforms(table[::-1], AUDIO), open_waveforms(table, stereo)]
    assert len({store.key for store in stores}) == 3
    assert [store.n_samples.tolist() for store in stores[:2]] == [[8000, 4800, 16_000], [16_000, 4800, 8000]]
    assert stores[2].n_samples.tolist() == [8000, 4800, 16_000]


def test_unchanged_files_are_not_read_again_and_a_damaged_memo_is_rebuilt(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    file_digest = cache._file_digest
    monkeypatch.setattr(cache, "_file_digest", lambda path: read.append(path) or file_digest(path))
    key = open_waveforms(table, AUDIO).key
    assert open_waveforms(table, AUDIO).key == key
    assert len(read) == 3
    memo = cache.cache_folder() / "packs" / "contents.json"
    for damage in (memo.read_bytes()[:50], b"[1, 2]", b'{"a": 5}', b"\xff"):
        memo.write_bytes(damage)
        assert open_waveforms(table, AUDIO).key == key
    assert len(read) == 15


def test_equal_clips_are_decoded_and_kept_once(table: pd.DataFrame, decoded: list[str]) -> None:
    store = open_waveforms(pd.concat([table, table[::-1]]), AUDIO)
    assert len(store) == 6
    assert len(decoded) == 3
    np.testing.assert_array_equal(store[5], store[0])
    assert (packs_there()[0] / "values.bin").stat().st_size == 4 * (8000 + 4800 + 16_000)


def test_a_grown_dataset_takes_what_it_shares_with_the_earlier_one(table: pd.DataFrame, decoded: list[str]) -> None:
    open_waveforms(table[1:], AUDIO)
    decoded.clear()
    store = open_waveforms(table, AUDIO)
    assert decoded == ["0.wav"]
    np.testing.assert_array_equal(store[2], load_waveform(table["path"][2], 16_000))


def test_a_broken_clip_is_named_and_the_others_are_kept(
    table: pd.DataFrame, tmp_path: Path, decoded: list[str]
) -> None:
    whole = (tmp_path / "2.wav").read_bytes()
    (tmp_path / "2.wav").write_text("not a sound")
    with pytest.raises(AudioError, match=r"2\.wav: cannot be decoded"):
        open_waveforms(table, AUDIO)
    assert packs_there() == []
    decoded.clear()
    (tmp_path / "2.wav").write_bytes(whole)
    assert open_waveforms(table, AUDIO)[2].shape == (1, 16_000)
    assert decoded == ["2.wav"]


def test_a_file_changed_while_it_is_read_is_refused(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(path: str, *arguments: object) -> np.ndarray:
        os.utime(tmp_path / "1.wav", ns=(10**18, 10**18))
        return load_clip(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "load_clip", changed)
        with pytest.raises(AudioError, match=r"1\.wav: was changed"):
            open_waveforms(table, AUDIO)
    assert open_waveforms(table, AUDIO)[1].shape == (1, 4800)


def test_a_clip_that_went_missing_is_named(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "2.wav").unlink()
    with pytest.raises(AudioError, match=r"2\.wav: no such file"):
        open_waveforms(table, AUDIO)


def test_a_full_disk_is_one_readable_line_and_the_next_try_goes_on(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="no space left on the disk.*CLAPKIT_CACHE") as caught:
            open_waveforms(table, AUDIO)
    assert "\n" not in str(caught.value)
    assert open_waveforms(table, AUDIO)[2].shape == (1, 16_000)


def test_a_cache_that_cannot_be_made_is_one_readable_line(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLAPKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="waveforms could not be kept"):
        open_waveforms(table, AUDIO)


def stop_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the build when a clip is decoded."""

    def interrupted(path: str, *arguments: object) -> np.ndarray:
        if path.endswith(name):
            raise KeyboardInterrupt
        return load_clip(path, *arguments)

    monkeypatch.setattr(cache, "load_clip", interrupted)


def test_an_interrupted_build_goes_on(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, decoded: list[str]) -> None:
    with monkeypatch.context() as patch:
        stop_at("2.wav", patch)
        with pytest.raises(KeyboardInterrupt):
            open_waveforms(table, AUDIO)
    assert packs_there() == []
    decoded.clear()
    assert open_waveforms(table, AUDIO)[2].shape == (1, 16_000)
    assert decoded == ["2.wav"]


@pytest.mark.parametrize(
    ("file", "lost_bytes", "again"),
    [("values.bin", 1, ["1.wav", "2.wav"]), ("journal.bin", 1, ["1.wav", "2.wav"]), ("journal.bin", 80, None)],
)
def test_half_a_clip_of_a_killed_build_is_decoded_again(
    file: str, lost_bytes: int, again: list[str] | None, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch,
    decoded: list[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at("2.wav", patch)
        with pytest.raises(KeyboardInterrupt):
            open_waveforms(table, AUDIO)
    (part,) = packs_there(".waveforms.part")
    os.truncate(part / file, (part / file).stat().st_size - lost_bytes)
    decoded.clear()
    store = open_waveforms(table, AUDIO)
    assert sorted(decoded) == (again or ["0.wav", "1.wav", "2.wav"])
    for number, path in enumerate(table["path"]):
        np.testing.assert_array_equal(store[number], load_waveform(path, 16_000))


@pytest.mark.parametrize("file", ["values.bin", "journal.bin"])
def test_a_damaged_pack_is_built_again(file: str, table: pd.DataFrame) -> None:
    open_waveforms(table, AUDIO)
    (packs_there()[0] / file).unlink()
    assert open_waveforms(table, AUDIO)[2].shape == (1, 16_000)


SLOW_BUILD = """
import pathlib, sys, time
from clapkit.config import AudioConfig
from clapkit.data import cache, packs
from clapkit.data.manifest import make_table
folder, clip_s = pathlib.Path(sys.argv[1]), float(sys.argv[2])
load_clip = cache.load_clip
def slow(path, *arguments):
    with open(folder / "decoded", "a") as log:
        log.write(pathlib.Path(path).name + "\\n")
    time.sleep(0 if path.endswith("0.wav") else clip_s)
    return load_clip(path, *arguments)
cache.load_clip = slow
paths = [str(folder / f"{number}.wav") for number in range(3)]
print(cache.open_waveforms(make_table(path=paths), AudioConfig(sample_rate=16_000)).n_samples.tolist())
"""


def start_build(folder: Path, clip_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_BUILD, str(folder), str(clip_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)})


def test_of_two_runs_at_once_one_decodes_and_both_use_it(table: pd.DataFrame, tmp_path: Path) -> None:
    runs = [start_build(tmp_path, 0.2) for _ in range(2)]
    assert [run.communicate(timeout=60)[0].strip() for run in runs] == ["[8000, 4800, 16000]"] * 2
    assert sorted((tmp_path / "decoded").read_text().split()) == ["0.wav", "1.wav", "2.wav"]


def test_a_run_killed_while_it_builds_leaves_its_clips_and_no_lock(
    table: pd.DataFrame, tmp_path: Path, decoded: list[str]
) -> None:
    run = start_build(tmp_path, 60)
    deadline = time.monotonic() + 60
    while not any(
        (part / "journal.bin").stat().st_size
        for part in packs_there(".waveforms.part")
        if (part / "journal.bin").exists()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert open_waveforms(table, AUDIO)[2].shape == (1, 16_000)
    assert sorted(decoded) == ["1.wav", "2.wav"]


def test_the_packs_used_longest_ago_are_removed(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "LARGEST_CACHE_BYTES", 50_000)  # less than one of the packs
    for number in range(2):
        open_waveforms(table[number : number + 1], AUDIO)
    old, older = packs_there()
    assert old.exists()  # both were used just now
    for age_s, pack in ((100_000, old), (200_000, older)):
        os.utime(pack, (time.time() - age_s,) * 2)
    with packs._locked(old):
        open_waveforms(table[2:], AUDIO)
    assert old.exists()
    assert not older.exists()
    assert len(packs_there()) == 2


def test_memory_stays_flat_as_the_dataset_grows(table: pd.DataFrame) -> None:
    def peak_bytes(n_clips: int) -> int:
        starts_s = np.linspace(0, 0.5, n_clips)
        spans = make_table(path=[table["path"][2]] * n_clips, start_s=starts_s, end_s=starts_s + 0.5)
        tracemalloc.start()
        open_waveforms(spans, AUDIO.model_copy(update={"n_channels": 2}))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # imports
    assert peak_bytes(300) < peak_bytes(30) + 2**20  # one clip has 64 kB


def test_clips_cannot_be_overwritten(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_waveforms(table, AUDIO)[0][:] = 0
