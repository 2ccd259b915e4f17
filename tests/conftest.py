"""Shared sounds and models: small, synthetic, made once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapkit.config import Config, load_config

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test needs the network

RATE = 16_000
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

TINY = [
    "audio.sample_rate=16000", "audio.window_s=1.0", "audio.hop_length=320", "audio.n_mels=32", "encoder.width=8",
    "text.name=bert-small", "text.hidden_size=32", "text.n_layers=1", "model.embed_dim=32", "train.batch_size=8",
    "train.epochs=2",
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded audio away from the user's cache."""
    os.environ["CLAPKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("CLAPKIT_DATA", None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that need it are skipped elsewhere."""
    if not REAL_DATA.is_dir():
        pytest.skip("real recordings are not on this machine")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Settings of a model that trains in a second."""
    return load_config([], TINY)


def tone(frequency_hz: float, duration_s: float = 1.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone in a little noise: ``(n_samples,)`` float32."""
    time_s = np.arange(round(duration_s * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time_s)) * 0.01
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time_s) + noise).astype(np.float32)


def write_aac(file: Path, samples: np.ndarray) -> Path:
    """Write ``(n_channels, n_samples)`` as AAC, bare or in the container of the suffix."""
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(file), "w", format="adts" if file.suffix == ".aac" else None) as container:
        try:
            stream = container.add_stream("aac", rate=RATE, layout=layout)
        except av.FFmpegError:
            pytest.skip("this PyAV has no AAC encoder")
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = RATE
        for part in (frame, None):
            container.mux(stream.encode(part))
    return file


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders ``low``, ``middle`` and ``high`` with six tones each."""
    root = tmp_path_factory.mktemp("sounds")
    for name, base_hz in {"low": 200, "middle": 1000, "high": 4000}.items():
        (root / name).mkdir()
        for number in range(6):
            samples = tone(base_hz * (1 + 0.05 * number), 0.6 + 0.2 * number, seed=number)
            soundfile.write(root / name / f"{number}.wav", samples, RATE)
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Config, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model, trained for two epochs on ``sounds``."""
    import torch

    from clapkit.data.datasets import load_manifest
    from clapkit.training.plan import plan_run
    from clapkit.training.run import train_and_test

    output = tmp_path_factory.mktemp("runs") / "tiny"
    run = plan_run(tiny_config, load_manifest("folder", sounds), output)
    train_and_test(run, device=torch.device("cpu"))
    return output


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path):
    """The model of ``tiny_run``."""
    import clapkit

    return clapkit.load(tiny_run, device="cpu")


@dataclass
class CliResult:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CliResult]:
    """``cli("zeroshot", "--labels", "a,b")`` runs a command inside this process."""
    from clapkit.cli.app import main

    def run(*words: object) -> CliResult:
        monkeypatch.setattr(sys, "argv", ["clapkit", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return CliResult(code, printed.out, printed.err)

    return run
