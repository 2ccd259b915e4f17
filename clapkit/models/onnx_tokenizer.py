"""A text tower's tokenizer as one file that the package ``tokenizers`` reads alone: cuts, pads and marks included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer, processors

from clapkit.errors import TextModelError
from clapkit.models.text_encoder import MSCLAP_SUFFIX

if TYPE_CHECKING:
    from clapkit.models.text_encoder import TextEncoder

CHECK_TEXTS = (
    "rain", "a dog barks!", "the sound of a siren, far away", "Glocken läuten – 3 Mal",
    " ".join(["a train passes by while children shout and a bird sings"] * 20),
)  # fmt: skip
"""Short and long, with marks and letters of other languages; the last one is cut."""


def standalone_tokenizer(tower: TextEncoder) -> Tokenizer:
    """Give :meth:`TextEncoder.tokenize` as a tokenizer whose ``encode_batch`` needs no further settings.

    Raises:
        TextModelError: the tokenizer is not on this machine, or is of a kind that has no such file.
    """
    given = tower.tokenizer
    if getattr(given, "backend_tokenizer", None) is None:
        raise TextModelError(f"{given.name_or_path}: has no tokenizer.json; give --tokenizer FOLDER with one.")
    tokenizer = Tokenizer.from_str(given.backend_tokenizer.to_str())
    if tower.pooling in ("last", "msclap_gpt2"):
        ids = given.encode(MSCLAP_SUFFIX, add_special_tokens=False)
        marks = given.convert_ids_to_tokens(ids if tower.pooling == "msclap_gpt2" else [given.eos_token_id])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A", *marks], special_tokens=[(mark, given.convert_tokens_to_ids(mark)) for mark in marks]
        )
    tokenizer.enable_truncation(tower.context_length, direction=given.truncation_side)
    tokenizer.enable_padding(pad_id=given.pad_token_id, pad_token=given.pad_token)
    _check(tower, tokenizer)
    return tokenizer


def _check(tower: TextEncoder, tokenizer: Tokenizer) -> None:
    expected = tower.tokenize(CHECK_TEXTS)
    found = tokenizer.encode_batch(list(CHECK_TEXTS))
    same_ids = [row.ids for row in found] == expected["input_ids"].tolist()
    if not (same_ids and [row.attention_mask for row in found] == expected["attention_mask"].tolist()):
        raise TextModelError(
            f"{tower.tokenizer.name_or_path}: gives other tokens as a tokenizer.json than in transformers; give "
            "--tokenizer FOLDER with the tokenizer.json of this text tower."
        )
