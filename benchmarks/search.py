"""What searching through clapkit costs beside FAISS itself, what approximate search gains, and how fast an index grows.

    python benchmarks/search.py [--sizes 10000 100000 1000000] [--dim 512] [--threads 4] [--plot search.png]
    python benchmarks/search.py --build [--checkpoint base]

The first form makes clustered unit vectors (sounds of one kind lie together; on plain noise every approximate index
looks bad) and queries near some of them, builds each kind of index through clapkit, and searches batches of 64 for the
ten nearest. The second embeds made-up files through ``AudioIndex.build`` and compares with the model's own forward
passes over prepared windows. Ratios are between medians, taken in turn in one run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace

import faiss
import numpy as np
import pandas as pd
import soundfile
import torch

import clapkit
from clapkit.data.cache import cache_folder
from clapkit.models.inference import encode_windows
from clapkit.search.index import AudioIndex
from clapkit.search.parts import Part
from clapkit.search.store import create_store
from clapkit.search.vectors import CANDIDATES

BATCH, K = 64, 10
CLUSTER_SIZE = 100
SPREAD = 0.6
"""Distance of a vector from the middle of its cluster, before both are put on the sphere."""
N_ROUNDS = 6
N_FILES, RATE_HZ, SECONDS = 256, 44_100, 4


def clustered(n: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    """``(n, dim)`` float32 unit vectors in clusters of about :data:`CLUSTER_SIZE`."""
    middles = unit(generator.standard_normal((max(n // CLUSTER_SIZE, 1), dim), dtype=np.float32))
    vectors = middles[generator.integers(len(middles), size=n)]
    vectors += SPREAD / np.sqrt(dim) * generator.standard_normal((n, dim), dtype=np.float32)
    return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def seconds_in_turn(*actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action; taken in turn, and in every order, so that none finds the caches warmer."""
    times: list[list[float]] = [[] for _ in actions]
    for number in range(N_ROUNDS):
        for place in range(len(actions))[:: -1 if number % 2 else 1]:
            start = perf_counter()
            actions[place]()
            times[place].append(perf_counter() - start)
    return [median(each) for each in times]


def measure_kind(vectors: np.ndarray, queries: np.ndarray, kind: str, folder: Path) -> dict[str, float | str]:
    """Build one index through clapkit, search it, and search its FAISS index directly."""
    n, dim = vectors.shape
    model = SimpleNamespace(name="none", fingerprint={"weights": "made up"}, embed_dim=dim)
    files = pd.DataFrame({"path": [f"/{number}.wav" for number in range(n)], "size": 1, "mtime_ns": 1})
    spans = pd.DataFrame({"file": np.arange(n), "start_s": 0.0, "end_s": 1.0})
    start = perf_counter()
    store = create_store(folder, "none", model.fingerprint, dim, 1.0)
    segment, next_id = store.write_segment([Part(files, spans, vectors, {})], 0, kind)
    store.commit([segment], np.zeros(0, np.int64), next_id)
    build_s = perf_counter() - start
    start = perf_counter()
    index = AudioIndex.load(folder, model)
    open_s = perf_counter() - start
    opened = index._store.segments[0].vectors
    raw, options = opened.exact, None
    if opened.fast is not None:  # with as much effort as clapkit takes
        raw = faiss.IndexRefine(opened.fast, opened.exact)
        proposing = opened._fast_parameters(None, K * CANDIDATES)
        options = faiss.IndexRefineSearchParameters(k_factor=CANDIDATES, base_index_params=proposing)
    index.search_batch(queries, K)  # opens the tables
    clapkit_s, faiss_s = seconds_in_turn(
        lambda: index.search_batch(queries, K), lambda: raw.search(queries, K, params=options)
    )
    (exact_s,) = seconds_in_turn(lambda: opened.exact.search(queries, K))
    found = index.search_batch(queries, K)["id"].to_numpy().reshape(len(queries), K)
    right = opened.exact.search(queries, K)[1]
    recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, right, strict=True)]))
    file = segment.folder / ("vectors.faiss" if opened.fast is None else "fast.faiss")
    return {
        "vectors": n, "kind": kind, "build_s": build_s, "open_ms": 1000 * open_s, "ms": 1000 * clapkit_s / BATCH,
        "ratio": clapkit_s / faiss_s, "speed-up": exact_s / clapkit_s, "recall": recall,
        "bytes": file.stat().st_size / n,
    }  # fmt: skip


