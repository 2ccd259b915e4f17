"""Pictures are written for every sound there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from clapkit.audio.picture import log_mel_decibels
from clapkit.config import AudioConfig
from clapkit.errors import ClapkitError
from clapkit.evaluation.plots import (
    plot_augmentations,
    plot_clip,
    plot_confusion_matrix,
    plot_learning_curves,
    plot_per_class,
)
from clapkit.evaluation.plots.canvas import DPI

AUDIO = AudioConfig(sample_rate=16_000, n_mels=32)
SCORES = [("dog barking", 0.7), ("siren", 0.2), ("drilling", 0.1)]


def _noise(n_samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((1, n_samples))).astype(np.float32)


def _picture(
    waveform: np.ndarray, file: Path, audio: AudioConfig = AUDIO, title: str = "a clip", scores=()
) -> np.ndarray:
    """Draw, and read the picture back: ``(height, width, 4)``."""
    plot_clip(waveform[0], log_mel_decibels(waveform, audio), audio, title, file, scores)
    return imread(file)


def test_a_png_is_written_and_shows_something(tmp_path: Path) -> None:
    picture = _picture(_noise(16_000), tmp_path / "clip.png")
    height, width, _ = picture.shape
    assert width == 9 * 120
    assert height > 300
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 100


def test_scores_add_a_panel(tmp_path: Path) -> None:
    without = _picture(_noise(16_000), tmp_path / "without.png")
    with_scores = _picture(_noise(16_000), tmp_path / "with.png", scores=SCORES)
    assert with_scores.shape[0] > without.shape[0] + 50


@pytest.mark.parametrize("n_samples", [1, 2, 10, 500, 16_000])
def test_very_short_clips_are_drawn(n_samples: int, tmp_path: Path) -> None:
    assert _picture(_noise(n_samples), tmp_path / "clip.png").size > 0


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-30])
def test_silence_and_constant_level_are_drawn(level: float, tmp_path: Path) -> None:
    waveform = np.full((1, 16_000), level, dtype=np.float32)
    assert _picture(waveform, tmp_path / "clip.png", scores=SCORES).size > 0


def test_two_sounds_look_different(tmp_path: Path) -> None:
    assert not np.array_equal(
        _picture(_noise(16_000), tmp_path / "a.png"), _picture(_noise(16_000) * 0.1, tmp_path / "b.png")
    )


@pytest.mark.parametrize(
    "audio",
    [
        AudioConfig(),
        AudioConfig(sample_rate=8_000, n_mels=8, f_min_hz=3_000),
        AudioConfig(f_max_hz=99, mel_scale="htk", n_mels=8, n_fft=8192),
    ],
    ids=["default", "narrow", "low"],
)
def test_every_frequency_range_has_its_axis(audio: AudioConfig, tmp_path: Path) -> None:
    assert _picture(_noise(audio.sample_rate), tmp_path / "clip.png", audio).size > 0


# Matplotlib takes what stands between two dollar signs for a formula.
@pytest.mark.parametrize(
    "text", ["a_b%c#d & <e>.wav", "back\\slash.wav", "costs 5$^$ or 7.wav"], ids=["signs", "backslash", "dollars"]
)
def test_titles_and_labels_are_taken_literally(text: str, tmp_path: Path) -> None:
    assert _picture(_noise(16_000), tmp_path / "clip.png", title=text, scores=[(text, 0.5)]).size > 0


def test_no_figure_stays_open(tmp_path: Path) -> None:
    from matplotlib import pyplot

    open_before = pyplot.get_fignums()
    _picture(_noise(16_000), tmp_path / "clip.png")
    assert pyplot.get_fignums() == open_before


def _is_drawn(file: Path, width: int, height: int) -> None:
    """The picture has this size in pixels and is not one colour."""
    picture = imread(file)
    assert picture.shape[:2] == (pytest.approx(height, abs=2), pytest.approx(width, abs=2))
    grey = picture[..., :3].mean(axis=2)
    assert len(np.unique(grey)) > 20
    assert (grey < 0.9).mean() > 0.001


@pytest.mark.parametrize(
    ("columns", "n_panels_high"),
    [
        (["loss"], 2),
        (["loss", "learning_rate"], 3),
        (["loss", "contrastive", "head", "val_loss", "val_accuracy", "learning_rate"], 4),
    ],
)
@pytest.mark.parametrize("n_epochs", [1, 100])
def test_learning_curves(columns: list[str], n_panels_high: int, n_epochs: int, tmp_path: Path) -> None:
    epoch = np.arange(1, n_epochs + 1)
    history = pd.DataFrame({"epoch": epoch} | dict.fromkeys(columns, 1 / epoch))
    plot_learning_curves(history, tmp_path / "curves.png")
    _is_drawn(tmp_path / "curves.png", 8 * DPI, round((1.5 * n_panels_high + 0.6) * DPI))


def test_a_column_without_values_is_no_curve(tmp_path: Path) -> None:
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]})
    plot_learning_curves(history, tmp_path / "without.png")
    plot_learning_curves(history.assign(val_loss=np.nan, val_accuracy=np.nan), tmp_path / "empty.png")
    assert np.array_equal(imread(tmp_path / "without.png"), imread(tmp_path / "empty.png"))


@pytest.mark.parametrize("n_labels", [1, 10, 50])
def test_confusion_matrix(n_labels: int, tmp_path: Path) -> None:
    matrix = np.diag(np.arange(n_labels)) + np.eye(n_labels, k=1, dtype=int)  # the first label may have no clips
    labels = [f"label {number}" for number in range(n_labels)]
    plot_confusion_matrix(matrix.tolist(), labels, "who is taken for whom", tmp_path / "matrix.png")
    side = max(0.5 * n_labels, 3) if n_labels < 50 else 10
    _is_drawn(tmp_path / "matrix.png", round((side + 2.6) * DPI), round((side + 2.0) * DPI))


@pytest.mark.parametrize(("n_labels", "std"), [(1, 0.3), (10, None), (10, 0.3), (50, 0.3)])
def test_per_class_bars(n_labels: int, std: float | None, tmp_path: Path) -> None:
    labels = [f"label {number}" for number in range(n_labels)]
    values = dict(zip(labels, np.linspace(0, 1, n_labels), strict=True))
    spread = None if std is None else dict.fromkeys(labels, std) | {labels[0]: None}
    plot_per_class(values, [*labels, "without clips"], "recall", tmp_path / "bars.png", std=spread)
    _is_drawn(tmp_path / "bars.png", round(7.5 * DPI), round((0.22 * n_labels + 1.4) * DPI))


def test_augmentations_in_a_grid(tmp_path: Path) -> None:
    original = log_mel_decibels(_noise(16_000), AUDIO)
    samples = [
        ("dog barking", [("as it is", original), ("time shift", np.roll(original, 20, axis=1))]),
        ("a very long title of a clip that nobody would type", [("as it is", original[:, :30])]),
    ]
    plot_augmentations(samples, AUDIO, tmp_path / "grid.png")
    _is_drawn(tmp_path / "grid.png", round((2.6 * 2 + 1.4) * DPI), round((2.0 * 2 + 0.7) * DPI))


def test_an_unknown_picture_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClapkitError, match=r"'\.xyz' is no picture format; use one of .*png"):
        plot_confusion_matrix([[1]], ["siren"], "title", tmp_path / "matrix.xyz")
