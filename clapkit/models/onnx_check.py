"""Whether onnxruntime computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clapkit.audio.io import load_waveform
from clapkit.audio.windows import cut_windows, n_window_samples
from clapkit.config import AudioConfig
from clapkit.errors import ClapkitError
from clapkit.models.clap import CLAP
from clapkit.resources import example_clip

if TYPE_CHECKING:
    from clapkit.models.text_encoder import TextEncoder

TOLERANCE = 1e-4
"""Largest difference of any number of a unit vector, or of a probability."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TowerCheck:
    """How near a graph comes to its tower.

    Attributes:
        file: name of the graph's file.
        inputs: what it takes.
        outputs: what it gives.
        size_mb: of the file.
        n_checked: sounds or texts compared, alone and together in one batch.
        largest_difference: between onnxruntime's numbers and the model's.
        smallest_distance: between the vectors of any two of them (largest difference in one number), so that one can
            see that they are not all alike.
    """

    file: str
    inputs: list[str]
    outputs: list[str]
    size_mb: float
    n_checked: int
    largest_difference: float
    smallest_distance: float


def check_audio(clap: CLAP, file: Path) -> TowerCheck:
    """Compare three sounds, one of them shorter than a window.

    Raises:
        ClapkitError: they differ by more than 1e-4.
    """
    clips = check_sounds(clap.config.audio)
    windows = [cut_windows(clip, clap.config.audio) for clip in clips]
    feeds = {
        "waveform": np.concatenate([each.waveform for each in windows]),
        "n_valid_samples": np.concatenate([each.n_valid_samples for each in windows]),
    }

    @torch.inference_mode()
    def own(batch: Arrays) -> list[np.ndarray]:
        features = clap.audio_features(*map(torch.from_numpy, batch.values()))
        outputs = [clap.audio_projection(features)]
        if clap.head is not None:
            logits = clap.head(features)
            outputs.append(logits.sigmoid() if clap.config.model.multilabel else logits.softmax(dim=-1))
        return [output.numpy() for output in outputs]

    batches = [feeds, *({name: values[[row]] for name, values in feeds.items()} for row in range(len(clips)))]
    return _compare(file, batches, own)


def check_text(clap: CLAP, tower: TextEncoder, file: Path) -> TowerCheck:
    """Compare texts of several lengths.

    Raises:
        ClapkitError: they differ by more than 1e-4.
    """
    from clapkit.models.onnx_tokenizer import CHECK_TEXTS

    @torch.inference_mode()
    def own(batch: Arrays) -> list[np.ndarray]:
        return [clap.text_projection(tower.encode_tokens(*map(torch.from_numpy, batch.values()))).numpy()]

    batches = [tower.tokenize(texts) for texts in [CHECK_TEXTS, *([text] for text in CHECK_TEXTS)]]
    return _compare(file, [{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches], own)


def check_sounds(audio: AudioConfig) -> list[np.ndarray]:
    """A siren, its first part, and a hum with clicks and noise: ``(n_channels, at most one window)`` float32 each."""
    n_window = n_window_samples(audio)
    siren = load_waveform(example_clip(), audio.sample_rate, n_channels=audio.n_channels)[:, :n_window]
    time_s = np.arange(n_window) / audio.sample_rate
    generator = np.random.default_rng(0)
    hum = sum(np.sin(2 * np.pi * 110 * order * time_s) / order for order in (1, 2, 3, 5))
    clicks = np.exp(-((time_s % 0.25) / 0.01)) * generator.standard_normal((audio.n_channels, n_window))
    made = 0.15 * hum + 0.3 * clicks + 0.02 * generator.standard_normal((audio.n_channels, n_window))
    return [siren, siren[:, : siren.shape[1] // 3], made.astype(np.float32)]


def _compare(file: Path, batches: list[Arrays], own: Callable[[Arrays], list[np.ndarray]]) -> TowerCheck:
    """Run every batch on both sides; the first one holds all rows."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    if fixed := [each.name for each in session.get_inputs() if not isinstance(each.shape[0], str)]:
        raise ClapkitError(f"{file.name}: the exporter froze the batch of {fixed[0]}; nothing was written.")
    largest = 0.0
    for batch in batches:
        found = session.run(outputs, {name: batch[name] for name in inputs})
        expected = own(batch)
        largest = max(largest, *(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)))
    if not largest <= TOLERANCE:
        raise ClapkitError(
            f"{file.name}: onnxruntime differs from the model by {largest:.1e}, at most {TOLERANCE:g} is allowed; "
            "nothing was written: install the versions of onnx and onnxruntime that clapkit[onnx] asks for."
        )
    vectors = own(batches[0])[0]
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2)[np.triu_indices(len(vectors), 1)]
    size_mb = round(file.stat().st_size / 1e6, 1)
    return TowerCheck(file.name, inputs, outputs, size_mb, len(vectors), largest, float(apart.min()))
