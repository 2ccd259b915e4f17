"""Losses on batches small enough to compute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clapkit.training.losses import contrastive_loss, head_loss, multilabel_head_loss, sigmoid_loss


def _logits(rows: int, columns: int | None = None, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, columns or rows, generator=torch.Generator().manual_seed(seed))


def _log_softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))


def test_right_pairs_cost_nothing_and_wrong_ones_much() -> None:
    same, right = torch.eye(3), 20 * torch.eye(3)
    assert float(contrastive_loss(right, same)) == pytest.approx(0, abs=1e-6)
    assert float(contrastive_loss(right.roll(1, dims=0), same)) == pytest.approx(20, abs=1e-3)


def test_a_model_that_knows_nothing_costs_the_logarithm_of_the_batch() -> None:
    assert float(contrastive_loss(torch.zeros(4, 4), torch.eye(4))) == pytest.approx(math.log(4))


def test_unrelated_clips_give_the_usual_clip_loss() -> None:
    logits, target = _logits(5), torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5)), expected)


def test_both_directions_count_alike() -> None:
    logits = _logits(4)
    same = torch.eye(4)
    same[0, 2] = 0.5
    torch.testing.assert_close(contrastive_loss(logits, same), contrastive_loss(logits.T, same.T))
    assert float(contrastive_loss(logits, same)) != pytest.approx(float(contrastive_loss(logits, same.T)))


def test_a_text_that_describes_no_clip_is_a_wrong_answer_and_asks_nothing() -> None:
    logits, same = _logits(4, 6), torch.cat([torch.eye(4), torch.zeros(4, 2)], dim=1)
    from_audio = torch.nn.functional.cross_entropy(logits, torch.arange(4))
    from_text = torch.nn.functional.cross_entropy(logits[:, :4].T, torch.arange(4))
    torch.testing.assert_close(contrastive_loss(logits, same), (from_audio + from_text) / 2)
    assert float(contrastive_loss(logits, same)) > float(contrastive_loss(logits[:, :4], torch.eye(4)))


def test_a_clip_that_no_text_describes_is_equally_far_from_all() -> None:
    same = torch.cat([torch.eye(3, 4), torch.full((1, 4), 1e-6)])
    logits = torch.zeros(4, 4, requires_grad=True)
    contrastive_loss(logits, same).backward()
    assert logits.grad[3, :3].std() < 1e-6  # drawn to none more than to another
    tilted = torch.tensor([[0.0] * 4] * 3 + [[4.0, 0, 0, 0]])
    assert contrastive_loss(tilted, same) > contrastive_loss(torch.zeros(4, 4), same)


@pytest.fixture
def grouped() -> Tensor:
    """Clips 0 and 2 share one description, clips 1, 3 and 4 another."""
    group = torch.tensor([0, 1, 0, 1, 1])
    return (group[:, None] == group[None, :]).float()


def test_clips_of_one_description_are_positives_of_one_another(grouped: Tensor) -> None:
    group_logits = 30 * grouped  # every clip is as near to its own text as to the others of its group
    # nothing is left but the choice among equals: ln 2 for two of the rows, ln 3 for three
    assert float(contrastive_loss(group_logits, grouped)) == pytest.approx((2 * math.log(2) + 3 * math.log(3)) / 5)
    assert float(contrastive_loss(group_logits, torch.eye(5))) == pytest.approx((2 * math.log(2) + 3 * math.log(3)) / 5)
    only_own = 30 * torch.eye(5)  # as if the other clips of the group were negatives
    assert float(contrastive_loss(only_own, grouped)) > 10


def test_it_does_not_matter_which_of_two_equal_texts_belongs_to_which_clip(grouped: Tensor) -> None:
    logits = _logits(5)
    swapped = logits[:, [2, 3, 0, 4, 1]]  # inside each group
    torch.testing.assert_close(contrastive_loss(swapped, grouped), contrastive_loss(logits, grouped))
    across = logits[:, [1, 0, 2, 3, 4]]
    assert float(contrastive_loss(across, grouped)) != pytest.approx(float(contrastive_loss(logits, grouped)), abs=1e-3)


def test_a_mixed_clip_is_pulled_to_both_texts_by_their_shares() -> None:
    logits = _logits(2)
    same = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    x = logits.numpy().astype(float)
    to_text, to_audio = _log_softmax(x, axis=1), _log_softmax(x, axis=0)
    from_audio = -(0.7 * to_text[0, 0] + 0.3 * to_text[0, 1] + to_text[1, 1]) / 2
    from_text = -(to_audio[0, 0] + (0.3 * to_audio[0, 1] + to_audio[1, 1]) / 1.3) / 2
    assert float(contrastive_loss(logits, same)) == pytest.approx((from_audio + from_text) / 2, abs=1e-5)


def test_very_large_logits_stay_finite() -> None:
    logits = (1e4 * torch.eye(3)).requires_grad_()
    loss = contrastive_loss(logits.roll(1, 0), torch.eye(3))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_head_without_smoothing_is_cross_entropy() -> None:
    logits, labels = _logits(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    targets = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(head_loss(logits, targets, 0.0), torch.nn.functional.cross_entropy(logits, labels))


def test_smoothing_spreads_its_part_over_all_labels() -> None:
    logits, labels = _logits(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    targets = torch.nn.functional.one_hot(labels, 4).float()
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(head_loss(logits, targets, 0.1), expected)


def test_mixed_labels_share_the_loss() -> None:
    logits = _logits(1, 3)
    first, second = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0, 1.0]])
    expected = 0.6 * head_loss(logits, first, 0.1) + 0.4 * head_loss(logits, second, 0.1)
    torch.testing.assert_close(head_loss(logits, 0.6 * first + 0.4 * second, 0.1), expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_clips_without_a_label_do_not_count(label_smoothing: float) -> None:
    logits, targets = _logits(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    targets[2] = 0
    expected = head_loss(logits[[0, 1, 3]], targets[[0, 1, 3]], label_smoothing)
    torch.testing.assert_close(head_loss(logits, targets, label_smoothing), expected)


def test_a_batch_without_labels_costs_nothing_and_moves_nothing() -> None:
    logits = _logits(4, 3).requires_grad_()
    loss = head_loss(logits, torch.zeros(4, 3), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_sigmoid_asks_each_pair_by_itself() -> None:
    logits, same = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.eye(2)
    softplus = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5)), math.log1p(math.exp(-3))]
    assert float(sigmoid_loss(logits, same)) == pytest.approx(sum(softplus) / 2)


def test_sigmoid_is_small_for_right_pairs_and_large_for_wrong_ones() -> None:
    right = 40 * torch.eye(4) - 20
    assert float(sigmoid_loss(right, torch.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(sigmoid_loss(right.roll(1, dims=0), torch.eye(4))) == pytest.approx(40, abs=1e-3)


def test_sigmoid_counts_all_pairs_of_one_description_as_positives(grouped: Tensor) -> None:
    assert float(sigmoid_loss(40 * grouped - 20, grouped)) == pytest.approx(0, abs=1e-6)
    assert float(sigmoid_loss(40 * torch.eye(5) - 20, grouped)) == pytest.approx((2 + 6) * 20 / 5, abs=1e-3)


def test_a_mixed_pair_is_pulled_to_its_share() -> None:
    same = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    logits = torch.tensor([[0.0, 0.0], [-30.0, 30.0]], requires_grad=True)
    sigmoid_loss(logits, same).backward()
    torch.testing.assert_close(logits.grad, (torch.tensor([[0.5, 0.5], [0.0, 1.0]]) - same) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_very_large_logits_stay_finite_with_sigmoid_and_several_labels(size: float) -> None:
    for loss_of in (sigmoid_loss, lambda logits, same: multilabel_head_loss(logits, same, 0.1)):
        logits = torch.full((3, 3), size, requires_grad=True)
        loss = loss_of(logits, torch.eye(3))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_several_labels_are_a_yes_or_no_each() -> None:
    logits, targets = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    expected = math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)) + math.log(2)
    assert float(multilabel_head_loss(logits, targets, 0.0)) == pytest.approx(expected)
    twice = multilabel_head_loss(logits.repeat(2, 1), targets.repeat(2, 1), 0.0)
    assert float(twice) == pytest.approx(expected)  # a mean over the clips


def test_smoothing_of_several_labels_is_least_at_a_little_doubt() -> None:
    """With smoothing s the best probability of a yes is 1 - s/2, and of a no s/2."""
    targets = torch.tensor([[1.0, 0.0]])
    best = torch.tensor([[0.9, 0.1]]).logit().requires_grad_()
    multilabel_head_loss(best, targets, 0.2).backward()
    torch.testing.assert_close(best.grad, torch.zeros(1, 2), atol=1e-6, rtol=0)
    certain = torch.tensor([[0.99, 0.01]]).logit()
    assert multilabel_head_loss(certain, targets, 0.2) > multilabel_head_loss(best.detach(), targets, 0.2)


def test_a_clip_without_any_of_several_labels_says_no_to_each() -> None:
    loss = multilabel_head_loss(torch.full((2, 3), -50.0), torch.zeros(2, 3), 0.0)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert float(multilabel_head_loss(torch.full((2, 3), 50.0), torch.zeros(2, 3), 0.0)) == pytest.approx(150)
