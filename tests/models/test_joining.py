"""Models joined side by side say what their parts say on average, and only fitting ones are joined."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import clapkit
from clapkit.config import load_config
from clapkit.errors import CheckpointError, ConfigError
from clapkit.model import AudioTextModel
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.joining import join_checkpoints

LABELS = ["dog barking", "siren", "rain"]
SMALL = ["encoder.width=4", "encoder.without_mean=true", "model.embed_dim=8", "audio.window_s=1"]
CPU = torch.device("cpu")


def part(seed: int, *changes: str, labels: list[str] = LABELS, sha256: str | None = "abc") -> Checkpoint:
    """A model with random weights and known texts."""
    torch.manual_seed(seed)
    clap = CLAP(load_config([], [*SMALL, *changes]), len(labels), 6)
    for parameter in clap.parameters():  # blocks start as their shortcuts, which would hide the rest
        parameter.data += 0.05 * torch.randn_like(parameter)
    vectors = clap.eval().text_projection(torch.randn(3, 6, generator=torch.Generator().manual_seed(9)))
    texts = dict(zip(labels, vectors.detach().numpy(), strict=False))
    return Checkpoint(clap, labels, sha256, texts, {"epochs": 1}, {}, [f"freesound:{seed}"])


def models(*checkpoints: Checkpoint) -> list[AudioTextModel]:
    return [AudioTextModel(checkpoint, CPU) for checkpoint in checkpoints]


def clips() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [0.1 * generator.standard_normal(length).astype(np.float32) for length in (9_000, 22_050, 60_000)]


def test_cosines_and_logits_are_the_means_of_the_parts() -> None:
    parts = [part(0), part(1), part(2)]
    (joined,) = models(join_checkpoints(parts, "abc"))
    alone = models(*parts)
    vectors = joined.embed_audio(clips()[:2])  # one window each: means over windows come after the means of parts
    assert vectors.shape == (2, 24)
    cosines = np.mean([each.embed_audio(clips()[:2]) @ each.embed_text(LABELS).T for each in alone], axis=0)
    np.testing.assert_allclose(vectors @ joined.embed_text(LABELS).T, cosines, atol=1e-5)
    decoded = [clip[None] for clip in clips()[:2]]
    logs = [np.log([output.probabilities for output in each.encode(decoded)]) for each in alone]
    means = np.exp(np.mean(logs, axis=0))
    found = np.array([output.probabilities for output in joined.encode(decoded)])
    np.testing.assert_allclose(found, means / means.sum(axis=1, keepdims=True), atol=1e-5)
    assert joined.checkpoint.sources == ["freesound:0", "freesound:1", "freesound:2"]


@pytest.mark.parametrize("half", [False, True])
def test_a_joined_model_is_saved_and_loaded(tmp_path: Path, half: bool) -> None:
    (joined,) = models(join_checkpoints([part(0), part(1)], "ab"))
    before = joined.embed_audio(clips())
    joined.save_pretrained(tmp_path / "joined", half=half)
    loaded = clapkit.load(tmp_path / "joined", device="cpu")
    assert np.array_equal(loaded.embed_audio(clips()), joined.embed_audio(clips()))
    np.testing.assert_allclose(loaded.embed_audio(clips()), before, atol=2e-2 if half else 0)
    assert loaded.config.encoder.branches == 2


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: part(1, "audio.level=relative"), "other settings of 'audio'"),
        (lambda: part(1, "encoder.width=8"), "other settings of 'encoder'"),
        (lambda: part(1, labels=["siren", "rain"]), "has 2 labels other than the 3"),
        (lambda: part(1, sha256=None), "has no frozen text tower"),
        (lambda: part(1, sha256="other"), "another text tower"),
        (lambda: part(1, "train.contrastive=sigmoid"), "another contrastive loss"),
        (lambda: join_checkpoints([part(0), part(1)], "ab"), "is joined already"),
    ],
)
def test_what_does_not_fit_is_named(other, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        join_checkpoints([part(0), other()], ["first", "second"])
    assert str(caught.value).startswith("second: ")


def test_one_model_is_not_joined() -> None:
    with pytest.raises(CheckpointError, match="expected two or more"):
        join_checkpoints([part(0)], ["first"])


def test_the_joined_space_must_have_room_for_every_branch() -> None:
    with pytest.raises(ConfigError, match=r"model.embed_dim \(8\) must be a multiple"):
        CLAP(load_config([], [*SMALL, "encoder.branches=3"]), 3, 6)


def test_branches_learn_together() -> None:
    clap = CLAP(load_config([], [*SMALL, "encoder.branches=2"]), 3, 6)
    outputs = clap(torch.randn(4, 1, 64, 69), torch.full((4,), 69), torch.randn(4, 6))
    (outputs["audio"] @ outputs["text"].T).sum().backward()
    assert outputs["audio"].shape == (4, 8)
    torch.testing.assert_close(outputs["audio"].norm(dim=1), torch.ones(4))
    assert all(each.stem.weight.grad.abs().sum() > 0 for each in clap.audio_encoder.parts)


def test_numbers_too_large_for_half_are_refused(tmp_path: Path) -> None:
    checkpoint = copy.deepcopy(part(0))
    checkpoint.clap.head.bias.data[0] = 1e6
    with pytest.raises(CheckpointError, match="too large for float16"):
        models(checkpoint)[0].save_pretrained(tmp_path / "large", half=True)
    assert not (tmp_path / "large").exists()
