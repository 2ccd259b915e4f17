"""Both towers as ONNX: onnxruntime gives the model's vectors, for any batch and any length of text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from clapkit.audio.windows import cut_windows
from clapkit.config import Config, load_config, preset
from clapkit.errors import ClapkitError, StorageError, TextModelError
from clapkit.models import onnx_export
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.onnx_check import check_audio, check_sounds
from clapkit.models.onnx_export import OnnxExport, export_onnx
from clapkit.models.onnx_graphs import ZeroPaddedPool
from clapkit.models.onnx_tokenizer import CHECK_TEXTS, standalone_tokenizer
from clapkit.models.text_encoder import TextEncoder
from clapkit.models.text_towers import weights_sha256
from clapkit.models.tokenizer import train_byte_bpe, train_wordpiece

TOLERANCE = 1e-4
CONTEXT = 24
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TINY = ["audio.sample_rate=16000", "audio.window_s=1.5", "audio.n_mels=32", "encoder.width=8", "model.embed_dim=32"]
TINY_HTSAT = ["encoder.width=8", "encoder.depths=[1,2]", "encoder.n_heads=[1,2]", "model.embed_dim=32"]
NO_TEXT = ["text.name=none", "text.pooling=cls"]


def words_tokenizer() -> PreTrainedTokenizerFast:
    return train_wordpiece(CHECK_TEXTS, 200, CONTEXT)


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's own, ``!`` is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["!"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CHECK_TEXTS, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, unk_token=end)


def text_tower(kind: str) -> TextEncoder:
    """A small tower with random weights that tell texts apart."""
    torch.manual_seed(1)
    if kind in ("last", "msclap_gpt2"):
        tokenizer = gpt2_tokenizer() if kind == "msclap_gpt2" else train_byte_bpe(CHECK_TEXTS, 400, CONTEXT)
        transformer = GPT2Model(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=32,
                n_layer=1,
                n_head=2,
                n_positions=CONTEXT,
                bos_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    else:
        tokenizer = words_tokenizer()
        sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT + 2}
        if kind == "projection":
            marks = {"eos_token_id": tokenizer.sep_token_id, "bos_token_id": tokenizer.cls_token_id, "pad_token_id": 0}
            transformer = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, **marks, projection_dim=32))
        elif kind == "pooler":
            transformer = RobertaModel(RobertaConfig(**sizes, pad_token_id=0))
        else:
            transformer = BertModel(BertConfig(**sizes, pad_token_id=0), add_pooling_layer=False)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)  # the usual small first weights give almost the same vector for every text
    return TextEncoder(transformer, tokenizer, kind, CONTEXT).eval()


def checkpoint_of(config: Config, tower: TextEncoder | None, labels: tuple[str, ...] = ()) -> Checkpoint:
    """A random model whose BatchNorms have seen sounds, so that sounds keep apart."""
    torch.manual_seed(0)
    clap = CLAP(config, len(labels), tower.text_dim if tower else config.model.embed_dim, tower)
    for module in clap.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    windows = [cut_windows(clip, config.audio) for clip in check_sounds(config.audio)]
    arrays = [np.concatenate([getattr(each, name) for each in windows]) for name in ("waveform", "n_valid_samples")]
    with torch.no_grad():
        clap.train().audio_features(*map(torch.from_numpy, arrays))
    return Checkpoint(clap=clap.eval(), labels=list(labels))


def run(file: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file))
    return session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})


def assert_near(done: OnnxExport) -> None:
    """Every tower is near, on inputs whose vectors differ by ten times what is allowed or more."""
    for check in done.checks:
        assert check.largest_difference <= TOLERANCE, check
        assert check.smallest_distance >= 10 * TOLERANCE, check


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """HTSAT as in msclap-2023, and a frozen GPT-2 that lies beside the checkpoint."""
    root = tmp_path_factory.mktemp("onnx")
    tower = text_tower("msclap_gpt2")
    tower.transformer.save_pretrained(root / "tower")
    tower.tokenizer.save_pretrained(root / "tower")
    small = ["encoder.width=16", "encoder.depths=[2]", "encoder.n_heads=[2]", "model.embed_dim=32", "audio.window_s=2"]
    changes = [*small, f"text.name={root / 'tower'}", f"text.context_length={CONTEXT}"]
    config = load_config([preset("msclap-2023")], [*changes, "text.trainable=false", "model.multilabel=true"])
    checkpoint = checkpoint_of(config, None, ("rain", "wind"))
    checkpoint.clap.text_projection = CLAP(config, 0, tower.text_dim).eval().text_projection
    checkpoint.text_sha256 = weights_sha256(root / "tower")
    done = export_onnx(checkpoint, root / "model", name="tiny")
    return SimpleNamespace(folder=root / "model", checkpoint=checkpoint, tower=tower, done=done)


def test_both_towers_give_the_models_numbers(exported: SimpleNamespace) -> None:
    assert [check.file for check in exported.done.checks] == ["audio.onnx", "text.onnx"]
    assert_near(exported.done)


def test_the_folder_holds_all_that_is_needed(exported: SimpleNamespace) -> None:
    names = {"audio.onnx", "text.onnx", "tokenizer.json", "onnx.json", "README.md"}
    assert {file.name for file in exported.folder.iterdir()} == names
    about = json.loads((exported.folder / "onnx.json").read_text())
    assert about["embed_dim"] == 32
    assert about["labels"] == ["rain", "wind"]
    assert about["audio"]["sample_rate"] == 44_100
    assert about["audio"]["n_window_samples"] == 88_200
    assert about["audio"]["padding"] == "repeat"
    assert about["logit_scale"] == pytest.approx(1 / 0.07)
    assert set(about["fingerprint"]) == {"weights", "preprocessing"}
    assert (exported.folder / "README.md").read_text().startswith("# tiny")


@pytest.mark.parametrize("n_windows", [1, 2, 7])
def test_any_number_of_windows_fits(exported: SimpleNamespace, n_windows: int) -> None:
    waveform = np.random.default_rng(n_windows).standard_normal((n_windows, 1, 88_200)).astype(np.float32) / 10
    embedding, probabilities = run(exported.folder / "audio.onnx", waveform=waveform)
    clap = exported.checkpoint.clap
    with torch.inference_mode():
        features = clap.audio_features(torch.from_numpy(waveform), torch.full((n_windows,), 88_200))
        assert np.abs(embedding - clap.audio_projection(features).numpy()).max() <= TOLERANCE
        assert np.abs(probabilities - clap.head(features).sigmoid().numpy()).max() <= TOLERANCE
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("n_texts", "length"), [(1, 1), (1, CONTEXT), (6, 5)])
def test_any_number_and_length_of_texts_fits(exported: SimpleNamespace, n_texts: int, length: int) -> None:
    ids = np.random.default_rng(0).integers(1, 200, (n_texts, length))
    mask = np.ones_like(ids)
    ids[0, length // 2 + 1 :], mask[0, length // 2 + 1 :] = 0, 0
    (embedding,) = run(exported.folder / "text.onnx", input_ids=ids, attention_mask=mask)
    with torch.inference_mode():
        features = exported.tower.encode_tokens(torch.from_numpy(ids), torch.from_numpy(mask))
        expected = exported.checkpoint.clap.text_projection(features).numpy()
    assert np.abs(embedding - expected).max() <= TOLERANCE


def test_the_graphs_are_plain_and_say_nothing_of_this_machine(exported: SimpleNamespace) -> None:
    for file in (exported.folder / "audio.onnx", exported.folder / "text.onnx"):
        graph = onnx.load(file)
        onnx.checker.check_model(graph)
        assert [each.version for each in graph.opset_import if not each.domain] == [18]
        assert str(Path(torch.__file__).parents[1]).encode() not in file.read_bytes()
        assert str(Path(onnx_export.__file__).parents[2]).encode() not in file.read_bytes()


def test_the_model_is_as_it_was(exported: SimpleNamespace) -> None:
    assert exported.checkpoint.clap.training is False
    again = check_audio(exported.checkpoint.clap, exported.folder / "audio.onnx")
    assert again == exported.done.checks[0]


def test_a_graph_of_another_model_is_refused(exported: SimpleNamespace) -> None:
    other = checkpoint_of(exported.checkpoint.clap.config, None, ("rain", "wind")).clap
    with torch.no_grad():
        other.audio_projection.linear1.weight.mul_(1 + torch.rand(1) / 2)
        other.audio_projection.linear1.weight[0] += 0.1
    with pytest.raises(ClapkitError, match=r"audio\.onnx: onnxruntime differs from the model by .*at most 0\.0001"):
        check_audio(other, exported.folder / "audio.onnx")


def test_a_folder_is_replaced_only_when_told(exported: SimpleNamespace) -> None:
    with pytest.raises(StorageError, match="exists already"):
        export_onnx(exported.checkpoint, exported.folder)


def test_when_a_check_fails_nothing_is_written(
    exported: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ClapkitError("too far")

    monkeypatch.setattr(onnx_export, "_write_audio", lambda clap, file: file.write_bytes(b""))
    monkeypatch.setattr(onnx_export, "check_audio", fail)
    with pytest.raises(ClapkitError, match="too far"):
        export_onnx(exported.checkpoint, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_the_exporter_cannot_write_is_one_line(
    exported: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand a page of advice")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        ClapkitError, match=r"^audio\.onnx: this tower cannot be written as ONNX \(no such operator\); "
    ):
        export_onnx(exported.checkpoint, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["cls", "pooler", "last", "msclap_gpt2", "projection"])
def test_the_tokenizer_alone_gives_the_towers_tokens(kind: str, tmp_path: Path) -> None:
    tower = text_tower(kind)
    standalone_tokenizer(tower).save(str(tmp_path / "tokenizer.json"))
    texts = ["wind", "a dog! and a bird! " * 9, "läuten"]
    rows = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(texts)
    expected = tower.tokenize(texts)
    assert [row.ids for row in rows] == expected["input_ids"].tolist()
    assert [row.attention_mask for row in rows] == expected["attention_mask"].tolist()


def test_a_tokenizer_that_needs_transformers_is_refused() -> None:
    tower = text_tower("cls")
    tower.tokenizer.backend_tokenizer.normalizer = None
    tower.tokenizer.backend_tokenizer.post_processor = None
    spoiled = tower.tokenizer.backend_tokenizer.to_str()
    fresh = text_tower("cls")
    fresh.tokenizer.__class__ = type(
        "Own", (type(fresh.tokenizer),), {"backend_tokenizer": Tokenizer.from_str(spoiled)}
    )
    with pytest.raises(TextModelError, match="gives other tokens"):
        standalone_tokenizer(fresh)


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 7), (1, 1)])
def test_the_pool_is_the_one_it_replaces(size: tuple[int, int]) -> None:
    pool = nn.AvgPool2d(2, ceil_mode=True, divisor_override=4)
    features = torch.randn(2, 3, *size)
    assert torch.equal(ZeroPaddedPool(2)(features), pool(features))


def _tiny(*changes: str) -> Callable[[], Config]:
    return lambda: load_config([], [*TINY, *changes])


def _published(name: str, *changes: str) -> Callable[[], Config]:
    return lambda: load_config([preset(name)], changes)


AUDIO_TOWERS = {
    "rescnn": _tiny("audio.n_channels=2"),
    "cnn4": _tiny("encoder.name=cnn4", "audio.top_db=80"),
    "cnn14": _tiny("encoder.name=cnn14"),
    "resnet18": _tiny("encoder.name=resnet18"),
    "laion": _published("laion", *TINY_HTSAT, "audio.window_s=2"),
    "laion-fused": _published("laion-fused", *TINY_HTSAT, "audio.window_s=2", "audio.fused_s=9"),
    "msclap-2022 in full size": _published("msclap-2022"),
    "msclap-2023 in full size": _published("msclap-2023"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO_TOWERS)
def test_every_audio_tower_can_be_written(name: str, tmp_path: Path) -> None:
    config = AUDIO_TOWERS[name]()
    checkpoint = checkpoint_of(_without_text(config), None, ("rain", "wind", "dog"))
    done = export_onnx(checkpoint, tmp_path / "model")
    print(name, done.checks[0])
    assert_near(done)
    inputs = ["waveform", "n_valid_samples"] if config.audio.padding == "zero" else ["waveform"]
    assert done.checks[0].inputs == inputs
    assert done.checks[0].outputs == ["embedding", "probabilities"]
    assert not (tmp_path / "model" / "text.onnx").exists()
    assert ("fuses sounds longer than" in done.note) == (config.audio.fused_s is not None)


def _without_text(config: Config) -> Config:
    return config.model_copy(update={"text": config.text.model_copy(update={"name": "none"})})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cls", "mean", "pooler", "last", "msclap_gpt2", "projection"])
def test_every_text_tower_can_be_written(kind: str, tmp_path: Path) -> None:
    changes = ["text_projection=none"] if kind == "projection" else []
    config = load_config([], [*TINY, "encoder.name=cnn4", *(f"model.{change}" for change in changes)])
    done = export_onnx(checkpoint_of(config, text_tower(kind)), tmp_path / "model")
    print(kind, done.checks[1])
    assert_near(done)
    assert done.checks[1].inputs == ["input_ids", "attention_mask"]
