"""``clapkit index``, its upkeep, and ``clapkit search``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from clapkit.cli.options import (
    Checkpoint,
    Device,
    Engine,
    Flag,
    Json,
    Metadata,
    Overwrite,
    Precision,
    Strict,
    Tokenizer,
    load_model,
    named_sounds,
)
from clapkit.cli.output import note, print_json, report_bad_files, warn
from clapkit.errors import AudioError, ClapkitError

if TYPE_CHECKING:
    from clapkit.search.changes import Changes
    from clapkit.search.index import AudioIndex
    from clapkit.search.nearest import Hit

Index = Annotated[Path, Parameter(help="Folder written by clapkit index.")]
OwnCheckpoint = Annotated[str | None, Parameter(help="The checkpoint that made the index, if it has moved since.")]


def index(
    *paths: Path, output: Path, checkpoint: Checkpoint = "base", metadata: Metadata = None, overlap: float = 0.5,
    kind: Literal["exact", "hnsw", "ivfpq"] | None = None, engine: Engine = "local", strict: Strict = False,
    overwrite: Overwrite = False, device: Device = "auto", precision: Precision = "float32",
) -> None:  # fmt: skip
    """Make sounds searchable; killed, the same command goes on where it stopped.

    Args:
        paths: sounds or folders of sounds.
        output: the index folder.
        overlap: part of a window that the next one hears too.
        kind: exact, or an approximate index; chosen by size and memory when left out.
    """
    from clapkit.search.index import AudioIndex, refuse_other

    if not paths and metadata is None:
        raise ClapkitError("nothing to index; expected clapkit index PATH ... --output INDEX.")
    refuse_other(output, overwrite=overwrite)
    model = load_model(checkpoint, device, precision)
    built = AudioIndex.build(
        model, named_sounds(paths, metadata), output, strict=strict, overlap=overlap, kind=kind, engine=engine,
        overwrite=overwrite,
    )  # fmt: skip
    report_bad_files(built.bad_files, built.n_files + len(built.bad_files))
    _note_recall(built)
    print(f'{built.n_files} files in {output}; try: clapkit search "a dog barking" --index {output}')


def index_add(
    index: Index, *paths: Path, metadata: Metadata = None, engine: Engine = "local", strict: Strict = False,
    checkpoint: OwnCheckpoint = None, device: Device = "auto", precision: Precision = "float32",
) -> None:  # fmt: skip
    """Put more sounds into an index; files that it holds as they are stay so, with their columns.

    Args:
        paths: sounds or folders of sounds.
    """
    if not paths and metadata is None:
        raise ClapkitError("nothing to add; expected clapkit index-add INDEX PATH ...")
    opened = _open(index, checkpoint, device, precision)
    _report(opened, opened.add(named_sounds(paths, metadata), strict=strict, engine=engine))


def index_update(
    index: Index, *, strict: Strict = False, checkpoint: OwnCheckpoint = None, device: Device = "auto",
    precision: Precision = "float32",
) -> None:  # fmt: skip
    """Embed what is new or changed in the folders of an index, and drop what has vanished."""
    opened = _open(index, checkpoint, device, precision)
    _report(opened, opened.update(strict=strict))


def index_remove(index: Index, *paths: Path, ids: str | None = None, checkpoint: OwnCheckpoint = None) -> None:
    """Take sounds out of an index; the files stay.

    Args:
        paths: files, or folders with everything inside; index-update finds a file of an indexed folder again.
        ids: single windows, with commas.
    """
    if not paths and ids is None:
        raise ClapkitError("nothing to remove; expected clapkit index-remove INDEX PATH ... or --ids 1,2.")
    try:
        numbers = [int(part) for part in ids.split(",")] if ids else []
    except ValueError:
        raise ClapkitError(f"--ids {ids}: expected numbers such as 1,2.") from None
    opened = _open(index, checkpoint, "cpu", "float32")
    _report(opened, opened.remove(paths, numbers))


def index_merge(index: Index, *others: Path, checkpoint: OwnCheckpoint = None) -> None:
    """Put other indexes of the same model into an index, such as shards built on several machines.

    Args:
        others: index folders, which stay as they are; files that the index has already are not doubled.
    """
    from clapkit.search.index import AudioIndex

    if not others:
        raise ClapkitError("nothing to merge; expected clapkit index-merge INDEX OTHER ...")
    opened = _open(index, checkpoint, "cpu", "float32")
    _report(opened, opened.merge(*(AudioIndex.load(other, opened.model) for other in others)))


def index_info(index: Index, *, files: Flag = False, json: Json = False) -> None:
    """What an index holds and which model made it.

    Args:
        files: list its files.
    """
    from clapkit.search.changes import live_files
    from clapkit.search.store import FILE_FACTS, open_store

    store = open_store(index)
    indexed = live_files(store)
    record = {key: value for key, value in store.record.items() if key not in ("generation", "next_id", "removed")}
    document = {"index": str(index), "n_files": len(indexed), "n_windows": len(store), **record}
    if json:
        print_json(document | ({"files": indexed["path"].tolist()} if files else {}))
        return
    for name, value in document.items():
        if name != "segments":
            print(f"{name:<15} {', '.join(value) if isinstance(value, list) else value}")
    for segment in store.segments:
        facts = segment.facts
        recall = "" if facts["kind"] == "exact" else f", recall@10 {facts['recall']:.3f} when built"
        print(f"{'segment':<15} {facts['n_spans']} windows, {facts['kind']}{recall}")
    columns = [name for name in indexed if name not in FILE_FACTS]
    print(f"{'--where knows':<15} {', '.join([*columns, 'start_s', 'end_s'])}")
    if files:
        print("\n".join(indexed["path"]))


def index_verify(index: Index, *, checkpoint: OwnCheckpoint = None, n_files: int = 5) -> None:
    """Check that an index is whole, that its files are there, and that some of them still give the same vectors.

    Args:
        n_files: files that are embedded again.
    """
    from clapkit.search.verify import verify_index

    if n_files < 0:
        raise ClapkitError(f"--n-files {n_files}: expected 0 or more.")
    opened = _open(index, checkpoint, "cpu", "float32")
    problems = verify_index(opened, n_files)
    for line in problems:
        print(line)
    if problems:
        raise ClapkitError(
            f"{index}: {len(problems)} problem(s); clapkit index-update mends changed and vanished files, for "
            "anything else build it again with --overwrite."
        )
    print(f"{index}: whole; {opened.n_files} files, {len(opened)} windows")


def search(
    *query: str, index: Index, like: list[Path] | None = None, where: str | None = None,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10, offset: int = 0, per_file: Flag = False,
    extract: Path | None = None, play: Flag = False, checkpoint: OwnCheckpoint = None, json: Json = False,
    device: Device = "auto", tokenizer: Tokenizer = None,
) -> None:  # fmt: skip
    """Find the moments in sounds that words, or other sounds, describe.

    Args:
        query: words such as "a dog barking", several to be averaged, or "+dog -traffic".
        like: a sound that hits shall resemble; may be repeated, and joined with words.
        where: a condition such as "fold == 2" or "start_s < 60"; clapkit index-info names the columns.
        k: hits to show.
        offset: hits to pass over.
        per_file: only the best moment of each file.
        extract: write each found moment as a WAV file into this folder.
        play: play the found moments, best first, with a player of this machine.
    """
    from clapkit.model import load
    from clapkit.search.extract import play_hits
    from clapkit.search.index import AudioIndex, checkpoint_of

    model = load(checkpoint or checkpoint_of(index), device=device, tokenizer=tokenizer)
    opened = AudioIndex.load(index, model)
    note(f"{opened.n_files} files, checkpoint {opened.model.name}")
    hits = opened.search(list(query), k, like=like or [], where=where, offset=offset, per_file=per_file)
    written = [_extracted(hit, rank, extract) for rank, hit in enumerate(hits, start=1)]
    if json:
        shown = [
            asdict(hit) | ({"extracted": str(file)} if file else {}) for hit, file in zip(hits, written, strict=True)
        ]
        print_json({"query": query[0] if len(query) == 1 else list(query), "hits": shown})
        return
    for hit, file in zip(hits, written, strict=True):
        print(f"{hit.score:+.3f}  {hit.start_s:7.2f}-{hit.end_s:.2f} s  {hit.path}{f'  → {file}' if file else ''}")
    if not hits:
        note("nothing found; see clapkit index-info for what the index holds")
    if play:
        play_hits(hits)


def _extracted(hit: Hit, rank: int, folder: Path | None) -> Path | None:
    """The moment as a file; None where none is wanted, or where its sound is gone, which is said."""
    from clapkit.search.extract import extract_hit

    try:
        return extract_hit(hit, rank, folder) if folder else None
    except AudioError as error:
        warn(f"{error} (not extracted; clapkit index-update takes it out of the index)")
        return None


def _open(index: Path, checkpoint: str | None, device: str, precision: str) -> AudioIndex:
    from clapkit.search.index import AudioIndex, checkpoint_of

    return AudioIndex.load(index, load_model(checkpoint or checkpoint_of(index), device, precision))


def _report(opened: AudioIndex, done: Changes) -> None:
    report_bad_files(done.bad_files, opened.n_files + len(done.bad_files))
    _note_recall(opened)
    print(
        f"{done.n_added} files added, {done.n_changed} embedded again, {done.n_removed} removed; "
        f"{opened.n_files} files in {opened.folder}"
    )


def _note_recall(opened: AudioIndex) -> None:
    for segment in opened.facts["segments"]:
        if segment["kind"] != "exact":
            note(f"{segment['n_spans']} windows as {segment['kind']}: recall@10 {segment['recall']:.3f}")
