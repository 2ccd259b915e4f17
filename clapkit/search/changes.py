"""How an index comes to be and changes: build, add, remove, update, merge; killed at any moment, nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from clapkit.audio.io import find_sounds
from clapkit.errors import AudioError, IndexMismatchError
from clapkit.model import AudioTextModel
from clapkit.search.building import embed_in_parts, only_files, require_windows
from clapkit.search.metadata import ROOTS
from clapkit.search.parts import FILE_COLUMNS, Part, file_table, is_utf8
from clapkit.search.store import BUILDING_FOLDER, FILE_FACTS, SPAN_COLUMNS, Store
from clapkit.search.tables import check_columns

MOST_SEGMENTS = 8
"""More small ones are written as one."""
MOST_REMOVED = 0.2
"""Part of the spans that may be removed before the index is written anew without them."""
OWN_COLUMNS = {*SPAN_COLUMNS, *FILE_FACTS, "vector", "query", "score"}
"""What tables of an index hold beside the user's columns."""

Sounds = str | Path | Sequence[str | Path] | pd.DataFrame
"""A file or folder, several, or a table with ``path`` and columns of the user's."""


@dataclass
class Changes:
    """What a change did.

    Attributes:
        n_added: files that are new in the index.
        n_changed: files that were embedded again because they changed.
        n_removed: files that are no longer in it.
        bad_files: one line for each file that was skipped.
    """

    n_added: int = 0
    n_changed: int = 0
    n_removed: int = 0
    bad_files: list[str] = field(default_factory=list)


