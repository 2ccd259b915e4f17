"""Optimizers by name, weight decay on matrices only, a slower pretrained tower, and nothing frozen."""

from __future__ import annotations

import pytest
import torch

from clapkit.config import Config
from clapkit.models.clap import CLAP
from clapkit.models.text_towers import new_text_encoder
from clapkit.training.build import freeze_unused
from clapkit.training.optimizers import PRETRAINED_FACTOR, make_optimizer, set_learning_rate


def changed(config: Config, text_name: str | None = None, **train: object) -> Config:
    text = config.text.model_copy(update={"name": text_name or config.text.name})
    return config.model_copy(update={"text": text, "train": config.train.model_copy(update=train)})


def make_clap(config: Config, with_tower: bool = True, n_labels: int = 3) -> CLAP:
    """A CLAP whose tower is new, whatever the config calls it."""
    tower = new_text_encoder(config.text.model_copy(update={"name": "bert-small"}), ["a dog", "rain"])
    return CLAP(config, n_labels, tower.text_dim, tower if with_tower else None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("rmsprop", torch.optim.RMSprop),
        ("sgd", torch.optim.SGD),
    ],
)
def test_optimizers_by_name_decay_matrices_only_and_hold_every_parameter_once(
    tiny_config: Config, name: str, kind: type
) -> None:
    config = changed(tiny_config, optimizer=name, weight_decay=0.03, momentum=0.7, learning_rate=0.005)
    clap = make_clap(config)
    optimizer = make_optimizer(clap, config)
    assert type(optimizer) is kind
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(map(id, held)))
    assert set(map(id, held)) == set(map(id, clap.parameters()))
    for group in optimizer.param_groups:
        assert group["lr"] == 0.005
        decays = {parameter.ndim > 1 for parameter in group["params"]}
        assert group["weight_decay"] == (0.03 if decays == {True} else 0.0)
        assert len(decays) == 1
        assert group.get("momentum", 0.7) == (0.7 if name == "sgd" else group.get("momentum", 0.7))


def test_a_pretrained_tower_learns_slower_and_a_new_one_does_not(tiny_config: Config) -> None:
    for name, expected in (("org/pretrained", PRETRAINED_FACTOR), ("bert-small", 1.0)):
        config = changed(tiny_config, name)
        clap = make_clap(config)
        optimizer = make_optimizer(clap, config)
        set_learning_rate(optimizer, 0.5)
        rate_of = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
        for parameter_name, parameter in clap.named_parameters():
            is_tower = parameter_name.startswith("text_encoder.")
            assert rate_of[id(parameter)] == 0.5 * (expected if is_tower else 1.0), parameter_name


@pytest.mark.parametrize("contrastive", ["softmax", "sigmoid"])
@pytest.mark.parametrize("with_tower", [False, True])
def test_only_the_head_and_the_audio_tower_learn_without_a_contrastive_loss(
    tiny_config: Config, contrastive: str, with_tower: bool
) -> None:
    config = changed(tiny_config, contrastive_weight=0.0, contrastive=contrastive)
    clap = make_clap(config, with_tower)
    freeze_unused(clap)
    held = {id(each) for group in make_optimizer(clap, config).param_groups for each in group["params"]}
    expected = {name for name, each in clap.named_parameters() if name.split(".")[0] in ("audio_encoder", "head")}
    assert {name for name, each in clap.named_parameters() if id(each) in held} == expected


@pytest.mark.parametrize("contrastive", ["softmax", "sigmoid"])
def test_the_head_is_frozen_without_its_loss(tiny_config: Config, contrastive: str) -> None:
    config = changed(tiny_config, head_weight=0.0, contrastive=contrastive)
    clap = make_clap(config)
    freeze_unused(clap)
    frozen = {name for name, each in clap.named_parameters() if not each.requires_grad}
    assert frozen == {"head.weight", "head.bias"}
    held = {id(each) for group in make_optimizer(clap, config).param_groups for each in group["params"]}
    assert held == {id(each) for name, each in clap.named_parameters() if name not in frozen}
