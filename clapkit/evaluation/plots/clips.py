"""Pictures of sounds: one clip, and clips before and after augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.image import AxesImage

from clapkit.config import AudioConfig
from clapkit.evaluation.plots.canvas import ACCENT, INK, bare, new_figure

RANGE_DB = 80
"""Levels further below the loudest are drawn black."""
TICK_SPACING = 0.07
"""Smallest distance of two frequencies on the axis, as a part of its height."""


def plot_clip(
    waveform: np.ndarray, log_mel_db: np.ndarray, audio: AudioConfig, title: str, file: Path,
    scores: Sequence[tuple[str, float]] = (),
) -> None:  # fmt: skip
    """Draw a clip: waveform, log-mel picture with axes in Hz and seconds, and optional scores.

    Args:
        waveform: ``(n_samples,)`` in [-1, 1] at the config's rate.
        log_mel_db: ``(n_mels, n_frames)`` in dB.
        audio: rate, hop and frequency range.
        title: above the picture.
        file: where to write; its ending chooses the format.
        scores: ``(label, score)`` best first, drawn as bars.

    Raises:
        ClapkitError: the file's ending is not a picture format.
    """
    duration_s = len(waveform) / audio.sample_rate
    n_rows = 3 if scores else 2
    heights = [1, 2, 0.2 * len(scores) + 0.2][:n_rows]
    size = (9, 1.9 * sum(heights))
    with new_figure(file, title, n_rows, figsize=size, height_ratios=heights) as (figure, axes):
        _draw_waveform(axes[0, 0], waveform, duration_s)
        shown = _draw_log_mel(axes[1, 0], log_mel_db, audio, duration_s, _range_db([log_mel_db]))
        axes[1, 0].set(xlabel="time (s)", ylabel="frequency (Hz)")
        figure.colorbar(shown, ax=axes[1, 0], label="dB", pad=0.01)
        if scores:
            _draw_scores(axes[2, 0], scores)


def plot_augmentations(
    samples: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], audio: AudioConfig, file: Path
) -> None:
    """Draw clips as they are and after each augmentation: a row per clip, a column per step, one scale for all.

    Args:
        samples: ``(title, steps)`` per clip; its steps ``(name, log_mel_db)`` with ``(n_mels, n_frames)`` in dB.
        audio: rate, hop and frequency range.
        file: where to write; its ending chooses the format.

    Raises:
        ClapkitError: the file's ending is not a picture format.
    """
    n_columns = max(len(steps) for _, steps in samples)
    size = (2.6 * n_columns + 1.4, 2.0 * len(samples) + 0.7)
    title = "Training clips before and after each augmentation"
    with new_figure(file, title, len(samples), n_columns, figsize=size) as (figure, axes):
        for row, (name, steps) in zip(axes, samples, strict=True):
            limits = _range_db([log_mel_db for _, log_mel_db in steps])
            for axis, (step, log_mel_db) in zip(row, steps, strict=False):
                duration_s = log_mel_db.shape[1] * audio.hop_length / audio.sample_rate
                shown = _draw_log_mel(axis, log_mel_db, audio, duration_s, limits)
                axis.set_title(step, fontsize=9, color=INK)
                axis.tick_params(labelsize=7)
            for axis in row[len(steps) :]:
                axis.set_visible(False)
            for axis in row[1:]:
                axis.set_yticklabels([])
            row[0].set_ylabel(f"{_shortened(name)}\nHz", fontsize=8)
            bar = figure.colorbar(shown, ax=row, pad=0.01)
            bar.set_label("dB", fontsize=8)
            bar.ax.tick_params(labelsize=7)
        for axis in axes[-1]:
            axis.set_xlabel("time (s)", fontsize=8)


def _range_db(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    top = max(float(picture.max()) for picture in pictures)
    return max(top - RANGE_DB, min(float(picture.min()) for picture in pictures)), top


def _shortened(name: str, length: int = 28) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _draw_waveform(axis: plt.Axes, waveform: np.ndarray, duration_s: float) -> None:
    axis.plot(np.linspace(0, duration_s, len(waveform)), waveform, linewidth=0.5, color=ACCENT)
    axis.set(xlim=(0, duration_s), ylabel="amplitude", xticklabels=[])
    peak = max(float(np.abs(waveform).max()), 1e-3)
    bare(axis).set_ylim(-1.05 * peak, 1.05 * peak)


def _draw_log_mel(
    axis: plt.Axes, log_mel_db: np.ndarray, audio: AudioConfig, duration_s: float, range_db: tuple[float, float]
) -> AxesImage:
    shown = axis.imshow(
        log_mel_db, origin="lower", aspect="auto", cmap="magma", vmin=range_db[0], vmax=range_db[1],
        extent=(0, duration_s, 0, len(log_mel_db)), interpolation="nearest",
    )  # fmt: skip
    places, names = _frequency_ticks(len(log_mel_db), audio)
    axis.set(yticks=places, yticklabels=names)
    return shown


def _draw_scores(axis: plt.Axes, scores: Sequence[tuple[str, float]]) -> None:
    labels, values = [label for label, _ in scores][::-1], [score for _, score in scores][::-1]
    bars = axis.barh(labels, values, color=ACCENT)
    axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, color=INK)
    bare(axis).set(xlim=(0, 1.08), xlabel="score")


def _frequency_ticks(n_mels: int, audio: AudioConfig) -> tuple[list[float], list[str]]:
    """Round frequencies and their places on the mel axis, in bins, as far apart as their names are high."""
    from torchaudio.functional import melscale_fbanks

    f_max_hz = audio.f_max_hz or audio.sample_rate / 2
    filters = melscale_fbanks(4097, audio.f_min_hz, f_max_hz, n_mels, audio.sample_rate, None, audio.mel_scale).numpy()
    centres_hz = filters.argmax(axis=0) * audio.sample_rate / 8192
    wanted = [hz for hz in (100, 250, 500, 1000, 2000, 4000, 8000, 16000) if audio.f_min_hz < hz < f_max_hz]
    ticks: list[tuple[float, str]] = []
    for place, hz in zip(np.interp(wanted, centres_hz, np.arange(n_mels) + 0.5)[::-1], wanted[::-1], strict=True):
        if not ticks or ticks[-1][0] - place > TICK_SPACING * n_mels:
            ticks.append((float(place), f"{hz:,}"))
    return [place for place, _ in ticks], [name for _, name in ticks]
