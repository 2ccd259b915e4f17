"""Training further from a checkpoint: its towers, its preprocessing, its facts, and a head of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

import clapkit
from clapkit.config import load_config
from clapkit.data.datasets import load_manifest
from clapkit.errors import ConfigError, TextModelError
from clapkit.model import AudioTextModel
from clapkit.models.tokenizer import train_wordpiece
from clapkit.training.build import build_network, settings_of_start
from clapkit.training.plan import plan_run
from clapkit.training.run import run_id, train_and_test

QUICK = ["train.epochs=1", "train.batch_size=8", "train.learning_rate=1e-4", "augment.mixup=0"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ``ClapModel`` with a tokenizer, as transformers saves it."""
    folder = tmp_path_factory.mktemp("published") / "laion"
    torch.manual_seed(0)
    tokenizer = train_wordpiece(["low middle high tone sound of a"], 200, 64)
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    config = ClapConfig(audio_config=audio, text_config={**text, "vocab_size": 300}, projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(start: Path | str, sounds: Path, output: Path, *changes: str) -> AudioTextModel:
    config = load_config([], [*QUICK, f"train.start_from={start}", *changes])
    return train_and_test(plan_run(config, load_manifest("folder", sounds), output), device=torch.device("cpu"))


def test_a_published_model_is_trained_further(published: Path, sounds: Path, tmp_path: Path) -> None:
    start = clapkit.load(published, device="cpu")
    model = train(published, sounds, tmp_path / "run")
    saved = clapkit.load(tmp_path / "run", device="cpu")
    assert saved.config.audio == start.config.audio
    assert saved.labels == ["high", "low", "middle"]
    assert saved.clap.head is not None
    before, after = start.clap.state_dict(), saved.clap.state_dict()
    for key, value in before.items():
        if key.startswith("text_encoder"):
            assert torch.equal(after[key], value), key
    moved = [
        key for key, value in before.items() if key.startswith("audio_encoder") and not torch.equal(after[key], value)
    ]
    assert moved
    assert max(float((after[key] - before[key]).abs().max()) for key in moved if "weight" in key) < 0.02
    facts = saved.checkpoint.training
    assert facts["started_from"] == str(published)
    assert "Apache-2.0" in facts["licence"]
    sound = np.sin(np.arange(48_000) / 9).astype(np.float32)
    np.testing.assert_allclose(saved.embed_audio(sound), model.embed_audio(sound), atol=1e-6)
    assert saved.zeroshot(sound, ["low", "another word"])[0].score > 0


def test_a_text_tower_can_learn_too(published: Path, sounds: Path, tmp_path: Path) -> None:
    train(published, sounds, tmp_path / "run", "text.trainable=true")
    before = clapkit.load(published, device="cpu").clap.text_encoder.state_dict()
    after = clapkit.load(tmp_path / "run", device="cpu").clap.text_encoder.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


def test_a_head_is_kept_for_the_same_labels_only(tiny_run: Path) -> None:
    config, start = settings_of_start(load_config([], [f"train.start_from={tiny_run}"]))
    same = build_network(config, ("high", "low", "middle"), [], start)
    other = build_network(config, ("cat", "dog", "rain"), [], start)
    assert torch.equal(same.clap.head.weight, start.clap.head.weight)
    assert not torch.equal(other.clap.head.weight, start.clap.head.weight)
    assert torch.equal(other.clap.audio_projection.linear1.weight, start.clap.audio_projection.linear1.weight)


def test_recordings_heard_before_are_remembered(tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    before = set(clapkit.load(tiny_run, device="cpu").checkpoint.sources)
    model = train(tiny_run, sounds, tmp_path / "run", "train.seed=5")
    assert before <= set(model.checkpoint.sources)


def test_another_start_is_another_run(published: Path, tiny_run: Path, sounds: Path, tmp_path: Path) -> None:
    manifest = load_manifest("folder", sounds)
    configs = [load_config([], [*QUICK, f"train.start_from={start}"]) for start in (published, tiny_run)]
    assert len({run_id(plan_run(config, manifest, tmp_path / "run")) for config in configs}) == 2


def test_a_missing_tokenizer_is_found_before_any_preparation(published: Path, sounds: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    clapkit.load(published, device="cpu").save_pretrained(bare)
    for file in (bare / "text").glob("*token*"):
        file.unlink()
    with pytest.raises(TextModelError, match="tokenizer roberta-base: not on this machine"):
        train(bare, sounds, tmp_path / "run")
    assert not (tmp_path / "run.training" / "state.safetensors").exists()


def test_a_model_that_reads_no_text_cannot_be_a_start() -> None:
    with pytest.raises(ConfigError, match="needs a text tower"):
        build_network(load_config([], ["text.name=none"]), ("a", "b"), [])
