"""Words and sounds find sound: an index that lasts, made by one model and searched with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clapkit.errors import ClapkitError, IndexMismatchError, StorageError
from clapkit.model import AudioTextModel, load
from clapkit.search import changes
from clapkit.search.changes import Changes, Sounds
from clapkit.search.embed import OVERLAP, window_hop_s
from clapkit.search.filters import columns_of
from clapkit.search.nearest import Hit, allowed_masks, moments, nearest_windows
from clapkit.search.parts import FILE_COLUMNS, part_files
from clapkit.search.queries import query_vector
from clapkit.search.store import (
    BUILDING_FOLDER,
    FILE_FACTS,
    LOCK_FILE,
    RECORD_FILE,
    SEGMENTS_FOLDER,
    Store,
    changing,
    create_store,
    open_store,
    read_record,
)
from clapkit.search.tables import Values
from clapkit.search.vectors import KINDS
from clapkit.storage import replacing_folder


class AudioIndex:
    """Window vectors of many sounds, searched by words or sounds with the model that made them.

    It always lies in a folder: a temporary one until :meth:`save`. Every change is there completely or not at all.

    Attributes:
        model: embeds sounds and queries.
        bad_files: one line for each file that the last change skipped.
    """

    def __init__(
        self, model: AudioTextModel, store: Store, temporary: tempfile.TemporaryDirectory | None = None
    ) -> None:
        self.model = model
        self.bad_files: list[str] = []
        self._store = store
        self._temporary = temporary  # vanishes with this object

    def __len__(self) -> int:
        """Windows that can be found."""
        return len(self._store)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._store.folder

    @property
    def n_files(self) -> int:
        """Files with at least one window."""
        return self._store.n_files

    @property
    def facts(self) -> dict[str, Any]:
        """What ``index.json`` says: the checkpoint with its fingerprint, and kind, size and recall of each segment."""
        return dict(self._store.record)

    @classmethod
    def build(
        cls, model: AudioTextModel, sounds: Sounds, output: str | Path | None = None, *, strict: bool = False,
        overlap: float = OVERLAP, kind: str | None = None, engine: str = "local", overwrite: bool = False,
    ) -> AudioIndex:  # fmt: skip
        """Embed files and folders; bad files are skipped and listed in ``bad_files``.

        Killed, it goes on where it stopped when it is called again with the same output.

        Args:
            model: from :func:`clapkit.load`.
            sounds: a file or folder, or several; folders are searched for sounds. Or a table with ``path`` and columns
                of your own, by which hits can be filtered.
            output: the index folder; None for a temporary one.
            strict: make any bad file an error.
            overlap: part of a window that the next one hears too, from 0 to 0.9.
            kind: ``exact``, ``hnsw`` or ``ivfpq``; None chooses by size and memory.
            engine: ``local``, or ``ray`` for a cluster, see :func:`clapkit.search.engines.embed_on_ray`.
            overwrite: replace an index that is there; it can be searched until the new one is complete.

        Raises:
            AudioError: a path does not exist, a folder holds no sound, no file was usable, or a bad file when strict.
            StorageError: ``output`` exists and ``overwrite`` is off, or it is something else.
        """
        if kind is not None and kind not in KINDS:
            raise ClapkitError(f"kind '{kind}': unknown; expected one of {', '.join(KINDS)}.")
        hop_s = window_hop_s(model, overlap)
        temporary = tempfile.TemporaryDirectory(prefix="clapkit-index-") if output is None else None
        folder = Path(output if temporary is None else temporary.name)
        if temporary is None:
            refuse_other(folder, overwrite=overwrite)
        existed, holds_lock = folder.exists(), False
        try:
            with changing(folder):
                holds_lock = True
                store = create_store(folder, model.origin, model.fingerprint, model.embed_dim, hop_s)
                index = cls(model, store, temporary)
                index._note(changes.build(store, model, sounds, strict=strict, kind=kind, engine=engine))
        finally:
            came_to_nothing = not (folder / RECORD_FILE).exists() and not part_files(folder / BUILDING_FOLDER)
            if holds_lock and not existed and came_to_nothing:
                shutil.rmtree(folder, ignore_errors=True)
        return index

    @classmethod
    def load(cls, folder: str | Path, model: AudioTextModel | None = None) -> AudioIndex:
        """Open an index with the model that made it; vectors and tables stay on disk until they are needed.

        Args:
            folder: of the index.
            model: the model that made it; None loads the checkpoint that the index names.

        Raises:
            IndexMismatchError: damaged, of another version, or made by another model or preprocessing.
            CheckpointError: the checkpoint that the index names is gone.
        """
        store = open_store(Path(folder))
        model = model or load(store.record["checkpoint"])
        _refuse_other_model(store, model)
        return cls(model, store)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Copy the index into a folder; later changes of this one do not reach the copy.

        Raises:
            StorageError: the folder exists and ``overwrite`` is off, or the disk is full.
        """
        with replacing_folder(Path(folder), RECORD_FILE, overwrite=overwrite) as partial:
            left_out = shutil.ignore_patterns(LOCK_FILE, BUILDING_FOLDER)
            shutil.copytree(self.folder, partial, ignore=left_out, dirs_exist_ok=True)

    def add(self, sounds: Sounds, *, strict: bool = False, engine: str = "local") -> Changes:
        """Embed what is new or changed among these sounds; arguments and errors as in :meth:`build`."""
        with self._changing():
            return self._note(changes.add(self._store, self.model, sounds, strict=strict, engine=engine))

    def update(self, *, strict: bool = False) -> Changes:
        """Look again at the folders it was made of: embed new and changed files, drop vanished ones."""
        with self._changing():
            return self._note(changes.update(self._store, self.model, strict=strict))

    def remove(self, paths: Sequence[str | Path] = (), ids: Sequence[int] = ()) -> Changes:
        """Take out files, everything in folders, or single windows.

        Raises:
            IndexMismatchError: one of them is not in the index.
        """
        with self._changing():
            named = [paths] if isinstance(paths, (str, Path)) else paths
            return self._note(changes.remove(self._store, named, ids))

    def merge(self, *others: AudioIndex | str | Path) -> Changes:
        """Put other indexes of the same model into this one; files that it has already are not doubled.

        Args:
            others: open indexes, or their folders.

        Raises:
            IndexMismatchError: another model, preprocessing or overlap made one of them.
        """
        with self._changing():
            folders = [other.folder if isinstance(other, AudioIndex) else Path(other) for other in others]
            return self._note(changes.merge(self._store, [open_store(folder) for folder in folders]))

    def search(
        self, query: str | Sequence[str] | np.ndarray = (), k: int = 10, *, like: Sequence[Any] = (),
        where: str | None = None, offset: int = 0, per_file: bool = False,
    ) -> list[Hit]:  # fmt: skip
        """Find moments, best first; neighbouring windows that fit about as well are one moment.

        Args:
            query: words such as ``a dog barking``; ``+dog -traffic``; several texts, which are averaged; or a vector
                ``(embed_dim,)``.
            k: how many hits; fewer come back from a smaller index.
            like: sounds that hits shall resemble: paths, bytes or arrays.
            where: a condition such as ``fold == 2``, see :func:`clapkit.search.filters.allowed_spans`.
            offset: hits that are passed over, for paging.
            per_file: only the best moment of each file.

        Raises:
            ClapkitError: ``k`` or ``offset`` make no sense, nothing is looked for, or the condition cannot be read.
        """
        _check_count("k", k, 1)
        _check_count("offset", offset, 0)
        like = [like] if isinstance(like, (str, Path, bytes, np.ndarray)) else like
        vector = _unit(query) if isinstance(query, np.ndarray) else query_vector(self.model, query, like)
        store = self._as_it_is_now()
        masks = allowed_masks(store, where)
        return moments(store, vector, offset + k, masks, per_file=per_file)[offset:]

    def search_batch(
        self, queries: Sequence[str] | np.ndarray, k: int = 10, *, where: str | None = None
    ) -> pd.DataFrame:
        """Find the nearest windows of many queries at once, as they are, not merged into moments.

        Args:
            queries: texts, or vectors ``(n_queries, embed_dim)``.
            k: windows for each query.
            where: as in :meth:`search`.

        Returns:
            A row per hit, best first in each query: ``query`` (place in ``queries``), ``score``, ``id``, ``path``,
            ``start_s``, ``end_s``, and the user's columns.

        Raises:
            ClapkitError: ``k`` makes no sense, a query is empty, or the condition cannot be read.
        """
        _check_count("k", k, 1)
        store, vectors = self._as_it_is_now(), np.zeros((0, self.model.embed_dim), np.float32)
        if isinstance(queries, np.ndarray):
            vectors = _unit(queries)
        elif len(queries):
            texts = [queries] if isinstance(queries, str) else queries
            vectors = np.stack([query_vector(self.model, each) for each in texts])
        scores, segments, rows = nearest_windows(store, vectors, k, allowed_masks(store, where))
        asked, _ = np.nonzero(rows >= 0)
        scores, segments, rows = scores[rows >= 0], segments[rows >= 0], rows[rows >= 0]
        described = self._described(segments, rows)
        return pd.DataFrame({"query": asked, "score": scores, **described}, copy=False)

    def to_pandas(self) -> pd.DataFrame:
        """A row per window: ``id``, ``path``, ``start_s``, ``end_s``, the user's columns, and ``vector``."""
        tables, store = [], self._as_it_is_now()
        for segment in store.segments:
            part = store.read_segment(segment)
            files = part.files.drop(columns=FILE_COLUMNS[1:]).iloc[part.spans["file"]].reset_index(drop=True)
            tables.append(pd.concat([part.spans.drop(columns="file"), files], axis=1).assign(vector=list(part.vectors)))
        return pd.concat(tables, ignore_index=True)

    def _described(self, segments: np.ndarray, rows: np.ndarray) -> dict[str, Values]:
        """Columns of what is known of windows: ``id``, ``start_s``, ``end_s``, ``path`` and the user's."""
        columns, order = [], []
        for place in np.unique(segments):
            segment = self._store.segments[place]
            order.append(np.flatnonzero(segments == place))
            spans = segment.spans.columns(rows[order[-1]])
            own = [name for name in segment.files.names if name not in FILE_FACTS]
            columns.append(spans | segment.files.columns(spans.pop("file"), own))
        if not columns:
            empty = {"id": "int64", "start_s": "float", "end_s": "float", "path": "str"}
            empty |= columns_of(self._store.segments)
            return {name: pd.array([], dtype=kind) for name, kind in empty.items()}
        if len(columns) == 1:
            return columns[0]
        table = pd.concat([pd.DataFrame(each, copy=False) for each in columns], ignore_index=True)
        table = table.take(np.argsort(np.concatenate(order)))
        return {name: table[name].array for name in table}

    def _as_it_is_now(self) -> Store:
        """The store, read again if another process, or another object of this one, has changed it."""
        if self._store.changed_elsewhere():
            store = open_store(self.folder)
            _refuse_other_model(store, self.model)
            self._store = store
        return self._store

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the folder's lock; another process may have changed it since it was opened, so it is read again."""
        with changing(self.folder):
            self._store = open_store(self.folder)
            yield

    def _note(self, done: Changes) -> Changes:
        self.bad_files = done.bad_files
        return done


