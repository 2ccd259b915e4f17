"""The original packages msclap 1.3.4 and laion-clap 1.1.7 with small text towers, for ``make_references.py``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import missing_operators  # noqa: F401 - before torchvision and transformers
import numpy as np
import torch
import torchvision
from small_tokenizers import (
    gpt2_vocabulary,
    roberta_vocabulary,
    save_bert_tokenizer,
    save_gpt2_tokenizer,
    save_roberta_tokenizer,
)
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaModel

WIDTH = 128
"""Of msclap's text towers; LAION's code knows 768 only."""
SMALL = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [2, 2, 4, 4]}
SMALL_FEATURES = 128
"""Sizes of a HTSAT that is quick to test, which neither package offers."""

FEATURES = {"HTSAT-tiny": 768, "HTSAT-base": 1024}


def write_text_models(folder: Path) -> None:
    """Write folders that the packages take for ``bert-base-uncased``, ``gpt2`` and ``roberta-base`` when run there."""
    small = {"num_hidden_layers": 2, "intermediate_size": 256}
    bert = BertConfig(hidden_size=WIDTH, num_attention_heads=WIDTH // 64, **small)
    BertModel(bert).save_pretrained(folder / "bert-base-uncased")
    save_bert_tokenizer(folder / "bert-base-uncased")
    n_words = len(gpt2_vocabulary())
    gpt2 = GPT2Config(vocab_size=n_words, n_embd=WIDTH, n_layer=2, n_head=WIDTH // 64, bos_token_id=n_words - 1,
                      eos_token_id=n_words - 1)  # fmt: skip
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "gpt2")
    save_gpt2_tokenizer(folder / "gpt2")
    roberta = RobertaConfig(vocab_size=len(roberta_vocabulary()), hidden_size=768, num_attention_heads=12,
                            max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **small)  # fmt: skip
    RobertaModel(roberta).save_pretrained(folder / "roberta-base")
    for name in ("roberta-base", "facebook/bart-base"):  # laion-clap loads BART's tokenizer too, and does not use it
        save_roberta_tokenizer(folder / name)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Both packages name their text towers, and transformers finds a folder of that name here."""
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


@contextmanager
def small_towers(tower: type) -> Iterator[None]:
    """HTSATs made meanwhile get the sizes of ``SMALL``."""
    make = tower.__init__
    tower.__init__ = lambda self, **sizes: make(self, **{**sizes, **SMALL})
    yield
    tower.__init__ = make


