"""Sentences of a report about single rows."""

from underseer.report import wording as w


def test_collapsed_seeds_are_named():
    rows = [{"method": m, "variant": {}, "collapsed": c} for m, c in (("weak", []), ("w2s_naive", [2, 3]))]
    assert w.collapsed(rows[:1]) == []
    (sentence,) = w.collapsed(rows)
    assert "(seed 2, 3)" in sentence and "nearer to the start" in sentence and w.method_name("weak") not in sentence