def list_sounds(sounds: Sounds) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Their file table with the user's columns, the files and folders that were named, and a line for each bad name.

    Raises:
        AudioError: nothing is named, the only path does not exist, a folder holds no sound, or the table has no
            ``path`` or a column that the index uses itself.
    """
    if not isinstance(sounds, pd.DataFrame):
        named = [Path(sounds)] if isinstance(sounds, (str, Path)) else [Path(path) for path in sounds]
        if not named:
            raise AudioError("nothing to index; expected at least one file or folder.")
        files, bad_files = _table_of(find_sounds(named))
        return files, [str(path.resolve()) for path in named if is_utf8(path.resolve())], bad_files
    roots = list(sounds.attrs.get(ROOTS, ()))
    sounds = sounds.rename(columns=str)
    if "path" not in sounds or sounds.empty:
        raise AudioError(f"the table has no rows with a path; found columns {', '.join(map(str, sounds.columns))}.")
    if taken := OWN_COLUMNS & set(sounds.columns):
        raise AudioError(f"the table's column '{min(taken)}' has a name that the index uses; rename it.")
    if not all(isinstance(path, (str, Path)) for path in sounds["path"]):
        raise AudioError("the table has a row without a path; fill the column, or leave the row out.")
    files, bad_files = _table_of([Path(path) for path in sounds["path"]])
    own = sounds.assign(path=[str(Path(path).resolve()) for path in sounds["path"]]).drop_duplicates("path")
    check_columns(own.drop(columns="path"))
    return files.merge(own, on="path"), roots, bad_files


def build(
    store: Store, model: AudioTextModel, sounds: Sounds, *, strict: bool, kind: str | None, engine: str
) -> Changes:
    """Make these sounds the whole index.

    Raises:
        AudioError: no file was usable, or a bad file when strict.
    """
    files, roots, bad_names = list_sounds(sounds)
    parts, bad_files = _embedded(store, model, files, bad_names, strict=strict, engine=engine)
    _require_windows(store, parts, bad_files)
    segment, next_id = store.write_segment(parts, store.record["next_id"], kind)
    store.commit([segment], np.zeros(0, np.int64), next_id, roots=roots)
    _forget_building(store)
    return Changes(n_added=segment.facts["n_files"], bad_files=bad_files)


def add(store: Store, model: AudioTextModel, sounds: Sounds, *, strict: bool, engine: str) -> Changes:
    """Embed what is new or changed among these sounds; what is there already stays.

    Raises:
        AudioError: no file was usable, or a bad file when strict.
    """
    files, roots, bad_names = list_sounds(sounds)
    kept = [root for root in roots if root not in store.record["roots"]]
    roots = [*store.record["roots"], *kept]
    return _replace(store, model, files, set(), bad_names, strict=strict, engine=engine, roots=roots)


def update(store: Store, model: AudioTextModel, *, strict: bool) -> Changes:
    """Look again at what the index was made of: embed new and changed files, drop vanished ones.

    What lies in a folder that cannot be read now stays as it is.

    Raises:
        AudioError: a whole folder is gone, or a bad file when strict.
    """
    indexed = live_files(store)
    for root in store.record["roots"]:
        n_inside = sum(Path(root) in Path(path).parents for path in indexed["path"])
        if n_inside and not Path(root).exists():
            raise AudioError(
                f"{root}: is gone, with {n_inside} files of the index; mount it again, or take it out: clapkit "
                f"index-remove {store.folder} {root}"
            )
    inside = [path for root in store.record["roots"] if Path(root).exists() for path in _sounds_in(Path(root))]
    unreadable = [path for path in inside if path.is_dir()]
    out_of_sight = {path for path in indexed["path"] if any(folder in Path(path).parents for folder in unreadable)}
    present = [Path(path) for path in indexed["path"] if path not in out_of_sight and Path(path).exists()]
    files, bad_names = _table_of([*inside, *present])
    vanished = set(indexed["path"]) - set(files["path"]) - out_of_sight
    own = [name for name in indexed if name not in OWN_COLUMNS]
    return _replace(store, model, files.merge(indexed[own], "left", on="path"), vanished, bad_names, strict=strict)


def remove(store: Store, paths: Sequence[str | Path] = (), ids: Sequence[int] = ()) -> Changes:
    """Take files, or single windows, out of the index.

    Raises:
        IndexMismatchError: one of them is not in it.
    """
    indexed = live_files(store)
    named = {str(Path(path).resolve()) for path in paths}
    inside = {path for path in indexed["path"] if path in named or any(str(up) in named for up in Path(path).parents)}
    for path in named:
        if path not in inside and not any(Path(path) in Path(each).parents for each in inside):
            raise IndexMismatchError(f"{path}: is not in the index; see clapkit index-info {store.folder} --files.")
    all_ids = np.concatenate([segment.ids for segment in store.segments])
    wanted = np.asarray(list(ids), dtype=np.int64)
    if missing := set(wanted.tolist()) - set(np.setdiff1d(all_ids, store.removed).tolist()):
        raise IndexMismatchError(f"id {min(missing)}: is not in the index.")
    removed = np.union1d(store.removed, np.union1d(wanted, _ids_of(store, inside)))
    roots = [root for root in store.record["roots"] if root not in named]
    store.commit(store.segments, removed, store.record["next_id"], roots=roots)
    _tidy(store)
    return Changes(n_removed=len(indexed) - len(live_files(store)))


def merge(store: Store, others: Sequence[Store]) -> Changes:
    """Put other indexes of the same model into this one; files that it has already are not doubled.

    Raises:
        IndexMismatchError: another model, preprocessing or overlap made one of them.
    """
    parts, known = [], set(live_files(store)["path"])
    all_files = pd.concat([live_files(each) for each in (store, *others)])
    check_columns(all_files.drop(columns=[*FILE_FACTS, "path"], errors="ignore"))
    for other in others:
        for name in ("fingerprint", "hop_s"):
            if other.record[name] != store.record[name]:
                raise IndexMismatchError(
                    f"{other.folder}: has {name} {other.record[name]}, {store.folder} has {store.record[name]}; "
                    "build both with the same model and overlap."
                )
        for segment in other.segments:
            whole = other.read_segment(segment)
            part = only_files(whole, set(whole.files["path"]) - known)
            known |= set(part.files["path"])
            parts.append(Part(part.files, part.spans.drop(columns="id"), part.vectors, {}))
    parts = [part for part in parts if len(part.spans)]
    if parts:
        segment, next_id = store.write_segment(parts, store.record["next_id"])
        roots = dict.fromkeys([*store.record["roots"], *(root for each in others for root in each.record["roots"])])
        store.commit([*store.segments, segment], store.removed, next_id, roots=list(roots))
    _tidy(store)
    return Changes(n_added=sum(len(part.files) for part in parts))


def compact(store: Store) -> None:
    """Write the index anew as one segment, without what was removed; ids stay."""
    parts = [store.read_segment(segment) for segment in store.segments]
    segment, next_id = store.write_segment(parts, store.record["next_id"])
    store.commit([segment], np.zeros(0, np.int64), next_id)


def live_files(store: Store) -> pd.DataFrame:
    """A row for each file with a window that counts."""
    tables = []
    for segment in store.segments:
        files, alive = segment.files.whole(), store.live(segment)
        if alive is None:
            tables.append(files[files["n_spans"] > 0])
        else:
            counted = segment.spans.whole(["file"])["file"].to_numpy()[alive]
            tables.append(files.iloc[np.unique(counted)])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=FILE_COLUMNS)


def _replace(
    store: Store, model: AudioTextModel, files: pd.DataFrame, vanished: set[str], bad_names: list[str], *,
    strict: bool, engine: str = "local", roots: list[str] | None = None,
) -> Changes:  # fmt: skip
    """Embed files that the index does not hold as they are, and drop what they replace, in one step."""
    indexed = live_files(store)
    check_columns(pd.concat([indexed, files]).drop(columns=[*FILE_FACTS, "path"], errors="ignore"))
    known = indexed[FILE_COLUMNS].assign(known=True)
    same = files[FILE_COLUMNS].merge(known, "left", on=FILE_COLUMNS)["known"].notna()
    new = files[~same.to_numpy()].reset_index(drop=True)
    changed = set(new["path"]) & set(indexed["path"])
    segments, next_id, bad_files, used = store.segments, store.record["next_id"], bad_names, set()
    if len(new):
        parts, bad_files = _embedded(store, model, new, bad_names, strict=strict, engine=engine)
        if not same.any() and (roots is not None or not len(indexed)):  # nothing that was asked for would be there
            _require_windows(store, parts, bad_files)
        used = {path for part in parts for path in part.files["path"]}
        if any(len(part.spans) for part in parts):
            segment, next_id = store.write_segment(parts, next_id)
            segments = [*segments, segment]
    removed = np.union1d(store.removed, _ids_of(store, changed | vanished))
    store.commit(segments, removed, next_id, roots=store.record["roots"] if roots is None else roots)
    _forget_building(store)
    _tidy(store)
    lost = len(vanished) + len(changed - used)
    return Changes(len(used - changed), len(changed & used), lost, bad_files)


def _embedded(
    store: Store, model: AudioTextModel, files: pd.DataFrame, bad_names: list[str], *, strict: bool, engine: str,
) -> tuple[list[Part], list[str]]:  # fmt: skip
    """Embed files in the index's folder, where a killed attempt left what it had."""
    if strict and bad_names:
        raise AudioError(bad_names[0])
    folder = store.folder / BUILDING_FOLDER
    parts, bad_files = embed_in_parts(model, files, store.record["hop_s"], folder, strict=strict, engine=engine)
    return parts, [*bad_names, *bad_files]


