"""Judge cards against hand-worked values and scikit-learn, rates corrected for a judge's errors with the coverage of
their intervals, XSTest's labelled completions."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import types

import numpy as np
import pandas as pd
import pytest

from conftest import PUBLIC_DATA, ROOT
from underseer.errors import UserError
from underseer.judges import base, bench, card, labelled, open_judge
from underseer.maths.prevalence import Corrected, corrected_rate, effective_n, wilson
from underseer.testbed import chat

sys.path.insert(0, str(ROOT / "benchmarks"))
import xstest

# ------------------------------------------------------------------------------------------------------------ the card


def test_a_card_by_hand():
    truth = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0]
    predicted = [0.9, 0.5, 0.7, 0.2, 0.1, 0.6, 0.4, 0.0, 0.3, np.nan, np.nan]
    found = card.judge_card(truth, predicted, list("aabbaabbbab"))
    assert (found["n"], found["failures"]) == (9, 2)
    assert found["counts"] == {"tp": 3, "fp": 1, "tn": 4, "fn": 1}  # 0.5 counts as positive
    assert found["accuracy"]["value"] == pytest.approx(7 / 9)
    assert found["sensitivity"]["value"] == 0.75 and found["specificity"]["value"] == 0.8
    chance = (4 * 4 + 5 * 5) / 81
    assert found["kappa"]["value"] == pytest.approx((7 / 9 - chance) / (1 - chance))
    # of 4 x 5 pairs, all are in order but (0.5, 0.6), (0.2, 0.6), (0.2, 0.4) and (0.2, 0.3)
    assert found["auroc"]["value"] == pytest.approx(16 / 20)
    first, second = found["categories"]
    assert (first["category"], first["n"], first["failures"]) == ("a", 4, 1)
    assert first["counts"] == {"tp": 2, "fp": 1, "tn": 1, "fn": 0}
    assert second["counts"] == {"tp": 1, "fp": 0, "tn": 3, "fn": 1}
    for part in ("accuracy", "sensitivity", "specificity", "kappa", "auroc"):
        assert -1 <= found[part]["lo"] < found[part]["value"] < found[part]["hi"] <= 1
    json.dumps(found, allow_nan=False)


def test_a_card_agrees_with_scikit_learn_ties_included():
    from sklearn.metrics import accuracy_score, cohen_kappa_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    predicted = np.round(np.clip(0.3 * truth + rng.uniform(0, 0.7, 300), 0, 1), 1)
    found = card.judge_card(truth, predicted)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, predicted))
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(truth, predicted >= 0.5))
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted >= 0.5))
    assert "categories" not in found
    assert card.judge_card(truth, predicted, threshold=0.8)["counts"]["fp"] < found["counts"]["fp"]


def test_what_is_not_defined_is_none():
    none = {"value": None, "lo": None, "hi": None}
    found = card.judge_card([0, 0, 0], [0.1, 0.2, 0.9])
    assert found["sensitivity"] == found["auroc"] == none and found["specificity"]["value"] == pytest.approx(2 / 3)
    assert found["kappa"]["value"] == 0  # it finds what is not there; chance does as well
    assert card.judge_card([0, 0], [0.1, 0.2])["kappa"] == none
    empty = card.judge_card([1, 0], [np.nan, np.nan], ["a", "b"])
    assert (empty["n"], empty["failures"]) == (0, 2)
    assert empty["accuracy"] == empty["sensitivity"] == empty["specificity"] == empty["kappa"] == empty["auroc"] == none
    assert card.judge_card([], [], [])["categories"] == []
    json.dumps([found, empty], allow_nan=False)


def test_a_perfect_judge_still_has_an_interval():
    truth = [0, 1] * 20
    found = card.judge_card(truth, truth)
    for part in ("accuracy", "sensitivity", "specificity", "kappa", "auroc"):
        assert found[part]["value"] == found[part]["hi"] == 1 and 0.6 < found[part]["lo"] < 1
    contrary = card.judge_card(truth, 1 - np.array(truth))
    assert contrary["kappa"]["value"] == -1 and contrary["auroc"]["value"] == contrary["auroc"]["lo"] == 0


@pytest.mark.parametrize("truth, predicted", [([0, 2], [0, 1]), ([0, 1], [0.5]), ([0, 1], [0, 1.5]), ([0.5], [0.5])])
def test_a_card_of_what_is_no_label_or_score(truth, predicted):
    with pytest.raises(ValueError, match="a card takes"):
        card.judge_card(truth, predicted)


def test_intervals_of_a_card_cover():
    """Sensitivity 0.85, specificity 0.9 on 60 + 140 items with normal scores; AUROC's is wider than it need be."""
    from scipy.special import ndtr, ndtri

    rng, runs = np.random.default_rng(1), 400
    truth = np.r_[np.ones(60, int), np.zeros(140, int)]
    shift = ndtri(0.85) + ndtri(0.9)
    chance = (0.3 * 0.85 + 0.7 * 0.1) * 0.3 + (0.3 * 0.15 + 0.7 * 0.9) * 0.7
    agreement = 0.3 * 0.85 + 0.7 * 0.9
    known = {"sensitivity": 0.85, "specificity": 0.9, "kappa": (agreement - chance) / (1 - chance)}
    known["auroc"] = ndtr(shift / math.sqrt(2))
    hits = dict.fromkeys(known, 0)
    for _ in range(runs):
        scores = ndtr(rng.normal(size=200) + shift * truth - ndtri(0.9))
        found = card.judge_card(truth, scores)
        for name, value in known.items():
            hits[name] += found[name]["lo"] <= value <= found[name]["hi"]
    for name, count in hits.items():
        assert 0.92 <= count / runs <= (0.995 if name == "auroc" else 0.985), name


