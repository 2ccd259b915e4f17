"""Sounds in: a path, bytes or an array becomes a float32 waveform at the model's rate. The only place that decodes."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from clapkit.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    [".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".au", ".snd", ".rf64"]
)  # fmt: skip
MEDIA_SUFFIXES = frozenset([".m4a", ".aac", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".wma", ".3gp"])
LONGEST_MISSING_PART = 0.01
"""Part of the announced length that a decoder may leave out before a file counts as truncated."""
NO_SAMPLES = "holds no samples; give a sound with a length above zero."

_ADVICE = "give a WAV, FLAC, OGG, MP3 or AIFF file"
_SIZES = re.compile(
    r"^\s*(?:RIFF|RF64|FORM|SSND|data|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_OGG_WITHOUT_END = re.compile("lacks an end-of-stream bit|without an End-Of-Stream flag|Junk after the last page")
_WHOLE_WAV = re.compile(r"^RIFF :.*^data : \d+$", re.MULTILINE | re.DOTALL)
"""A WAV whose ``data`` chunk is as long as it says; the outer size is often wrong."""
_MP3_HEADER_BYTES = 16_384
_CODEC_DELAY_SAMPLES = 2400
"""MP3 headers count up to two frames that hold only the codec's delay."""
_UNKNOWN_SIZE = 0x7FFFFF00
"""Programs that write to a pipe leave sizes from here on in the header, for 'not known'."""


