"""Nearest vectors by inner product: exact, or first proposed by a smaller index and then ranked exactly."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from clapkit.errors import IndexMismatchError

EXACT_FILE, FAST_FILE = "vectors.faiss", "fast.faiss"
KINDS = ("exact", "hnsw", "ivfpq")
EXACT_UP_TO = 200_000
"""Vectors that are searched exactly, which then takes some 20 ms for a query."""
WANTED_RECALL = 0.95
"""Part of the ten nearest vectors that an approximate index must find; it is tuned until it does."""
HNSW_LINKS, HNSW_BUILD_EFFORT = 32, 100
EFFORTS = (16, 32, 64, 128, 256, 512)
"""HNSW: nodes looked at for a query; IVF-PQ: lists."""
CANDIDATES = 10
"""Times ``k`` vectors are proposed, and ranked exactly."""
N_TUNING_QUERIES = 500
TRAINING_VECTORS_PER_LIST = 64
PQ_ITERATIONS = 10
LEAST_FOR_PQ = 256
"""Fewer vectors cannot train a code of one byte, and are searched exactly whatever kind is asked for."""
NO_PLACE = -1
_FAISS_PLACE = re.compile(r"^Error in .* at \S+:\d+: (Error: '.*' failed: )?")
"""What FAISS says before a reason: the function and line of its source."""


@dataclass
class Vectors:
    """Unit vectors on disk or in memory.

    Attributes:
        exact: all of them, flat.
        fast: proposes candidates; None where exact search is fast enough.
        effort: of ``fast``; one of :data:`EFFORTS`.
    """

    exact: faiss.Index
    fast: faiss.Index | None = None
    effort: int = 0

    def __len__(self) -> int:
        return self.exact.ntotal

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        if self.fast is None:
            return "exact"
        return "hnsw" if isinstance(faiss.downcast_index(self.fast), faiss.IndexHNSW) else "ivfpq"

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` nearest vectors of each query, best first.

        Args:
            queries: ``(n_queries, dim)`` float32 of unit length.
            k: how many.
            allowed: ``(n_vectors,)`` bool, the only ones looked at; None for all.

        Returns:
            scores: ``(n_queries, k)`` float32 cosines, −inf where there is none.
            places: ``(n_queries, k)`` int64, −1 where there is none.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        n_allowed = len(self) if allowed is None else int(allowed.sum())
        n_found = min(k, n_allowed)
        if n_found == 0:
            shape = (len(queries), k)
            return np.full(shape, -np.inf, np.float32), np.full(shape, NO_PLACE, np.int64)
        n_proposed = n_found * CANDIDATES
        few = allowed is not None and n_allowed <= EXACT_UP_TO  # which a graph might not even reach
        if self.fast is None or few or n_proposed >= n_allowed:
            scores, places = self.exact.search(queries, n_found, params=_parameters(allowed))
        else:
            proposing = self._fast_parameters(allowed, n_proposed)
            options = faiss.IndexRefineSearchParameters(k_factor=CANDIDATES, base_index_params=proposing)
            scores, places = faiss.IndexRefine(self.fast, self.exact).search(queries, n_found, params=options)
        scores[places == NO_PLACE] = -np.inf
        np.minimum(scores, 1, out=scores)  # rounding lets a vector be nearer to itself than 1
        if n_found == k:
            return scores, places
        missing = ((0, 0), (0, k - n_found))
        return np.pad(scores, missing, constant_values=-np.inf), np.pad(places, missing, constant_values=NO_PLACE)

    def rows(self, places: np.ndarray) -> np.ndarray:
        """``(n,)`` places → ``(n, dim)`` float32."""
        return self.exact.reconstruct_batch(np.ascontiguousarray(places, dtype=np.int64))

    def all_rows(self) -> np.ndarray:
        """``(n_vectors, dim)`` float32."""
        return self.exact.reconstruct_n(0, len(self))

    def _fast_parameters(self, allowed: np.ndarray | None, n_proposed: int) -> faiss.SearchParameters:
        options = {} if allowed is None else {"sel": _selector(allowed)}
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(self.effort, n_proposed), **options)
        return faiss.SearchParametersIVF(nprobe=self.effort, **options)


def exact_vectors(vectors: np.ndarray) -> Vectors:
    """Unit vectors ``(n, dim)`` float32, searched exactly."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return Vectors(exact)


