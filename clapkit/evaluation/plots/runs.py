"""Pictures of a training and its test: learning curves, confusion matrix, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from clapkit.evaluation.plots.canvas import ACCENT, INK, SECOND, bare, new_figure

MAX_CELLS_WITH_COUNTS = 25
"""Labels up to which a confusion matrix has room for its counts."""

PALEST = -0.15
"""Where the confusion matrix's white would lie, so that one confused clip can be told from none."""

LOSSES = {"loss": ("training", ACCENT), "val_loss": ("validation", SECOND)}
PARTS = {"contrastive": ("contrastive part", "--"), "head": ("head part", ":")}


def plot_learning_curves(history: pd.DataFrame, file: Path) -> None:
    """Draw what happened over the epochs: losses, validation accuracy if there is one, and the learning rate.

    Args:
        history: a row per epoch with ``epoch`` and any of ``loss``, ``contrastive``, ``head``, ``val_loss``,
            ``val_accuracy`` and ``learning_rate``; empty columns are not drawn.
        file: where to write; its ending chooses the format.
    """
    there = [name for name in history if history[name].notna().any()]
    panels = ["loss"]
    panels += [name for name in ("val_accuracy", "learning_rate") if name in there]
    heights = [2 if panel == "loss" else 1 for panel in panels]
    with new_figure(
        file, "Learning curves", len(panels), figsize=(8, 1.5 * sum(heights) + 0.6), height_ratios=heights, sharex=True
    ) as (_, axes):
        for panel, axis in zip(panels, axes[:, 0], strict=True):
            if panel == "loss":
                _draw_losses(axis, history, there)
            elif panel == "val_accuracy":
                _draw_curve(axis, history, panel, SECOND, ylabel="validation\naccuracy")
                axis.set_ylim(0, 1)
            else:
                _draw_curve(axis, history, panel, INK, ylabel="learning\nrate")
                axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        axes[-1, 0].set(xlabel="epoch", xlim=(0.5, history["epoch"].max() + 0.5))
        axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)


def plot_confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], title: str, file: Path) -> None:
    """Draw who is taken for whom: colour is the share of a row's clips, with counts where they fit.

    Args:
        matrix: ``(n_labels, n_labels)`` counts, a row for each truth.
        labels: names in its order.
        title: above the picture.
        file: where to write; its ending chooses the format.
    """
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_counts = len(labels) <= MAX_CELLS_WITH_COUNTS
    side = max(0.5 * len(labels), 3) if with_counts else 0.2 * len(labels)
    text_size = 9 if with_counts else 7
    with new_figure(file, title, figsize=(side + 2.6, side + 2.0)) as (figure, axes):
        axis = axes[0, 0]
        shown = axis.imshow(np.ma.masked_equal(share, 0), cmap="Blues", vmin=PALEST, vmax=1)
        places = np.arange(len(labels))
        axis.set_xticks(places, labels, rotation=90, fontsize=text_size)
        axis.set_yticks(places, labels, fontsize=text_size)
        axis.set(xlabel="predicted", ylabel="true")
        if with_counts:
            for row, column in zip(*np.nonzero(counts), strict=True):
                colour = "white" if share[row, column] > 0.6 else INK
                axis.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(shown, ax=axis, label="share of the true class", shrink=0.6, pad=0.02)
        bar.ax.set_ylim(0, 1)


def plot_per_class(
    values: Mapping[str, float], labels: Sequence[str], title: str, file: Path, *,
    std: Mapping[str, float] | None = None, xlabel: str = "recall",
) -> None:  # fmt: skip
    """Draw one figure per class as bars, best on top, with their mean as a line.

    Args:
        values: a figure in [0, 1] for each label; labels without one are left out.
        labels: names; they keep this order where values are equal.
        title: above the picture.
        file: where to write; its ending chooses the format.
        std: standard deviation over folds for each label, drawn as a whisker; None for a label tested in one fold.
        xlabel: what the figure is.
    """
    order = sorted((label for label in labels if label in values), key=lambda label: values[label], reverse=True)
    heights = np.array([values[label] for label in order])
    spread = np.array([(std or {}).get(label) or 0.0 for label in order])
    with new_figure(file, title, figsize=(7.5, 0.22 * len(order) + 1.4)) as (_, axes):
        axis = bare(axes[0, 0])
        axis.barh(order, heights, color=ACCENT, height=0.7)
        if std:
            low, high = np.minimum(spread, heights), np.minimum(spread, 1 - heights)  # no recall is beyond 0 or 1
            axis.errorbar(heights, order, xerr=(low, high), fmt="none", ecolor=INK, elinewidth=0.8, capsize=2)
        for place, (height, std_of_label) in enumerate(zip(heights, spread, strict=True)):
            text = f"{height:.2f} ± {std_of_label:.2f}" if std else f"{height:.2f}"
            axis.text(1.02, place, text, va="center", fontsize=8, color=INK)
        axis.axvline(heights.mean(), color=SECOND, linewidth=1)
        axis.set_xlabel(f"{xlabel} (line: mean {heights.mean():.2f})")
        axis.tick_params(axis="y", labelsize=8, length=0)
        axis.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6), xticks=np.arange(0, 1.01, 0.2))


def _draw_losses(axis: plt.Axes, history: pd.DataFrame, there: list[str]) -> None:
    for name, (label, colour) in LOSSES.items():
        if name in there:
            _draw_curve(axis, history, name, colour, ylabel="loss", label=label)
    if set(there) >= PARTS.keys():  # one part alone is the whole loss
        for name, (label, line) in PARTS.items():
            axis.plot(history["epoch"], history[name], line, color=ACCENT, linewidth=1, label=label)
    axis.legend(frameon=False, fontsize=8)
    axis.set_ylim(bottom=0)


def _draw_curve(axis: plt.Axes, history: pd.DataFrame, name: str, colour: str, *, ylabel: str, label: str = "") -> None:
    drawn = history[["epoch", name]].dropna()
    marker = "." if len(drawn) <= 60 else None
    bare(axis).plot(drawn["epoch"], drawn[name], color=colour, marker=marker, linewidth=1.5, label=label)
    axis.set_ylabel(ylabel)
