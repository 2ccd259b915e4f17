"""Exact search is exact, filters are kept, and approximate indexes find what they promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clapkit.errors import IndexMismatchError
from clapkit.search import vectors as vectors_module
from clapkit.search.vectors import (
    WANTED_RECALL,
    Vectors,
    choose_kind,
    exact_vectors,
    make_fast,
    open_vectors,
    save_vectors,
)

DIM = 32


def clustered(n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, DIM))
    rows = centres[generator.integers(50, size=n)] + 0.5 * generator.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def right_places(rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :k]


def test_exact_search_ranks_by_cosine() -> None:
    rows, queries = clustered(500), clustered(7, seed=1)
    scores, places = exact_vectors(rows).search(queries, 5)
    assert np.array_equal(places, right_places(rows, queries, 5))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ rows.T, places, axis=1), atol=1e-5)


def test_more_than_there_are_gives_none_at_the_end() -> None:
    scores, places = exact_vectors(clustered(3)).search(clustered(2, seed=1), 5)
    assert (places[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()
    assert sorted(places[0, :3].tolist()) == [0, 1, 2]


@pytest.fixture(scope="module", params=["hnsw", "ivfpq"])
def fast(request: pytest.FixtureRequest) -> Vectors:
    made, recall = make_fast(exact_vectors(clustered(6_000)), request.param)
    assert made.kind == request.param
    assert recall >= WANTED_RECALL
    return made


def test_an_approximate_index_finds_what_it_promises(fast: Vectors) -> None:
    queries = clustered(200, seed=5)
    _, places = fast.search(queries, 10)
    right = right_places(clustered(6_000), queries, 10)
    found = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), right.tolist(), strict=True)])
    assert found >= 0.9


def test_scores_of_an_approximate_index_are_exact_cosines(fast: Vectors) -> None:
    rows, queries = clustered(6_000), clustered(20, seed=5)
    scores, places = fast.search(queries, 10)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ rows.T, places, axis=1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("n_allowed", [0, 1, 7, 2_000])
def test_only_allowed_vectors_are_found_and_all_that_are_wanted(fast: Vectors, n_allowed: int) -> None:
    rows, queries = clustered(6_000), clustered(5, seed=3)
    allowed = np.zeros(6_000, dtype=bool)
    allowed[np.random.default_rng(0).permutation(6_000)[:n_allowed]] = True
    _, places = fast.search(queries, 10, allowed)
    kept = np.flatnonzero(allowed)
    right = kept[right_places(rows[kept], queries, 10)] if n_allowed else np.zeros((5, 0), int)
    assert np.array_equal(places[:, : right.shape[1]], right)
    assert (places[:, right.shape[1] :] == -1).all()


def test_a_filter_over_many_goes_through_the_approximate_index(fast: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "EXACT_UP_TO", 100)
    allowed = np.arange(6_000) % 2 == 0
    queries = clustered(50, seed=3)
    _, places = fast.search(queries, 10, allowed)
    assert (places[places >= 0] % 2 == 0).all()
    kept = np.flatnonzero(allowed)
    right = kept[right_places(clustered(6_000)[kept], queries, 10)]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places, right, strict=True)]) >= 0.85


def test_saved_vectors_come_back(fast: Vectors, tmp_path: Path) -> None:
    save_vectors(fast, tmp_path)
    opened = open_vectors(tmp_path, fast.effort)
    queries = clustered(20, seed=5)
    assert opened.kind == fast.kind
    assert np.array_equal(opened.search(queries, 10)[1], fast.search(queries, 10)[1])
    assert np.array_equal(opened.rows(np.array([5, 0])), clustered(6_000)[[5, 0]])
    assert len(opened) == len(opened.all_rows()) == 6_000


@pytest.mark.parametrize("damage", [b"", b"junk", "half"])
def test_damaged_vectors_are_refused(tmp_path: Path, damage: bytes | str) -> None:
    save_vectors(exact_vectors(clustered(10)), tmp_path)
    file = tmp_path / "vectors.faiss"
    file.write_bytes(file.read_bytes()[:100] if damage == "half" else damage)
    with pytest.raises(IndexMismatchError, match="damaged") as error:
        open_vectors(tmp_path, 0)
    assert "faiss::" not in str(error.value)


def test_the_kind_follows_from_size_and_memory() -> None:
    assert choose_kind(200_000, 384, 1e9) == "exact"
    assert choose_kind(1_000_000, 384, 16e9) == "hnsw"
    assert choose_kind(1_000_000, 384, 1e9) == "ivfpq"