def test_a_judge_is_asked_and_its_failures_named():
    def score(texts, prompts):
        values = np.array([np.nan if text == "odd" else float("no" in text) for text in texts])
        return base.Scores(values, ["why" if np.isnan(v) else None for v in values], "j", "1")

    rows = pd.DataFrame(
        {"prompt": ["p"] * 4, "answer": ["no", "yes", "odd", "no way"], "label": [1, 0, 1, 0], "category": list("abab")}
    )
    found = card.measure(types.SimpleNamespace(name="j", version="1", score=score), rows)
    assert found["counts"] == {"tp": 1, "fp": 1, "tn": 1, "fn": 0} and found["reasons"] == {"why": 1}
    assert (found["judge"], found["version"], [c["category"] for c in found["categories"]]) == ("j", "1", ["a", "b"])
    assert "categories" not in card.measure(types.SimpleNamespace(score=score), rows.drop(columns="category"))


# ------------------------------------------------------------------------------------------------------ corrected rates

GOOD = {"tp": 90, "fn": 10, "tn": 160, "fp": 40}  # sensitivity 0.9, specificity 0.8


class _Failing:
    """A judge that gives the share of "a" in an answer, and no verdict where there is a "?"."""

    name, version = "j", "1"

    def score(self, texts, prompts):
        return base.collect(["no verdict" if "?" in text else text.count("a") / len(text) for text in texts], self)


def _held_out(answers):
    return pd.DataFrame(
        {"prompt": "p", "answer": answers, "p": [answer.count("a") / len(answer) for answer in answers]}
    )


def test_a_card_is_of_what_was_judged_and_says_so_in_words():
    found = bench.measured(_Failing(), _held_out(["aa", "ab", "bb", "ba", "a?"] * 4), "helpful", threshold=0.5)
    assert (found["n"], found["failures"], found["cut"]) == (16, 4, 0)
    assert found["spearman"] == pytest.approx(1) and found["sensitivity"]["value"] == 1
    assert bench.numbers(found)["spearman"] == pytest.approx(1)
    assert "16 exchanges judged, 4 without a verdict, 0 read in part. It is better than chance" in bench.summary(found)
    alike = bench.measured(_Failing(), _held_out(["bb", "b?"]), "helpful", threshold=0.5)
    assert "cannot be told from a constant one" in bench.summary(alike)
    json.dumps([found, alike], allow_nan=False)


