"""The input pipeline the way the thesis wrote it: one clip at a time, nothing kept. It exists to be compared with."""

from __future__ import annotations

import random

import soundfile
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchaudio.functional import resample
from torchaudio.transforms import AmplitudeToDB, FrequencyMasking, MelSpectrogram, TimeMasking

SAMPLE_RATE = 44_100
N_SAMPLES = 4 * SAMPLE_RATE
LARGEST_SHIFT = 0.4


class ThesisClips(Dataset):
    """Load, make stereo, resample, pad, shift, mel, dB and SpecAugment, per clip and anew each time."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.mel = MelSpectrogram(SAMPLE_RATE, n_fft=1024, n_mels=64)
        self.decibels = AmplitudeToDB(top_db=80)
        self.masks = [FrequencyMasking(6), TimeMasking(34)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        """``(2, 64, n_frames)`` dB."""
        samples, rate = soundfile.read(self.paths[place], dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.T.copy())
        waveform = waveform.repeat(2, 1) if len(waveform) == 1 else waveform[:2]
        if rate != SAMPLE_RATE:
            waveform = resample(waveform, rate, SAMPLE_RATE)
        waveform = torch.nn.functional.pad(waveform[:, :N_SAMPLES], (0, max(N_SAMPLES - waveform.shape[1], 0)))
        waveform = waveform.roll(int(random.random() * LARGEST_SHIFT * N_SAMPLES), dims=1)
        picture = self.decibels(self.mel(waveform))
        for mask in self.masks * 2:
            picture = mask(picture, picture.mean())
        return picture
