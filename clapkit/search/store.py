"""The folder of an index: unchanging segments, and one small record that says which of them count.

Every change writes new files first and replaces ``index.json`` last, in one step: a kill at any moment leaves the index
as it was or as it should become. What no record names any more is swept away by the next change.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from clapkit.errors import IndexMismatchError, StorageError
from clapkit.search.parts import FILE_COLUMNS, Part
from clapkit.search.tables import Table, write_table
from clapkit.search.vectors import (
    Vectors,
    choose_kind,
    exact_vectors,
    free_memory_bytes,
    make_fast,
    open_vectors,
    save_vectors,
)
from clapkit.storage import disk_problem

FORMAT_VERSION = 2
RECORD_FILE, LOCK_FILE = "index.json", "lock"
SEGMENTS_FOLDER, BUILDING_FOLDER = "segments", "building"
SPANS_FILE, FILES_FILE = "spans.parquet", "files.parquet"
SPAN_COLUMNS = ["id", "file", "start_s", "end_s"]
FILE_FACTS = [*FILE_COLUMNS[1:], "first_span", "n_spans"]
"""What the index notes of each file beside its path; all other columns are the user's."""
_NEEDED = ("checkpoint", "fingerprint", "embed_dim", "hop_s", "next_id", "segments", "removed", "generation")


@dataclass
class Segment:
    """Some spans of an index; never changed once written.

    Attributes:
        folder: where it lies.
        facts: ``name``, ``n_spans``, ``n_files``, ``kind``, ``effort``, ``recall``.
    """

    folder: Path
    facts: dict[str, Any]

    def __len__(self) -> int:
        return self.facts["n_spans"]

    @cached_property
    def spans(self) -> Table:
        """A row per vector: ``id``, ``file`` (row of ``files``), ``start_s``, ``end_s``."""
        return Table(self.folder / SPANS_FILE)

    @cached_property
    def files(self) -> Table:
        """A row per file: ``path``, ``size``, ``mtime_ns``, ``first_span``, ``n_spans``, and columns of the user's."""
        return Table(self.folder / FILES_FILE)

    @cached_property
    def vectors(self) -> Vectors:
        """In the order of ``spans``."""
        return open_vectors(self.folder, self.facts["effort"])

    @cached_property
    def ids(self) -> np.ndarray:
        """``(n_spans,)`` int64, ascending."""
        return self.spans.whole(["id"])["id"].to_numpy()


@dataclass
class Store:
    """An index folder that is open.

    Attributes:
        folder: where it lies.
        record: what ``index.json`` says.
        segments: those that count.
        removed: ``(n,)`` int64 ids that no longer count, ascending.
        written: when and as which file its ``index.json`` was written; None where there is none.
    """

    folder: Path
    record: dict[str, Any]
    segments: list[Segment] = field(default_factory=list)
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    written: tuple[int, int] | None = None
    _alive: dict[str, np.ndarray | None] = field(default_factory=dict, repr=False)  # of each segment

    def __len__(self) -> int:
        return sum(map(len, self.segments)) - len(self.removed)

    @property
    def n_files(self) -> int:
        """Files with a window that counts; tables are read only where some were removed."""
        n_files = 0
        for segment in self.segments:
            alive = self.live(segment)
            n_files += (
                segment.facts["n_files"] if alive is None else segment.spans.whole(["file"])["file"][alive].nunique()
            )
        return n_files

    def live(self, segment: Segment) -> np.ndarray | None:
        """``(n_spans,)`` bool of the spans that count; None when all do."""
        if not len(self.removed):
            return None
        if segment.folder.name not in self._alive:
            alive = ~np.isin(segment.ids, self.removed, assume_unique=True)
            self._alive[segment.folder.name] = None if alive.all() else alive
        return self._alive[segment.folder.name]

    def changed_elsewhere(self) -> bool:
        """Whether the folder holds another record than the one that was read or written here."""
        return _written(self.folder) not in (self.written, None)

    def commit(self, segments: list[Segment], removed: np.ndarray, next_id: int, **facts: Any) -> None:
        """Make these segments and removals the index, in one step, and sweep what they replace."""
        generation = self.record["generation"] + 1
        name = f"removed-{generation}.npy" if len(removed) else None
        if name:
            np.save(self.folder / name, np.sort(removed))
        self.record = self.record | facts | {
            "generation": generation, "next_id": next_id, "removed": name,
            "segments": [each.facts for each in segments],
        }  # fmt: skip
        write_record(self.folder, self.record)
        self.written = _written(self.folder)
        self.segments, self.removed, self._alive = segments, np.sort(removed), {}
        self.sweep()

    def sweep(self) -> None:
        """Remove segments and lists that the record does not name."""
        named = {facts["name"] for facts in self.record["segments"]}
        for folder in (self.folder / SEGMENTS_FOLDER).glob("*"):
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)
        for file in self.folder.glob("removed-*.npy"):
            if file.name != self.record["removed"]:
                file.unlink(missing_ok=True)

    def write_segment(self, parts: Iterable[Part], next_id: int, kind: str | None = None) -> tuple[Segment, int]:
        """Write a new segment, which counts once it is committed.

        Args:
            parts: files, spans and vectors; files may have columns more, and spans their ``id``.
            next_id: the first id for spans that have none.
            kind: of :data:`clapkit.search.vectors.KINDS`; None chooses by size and memory.

        Returns:
            The segment and the next free id.
        """
        all_files, all_spans, all_vectors, n_files = [], [], [], 0
        for part in parts:
            all_files.append(part.files)
            all_spans.append(part.spans.assign(file=part.spans["file"] + n_files))
            all_vectors.append(part.vectors)
            n_files += len(part.files)
        spans = pd.concat(all_spans, ignore_index=True)
        if "id" not in spans:
            spans["id"] = np.arange(next_id, next_id + len(spans))
            next_id += len(spans)
        files = pd.concat(all_files, ignore_index=True)
        counts = np.bincount(spans["file"], minlength=len(files))
        files = files.assign(first_span=np.cumsum(counts) - counts, n_spans=counts)
        vectors = exact_vectors(np.concatenate(all_vectors))
        chosen = kind or choose_kind(len(vectors), self.record["embed_dim"], free_memory_bytes())
        vectors, recall = make_fast(vectors, chosen)
        (self.folder / SEGMENTS_FOLDER).mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="", dir=self.folder / SEGMENTS_FOLDER))  # a name never used before
        folder.chmod(0o755)
        write_table(spans[SPAN_COLUMNS], folder / SPANS_FILE)
        write_table(files, folder / FILES_FILE)
        save_vectors(vectors, folder)
        facts = {
            "name": folder.name, "n_spans": len(spans), "n_files": n_files, "kind": vectors.kind,
            "effort": vectors.effort, "recall": round(recall, 4),
        }  # fmt: skip
        return Segment(folder, facts), next_id

    def read_segment(self, segment: Segment) -> Part:
        """The files, spans (with their ``id``) and vectors of a segment that count."""
        spans, files, alive = segment.spans.whole(), segment.files.whole(), self.live(segment)
        rows = np.arange(len(spans)) if alive is None else np.flatnonzero(alive)
        spans = spans.iloc[rows]
        kept, places = np.unique(spans["file"], return_inverse=True)
        files = files.iloc[kept].drop(columns=["first_span", "n_spans"]).reset_index(drop=True)
        spans = spans.assign(file=places).reset_index(drop=True)
        return Part(files, spans, segment.vectors.rows(rows), {})