def choose_kind(n_vectors: int, dim: int, memory_bytes: float) -> str:
    """Exact for few vectors, HNSW while its links and codes fit into half of the memory, else IVF-PQ."""
    if n_vectors <= EXACT_UP_TO:
        return "exact"
    needed = n_vectors * (dim + 2 * 4 * HNSW_LINKS)
    return "hnsw" if needed < memory_bytes / 2 else "ivfpq"


def free_memory_bytes() -> float:
    """Memory that programs can still have, or 4 GiB where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 2**32


def make_fast(vectors: Vectors, kind: str) -> tuple[Vectors, float]:
    """Add an approximate index, and tune it on queries near the vectors.

    Returns:
        The vectors with it, and the recall@10 that was measured; ``exact``, or few vectors, give them back with 1.0.
    """
    dim, n = vectors.exact.d, len(vectors)
    if kind == "exact" or n < LEAST_FOR_PQ:
        return Vectors(vectors.exact), 1.0
    if kind == "hnsw":
        fast = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        fast.hnsw.efConstruction = HNSW_BUILD_EFFORT
        sample = _sample(vectors, 100_000)
    else:
        n_lists = int(min(4 * math.sqrt(n), n / TRAINING_VECTORS_PER_LIST))
        n_codes = next(size for size in (dim // 8, 8, 4, 2, 1) if size and dim % size == 0)
        fast = faiss.index_factory(dim, f"IVF{n_lists},PQ{n_codes}np", faiss.METRIC_INNER_PRODUCT)
        fast.pq.cp.niter = PQ_ITERATIONS
        sample = _sample(vectors, n_lists * TRAINING_VECTORS_PER_LIST)
    fast.train(sample)
    for start in range(0, n, EXACT_UP_TO):
        fast.add(vectors.exact.reconstruct_n(start, min(EXACT_UP_TO, n - start)))
    return _tuned(vectors.exact, fast)


def save_vectors(vectors: Vectors, folder: Path) -> None:
    """Write them into an existing folder.

    Raises:
        OSError: the disk is full.
    """
    _write(vectors.exact, folder / EXACT_FILE)
    if vectors.fast is not None:
        _write(vectors.fast, folder / FAST_FILE)


def open_vectors(folder: Path, effort: int) -> Vectors:
    """Open what :func:`save_vectors` wrote, mapped into memory rather than read.

    Raises:
        IndexMismatchError: missing or damaged.
    """
    try:
        exact = faiss.read_index(os.fspath(folder / EXACT_FILE), faiss.IO_FLAG_MMAP_IFC)
        fast = None
        if (folder / FAST_FILE).exists():
            fast = faiss.read_index(os.fspath(folder / FAST_FILE), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = _FAISS_PLACE.sub("", str(error).splitlines()[0])
        raise IndexMismatchError(f"{folder}: damaged ({reason}); build the index again.") from None
    return Vectors(exact, fast, effort)


def _tuned(exact: faiss.Index, fast: faiss.Index) -> tuple[Vectors, float]:
    """The least effort that finds :data:`WANTED_RECALL` of the ten nearest, or the largest effort."""
    generator = np.random.default_rng(0)
    queries = _sample(Vectors(exact), N_TUNING_QUERIES)
    noise = generator.standard_normal(queries.shape).astype(np.float32)
    queries = queries + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)  # a text is never one of the sounds
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    _, right = exact.search(queries, 10)
    for effort in EFFORTS:
        vectors = Vectors(exact, fast, effort)
        _, found = vectors.search(queries, 10)
        recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(right, found, strict=True)]))
        if recall >= WANTED_RECALL:
            break
    return vectors, recall


def _sample(vectors: Vectors, n_wanted: int) -> np.ndarray:
    places = np.random.default_rng(0).permutation(len(vectors))[:n_wanted]
    return vectors.rows(np.sort(places))


def _parameters(allowed: np.ndarray | None) -> faiss.SearchParameters | None:
    return None if allowed is None else faiss.SearchParameters(sel=_selector(allowed))


def _selector(allowed: np.ndarray) -> faiss.IDSelector:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _write(index: faiss.Index, file: Path) -> None:
    try:
        faiss.write_index(index, os.fspath(file))
    except RuntimeError as error:  # faiss reports a full disk as its own error
        raise OSError(str(error).splitlines()[0]) from None
