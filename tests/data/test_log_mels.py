"""Pictures equal those of the front-end, are computed once, and are cropped and padded in batches."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from clapkit.audio.log_mel import LogMel
from clapkit.config import AudioConfig
from clapkit.data import log_mels
from clapkit.data.cache import WaveformStore, cache_folder, open_waveforms
from clapkit.data.log_mels import LogMelStore, open_log_mels
from clapkit.data.manifest import make_table

CPU = torch.device("cpu")
AUDIO = AudioConfig(sample_rate=16_000, window_s=0.5, n_mels=16, n_fft=512)
DURATIONS_S = (0.2, 0.5, 1.3, 0.001, 0.45, 0.7)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Stereo clips shorter than a window, as long, and longer, in a cache of their own."""
    monkeypatch.setenv("CLAPKIT_CACHE", str(tmp_path / "cache"))
    paths = [str(tmp_path / f"{number}.wav") for number in range(len(DURATIONS_S))]
    for number, duration_s in enumerate(DURATIONS_S):
        noise = np.random.default_rng(number).normal(0, 0.1, (round(duration_s * 16_000), 2))
        soundfile.write(paths[number], noise * np.linspace(1, 1e-3, len(noise))[:, None], 16_000)
    return make_table(path=paths)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Clips in each batch that went through the front-end."""
    batches: list[int] = []

    class Counting(LogMel):
        def forward(self, waveform: torch.Tensor, n_valid_samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            batches.append(len(waveform))
            return super().forward(waveform, n_valid_samples)

    monkeypatch.setattr(log_mels, "LogMel", Counting)
    return batches


def expected_picture(store: WaveformStore, clip: int, audio: AudioConfig) -> torch.Tensor:
    """The valid frames that the front-end makes of the padded window, or of a long clip."""
    waveform = torch.from_numpy(store[clip].copy())
    n_samples = waveform.shape[1]
    padding = max(0, round(audio.window_s * audio.sample_rate) - n_samples)
    padded = torch.nn.functional.pad(waveform, (0, padding))
    log_mel, n_valid = LogMel(audio)(padded[None], torch.tensor([n_samples]))
    return log_mel[0, :, :, : n_valid[0]]


@pytest.mark.parametrize("change", [{}, {"n_channels": 2}, {"top_db": 30.0}, {"n_mels": 9, "hop_length": 100}])
def test_pictures_equal_those_of_the_front_end(table: pd.DataFrame, change: dict) -> None:
    audio = AUDIO.model_copy(update=change)
    store = open_waveforms(table, audio)
    pictures = open_log_mels(store, audio, CPU)
    assert len(pictures) == len(DURATIONS_S)
    for clip, n_frames in enumerate(pictures.n_frames.tolist()):
        expected = expected_picture(store, clip, audio)
        assert n_frames == expected.shape[-1]
        log_mel, n_valid = pictures.gather(torch.tensor([clip]), torch.tensor([0]), n_frames)
        assert log_mel.dtype == torch.float32
        assert n_valid.tolist() == [n_frames]
        torch.testing.assert_close(log_mel[0], expected, rtol=2e-3, atol=1e-3)


def test_crops_are_cut_and_padded_with_zeros(table: pd.DataFrame) -> None:
    audio = AUDIO.model_copy(update={"n_channels": 2})
    pictures = open_log_mels(open_waveforms(table, audio), audio, CPU)
    clips, starts = torch.tensor([2, 0, 3, 2]), torch.tensor([7, 3, 0, 60])
    log_mel, n_valid = pictures.gather(clips, starts, 20)
    assert log_mel.shape == (4, 2, 16, 20)
    assert log_mel.is_contiguous()
    assert n_valid.tolist() == [20, 7, 1, 5]  # of 65, 10, 1 and 65 frames
    for number, (clip, start) in enumerate(zip(clips.tolist(), starts.tolist(), strict=True)):
        valid = int(n_valid[number])
        whole = pictures.gather(torch.tensor([clip]), torch.tensor([0]), int(pictures.n_frames[clip]))[0][0]
        assert torch.equal(log_mel[number, :, :, :valid], whole[:, :, start : start + valid])
        assert (log_mel[number, :, :, valid:] == 0).all()


def test_pictures_are_computed_once_and_in_batches(
    table: pd.DataFrame, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_waveforms(table, AUDIO)
    first = open_log_mels(store, AUDIO, CPU)
    assert computed == [2, 1, 2, 1]  # long clips alone
    second = open_log_mels(open_waveforms(table, AUDIO), AUDIO, CPU)
    assert sum(computed) == 6
    every = torch.arange(6)
    assert torch.equal(first.gather(every, every * 0, 9)[0], second.gather(every, every * 0, 9)[0])


@pytest.mark.parametrize("change", [{"n_mels": 8}, {"window_s": 0.6}, {"top_db": 60.0}, {"mean_db": -20.0}])
def test_other_settings_are_computed_anew(table: pd.DataFrame, change: dict, computed: list[int]) -> None:
    store = open_waveforms(table, AUDIO)
    open_log_mels(store, AUDIO, CPU)
    open_log_mels(store, AUDIO.model_copy(update=change), CPU)
    assert sum(computed) == 12


def test_a_new_clip_is_computed_alone(table: pd.DataFrame, computed: list[int]) -> None:
    open_log_mels(open_waveforms(table[1:], AUDIO), AUDIO, CPU)
    computed.clear()
    open_log_mels(open_waveforms(table, AUDIO), AUDIO, CPU)
    assert computed == [1]


def test_an_interrupted_build_goes_on(
    table: pd.DataFrame, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_waveforms(table, AUDIO)
    pictures = log_mels._pictures

    def interrupted(log_mel: LogMel, waveforms: list[np.ndarray], *arguments: object) -> object:
        if len(computed) == 2:
            raise KeyboardInterrupt
        yield from pictures(log_mel, waveforms, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(log_mels, "_pictures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_log_mels(store, AUDIO, CPU)
    computed.clear()
    assert open_log_mels(store, AUDIO, CPU).n_frames.tolist() == [10, 25, 65, 1, 23, 35]
    assert sum(computed) == 3


def test_the_cache_cannot_be_written_through_a_batch_and_nothing_warns(table: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = open_log_mels(open_waveforms(table, AUDIO), AUDIO, CPU).to_device(CPU)
        (file,) = cache_folder().glob("packs/*.log_mels/values.bin")
        before = file.read_bytes()
        log_mel, _ = pictures.gather(torch.arange(6), torch.zeros(6, dtype=torch.long), 20)
        log_mel.fill_(7)
    assert file.read_bytes() == before
    assert not pictures._rows.flags.writeable


def test_memory_stays_flat_as_the_dataset_grows(table: pd.DataFrame) -> None:
    def peak_bytes(n_clips: int) -> int:
        starts_s = np.linspace(0, 0.9, n_clips)
        store = open_waveforms(
            make_table(path=[table["path"][2]] * n_clips, start_s=starts_s, end_s=starts_s + 0.4), AUDIO
        )
        tracemalloc.start()
        open_log_mels(store, AUDIO.model_copy(update={"n_mels": 64, "hop_length": 64}), CPU)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # imports
    assert peak_bytes(400) < peak_bytes(40) + 2**20  # pictures of 13 kB each


@pytest.mark.gpu
def test_a_small_set_is_held_on_the_gpu(table: pd.DataFrame) -> None:
    cuda = torch.device("cuda")
    store = open_waveforms(table, AUDIO)
    mapped = open_log_mels(store, AUDIO, CPU)
    clips, starts = torch.arange(6), torch.zeros(6, dtype=torch.long)
    expected = mapped.gather(clips, starts, 20)
    for part in (0.25, 0.0):  # held, and copied batch by batch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_mels, "GPU_PART", part)
            held = open_log_mels(store, AUDIO, cuda).to_device(cuda)
        assert isinstance(held, LogMelStore)
        log_mel, n_valid = held.gather(clips, starts, 20)
        assert log_mel.device.type == "cuda"
        assert torch.equal(log_mel.cpu(), expected[0])
        assert torch.equal(n_valid.cpu(), expected[1])
