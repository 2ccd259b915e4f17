"""Captions: the mapper's attention, greedy and beam search, the loss, and the folder they are kept in."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel

from clapkit.config import CaptionConfig, load_config
from clapkit.errors import CheckpointError, ClapkitError, ConfigError, TextModelError
from clapkit.model import AudioTextModel, load
from clapkit.models.caption import MSCLAP_END, Captioner, load_captioner, save_captioner
from clapkit.models.caption_decoder import load_decoder, new_captioner
from clapkit.models.checkpoint import CAPTION_FOLDER, load_checkpoint
from clapkit.models.prefix_mapper import PrefixAttention, PrefixMapper
from clapkit.models.tokenizer import train_byte_bpe

CAPTIONS = ["a dog barks twice", "rain falls on a tin roof, softly", "a siren wails"]
EMBED_DIM = 8
TINY = CaptionConfig(
    decoder="gpt2-small", prefix_length=3, clip_length=2, n_layers=2, n_heads=2, hidden_size=32, vocab_size=320,
    most_tokens=24,
)  # fmt: skip


def some_vectors(n: int = 3, seed: int = 0, dim: int = EMBED_DIM) -> Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def fresh(**changes: object) -> Captioner:
    """Random weights, far enough from zero that captions differ."""
    torch.manual_seed(0)
    captioner = new_captioner(TINY.model_copy(update=changes), EMBED_DIM, CAPTIONS)
    with torch.no_grad():
        for parameter in captioner.decoder.transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return captioner


@pytest.fixture(scope="module")
def trained() -> Captioner:
    """A captioner that has learned three pairs by heart."""
    captioner = new_captioner(TINY, EMBED_DIM, CAPTIONS)
    vectors = some_vectors()
    optimizer = torch.optim.AdamW([each for each in captioner.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        captioner.loss(vectors, CAPTIONS).backward()
        optimizer.step()
    return captioner


@pytest.fixture
def folder(trained: Captioner, tmp_path: Path) -> Path:
    save_captioner(trained, tmp_path / "caption")
    return tmp_path / "caption"


@torch.no_grad()
def log_probability(captioner: Captioner, vector: Tensor, tokens: list[int]) -> float:
    """Mean log-probability of a caption's tokens, its end included: what beams are compared by."""
    ids = torch.tensor([tokens])
    inputs = torch.cat([captioner.mapper(vector[None]), captioner.decoder.transformer.wte(ids)], dim=1)
    scores = captioner.decoder(inputs_embeds=inputs).logits.log_softmax(dim=-1)[0, TINY.prefix_length - 1 : -1]
    return float(scores.gather(1, ids.T).sum()) / len(tokens)


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    attention, tokens = PrefixAttention(12, 3), torch.randn(2, 5, 12)
    queries = attention.to_queries(tokens)
    keys, values = attention.to_keys_values(tokens)[..., :12], attention.to_keys_values(tokens)[..., 12:]
    heads = []
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        shares = (queries[..., own] @ keys[..., own].transpose(1, 2) / math.sqrt(4)).softmax(dim=-1)
        heads.append(shares @ values[..., own])
    expected = attention.project(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens), expected, atol=1e-6, rtol=1e-5)


def test_the_mapper_has_the_published_names() -> None:
    mapper = PrefixMapper(EMBED_DIM, 16, prefix_length=4, clip_length=3, n_layers=2)
    layer = {
        "norm1.weight", "norm1.bias", "attn.to_queries.weight", "attn.to_keys_values.weight", "attn.project.weight",
        "attn.project.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
        "mlp.fc2.bias",
    }  # fmt: skip
    layers = {f"transformer.layers.{number}.{name}" for number in range(2) for name in layer}
    assert set(mapper.state_dict()) == {"linear.weight", "linear.bias", "prefix_const", *layers}
    assert mapper(some_vectors()).shape == (3, 4, 16)


