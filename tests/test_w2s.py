"""Votes, student losses, performance gap recovered, tasks: hand-worked values and properties."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from underseer.errors import UserError
from underseer.maths import losses
from underseer.maths.stats import pgr
from underseer.maths.votes import bootstrap_sample, hard_vote, soft_vote
from underseer.w2s.tasks import TASKS, task


def test_bootstrap_is_fixed_by_its_arguments_and_draws_with_replacement():
    first = bootstrap_sample(1000, replicate=0, seed=7)
    assert first.shape == (1000,)
    assert first.min() >= 0 and first.max() < 1000
    assert (first == bootstrap_sample(1000, 0, 7)).all()
    assert (first != bootstrap_sample(1000, 1, 7)).any()
    assert (first != bootstrap_sample(1000, 0, 8)).any()
    # the expected share of distinct rows is 1 - 1/e = 0.632
    assert len(set(first.tolist())) / 1000 == pytest.approx(0.632, abs=0.05)


def test_bootstrap_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least one row"):
        bootstrap_sample(0, 0, 0)


def test_votes_by_hand():
    p = np.array([[0.9, 0.6, 0.4, 0.1], [0.8, 0.6, 0.4, 0.2], [0.7, 0.1, 0.9, 0.6]])
    labels, mean = hard_vote(p)
    assert labels.tolist() == [1, 1, 0, 0]
    assert mean == pytest.approx([0.8, 1.3 / 3, 1.7 / 3, 0.3])
    labels, mean = soft_vote(p)
    assert labels.tolist() == [1, 0, 1, 0]  # columns 1 and 2: one sure voter outweighs two lukewarm ones
    assert mean == pytest.approx([0.8, 1.3 / 3, 1.7 / 3, 0.3])


def test_hard_vote_tie_goes_to_the_higher_mean_probability():
    labels, mean = hard_vote(np.array([[0.6, 0.9, 0.75], [0.1, 0.4, 0.25]]))
    assert labels.tolist() == [0, 1, 1] and mean == pytest.approx([0.35, 0.65, 0.5])  # exactly 0.5: class 1


def test_soft_vote_of_exactly_one_half_is_class_1():
    assert soft_vote(np.array([[0.25], [0.75]]))[0].tolist() == [1]


@pytest.mark.parametrize("vote", [hard_vote, soft_vote])
def test_vote_properties(vote):
    p = np.random.default_rng(1).random((5, 200))
    labels, share = vote(p)
    assert (vote(p[[3, 1, 4, 0, 2]])[0] == labels).all()  # the order of supervisors does not matter
    assert (vote(np.repeat(p, 2, axis=0))[0] == labels).all()  # nor does each voting twice
    assert (vote(1 - p)[0] == 1 - labels).all()  # symmetric in the classes where nothing is tied
    assert ((share >= 0) & (share <= 1)).all()
    unanimous = np.tile(p[0], (5, 1))
    assert (vote(unanimous)[0] == (p[0] >= 0.5)).all()


@pytest.mark.parametrize("vote", [hard_vote, soft_vote])
def test_votes_refuse_nonsense(vote):
    with pytest.raises(UserError, match="at least one supervisor"):
        vote(np.empty((0, 3)))
    with pytest.raises(ValueError, match="shape"):
        vote(np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        vote(np.array([[0.1, np.nan]]))


def test_pgr_by_hand():
    assert pgr(0.8, 0.85, 0.9) == pytest.approx(0.5)
    assert pgr(0.802, 0.810, 0.876) == pytest.approx(0.108, abs=1e-3)  # the paper's Figure 1, accuracy
    assert pgr(0.8, 0.7, 0.9) == pytest.approx(-1)
    assert pgr(0.8, 1.0, 0.9) == pytest.approx(2)


def test_pgr_is_undefined_without_a_gap():
    assert math.isnan(pgr(0.9, 0.95, 0.9))
    assert math.isnan(pgr(0.9, 0.95, 0.85))
    assert math.isnan(pgr(0.8, math.nan, 0.9))
    assert math.isnan(pgr(math.nan, 0.8, 0.9))


def test_tasks():
    assert TASKS["safety"].labels == ("safe", "unsafe")
    assert TASKS["safety"].metrics[0] == "accuracy"
    assert (
        TASKS["safety"].published == TASKS["toxicity"].published == {}
    )  # Tables 1 and 2 are not at hand: never guessed
    settings = {"weak_model": "openai-community/gpt2", "strong_model": "openai-community/gpt2-medium@abc"}
    assert task("legal").published_for(settings)["values"]["weak"]["accuracy"] == 0.802
    assert task("legal").published_for({**settings, "weak_model": "gpt2-xl"}) is None
    with pytest.raises(UserError, match="did you mean 'safety'"):
        task("safty")


# ------------------------------------------------------------------------------------------------------- losses


def _logits(p):
    """Logits (n, 2) whose softmax gives class 1 the probabilities p."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))], dim=1)