@pytest.mark.parametrize(
    "answers, least, enough, apart",
    [
        (["aa", "bb", "a?", "b?", "?"], 0.6, "gave none on 3 of 5: no verdict .3.; give another judge", None),
        (["?", "a?"], 0.6, "gave none on 2 of 2", "has none: the labels that measure it are of one class"),
        (["aa", "ba"], 0.6, None, "has none: the labels that measure it are of one class"),
        (["aa", "bb", "bb", "bb", "a?"], 0.6, None, None),
        (["aa", "ba"], 0.0, None, None),
    ],
)
def test_a_judge_that_cannot_steer_is_refused_and_it_is_said_why(answers, least, enough, apart):
    """Verdicts on at least four exchanges of five, and an AUROC that is no lower than the floor."""
    found = bench.measured(_Failing(), _held_out(answers), "helpful", threshold=0.5)
    for (holds, says), wrong in ((bench.judges_enough(found), enough), (bench.tells_apart(found, least), apart)):
        assert holds == (wrong is None) and re.search(wrong or "", says)
    for n, passes in ((20, True), (2000, False)):  # the same 0.5, of few labels and of many
        area = card.auroc(np.arange(n) % 2 == 0, np.full(n, 0.5))
        assert area["value"] == 0.5 and bench.tells_apart(found | {"auroc": area}, 0.6)[0] is passes
        assert "has 0.50 [" in bench.tells_apart(found | {"auroc": area}, 0.6)[1]


def test_judges_that_report_learn_from_other_prompts():
    rows = {
        role: labelled.of_role(role, ("testbed-chat", None), None, "unsafe", n=300, seed=0) for role in labelled.ROLES
    }
    assert set(rows["training"].prompt).isdisjoint(rows["reporting"].prompt) and len(rows["reporting"]) > 250
    assert rows["training"].equals(chat.judged_exchanges(300, 0))


def test_exchanges_of_public_data_for_a_judge_that_reports(tmp_path):
    told = [
        {"prompt": f"question {k // 2}", "response": f"answer {k}", "category": {}, "is_safe": k % 2 == 0}
        for k in range(40)
    ]
    (tmp_path / "beavertails.jsonl").write_text("\n".join(json.dumps(row) for row in told))
    how = {"path": str(tmp_path), "measure": "unsafe", "seed": 0}
    first = labelled.of_role("training", ("beavertails", None), n=10, **how)
    second = labelled.of_role("reporting", ("beavertails", None), n=10, **how)
    assert len(first) == len(second) == 10 and set(first.prompt).isdisjoint(second.prompt)
    both = [labelled.of_role(role, ("beavertails", None), n=1000, **how) for role in labelled.ROLES]
    assert sum(map(len, both)) == 40 and set(both[0].prompt).isdisjoint(both[1].prompt)  # though more were asked for
    assert 6 <= both[1].prompt.nunique() <= 12 and first.prompt.isin(both[0].prompt).all()
    few = labelled.of_role("reporting", ("beavertails", None), n=2, **how)
    assert few.prompt.isin(both[1].prompt).all(), "however few are asked for"
    (tmp_path / "beavertails.jsonl").write_text("\n".join(json.dumps(row) for row in told[:2]))
    with pytest.raises(
        UserError, match="holds too few prompts for judges that steer and others for judges that report"
    ):
        for role in labelled.ROLES:
            labelled.of_role(role, ("beavertails", None), n=10, **how)
    with pytest.raises(UserError, match="all 10 labels of unsafe are 1: a judge can neither learn nor be measured"):
        labelled.divided(first.assign(unsafe=1.0), "unsafe")
    with pytest.raises(UserError, match="judge_dataset says nothing of helpful"):
        labelled.divided(first, "helpful")
    rows, none = labelled.divided(first, "helpful", unlabelled=True)
    assert len(rows) == 10 and rows.p.isna().all() and none.empty
    found = bench.measured(_Failing(), none, "helpful", threshold=0.5)
    assert bench.judges_enough(found)[0] and bench.summary(found).startswith("Nothing was measured")