def test_a_sound_has_the_same_prefix_alone_and_among_others() -> None:
    mapper = fresh().mapper
    torch.testing.assert_close(mapper(some_vectors())[1:2], mapper(some_vectors()[1:2]))


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_greedy_takes_the_likeliest_token_each_time(kind: str, trained: Captioner) -> None:
    captioner = trained if kind == "trained" else fresh()
    vectors, wte = some_vectors(), captioner.decoder.transformer.wte
    for vector, found in zip(vectors, captioner.generate(vectors, n_beams=1), strict=True):
        inputs, tokens = captioner.mapper(vector[None]), []
        while len(tokens) < captioner.most_tokens:
            token = int(captioner.decoder(inputs_embeds=inputs).logits[0, -1].argmax())
            if token == captioner.end_token:
                break
            tokens.append(token)
            inputs = torch.cat([inputs, wte(torch.tensor([[token]]))], dim=1)
        assert found == tokens


def test_beams_find_captions_at_least_as_likely() -> None:
    captioner, end = fresh(), [fresh().end_token]
    vectors = some_vectors(6, seed=3)
    greedy, beams = (captioner.generate(vectors, n_beams=number, most_tokens=8) for number in (1, 5))
    assert greedy != beams
    for vector, one, five in zip(vectors, greedy, beams, strict=True):
        likelihoods = [
            log_probability(captioner, vector, tokens + (end if len(tokens) < 8 else [])) for tokens in (one, five)
        ]
        assert likelihoods[1] >= likelihoods[0] - 1e-5


def test_captions_do_not_depend_on_their_batch() -> None:
    captioner, vectors = fresh(), some_vectors(4, seed=1)
    together = captioner.generate(vectors, n_beams=3)
    assert together == [captioner.generate(vector[None], n_beams=3)[0] for vector in vectors]


def test_three_pairs_are_learned_by_heart(trained: Captioner) -> None:
    expected = ["A dog barks twice", "Rain falls on a tin roof, softly", "A siren wails"]
    assert trained.caption(some_vectors()) == expected
    assert trained.caption(some_vectors(), n_beams=1) == expected
    assert trained.caption(some_vectors(), most_tokens=2)[0] in expected[0]


def test_the_loss_counts_each_caption_token_and_its_end_once() -> None:
    captioner, vectors = fresh(), some_vectors()
    ids, mask = captioner.tokenize(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [len(captioner.tokenizer.encode(text)) + 1 for text in CAPTIONS]
    n_tokens, total = 0, 0.0
    for vector, row, kept in zip(vectors, ids, mask, strict=True):
        tokens = row[kept.bool()].tolist()
        assert tokens[-1] == captioner.end_token
        total -= log_probability(captioner, vector, tokens) * len(tokens)
        n_tokens += len(tokens)
    assert float(captioner.loss(vectors, CAPTIONS).detach()) == pytest.approx(total / n_tokens, abs=1e-5)


def test_the_loss_does_not_see_what_stands_in_the_padding() -> None:
    captioner = fresh()
    ids, mask = captioner.tokenize(CAPTIONS)
    assert (mask == 0).any()
    losses = [captioner.token_loss(some_vectors(), ids.masked_fill(mask == 0, fill), mask) for fill in (0, 7)]
    torch.testing.assert_close(*losses)


def test_a_caption_that_is_too_long_is_cut_and_does_not_end() -> None:
    captioner = fresh(most_tokens=5)
    ids, mask = captioner.tokenize(["rain and more rain and still more rain"])
    assert ids.shape == (1, 5)
    assert mask.all()
    assert captioner.end_token not in ids


def test_only_the_mapper_learns_in_front_of_a_given_decoder(tmp_path: Path) -> None:
    fresh().decoder.save_pretrained(tmp_path)
    fresh().tokenizer.save_pretrained(tmp_path)
    captioner = new_captioner(TINY.model_copy(update={"decoder": str(tmp_path)}), EMBED_DIM, [])
    captioner.loss(some_vectors(), CAPTIONS).backward()
    assert not captioner.decoder_learns
    assert all(parameter.grad is None for parameter in captioner.decoder.parameters())
    assert all(parameter.grad is not None for parameter in captioner.mapper.parameters())
    for name, value in fresh().decoder.state_dict().items():
        assert torch.equal(captioner.decoder.state_dict()[name], value)


def test_msclap_ends_a_caption_with_a_space() -> None:
    tokenizer = train_byte_bpe(["a dog"], 300, 20)
    decoder = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=2, n_positions=20))
    mapper = PrefixMapper(EMBED_DIM, 8, prefix_length=2, clip_length=2, n_layers=1)
    captioner = Captioner(mapper, decoder, tokenizer, end=MSCLAP_END)
    assert captioner.end_token == tokenizer.convert_tokens_to_ids("Ġ")
    assert captioner.most_tokens == 18  # the decoder has no room for more