def compare_kinds(sizes: list[int], dim: int, kinds: list[str], plot: Path | None) -> None:
    """The table of all sizes and kinds, and its picture."""
    print(f"dim {dim}, batches of {BATCH}, the {K} nearest, {faiss.omp_get_max_threads()} thread(s)")
    print(f"{'vectors':>10} {'kind':<6}{'build':>9}{'open':>9}{'a query':>11}{'clapkit ÷ FAISS':>17}"
          f"{'exact ÷ it':>12}{'recall@10':>11}{'bytes a vector':>16}", flush=True)  # fmt: skip
    rows = []
    for n in sizes:
        generator = np.random.default_rng(0)
        vectors = clustered(n, dim, generator)
        near = vectors[generator.integers(n, size=BATCH)]
        queries = unit(near + 0.5 / np.sqrt(dim) * generator.standard_normal(near.shape, dtype=np.float32))
        for kind in kinds:
            with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
                row = measure_kind(vectors, queries, kind, Path(folder) / "index")
            rows.append(row)
            print(f"{n:>10} {kind:<6}{row['build_s']:>7.1f} s{row['open_ms']:>6.0f} ms{row['ms']:>8.2f} ms"
                  f"{row['ratio']:>17.2f}{row['speed-up']:>11.1f}×{row['recall']:>11.3f}{row['bytes']:>16.0f}",
                  flush=True)  # fmt: skip
    if plot:
        draw(pd.DataFrame(rows), plot)


def draw(rows: pd.DataFrame, file: Path) -> None:
    """Milliseconds of a query, and seconds of a build, over the size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, column, title in zip(axes, ("ms", "build_s"), ("one query (ms)", "building (s)"), strict=True):
        for kind, own in rows.groupby("kind"):
            axis.loglog(own["vectors"], own[column], marker="o", label=kind)
        axis.set(xlabel="vectors", title=title)
        axis.grid(True, which="both", alpha=0.3)
    axes[0].legend()
    figure.savefig(file, dpi=110)


def compare_building(checkpoint: str) -> None:
    """Files through ``AudioIndex.build`` beside prepared windows through the model."""
    model = clapkit.load(checkpoint)
    audio = model.config.audio
    print(f"{checkpoint} on {model.device}, {torch.get_num_threads()} thread(s), {N_FILES} files of {SECONDS} s")
    for what, rate, n_channels in (
        ("WAV at the model's rate", audio.sample_rate, 1), ("WAV, 44.1 kHz, stereo", RATE_HZ, 2),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "sounds"
            folder.mkdir()
            generator = np.random.default_rng(0)
            for number in range(N_FILES):
                samples = 0.1 * generator.standard_normal((rate * SECONDS, n_channels))
                soundfile.write(folder / f"{number}.wav", samples, rate)
            n_valid = audio.sample_rate * SECONDS
            prepared = [(model.load_waveform(file), n_valid) for file in folder.iterdir()]
            built, forward = seconds_in_turn(
                lambda folder=folder: AudioIndex.build(model, folder),
                lambda prepared=prepared: list(encode_windows(model.clap, prepared, model.dtype)),
            )
        print(f"  {what:<26} built {N_FILES / built:7.1f} clips/s, forward alone {N_FILES / forward:7.1f}, "
              f"ratio {forward / built:.2f}", flush=True)  # fmt: skip


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["exact", "hnsw", "ivfpq"])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--build", action="store_true", help="measure the building of an index instead")
    parser.add_argument("--checkpoint", default="base")
    options = parser.parse_args()
    if options.threads:
        faiss.omp_set_num_threads(options.threads)
        torch.set_num_threads(options.threads)
    if options.build:
        compare_building(options.checkpoint)
    else:
        compare_kinds(options.sizes, options.dim, options.kinds, options.plot)


if __name__ == "__main__":
    main()
