"""Choosing among candidates, by hand: votes of scorers, least toxic at matched fluency, minimum Bayes risk."""

from __future__ import annotations

import numpy as np
import pytest

from underseer.errors import UserError
from underseer.maths import selection

NAN = np.nan


def _one(scores):
    """Scores (M, B) of one prompt's candidates -> the chosen index."""
    return int(selection.best_of_b(np.asarray(scores, dtype=float)[:, :, None])[0])


@pytest.mark.parametrize(
    "scores, chosen",
    [
        ([[0.3, 0.2, 0.9], [0.1, 0.2, 0.9], [0.4, 0.2, 0.9]], 1),  # two of three votes, though 0 is lower once
        ([[0.1, 0.2, 0.9], [0.9, 0.2, 0.1]], 0),  # one vote each for 0 and 2, the same mean: lowest index
        ([[0.1, 0.2, 0.4], [0.9, 0.2, 0.1]], 2),  # one vote each, 2 has the lower mean; 1 the lowest but no vote
        ([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], 0),  # all candidates identical
        ([[0.4, 0.3, 0.3]], 1),  # a scorer's own tie: its lowest index
        ([[NAN, 0.8], [NAN, 0.9]], 1),  # a candidate without scores is never chosen
        ([[NAN, 0.8], [0.1, NAN]], 0),  # one vote each, by the scores there are
        ([[NAN, NAN], [0.7, 0.2]], 1),  # a scorer that failed does not vote
        ([[NAN, NAN], [NAN, NAN]], -1),
        ([[0.9], [0.8]], 0),  # B = 1
        ([[NAN]], -1),
    ],
)
def test_best_of_b(scores, chosen):
    assert _one(scores) == chosen


def test_votes_of_many_prompts_are_those_of_each():
    rng = np.random.default_rng(0)
    scores = rng.choice([0.1, 0.2, 0.3, NAN], size=(3, 4, 60))
    together = selection.best_of_b(scores)
    assert together.tolist() == [_one(scores[:, :, i]) for i in range(60)]
    assert together.shape == (60,)
    assert selection.best_of_b(scores[::-1]).tolist() == together.tolist()  # the scorers' order is no matter


@pytest.mark.parametrize(
    "toxicity, nll, quantile, chosen",
    [
        ([0.1, 0.4, 0.2], [9.0, 2.0, 3.0], 0.5, 2),  # 0 is least toxic but above the median nll of 3
        ([0.1, 0.4, 0.2], [9.0, 2.0, 3.0], 1.0, 0),  # all are fluent
        ([0.1, 0.4, 0.2], [9.0, 2.0, 3.0], 0.0, 1),  # the most fluent alone
        ([0.1, 0.4, 0.2, 0.3], [4.0, 3.0, 2.0, 1.0], 0.5, 2),  # median 2.5
        ([0.2, 0.2, 0.2], [3.0, 2.0, 2.0], 0.5, 1),  # toxicity ties: lowest nll, then lowest index
        ([0.2, 0.2], [2.0, 2.0], 0.5, 0),  # identical candidates
        ([NAN, 0.9, 0.8], [1.0, 2.0, 3.0], 0.5, 1),  # no score: left out, of the median too (2.5)
        ([0.1, 0.9], [NAN, 2.0], 0.5, 1),  # no likelihood (an empty text): left out
        ([NAN, 0.9], [1.0, NAN], 0.5, -1),
        ([0.7], [5.0], 0.5, 0),  # B = 1
    ],
)
def test_least_toxic_of_the_fluent(toxicity, nll, quantile, chosen):
    judged, nll = np.asarray(toxicity)[None, :, None], np.asarray(nll)[:, None]
    assert selection.least_toxic(judged, nll, quantile=quantile).tolist() == [chosen]
    several = np.concatenate([judged - 0.05, judged + 0.05])  # two judges with the same mean
    assert selection.least_toxic(several, nll, quantile=quantile).tolist() == [chosen]


def test_overlap_f1_by_hand():
    def f1(*texts: str) -> float:
        return selection.overlap_f1(*map(selection.grams, texts))

    # "a b c": a, b, c, ab, bc; "a b d": a, b, d, ab, bd; shared a, b, ab: 2 * 3 / (5 + 5)
    assert [f1("a b c", "a b d"), f1("a a", "a")] == pytest.approx([0.6, 2 * 1 / (3 + 1)])  # repeats count
    assert f1("Go!", "go !") == f1("", "") == 1  # case is ignored, a mark is a word
    assert f1("", "a") == f1("a", "b") == 0


def test_mbr_takes_what_the_others_resemble():
    middle = ["the lamp is on"], ["the lamp was on"], ["a fish swims"]
    # 0 and 1 share the, lamp, on and "the lamp": 2 * 4 / 14 each; the fish none; the tie goes to 0
    assert selection.mbr(middle).tolist() == [0]
    assert selection.mbr([middle[2], middle[1], middle[0]]).tolist() == [1]
    assert selection.mbr([["x y"], ["x y z"], ["y z"]]).tolist() == [1]  # the one between
    assert selection.mbr([["b"], ["a"], ["a"]]).tolist() == [1]  # equal texts support one another


def test_mbr_of_identical_candidates_of_one_and_of_many_prompts():
    assert selection.mbr([["same"], ["same"], ["same"]]).tolist() == [0]
    assert selection.mbr([["only", "one"]]).tolist() == [0, 0]
    assert selection.mbr([["b", "p q"], ["a", "p q r"], ["a", "q r"]]).tolist() == [1, 1]
    assert selection.mbr([[], []]).tolist() == []
    assert selection.mbr([[""], [""], ["a"]]).tolist() == [0]


def test_mbr_of_permuted_candidates_is_the_same_text():
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abcde"), 6)) for _ in range(7)]
    gains = [sum(selection.overlap_f1(selection.grams(a), selection.grams(b)) for b in texts) for a in texts]
    best = {texts[i] for i in range(7) if gains[i] > max(gains) - 1e-9}
    for order in (rng.permutation(7) for _ in range(5)):
        given = [texts[i] for i in order]
        assert given[selection.mbr([[text] for text in given])[0]] in best


@pytest.mark.parametrize(
    "call",
    [
        lambda: selection.best_of_b(np.zeros((2, 0, 3))),
        lambda: selection.best_of_b(np.zeros((0, 2, 3))),
        lambda: selection.least_toxic(np.zeros((2, 0, 3)), np.zeros((0, 3))),
        lambda: selection.least_toxic(np.zeros((0, 2, 3)), np.zeros((2, 3))),
        lambda: selection.mbr([]),
    ],
)
def test_no_candidates_is_an_error_that_says_so(call):
    with pytest.raises(UserError, match="at least one .*got 0"):
        call()


def test_wrong_shapes_and_a_quantile_out_of_range():
    with pytest.raises(ValueError, match="judges, candidates, prompts"):
        selection.best_of_b(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="alike"):
        selection.least_toxic(np.zeros((1, 2, 3)), np.zeros((3, 2)))
    with pytest.raises(UserError, match="1.5"):
        selection.least_toxic(np.zeros((1, 2, 3)), np.zeros((2, 3)), quantile=1.5)
    with pytest.raises(ValueError, match="one length"):
        selection.mbr([["a"], ["a", "b"]])
