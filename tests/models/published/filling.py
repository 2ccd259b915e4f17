"""Deterministic weights, texts and sounds for models whose real weights nobody has; needs NumPy alone.

``make_references.py`` gives them to the original packages, the tests to clapkit.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LAYOUTS, REFERENCES = HERE / "layouts.json.gz", HERE / "references.npz"

TEXTS = [
    "a dog barking",
    "This is a sound of rain.",
    "Stop! The car horn!! It is loud !",
    "!",
    "Überall knistert Feuer – 3 sirens, 2 drills",
]
LONG_TEXT = "a small dog barks at a passing train while children play in the rain and thunder rolls over the hills " * 2
REAL_CLIPS = [
    "us8k/fold1/101415-3-0-2.ogg", "us8k/fold1/103258-5-0-0.ogg", "us8k/fold2/100652-3-0-0.ogg",
    "esc50/audio/1-100032-A-0.ogg", "esc50/audio/1-101296-A-19.ogg", "esc50/audio/2-102567-A-35.ogg",
]  # fmt: skip
"""Below shared/data; none is longer than five seconds, so that no original crops it at random."""
LONE_SPACE = 220
"""GPT-2's id of a space without a word, with which clapcap ends a caption."""
EMBEDDINGS = (
    "wte.weight", "wpe.weight", "word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
)  # fmt: skip


def read_layouts() -> dict[str, dict[str, list[int] | str]]:
    """Of every model, key → shape, or the name of a constant for what is not learned."""
    return json.loads(gzip.decompress(LAYOUTS.read_bytes()))


def fill(
    layout: dict[str, list[int] | str], constants: dict[str, np.ndarray], statistics: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Make a state dict of the published layout.

    Args:
        layout: as :func:`read_layouts` gives it.
        constants: what the layout names, such as mel filters.
        statistics: BatchNorm's ``running_mean`` and ``running_var`` by key; 0 and 1 where there is none.
    """
    state = {}
    for key, shape in layout.items():
        if key in statistics:
            state[key] = statistics[key]
        elif isinstance(shape, str) and shape in layout:  # two names of one tensor
            state[key] = draw(shape, tuple(layout[shape]))
        elif isinstance(shape, str):
            state[key] = CALCULATED[shape]() if shape in CALCULATED else constants[shape]
        else:
            state[key] = draw(key, tuple(shape))
    return state


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers that depend on the key alone, of a size that keeps signals alive through many layers."""
    if key.endswith("num_batches_tracked"):
        return np.array(4, dtype=np.int64)
    if key.endswith("running_mean") or key.endswith("running_var"):
        return np.full(shape, float(key.endswith("var")), dtype=np.float32)
    if "logit_scale" in key:
        return np.array(np.log(1 / 0.07), dtype=np.float32)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.endswith("relative_position_bias_table"):
        return noise * np.float32(0.3)
    if key == "gpt.transformer.wte.weight":
        noise[LONE_SPACE] *= 2  # likely now and then, so that captions end
    if key.endswith(EMBEDDINGS):
        return noise * np.float32(0.1)
    if key.endswith("prefix_const"):
        return noise
    if len(shape) == 1:
        return np.float32(1) + noise * np.float32(0.1) if key.endswith("weight") else noise * np.float32(0.05)
    is_transposed = ".c_" in key  # GPT-2 keeps (n_in, n_out)
    n_in = shape[0] if is_transposed else int(np.prod(shape[1:]))
    return noise * np.float32(np.sqrt(2 / n_in))


def stft_real() -> np.ndarray:
    """torchlibrosa's convolution that is the real part of a Fourier transform, ``(513, 1, 1024)``."""
    return _stft(np.cos)


def stft_imaginary() -> np.ndarray:
    """As :func:`stft_real`, the imaginary part."""
    return _stft(lambda angle: -np.sin(angle))


def _stft(wave) -> np.ndarray:
    place = np.arange(1024)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * place / 1024)
    return (wave(2 * np.pi * np.outer(np.arange(513), place) / 1024) * hann)[:, None].astype(np.float32)


def causal_mask() -> np.ndarray:
    """What older versions of GPT-2 keep in ``attn.bias``, ``(1, 1, 1024, 1024)``."""
    return np.tril(np.ones((1, 1, 1024, 1024), dtype=np.uint8))


CALCULATED = {
    "stft_real": stft_real,
    "stft_imaginary": stft_imaginary,
    "causal_mask": causal_mask,
    "masked_bias": lambda: np.array(-1e4, dtype=np.float32),
    "positions_512": lambda: np.arange(512)[None],
    "positions_514": lambda: np.arange(514)[None],
}


def sweep(duration_s: float, rate: int) -> np.ndarray:
    """A rising tone that beats, in noise: ``(n_samples,)`` float32."""
    time_s = np.arange(round(duration_s * rate)) / rate
    phase = 2 * np.pi * (200 * time_s + 900 * time_s**2 / duration_s)
    beats = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time_s)
    noise = np.random.default_rng(round(duration_s * 10)).standard_normal(len(time_s))
    return (0.3 * beats * np.sin(phase) + 0.02 * noise).astype(np.float32)


def synthetic_clips(window_s: float, rate: int) -> dict[str, np.ndarray]:
    """A clip that must be repeated and filled up, one that fits, and a very short one."""
    return {name: sweep(length, rate) for name, length in (("3s", 3.0), ("window", window_s), ("short", 0.7))}


def checksum(state: dict[str, np.ndarray]) -> int:
    """Tells whether another NumPy drew other numbers; of every tensor its first values."""
    return zlib.crc32(b"".join(np.ravel(state[key])[:64].tobytes() for key in sorted(state)))