def create_store(folder: Path, checkpoint: str, fingerprint: dict[str, str], embed_dim: int, hop_s: float) -> Store:
    """An index without spans; it takes the place of one that is there when it is committed."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        generation = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["generation"]
    except (OSError, ValueError, KeyError, TypeError):
        generation = 0
    record = {
        "format_version": FORMAT_VERSION, "checkpoint": checkpoint, "fingerprint": fingerprint, "embed_dim": embed_dim,
        "hop_s": hop_s, "generation": generation, "next_id": 0, "removed": None, "segments": [], "roots": [],
    }  # fmt: skip
    return Store(folder, record)


def open_store(folder: Path) -> Store:
    """Open an index folder; only its record is read.

    Raises:
        IndexMismatchError: not an index, of another version, or damaged.
    """
    while True:
        written = _written(folder)  # before it is read, so that a change meanwhile is noticed
        try:
            return _opened(folder, written)
        except IndexMismatchError:
            if _written(folder) == written:
                raise


def _opened(folder: Path, written: tuple[int, int] | None) -> Store:
    record = read_record(folder)
    segments = [Segment(folder / SEGMENTS_FOLDER / facts["name"], facts) for facts in record["segments"]]
    store = Store(folder, record, segments, written=written)
    if record["removed"]:
        try:
            store.removed = np.load(folder / record["removed"])
        except (OSError, ValueError):
            raise IndexMismatchError(f"{folder / record['removed']}: damaged; build the index again.") from None
    for segment in segments:
        if not len(segment.spans) == len(segment.vectors) == len(segment):
            raise IndexMismatchError(
                f"{segment.folder}: {len(segment.vectors)} vectors but {len(segment.spans)} spans; "
                "build the index again."
            )
    return store


def read_record(folder: Path) -> dict[str, Any]:
    """What ``index.json`` says."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMismatchError(
            f"{folder}: is not an index; make one with clapkit index PATH --output {folder}."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        record = None
    version = record.get("format_version") if isinstance(record, dict) else None
    if version == FORMAT_VERSION and all(name in record for name in _NEEDED):
        return record
    problem = "damaged"
    if version not in (None, FORMAT_VERSION):
        problem = f"format version {version}, this clapkit reads version {FORMAT_VERSION}"
    raise IndexMismatchError(f"{folder / RECORD_FILE}: {problem}; build the index again.")


def _written(folder: Path) -> tuple[int, int] | None:
    try:
        state = (folder / RECORD_FILE).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace ``index.json`` in one step."""
    unfinished = folder / f".{RECORD_FILE}"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / RECORD_FILE)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the index meanwhile.

    Raises:
        StorageError: another one is changing it, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK_FILE, timeout=0):
            yield
    except Timeout:
        raise StorageError(f"{folder}: another clapkit is changing this index; wait until it is done.") from None
    except Exception as error:
        if reason := disk_problem(error):
            raise StorageError(
                f"{folder}: could not be written ({reason}); nothing saved before was touched."
            ) from None
        raise
