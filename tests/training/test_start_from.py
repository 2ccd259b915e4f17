"""Training further from a checkpoint: its towers, its preprocessing, its facts, and a head of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
)

import clapkit
from clapkit.config import Config, load_config, preset
from clapkit.data.datasets import load_manifest
from clapkit.errors import ConfigError, TextModelError
from clapkit.model import AudioTextModel
from clapkit.models.checkpoint import Checkpoint, save_checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.text_towers import load_text_encoder
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


def test_training_starts_at_the_very_weights(published: Path) -> None:
    config, start = settings_of_start(load_config([], [f"train.start_from={published}"]))
    given = {name: value.clone() for name, value in start.clap.state_dict().items()}
    torch.manual_seed(7)
    network = build_network(config, ("a", "b"), [], start)
    own = network.clap.state_dict()
    assert own.keys() - given.keys() == {"head.weight", "head.bias"}
    assert all(torch.equal(own[name], value) for name, value in given.items())
    assert network.tower is network.clap.text_encoder
    assert not any(parameter.requires_grad for parameter in network.tower.parameters())
    learning, _ = settings_of_start(load_config([], [f"train.start_from={published}", "text.trainable=true"]))
    network = build_network(learning, ("a", "b"), [], clapkit.load(published, device="cpu").checkpoint)
    assert network.tower is None
    assert all(parameter.requires_grad for parameter in network.clap.text_encoder.parameters())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random BERT, which stays outside a checkpoint that is trained with it."""
    folder = tmp_path_factory.mktemp("towers") / "bert"
    words = train_wordpiece(["low middle high tone sound of a"], 200, 64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_frozen_tower_stays_outside_until_it_shall_learn(
    bert: Path, tiny_config: Config, sounds: Path, tmp_path: Path
) -> None:
    text = tiny_config.text.model_copy(update={"name": str(bert)})
    config = tiny_config.model_copy(update={"text": text})
    run = plan_run(config, load_manifest("folder", sounds), tmp_path / "first")
    first = train_and_test(run, device=torch.device("cpu"))
    sha256 = first.checkpoint.text_sha256
    assert sha256 is not None
    assert not (tmp_path / "first" / "text").exists()
    config, start = settings_of_start(load_config([], [f"train.start_from={tmp_path / 'first'}"]))
    frozen = build_network(config, ("high", "low", "middle"), [], start)
    assert (frozen.text_sha256, frozen.clap.text_encoder) == (sha256, None)
    assert frozen.tower is not None
    learned = train(tmp_path / "first", sounds, tmp_path / "learned", "text.trainable=true")
    assert learned.checkpoint.text_sha256 is None
    saved = clapkit.load(tmp_path / "learned", device="cpu")
    before = load_text_encoder(text).state_dict()
    after = saved.clap.text_encoder.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    np.testing.assert_allclose(saved.embed_text(["a low tone"]), learned.embed_text(["a low tone"]), atol=1e-6)


def test_a_start_that_reads_no_text_is_one_line(sounds: Path, tmp_path: Path) -> None:
    config = load_config([], ["text.name=none", "encoder.name=cnn4", "model.embed_dim=8", "model.head=false"])
    save_checkpoint(Checkpoint(CLAP(config, 0, 8), []), tmp_path / "deaf")
    with pytest.raises(ConfigError, match=r"text\.name=none: contrastive training needs a text tower") as error:
        train(tmp_path / "deaf", sounds, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


SMALL_SOUND = ["audio.sample_rate=16000", "audio.f_max_hz=8000", "audio.window_s=1"]


def trained(preset_name: str, sounds: Path, output: Path, *changes: str) -> AudioTextModel:
    config = load_config([preset(preset_name)], [*QUICK, *changes])
    train_and_test(plan_run(config, load_manifest("folder", sounds), output), device=torch.device("cpu"))
    return clapkit.load(output, device="cpu")


@pytest.mark.parametrize("name", ["msclap-2023", "laion-fused"])
def test_published_architectures_are_trained_from_scratch(name: str, sounds: Path, tmp_path: Path) -> None:
    small = [
        "encoder.width=8",
        "encoder.depths=[1,1]",
        "encoder.n_heads=[1,2]",
        "text.hidden_size=16",
        "text.n_layers=1",
    ]
    rate = ["audio.filter_rate_hz=16000"] if name == "msclap-2023" else []
    tower = "gpt2-small" if name == "msclap-2023" else "bert-small"
    model = trained(
        name, sounds, tmp_path / "run", *SMALL_SOUND, *small, *rate, f"text.name={tower}", "model.embed_dim=16"
    )
    assert model.config.audio.padding == load_config([preset(name)]).audio.padding
    assert (model.clap.text_logit_scale is not None) == name.startswith("laion")
    sound = np.sin(np.arange(40_000) / 9).astype(np.float32)  # longer than the window
    assert np.isfinite(model.embed_audio(sound)).all()
    together, alone = model.embed_text(["low", "a much longer text! of many words"]), model.embed_text(["low"])
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_msclap_2022s_architecture_learns_from_scratch() -> None:
    changes = [*SMALL_SOUND, "text.name=bert-small", "text.hidden_size=16", "text.n_layers=1", "model.embed_dim=16"]
    config = load_config([preset("msclap-2022")], changes)
    network = build_network(config, ("low", "high"), ["a low tone", "a high tone"])
    assert network.tower is None
    outputs = network.clap.train()(torch.randn(2, 1, 64, 51), torch.tensor([51, 51]), ["a low tone", "a high tone"])
    from_audio, _ = network.clap.logits(outputs["audio"], outputs["text"])
    loss = F.cross_entropy(from_audio, torch.arange(2)) + F.cross_entropy(outputs["head"], torch.arange(2))
    loss.backward()
    without = [name for name, parameter in network.clap.named_parameters() if parameter.grad is None]
    assert without == []


def test_wav2clips_architecture_meets_the_frozen_space_of_clip(sounds: Path, tmp_path: Path) -> None:
    words = train_wordpiece(["low middle high tone sound of a"], 200, 64)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    marks = {"vocab_size": len(words), "eos_token_id": words.sep_token_id, "bos_token_id": words.cls_token_id}
    torch.manual_seed(0)
    clip = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, **marks, projection_dim=512)).eval()
    clip.save_pretrained(tmp_path / "clip")
    words.save_pretrained(tmp_path / "clip")
    model = trained("wav2clip", sounds, tmp_path / "run", "audio.window_s=0.5", f"text.name={tmp_path / 'clip'}")
    assert list(model.clap.text_projection.parameters()) == []
    assert model.checkpoint.text_sha256 is not None
    with torch.inference_mode():
        expected = clip(**words(["a new text"], return_tensors="pt", return_token_type_ids=False)).text_embeds
    np.testing.assert_allclose(model.embed_text(["a new text"]), F.normalize(expected, dim=1).numpy(), atol=1e-6)
