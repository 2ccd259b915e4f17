"""A small model of another maker."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random ``ClapModel`` with its front-end and a tokenizer, as transformers saves them."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    from clapkit.models.tokenizer import train_wordpiece

    folder = tmp_path_factory.mktemp("clap_folder") / "laion"
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    torch.manual_seed(0)
    config = ClapConfig(audio_config=audio, text_config={**text, "vocab_size": 300}, projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    train_wordpiece(["low middle high tone sound of a"], 200, 64).save_pretrained(folder)
    return folder
