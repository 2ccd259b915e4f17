"""Whether an index is whole and still says what its files sound like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clapkit.search.changes import live_files
from clapkit.search.embed import embed_part
from clapkit.search.parts import FILE_COLUMNS, file_table
from clapkit.search.store import Store, open_store

if TYPE_CHECKING:
    from clapkit.search.index import AudioIndex

LENGTH_TOLERANCE = 1e-3
LEAST_COSINE = 0.999


def verify_index(index: AudioIndex, n_files: int) -> list[str]:
    """One line for each problem; none for a whole index.

    Args:
        index: to check.
        n_files: files, spread over the index, that are embedded again and compared.
    """
    store = open_store(index.folder)
    problems = _problems_of_tables(store)
    indexed = live_files(store)
    now = file_table([Path(path) for path in indexed["path"]]).set_index("path")
    for path, size, mtime_ns in indexed[FILE_COLUMNS].itertuples(index=False):
        if now.loc[path, "size"] < 0:
            problems.append(f"{path}: has vanished")
        elif (now.loc[path, "size"], now.loc[path, "mtime_ns"]) != (size, mtime_ns):
            problems.append(f"{path}: has changed since it was indexed")
    places = np.unique(np.linspace(0, len(indexed) - 1, min(n_files, len(indexed))).astype(int))
    sampled = indexed.iloc[places][FILE_COLUMNS].reset_index(drop=True)
    sampled = sampled[(now.loc[sampled["path"], "size"] >= 0).to_numpy()].reset_index(drop=True)
    return problems + _problems_of_vectors(index, sampled)


def _problems_of_tables(store: Store) -> list[str]:
    problems, ids = [], []
    for segment in store.segments:
        spans, files = segment.spans.whole(), segment.files.whole()
        ids.append(spans["id"].to_numpy())
        if not (segment.spans.is_whole() and segment.files.is_whole()):
            problems.append(f"{segment.folder}: its Arrow files are not what its Parquet files say; delete them")
        lengths = np.linalg.norm(segment.vectors.all_rows(), axis=1)
        n_damaged = int((np.abs(lengths - 1) > LENGTH_TOLERANCE).sum())
        if n_damaged:
            problems.append(f"{segment.folder}: {n_damaged} vectors are damaged")
        if len(spans) and not spans["file"].between(0, len(files) - 1).all():
            problems.append(f"{segment.folder}: windows of files that it does not know")
        if segment.vectors.fast is not None and segment.vectors.fast.ntotal != len(spans):
            problems.append(f"{segment.folder}: its approximate index holds {segment.vectors.fast.ntotal} vectors")
    all_ids = np.concatenate(ids)
    if len(np.unique(all_ids)) != len(all_ids):
        problems.append(f"{store.folder}: ids are not unique")
    return problems


def _problems_of_vectors(index: AudioIndex, files) -> list[str]:
    if files.empty:
        return []
    table = index.to_pandas()
    fresh = embed_part(index.model, files, index.facts["hop_s"])
    problems = [f"{path}: {why}" for path, why in fresh.bad_files.items()]
    for row, path in enumerate(files["path"]):
        old = table[table["path"] == path].sort_values("start_s")["vector"]
        new = fresh.vectors[(fresh.spans["file"] == row).to_numpy()]
        if path not in fresh.bad_files and (len(old) != len(new) or (np.stack(old) * new).sum(1).min() < LEAST_COSINE):
            problems.append(f"{path}: gives other vectors than the index holds")
    return problems
