"""Published CLAPs through their own code, with random weights. They exist to be compared with."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor, nn

FILL_CLIPS = 16


class Original(Protocol):
    """One original's public API."""

    name: str
    loading: str
    weights: Path

    def embed(self, files: Sequence[Path], batch_size: int) -> np.ndarray:
        """``(n_files, embed_dim)`` float32, as the original gives it."""


class TransformersClap:
    """``ClapModel`` and its feature extractor, as the documentation shows them.

    Args:
        folder: where its weights are written by ``save_pretrained``.
        files: sounds that fill the BatchNorm statistics.
        device: of the model.
    """

    name = "HTSAT (transformers)"
    loading = "soundfile and soxr HQ, as librosa.load does"

    def __init__(self, folder: Path, files: Sequence[Path], device: torch.device) -> None:
        from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

        text = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
                "intermediate_size": 64, "max_position_embeddings": 80}  # fmt: skip
        torch.manual_seed(0)
        self.model = ClapModel(ClapConfig(text_config=text, projection_dim=512)).eval()
        self.extractor = ClapFeatureExtractor(
            truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000
        )  # as laion/clap-htsat-unfused has it
        with filling_batch_norm(self.model):
            self.embed(files[:FILL_CLIPS], FILL_CLIPS)
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        self.model.to(device)
        self.weights = folder

    def embed(self, files: Sequence[Path], batch_size: int) -> np.ndarray:
        """``(n_files, 512)`` float32."""
        vectors = []
        for start in range(0, len(files), batch_size):
            waveforms = [load_mono(file, 48_000) for file in files[start : start + batch_size]]
            inputs = self.extractor(waveforms, sampling_rate=48_000, return_tensors="pt")
            with torch.inference_mode():
                output = self.model.get_audio_features(**inputs.to(next(self.model.parameters()).device))
            vectors.append((output if isinstance(output, Tensor) else output.pooler_output).cpu().numpy())
        return np.concatenate(vectors)


class Msclap2022:
    """msclap's own class with Cnn14; its text tower, which is not measured, has one random layer.

    Args:
        folder: where its weights are written.
        files: sounds that fill the BatchNorm statistics.
        device: of the model.

    Raises:
        ImportError: msclap or torchlibrosa is not installed.
    """

    name = "Cnn14 (msclap 2022)"

    def __init__(self, folder: Path, files: Sequence[Path], device: torch.device) -> None:
        from msclap import CLAPWrapper as module

        self.loading = "torchaudio.load and Resample"
        if importlib.util.find_spec("torchcodec") is None:
            module.torchaudio.load = load_channels
            self.loading = "soundfile in place of torchaudio.load, for want of torchcodec; torchaudio's Resample"
        folder.mkdir(parents=True)
        self.weights = folder / "CLAP_weights_2022.pth"
        torch.save({"model": {}}, self.weights)  # it does not load strictly, so these weights stay random
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as place:
            write_small_bert(Path(place) / "bert-base-uncased")
            with working_in(place):  # transformers takes the folder for the model of this name
                self.wrapper = module.CLAPWrapper(self.weights, version="2022", use_cuda=device.type == "cuda")
        with filling_batch_norm(self.wrapper.clap):
            self.embed(files[:FILL_CLIPS], FILL_CLIPS)
        torch.save({"model": self.wrapper.clap.state_dict()}, self.weights)

    def embed(self, files: Sequence[Path], batch_size: int) -> np.ndarray:
        """``(n_files, 1024)`` float32."""
        batches = self.wrapper.get_audio_embeddings_per_batch([str(file) for file in files], batch_size)
        return np.concatenate([batch.cpu().numpy() for batch in batches])


@contextlib.contextmanager
def filling_batch_norm(model: nn.Module) -> Iterator[None]:
    """While this lasts, BatchNorm layers average the statistics of what they see."""
    layers = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for layer in layers:
        layer.momentum = None  # the plain average of all batches
        layer.train()
    yield
    for layer in layers:
        layer.eval()


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Change the working directory for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def load_channels(file: str) -> tuple[Tensor, int]:
    """``torchaudio.load`` without torchcodec: ``(n_channels, n_samples)`` float32 and the rate in Hz."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def load_mono(file: Path, sample_rate: int) -> np.ndarray:
    """``(n_samples,)`` float32, what ``librosa.load(file, sr=sample_rate)`` does."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate, quality="HQ")


def write_small_bert(folder: Path) -> None:
    """A folder from which ``AutoModel`` and ``AutoTokenizer`` read a random BERT of one layer."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "sound"]
    (folder / "vocab.txt").write_text("\n".join(words))
    structure = BertConfig(vocab_size=len(words), num_hidden_layers=1, intermediate_size=64)
    BertModel(structure).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
