"""What all pictures share: colours, size, and how they reach the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from clapkit.errors import ClapkitError

INK, ACCENT, SECOND = "#333333", "#2a78a8", "#c8702a"
DPI = 120


@contextmanager
def new_figure(file: Path, title: str, n_rows: int = 1, n_columns: int = 1, **options: Any) -> Iterator[tuple]:
    """Yield a figure and its ``(n_rows, n_columns)`` axes, and write it when the block succeeds.

    Args:
        file: where to write; its ending chooses the format.
        title: above the picture, taken literally.
        n_rows: of axes.
        n_columns: of axes.
        options: for :func:`matplotlib.pyplot.subplots`, such as ``figsize`` in inches.

    Raises:
        ClapkitError: the file's ending is not a picture format.
    """
    plt.rcParams["text.parse_math"] = False  # a dollar sign in a file's name is a dollar sign
    figure, axes = plt.subplots(n_rows, n_columns, squeeze=False, layout="constrained", **options)
    try:
        figure.suptitle(title, color=INK)
        yield figure, axes
        figure.savefig(file, dpi=DPI)
    except ValueError:
        known = figure.canvas.get_supported_filetypes()
        if file.suffix.removeprefix(".") in known:
            raise
        raise ClapkitError(
            f"{file}: '{file.suffix}' is no picture format; use one of {', '.join(sorted(known))}."
        ) from None
    finally:
        plt.close(figure)


def bare(axis: plt.Axes) -> plt.Axes:
    """The axis without the upper and the right line."""
    axis.spines[["top", "right"]].set_visible(False)
    return axis
