"""The nearest windows of a whole index, and the moments they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clapkit.search.events import event_around
from clapkit.search.filters import allowed_spans, columns_of
from clapkit.search.store import Segment, Store
from clapkit.search.vectors import NO_PLACE

EVENT_WINDOWS = 512
"""Neighbours on each side that are looked at for one moment."""


@dataclass(frozen=True)
class Hit:
    """One found moment of a sound.

    Attributes:
        path: the file.
        score: cosine between the query and the moment's best window, in [-1, 1].
        start_s: start of the moment in seconds.
        end_s: end of the moment in seconds.
        id: of the best window; it stays the same as long as its file does.
    """

    path: str
    score: float
    start_s: float
    end_s: float
    id: int


def allowed_masks(store: Store, where: str | None) -> list[np.ndarray | None]:
    """For each segment which windows may be found: ``(n_spans,)`` bool, or None for all."""
    masks = []
    columns = columns_of(store.segments) if where is not None else {}
    for segment in store.segments:
        alive = store.live(segment)
        holds = None if where is None else allowed_spans(segment, where, columns)
        masks.append(alive if holds is None else holds if alive is None else holds & alive)
    return masks


def nearest_windows(
    store: Store, queries: np.ndarray, k: int, masks: list[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``k`` nearest windows of each query over all segments, best first.

    Returns:
        scores: ``(n_queries, at most k)`` float32 cosines; −inf where there are no more.
        segments: ``(n_queries, at most k)`` int64 place of the segment.
        rows: ``(n_queries, at most k)`` int64 row in it.
    """
    found = [segment.vectors.search(queries, k, mask) for segment, mask in zip(store.segments, masks, strict=True)]
    scores = np.concatenate([each for each, _ in found], axis=1)
    rows = np.concatenate([each for _, each in found], axis=1)
    segments = np.repeat(np.arange(len(found)), k)[None].repeat(len(queries), axis=0)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return tuple(np.take_along_axis(each, best, axis=1) for each in (scores, segments, rows))


def moments(
    store: Store, query: np.ndarray, n_wanted: int, masks: list[np.ndarray | None], *, per_file: bool
) -> list[Hit]:
    """The best moments for one query, at most ``n_wanted``; neighbouring windows that fit are one of them."""
    n_allowed = sum(
        len(each) if mask is None else int(mask.sum()) for each, mask in zip(store.segments, masks, strict=True)
    )
    n_windows = 2 * n_wanted
    while True:
        n_windows = min(n_windows, n_allowed)
        hits = list(_moments_among(store, query, n_windows, masks, per_file))[:n_wanted]
        if len(hits) == n_wanted or n_windows == n_allowed:
            return hits
        n_windows *= 4


def _moments_among(
    store: Store, query: np.ndarray, n_windows: int, masks: list[np.ndarray | None], per_file: bool
) -> Iterator[Hit]:
    if not n_windows:
        return
    scores, segments, rows = (each[0] for each in nearest_windows(store, query[None], n_windows, masks))
    covered: list[set[int]] = [set() for _ in store.segments]
    for score, place, row in zip(scores.tolist(), segments.tolist(), rows.tolist(), strict=True):
        if row == NO_PLACE or row in covered[place]:
            continue
        segment = store.segments[place]
        span = segment.spans.rows([row]).iloc[0]
        file = segment.files.rows([int(span["file"])]).iloc[0]
        first, last, start_s, end_s = _event(segment, query, row, file, masks[place], covered[place])
        if per_file:
            first, last = int(file["first_span"]), int(file["first_span"] + file["n_spans"]) - 1
        covered[place].update(range(first, last + 1))
        yield Hit(file["path"], score, start_s, end_s, int(span["id"]))


def _event(
    segment: Segment, query: np.ndarray, row: int, file: pd.Series, mask: np.ndarray | None, covered: set[int]
) -> tuple[int, int, float, float]:
    """First and last row, start and end in seconds, of the moment around a row; it stops at windows of earlier ones."""
    low = max(int(file["first_span"]), row - EVENT_WINDOWS)
    high = min(int(file["first_span"] + file["n_spans"]), row + EVENT_WINDOWS + 1)
    spans = segment.spans.rows(np.arange(low, high))
    scores = segment.vectors.rows(np.arange(low, high)) @ query
    if mask is not None:
        scores[~mask[low:high]] = -np.inf
    scores[[each - low for each in range(low, high) if each in covered]] = -np.inf
    first, last = event_around(scores, spans["start_s"].to_numpy(), spans["end_s"].to_numpy(), row - low)
    return low + first, low + last, float(spans["start_s"].iloc[first]), float(spans["end_s"].iloc[last])
