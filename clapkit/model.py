"""What ``clapkit.load()`` returns: classify sounds, score them against words, embed sounds and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapkit.audio.io import load_waveform
from clapkit.config import NO_TEXT_TOWER, Config
from clapkit.data.prompts import check_labels, prompts_for
from clapkit.device import choose_device, choose_dtype
from clapkit.errors import ClapkitError, TextModelError
from clapkit.models.card import model_card
from clapkit.models.checkpoint import Checkpoint, audio_fingerprint, save_checkpoint
from clapkit.models.hub import push_folder
from clapkit.models.inference import ClipOutput, encode_clips
from clapkit.models.opening import open_checkpoint, origin_of
from clapkit.models.weights import weights_fingerprint

DEFAULT_CHECKPOINT = "base"
BATCH_TEXTS = 64
BATCH_CAPTIONS = 8


@dataclass(frozen=True)
class Score:
    """How well one label fits a sound.

    Attributes:
        label: the label as given.
        score: probability among the labels compared, in [0, 1].
        similarity: cosine between the sound's vector and the label's, in [-1, 1].
    """

    label: str
    score: float
    similarity: float


class AudioTextModel:
    """Sounds and words in one space. Get one from :func:`load`.

    Wherever a sound is expected, it may be a path, the bytes of a file, or a NumPy array or tensor of shape
    ``(n_samples,)`` or ``(n_channels, n_samples)`` with floats in [-1, 1]; ``sample_rate`` gives an array's rate in Hz
    (the model's own when left out). A list of sounds gives a list of results.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, name: str = "", dtype: torch.dtype = torch.float32
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.name = name
        self.dtype = dtype
        self.clap = checkpoint.clap.to(device).eval()

    @property
    def config(self) -> Config:
        """All settings the model was made with."""
        return self.clap.config

    @property
    def labels(self) -> list[str]:
        """The labels the model was trained on, in the head's order."""
        return list(self.checkpoint.labels)

    @property
    def embed_dim(self) -> int:
        """Size of a vector."""
        return self.config.model.embed_dim

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Short hashes of the weights and of the preprocessing; an index is bound to both."""
        return {"weights": weights_fingerprint(self.clap), "preprocessing": audio_fingerprint(self.config.audio)}

    def classify(self, wav: Any, *, top_k: int | None = None, sample_rate: int | None = None) -> Any:
        """Score a sound against the labels of the linear head.

        Args:
            wav: a sound, or a list of sounds.
            top_k: how many labels to return; None for all.
            sample_rate: rate of arrays in Hz.

        Returns:
            ``list[Score]`` best first; a list of such lists for a list of sounds.

        Raises:
            AudioError: a sound that cannot be used.
            ClapkitError: the model has no head; use :meth:`zeroshot`.
        """
        label_vectors = self.embed_labels(self.labels)
        outputs = self.encode(_waveforms(wav, self.config, sample_rate))
        scores = [self.score_head(output, label_vectors)[:top_k] for output in outputs]
        return scores if isinstance(wav, list) else scores[0]

    def zeroshot(
        self, wav: Any, labels: Sequence[str] | Mapping[str, Sequence[str]], *, template: str | None = None,
        sample_rate: int | None = None,
    ) -> Any:  # fmt: skip
        """Score a sound against labels in free words.

        Args:
            wav: a sound, or a list of sounds.
            labels: what to compare, each different; a mapping gives each label the descriptions of its sound that
                stand for it, or none, and then its prompts do.
            template: one prompt with ``{label}`` in place of the default ones.
            sample_rate: rate of arrays in Hz.

        Returns:
            ``list[Score]`` best first, softmax over ``labels``; a list of such lists for a list of sounds.

        Raises:
            AudioError: a sound that cannot be used.
            ClapkitError: no labels, an empty or doubled one, or a template without ``{label}``.
            TextModelError: a label is new to the model and its text tower is not on this machine.
        """
        if isinstance(labels, str):
            raise ClapkitError(f"labels '{labels}': expected a list of labels, such as ['{labels}'].")
        names = check_labels(list(labels))
        label_vectors = self.embed_labels(labels, template)
        outputs = self.encode(_waveforms(wav, self.config, sample_rate))
        scores = [self.score_labels(output, names, label_vectors) for output in outputs]
        return scores if isinstance(wav, list) else scores[0]

    def caption(self, wav: Any, *, n_beams: int = 5, sample_rate: int | None = None) -> Any:
        """Describe a sound in a sentence.

        Args:
            wav: a sound, or a list of sounds.
            n_beams: sentences followed at once by the search; 1 takes the likeliest word each time.
            sample_rate: rate of arrays in Hz.

        Returns:
            A ``str``; a list of them for a list of sounds.

        Raises:
            AudioError: a sound that cannot be used.
            ClapkitError: the model has no caption model; use :meth:`describe`.
            TextModelError: its tokenizer is not on this machine.
        """
        outputs = self.encode(_waveforms(wav, self.config, sample_rate))
        captions = self.write_captions([output.embedding for output in outputs], n_beams)
        return captions if isinstance(wav, list) else captions[0]

    def describe(
        self, wav: Any, descriptions: Sequence[str] | None = None, *, top_k: int = 1, sample_rate: int | None = None
    ) -> Any:
        """Find the nearest of many descriptions, the caption of a model that cannot write.

        Args:
            wav: a sound, or a list of sounds.
            descriptions: what to choose from; None for the texts that the checkpoint knows.
            top_k: how many to return.
            sample_rate: rate of arrays in Hz.

        Returns:
            ``list[Score]`` best first; a list of such lists for a list of sounds.

        Raises:
            AudioError: a sound that cannot be used.
            ClapkitError: no descriptions.
            TextModelError: a description is new to the model and its text tower is not on this machine.
        """
        texts = self.known_descriptions() if descriptions is None else check_labels(list(descriptions))
        vectors = self.embed_text(texts)
        outputs = self.encode(_waveforms(wav, self.config, sample_rate))
        scores = [self.score_labels(output, texts, vectors)[:top_k] for output in outputs]
        return scores if isinstance(wav, list) else scores[0]

    def embed_audio(self, wavs: Any, *, sample_rate: int | None = None) -> np.ndarray:
        """Embed sounds; long ones are cut into windows whose vectors are averaged.

        Args:
            wavs: a list of sounds, or one.
            sample_rate: rate of arrays in Hz.

        Returns:
            ``(n_sounds, embed_dim)`` float32 of unit length, the same for a sound alone or among others.
        """
        outputs = self.encode(_waveforms(wavs, self.config, sample_rate))
        return np.array([output.embedding for output in outputs], dtype=np.float32).reshape(-1, self.embed_dim)

    def embed_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Embed texts: ``(n_texts, embed_dim)`` float32 of unit length.

        Raises:
            TextModelError: a text is new to the model and its text tower is not on this machine.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        known = self.checkpoint.texts
        new = [text for text in dict.fromkeys(texts) if text not in known]
        fresh = dict(zip(new, self._encode_new_texts(new), strict=True)) if new else {}
        vectors = [fresh[text] if text in fresh else known[text] for text in texts]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.embed_dim)

    def embed_labels(
        self, labels: Sequence[str] | Mapping[str, Sequence[str]], template: str | None = None
    ) -> np.ndarray:
        """Embed labels as the mean of their texts: ``(n_labels, embed_dim)`` float32 of unit length.

        Args:
            labels: each stands for its prompts; in a mapping, for its descriptions where it has some.
            template: one prompt with ``{label}`` in place of the default ones; descriptions stay as they are.
        """
        described = labels if isinstance(labels, Mapping) else {}
        groups = [described.get(label) or prompts_for(label, template) for label in labels]
        texts = [[group] if isinstance(group, str) else list(group) for group in groups]
        vectors = self.embed_text([text for group in texts for text in group])
        ends = np.cumsum([len(group) for group in texts])
        means = [part.mean(axis=0) for part in np.split(vectors, ends[:-1])] if texts else []
        means = np.array(means, dtype=np.float32).reshape(-1, self.embed_dim)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def score_head(self, output: ClipOutput, label_vectors: np.ndarray) -> list[Score]:
        """Rank the head's labels for one encoded clip; ``label_vectors`` is ``(n_labels, embed_dim)``."""
        if output.probabilities is None:
            raise ClapkitError(f"{self.name}: has no linear head; use zeroshot with labels of your own.")
        return _ranked(self.labels, output.probabilities, label_vectors @ output.embedding)

    def score_labels(self, output: ClipOutput, labels: Sequence[str], label_vectors: np.ndarray) -> list[Score]:
        """Rank free labels for one encoded clip: softmax of their cosines at the learned temperature."""
        if not self.config.train.contrastive_weight:
            raise ClapkitError(f"{self.name}: was trained without words (train.contrastive_weight=0); use classify.")
        similarity = label_vectors @ output.embedding
        logits = similarity * float(self.clap.scale().detach())
        exponents = np.exp(logits - logits.max())
        return _ranked(labels, exponents / exponents.sum(), similarity)

    def write_captions(self, embeddings: Sequence[np.ndarray], n_beams: int = 5) -> list[str]:
        """A sentence for each encoded clip's vector ``(embed_dim,)``."""
        captioner = self.checkpoint.captioner
        if captioner is None:
            raise ClapkitError(
                f"{self.name}: has no caption model; use clapcap, or describe (clapkit caption) for the nearest of "
                "given descriptions."
            )
        captioner.to(self.device)
        batches = [embeddings[start : start + BATCH_CAPTIONS] for start in range(0, len(embeddings), BATCH_CAPTIONS)]
        vectors = (torch.from_numpy(np.stack(batch)).to(self.device) for batch in batches)
        return [sentence for batch in vectors for sentence in captioner.caption(batch, n_beams=n_beams)]

    def known_descriptions(self) -> list[str]:
        """The texts that the checkpoint knows."""
        if not self.checkpoint.texts:
            raise ClapkitError(
                f"{self.name}: has no caption model and knows no texts; give descriptions (--descriptions @FILE)."
            )
        return list(self.checkpoint.texts)

    def encode(self, waveforms: Iterable[np.ndarray]) -> Iterator[ClipOutput]:
        """Encode decoded clips ``(n_channels, n_samples)`` at the model's rate, one output each, in order."""
        return encode_clips(self.clap, waveforms, self.dtype)

    @property
    def origin(self) -> str:
        """What another process gives to :func:`load`: its name, or the absolute path of the folder it came from."""
        return origin_of(self.name)

    def load_waveform(self, sound: Any, sample_rate: int | None = None) -> np.ndarray:
        """Decode one sound to ``(n_channels, n_samples)`` float32 at the model's rate."""
        audio = self.config.audio
        return load_waveform(sound, audio.sample_rate, n_channels=audio.n_channels, source_rate=sample_rate)

    def save_pretrained(self, folder: str | Path, *, half: bool = False, overwrite: bool = False) -> None:
        """Write a checkpoint folder that :func:`load` reads, with a card.

        Args:
            folder: the new folder.
            half: as float16, half as large; this model's weights are rounded too.
            overwrite: replace an existing folder.

        Raises:
            StorageError: the folder exists and ``overwrite`` is off, or the disk is full.
        """
        card = model_card(self.checkpoint, self.name)
        save_checkpoint(self.checkpoint, Path(folder), card=card, half=half, overwrite=overwrite)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the checkpoint to the Hub, from where ``clapkit.load(repo_id)`` gets it.

        Args:
            repo_id: ``user/name``; made if it does not exist.
            private: for a repository that is made.
            token: of the Hub; None for the one that ``hf auth login`` saved.

        Returns:
            The address of the repository.

        Raises:
            ClapkitError: the Hub cannot be reached, or refuses.
        """
        return push_folder(self.save_pretrained, repo_id, private=private, token=token)

    @torch.inference_mode()
    def _encode_new_texts(self, texts: list[str]) -> np.ndarray:
        if any(not text.strip() for text in texts):
            raise ClapkitError("empty text; expected words such as 'a dog barking'.")
        if self.config.text.name == NO_TEXT_TOWER:
            raise ClapkitError(
                f"{self.name}: has no text tower, it hears and captions only; use msclap-2023 for words."
            )
        tower = self.clap.text_encoder or self._frozen_text_encoder(texts[0])
        parts = [tower(texts[start : start + BATCH_TEXTS]) for start in range(0, len(texts), BATCH_TEXTS)]
        return self.clap.text_projection(torch.cat(parts)).float().cpu().numpy()

    def _frozen_text_encoder(self, wanted: str) -> Any:
        """The pretrained tower, loaded when a text needs it the first time."""
        if not hasattr(self, "_text_encoder"):
            from clapkit.models.text_towers import load_text_encoder

            try:
                tower = load_text_encoder(self.config.text, self.checkpoint.text_sha256)
            except TextModelError as error:
                raise TextModelError(
                    f"'{wanted}' is new to {self.name or 'this model'}, which needs its {error}"
                ) from None
            self._text_encoder = tower.to(self.device).eval()
        return self._text_encoder


def load(
    name: str | Path = DEFAULT_CHECKPOINT, *, device: str = "auto", precision: str = "float32",
    tokenizer: str | Path | None = None,
) -> AudioTextModel:  # fmt: skip
    """Load a model.

    Args:
        name: a checkpoint folder, the name of one that ships with clapkit (``base``), a published one
            (``msclap-2022``, ``msclap-2023``, ``clapcap``, ``laion/clap-htsat-unfused``, the Hub id of any
            ``ClapModel``), or a file or folder in which msclap, LAION or transformers saved one.
        device: ``auto`` (a GPU when there is one), ``cpu`` or ``cuda``.
        precision: ``float32``, ``bf16`` for faster towers, or ``auto``: bf16 where the hardware has it.
        tokenizer: a folder or Hub id, for a checkpoint that holds none; it is needed only for texts.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        TextModelError: the tokenizer cannot be read.
    """
    chosen = choose_device(device)
    checkpoint = open_checkpoint(name, tokenizer)
    return AudioTextModel(checkpoint, chosen, str(name), choose_dtype(chosen, precision))


def _waveforms(wavs: Any, config: Config, sample_rate: int | None) -> Iterator[np.ndarray]:
    audio = config.audio
    for sound in wavs if isinstance(wavs, list) else [wavs]:
        yield load_waveform(sound, audio.sample_rate, n_channels=audio.n_channels, source_rate=sample_rate)


def _ranked(labels: Sequence[str], probabilities: np.ndarray, similarity: np.ndarray) -> list[Score]:
    order = np.argsort(-probabilities, kind="stable")
    return [Score(labels[i], float(probabilities[i]), float(similarity[i])) for i in order]
