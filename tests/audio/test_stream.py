"""A streamed sound is the sound itself: sample for sample and window for window, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapkit.audio.io import duration_s, encode_wav, load_waveform
from clapkit.audio.stream import stream_waveform, stream_windows
from clapkit.audio.windows import cut_windows
from clapkit.config import AudioConfig
from clapkit.errors import AudioError, ConfigError
from tests.conftest import write_aac

RATE = 16_000
FORMATS = {  # name: libsndfile's format and encoding
    "pcm16.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "a.flac": ("FLAC", "PCM_24"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
    "gsm.wav": ("WAV", "GSM610"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
}
TEN = AudioConfig.model_construct(sample_rate=1000, window_s=0.01, padding="zero", fused_s=None)
"""Windows of ten samples, too short for a Fourier window."""


def noise(n_samples: int, n_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n_samples).normal(0, 0.1, (n_channels, n_samples)).astype(np.float32)


def write(file: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write ``(n_channels, n_samples)`` in the format that ``FORMATS`` gives the name."""
    container, encoding = FORMATS[file.name]
    soundfile.write(file, samples.T, rate, format=container, subtype=encoding)
    return file


def cut_into_blocks(waveform: np.ndarray, n_block: int) -> Iterator[np.ndarray]:
    for start in range(0, waveform.shape[1], n_block):
        yield waveform[:, start : start + n_block]


def assert_streams_as_loaded(file: Path, rate: int, n_channels: int = 1, block_s: float = 0.7) -> None:
    blocks = list(stream_waveform(file, rate, n_channels=n_channels, block_s=block_s))
    assert all(block.dtype == np.float32 and block.shape[1] > 0 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), load_waveform(file, rate, n_channels=n_channels))


def errors_of(file: Path) -> tuple[str, str, int]:
    """The messages of streaming and of loading, and how many blocks came before the first."""
    heard: list[np.ndarray] = []

    def hear() -> None:
        for block in stream_waveform(file, RATE, block_s=0.5):
            heard.append(block)

    with pytest.raises(AudioError) as streamed:
        hear()
    with pytest.raises(AudioError) as loaded:
        load_waveform(file, RATE)
    assert "\n" not in str(streamed.value)
    assert str(streamed.value).startswith(f"{file}: ")
    return str(streamed.value), str(loaded.value), len(heard)


# The same samples


@pytest.mark.parametrize("source_rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_the_loaded_waveform_at_its_own_and_other_rates(tmp_path: Path, name: str, source_rate: int) -> None:
    if name == "a.opus" and source_rate in (22_050, 44_100):
        pytest.skip("Opus knows no such rate")
    n_channels = 1 if name == "gsm.wav" else 2
    file = write(tmp_path / name, noise(2 * source_rate + 17, n_channels), source_rate)
    for rate in (source_rate, 32_000):
        assert_streams_as_loaded(file, rate)
        assert_streams_as_loaded(file, rate, n_channels=2)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 10, 699, 700, 701, 1400, 9_999])
def test_short_sounds_and_sounds_of_whole_blocks_come_complete(tmp_path: Path, n_samples: int) -> None:
    file = write(tmp_path / "float.wav", noise(n_samples), 1_000)
    for rate in (1_000, 250, 44_100):
        assert_streams_as_loaded(file, rate)


def test_a_long_sound_comes_in_blocks_of_the_wanted_length(tmp_path: Path) -> None:
    file = write(tmp_path / "pcm16.wav", noise(100 * 8_000, 2), 8_000)
    lengths = [block.shape for block in stream_waveform(file, 8_000)]
    assert lengths == [(1, 240_000)] * 3 + [(1, 80_000)]
    assert_streams_as_loaded(file, 22_050, block_s=30.0)


@pytest.mark.parametrize("n_channels", [1, 2, 5, 25])
def test_any_number_of_channels_is_mixed_as_when_loaded(tmp_path: Path, n_channels: int) -> None:
    file = write(tmp_path / "float.wav", noise(1_401, n_channels), 1_000)  # the last block is one sample
    for wanted in (1, 2):
        assert_streams_as_loaded(file, 1_000, n_channels=wanted)
        assert_streams_as_loaded(file, 800, n_channels=wanted)


def test_tiny_blocks_change_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp3", noise(2_000), 8_000)
    assert_streams_as_loaded(file, 8_000, block_s=0.001)
    assert_streams_as_loaded(file, 44_100, block_s=0.0)


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mkv", ".aac"])
def test_media_files_stream_as_loaded(tmp_path: Path, suffix: str) -> None:
    file = write_aac(tmp_path / f"a{suffix}", noise(5 * RATE, 2))
    for rate in (RATE, 22_050):
        assert_streams_as_loaded(file, rate)
        assert_streams_as_loaded(file, rate, n_channels=2)
    assert len(list(stream_waveform(file, RATE, block_s=1.0))) in (5, 6)


