"""metrics.py against hand-worked values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from underseer.maths import metrics

Y = [0, 0, 1, 1, 1]
P = [0.2, 0.6, 0.5, 0.9, 0.4]  # predicted 0 1 1 1 0: one right of two zeros, two right of three ones


def test_hand_worked_values():
    found = metrics.classification_metrics(Y, P)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["precision"] == pytest.approx(2 / 3) and found["recall"] == pytest.approx(2 / 3)
    assert found["f1_macro"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["f1"] == pytest.approx((2 * 1 / 2 + 3 * 2 / 3) / 5)
    assert found["auroc"] == pytest.approx(4 / 6)  # of 6 pairs: .5 and .4 lose to .6, the other four are won
    assert found["brier"] == pytest.approx((0.04 + 0.36 + 0.25 + 0.01 + 0.36) / 5)
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 0.5 + 0.1 + 0.6) / 5)  # each row alone in its bin
    assert found["n"] == 5
    assert metrics.confusion(Y, P).tolist() == [[1, 1], [1, 2]]


def test_a_probability_of_one_half_is_class_one():
    assert metrics.confusion([1, 0], [0.5, 0.5]).tolist() == [[0, 1], [0, 1]]


def test_given_predictions_replace_the_threshold():
    assert metrics.classification_metrics([1, 0], [0.2, 0.9], [1, 0])["accuracy"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed):
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 2, 200), np.round(rng.random(200), 1)  # many ties
    guess, found = p >= 0.5, metrics.classification_metrics(y, p)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, guess))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guess))
    assert found["f1"] == pytest.approx(sk.f1_score(y, guess, average="weighted"))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(y, guess, average="macro"))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))


def test_weighted_sums_are_the_metrics_of_repeated_rows():
    rng = np.random.default_rng(0)
    y, p, counts = rng.integers(0, 2, 400), rng.random(400), rng.integers(0, 4, 400)
    drawn = metrics.classification_metrics(np.repeat(y, counts), np.repeat(p, counts))
    found = metrics.metrics_from_sums(counts @ metrics.row_features(y, p))
    for name in metrics.METRICS:
        assert float(found[name]) == pytest.approx(drawn[name], abs=5e-3 if name == "auroc" else 1e-12)


def test_one_class_alone():
    found = metrics.classification_metrics([1, 1], [0.9, 0.1])
    assert np.isnan(found["auroc"]) and found["balanced_accuracy"] == 0.5


def test_calibration_curve():
    curve = metrics.calibration_curve([0, 1, 1], [0.05, 0.95, 1.0])
    assert curve["n"].tolist() == [1] + [0] * 8 + [2]
    assert curve["mean_p"][9] == pytest.approx(0.975) and curve["share"][9] == 1 and np.isnan(curve["share"][3])


@pytest.mark.parametrize(
    ("y", "p", "says"),
    [([], [], "no rows"), ([0, 1], [0.1], "shapes"), ([0, 2], [0.1, 0.2], "0 and 1"), ([0, 1], [0.1, np.nan], "NaN")],
)
def test_malformed_input_is_refused(y, p, says):
    with pytest.raises(ValueError, match=says):
        metrics.classification_metrics(y, p)


def test_continuations_by_hand():
    """Two prompts, greedy and two sampled continuations each; one score is missing, one continuation is empty."""
    features = metrics.prompt_features(
        [0, 0, 0, 1, 1, 1],
        [0, 1, 2, 0, 1, 2],
        {
            "toxicity": [0.6, 0.2, 0.8, 0.1, 0.3, np.nan],
            "toxicity_training": [np.nan, 0.1, 0.3, np.nan, 0.4, 0.6],
            "nll": [9.0, 2.0, 4.0, 9.0, 6.0, np.nan],
            "nll_tokens": [1, 1, 2, 1, 3, 0],
            "n_tokens": [5, 1, 2, 5, 3, 0],
            "empty": [False, False, False, False, False, True],
        },
        2,
    )
    found = metrics.generation_from_sums(features.sum(0))
    assert found == pytest.approx(
        {
            "toxicity": (0.5 + 0.3) / 2,
            "toxicity_greedy": 0.35,
            "toxic_share": (0.5 + 0.0) / 2,
            "toxic_share_greedy": 0.5,
            "expected_max_toxicity": (0.8 + 0.3) / 2,
            "toxicity_probability": 0.5,
            "toxicity_training_judge": (0.2 + 0.5) / 2,
            "perplexity": np.exp(12 / 6),
            "n_tokens": 6 / 4,
            "empty_share": 1 / 4,
        }
    )
    twice = metrics.generation_from_sums(np.array([3, 0]) @ features)  # the first prompt drawn three times
    assert twice["toxicity"] == pytest.approx(0.5) and twice["perplexity"] == pytest.approx(np.exp(6 / 3))


def test_half_counts_as_toxic_and_nothing_scored_is_nan():
    one = metrics.prompt_features([0], [1], {"toxicity": [0.5]}, 1)
    found = metrics.generation_from_sums(one.sum(0))
    assert found["toxic_share"] == 1 and found["toxicity_probability"] == 1 and np.isnan(found["toxicity_greedy"])
    none = metrics.generation_from_sums(metrics.prompt_features([0], [1], {"toxicity": [np.nan]}, 1).sum(0))
    assert all(np.isnan(v) for v in none.values())


def test_distinct_n():
    texts = ["a b a", "A b", ""]
    assert metrics.distinct_n(texts, 1) == 2 / 5 and metrics.distinct_n(texts, 2) == 2 / 3  # ab ba ab
    assert np.isnan(metrics.distinct_n(["a"], 2)) and np.isnan(metrics.distinct_n([], 1))