@contextmanager
def middle_crops() -> Iterator[None]:
    """LAION's fused model: crops from the middle of each third, and a plain bilinear picture of the whole."""
    choice, resize = np.random.choice, torchvision.transforms.Resize
    np.random.choice = lambda places: places[len(places) // 2]
    torchvision.transforms.Resize = lambda size: resize(size, antialias=False)
    yield
    np.random.choice, torchvision.transforms.Resize = choice, resize


class Msclap:
    """msclap's ``CLAPWrapper``; sounds come as arrays, and a text tower of another width is allowed.

    Args:
        version: ``2022``, ``2023`` or ``clapcap``.
        place: folder of :func:`write_text_models`.
        is_small: with a small HTSAT.
    """

    rate = 44_100

    def __init__(self, version: str, place: Path, *, is_small: bool = False) -> None:
        from msclap.CLAPWrapper import CLAPWrapper
        from msclap.models.htsat import HTSAT_Swin_Transformer

        class Wrapper(CLAPWrapper):
            def read_config_as_args(self, *args, **kwargs):
                settings = super().read_config_as_args(*args, **kwargs)
                settings.transformer_embed_dim = WIDTH
                if is_small:
                    settings.out_emb, settings.d_proj = SMALL_FEATURES, 64
                return settings

            def read_audio(self, audio_path, resample=True):
                return torch.from_numpy(audio_path)[None], self.args.sampling_rate

        torch.save({"model": {}}, place / "empty.pth")  # it does not load strictly
        with working_in(place), small_towers(HTSAT_Swin_Transformer) if is_small else nullcontext():
            self.wrapper = Wrapper(place / "empty.pth", version=version)
        self.is_captioner = version == "clapcap"
        self.model = self.wrapper.clapcap if self.is_captioner else self.wrapper.clap
        self.tower = self.model.clap if self.is_captioner else self.model.audio_encoder
        self.front_end = self.tower.base if version == "2022" else self.tower.base.htsat
        self.window_s = self.wrapper.args.duration
        if not self.is_captioner:
            self.texts = self.wrapper.get_text_embeddings

    def waveforms(self, clips: list[np.ndarray]) -> torch.Tensor:
        return self.wrapper.preprocess_audio(clips, resample=False)[:, 0]

    def mel(self, clip: np.ndarray) -> torch.Tensor:
        spectrum = self.front_end.spectrogram_extractor(self.waveforms([clip]))
        return self.front_end.logmel_extractor(spectrum)[0]

    def audio(self, clips: list[np.ndarray]) -> torch.Tensor:
        return self.tower(self.waveforms(clips))[0]

    def beginning(self, text: str) -> str:
        """As much of a text as fits; msclap itself would not cut it, and fail on a list with shorter ones."""
        tokenizer, settings = self.wrapper.tokenizer, self.wrapper.args
        n_marks = 2  # BERT's two, or the space and the end mark that are appended for GPT-2
        wanted = tokenizer.encode(text, add_special_tokens=False)[: settings.text_len - n_marks]
        parts = (text[:end] for end in range(len(text)))
        return next(part for part in parts if tokenizer.encode(part, add_special_tokens=False) == wanted)

    def captions(self, clips: list[np.ndarray], n_beams: int) -> list[str]:
        return self.wrapper.generate_caption(clips, resample=False, beam_size=n_beams)

    def caption_tokens(self, clips: list[np.ndarray], n_beams: int) -> list[str]:
        """Ids with spaces between them; msclap gives them to nobody but its tokenizer."""
        tokenizer = self.wrapper.tokenizer
        self.wrapper.tokenizer = SimpleNamespace(
            encode=tokenizer.encode, decode=lambda ids: " ".join(str(number) for number in ids)
        )
        captions = self.captions(clips, n_beams)
        self.wrapper.tokenizer = tokenizer
        return captions


class Laion:
    """laion-clap's ``CLAP_Module``.

    Args:
        is_fused: with fusion of long clips.
        tower: ``HTSAT-tiny`` or ``HTSAT-base``.
        place: folder of :func:`write_text_models`.
        is_small: with a small HTSAT.
    """

    rate = 48_000
    window_s = 10
    is_captioner = False

    def __init__(self, is_fused: bool, tower: str, place: Path, *, is_small: bool = False) -> None:
        with working_in(place):
            import laion_clap  # loads three tokenizers, and makes clap_module known
            from clap_module.factory import _MODEL_CONFIGS
            from clap_module.htsat import HTSAT_Swin_Transformer
            from laion_clap.training import data

        _MODEL_CONFIGS[tower]["embed_dim"] = SMALL_FEATURES if is_small else FEATURES[tower]
        with working_in(place), small_towers(HTSAT_Swin_Transformer) if is_small else nullcontext():
            self.module = laion_clap.CLAP_Module(is_fused, "cpu", tower)
        self.model = self.module.model.eval()
        self.is_fused = is_fused
        self.features = data.get_audio_features

    def prepared(self, clip: np.ndarray) -> dict[str, torch.Tensor]:
        truncating = "fusion" if self.is_fused else "rand_trunc"
        settings = self.module.model_cfg["audio_cfg"]
        return self.features({}, torch.from_numpy(clip), 480_000, truncating, "repeatpad", settings)

    def mel(self, clip: np.ndarray) -> torch.Tensor:
        sample = self.prepared(clip)
        if self.is_fused:
            return sample["mel_fusion"]
        tower = self.model.audio_branch
        return tower.logmel_extractor(tower.spectrogram_extractor(sample["waveform"][None]))[0]

    def audio(self, clips: list[np.ndarray]) -> torch.Tensor:
        """Without its default detour through 16 bits, which ``use_tensor`` leaves out."""
        return self.module.get_audio_embedding_from_data([torch.from_numpy(clip) for clip in clips], use_tensor=True)

    def audio_through_16_bits(self, clips: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(self.module.get_audio_embedding_from_data(clips))

    def beginning(self, text: str) -> str:
        """LAION cuts texts by itself."""
        return text

    def texts(self, texts: list[str]) -> torch.Tensor:
        return self.module.get_text_embedding(texts, use_tensor=True)
