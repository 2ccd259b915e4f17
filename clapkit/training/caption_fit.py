"""How captions are learned: pairs of a sound's vector and its caption, and the loop over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from clapkit.config import Config
from clapkit.models.caption import Captioner
from clapkit.training.loop import Fit


@dataclass(frozen=True)
class CaptionPairs:
    """Sounds with their captions, ready for the loop.

    Attributes:
        vectors: ``(n_pairs, embed_dim)`` of unit length.
        ids: ``(n_pairs, most_tokens)`` int64, as :meth:`Captioner.tokenize` gives them.
        mask: ``(n_pairs, most_tokens)``, 0 for padding.
        weights: ``(n_pairs,)`` how often a pair is drawn in one epoch, on average.
    """

    vectors: Tensor
    ids: Tensor
    mask: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def batch(self, pairs: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, ids and mask of some pairs, as short as their longest caption."""
        n_tokens = int(self.mask[pairs].sum(dim=1).max())
        parts = (self.vectors[pairs], self.ids[pairs, :n_tokens], self.mask[pairs, :n_tokens])
        vectors, ids, mask = (part.to(device, non_blocking=True) for part in parts)
        return vectors, ids, mask


class CaptionFit(Fit):
    """The training of a mapper, and of its decoder where that is new, to write the captions of sounds."""

    def __init__(
        self, captioner: Captioner, config: Config, train: CaptionPairs, validation: CaptionPairs | None,
        accelerator: Accelerator, folder: Path, run: str, report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.captioner, self.train, self.validation = captioner, train, validation
        super().__init__(learning_part(captioner), config, train.weights, accelerator, folder, run, report)

    def losses(self, clips: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss per token of one batch; nothing in it is drawn."""
        with self.accelerator.autocast():
            return {"loss": self.captioner.token_loss(*self.train.batch(clips, self.accelerator.device))}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """The loss per token of these weights on the pairs that are watched."""
        if self.validation is None:
            return {}
        device, size = self.accelerator.device, self.config.train.batch_size
        return {"val_loss": loss_per_token(with_part(self.captioner, network), self.validation, device, size)}


def learning_part(captioner: Captioner) -> nn.Module:
    """The mapper; the whole captioner where its decoder learns too."""
    return captioner if captioner.decoder_learns else captioner.mapper


def with_part(captioner: Captioner, part: nn.Module) -> Captioner:
    """The captioner with another :func:`learning_part`, such as one with averaged weights."""
    if isinstance(part, Captioner):
        return part
    return Captioner(part, captioner.decoder, captioner.tokenizer, end=captioner.end, most_tokens=captioner.most_tokens)


@torch.no_grad()
def loss_per_token(captioner: Captioner, pairs: CaptionPairs, device: torch.device, batch_size: int) -> float:
    """Mean cross-entropy over the tokens of all captions, their ends included."""
    loss = n_tokens = 0.0
    for batch in torch.arange(len(pairs)).split(batch_size):
        n_own = float(pairs.mask[batch].sum())
        loss += float(captioner.token_loss(*pairs.batch(batch, device))) * n_own
        n_tokens += n_own
    return loss / n_tokens