def _refuse_other_model(store: Store, model: AudioTextModel) -> None:
    for part, made_with in store.record["fingerprint"].items():
        if made_with != model.fingerprint[part]:
            raise IndexMismatchError(
                f"{store.folder}: was built with {part} {made_with} ({store.record['checkpoint']}), but {model.name} "
                f"has {model.fingerprint[part]}; give that checkpoint, or build the index again."
            )


def checkpoint_of(folder: str | Path) -> str:
    """Name or folder of the checkpoint that made an index."""
    return str(read_record(Path(folder))["checkpoint"])


def refuse_other(folder: Path, *, overwrite: bool) -> None:
    """Refuse to build where an index is, unless told to replace it, or where something else is.

    Raises:
        StorageError: says what is there.
    """
    if (folder / RECORD_FILE).exists():
        if not overwrite:
            raise StorageError(
                f"{folder}: holds an index already; add --overwrite to replace it, or change it with index-add, "
                "index-update or index-remove."
            )
    elif folder.exists() and not (folder.is_dir() and _is_unfinished(folder)):
        raise StorageError(
            f"{folder}: exists already and is no index; choose another --output (--overwrite replaces indexes)."
        )


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder holds what a killed build left."""
    names = {each.name for each in folder.iterdir()}
    own = {LOCK_FILE, BUILDING_FOLDER, SEGMENTS_FOLDER, f".{RECORD_FILE}"}
    return names == {LOCK_FILE} or (BUILDING_FOLDER in names and names <= own)


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ClapkitError(f"{name}={value!r}: expected a whole number, at least {least}.")


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
