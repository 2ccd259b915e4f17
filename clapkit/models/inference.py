"""From decoded clips of any length to vectors, window by window; draws no random numbers."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch

from clapkit.audio.windows import cut_windows
from clapkit.models.clap import CLAP
from clapkit.parallel import done_ahead, sharing_threads

BATCH_S = {"cpu": 40, "cuda": 2560}
"""Seconds of sound in one forward pass; halved where the memory does not hold it. No result depends on it. On a CPU
larger feature maps (above 32 MB in glibc) would go back to the system after each layer and be cleared anew.
"""
MOST_WORKERS = 8
"""Batches that a CPU encodes side by side; it bounds memory."""


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
    audio = clap.config.audio
    spans: deque[tuple[np.ndarray, np.ndarray]] = deque()  # of clips not yet yielded: start and end in seconds

    def windows() -> Iterator[tuple[np.ndarray, int]]:
        for waveform in waveforms:
            cut = cut_windows(waveform, audio)
            start_s = cut.start_samples / audio.sample_rate
            spans.append((start_s, start_s + cut.n_valid_samples / audio.sample_rate))
            yield from zip(cut.waveform, cut.n_valid_samples, strict=True)

    parts: list[tuple[np.ndarray, np.ndarray | None]] = []
    for part in _encode(clap, windows(), dtype):
        parts.append(part)
        start_s, end_s = spans[0]
        if len(parts) == len(start_s):
            vectors, probabilities = zip(*parts, strict=True)
            mean = None if probabilities[0] is None else np.mean(probabilities, axis=0)
            yield ClipOutput(np.stack(vectors), mean, start_s, end_s)
            spans.popleft()
            parts = []


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
    yield from (vector for vector, _ in _encode(clap, windows, dtype))


def _encode(
    clap: CLAP, windows: Iterable[tuple[np.ndarray, int]], dtype: torch.dtype
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Vectors and probabilities in order; on a CPU several batches are encoded side by side."""
    clap.eval()
    device, rest = clap.logit_scale.device.type, iter(windows)
    n_windows = max(round(BATCH_S[device] / clap.config.audio.window_s), 1)
    batches = iter(lambda: list(islice(rest, n_windows)), [])
    n_workers = 1
    if device == "cpu" and torch.get_num_threads() > 1:
        first = list(islice(batches, 2))
        if len(first) > 1:
            n_workers = min(torch.get_num_threads(), MOST_WORKERS)
        batches = chain(first, batches)
        del first  # or its windows would stay in memory to the end
    work = partial(_encode_queue, clap, dtype=dtype)
    if n_workers == 1:
        yield from chain.from_iterable(map(work, batches))
        return
    with sharing_threads(n_workers) as pool:
        for _, encoded in done_ahead(work, batches, pool, n_ahead=2 * n_workers):
            yield from encoded.result()


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
    reproducible = contextlib.nullcontext()
    if device.type == "cuda":
        reproducible = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with reproducible, torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = clap.audio_features(waveform, n_valid_samples)
        vectors = clap.audio_projection(features).cpu().numpy()
        if clap.head is None:
            return [(vector, None) for vector in vectors]
        logits = clap.head(features).float()
        probabilities = (logits.sigmoid() if clap.config.model.multilabel else logits.softmax(dim=-1)).cpu().numpy()
    return list(zip(vectors, probabilities, strict=True))
