"""clapkit gives the vectors and captions of the packages msclap 1.3.4 and laion-clap 1.1.7.

Both got the same filled weights in the published layout; ``references.npz`` holds what the originals answered
(``make_references.py`` says how it was made).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from filling import LONG_TEXT, REAL_CLIPS, TEXTS, sweep, synthetic_clips
from judging import assert_same, assert_same_mel, log_mel
from msclap_search import mean_log_probability, search

from clapkit.errors import ClapkitError

FULL = ["msclap-2022", "msclap-2023", "clapcap", "laion", "laion-fused", "laion-larger"]
SMALL = ["msclap-2023-small", "clapcap-small", "laion-small", "laion-fused-small"]
"""The same code with a small HTSAT."""
ALL = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL)]
every_original = pytest.mark.parametrize("original", ALL, indirect=True)
"""Each is made once, and all its tests follow."""


every_laion = pytest.mark.parametrize("original", [name for name in ALL if "laion" in str(name)], indirect=True)


@pytest.fixture
def exact(original):
    """The model hears samples as they are, as the originals did for all answers but those through 16 bits."""
    front_end = original.model.clap.log_mel
    given = front_end.config
    front_end.config = given.model_copy(update={"sixteen_bits": False})
    yield original
    front_end.config = given


def clips_of(original) -> list[np.ndarray]:
    audio = original.model.config.audio
    clips = list(synthetic_clips(audio.window_s, audio.sample_rate).values())
    return [*clips, sweep(17.0, audio.sample_rate)] if "fused" in original.name else clips


@every_original
def test_synthetic_sounds(exact):
    """Of three seconds, of exactly one window, shorter than a second, and for the fused model a long one."""
    clips = clips_of(exact)
    mel = log_mel(exact.model, clips[0])[:, ::37]
    assert_same_mel(mel, exact.answers["mel"])
    assert_same(exact.model.embed_audio(clips), exact.answers["audio"])


@every_original
def test_real_sounds(exact, real_data):
    files = [real_data / clip for clip in REAL_CLIPS]
    mel = log_mel(exact.model, exact.model.load_waveform(files[0])[0])[:, ::37]
    assert_same_mel(mel, exact.answers["mel_real"])
    assert_same(exact.model.embed_audio(files), exact.answers["audio_real"])


@every_original
def test_texts(original):
    if original.name.startswith("clapcap"):
        with pytest.raises(ClapkitError, match="no text tower"):
            original.model.embed_text(TEXTS)
        return
    assert_same(original.model.embed_text(TEXTS), original.answers["text"])
    assert_same(original.model.embed_text(LONG_TEXT), original.answers["text_long"])


@pytest.mark.parametrize(
    "original", ["laion-fused-small", pytest.param("laion-fused", marks=pytest.mark.slow)], indirect=True
)
def test_the_picture_of_a_long_sound(exact):
    picture = log_mel(exact.model, sweep(17.0, 48_000))[:, ::100]
    assert_same_mel(picture, exact.answers["mel_long"])


@every_laion
def test_laions_detour_through_16_bits(original, real_data):
    """Its API cuts sounds to 16 bits by default, towards zero, and so does clapkit with LAION's files.

    The noise of that changes quiet and empty bands by tens of dB: with these weights a vector's cosine to that of the
    exact sound is 0.87 to 0.999.
    """
    sounds = [original.model.load_waveform(real_data / clip)[0] for clip in REAL_CLIPS]
    assert_same(original.model.embed_audio(sounds), original.answers["audio_16_bits"])


@pytest.mark.parametrize("original", ["clapcap-small", pytest.param("clapcap", marks=pytest.mark.slow)], indirect=True)
def test_captions(original, real_data):
    """Greedy ones are the original's, token by token. With beams the numbers are the same, but the search is not.

    msclap ranks beams by their mean log-probability at every step, and an ended one keeps its place; transformers ranks
    running ones by their sum and fills the place. Given msclap's search, clapkit writes msclap's captions; with
    transformers' it finds ones that are at least as likely by msclap's own measure. msclap counts the space that ends
    a caption as its last token and keeps it; clapkit leaves it out.
    """
    clips = [*clips_of(original), *(real_data / clip for clip in REAL_CLIPS)]
    vectors = torch.from_numpy(original.model.embed_audio(clips))
    captioner = original.model.checkpoint.captioner
    greedy, beams = (
        [[int(number) for number in row.split()] for row in original.answers[f"tokens_{n_beams}"]] for n_beams in (1, 5)
    )
    end = captioner.end_token
    assert captioner.generate(vectors, n_beams=1) == [row[:-1] if row[-1] == end else row for row in greedy]
    assert len({tuple(row) for row in greedy}) > 1
    texts = [text.strip() for text in original.answers["captions_1"]]
    assert original.model.caption(clips[: len(texts)], n_beams=1) == texts

    step = 4 if original.name.endswith("small") else 1
    vectors, beams = vectors[::step], beams[::step]
    assert [search(captioner, vector, 5) for vector in vectors] == beams
    for vector, ours, theirs in zip(vectors, captioner.generate(vectors, n_beams=5), beams, strict=True):
        ended = ours if len(ours) == captioner.most_tokens else [*ours, end]
        least = mean_log_probability(captioner, vector, theirs) - 1e-4
        assert mean_log_probability(captioner, vector, ended) >= least
