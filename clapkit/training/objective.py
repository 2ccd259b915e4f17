"""What training minimises, and the same figure on validation clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from clapkit.config import Config
from clapkit.models.clap import CLAP
from clapkit.training.batches import Batch, TrainingData, seeded_generator, validation_batch
from clapkit.training.losses import contrastive_loss, head_loss, multilabel_head_loss, sigmoid_loss
from clapkit.training.processes import gather_with_gradient

Number = TypeVar("Number", Tensor, float)


def batch_losses(
    model: nn.Module, config: Config, batch: Batch, gather: Callable[[Tensor], Tensor] = gather_with_gradient
) -> dict[str, Tensor]:
    """Run both towers on a process's slice, and compute the losses on the whole batch.

    Args:
        model: a CLAP, or one wrapped for several processes.
        config: which losses.
        batch: what to learn from.
        gather: brings the slices of all processes together.

    Returns:
        ``contrastive`` and ``head``, those that have a weight.
    """
    return _losses(model(batch.log_mel, batch.n_valid_frames, batch.text), model, config, batch, gather)


def _losses(
    outputs: Mapping[str, Tensor], model: nn.Module, config: Config, batch: Batch, gather: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    settings, clap = config.train, getattr(model, "module", model)
    losses = {}
    if settings.contrastive_weight:
        own, more = outputs["text"].split([len(outputs["audio"]), len(outputs["text"]) - len(outputs["audio"])])
        logits, text_logits = clap.logits(gather(outputs["audio"]), torch.cat([gather(own), more]))
        is_softmax = settings.contrastive == "softmax"
        losses["contrastive"] = (
            contrastive_loss(logits, batch.same, text_logits) if is_softmax else sigmoid_loss(logits, batch.same)
        )
    if settings.head_weight and "head" in outputs:
        classify = multilabel_head_loss if config.model.multilabel else head_loss
        losses["head"] = classify(gather(outputs["head"]).float(), batch.targets, settings.label_smoothing)
    return losses


def total_loss(losses: Mapping[str, Number], config: Config) -> Number:
    """The weighted sum that is minimised."""
    weights = {"contrastive": config.train.contrastive_weight, "head": config.train.head_weight}
    return sum(weights[name] * value for name, value in losses.items())


@torch.no_grad()
def validate(clap: CLAP, data: TrainingData, device: torch.device) -> dict[str, float]:
    """Loss without augmentation, and the head's accuracy on clips with one label; the same in every process."""
    was_training = clap.training
    clap.eval()
    config, loss, n_right = clap.config, 0.0, 0
    generator = seeded_generator(0, "validation", 0)  # mixed, for a batch of one class says little
    order = torch.randperm(len(data), generator=generator)
    for clips in order.split(config.train.batch_size):
        batch = validation_batch(data, clips, config, device)
        outputs = clap(batch.log_mel, batch.n_valid_frames, batch.text)
        losses = _losses(outputs, clap, config, batch, gather=lambda values: values)
        loss += float(total_loss(losses, config)) * len(clips) / len(data)
        if "head" in losses:
            n_right += int((outputs["head"].argmax(dim=1) == batch.targets.argmax(dim=1)).sum())
    clap.train(was_training)
    has_accuracy = "head" in losses and not config.model.multilabel
    return {"val_loss": loss} | ({"val_accuracy": n_right / len(data)} if has_accuracy else {})