def load_waveform(
    source: Any,
    sample_rate: int,
    *,
    n_channels: int = 1,
    source_rate: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> np.ndarray:
    """Decode one sound, or a span of it, mix it to ``n_channels``, then resample it.

    Args:
        source: a path, the bytes of a file, or samples as a NumPy array or tensor: ``(n_samples,)`` or channels
            first ``(n_channels, n_samples)``; floats in [-1, 1], or integers of 8 (unsigned), 16 or 32 bits.
        sample_rate: wanted rate in Hz.
        n_channels: 1 mixes all channels down; 2 keeps stereo, doubles mono, and mixes more than two down first.
        source_rate: rate of the samples in Hz when ``source`` is an array; None means ``sample_rate``.
        start_s: start of the span in seconds.
        end_s: end of the span in seconds; None is the end of the sound.

    Returns:
        ``(n_channels, n_samples)`` float32 at ``sample_rate`` Hz.

    Raises:
        AudioError: missing, empty, truncated, undecodable, or not finite.
    """
    if isinstance(source, (str, os.PathLike)):
        [decoded], name = decode_file(Path(source), start_s, end_s), str(source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = "the given bytes"
        [decoded] = _decode_sound(io.BytesIO(bytes(source)), name, start_s, end_s)
    else:
        source_rate = sample_rate if source_rate is None else source_rate
        decoded, name = (samples_to_float(source), source_rate, 0), "the given array"
    waveform, source_rate, first = decoded
    if waveform.shape[1] == 0:
        raise AudioError(f"{name}: {NO_SAMPLES}")
    end = None if end_s is None else round(end_s * source_rate) - first
    waveform = waveform[:, round(start_s * source_rate) - first : end]
    if waveform.shape[1] == 0:
        raise AudioError(f"{name}: ends before the span that starts at {start_s:g} s; mend the span.")
    check_finite(waveform, name)
    return resample(mix_channels(waveform, n_channels), source_rate, sample_rate)


def decode_file(
    path: Path, start_s: float = 0.0, end_s: float | None = None, block_s: float | None = None
) -> Iterator[tuple[np.ndarray, int, int]]:
    """At least a span of a file as it was recorded, whole or in blocks; unlike a whole, blocks need little memory.

    Args:
        path: a sound or video file.
        start_s: start of the span in seconds.
        end_s: end of the span in seconds; None is the end of the sound.
        block_s: length of a block in seconds, about; None is one block.

    Yields:
        ``(n_channels, n_samples)`` float32, its rate in Hz, and where in the file the first block begins; at least
        one block, which may be empty.

    Raises:
        AudioError: missing, empty, undecodable, or truncated, which is mostly noticed after the last block.
    """
    _check_file(path)
    is_media = path.suffix.lower() in MEDIA_SUFFIXES
    return _decode_media(path, block_s) if is_media else _decode_sound(path, str(path), start_s, end_s, block_s)


def duration_s(path: Path) -> float | None:
    """Length in seconds as the header has it, without decoding; None where it does not say (some MP3 and AAC).

    Raises:
        AudioError: missing, empty, or no sound.
    """
    _check_file(path)
    if path.suffix.lower() in MEDIA_SUFFIXES:
        with _open_media(path) as (container, stream):
            return _announced_media_s(container, stream) or None
    with _open_sound(path, str(path)) as sound:
        is_guessed = sound.subtype == "MPEG_LAYER_III" and not _counts_its_frames(path)
        return None if is_guessed else sound.frames / sound.samplerate


def samples_to_float(samples: Any) -> np.ndarray:
    """Turn an array or tensor of samples into ``(n_channels, n_samples)`` float32; integers are scaled to [-1, 1]."""
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()  # NumPy has no bfloat16
    try:
        array = np.asarray(samples)
    except ValueError:
        raise AudioError("the given array: rows of different lengths; pad them, or give a list of sounds.") from None
    is_number = array.dtype.kind == "f" or (array.dtype.kind in "iu" and array.dtype.itemsize <= 4)
    if array.ndim not in (1, 2) or not is_number or array.shape[0] == 0:
        raise AudioError(
            f"the given array: shape {array.shape} of {array.dtype}; expected floats, or integers of 8, 16 or 32 bits, "
            "of shape (n_samples,) or (n_channels, n_samples)."
        )
    if array.ndim == 2 and array.shape[0] > 64 and array.shape[0] > array.shape[1]:
        raise AudioError(f"the given array: shape {array.shape}; channels come first, so transpose it.")
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind == "u":
        half = (np.iinfo(array.dtype).max + 1) / 2
        array = array / half - 1.0
    return np.atleast_2d(array).astype(np.float32)


def check_finite(waveform: np.ndarray, name: object) -> None:
    """Refuse a sound with NaN or infinite samples."""
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; export it again from the original recording.")


def mix_channels(waveform: np.ndarray, n_channels: int) -> np.ndarray:
    """``(any, n_samples)`` → ``(n_channels, n_samples)``: the mean for mono; stereo stays, the rest is doubled mono."""
    if waveform.shape[0] == n_channels:
        return waveform
    mono = (sum(waveform[1:], start=waveform[0]) / len(waveform))[None]  # a mean along interleaved channels is slow
    return mono if n_channels == 1 else np.repeat(mono, n_channels, axis=0)


def resample(waveform: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Resample ``(n_channels, n_samples)`` with soxr's high quality (alias below −130 dB)."""
    if source_rate <= 0:
        raise AudioError(f"sample rate {source_rate} Hz; expected a number above zero.")
    if source_rate == sample_rate:
        return np.ascontiguousarray(waveform, dtype=np.float32)
    resampled = soxr.resample(waveform.T, source_rate, sample_rate, quality="HQ")
    if len(resampled) == 0:  # shorter than one output sample
        return waveform[:, :1].astype(np.float32)
    return np.ascontiguousarray(resampled.T, dtype=np.float32)


def start_resampler(source_rate: int, sample_rate: int, n_channels: int) -> soxr.ResampleStream:
    """What ``resample`` does to a whole sound, for one that comes in blocks; the samples are the same."""
    return soxr.ResampleStream(source_rate, sample_rate, n_channels, dtype="float32", quality="HQ")


def encode_wav(waveform: np.ndarray, sample_rate: int, subtype: str = "PCM_16") -> bytes:
    """Encode a WAV file whose bytes depend on the samples alone.

    Args:
        waveform: ``(n_samples,)`` or ``(n_channels, n_samples)`` float32 in [-1, 1].
        sample_rate: Hz.
        subtype: libsndfile's name, such as ``PCM_16`` or ``FLOAT``.
    """
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform.T, sample_rate, format="WAV", subtype=subtype)
    content = bytearray(encoded.getvalue())
    if subtype == "FLOAT":  # libsndfile stamps the time into the PEAK chunk: name, size, version, time
        stamp = content.index(b"PEAK") + 12
        content[stamp : stamp + 4] = bytes(4)
    return bytes(content)


def find_sounds(paths: list[Path]) -> list[Path]:
    """Files as given, folders searched for sounds; sorted inside each folder, hidden files left out.

    Among several paths a missing one stays in the list, to be reported with the other bad files, and so does a folder
    that cannot be read.

    Raises:
        AudioError: the only path does not exist, or a folder holds no sound.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists() and len(paths) == 1:
            raise AudioError(f"{path}: no such file or folder; check the path.")
        if not path.is_dir():
            found.append(path)
            continue
        if not (inside := _sounds_inside(path)):
            raise AudioError(
                f"{path}: no sounds inside; expected files such as {', '.join(sorted(AUDIO_SUFFIXES)[:6])}."
            )
        found.extend(inside)
    return found


def _sounds_inside(folder: Path) -> list[Path]:
    """Its sounds at any depth, and the folders among them that cannot be read."""
    known = AUDIO_SUFFIXES | MEDIA_SUFFIXES
    found: list[Path] = []
    for place, _, names in os.walk(folder, onerror=lambda error: found.append(Path(error.filename))):
        files = (Path(place, name) for name in names if not name.startswith("."))
        found.extend(file for file in files if file.suffix.lower() in known and file.is_file())
    return sorted(found)


class _ForwardSound(soundfile.SoundFile):
    """A sound read from start to end: without the seek after every read, at which some MP3 come out otherwise."""

    def seekable(self) -> bool:
        return False


def _check_file(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"{path}: no such file; check the path.")
    if path.is_dir():
        try:
            os.scandir(path).close()
        except OSError as error:
            raise AudioError(f"{path}: this folder cannot be read ({error.strerror}).") from None
        raise AudioError(f"{path}: is a folder; give an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: is empty (0 bytes); copy it again.")


@contextlib.contextmanager
def _open_sound(file: Path | io.BytesIO, name: str) -> Iterator[soundfile.SoundFile]:
    """Open what libsndfile knows, and name the file in whatever goes wrong while it is open."""
    try:
        with _ForwardSound(file) as sound:
            yield sound
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).rpartition(": ")[2].strip(" .")
        raise AudioError(f"{name}: cannot be decoded as audio ({reason}); {_ADVICE}.") from None


def _decode_sound(
    file: Path | io.BytesIO, name: str, start_s: float, end_s: float | None, block_s: float | None = None
) -> Iterator[tuple[np.ndarray, int, int]]:
    with _open_sound(file, name) as sound:
        announced, rate, encoding = sound.frames, sound.samplerate, sound.subtype
        first, last = _span_to_read(sound, start_s, end_s)
        if first:
            sound.seek(first)
        n_block = last - first if block_s is None else max(round(block_s * rate), 1)
        missing, is_read = last - first, False
        while not is_read:
            samples = sound.read(min(n_block, missing), dtype="float32", always_2d=True)
            missing -= len(samples)
            is_read = missing == 0 or len(samples) < n_block
            yield samples.T, rate, first
        report = sound.extra_info  # complete only after reading
    decoded_short = missing > max(announced * LONGEST_MISSING_PART, _CODEC_DELAY_SAMPLES)
    if decoded_short and encoding == "MPEG_LAYER_III":
        decoded_short = _counts_its_frames(file)
    if decoded_short or _stored_part(report) < 1 - LONGEST_MISSING_PART:
        raise AudioError(
            f"{name}: truncated, its data end after {(announced - missing) / rate:.2f} s, before the end that its "
            "header announces; copy it again."
        )


def _span_to_read(sound: soundfile.SoundFile, start_s: float, end_s: float | None) -> tuple[int, int]:
    """First and last sample to decode, at least one; all for lossy codecs, which build on what they decoded before."""
    if not sound.subtype.startswith("PCM") and sound.subtype not in ("FLOAT", "DOUBLE"):
        return 0, sound.frames
    first = max(min(round(start_s * sound.samplerate), sound.frames - 1), 0)
    last = sound.frames if end_s is None else min(round(end_s * sound.samplerate), sound.frames)
    return first, max(last, min(first + 1, sound.frames))


def _counts_its_frames(file: Path | io.BytesIO) -> bool:
    """Whether an MP3 begins with a header that counts its frames; the decoder only guesses their number elsewhere."""
    if isinstance(file, io.BytesIO):
        start = file.getvalue()[:_MP3_HEADER_BYTES]
    else:
        with file.open("rb") as raw:
            start = raw.read(_MP3_HEADER_BYTES)
    return any(mark in start for mark in (b"Xing", b"Info", b"VBRI"))


def _stored_part(report: str) -> float:
    """Part of the announced bytes that is there, read from libsndfile's parsing report (0.0 for a cut Ogg stream)."""
    if _OGG_WITHOUT_END.search(report):
        return 0.0
    if _WHOLE_WAV.search(report):
        return 1.0
    sizes = [(int(announced), int(actual)) for announced, actual in _SIZES.findall(report)]
    return min((actual / announced for announced, actual in sizes if 0 < announced < _UNKNOWN_SIZE), default=1.0)


@contextlib.contextmanager
def _open_media(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first audio track, and name the file in whatever goes wrong while it is open."""
    try:
        import av
    except ImportError:
        raise AudioError(f"{path}: {path.suffix} needs the media extra; run: pip install av.") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: has no audio track; {_ADVICE}.")
            yield container, container.streams.audio[0]
    except (av.FFmpegError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded as audio ({error.strerror or error}); {_ADVICE}.") from None


def _announced_media_s(container: Any, stream: Any) -> float:
    """Length in seconds as the header has it; 0.0 where it does not say."""
    if container.format.name == "aac":  # bare frames, of which FFmpeg multiplies the first ones up to the whole file
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6  # microseconds; Matroska knows no length of a single track


def _decode_media(path: Path, block_s: float | None) -> Iterator[tuple[np.ndarray, int, int]]:
    n_read, n_waiting, waiting = 0, 0, []
    with _open_media(path) as (container, stream):
        import av

        rate, n_block = stream.rate, math.inf if block_s is None else block_s * stream.rate
        to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        for part in (part.to_ndarray() for frame in container.decode(stream) for part in to_float.resample(frame)):
            waiting.append(part)
            n_waiting += part.shape[1]
            if n_waiting >= n_block:
                yield np.concatenate(waiting, axis=1), rate, 0
                n_read, n_waiting, waiting = n_read + n_waiting, 0, []
        announced_s = _announced_media_s(container, stream)
    if waiting or n_read == 0:
        yield np.concatenate(waiting or [np.zeros((1, 0), dtype=np.float32)], axis=1), rate, 0
    n_read += n_waiting
    if n_read / rate < announced_s * (1 - LONGEST_MISSING_PART) - 0.1:  # encoders pad by up to 0.1 s
        raise AudioError(f"{path}: truncated, {n_read / rate:.2f} s of {announced_s:.2f} s can be read.")