def _ids_of(store: Store, paths: set[str]) -> np.ndarray:
    """Ids of all windows of files."""
    found = [np.zeros(0, np.int64)]
    for segment in store.segments if paths else []:
        rows = np.flatnonzero(segment.files.whole(["path"])["path"].isin(paths))
        found.append(segment.ids[np.isin(segment.spans.whole(["file"])["file"], rows)])
    return np.concatenate(found)


def _table_of(found: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """The file table of sounds, and a line for each whose name cannot be written into it."""
    bad_names = [f"{str(path)!r}: its name is not UTF-8; rename it." for path in found if not is_utf8(path)]
    return file_table([path for path in found if is_utf8(path)]), bad_names


def _sounds_in(root: Path) -> list[Path]:
    try:
        return find_sounds([root])
    except AudioError:  # an empty folder now
        return []


def _tidy(store: Store) -> None:
    total = sum(map(len, store.segments))
    if len(store) and (len(store.segments) > MOST_SEGMENTS or len(store.removed) > MOST_REMOVED * total):
        compact(store)


def _require_windows(store: Store, parts: list[Part], bad_files: list[str]) -> None:
    try:
        require_windows(parts, bad_files)
    except AudioError:
        _forget_building(store)
        raise


def _forget_building(store: Store) -> None:
    shutil.rmtree(store.folder / BUILDING_FOLDER, ignore_errors=True)