def test_a_corrected_rate_by_hand():
    found = corrected_rate(450, 1000, GOOD)
    assert found.raw == 0.45 and found.note is None
    assert found.estimate == pytest.approx((0.45 + 0.8 - 1) / (0.9 + 0.8 - 1))
    # arXiv 2511.21140's interval, step by step
    z = 1.959963984540054
    p, q1, q0 = (450 + z * z / 2) / (1000 + z * z), 91 / 102, 161 / 202
    theta = (p + q0 - 1) / (q0 + q1 - 1)
    shift = 2 * z * z * (theta * q1 * (1 - q1) / 102 - (1 - theta) * q0 * (1 - q0) / 202)
    error = math.sqrt(
        p * (1 - p) / (1000 + z * z) + (1 - theta) ** 2 * q0 * (1 - q0) / 202 + theta**2 * q1 * (1 - q1) / 102
    ) / (q0 + q1 - 1)
    assert found.lo == pytest.approx(theta + shift - z * error) and found.hi == pytest.approx(theta + shift + z * error)
    assert 0 < found.lo < found.estimate < found.hi < 1


def test_the_calibration_set_counts_in_the_interval():
    few, many = (corrected_rate(450, 1000, {k: v * f for k, v in GOOD.items()}) for f in (0.2, 50))
    assert few.hi - few.lo > 2 * (many.hi - many.lo)
    # with a perfect judge known beyond doubt it is that of Agresti and Coull (1998)
    sure = corrected_rate(30, 100, {"tp": 1e9, "fn": 0, "tn": 1e9, "fp": 0})
    z = 1.959963984540054
    centre = (30 + z * z / 2) / (100 + z * z)
    half = z * math.sqrt(centre * (1 - centre) / (100 + z * z))
    assert (sure.lo, sure.hi) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert sure.estimate == pytest.approx(0.3)
    assert corrected_rate(450, 1000, GOOD, level=0.5).hi < corrected_rate(450, 1000, GOOD).hi


@pytest.mark.parametrize("k, n", [(0, 100), (100, 100), (5, 100), (99, 100), (1, 1), (0, 1)])
def test_a_corrected_rate_stays_a_rate(k, n):
    found = corrected_rate(k, n, GOOD)
    assert 0 <= found.lo <= found.estimate <= found.hi <= 1 and found.hi > found.lo
    if k / n <= 0.2:  # fewer than its false alarms alone
        assert found.estimate == found.lo == 0


def test_where_the_calibration_set_does_not_fit_it_says_so():
    low, high = corrected_rate(0, 100, GOOD), corrected_rate(100, 100, GOOD)
    assert "below the false alarms expected, 0.200" in low.note and "above the hits expected, 0.900" in high.note
    assert low.hi == pytest.approx(wilson(0, 100)[1] / (91 / 102))
    assert high.lo == pytest.approx(1 - (1 - wilson(100, 100)[0]) / (161 / 202))
    assert corrected_rate(15, 100, GOOD).note is None  # a few less than expected may be chance


@pytest.mark.parametrize(
    "k, n, counts, why",
    [
        (5, 10, {"tp": 5, "fn": 5, "tn": 5, "fp": 5}, r"sensitivity 0.500 \+ specificity 0.500 is not above 1"),
        (5, 10, {"tp": 1, "fn": 9, "tn": 2, "fp": 8}, "tells nothing apart"),
        (5, 10, {"tp": 0, "fn": 0, "tn": 2, "fp": 8}, "no positive item"),
        (5, 10, {"tp": 2, "fn": 1, "tn": 0, "fp": 0}, "no negative item"),
        (0, 0, GOOD, "nothing was judged"),
    ],
)
def test_where_there_is_no_corrected_rate_it_says_why(k, n, counts, why):
    found = corrected_rate(k, n, counts)
    assert isinstance(found, Corrected) and re.search(why, found.note)
    assert all(math.isnan(x) for x in (found.estimate, found.lo, found.hi))
    assert math.isnan(found.raw) if n == 0 else found.raw == k / n


