"""The log-mel pictures of a dataset, computed once on the device and memory-mapped, or held on the GPU when small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clapkit.audio.log_mel import LogMel
from clapkit.audio.windows import fill_up, n_window_samples
from clapkit.config import AudioConfig
from clapkit.data.cache import WaveformStore
from clapkit.data.packs import Pack, digest_of, open_pack

FORMAT = 1
"""Raise it when :class:`LogMel` or the layout of the pictures changes."""
BATCH_WINDOWS = 8  # small enough for a processor's cache: a third faster than 32
"""Windows of samples that are turned into pictures at once; no picture depends on it."""
GPU_PART = 0.25
"""Part of the free GPU memory that pictures may take."""
_COPY_ROWS = 2**18


class LogMelStore:
    """Pictures of clips as ``(total_frames, n_channels * n_mels)`` float16, so that a crop is one contiguous read.

    Attributes:
        n_frames: ``(n_clips,)`` int64 on the CPU, the frames each clip fills.
        device: where :meth:`gather` puts its batches.
    """

    def __init__(self, pack: Pack, n_channels: int, n_mels: int) -> None:
        row_size = n_channels * n_mels
        self._rows = np.memmap(pack.file, np.float16, mode="r").reshape(-1, row_size)
        self._starts = torch.from_numpy(pack.starts // row_size)
        self._shape = (n_channels, n_mels)
        self._held: Tensor | None = None
        self.n_frames = torch.from_numpy(pack.lengths // row_size)
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.n_frames)

    def to_device(self, device: torch.device) -> LogMelStore:
        """Give batches on ``device`` from now on; a small set moves to the GPU as a whole, others stay mapped."""
        self.device, self._held = device, None
        if device.type == "cuda" and self._rows.nbytes < GPU_PART * torch.cuda.mem_get_info(device)[0]:
            self._held = torch.empty(self._rows.shape, dtype=torch.float16, device=device)
            for start in range(0, len(self._rows), _COPY_ROWS):
                part = np.array(self._rows[start : start + _COPY_ROWS])
                self._held[start : start + _COPY_ROWS] = torch.from_numpy(part)
        return self

    def gather(self, clips: Tensor, start_frames: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
        """Crop a batch.

        Args:
            clips: ``(batch,)`` int64.
            start_frames: ``(batch,)`` int64, inside each clip.
            n_frames: frames of each crop.

        Returns:
            log_mel: ``(batch, n_channels, n_mels, n_frames)`` float32; zero behind a clip's end.
            n_valid_frames: ``(batch,)`` int64.
        """
        clips, start_frames = clips.cpu(), start_frames.cpu()
        n_valid_frames = (self.n_frames[clips] - start_frames).clamp(0, n_frames)
        frames = torch.arange(n_frames)
        valid = frames < n_valid_frames[:, None]  # (batch, n_frames)
        rows = (((self._starts[clips] + start_frames)[:, None] + frames) * valid).flatten()
        if self._held is not None:
            flat = self._held.index_select(0, rows.to(self.device, non_blocking=True))
        else:
            flat = torch.from_numpy(self._rows.take(rows.numpy(), axis=0)).to(self.device)
        keep = -valid.flatten().to(torch.int16).to(self.device, non_blocking=True)  # all bits, or none
        bits = flat.view(torch.int16).bitwise_and_(keep[:, None])  # ten times faster than filling
        bits = bits.view(len(clips), n_frames, *self._shape).permute(0, 2, 3, 1).contiguous()
        return bits.view(torch.float16).float(), n_valid_frames.to(self.device, non_blocking=True)


def open_log_mels(store: WaveformStore, audio: AudioConfig, device: torch.device) -> LogMelStore:
    """Compute the normalised log-mel of each clip once, and reuse it as long as sounds and settings stay the same.

    A clip no longer than ``audio.window_s`` gives the valid frames of its filled-up window, a longer one those of the
    whole clip; both as :class:`LogMel` computes them, rounded to float16.

    Args:
        store: decoded clips.
        audio: settings of the front-end.
        device: where to compute.

    Raises:
        StorageError: the cache cannot be written.
    """
    settings = audio.model_dump_json()
    digests = [digest_of(FORMAT, settings, digest) for digest in store.digests]
    pack = open_pack("log_mels", np.float16, digests, lambda missing: _compute(store, missing, audio, device))
    return LogMelStore(pack, audio.n_channels, audio.n_mels)


@torch.inference_mode()
def _compute(
    store: WaveformStore, places: Sequence[int], audio: AudioConfig, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield ``(n_valid_frames, n_channels * n_mels)`` float16 for each place."""
    log_mel = LogMel(audio).to(device)
    n_window = n_window_samples(audio)
    batch: list[np.ndarray] = []
    for place in places:
        waveform = store[place]
        if waveform.shape[1] > n_window:
            yield from _pictures(log_mel, batch, n_window, device)
            yield from _pictures(log_mel, [waveform], waveform.shape[1], device)
            batch = []
            continue
        batch.append(waveform)
        if len(batch) == BATCH_WINDOWS:
            yield from _pictures(log_mel, batch, n_window, device)
            batch = []
    yield from _pictures(log_mel, batch, n_window, device)


def _pictures(
    log_mel: LogMel, waveforms: list[np.ndarray], n_samples: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Compute one batch of clips filled up to ``n_samples``."""
    if not waveforms:
        return
    padded = np.stack([fill_up(waveform, n_samples, log_mel.config.padding) for waveform in waveforms])
    n_valid_samples = torch.tensor([waveform.shape[1] for waveform in waveforms], device=device)
    pictures, n_valid_frames = log_mel(torch.from_numpy(padded).to(device), n_valid_samples)
    frames_first = pictures.permute(0, 3, 1, 2).flatten(2)  # (batch, n_frames, n_channels * n_mels)
    frames_first = frames_first.half().cpu().numpy()
    for picture, n_valid in zip(frames_first, n_valid_frames.tolist(), strict=True):
        yield picture[:n_valid]
