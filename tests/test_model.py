"""What ``clapkit.load()`` returns: vectors that depend on the sound alone, scores, and known texts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import clapkit
from clapkit.config import Config, TextConfig
from clapkit.data.datasets import load_manifest
from clapkit.errors import AudioError, ClapkitError, TextModelError
from clapkit.model import AudioTextModel, Score
from clapkit.training.plan import plan_run
from clapkit.training.run import train_and_test

RATE = 16_000
DURATIONS_S = (0.05, 0.3, 1.0, 2.37, 5.0)  # windows are 1 s


def _clip(duration_s: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A tone in noise whose loudness wanders, so that no two windows are alike."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate)) / rate
    tone = np.sin(2 * np.pi * (300 + 200 * seed) * time_s) * (0.5 + 0.4 * np.sin(2 * np.pi * 0.7 * time_s + seed))
    return (0.4 * tone + 0.05 * generator.standard_normal(len(time_s))).astype(np.float32)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [_clip(duration_s, seed) for seed, duration_s in enumerate(DURATIONS_S)]


@pytest.fixture(scope="module")
def model(tiny_run: Path, clips: list[np.ndarray]) -> AudioTextModel:
    """The tiny model with running statistics of these clips; after its few steps all sounds lie close together."""
    loaded = clapkit.load(tiny_run, device="cpu")
    for module in loaded.clap.audio_encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    windows = torch.from_numpy(np.stack([np.resize(clip, (1, RATE)) for clip in clips]))
    with torch.no_grad():
        loaded.clap.train().audio_features(windows, torch.full((len(clips),), RATE))
    loaded.clap.eval()
    return loaded


def _assert_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


def test_vectors_have_unit_length_and_are_float32(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    vectors = model.embed_audio(clips)
    assert vectors.shape == (len(clips), model.embed_dim) == (5, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_different_sounds_have_different_vectors(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    vectors = model.embed_audio(clips)
    assert np.linalg.norm(vectors[:, None] - vectors[None, :], axis=2)[np.triu_indices(5, 1)].min() > 0.05


def test_a_clip_alone_is_the_clip_in_a_batch(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    alone = np.concatenate([model.embed_audio([clip]) for clip in clips])
    _assert_same(model.embed_audio(clips), alone)


def test_the_order_of_a_batch_does_not_matter(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    _assert_same(model.embed_audio(clips[::-1])[::-1], model.embed_audio(clips))


def test_clips_that_straddle_forward_passes_keep_their_vectors(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    many = clips * 8  # 88 windows, which are encoded 32 at a time
    _assert_same(model.embed_audio(many), np.tile(model.embed_audio(clips), (8, 1)))


def test_embedding_twice_gives_the_same_bits(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    first = model.embed_audio(clips)
    torch.manual_seed(123)
    assert np.array_equal(model.embed_audio(clips), first)


def test_embedding_draws_no_random_numbers(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    model.clap.train()  # whoever trained on leaves dropout on
    before = torch.get_rng_state()
    vectors = model.embed_audio(clips)
    assert torch.equal(torch.get_rng_state(), before)
    _assert_same(vectors, model.embed_audio(clips))


def test_path_bytes_array_and_tensor_give_one_vector(model: AudioTextModel, tmp_path: Path) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, _clip(2.5), RATE)
    samples, _ = soundfile.read(file, dtype="float32")
    sounds = [file, str(file), file.read_bytes(), samples, torch.from_numpy(samples), samples[None]]
    vectors = model.embed_audio(sounds)
    _assert_same(vectors, np.repeat(vectors[:1], len(sounds), axis=0))


def test_one_sound_without_a_list_gives_one_row(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    _assert_same(model.embed_audio(clips[2]), model.embed_audio([clips[2]]))


def test_stereo_is_its_mono_mix(model: AudioTextModel) -> None:
    left, right = _clip(1.5, seed=1), _clip(1.5, seed=2)
    _assert_same(model.embed_audio(np.stack([left, right])), model.embed_audio((left + right) / 2))


def test_zeros_behind_a_clip_are_not_the_clip(model: AudioTextModel) -> None:
    """Padding inside the model is masked; silence in the recording is sound."""
    clip = _clip(0.4)
    padded = model.embed_audio(np.pad(clip, (0, RATE // 2)))
    assert np.linalg.norm(padded - model.embed_audio(clip)) > 1e-3


def test_a_long_clip_is_the_mean_of_its_windows(model: AudioTextModel) -> None:
    clip = _clip(3.0)
    mean = model.embed_audio([clip[:RATE], clip[RATE : 2 * RATE], clip[2 * RATE :]]).mean(axis=0)
    _assert_same(model.embed_audio(clip)[0], mean / np.linalg.norm(mean))


def test_an_array_with_its_rate_is_the_file_at_that_rate(model: AudioTextModel, tmp_path: Path) -> None:
    samples = _clip(1.0, rate=44_100)
    soundfile.write(tmp_path / "clip.wav", samples, 44_100, subtype="FLOAT")
    from_file = model.embed_audio(tmp_path / "clip.wav")
    _assert_same(model.embed_audio(samples, sample_rate=44_100), from_file)
    assert np.linalg.norm(model.embed_audio(samples) - from_file) > 0.05  # taken for a slower sound


def test_no_sounds_give_no_rows(model: AudioTextModel) -> None:
    vectors = model.embed_audio([])
    assert vectors.shape == (0, 32)
    assert vectors.dtype == np.float32


def test_no_sounds_give_no_scores(model: AudioTextModel) -> None:
    assert model.classify([]) == []
    assert model.zeroshot([], ["low", "high"]) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers_are_refused(model: AudioTextModel, value: float) -> None:
    samples = _clip(1.0)
    samples[100] = value
    with pytest.raises(AudioError, match="NaN or infinite"):
        model.embed_audio([_clip(1.0), samples])


def test_silence_has_a_vector(model: AudioTextModel) -> None:
    vector = model.embed_audio(np.zeros(RATE, dtype=np.float32))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def _check_scores(scores: list[Score], labels: list[str]) -> None:
    assert sorted(score.label for score in scores) == sorted(labels)
    assert [score.score for score in scores] == sorted((score.score for score in scores), reverse=True)
    assert sum(score.score for score in scores) == pytest.approx(1, abs=1e-5)
    assert all(-1.00001 <= score.similarity <= 1.00001 for score in scores)
    assert all(type(score.score) is type(score.similarity) is float for score in scores)


def test_classify_ranks_the_labels_trained_on(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    _check_scores(model.classify(clips[0]), ["high", "low", "middle"])
    _check_scores(model.classify(clips[4]), ["high", "low", "middle"])


def test_classify_gives_the_best_k(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    assert model.classify(clips[0], top_k=2) == model.classify(clips[0])[:2]
    assert len(model.classify(clips[0], top_k=9)) == 3


def test_zeroshot_is_a_softmax_of_cosines_at_the_learned_temperature(
    model: AudioTextModel, clips: list[np.ndarray]
) -> None:
    labels = ["a deep hum", "a whistle", "high", "rain"]
    scores = model.zeroshot(clips[1], labels)
    _check_scores(scores, labels)
    cosines = model.embed_labels(labels) @ model.embed_audio(clips[1])[0]
    logits = cosines * float(model.clap.logit_scale.detach().exp())
    expected = np.exp(logits) / np.exp(logits).sum()
    found = {score.label: score for score in scores}
    for place, label in enumerate(labels):
        assert found[label].similarity == pytest.approx(cosines[place], abs=1e-6)
        assert found[label].score == pytest.approx(expected[place], abs=1e-5)


def test_a_list_of_sounds_gives_a_list_of_rankings(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    labels = ["low", "high", "whistle"]
    for score in (model.classify, lambda sounds: model.zeroshot(sounds, labels)):
        together, alone = score(clips), [score(clip) for clip in clips]
        assert len(score(clips[:1])) == 1
        for ranking, expected in zip(together, alone, strict=True):
            assert [each.label for each in ranking] == [each.label for each in expected]
            _assert_same([each.score for each in ranking], [each.score for each in expected])


def test_a_single_label_scores_one_and_its_cosine_tells_how_near(
    model: AudioTextModel, clips: list[np.ndarray]
) -> None:
    (score,) = model.zeroshot(clips[0], ["rain"])
    assert score.score == 1.0
    assert -1 <= score.similarity <= 1
    (other,) = model.zeroshot(clips[0], ["high"])
    assert other.similarity != score.similarity


def test_a_score_has_three_named_fields() -> None:
    assert vars(Score("rain", 0.25, 0.5)) == {"label": "rain", "score": 0.25, "similarity": 0.5}


def test_the_default_prompts_are_averaged(model: AudioTextModel) -> None:
    mean = model.embed_text(["low", "the sound of low", "a recording of low"]).mean(axis=0)
    _assert_same(model.embed_labels(["low"])[0], mean / np.linalg.norm(mean))


def test_descriptions_stand_for_a_label_in_place_of_its_prompts(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    described = {"lion": ["a deep hum", "a low growl"], "high": [], "low": "a hum"}
    mean = model.embed_text(["a deep hum", "a low growl"]).mean(axis=0)
    vectors = model.embed_labels(described, "one {label}")
    _assert_same(vectors[0], mean / np.linalg.norm(mean))
    _assert_same(vectors[1:], model.embed_text(["one high", "a hum"]))
    scores = model.zeroshot(clips[0], described)
    _check_scores(scores, list(described))
    cosines = dict(zip(described, model.embed_labels(described) @ model.embed_audio(clips[0])[0], strict=True))
    assert {score.label: score.similarity for score in scores} == pytest.approx(cosines, abs=1e-6)


def test_a_template_takes_the_place_of_the_default_prompts(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    scores = model.zeroshot(clips[0], ["low_hum", "high"], template="a recording of {label} outside")
    vectors = model.embed_text(["a recording of low hum outside", "a recording of high outside"])
    cosines = dict(zip(["low_hum", "high"], vectors @ model.embed_audio(clips[0])[0], strict=True))
    for score in scores:
        assert score.similarity == pytest.approx(cosines[score.label], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "template", "reason"),
    [
        ([], None, "no labels given"),
        (["rain", " "], None, "label 2 of 2 is empty"),
        (["rain", "wind", "rain"], None, "'rain' is given twice"),
        (["dog bark", "Dog_Bark"], None, "'Dog_Bark' is given twice"),
        (["rain", "wind"], "the sound of", "must contain {label}"),
        (["rain", "wind"], "", "must contain {label}"),
    ],
)
def test_labels_and_templates_that_make_no_sense_are_refused(
    labels: list[str], template: str | None, reason: str, model: AudioTextModel, clips: list[np.ndarray]
) -> None:
    with pytest.raises(ClapkitError, match=reason):
        model.zeroshot(clips[0], labels, template=template)


def test_labels_in_one_string_are_refused(model: AudioTextModel, clips: list[np.ndarray]) -> None:
    with pytest.raises(ClapkitError):
        model.zeroshot(clips[0], "rain")


def test_texts_keep_their_order_and_may_repeat(model: AudioTextModel) -> None:
    texts = ["rain", "a dog", "rain", "low"]
    vectors = model.embed_text(texts)
    assert vectors.shape == (4, 32)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    _assert_same(vectors, np.concatenate([model.embed_text(text) for text in texts]))


def test_no_texts_give_no_rows(model: AudioTextModel) -> None:
    assert model.embed_text([]).shape == (0, 32)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(model: AudioTextModel, text: str) -> None:
    with pytest.raises(ClapkitError, match="empty text"):
        model.embed_text(["rain", text])


@pytest.fixture(scope="module")
def frozen_run(tiny_config: Config, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a frozen text tower, and beside it that tower's folder ``tower``."""
    from transformers import BertConfig, BertModel

    from clapkit.models.tokenizer import train_wordpiece

    root = tmp_path_factory.mktemp("frozen")
    tokenizer = train_wordpiece(["low middle high", "the sound of a recording", "rain and whistles"], 200, 64)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(root / "tower")
    tokenizer.save_pretrained(root / "tower")
    text = TextConfig(name=str(root / "tower"), trainable=False, pooling="mean")
    config = tiny_config.model_copy(update={"text": text, "train": tiny_config.train.model_copy(update={"epochs": 1})})
    run = plan_run(config, load_manifest("folder", sounds), root / "checkpoint")
    train_and_test(run, device=torch.device("cpu"))
    return root / "checkpoint"