def test_bare_aac_is_not_taken_for_a_cut_file(tmp_path: Path) -> None:
    samples = noise(20 * RATE)
    samples[:, : 15 * RATE] = 0  # nearly no bytes at first, so that the length cannot be guessed from them
    for ordered in (samples, samples[:, ::-1].copy()):
        file = write_aac(tmp_path / "a.aac", ordered)
        assert_streams_as_loaded(file, RATE)
        assert load_waveform(file, RATE).shape[1] == pytest.approx(20 * RATE, rel=0.02)


def test_real_recordings_of_every_format_stream_as_loaded(real_data: Path) -> None:
    for file in sorted((real_data / "original_formats").iterdir()):
        assert_streams_as_loaded(file, 22_050, block_s=0.5)


# The same errors


def test_missing_and_empty_files_folders_and_texts_are_named_alike(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("not a sound\n" * 200)
    write(tmp_path / "float.wav", noise(0))
    for name in ("none.wav", ".", "empty.wav", "text.mp3", "float.wav"):
        streamed, loaded, n_blocks = errors_of(tmp_path / name)
        assert (streamed, n_blocks) == (loaded, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_named_where_they_come(tmp_path: Path, value: float) -> None:
    samples = noise(2 * RATE)
    samples[0, RATE + 100] = value
    streamed, loaded, n_blocks = errors_of(write(tmp_path / "float.wav", samples))
    assert (streamed, n_blocks) == (loaded, 2)


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("name", list(FORMATS)[:6])
def test_a_cut_file_gives_what_it_has_and_then_the_same_error(tmp_path: Path, name: str, kept: float) -> None:
    file = write(tmp_path / name, noise(4 * RATE))
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * kept)])
    streamed, loaded, n_blocks = errors_of(file)
    assert streamed == loaded
    assert n_blocks > 0 or "cannot be decoded" in streamed


@pytest.mark.parametrize("suffix", [".m4a", ".mkv"])
def test_a_cut_media_file_is_named_alike(tmp_path: Path, suffix: str) -> None:
    file = write_aac(tmp_path / f"a{suffix}", noise(4 * RATE))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    streamed, loaded, _ = errors_of(file)
    assert streamed == loaded


# Windows


def assert_windows_as_cut(waveform: np.ndarray, audio: AudioConfig, n_block: int) -> None:
    streamed = list(stream_windows(cut_into_blocks(waveform, n_block), audio))
    cut = cut_windows(waveform, audio)
    assert [start for start, _, _ in streamed] == cut.start_samples.tolist()
    assert [n_valid for _, _, n_valid in streamed] == cut.n_valid_samples.tolist()
    assert all(window.dtype == np.float32 for _, window, _ in streamed)
    np.testing.assert_array_equal(np.stack([window for _, window, _ in streamed]), cut.waveform)


@pytest.mark.parametrize("n_block", [1, 3, 9, 10, 11, 47, 1000])
@pytest.mark.parametrize("fused_s", [None, 0.03, 0.025])
def test_windows_are_those_of_the_whole_waveform(n_block: int, fused_s: float | None) -> None:
    audio = TEN.model_copy(update={"fused_s": fused_s})
    for n_samples in [*range(1, 65), 100, 101, 997]:
        assert_windows_as_cut(noise(n_samples, 2), audio, n_block)


@pytest.mark.parametrize("padding", ["zero", "repeat", "repeatpad"])
def test_a_short_sound_is_filled_up_as_when_cut(padding: str) -> None:
    for n_samples in range(1, 11):
        assert_windows_as_cut(noise(n_samples), TEN.model_copy(update={"padding": padding}), 4)


@pytest.mark.parametrize("n_block", [1, 4, 10, 1000])
@pytest.mark.parametrize("n_hop", [1, 3, 5, 10])
def test_overlapping_windows_start_at_every_hop_and_the_last_ends_with_the_sound(n_hop: int, n_block: int) -> None:
    for n_samples in (1, 10, 11, 12, 13, 15, 20, 99):
        waveform = noise(n_samples)
        streamed = list(stream_windows(cut_into_blocks(waveform, n_block), TEN, hop_s=n_hop / 1000))
        last = max(n_samples - 10, 0)
        assert [start for start, _, _ in streamed] == [*range(0, last, n_hop), last]
        for start, window, n_valid in streamed:
            assert n_valid == min(n_samples, 10)
            np.testing.assert_array_equal(window[:, :n_valid], waveform[:, start : start + 10])


