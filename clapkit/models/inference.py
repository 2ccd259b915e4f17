"""From decoded clips of any length to vectors, window by window; draws no random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from clapkit.audio.windows import cut_windows
from clapkit.models.clap import CLAP

BATCH_S = {"cpu": 40, "cuda": 2560}
"""Seconds of sound in one forward pass; halved where the memory does not hold it. No result depends on it. On a CPU
larger feature maps (above 32 MB in glibc) would go back to the system after each layer and be cleared anew.
"""


@dataclass(frozen=True)
class ClipOutput:
    """What the model says about one clip.

    Attributes:
        windows: ``(n_windows, embed_dim)`` float32, unit length.
        probabilities: ``(n_labels,)`` float32 of the linear head, averaged over the windows; None without a head.
        start_s: ``(n_windows,)`` start of each window in seconds.
        end_s: ``(n_windows,)`` end of each window in seconds, at most the clip's.
    """

    windows: np.ndarray
    probabilities: np.ndarray | None
    start_s: np.ndarray
    end_s: np.ndarray

    @property
    def embedding(self) -> np.ndarray:
        """``(embed_dim,)`` float32: the mean of the windows' vectors, unit length."""
        mean = self.windows.mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def encode_clips(
    clap: CLAP, waveforms: Iterable[np.ndarray], dtype: torch.dtype = torch.float32
) -> Iterator[ClipOutput]:
    """Encode clips in order; long ones become several windows, and windows of many clips share a batch.

    Args:
        clap: the model; it is switched to evaluation.
        waveforms: ``(n_channels, n_samples)`` float32 at the model's rate, any length above zero.
        dtype: what the towers compute in; ``bfloat16`` is faster where the processor has it, and less exact.

    Yields:
        One output per clip, the same alone or among others.
    """
    clap.eval()
    audio = clap.config.audio
    batch_windows = max(round(BATCH_S[clap.logit_scale.device.type] / audio.window_s), 1)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []  # spans of clips not yet yielded: start and end in seconds
    queue: list[tuple[np.ndarray, int]] = []  # windows not yet encoded
    done: list[tuple[np.ndarray, np.ndarray | None]] = []  # encoded windows of clips not yet yielded

    def finished() -> Iterator[ClipOutput]:
        while waiting and len(done) >= len(waiting[0][0]):
            start_s, end_s = waiting.pop(0)
            parts, done[: len(start_s)] = done[: len(start_s)], []
            probabilities = [part[1] for part in parts]
            mean = None if probabilities[0] is None else np.mean(probabilities, axis=0)
            yield ClipOutput(np.stack([part[0] for part in parts]), mean, start_s, end_s)

    for waveform in waveforms:
        windows = cut_windows(waveform, audio)
        start_s = windows.start_samples / audio.sample_rate
        waiting.append((start_s, start_s + windows.n_valid_samples / audio.sample_rate))
        queue.extend(zip(windows.waveform, windows.n_valid_samples, strict=True))
        while len(queue) >= batch_windows:
            done.extend(_encode_queue(clap, queue[:batch_windows], dtype))
            del queue[:batch_windows]
        yield from finished()
    if queue:
        done.extend(_encode_queue(clap, queue, dtype))
    yield from finished()


def encode_windows(
    clap: CLAP, windows: Iterable[tuple[np.ndarray, int]], dtype: torch.dtype = torch.float32
) -> Iterator[np.ndarray]:
    """Encode windows one by one, in batches.

    Args:
        clap: the model; it is switched to evaluation.
        windows: ``(n_channels, n_samples)`` float32 at the model's rate, each with its valid samples.
        dtype: as in :func:`encode_clips`.

    Yields:
        ``(embed_dim,)`` float32 of unit length, in order; the same alone or among others.
    """
    clap.eval()
    batch_windows = max(round(BATCH_S[clap.logit_scale.device.type] / clap.config.audio.window_s), 1)
    rest = iter(windows)
    while batch := list(islice(rest, batch_windows)):
        yield from (vector for vector, _ in _encode_queue(clap, batch, dtype))


def _encode_queue(
    clap: CLAP, queue: list[tuple[np.ndarray, int]], dtype: torch.dtype
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Encode windows in runs of equal length (the fused tower's differ); halve a batch that is too much."""
    ends = [place for place in range(1, len(queue)) if queue[place][0].shape != queue[place - 1][0].shape]
    if ends:
        parts = [queue[start:end] for start, end in zip([0, *ends], [*ends, len(queue)], strict=True)]
        return [output for part in parts for output in _encode_queue(clap, part, dtype)]
    try:
        return _encode_batch(clap, queue, dtype)
    except torch.OutOfMemoryError:
        if len(queue) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(queue) // 2
    return _encode_queue(clap, queue[:half], dtype) + _encode_queue(clap, queue[half:], dtype)


@torch.inference_mode()
def _encode_batch(
    clap: CLAP, batch: list[tuple[np.ndarray, int]], dtype: torch.dtype
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    device = clap.logit_scale.device
    waveform = torch.from_numpy(np.stack([window for window, _ in batch])).to(device)
    n_valid_samples = torch.tensor([n_valid for _, n_valid in batch], device=device)
    reproducible = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with reproducible, torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = clap.audio_features(waveform, n_valid_samples)
        vectors = clap.audio_projection(features).cpu().numpy()
        if clap.head is None:
            return [(vector, None) for vector in vectors]
        logits = clap.head(features).float()
        probabilities = (logits.sigmoid() if clap.config.model.multilabel else logits.softmax(dim=-1)).cpu().numpy()
    return list(zip(vectors, probabilities, strict=True))
