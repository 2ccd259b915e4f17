"""From windows to moments: neighbouring windows that fit a query about as well are one event."""

from __future__ import annotations

import numpy as np

MERGE_DROP = 0.1
"""Cosine that a neighbour may be below an event's best window and still belong to it."""


def event_around(scores: np.ndarray, starts_s: np.ndarray, ends_s: np.ndarray, best: int) -> tuple[int, int]:
    """The first and last window of the event around a window.

    Args:
        scores: ``(n_windows,)`` cosines of one file's windows, in order of time.
        starts_s: ``(n_windows,)`` seconds.
        ends_s: ``(n_windows,)`` seconds.
        best: the window that was found.
    """
    fits = scores >= scores[best] - MERGE_DROP
    first = last = best
    while first > 0 and fits[first - 1] and ends_s[first - 1] >= starts_s[first]:
        first -= 1
    while last + 1 < len(scores) and fits[last + 1] and ends_s[last] >= starts_s[last + 1]:
        last += 1
    return first, last
