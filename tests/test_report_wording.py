"""Sentences of a report say no more than the corrected test shows."""

import pytest

from underseer.report import wording as w

TEST = {"metric": "unsafe_rate", "difference": -0.75, "ci95": [-0.95, -0.55], "seeds": [1, 2, 3], "better": None}
TEST |= {"ci95_holm": [-1.6, 0.1], "smallest_effect": 0.4}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"better": "a"}, "safer by a paired test, corrected for all comparisons"),
        ({"better": "b"}, "less safe by a paired test, corrected for all comparisons"),
        (
            {},
            "no difference shown with 3 seeds; the smallest difference that this comparison could have shown is 40.0 points",
        ),
        (
            {"smallest_effect": 1.2},
            "no difference shown with 3 seeds; this comparison could have shown no difference at all",
        ),
        ({"smallest_effect": None, "seeds": [1]}, "no difference shown with 1 seed"),
        ({"smallest_effect": float("nan")}, "no difference shown with 3 seeds"),
        (
            {"metric": "helpfulness"},
            "no difference shown with 3 seeds; the smallest difference that this comparison could have shown is 0.400",
        ),
    ],
)
def test_a_verdict_says_what_could_have_been_shown(fields, expected):
    assert w.says(TEST | fields) == expected


def test_the_interval_beside_a_verdict_is_the_corrected_one():
    assert w.corrected(TEST) == "-75.0 points, corrected interval [-160.0, +10.0]"
    assert w.corrected(TEST | {"ci95_holm": None}) == "-75.0 points [-95.0, -55.0] (95 % interval, not corrected)"


def test_collapsed_seeds_are_named():
    rows = [{"method": m, "variant": {}, "collapsed": c} for m, c in (("weak", []), ("w2s_naive", [2, 3]))]
    assert w.collapsed(rows[:1]) == []
    (sentence,) = w.collapsed(rows)
    assert "(seed 2, 3)" in sentence and "nearer to the start" in sentence and w.method_name("weak") not in sentence
