"""Published models on the command line: convert, info, evaluate, precision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

import clapkit
from clapkit.models.published.catalogue import PUBLISHED
from clapkit.models.tokenizer import train_wordpiece


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ``ClapModel`` without a tokenizer."""
    folder = tmp_path_factory.mktemp("published") / "laion"
    torch.manual_seed(0)
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    text = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    ClapModel(
        ClapConfig(audio_config=audio, text_config={**text, "vocab_size": 300}, projection_dim=16)
    ).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and nothing else."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece(["low middle high tone sound of a"], 200, 64).save_pretrained(folder)
    return folder


def test_convert_then_everything_works(
    cli: Callable, published: Path, tokenizer: Path, sounds: Path, tmp_path: Path
) -> None:
    converted = cli("convert", published, tmp_path / "mine", "--tokenizer", tokenizer)
    assert converted.code == 0, converted.err
    assert (tmp_path / "mine" / "README.md").read_text().startswith("---\nlibrary_name: clapkit")
    scored = cli(
        "zeroshot", sounds / "low" / "0.wav", "--labels", "low,high", "--checkpoint", tmp_path / "mine", "--json"
    )
    assert {each["label"] for each in json.loads(scored.out)["results"][0]["scores"]} == {"low", "high"}
    assert cli("index", sounds / "low", "--output", tmp_path / "index", "--checkpoint", tmp_path / "mine").code == 0
    assert cli("search", "a low tone", "--index", tmp_path / "index").code == 0
    again = cli("convert", published, tmp_path / "mine")
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_words_without_a_tokenizer_are_one_line(cli: Callable, published: Path, tokenizer: Path, sounds: Path) -> None:
    words = ("zeroshot", sounds / "low" / "0.wav", "--labels", "low,high", "--checkpoint", published)
    refused = cli("--quiet", *words)
    assert refused.code == 2
    assert refused.err.startswith("clapkit: tokenizer roberta-base: not on this machine")
    assert refused.err.count("\n") == 1
    assert cli(*words, "--tokenizer", tokenizer).code == 0


def test_info_of_a_model_that_is_not_here(cli: Callable) -> None:
    told = cli("info", "msclap-2023", "--json")
    assert told.code == 0
    assert json.loads(told.out)["training"]["licence"] == "MS-PL"
    assert told.err == (
        "microsoft/msclap/CLAP_weights_2023.pth: not in the Hub's cache; connect once, or give the file or folder that "
        "you have. This is what its publisher says:\n"
    )
    assert "saw_us8k" in cli("info", "laion/larger_clap_general").out


def test_info_of_a_folder(cli: Callable, published: Path) -> None:
    out = cli("info", published).out
    assert "htsat + roberta-base (inside the checkpoint, its tokenizer is not), 16-d" in out
    assert "48000 Hz mono, windows of 10 s, 64 mels of 50–14000 Hz, short clips are repeated whole" in out


def test_evaluate_says_what_a_published_model_heard(
    cli: Callable, published: Path, tokenizer: Path, sounds: Path
) -> None:
    words = ("evaluate", "--dataset", "folder", "--root", sounds, "--checkpoint", published, "--task", "zeroshot")
    told = cli(*words, "--tokenizer", tokenizer)
    assert told.code == 0, told.err
    assert "leaky                not known" in told.out
    assert "heard_in_training" in told.out
    assert json.loads(cli(*words, "--tokenizer", tokenizer, "--json").out)["leaky"] is None


def test_bf16_is_near_float32_and_a_typo_is_one_line(cli: Callable, tiny_run: Path, sounds: Path) -> None:
    files = sorted((sounds / "low").glob("*.wav"))
    exact, fast = (
        clapkit.load(tiny_run, device="cpu", precision=each).embed_audio(files) for each in ("float32", "bf16")
    )
    assert float(np.min(np.sum(exact * fast, axis=1))) >= 0.999
    np.testing.assert_allclose(np.linalg.norm(fast, axis=1), 1, atol=1e-5)
    assert cli("classify", files[0], "--checkpoint", tiny_run, "--precision", "bf16").code == 0
    assert cli("classify", files[0], "--checkpoint", tiny_run, "--precision", "fp8").code != 0
    with pytest.raises(clapkit.ClapkitError, match="precision 'fp8': unknown"):
        clapkit.load(tiny_run, precision="fp8")


def test_convert_keeps_a_tokenizer_that_lies_in_the_folder(
    cli: Callable, published: Path, tokenizer: Path, sounds: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(published, tmp_path / "whole")
    shutil.copytree(tokenizer, whole, dirs_exist_ok=True)
    converted = cli("convert", whole, tmp_path / "mine")
    assert converted.code == 0, converted.err
    assert "no tokenizer inside" not in converted.err
    shutil.rmtree(whole)
    words = ("zeroshot", sounds / "low" / "0.wav", "--labels", "low,high", "--checkpoint", tmp_path / "mine")
    assert cli(*words).code == 0


def test_convert_says_when_there_is_no_tokenizer(cli: Callable, published: Path, tmp_path: Path) -> None:
    assert "no tokenizer inside: texts need roberta-base's" in cli("convert", published, tmp_path / "mine").err
    told = cli("info", tmp_path / "mine", "--json")
    assert json.loads(told.out)["training"]["licence"] == "Apache-2.0 (of the published weights)"


def test_own_clips_in_the_training_are_leaky_though_the_start_was_published(
    cli: Callable, tiny_run: Path, sounds: Path, tmp_path: Path
) -> None:
    model = clapkit.load(tiny_run, device="cpu")
    model.checkpoint.training |= {"published": "laion/clap-htsat-unfused", "saw_us8k": "in part"}
    model.save_pretrained(tmp_path / "further")
    words = ("evaluate", "--dataset", "folder", "--root", sounds, "--checkpoint", tmp_path / "further")
    told = cli(*words)
    assert "leaky                LEAKY" in told.out
    assert "clips come from recordings that" in told.err
    assert json.loads(cli(*words, "--json").out)["leaky"] is True


@pytest.mark.parametrize("name", PUBLISHED)
def test_info_of_every_published_name_needs_no_weights(name: str, cli: Callable) -> None:
    told = cli("info", name)
    assert (told.code, told.err.count("\n")) == (0, 1)
    assert "licence" in told.out
    assert "saw_esc50" in told.out


def test_bf16_on_htsat_is_near_float32(published: Path, sounds: Path) -> None:
    files = [sounds / name / "5.wav" for name in ("low", "middle", "high")]
    exact, fast = (
        clapkit.load(published, device="cpu", precision=each).embed_audio(files) for each in ("float32", "bf16")
    )
    assert float(np.min(np.sum(exact * fast, axis=1))) >= 0.999
