"""Every kind of checkpoint opens by its path or name, and saved again gives the same vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

import clapkit
from clapkit.config import TextConfig, load_config
from clapkit.errors import CheckpointError, TextModelError
from clapkit.model import AudioTextModel
from clapkit.models.checkpoint import Checkpoint, audio_fingerprint
from clapkit.models.clap import CLAP
from clapkit.models.opening import find_folder, open_checkpoint
from clapkit.models.text_towers import load_text_encoder, weights_sha256
from clapkit.models.tokenizer import train_wordpiece

SOUND = (0.3 * np.sin(np.arange(48_000) / 9)).astype(np.float32)
TEXTS = ["a low tone", "high"]


def the_line(name: object, **options: object) -> str:
    with pytest.raises((CheckpointError, TextModelError)) as error:
        clapkit.load(name, device="cpu", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def saved_again(model: AudioTextModel, folder: Path) -> AudioTextModel:
    model.save_pretrained(folder)
    again = clapkit.load(folder, device="cpu")
    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again.embed_audio(SOUND), model.embed_audio(SOUND))
    return again


def test_the_shipped_checkpoint_keeps_its_preprocessing() -> None:
    folder = find_folder("base")
    assert folder is not None
    checkpoint = open_checkpoint("base")
    assert audio_fingerprint(checkpoint.clap.config.audio) == "f5e9fa2324ef0c85"
    assert find_folder(folder) == folder
    assert find_folder("msclap-2022") is None


def test_a_text_tower_inside_is_saved_with_its_tokenizer(clap_folder: Path, tmp_path: Path) -> None:
    model = clapkit.load(clap_folder, device="cpu")
    again = saved_again(model, tmp_path / "mine")
    np.testing.assert_array_equal(again.embed_text(TEXTS), model.embed_text(TEXTS))
    assert again.checkpoint.training == model.checkpoint.training


def test_a_text_tower_without_a_tokenizer_is_saved_too_and_takes_one_later(clap_folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(clap_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    again = saved_again(clapkit.load(bare, device="cpu"), tmp_path / "mine")
    with pytest.raises(TextModelError, match="tokenizer roberta-base: not on this machine") as error:
        again.embed_text(TEXTS)
    assert "\n" not in str(error.value)
    whole = clapkit.load(tmp_path / "mine", device="cpu", tokenizer=clap_folder)
    expected = clapkit.load(clap_folder, device="cpu").embed_text(TEXTS)
    np.testing.assert_array_equal(whole.embed_text(TEXTS), expected)
    whole.save_pretrained(tmp_path / "whole")
    np.testing.assert_array_equal(clapkit.load(tmp_path / "whole", device="cpu").embed_text(TEXTS), expected)


def test_a_frozen_text_tower_stays_outside(tmp_path: Path) -> None:
    words = train_wordpiece(TEXTS, 200, 64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "bert")
    words.save_pretrained(tmp_path / "bert")
    config = load_config([], ["encoder.name=cnn4", "model.embed_dim=8", "model.head=false"])
    config = config.model_copy(update={"text": TextConfig(name=str(tmp_path / "bert"))})
    clap = CLAP(config, 0, load_text_encoder(config.text).text_dim)
    model = AudioTextModel(Checkpoint(clap, [], weights_sha256(tmp_path / "bert")), torch.device("cpu"))
    again = saved_again(model, tmp_path / "mine")
    assert not (tmp_path / "mine" / "text").exists()
    np.testing.assert_array_equal(again.embed_text(TEXTS), model.embed_text(TEXTS))
    assert "leave out tokenizer" in the_line(tmp_path / "mine", tokenizer=tmp_path / "bert")


def test_the_tokenizer_of_another_tower_is_refused(clap_folder: Path, tmp_path: Path) -> None:
    train_wordpiece(["".join(map(chr, range(500, 900)))], 1000, 64).save_pretrained(tmp_path / "large")
    assert "this text tower knows 300" in the_line(clap_folder, tokenizer=tmp_path / "large")
    (tmp_path / "empty").mkdir()
    assert "holds no tokenizer" in the_line(clap_folder, tokenizer=tmp_path / "empty")
    assert "not on this machine" in the_line(clap_folder, tokenizer=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bass", "not a known name (base, msclap-2022"),
        ("no/such/folder", "no such file or folder"),
        ("./nowhere.pth", "nowhere.pth: no such file"),
        ("somebody/nothing", "somebody/nothing: no such folder, not in the Hub's cache"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, words: str) -> None:
    assert words in the_line(name)


def test_a_folder_of_something_else_is_one_line(tmp_path: Path) -> None:
    assert "not a clapkit checkpoint" in the_line(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "not a clapkit checkpoint" in the_line(tmp_path)


@pytest.fixture
def hub_cache(clap_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with one model of LAION and one msclap file, laid out as huggingface_hub does."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("models--laion--clap-htsat-unfused", "models--microsoft--msclap"):
        (tmp_path / name / "refs").mkdir(parents=True)
        (tmp_path / name / "refs" / "main").write_text("0" * 40)
    shutil.copytree(clap_folder, tmp_path / "models--laion--clap-htsat-unfused" / "snapshots" / ("0" * 40))
    msclap = tmp_path / "models--microsoft--msclap" / "snapshots" / ("0" * 40)
    msclap.mkdir(parents=True)
    torch.save({"model": {"visual.weight": torch.ones(2)}}, msclap / "CLAP_weights_2023.pth")
    return tmp_path


@pytest.mark.usefixtures("hub_cache")
def test_published_names_are_found_in_the_hubs_cache(clap_folder: Path) -> None:
    model = clapkit.load("laion/clap-htsat-unfused", device="cpu")
    assert model.checkpoint.training["published"] == "laion/clap-htsat-unfused"
    here = clapkit.load(clap_folder, device="cpu")
    assert model.fingerprint == here.fingerprint
    np.testing.assert_array_equal(model.embed_text(TEXTS), here.embed_text(TEXTS))
    assert "CLAP_weights_2023.pth: its keys, such as visual.weight" in the_line("msclap-2023")
    assert "microsoft/msclap/CLAP_weights_2022.pth: not in the Hub's cache" in the_line("msclap-2022")


def test_a_broken_download_is_not_taken_for_a_model(hub_cache: Path) -> None:
    snapshot = next((hub_cache / "models--laion--clap-htsat-unfused" / "snapshots").iterdir())
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    assert "not in the Hub's cache" in the_line("laion/clap-htsat-unfused")
