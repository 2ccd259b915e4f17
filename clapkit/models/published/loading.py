"""From a file, a folder or a published name to a checkpoint; the kind is recognised from the keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import RECORD_FILE, Checkpoint, load_checkpoint
from clapkit.models.hub import fetch_checkpoint
from clapkit.models.published import clapcap, hugging_face, laion, msclap
from clapkit.models.published.assembling import ADVICE
from clapkit.models.published.catalogue import PUBLISHED, facts_of
from clapkit.models.published.reading import read_weights

KEYS_OF = {  # a key that only this kind has, and what reads it
    "clap_project.prefix_const": ("clapcap", clapcap.read_clapcap),
    f"{msclap.AUDIO}fc1.weight": ("msclap-2022", msclap.read_msclap_2022),
    f"{msclap.AUDIO}{msclap.HTSAT_PREFIX}bn0.weight": ("msclap-2023", msclap.read_msclap_2023),
    f"{laion.AUDIO}patch_embed.mel_conv2d.weight": ("laion-fused", laion.read_laion),
    f"{laion.AUDIO}patch_embed.proj.weight": ("laion", laion.read_laion),
}
UNBUILDABLE = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What towers raise, each in its own way, when they are built in impossible sizes."""
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def read_file(file: Path) -> Checkpoint:
    """Read one weights file of msclap or of LAION.

    Raises:
        CheckpointError: unreadable, or of an architecture that clapkit does not know.
    """
    weights = read_weights(file)
    kind = kind_of(weights)
    if kind is None:
        raise CheckpointError(
            f"{file}: its keys, such as {next(iter(weights))}, are of another architecture; clapkit reads the files of "
            "msclap and of LAION's CLAP (HTSAT with RoBERTa), folders of transformers' ClapModel, and its own."
        )
    name, read = KEYS_OF[kind]
    try:
        checkpoint = read(weights, str(file))
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{file}: lacks {error.args[0]}, so it is not a whole {name}; get it again.") from None
    except UNBUILDABLE as error:
        raise CheckpointError(f"{file}: no {name} has such sizes ({_in_a_line(error)}); {ADVICE}.") from None
    checkpoint.training.update(facts_of(name, is_certain=False))
    return checkpoint


def kind_of(weights: Mapping[str, Tensor]) -> str | None:
    """The key by which a kind of checkpoint is recognised."""
    return next((key for key in KEYS_OF if key in weights), None)


def read_folder(folder: Path) -> Checkpoint:
    """Read a folder of transformers' ``ClapModel``.

    Raises:
        CheckpointError: files are missing or damaged, or it is built as clapkit builds none.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        checkpoint = hugging_face.read_hugging_face(folder)
    except CheckpointError:
        raise
    except (*UNBUILDABLE, StrictDataclassError) as error:
        raise CheckpointError(f"{folder}: no ClapModel has such settings ({_in_a_line(error)}); {ADVICE}.") from None
    is_fused = checkpoint.clap.config.audio.fused_s is not None
    checkpoint.training.update(facts_of("laion-fused" if is_fused else "laion", is_certain=False))
    return checkpoint


def read_published(name: str, *, download: bool = True) -> Checkpoint:
    """Find a published model by name, in the Hub's cache or on the Hub, and read it.

    Args:
        name: one of :data:`clapkit.models.published.catalogue.PUBLISHED`, or the Hub id of any ``ClapModel`` or of a
            checkpoint that clapkit uploaded.
        download: whether the Hub may be asked where its cache holds nothing.
    """
    known = PUBLISHED.get(name)
    place = fetch_checkpoint(known.hub_id if known else name, known.file if known else None, download=download)
    if (place / RECORD_FILE).is_file():
        return load_checkpoint(place)
    checkpoint = read_file(place) if place.is_file() else read_folder(place)
    checkpoint.training.update(facts_of(name))
    return checkpoint


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
