"""``clapkit zeroshot`` and ``clapkit classify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clapkit.cli.options import Checkpoint, Device, Json, Precision, Strict, Tokenizer, load_model
from clapkit.cli.output import note, print_json, print_scores, report_bad_files
from clapkit.errors import ClapkitError

if TYPE_CHECKING:
    from clapkit.model import AudioTextModel
    from clapkit.models.inference import ClipOutput

TopK = Annotated[int, Parameter(name=["--top-k", "-k"])]


def zeroshot(
    *files: Path, labels: str, checkpoint: Checkpoint = "base", template: str | None = None, json: Json = False,
    strict: Strict = False, device: Device = "auto", precision: Precision = "float32", tokenizer: Tokenizer = None,
) -> None:  # fmt: skip
    """Score sounds against labels in free words.

    Args:
        files: sounds or folders of sounds; none scores the example clip that comes with clapkit.
        labels: comma-separated labels, or @FILE with one label per line. "lion roaring: deep rumbling voice; low hoarse
            roar" asks by descriptions in place of the name, which finds sounds better that a model never heard.
        template: one prompt in place of the default ones, such as "this is a sound of {label}".
    """
    from clapkit.data.prompts import read_described_labels
    from clapkit.resources import example_clip

    described = read_described_labels(labels)
    if not files:
        files = (example_clip(),)
        note(f"no file given: scoring the example clip that comes with clapkit, a synthetic siren ({files[0].name})")
    model = load_model(checkpoint, device, precision, tokenizer)
    names, label_vectors = list(described), model.embed_labels(described, template)
    _print_results(model, files, lambda output: model.score_labels(output, names, label_vectors), json, strict)


def classify(
    *files: Path, checkpoint: Checkpoint = "base", top_k: TopK = 3, json: Json = False, strict: Strict = False,
    device: Device = "auto", precision: Precision = "float32",
) -> None:  # fmt: skip
    """Score sounds against the labels a model was trained on.

    Args:
        files: sounds or folders of sounds.
        top_k: labels to show for each sound.
    """
    if not files:
        raise ClapkitError("no file given; expected clapkit classify FILE ...")
    if top_k < 1:
        raise ClapkitError(f"--top-k {top_k}: expected at least 1.")
    model = load_model(checkpoint, device, precision)
    label_vectors = model.embed_labels(model.labels)
    _print_results(model, files, lambda output: model.score_head(output, label_vectors)[:top_k], json, strict)


def _print_results(
    model: AudioTextModel, paths: Sequence[Path], score: Callable[[ClipOutput], list], as_json: bool, strict: bool
) -> None:
    """Score every file and print; a single file that is bad is an error, bad ones among many are listed at the end."""
    from clapkit.audio.io import find_sounds
    from clapkit.search.embed import encode_files

    files = find_sounds(list(paths))
    result = encode_files(model, files, strict=strict or len(files) == 1)
    scored = [(str(file), score(output)) for file, output in result.clips]
    if as_json:
        print_json(
            {"results": [{"file": file, "scores": [asdict(each) for each in scores]} for file, scores in scored]}
        )
    else:
        for file, scores in scored:
            print_scores(file, scores)
    report_bad_files(result.bad_files, len(files))
    if not scored:
        raise ClapkitError(f"none of the {len(files)} files could be used.")
