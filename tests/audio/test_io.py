"""Sounds in: every way of giving one ends in the same samples, and every broken one in one readable line."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from clapkit.audio.io import encode_wav, find_sounds, load_waveform
from clapkit.errors import AudioError
from tests.conftest import write_aac

RATE = 16_000
FORMATS = {  # suffix: libsndfile's format and encoding
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
}


def tone(frequency_hz: float = 440.0, duration_s: float = 1.0, rate: int = RATE) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def write(file: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    """Write ``(n_samples,)`` or ``(n_channels, n_samples)`` in the format of the suffix."""
    container, usual = FORMATS[file.suffix]
    soundfile.write(file, samples.T, rate, format=container, subtype=subtype or usual)
    return file


def error_of(source: object, name: object) -> str:
    """The message of the AudioError, which must be one line that begins with the sound's name."""
    with pytest.raises(AudioError) as caught:
        load_waveform(source, RATE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


# One sound, given in different ways


def test_path_bytes_array_and_tensor_give_the_same_samples(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", tone(), subtype="FLOAT")
    files = [file, str(file), file.read_bytes(), memoryview(file.read_bytes())]
    samples = [tone(), tone()[None], torch.from_numpy(tone()), tone().tolist()]
    for way in files + samples:
        waveform = load_waveform(way, RATE)
        assert (waveform.shape, waveform.dtype) == ((1, RATE), np.float32)
        np.testing.assert_array_equal(waveform[0], tone())


def test_a_tensor_that_needs_a_gradient_is_taken() -> None:
    samples = torch.from_numpy(tone()).requires_grad_()
    np.testing.assert_array_equal(load_waveform(samples, RATE)[0], tone())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_of_another_precision_is_taken(dtype: torch.dtype) -> None:
    np.testing.assert_allclose(load_waveform(torch.from_numpy(tone()).to(dtype), RATE)[0], tone(), atol=3e-3)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384, 32767], np.int16), [-1, 0, 0.5, 32767 / 32768]),
        (np.array([0, 128, 192, 255], np.uint8), [-1, 0, 0.5, 127 / 128]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([-1.0, 0.25, 1.0], np.float64), [-1, 0.25, 1]),
    ],
    ids=["int16", "uint8", "int32", "float64"],
)
def test_integers_are_scaled_and_floats_are_not(samples: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(load_waveform(samples, RATE)[0], expected, atol=1e-7)


def test_integer_arrays_equal_the_file_they_came_from(tmp_path: Path) -> None:
    samples = (tone() * 32767).astype(np.int16)
    file = write(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(load_waveform(samples, RATE), load_waveform(file, RATE))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_decodes_to_the_tone(tmp_path: Path, suffix: str) -> None:
    waveform = load_waveform(write(tmp_path / f"a{suffix}", tone()), RATE)
    assert waveform.shape == (1, RATE)
    assert np.corrcoef(waveform[0], tone())[0, 1] > 0.99


# Channels


def test_stereo_comes_channels_first_from_files_and_arrays(tmp_path: Path) -> None:
    stereo = np.stack([tone(440), tone(880)])
    file = write(tmp_path / "a.wav", stereo, subtype="FLOAT")
    np.testing.assert_array_equal(load_waveform(file, RATE, n_channels=2), stereo)
    np.testing.assert_array_equal(load_waveform(stereo, RATE, n_channels=2), stereo)


def test_mono_is_the_mean_of_the_channels() -> None:
    channels = np.stack([tone(440), tone(880), tone(1320)])
    np.testing.assert_allclose(load_waveform(channels, RATE)[0], channels.mean(axis=0), atol=1e-7)


def test_wanted_stereo_doubles_mono_and_mixes_more_than_two_down() -> None:
    np.testing.assert_array_equal(load_waveform(tone(), RATE, n_channels=2), np.stack([tone(), tone()]))
    channels = np.stack([tone(440), tone(880), tone(1320)])
    waveform = load_waveform(channels, RATE, n_channels=2)
    np.testing.assert_allclose(waveform, np.stack([channels.mean(axis=0)] * 2), atol=1e-7)


def test_samples_first_arrays_are_refused() -> None:
    assert "channels come first, so transpose it" in error_of(np.zeros((RATE, 2), np.float32), "the given array")


# Rates


@pytest.mark.parametrize("source_rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_duration_frequency_and_level(source_rate: int) -> None:
    waveform = load_waveform(tone(1000, 2.0, source_rate), RATE, source_rate=source_rate)[0]
    assert abs(len(waveform) - 2 * RATE) <= 1
    spectrum = np.abs(np.fft.rfft(waveform[:RATE] * np.hanning(RATE)))  # 1 Hz per bin
    assert spectrum.argmax() == 1000
    assert np.abs(waveform[RATE // 2 : RATE]).max() == pytest.approx(0.5, abs=0.005)


def test_a_tone_above_half_the_new_rate_vanishes_instead_of_aliasing() -> None:
    waveform = load_waveform(tone(11_000, 1.0, 44_100), RATE, source_rate=44_100)[0]
    inner = waveform[RATE // 10 : -RATE // 10]  # without the edges, where the tone is switched on and off
    assert np.sqrt(np.mean(inner**2)) < 1e-5


def test_a_files_own_rate_is_read_from_its_header(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", tone(1000, 1.0, 48_000), rate=48_000)
    assert load_waveform(file, RATE).shape == (1, RATE)
    assert load_waveform(file, 48_000).shape == (1, 48_000)


def test_a_single_sample_stays_a_sound() -> None:
    assert load_waveform(np.full(1, 0.5, np.float32), RATE, source_rate=96_000).shape == (1, 1)


@pytest.mark.parametrize("source_rate", [-1, 0])
def test_a_rate_that_is_not_above_zero_is_refused(source_rate: int) -> None:
    with pytest.raises(AudioError, match="above zero"):
        load_waveform(tone(), RATE, source_rate=source_rate)


# Spans and encoding


def test_a_span_is_cut_at_the_files_own_rate(tmp_path: Path) -> None:
    ramp = np.linspace(0, 0.9, RATE, dtype=np.float32)
    file = write(tmp_path / "a.wav", ramp, subtype="FLOAT")
    np.testing.assert_array_equal(load_waveform(file, RATE, start_s=0.25, end_s=0.5)[0], ramp[4000:8000])
    np.testing.assert_array_equal(load_waveform(file, RATE, start_s=0.75)[0], ramp[12000:])


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_encoding_is_undone_by_decoding_and_repeats_its_bytes(subtype: str) -> None:
    stereo = np.stack([tone(440), tone(880)])
    encoded = encode_wav(stereo, RATE, subtype)
    np.testing.assert_allclose(load_waveform(encoded, RATE, n_channels=2), stereo, atol=1 / 32768)
    assert encode_wav(stereo, RATE, subtype) == encoded
    assert subtype != "FLOAT" or encoded[encoded.index(b"PEAK") + 12 :][:4] == bytes(4)  # no time stamp


# What cannot be used


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.wav", tmp_path / "none.wav")


def test_a_folder_is_named(tmp_path: Path) -> None:
    assert "is a folder" in error_of(tmp_path, tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "is empty (0 bytes)" in error_of(tmp_path / "a.wav", tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["notes.txt", "notes.wav", "notes.mp3", "notes.m4a"])
def test_a_text_file_is_named_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a sound\n" * 200)
    assert "cannot be decoded as audio" in error_of(tmp_path / name, tmp_path / name)


def test_a_file_without_samples_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", np.zeros(0, np.float32))
    assert "holds no samples" in error_of(file, file)


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_cut_file_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    file = write(tmp_path / f"a{suffix}", noise)
    content = file.read_bytes()
    file.write_bytes(content[: round(len(content) * kept)])
    message = error_of(file, file)
    assert "truncated" in message or "cannot be decoded" in message


def test_cut_bytes_are_refused() -> None:
    encoded = encode_wav(tone(), RATE)
    assert "truncated" in error_of(encoded[: len(encoded) // 2], "the given bytes")


def test_a_header_of_unknown_length_is_not_a_cut_file(tmp_path: Path) -> None:
    encoded = bytearray(encode_wav(tone(), RATE))
    for place in (4, encoded.index(b"data") + 4):  # as programs that write to a pipe leave it
        encoded[place : place + 4] = b"\xff\xff\xff\xff"
    np.testing.assert_allclose(load_waveform(bytes(encoded), RATE)[0], tone(), atol=1 / 32768)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[100] = value
    file = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert "NaN or infinite" in error_of(file, file)
    assert "NaN or infinite" in error_of(samples, "the given array")


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((0, 100), np.float32),
        np.zeros((1, 1, 100), np.float32),
        np.zeros(100, bool),
        np.zeros(100, complex),
        np.array(["a", "b"]),
        np.array([1000, -1000]),
        [[0.1, 0.2], [0.3]],
        None,
    ],
    ids=["empty", "no samples", "no channels", "3-d", "bool", "complex", "text", "int64", "ragged", "none"],
)
def test_what_is_no_waveform_is_refused(samples: object) -> None:
    error_of(samples, "the given array")


def test_bytes_that_are_no_sound_are_refused() -> None:
    assert "cannot be decoded as audio" in error_of(b"not a sound", "the given bytes")


def test_an_encoding_that_cannot_be_sought_is_decoded_or_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "gsm.wav", tone(), rate=8_000, subtype="GSM610")
    with contextlib.suppress(AudioError):
        assert load_waveform(file, 8_000).shape[1] == pytest.approx(len(tone()), rel=0.02)


# Finding


def test_sounds_are_found_in_folders_sorted_and_files_stay_as_given(tmp_path: Path) -> None:
    for name in ("b.wav", "a.MP3", "deep/er/c.flac", "notes.txt", "video.m4a"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    single = tmp_path / "single.xyz"
    single.touch()
    found = find_sounds([single, tmp_path / "in"])
    assert found == [single, *(tmp_path / "in" / name for name in ("a.MP3", "b.wav", "deep/er/c.flac", "video.m4a"))]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="none: no such file or folder"):
        find_sounds([tmp_path / "none"])


def test_a_folder_without_sounds_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match="no sounds inside") as caught:
        find_sounds([tmp_path])
    assert str(caught.value).startswith(f"{tmp_path}: ")


# Real recordings


def test_real_recordings_of_every_format_decode_fully(real_data: Path) -> None:
    files = sorted([*(real_data / "original_formats").iterdir(), *(real_data / "layouts").rglob("*.wav")])
    assert len(files) >= 50
    for file in files:
        waveform = load_waveform(file, 22_050)
        assert waveform.dtype == np.float32, file
        assert np.isfinite(waveform).all(), file
        assert waveform.any(), file
        assert waveform.shape == (1, pytest.approx(soundfile.info(file).duration * 22_050, rel=0.05)), file


# The media extra


@pytest.mark.parametrize("suffix", [".m4a", ".mp4"])
def test_media_files_decode_through_pyav(tmp_path: Path, suffix: str) -> None:
    waveform = load_waveform(write_aac(tmp_path / f"a{suffix}", tone(1000, 2.0)[None]), RATE)[0]
    assert len(waveform) == pytest.approx(2 * RATE, rel=0.06)  # AAC pads to whole frames
    spectrum = np.abs(np.fft.rfft(waveform[RATE // 2 : RATE // 2 + RATE] * np.hanning(RATE)))
    assert spectrum.argmax() == 1000


def test_media_files_keep_their_channels(tmp_path: Path) -> None:
    file = write_aac(tmp_path / "a.m4a", np.stack([tone(), 0 * tone()]))
    left, right = load_waveform(file, RATE, n_channels=2)
    assert np.abs(left).max() > 0.3
    assert np.abs(right).max() < 0.01


def test_a_cut_media_file_is_named(tmp_path: Path) -> None:
    file = write_aac(tmp_path / "a.m4a", tone(440, 4.0)[None])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    error_of(file, file)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "media extra; run: pip install av" in error_of(tmp_path / "a.m4a", tmp_path / "a.m4a")


def test_without_pyav_other_formats_still_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert load_waveform(write(tmp_path / "a.flac", tone()), RATE).shape == (1, RATE)
