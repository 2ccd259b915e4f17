"""clapkit gives the vectors of transformers' ``ClapModel`` and ``ClapFeatureExtractor``, run here beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from filling import LONG_TEXT, REAL_CLIPS, TEXTS, draw, sweep
from judging import LARGEST_DB, assert_same, assert_same_mel, log_mel
from small_tokenizers import roberta_vocabulary, save_roberta_tokenizer

from clapkit.audio.io import load_waveform
from clapkit.model import AudioTextModel, load

RATE = 48_000
LONG_SAMPLES = 480_000 + 480
"""From here on a clip has more frames than a window; the extractor calls it longer."""
EXACT_DB = 90
"""Below the loudest band of a frame; float32 is exact so far down."""
SMALL = {
    "patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1, 1, 2, 1], "num_attention_heads": [2, 2, 4, 4],
}  # fmt: skip


@dataclass
class Pair:
    """The same weights twice.

    Attributes:
        theirs: ``ClapModel``.
        extractor: its front-end.
        ours: clapkit's, from the folder that both were saved in.
        folder: that one.
    """

    theirs: object
    extractor: object
    ours: AudioTextModel
    folder: Path

    def picture(self, clip: np.ndarray) -> torch.Tensor:
        """``(1, 1 or 4, n_frames, 64)`` dB."""
        return self.extractor(clip, sampling_rate=RATE, return_tensors="pt")["input_features"]

    @torch.inference_mode()
    def audio(self, clips: list[np.ndarray]) -> np.ndarray:
        """One by one. Among short clips alone the fused extractor takes one at random for a long one; not so here."""
        longer = [torch.tensor([[len(clip) >= LONG_SAMPLES]]) for clip in clips]
        outputs = [
            self.theirs.get_audio_features(input_features=self.picture(clip), is_longer=is_longer)
            for clip, is_longer in zip(clips, longer, strict=True)
        ]
        return torch.cat([output.pooler_output for output in outputs]).numpy()

    @torch.inference_mode()
    def ours_on(self, pictures: list[torch.Tensor]) -> np.ndarray:
        """clapkit's towers behind the extractor's pictures."""
        clap = self.ours.clap
        features = [
            clap.audio_encoder(picture.transpose(2, 3), torch.tensor([picture.shape[2]])) for picture in pictures
        ]
        return clap.audio_projection(torch.cat(features)).numpy()

    @torch.inference_mode()
    def text(self, texts: list[str]) -> np.ndarray:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        return self.theirs.get_text_features(**tokens).pooler_output.numpy()


def make_pair(folder: Path, clips: list[np.ndarray], *, is_fused: bool, audio: dict | None = None) -> Pair:
    """Save filled weights as ``ClapModel`` does, with BatchNorm statistics of ``clips``."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    text = {
        "vocab_size": len(roberta_vocabulary()), "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 256, "max_position_embeddings": 514,
    }  # fmt: skip
    fusion = {"enable_fusion": is_fused, "fusion_type": "aff_2d" if is_fused else None}
    theirs = ClapModel(ClapConfig(text_config=text, audio_config={**(audio or {}), **fusion}, projection_dim=64)).eval()
    for key, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(draw(key, tuple(value.shape))))
    extractor = ClapFeatureExtractor(
        truncation="fusion" if is_fused else "rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14_000
    )
    pair = Pair(theirs, extractor, None, folder)
    fill_statistics(pair, clips)
    theirs.save_pretrained(folder)
    extractor.save_pretrained(folder)
    save_roberta_tokenizer(folder)
    pair.ours = load(folder, device="cpu")
    return pair


def fill_statistics(pair: Pair, clips: list[np.ndarray]) -> None:
    layers = [layer for layer in pair.theirs.modules() if hasattr(layer, "running_mean")]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    pictures = torch.cat([pair.picture(clip) for clip in clips])
    longer = torch.tensor([[len(clip) >= LONG_SAMPLES] for clip in clips])
    with torch.inference_mode():
        pair.theirs.get_audio_features(input_features=pictures, is_longer=longer)
    for layer in layers:
        layer.eval()


@pytest.fixture(autouse=True)
def _middle_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extractor draws a crop of a long clip at random, clapkit takes the middle one."""
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])


def synthetic_clips(*, is_fused: bool) -> list[np.ndarray]:
    lengths_s = [3.0, 10.0, 0.7, 10.005] + ([17.0, 24.5] if is_fused else [])
    return [sweep(length_s, RATE) for length_s in (lengths_s if is_fused else lengths_s[:3])]


@pytest.mark.parametrize("is_fused", [False, True])
def test_small(is_fused, tmp_path):
    clips = synthetic_clips(is_fused=is_fused)
    pair = make_pair(tmp_path, clips, is_fused=is_fused, audio=SMALL)
    for clip in clips:
        assert_same_mel(log_mel(pair.ours, clip), pair.picture(clip)[0].numpy())
    assert_same(pair.ours.embed_audio(clips), pair.audio(clips))
    assert_same(pair.ours.embed_text([*TEXTS, LONG_TEXT]), pair.text([*TEXTS, LONG_TEXT]))


@pytest.mark.slow
@pytest.mark.parametrize("is_fused", [False, True])
def test_full_size_with_real_sounds(is_fused, tmp_path, real_data):
    """The whole way where the front-ends agree; where they cannot, each part of it.

    The extractor's Fourier transform has float64, clapkit's (and LAION's own) float32. More than 90 dB below a frame's
    loudest band that is rounding, and the fused model's filters let some real clips reach down there: bins differ by up
    to 3 dB and one vector's cosine is 0.9996. On clapkit's side are the references of LAION's fused code, whose
    pictures are the very same.
    """
    clips = [load_waveform(real_data / name, RATE)[0] for name in REAL_CLIPS]
    if is_fused:
        clips += [np.concatenate(clips[:4]), np.concatenate(clips[2:])]
    pair = make_pair(tmp_path, clips, is_fused=is_fused)
    ours, theirs = [log_mel(pair.ours, clip) for clip in clips], [pair.picture(clip) for clip in clips]
    for mine, other in zip(ours, theirs, strict=True):
        is_exact = mine > mine.max(axis=2, keepdims=True) - EXACT_DB
        assert np.abs(mine - other[0, : len(mine)].numpy())[is_exact].max() <= LARGEST_DB
    same_pictures = [other[:, : len(mine)] for mine, other in zip(ours, theirs, strict=True)]
    assert_same(pair.ours_on(same_pictures), pair.audio(clips))
    if not is_fused:
        assert_same(pair.ours.embed_audio(clips), pair.audio(clips))
