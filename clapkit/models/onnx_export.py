"""A checkpoint as ONNX: both towers with all that stands before and behind them, checked with onnxruntime."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from clapkit.audio.windows import n_window_samples
from clapkit.config import NO_TEXT_TOWER
from clapkit.errors import ClapkitError
from clapkit.models.checkpoint import Checkpoint, audio_fingerprint, weights_fingerprint
from clapkit.models.clap import CLAP
from clapkit.models.onnx_check import TOLERANCE, TowerCheck, check_audio, check_text
from clapkit.models.onnx_graphs import AudioGraph, TextGraph
from clapkit.progress import progress_bar
from clapkit.resources import PACKAGE_DIR
from clapkit.storage import refuse_existing, replacing_folder
from clapkit.version import __version__

try:
    import onnx
    import onnxruntime
    import onnxscript
except ImportError as error:
    raise ClapkitError(
        f"ONNX needs the package {error.name}, which is not installed; run: pip install 'clapkit[onnx]'"
    ) from None

if TYPE_CHECKING:  # transformers takes seconds to import, and a model that reads no text does without
    from clapkit.models.text_encoder import TextEncoder

OPSET = 18
ABOUT_FILE, AUDIO_FILE, TEXT_FILE, TOKENIZER_FILE = "onnx.json", "audio.onnx", "text.onnx", "tokenizer.json"
README = PACKAGE_DIR / "assets" / "onnx_readme.md"


@dataclass(frozen=True)
class OnnxExport:
    """What was written.

    Attributes:
        folder: where.
        checks: one per tower, the audio tower first.
        note: what the graphs cannot do that the model can; empty for nothing.
    """

    folder: Path
    checks: list[TowerCheck]
    note: str


def export_onnx(checkpoint: Checkpoint, folder: Path, *, name: str = "", overwrite: bool = False) -> OnnxExport:
    """Write ``audio.onnx``, ``text.onnx``, the tokenizer, ``onnx.json`` and a README in one step, or nothing.

    Args:
        checkpoint: a model on the CPU; a frozen text tower is looked for as its config says.
        folder: where; its parents are made.
        name: of the checkpoint, for its page.
        overwrite: replace such a folder.

    Raises:
        ClapkitError: a tower cannot be written, or onnxruntime's vectors differ from the model's by more than 1e-4.
        StorageError: the folder exists and ``overwrite`` is off, or the disk is full.
        TextModelError: the text tower or its tokenizer is not on this machine.
    """
    refuse_existing(folder, ABOUT_FILE, overwrite=overwrite)
    clap = checkpoint.clap.eval()
    tower = _text_tower(checkpoint)
    checks = []
    with (
        progress_bar("ONNX", total=4 if tower else 2) as advance,
        replacing_folder(folder, ABOUT_FILE, overwrite=overwrite) as partial,
    ):
        advance(0, "writing the audio tower")
        _write_audio(clap, partial / AUDIO_FILE)
        advance(1, "checking the audio tower")
        checks.append(check_audio(clap, partial / AUDIO_FILE))
        if tower is not None:
            from clapkit.models.onnx_tokenizer import standalone_tokenizer

            advance(1, "writing the text tower")
            with _silence():
                standalone_tokenizer(tower).save(str(partial / TOKENIZER_FILE))
            _write_text(clap, tower, partial / TEXT_FILE)
            advance(1, "checking the text tower")
            checks.append(check_text(clap, tower, partial / TEXT_FILE))
        about = _about(checkpoint, tower, checks, name)
        (partial / ABOUT_FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        page = README.read_text(encoding="utf-8").replace("NAME", name or "a clapkit model")
        (partial / "README.md").write_text(page, encoding="utf-8")
        advance(1, "done")
    return OnnxExport(folder, checks, about["note"])


def _text_tower(checkpoint: Checkpoint) -> TextEncoder | None:
    """The tower inside the checkpoint, the frozen one beside it, or None for a model that reads no text."""
    clap = checkpoint.clap
    if clap.text_encoder is not None or clap.config.text.name == NO_TEXT_TOWER:
        return clap.text_encoder
    from clapkit.models.text_towers import load_text_encoder

    return load_text_encoder(clap.config.text, checkpoint.text_sha256).eval()


def _write_audio(clap: CLAP, file: Path) -> None:
    audio = clap.config.audio
    inputs = {"waveform": torch.randn(2, audio.n_channels, n_window_samples(audio))}
    if audio.padding == "zero":
        inputs["n_valid_samples"] = torch.full((2,), n_window_samples(audio))
    axes = {name: {0: Dim("batch")} for name in inputs}
    outputs = ["embedding"] if clap.head is None else ["embedding", "probabilities"]
    _write_graph(AudioGraph(clap).eval(), inputs, axes, outputs, file)


def _write_text(clap: CLAP, tower: TextEncoder, file: Path) -> None:
    inputs = tower.tokenize(["a dog barks", "rain"])  # two rows, one of them padded
    axes = {name: {0: Dim("batch"), 1: Dim("length", max=tower.context_length)} for name in inputs}
    _write_graph(TextGraph(tower, clap.text_projection).eval(), inputs, axes, ["embedding"], file)


def _write_graph(
    graph: nn.Module, inputs: dict[str, Tensor], axes: dict[str, Any], outputs: list[str], file: Path
) -> None:
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                graph, kwargs=inputs, dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(inputs), output_names=outputs, dynamic_shapes=axes,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ClapkitError(
            f"{file.name}: this tower cannot be written as ONNX ({reason}); nothing was written."
        ) from None
    ends = {id(value) for value in program.model.graph.outputs}
    for node in program.model.graph:
        node.metadata_props.clear()  # where each line of code lay on this machine
        for value in node.outputs:
            if value.name in {*inputs, *outputs} and id(value) not in ends:  # names must be unique
                value.name = f"inner_{value.name}"
    program.save(file)


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter talks of other packages and of its own names, transformers of texts that are cut."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _missing(checkpoint: Checkpoint) -> str:
    """What the model can do and the graphs cannot."""
    audio, notes = checkpoint.clap.config.audio, []
    if audio.fused_s is not None:
        notes.append(
            f"clapkit fuses sounds longer than {audio.window_s:g} s into one picture (up to {audio.fused_s:g} s); "
            "audio.onnx takes windows, whose vectors are averaged instead"
        )
    if checkpoint.captioner is not None:
        notes.append("the caption model is not among the graphs")
    return "; ".join(notes)


def _about(checkpoint: Checkpoint, tower: TextEncoder | None, checks: list[TowerCheck], name: str) -> dict[str, Any]:
    """All that somebody without clapkit must know to use the graphs."""
    clap, audio = checkpoint.clap, checkpoint.clap.config.audio
    text = None
    if tower is not None:
        text = {"file": TEXT_FILE, "tokenizer": TOKENIZER_FILE, "context_length": tower.context_length}
    settings = audio.model_dump(include={"sample_rate", "n_channels", "window_s", "padding"})
    return {
        "name": name,
        "embed_dim": clap.config.model.embed_dim,
        "logit_scale": float(clap.scale().detach()),
        "audio": {"file": AUDIO_FILE, **settings, "n_window_samples": n_window_samples(audio)},
        "text": text,
        "labels": checkpoint.labels if clap.head is not None else [],
        "multilabel": clap.config.model.multilabel,
        "note": _missing(checkpoint),
        "licence": checkpoint.training.get("licence"),
        "fingerprint": {"weights": weights_fingerprint(clap), "preprocessing": audio_fingerprint(audio)},
        "checks": {"tolerance": TOLERANCE, "towers": [asdict(check) for check in checks]},
        "opset": OPSET,
        "made_with": {
            "clapkit": __version__, "torch": torch.__version__, "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__, "onnxruntime": onnxruntime.__version__,
        },
    }  # fmt: skip