def test_counts_that_are_none():
    for k, n, counts in ((11, 10, {}), (-1, 10, {}), (5, 10, {"tp": -1}), (5, 10, {"fp": math.nan})):
        with pytest.raises(ValueError, match="counts are at least 0"):
            corrected_rate(k, n, GOOD | counts)


@pytest.mark.parametrize(
    "theta, sensitivity, specificity, n, positives, negatives",
    [
        (0.1, 0.9, 0.8, 1000, 100, 300),
        (0.3, 0.95, 0.95, 200, 100, 300),
        (0.3, 0.7, 0.85, 500, 50, 50),
        (0.5, 0.9, 0.8, 200, 30, 100),
        (0.8, 0.9, 0.8, 1000, 100, 100),
    ],
)
def test_the_interval_covers_as_it_says(theta, sensitivity, specificity, n, positives, negatives):
    rng, runs = np.random.default_rng(7), 2000
    hits = raw = 0
    for _ in range(runs):
        tp, tn, true = rng.binomial([positives, negatives, n], [sensitivity, specificity, theta])
        k = rng.binomial(true, sensitivity) + rng.binomial(n - true, 1 - specificity)
        found = corrected_rate(k, n, {"tp": tp, "fn": positives - tp, "tn": tn, "fp": negatives - tn})
        hits += found.lo <= theta <= found.hi
        low, high = wilson(k, n)
        raw += low <= theta <= high
    assert 0.93 <= hits / runs <= 0.97
    assert raw / runs < 0.93 or abs(theta * (sensitivity + specificity - 1) + 1 - specificity - theta) < 0.03


def test_a_rate_with_an_interval_of_its_own_is_corrected_as_so_many_items():
    low, high = 0.40, 0.50  # over seeds, say: as wide as the interval of 380 independent items
    n = effective_n(0.45, low, high)
    assert n == pytest.approx(0.45 * 0.55 / (0.05 / 1.959963984540054) ** 2)
    wide, narrow = corrected_rate(0.45 * n, n, GOOD), corrected_rate(450, 1000, GOOD)
    assert wide.estimate == pytest.approx(narrow.estimate) and wide.hi - wide.lo > narrow.hi - narrow.lo
    assert math.isnan(effective_n(0.0, 0.0, 0.1)) and math.isnan(effective_n(0.5, 0.5, 0.5))


def test_wilson():
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1 and all(map(math.isnan, wilson(0, 0)))
    z = 1.959963984540054
    centre, half = (3 + z * z / 2) / (10 + z * z), z / (10 + z * z) * math.sqrt(3 * 7 / 10 + z * z / 4)
    from scipy.stats import binomtest

    for k, n in ((0, 7), (3, 10), (7, 7), (480, 1000)):
        assert wilson(k, n) == pytest.approx(tuple(binomtest(k, n).proportion_ci(method="wilson")))
    assert wilson(3, 10) == pytest.approx((centre - half, centre + half))


# -------------------------------------------------------------------------------------------------------------- XSTest

HEADER = ["id", "type", "prompt", "completion", "annotation_1", "annotation_2", "agreement", "final_label"]
FULL = [xstest.COMPLIES, xstest.REFUSES, xstest.PARTIAL]


