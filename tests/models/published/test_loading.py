"""Published checkpoints are recognised by their keys, taken whole or not at all, and found by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, GPT2Config

import clapkit
from clapkit.config import load_config, preset
from clapkit.errors import CheckpointError
from clapkit.models.audio_encoders import build_audio_encoder
from clapkit.models.clap import CLAP
from clapkit.models.published import catalogue, hugging_face, loading
from clapkit.models.published.assembling import new_tower
from clapkit.models.published.renaming import HTSAT_RULES, rename, within
from clapkit.models.weights import weights_fingerprint

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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("audio_branch.patch_embed.proj.weight", torch.ones(1, 8, 1, 4, 4), "no laion has such sizes"),
        ("audio_branch.layers.0.blocks.0.attn.relative_position_bias_table", torch.ones(225, 3), "no laion has such"),
        ("audio_projection.0.weight", torch.ones(()), "no laion has such sizes"),
        ("text_branch.embeddings.word_embeddings.weight", torch.ones(5), "no laion has such sizes"),
        ("text_branch.embeddings.position_embeddings.weight", torch.ones(1, 64), "no laion has such sizes"),
    ],
)
def test_impossible_sizes_are_one_line(key: str, value: Tensor, words: str, folder: Path, tmp_path: Path) -> None:
    message = refusal(laion_pickle(folder, **{key: value}), tmp_path)
    assert message.startswith(f"{tmp_path / 'a.pt'}: {words}")


def small_msclap_2023() -> tuple[CLAP, dict[str, Tensor]]:
    """A small random model, and its weights under msclap's names."""
    config = load_config(
        [preset("msclap-2023")],
        [
            "encoder.width=8",
            "encoder.depths=[1,1,1]",
            "encoder.n_heads=[1,2,4]",
            "model.embed_dim=16",
            "model.head=false",
        ],
    )
    torch.manual_seed(0)
    words = GPT2Config(vocab_size=300, n_embd=64, n_layer=1, n_head=1, n_positions=128, bos_token_id=0, eos_token_id=0)
    clap = CLAP(config, 0, 64, new_tower(words, config.text)).eval()
    swaps = {
        "audio_branch.": "audio_encoder.base.htsat.", "text_branch.": "caption_encoder.base.",
        "audio_projection.": "audio_encoder.projection.", "text_projection.": "caption_encoder.projection.",
    }  # fmt: skip
    weights = {}
    for name, key in _names_of_laion(clap).items():
        start = name.split(".")[0] + "."
        own = key if "projection" in start else name  # their projections have clapkit's names
        weights[swaps.get(start, start) + own.removeprefix(start)] = clap.state_dict()[key]
    weights["logit_scale"] = weights.pop("logit_scale_a.logit_scale_a")
    return clap, weights


def test_msclaps_file_is_read_whole(tmp_path: Path) -> None:
    clap, weights = small_msclap_2023()
    old = {
        "caption_encoder.base.h.0.attn.bias": torch.ones(1, 1, 128, 128),
        "audio_encoder.base.htsat.logmel_extractor.melW": clap.log_mel.mel.mel_scale.fb,
        "audio_encoder.base.htsat.spectrogram_extractor.stft.conv_real.weight": torch.ones(3),
    }
    torch.save({"model": weights | old}, tmp_path / "a.pth")
    model = clapkit.load(tmp_path / "a.pth", device="cpu")
    assert model.fingerprint["weights"] == weights_fingerprint(clap)
    assert model.config.audio.filter_rate_hz == 32_000
    assert model.embed_audio(torch.ones(8_000)).shape == (1, 16)  # no tokenizer is needed


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("caption_encoder.projection.linear1.weight", None, "1 missing key(s)"),
        ("caption_encoder.base.wte.weight", None, "lacks caption_encoder.base.wte.weight"),
        ("caption_encoder.base.surplus", torch.ones(1), "1 unexpected key(s)"),
        ("surplus", torch.ones(1), "does not have, such as surplus"),
        ("caption_encoder.base.wpe.weight", torch.ones(128, 65), "shape (128, 65) instead of (128, 64)"),
        ("audio_encoder.base.htsat.logmel_extractor.melW", torch.ones(513, 64), "mel filters other than 64 from 50"),
        ("caption_encoder.base.wte.weight", torch.ones(2), "no msclap-2023 has such sizes"),
    ],
)
def test_a_changed_file_of_msclap_is_refused(key: str, value: Tensor | None, words: str, tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in small_msclap_2023()[1].items() if name != key}
    assert words in refusal(weights if value is None else weights | {key: value}, tmp_path)