def test_cross_entropies_by_hand():
    logits, targets = _logits([0.8, 0.4]), torch.tensor([0.9, 0.25], dtype=torch.float64)
    hard = -(math.log(0.8) + math.log(0.6)) / 2
    soft = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2) + 0.25 * math.log(0.4) + 0.75 * math.log(0.6)) / 2
    assert losses.hard_ce(logits, targets).item() == pytest.approx(hard)
    assert losses.soft_ce(logits, targets).item() == pytest.approx(soft)


def test_a_target_of_exactly_one_half_is_class_1():
    assert losses.hard_ce(_logits([0.8]), torch.tensor([0.5])).item() == pytest.approx(-math.log(0.8))


def test_confidence_loss_by_hand():
    # student 0.9, 0.6, 0.3, 0.2: the upper half is hardened to 1, 1, 0, 0 although two weak targets say otherwise
    logits, targets = _logits([0.9, 0.6, 0.3, 0.2]), torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    weak = -(math.log(0.9) + math.log(0.4) + math.log(0.3) + math.log(0.8)) / 4
    own = -(math.log(0.9) + math.log(0.6) + math.log(0.7) + math.log(0.8)) / 4
    for progress, alpha in ((0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (1.0, 0.5)):
        expected = (1 - alpha) * weak + alpha * own
        assert losses.aux_conf(logits, targets, progress).item() == pytest.approx(expected)


def test_confidence_threshold_splits_the_batch_in_half_even_where_all_probabilities_are_high():
    logits, targets = _logits([0.99, 0.95, 0.9, 0.85]), torch.ones(4, dtype=torch.float64)
    own = -(math.log(0.99) + math.log(0.95) + math.log(0.1) + math.log(0.15)) / 4
    weak = -sum(math.log(p) for p in (0.99, 0.95, 0.9, 0.85)) / 4
    assert losses.aux_conf(logits, targets, 1.0).item() == pytest.approx(0.5 * weak + 0.5 * own)
    # the authors' code: the share of the weak targets, here all of them, so both terms agree
    assert losses.aux_conf(logits, targets, 1.0, share=None).item() == pytest.approx(weak)


def test_confidence_threshold_with_an_odd_batch_leaves_the_middle_below():
    logits, targets = _logits([0.9, 0.6, 0.2]), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    own = -(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3
    weak = -(math.log(0.9) + math.log(0.6) + math.log(0.8)) / 3
    assert losses.aux_conf(logits, targets, 1.0).item() == pytest.approx(0.5 * weak + 0.5 * own)


def test_confidence_warm_up_is_the_papers_continuous_one():
    weight = losses.confidence_weight
    assert weight(0.0) == 0
    assert weight(losses.WARMUP / 2) == pytest.approx(losses.ALPHA_MAX / 2)
    below, at, above = (weight(losses.WARMUP + step) for step in (-1e-9, 0.0, 1e-9))
    assert at == above == losses.ALPHA_MAX
    assert at - below < 1e-8  # no jump, unlike the authors' code
    assert weight(0.0, warmup=0.0) == losses.ALPHA_MAX


def test_no_gradient_flows_through_the_hardened_prediction():
    logits = _logits([0.9, 0.6, 0.3, 0.2]).requires_grad_()
    losses.aux_conf(logits, torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64), 1.0).backward()
    expected = (torch.tensor([0.9, 0.6, 0.3, 0.2]) - torch.tensor([1.0, 0.5, 0.5, 0.0])) / 4  # q - mixed target
    assert torch.allclose(logits.grad[:, 1].float(), expected)


@pytest.mark.parametrize("loss", [losses.hard_ce, losses.soft_ce])
def test_weights_by_hand(loss):
    logits, targets = _logits([0.8, 0.4]), torch.tensor([1.0, 0.0], dtype=torch.float64)
    weight = torch.tensor([2.0, 0.5], dtype=torch.float64)
    assert loss(logits, targets, weight).item() == pytest.approx(-2 * math.log(0.8) - 0.5 * math.log(0.6))


@pytest.mark.parametrize("loss", [losses.hard_ce, losses.soft_ce, partial(losses.aux_conf, progress=0.5)])
def test_losses_are_finite_at_extreme_logits_and_refuse_wrong_shapes(loss):
    value = loss(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([1.0, 1.0]))
    assert torch.isfinite(value)
    with pytest.raises(ValueError, match="logits"):
        loss(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="logits"):
        loss(torch.zeros(2, 2), torch.zeros(2, 1))