def test_windows_come_before_the_sound_has_ended() -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield noise(4)

    windows = stream_windows(endless(), TEN)
    assert [next(windows)[0] for _ in range(5)] == [0, 10, 20, 30, 40]


def test_windows_are_copies_of_the_blocks() -> None:
    waveform = noise(25)
    for _, window, _ in stream_windows([waveform], TEN):
        window[:] = 0
    np.testing.assert_array_equal(waveform, noise(25))


@pytest.mark.parametrize("name", ["pcm16.wav", "a.flac", "a.mp3"])
@pytest.mark.parametrize("length_s", [0.001, 3.0, 4.0, 41.3])
def test_windows_of_a_streamed_file_are_those_of_the_loaded_one(tmp_path: Path, name: str, length_s: float) -> None:
    audio = AudioConfig(sample_rate=RATE, window_s=4.0)
    file = write(tmp_path / name, noise(round(length_s * 22_050)), 22_050)
    streamed = list(stream_windows(stream_waveform(file, RATE, block_s=5.0), audio))
    cut = cut_windows(load_waveform(file, RATE), audio)
    assert [(start, n_valid) for start, _, n_valid in streamed] == list(
        zip(cut.start_samples.tolist(), cut.n_valid_samples.tolist(), strict=True)
    )
    np.testing.assert_array_equal(np.stack([window for _, window, _ in streamed]), cut.waveform)


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 0.0001, 0.011, np.nan, np.inf])
def test_a_hop_of_nothing_or_past_the_window_is_refused(hop_s: float) -> None:
    with pytest.raises(ConfigError, match="hop_s="):
        list(stream_windows([noise(25)], TEN, hop_s=hop_s))


@pytest.mark.parametrize("blocks", [[], [noise(0)]])
def test_blocks_without_samples_are_refused(blocks: list[np.ndarray]) -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        list(stream_windows(blocks, TEN))


# Lengths


@pytest.mark.parametrize("name", FORMATS)
def test_the_header_tells_the_length(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, noise(5 * RATE))
    assert duration_s(file) == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mkv"])
def test_the_header_of_a_media_file_tells_the_length(tmp_path: Path, suffix: str) -> None:
    assert duration_s(write_aac(tmp_path / f"a{suffix}", noise(5 * RATE))) == pytest.approx(5.0, abs=0.2)


def test_headers_that_do_not_know_the_length_give_none(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp3", noise(5 * RATE))
    content = file.read_bytes()
    mark = max(content.find(b"Xing"), content.find(b"Info"))
    file.write_bytes(content[:mark] + bytes(4) + content[mark + 4 :])
    assert duration_s(file) is None
    assert duration_s(write_aac(tmp_path / "a.aac", noise(RATE))) is None


def test_the_length_of_what_is_no_sound_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound\n" * 200)
    for name, reason in (("none.wav", "no such file"), ("text.wav", "cannot be decoded as audio")):
        with pytest.raises(AudioError, match=reason):
            duration_s(tmp_path / name)


def test_a_header_of_unknown_length_streams_to_its_end(tmp_path: Path) -> None:
    encoded = bytearray(encode_wav(noise(2 * RATE), RATE))
    for place in (4, encoded.index(b"data") + 4):  # as programs that write to a pipe leave it
        encoded[place : place + 4] = b"\xff\xff\xff\xff"
    file = tmp_path / "piped.wav"
    file.write_bytes(encoded)
    assert_streams_as_loaded(file, RATE)


# Memory

MEASURE = """
import resource, sys
from pathlib import Path
from clapkit.audio.stream import stream_waveform, stream_windows
from clapkit.config import AudioConfig
blocks = stream_waveform(Path(sys.argv[1]), 16_000, block_s=5.0)
n_windows = sum(1 for _ in stream_windows(blocks, AudioConfig(sample_rate=16_000)))
print(n_windows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    minute, peaks = noise(60 * 8_000)[0], {}
    for minutes in (2, 30):
        file = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(file, "w", 8_000, 1, "PCM_16") as sound:
            for _ in range(minutes):
                sound.write(minute)
        command = [sys.executable, "-c", MEASURE, str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        n_windows, peaks[minutes] = (int(word) for word in printed.split())
        assert n_windows == 15 * minutes
    assert peaks[30] - peaks[2] < 16e6  # the whole sound would take 115 MB at the wanted rate