@pytest.fixture
def towerless(frozen_run: Path, tmp_path: Path) -> AudioTextModel:
    """The frozen-tower model on a machine without its tower."""
    copy = shutil.copytree(frozen_run, tmp_path / "checkpoint")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(frozen_run.parent / "tower"), str(tmp_path / "gone")))
    return clapkit.load(copy, device="cpu")


def test_known_texts_have_the_vectors_that_the_tower_gives(frozen_run: Path) -> None:
    model, without_bank = clapkit.load(frozen_run, device="cpu"), clapkit.load(frozen_run, device="cpu")
    known = list(model.checkpoint.texts)
    assert "the sound of low" in known
    without_bank.checkpoint.texts = {}
    _assert_same(model.embed_text(known), without_bank.embed_text(known))


def test_known_and_new_texts_mix_in_any_order(frozen_run: Path) -> None:
    model = clapkit.load(frozen_run, device="cpu")
    texts = ["rain", "low", "whistles", "the sound of high", "rain"]
    _assert_same(model.embed_text(texts), np.concatenate([model.embed_text([text]) for text in texts]))


def test_known_labels_need_no_tower(
    towerless: AudioTextModel, frozen_run: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = clapkit.load(frozen_run, device="cpu")
    monkeypatch.setattr("clapkit.models.text_towers.load_text_encoder", None)
    assert towerless.zeroshot(clips[1], ["low", "high"]) == complete.zeroshot(clips[1], ["low", "high"])
    assert towerless.classify(clips[1]) == complete.classify(clips[1])


def test_new_words_without_the_tower_are_one_readable_line(towerless: AudioTextModel, clips: list[np.ndarray]) -> None:
    with pytest.raises(TextModelError, match="'thunder' is new to") as error:
        towerless.zeroshot(clips[1], ["low", "thunder"])
    assert "\n" not in str(error.value)
    assert "gone" in str(error.value)


def test_another_tower_under_the_same_name_is_refused(frozen_run: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    tower = shutil.copytree(frozen_run.parent / "tower", tmp_path / "tower")
    BertModel(BertConfig.from_pretrained(tower)).save_pretrained(tower)  # new random weights
    copy = shutil.copytree(frozen_run, tmp_path / "checkpoint")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(frozen_run.parent / "tower"), str(tower)))
    with pytest.raises(TextModelError, match="sha256"):
        clapkit.load(copy, device="cpu").embed_text(["thunder"])