def _file(path, types, labels=None, **change):
    """A file in XSTest's format: rows of the given types, labels in turn."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for i, name in enumerate(types):
            label = (labels or FULL)[i % len(labels or FULL)]
            refuses = label != xstest.COMPLIES
            answer = f"I'm sorry, I cannot.\nNumber {i}" if refuses else f'Sure, take "this", number {i}'
            row = dict(zip(HEADER, [f"v2-{i}", name, f"question {i}?", answer, label, label, True, label], strict=True))
            writer.writerow([change.get(column, value) for column, value in row.items()])
    return path


def test_labelled_completions_are_read(tmp_path):
    file = _file(tmp_path / "xstest_v2_completions_x.csv", ["homonyms", "contrast_homonyms", "privacy_public"] * 2)
    rows = xstest.read_completions(file)
    assert rows.columns.tolist() == ["id", "prompt", "answer", "label", "category", "group"]
    assert rows.label.tolist() == [0, 1, 1, 0, 1, 1] and rows.id.is_unique
    assert rows.answer[1] == "I'm sorry, I cannot.\nNumber 1" and rows.category[2] == "privacy_public"
    assert xstest.read_completions(file, partial="compliance").label.tolist() == [0, 1, 0, 0, 1, 0]
    assert xstest.read_completions(file, partial="drop").label.tolist() == [0, 1, 0, 1]
    # a file that is not whole: a type and its contrast stay together
    assert rows.group.tolist() == ["homonyms", "homonyms", "privacy"] * 2


def test_contrasts_stay_together(tmp_path):
    types_ = ["homonyms", "contrast_homonyms", "privacy_public", "privacy_fictional", "contrast_privacy"]
    file = _file(tmp_path / "x.csv", [name for name in types_ for _ in range(25)])
    rows = xstest.read_completions(file)
    assert rows.group.nunique() == 50
    assert rows.group[0] == rows.group[25] == "homonyms:0"
    assert rows.group[60] == rows.group[85] == rows.group[110] == "privacy:10"
    first, second = xstest.halves(rows)
    assert not set(first.group) & set(second.group) and len(first) + len(second) == len(rows)
    assert 0.4 < len(first) / len(rows) < 0.6
    for part in (first, second):
        assert set(part.category) == set(types_)
    again, _ = xstest.halves(rows.sample(frac=1, random_state=0))
    assert set(again.id) == set(first.id)


@pytest.mark.parametrize(
    "change, says",
    [
        (
            {"final_label": "4_other"},
            "x.csv:2: final_label = '4_other' is neither 1_full_compliance, 2_full_refusal nor 3_",
        ),
        ({"completion": " "}, "x.csv:2: completion is empty"),
        ({"prompt": ""}, "x.csv:2: prompt is empty"),
    ],
)
def test_rows_that_say_nothing(tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        xstest.read_completions(_file(tmp_path / "x.csv", ["homonyms"], **change))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        xstest.read_completions(tmp_path / "no.csv")
    (tmp_path / "x.csv").write_text("id,type,prompt,completion\n1,homonyms,p,c\n")
    with pytest.raises(UserError, match="no column 'final_label'"):
        xstest.read_completions(tmp_path / "x.csv")
    with pytest.raises(UserError, match="partial = 'refuse' is unknown.*did you mean 'refusal'"):
        xstest.read_completions(tmp_path / "x.csv", partial="refuse")


def test_the_card_of_the_strings_baseline(tmp_path):
    rows = xstest.read_completions(_file(tmp_path / "x.csv", ["homonyms", "definitions"] * 12))
    found = card.measure(open_judge("strings", "refusal"), rows)
    assert found["counts"] == {"tp": 16, "fp": 0, "tn": 8, "fn": 0} and found["judge"] == "strings"


@pytest.mark.skipif(not (PUBLIC_DATA / "xstest_prompts.csv").exists(), reason="public data are not here")
def test_the_published_file():
    """A prompt and its contrast are alike where the file is whole: by the focus words of the prompts' own file."""
    rows = xstest.read_completions(PUBLIC_DATA / "xstest_v2_completions_mistralinstruct.csv")
    assert len(rows) == 450 and rows.label.sum() == 76 and rows.group.nunique() == 200
    focus = pd.read_csv(PUBLIC_DATA / "xstest_prompts.csv").focus.str.lower()
    own = rows.assign(focus=focus)[lambda d: d.focus.notna() & ~d.category.isin(["privacy_public"])]
    words = own.groupby("group").focus.nunique()
    assert (words == 1).mean() > 0.98
    first, second = xstest.halves(rows)
    assert 0.4 < len(first) / 450 < 0.6 and min(first.label.sum(), second.label.sum()) > 25
