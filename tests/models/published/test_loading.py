"""Published checkpoints are recognised by their keys, taken whole or not at all, and found by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel

import clapkit
from clapkit.config import load_config, preset
from clapkit.errors import CheckpointError
from clapkit.models.clap import CLAP
from clapkit.models.published import catalogue, hugging_face, loading
from clapkit.models.published.renaming import HTSAT_RULES, rename, within

SMALL_AUDIO = {
    "patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1, 1], "num_attention_heads": [1, 2, 4],
}  # fmt: skip
SMALL_TEXT = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64, "vocab_size": 300,
}  # fmt: skip


def saved_folder(folder: Path, **changes: object) -> Path:
    """A small ``ClapModel`` with random weights."""
    torch.manual_seed(0)
    config = ClapConfig(audio_config=SMALL_AUDIO | changes, text_config=SMALL_TEXT, projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_folder(tmp_path_factory.mktemp("published") / "laion")


def laion_pickle(folder: Path, **changes: Tensor | None) -> dict[str, Tensor]:
    """The folder's weights under LAION's own names."""
    clap = clapkit.load(folder, device="cpu").clap
    names = {value: key for key, value in _names_of_laion(clap).items()}
    weights = {names[key]: value for key, value in clap.state_dict().items() if key in names}
    weights["text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    weights["audio_branch.tscam_conv.weight"] = torch.zeros(2)
    for key, value in changes.items():
        weights.pop(key, None)
        if value is not None:
            weights[key] = value
    return weights


def _names_of_laion(clap: CLAP) -> dict[str, str]:
    """LAION's name of each of clapkit's keys; queries, keys and values stay apart, as their rules also know them."""
    names = {}
    swaps = [
        ("audio_encoder.transformer.audio_encoder.", "audio_branch."), ("text_encoder.transformer.", "text_branch."),
        ("batch_norm", "bn0"), ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
        ("attention.output.dense", "attn.proj"), ("intermediate.dense", "mlp.fc1"),
    ]  # fmt: skip
    for key in clap.state_dict():
        name = key
        if key.startswith("audio_encoder"):
            for new, old in swaps:
                name = name.replace(new, old)
            name = name.replace("attention.self.", "attn.").replace("output.dense", "mlp.fc2")
        elif key.startswith("text_encoder"):
            name = name.replace(*swaps[1])
        elif "projection" in key:
            name = name.replace("linear1", "0").replace("linear2", "2")
        names[{"logit_scale": "logit_scale_a", "text_logit_scale": "logit_scale_t"}.get(name, name)] = key
    return names


def refusal(weights: dict[str, Tensor], tmp_path: Path) -> str:
    torch.save({"state_dict": weights}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as error:
        clapkit.load(tmp_path / "a.pt", device="cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_laions_pickle_and_transformers_folder_are_one_model(folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in laion_pickle(folder).items()}}, tmp_path / "a.pt")
    ours, theirs = (clapkit.load(place, device="cpu") for place in (tmp_path / "a.pt", folder))
    assert ours.fingerprint["weights"] == theirs.fingerprint["weights"]
    assert (ours.config.audio.sixteen_bits, theirs.config.audio.sixteen_bits) == (True, False)
    same = ours.config.audio.model_copy(update={"sixteen_bits": False})
    assert same == theirs.config.audio


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("audio_branch.norm.weight", None, "1 missing key(s)"),
        ("audio_branch.norm.surplus", torch.ones(1), "1 unexpected key(s)"),
        ("surplus", torch.ones(1), "does not have, such as surplus"),
        ("audio_branch.norm.bias", torch.ones(3), "shape (3,) instead of (32,)"),
        ("audio_branch.logmel_extractor.melW", torch.ones(513, 64), "mel filters other than 64 from 50 to 14000 Hz"),
        ("audio_projection.0.weight", None, "lacks audio_projection.0.weight"),
    ],
)
def test_a_changed_file_is_refused(key: str, value: Tensor | None, words: str, folder: Path, tmp_path: Path) -> None:
    assert words in refusal(laion_pickle(folder, **{key: value}), tmp_path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    assert "another architecture" in refusal({"visual.conv1.weight": torch.ones(2)}, tmp_path)


def test_float_indices_and_the_true_filters_are_accepted(folder: Path, tmp_path: Path) -> None:
    weights = laion_pickle(folder)
    for key in [key for key in weights if key.endswith("relative_position_index")]:
        weights[key] = weights[key].float()
    weights["audio_branch.logmel_extractor.melW"] = clapkit.load(folder, device="cpu").clap.log_mel.mel.mel_scale.fb
    torch.save(weights, tmp_path / "a.pt")
    assert clapkit.load(tmp_path / "a.pt", device="cpu").embed_dim == 16


def test_attention_matrices_are_split() -> None:
    fused = {"a.layers.0.blocks.1.attn.qkv.weight": torch.arange(12.0).reshape(6, 2)}
    renamed = rename(fused, within("a.", "b.", HTSAT_RULES), "file")
    assert renamed["b.layers.0.blocks.1.attention.self.key.weight"].tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "not a clapkit checkpoint"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678" * 9), "truncated or not safetensors"),
    ],
)
def test_a_damaged_folder(spoil: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    spoil(saved_folder(tmp_path / "laion"))
    with pytest.raises(CheckpointError, match=words) as error:
        clapkit.load(tmp_path / "laion", device="cpu")
    assert "\n" not in str(error.value)


def test_a_tower_of_another_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mlp_ratio=2"):
        clapkit.load(saved_folder(tmp_path / "laion", mlp_ratio=2.0), device="cpu")


def test_the_config_of_larger_clap_general_is_understood() -> None:
    published = {
        "audio_config": {"depths": [2, 2, 12, 2], "hidden_size": 1024, "patch_embeds_hidden_size": 128},
        "text_config": {"model_type": "clap_text_model"}, "hidden_size": 768, "num_hidden_layers": 16,
        "projection_dim": 512, "model_type": "clap", "torch_dtype": "float32", "transformers_version": "4.35.0.dev0",
    }  # fmt: skip
    audio = ClapConfig(**json.loads(json.dumps(published))).audio_config
    assert isinstance(audio, ClapAudioConfig)
    assert (audio.depths, audio.num_attention_heads) == ([2, 2, 12, 2], (4, 8, 16, 32))
    assert all(getattr(audio, key) == value for key, value in hugging_face.HTSAT_DEFAULTS.items())


def test_a_name_is_found_in_the_hubs_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(loading, "fetch_checkpoint", lambda *place, **_: asked.append(place) or folder)
    model = clapkit.load("laion/clap-htsat-unfused", device="cpu")
    assert asked == [("laion/clap-htsat-unfused", None)]
    assert model.checkpoint.training["licence"] == "Apache-2.0"
    assert clapkit.load("somebody/their-clap", device="cpu").embed_dim == 16


def test_a_name_that_is_nowhere_is_one_line() -> None:
    with pytest.raises(
        CheckpointError, match=r"microsoft/msclap/CLAP_weights_2022.pth: not in the Hub's cache"
    ) as error:
        clapkit.load("msclap-2022")
    assert "\n" not in str(error.value)


def test_facts_of_weights_known_by_their_keys_only_are_marked(folder: Path) -> None:
    facts = clapkit.load(folder, device="cpu").checkpoint.training
    assert facts["published"] == "laion, going by its keys"
    assert facts["licence"] == "Apache-2.0 (of the published weights)"


@pytest.mark.parametrize("name", catalogue.PUBLISHED)
def test_every_published_model_has_its_facts(name: str) -> None:
    facts = catalogue.facts_of(name)
    assert {"licence", "trained_on", "saw_esc50", "saw_us8k"} <= facts.keys()


@pytest.mark.parametrize("name", ["msclap-2022", "msclap-2023", "laion", "laion-fused", "wav2clip"])
def test_presets_of_architectures_are_valid(name: str) -> None:
    config = load_config([preset(name)])
    assert config.model.embed_dim in (512, 1024)
