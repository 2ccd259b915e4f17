"""``clapkit caption``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clapkit.cli.options import Checkpoint, Device, Json, Precision, Strict, Tokenizer, load_model
from clapkit.cli.output import note, print_json, report_bad_files
from clapkit.errors import CheckpointError, ClapkitError

if TYPE_CHECKING:
    from clapkit.model import AudioTextModel
    from clapkit.models.inference import ClipOutput

Describe = Callable[[Sequence["ClipOutput"]], list[dict[str, Any]]]
"""From encoded clips to what is printed of each."""
CAPTION_MODEL = "clapcap"


def caption(
    *files: Path, checkpoint: Checkpoint = CAPTION_MODEL, beams: int = 5, descriptions: str | None = None,
    json: Json = False, strict: Strict = False, device: Device = "auto", precision: Precision = "float32",
    tokenizer: Tokenizer = None,
) -> None:  # fmt: skip
    """Describe each sound in a sentence.

    A checkpoint with a caption model writes it. Of another one the nearest of the descriptions is shown, or of the
    texts that the checkpoint knows.

    Args:
        files: sounds or folders of sounds.
        beams: sentences followed at once by the search; 1 takes the likeliest word each time.
        descriptions: choose the nearest of these in place of writing: comma-separated, or @FILE with one per line.
    """
    from clapkit.audio.io import find_sounds
    from clapkit.data.prompts import read_labels
    from clapkit.search.embed import encode_files

    if not files:
        raise ClapkitError("no file given; expected clapkit caption FILE ...")
    if beams < 1:
        raise ClapkitError(f"--beams {beams}: expected at least 1.")
    given = None if descriptions is None else read_labels(descriptions, "--descriptions")
    model = _load(checkpoint, device, precision, tokenizer)
    writes = given is None and model.checkpoint.captioner is not None
    if given is None and not writes:
        n_known = len(model.known_descriptions())
        note(f"{checkpoint}: has no caption model, so the nearest of the {n_known} texts that it knows is shown")
    describe = _writer(model, beams) if writes else _chooser(model, given)
    found = find_sounds(list(files))
    result = encode_files(model, found, strict=strict or len(found) == 1)
    sentences = describe([output for _, output in result.clips])
    results = [{"file": str(file), **each} for (file, _), each in zip(result.clips, sentences, strict=True)]
    _print(results, json)
    report_bad_files(result.bad_files, len(found))
    if not results:
        raise ClapkitError(f"none of the {len(found)} files could be used.")


def _load(checkpoint: str, device: str, precision: str, tokenizer: Path | None) -> AudioTextModel:
    try:
        return load_model(checkpoint, device, precision, tokenizer)
    except CheckpointError as error:
        if checkpoint != CAPTION_MODEL:
            raise
        raise CheckpointError(f"{error} Or add --checkpoint base, for the nearest text that it knows.") from None


def _writer(model: AudioTextModel, beams: int) -> Describe:
    _ = model.checkpoint.captioner.tokenizer  # a missing one is found now, before thousands of sounds are embedded

    def write(outputs: Sequence[ClipOutput]) -> list[dict[str, Any]]:
        sentences = model.write_captions([output.embedding for output in outputs], beams)
        return [{"caption": sentence, "written": True} for sentence in sentences]

    return write


def _chooser(model: AudioTextModel, given: list[str] | None) -> Describe:
    texts = model.known_descriptions() if given is None else given
    vectors = model.embed_text(texts)

    def choose(outputs: Sequence[ClipOutput]) -> list[dict[str, Any]]:
        best = [model.score_labels(output, texts, vectors)[0] for output in outputs]
        return [{"caption": each.label, "written": False, "similarity": each.similarity} for each in best]

    return choose


def _print(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"results": results})
        return
    for each in results:
        print(each["file"])
        behind = "" if each["written"] else f"  similarity {each['similarity']:+.2f}"
        print(f"  {each['caption']}{behind}")