def test_a_folder_gives_the_captioner_back(trained: Captioner, folder: Path, tmp_path: Path) -> None:
    again = load_captioner(folder)
    assert (again.end, again.most_tokens) == (trained.end, trained.most_tokens)
    for name, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    again.generate(some_vectors(), n_beams=1)
    assert again.caption(some_vectors()) == trained.caption(some_vectors())
    assert not again.decoder_learns
    save_captioner(load_captioner(folder), tmp_path / "second")
    shutil.rmtree(folder)  # the second one stands for itself
    assert load_captioner(tmp_path / "second").caption(some_vectors()) == trained.caption(some_vectors())


def test_the_shared_matrix_is_stored_once(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert "decoder.transformer.wte.weight" in stored
    assert "decoder.lm_head.weight" not in stored
    decoder = load_captioner(folder).decoder
    assert decoder.lm_head.weight.data_ptr() == decoder.transformer.wte.weight.data_ptr()


def test_a_tokenizer_that_is_not_here_is_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    captioner = fresh()
    captioner.use_tokenizer("nobody/nothing")
    save_captioner(captioner, tmp_path / "caption")
    again = load_captioner(tmp_path / "caption")
    with pytest.raises(TextModelError, match=r"nobody/nothing.*--tokenizer FOLDER") as caught:
        again.caption(some_vectors())
    assert "\n" not in str(caught.value)
    again.use_tokenizer(fresh().tokenizer)
    assert len(again.caption(some_vectors())) == 3


def test_a_tokenizer_of_another_model_is_refused() -> None:
    captioner = fresh()
    foreign = train_byte_bpe([f"word{number} number {number * 7}" for number in range(200)], 900, 20)
    with pytest.raises(TextModelError, match=r"has \d+ tokens, but this decoder knows \d+"):
        captioner.use_tokenizer(foreign)


def _without(file: Path, key: str) -> None:
    document = json.loads(file.read_text())
    del document[key]
    file.write_text(json.dumps(document))


def _with_weights(folder: Path, **changes: Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors") | changes
    save_file({name: value for name, value in weights.items() if value is not None}, folder / "model.safetensors")


DAMAGES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "damaged"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "damaged"),
    "no sizes": (lambda folder: _without(folder / "config.json", "mapper"), "lacks 'mapper'"),
    "no end": (lambda folder: _without(folder / "config.json", "end"), "lacks 'end'"),
    "no decoder": (lambda folder: shutil.rmtree(folder / "decoder"), "damaged"),
    "another decoder": (lambda folder: BertConfig().save_pretrained(folder / "decoder"), "damaged"),
    "cut weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"\x10"), "damaged"),
    "a key less": (lambda folder: _with_weights(folder, **{"mapper.linear.bias": None}), "1 missing key"),
    "no matrix": (lambda folder: _with_weights(folder, **{"decoder.transformer.wte.weight": None}), "2 missing key"),
    "a key more": (lambda folder: _with_weights(folder, more=torch.ones(2)), "1 unexpected key"),
    "a shape": (lambda folder: _with_weights(folder, **{"mapper.linear.bias": torch.ones(2)}), "has shape (2,)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_named(folder: Path, damage: str) -> None:
    change, reason = DAMAGES[damage]
    change(folder)
    with pytest.raises(CheckpointError) as caught:
        load_captioner(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert reason in message
    assert "\n" not in message


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_heads=3 must divide hidden_size=32"):
        load_config([], ["caption.decoder=gpt2-small", "caption.n_heads=3", "caption.hidden_size=32"])
    fresh().decoder.save_pretrained(tmp_path)
    fresh().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"caption.n_heads=3 does not divide the 32"):
        fresh(decoder=str(tmp_path), n_heads=3)
    with pytest.raises(ConfigError, match="does not fit a decoder of 27 positions"):
        fresh(decoder=str(tmp_path), prefix_length=27)


def test_decoders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(TextModelError, match=r"nobody/nothing.*--decoder gpt2-small"):
        load_decoder("nobody/nothing")
    with pytest.raises(TextModelError, match="not a readable GPT-2"):
        load_decoder(str(tmp_path))
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(TextModelError, match="kind bert"):
        load_decoder(str(tmp_path / "bert"))
    fresh().decoder.save_pretrained(tmp_path / "mute")
    with pytest.raises(TextModelError, match="holds no tokenizer"):
        load_decoder(str(tmp_path / "mute"))


@pytest.fixture(scope="module")
def speaking(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a random captioner."""
    model = load(tiny_run, device="cpu")
    torch.manual_seed(0)
    model.checkpoint.captioner = new_captioner(TINY, model.embed_dim, CAPTIONS)
    folder = tmp_path_factory.mktemp("speaking") / "checkpoint"
    model.save_pretrained(folder)
    return folder


def test_a_checkpoint_keeps_its_captioner(speaking: Path, tiny_run: Path) -> None:
    assert (speaking / CAPTION_FOLDER).is_dir()
    assert load_checkpoint(speaking).captioner is not None
    assert load_checkpoint(tiny_run).captioner is None


def test_a_model_captions_sounds(speaking: Path, sounds: Path) -> None:
    model, files = load(speaking, device="cpu"), [sounds / "low" / "0.wav", sounds / "high" / "1.wav"]
    both = model.caption(files)
    assert [type(caption) for caption in both] == [str, str]
    assert model.caption(files[0]) == both[0]
    vectors = torch.from_numpy(model.embed_audio(files))
    assert both == model.checkpoint.captioner.caption(vectors)
    assert model.caption(files, n_beams=1) == model.checkpoint.captioner.caption(vectors, n_beams=1)


def test_a_model_without_captioner_offers_the_nearest_description(tiny_model: AudioTextModel, sounds: Path) -> None:
    file = sounds / "low" / "0.wav"
    with pytest.raises(ClapkitError, match=r"no caption model.*describe") as caught:
        tiny_model.caption(file)
    assert "\n" not in str(caught.value)
    described = tiny_model.describe(file, ["a low hum", "a high whistle", "rain, on a roof"], top_k=2)
    assert len(described) == 2
    similarity = tiny_model.embed_text([each.label for each in described]) @ tiny_model.embed_audio(file)[0]
    assert [each.similarity for each in described] == pytest.approx(similarity.tolist(), abs=1e-5)
    assert described[0].similarity >= described[1].similarity
    several = tiny_model.describe([file, sounds / "high" / "1.wav"], ["low", "high"])
    assert [len(scores) for scores in several] == [1, 1]
    assert several[0][0].label == tiny_model.describe(file, ["low", "high"])[0].label
    with pytest.raises(ClapkitError, match="no labels given"):
        tiny_model.describe(file, [])
    if not tiny_model.checkpoint.texts:
        with pytest.raises(ClapkitError, match="knows no texts"):
            tiny_model.describe(file)