@pytest.mark.parametrize(
    ("file", "path", "value", "words"),
    [
        (
            "config.json",
            ("audio_config", "patch_stride"),
            [2, 2],
            "audio_config.patch_stride=[2, 2]; clapkit reads (4, 4)",
        ),
        ("config.json", ("audio_config", "layer_norm_eps"), 0.1, "layer_norm_eps=0.1; clapkit reads"),
        ("config.json", ("audio_config", "flatten_patch_embeds"), False, "flatten_patch_embeds=False"),
        ("config.json", ("audio_config", "depths"), "abc", "no ClapModel has such settings"),
        ("config.json", ("audio_config", "num_attention_heads"), [1, 3, 4], "no ClapModel has such settings"),
        ("config.json", ("audio_config",), 5, "no ClapModel has such settings"),
        ("config.json", ("text_config", "num_attention_heads"), 7, "no ClapModel has such settings"),
        ("config.json", ("text_config", "hidden_act"), "none", "no ClapModel has such settings"),
        ("config.json", ("text_config", "pad_token_id"), None, "no ClapModel has such settings"),
        ("config.json", ("projection_dim",), 32, "shape (16, 32) instead of (32, 32)"),
        ("config.json", ("audio_config", "enable_fusion"), True, "truncation=rand_trunc, but enable_fusion=True"),
        ("preprocessor_config.json", ("truncation",), "fusion", "needs rand_trunc"),
        ("preprocessor_config.json", ("padding",), "pad", "audio.padding='pad'"),
        ("preprocessor_config.json", ("feature_size",), 80, "80 mels"),
        ("preprocessor_config.json", ("sampling_rate",), "x", "audio.sample_rate='x'"),
    ],
)
def test_settings_that_clapkit_does_not_read_are_one_line(
    file: str, path: tuple[str, ...], value: object, words: str, folder: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    document = json.loads((changed / file).read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (changed / file).write_text(json.dumps(document))
    with pytest.raises(CheckpointError) as error:
        clapkit.load(changed, device="cpu")
    assert words in str(error.value)
    assert str(changed) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_its_front_end_hears_as_the_published_ones(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    assert clapkit.load(bare, device="cpu").config.audio == clapkit.load(folder, device="cpu").config.audio


def test_an_old_pickle_in_a_folder_is_read(folder: Path, tmp_path: Path) -> None:
    old = shutil.copytree(folder, tmp_path / "old")
    weights = load_file(old / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save(weights, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    ours, expected = clapkit.load(old, device="cpu"), clapkit.load(folder, device="cpu")
    assert ours.fingerprint == expected.fingerprint


def test_larger_clap_general_is_built_from_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {
        "audio_config": {
            "depths": [2, 2, 12, 2], "hidden_size": 1024, "patch_embeds_hidden_size": 128,
            "model_type": "clap_audio_model",
        },
        "text_config": {"model_type": "clap_text_model"}, "hidden_size": 768, "num_hidden_layers": 16,
        "projection_dim": 512, "model_type": "clap", "torch_dtype": "float32", "transformers_version": "4.35.0.dev0",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(published))
    (tmp_path / "pytorch_model.bin").touch()
    monkeypatch.setattr(hugging_face, "read_weights", lambda file: {})
    monkeypatch.setattr(hugging_face, "new_tower", lambda structure, text: structure)
    monkeypatch.setattr(hugging_face, "assemble", lambda config, tower, *_: (config, tower))
    config, text = hugging_face.read_hugging_face(tmp_path)
    assert (config.encoder.width, config.encoder.depths, config.encoder.n_heads) == (128, (2, 2, 12, 2), (4, 8, 16, 32))
    assert (config.model.embed_dim, config.model.projection, config.model.text_logit_scale) == (512, "mlp", True)
    assert (config.audio.fused_s, config.audio.mel_scale, config.audio.sixteen_bits) == (None, "slaney", False)
    assert (text.model_type, text.num_hidden_layers, text.hidden_size) == ("roberta", 12, 768)
    assert text.layer_norm_eps == 1e-12  # as ClapTextConfig has it; RoBERTa's own is 1e-5
    with torch.device("meta"):
        n_parameters = sum(value.numel() for value in build_audio_encoder(config.encoder, config.audio).parameters())
    assert round(n_parameters / 1e6, 1) == 67.8
