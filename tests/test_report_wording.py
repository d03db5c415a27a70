"""Sentences of a report about single rows."""

import pytest

from underseer.report import wording as w


def test_collapsed_seeds_are_named():
    rows = [{"method": m, "variant": {}, "collapsed": c} for m, c in (("weak", []), ("w2s_naive", [2, 3]))]
    assert w.collapsed(rows[:1]) == []
    (sentence,) = w.collapsed(rows)
    assert "(seed 2, 3)" in sentence and "nearer to the start" in sentence and w.method_name("weak") not in sentence


@pytest.mark.parametrize(
    ("values", "collapsed", "text"),
    [
        ([0.02, 0.28, 0.1], [1], "2.0, 28.0†, 10.0"),
        ([0.02], [], ""),
        ([k / 100 for k in range(9)], [], "0.0 / 4.0 / 8.0"),
        ([k / 100 for k in range(9)], [8], "0.0 / 4.0 / 8.0, 1†"),
    ],
)
def test_every_seed_is_shown(values, collapsed, text):
    row = {"values": values, "seeds": list(range(len(values))), "collapsed": collapsed, "median": 0.04}
    assert w.each_seed(row, "unsafe_rate") == text


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        (None, ""),
        ({"set": "reporting", "values": [10, 11, 12]}, "Reporting seeds 10 to 12."),
        (
            {"set": "reporting", "values": [3, 5], "tuned_on": [0, 1, 2]},
            "Reporting seeds 3 and 5; settings were chosen on tuning seeds 0 to 2.",
        ),
        (
            {"set": None, "values": [3, 10], "tuned_on": [0, 1, 2], "choices": "docs/x.md"},
            "These seeds 3 and 10; settings were chosen on tuning seeds 0 to 2 (docs/x.md).",
        ),
    ],
)
def test_the_set_of_seeds_is_named(seeds, text):
    assert w.seed_set({"seeds": seeds}) == w.seed_set({"provenance": {"seeds": seeds}}) == text
