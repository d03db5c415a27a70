"""What notebooks show of rows."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

from underseer import look
from underseer.look import seen
from underseer.maths import votes


def test_real_texts_are_redacted_and_the_testbeds_are_shown_escaped() -> None:
    """Published sets hold texts with both labels, and labels that err: texts labelled safe are redacted too."""
    rows = pd.DataFrame(
        {
            "id": list("abcd"),
            "text": ["Kind <b>words</b>", "Do harm!", "do harm", "An evil plan"],
            "label": [0, 0, 1, 1],
        }
    )
    hidden = look.examples(rows, ("safe", "unsafe"), synthetic=False).to_html()
    assert hidden.count("[redacted") == 4 and "[redacted, 3 words, id d]" in hidden
    assert not any(word in hidden.lower() for word in ("kind", "harm", "evil"))
    shown = look.examples(rows, ("safe", "unsafe"), synthetic=True).to_html()
    assert "Kind &lt;b&gt;" in shown and "evil" in shown


def test_the_source_of_a_formula_with_its_place() -> None:
    shown = look.source(votes.hard_vote).data
    assert shown.startswith("`underseer.maths.votes`, line ") and "```python\ndef hard_vote(p" in shown
    assert "\n    share = (p >= 0.5).mean(axis=0)\n" in shown  # indented as it stands
    assert "/" not in shown.partition("```")[0]  # no path of this machine
    both = look.source(votes.hard_vote, votes.soft_vote).data
    assert both.startswith(shown) and "def soft_vote(p" in both
    weighted = lambda p: 2 * p[0] + p[1]  # noqa: E731 as a researcher writes in a cell
    assert "weighted = lambda p: 2 * p[0] + p[1]" in look.source(weighted).data
    for odd in (len, functools.partial(votes.hard_vote)):
        assert "no Python source" in look.source(odd).data


# ------------------------------------------------------------------------------------------ what was seen, in words

N = 200
TRUTH = pd.DataFrame({"id": [f"r{i:03}" for i in range(N)], "text": "words of a row", "label": [0, 1] * (N // 2)})
SPLIT = TRUTH.assign(split="validation")


def answers(wrong: int, start: int = 0) -> pd.DataFrame:
    """Probabilities that are right but for ``wrong`` rows from ``start`` on."""
    label = TRUTH.label.to_numpy().copy()
    label[start : start + wrong] = 1 - label[start : start + wrong]
    return TRUTH[["id"]].assign(p=np.where(label == 1, 0.9, 0.1))


def curve(*losses: float) -> pd.DataFrame:
    steps = range(10, 10 * len(losses) + 1, 10)
    return pd.DataFrame({"step": steps, "metric": "validation_loss", "value": losses})


def aligned(*each: pd.DataFrame) -> pd.DataFrame:
    return TRUTH[["id"]].assign(**{f"p{k}": a.p.to_numpy() for k, a in enumerate(each)})


def labelled(given: pd.DataFrame, share: float | np.ndarray = 1.0) -> pd.DataFrame:
    return TRUTH[["id"]].assign(weak_label=(given.p >= 0.5).astype(int), share=share)


def sure(wrong: int, doubted: int) -> pd.DataFrame:
    """Labels wrong on the first rows, of which and beyond which so many are doubted."""
    return labelled(answers(wrong), np.where(np.arange(N) < doubted, 2 / 3, 1.0))


EVEN = answers(0).assign(p=0.9)  # always class 1: right on every other row
DROPPED = pd.DataFrame({"reason": ["loaded", "empty text", "kept"], "rows": [10, 3, 7]})
HYGIENE = pd.DataFrame({"check": ["exact overlap", "rows"], "scope": ["test in any other", "all"], "rows": [0, 9]})
VOTERS = aligned(answers(60), answers(60, 60), answers(60, 120))


def scored(toxicity: list[float | None], training: list[float]) -> pd.DataFrame:
    """Scores of both judges; each prompt has two draws, of which only the first may lack one."""
    first = pd.DataFrame({"id": range(len(training)), "toxicity": toxicity, "toxicity_training": training}, dtype=float)
    return pd.concat([first, first.fillna(0.3)]).assign(text="x")


TEXTS = pd.Series(["one two three four", "five six seven eight"] * 9)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (seen.data(SPLIT, None, HYGIENE), ["as published", "None of the 0 test rows"]),
        (
            seen.data(SPLIT.assign(split="test"), DROPPED, HYGIENE),
            ["dropped 3 of 10 rows", "None of the 200 test rows"],
        ),
        (seen.data(SPLIT, DROPPED.assign(rows=7), HYGIENE.assign(rows=5)), ["nothing to drop", "5 of 0 test rows"]),
        (seen.supervisor(TRUTH, answers(20), curve(2, 1), 20), ["90.0% of 200", "in part", "last look, step 20"]),
        (seen.supervisor(TRUTH, EVEN, curve(2, 1, 3), 20), ["50.0% of 200", "no clear difference", "step 20 of 30"]),
        (seen.supervisor(TRUTH, answers(150), curve(), 9), ["25.0%", "fewer than", "No validation rows"]),
        (seen.weak_labels(TRUTH, aligned(answers(60)), labelled(answers(60))), ["70.0%", "one supervisor's own"]),
        (seen.weak_labels(TRUTH, VOTERS, labelled(answers(0))), ["100.0%", "better than its 3", "agree on every row"]),
        (seen.weak_labels(TRUTH, VOTERS, sure(60, N)), ["70.0%", "not clearly more or less than its 3", "on no row"]),
        (seen.weak_labels(TRUTH, VOTERS, sure(150, 150)), ["25.0%", "worse than its 3", "agreement tells which"]),
        (seen.weak_labels(TRUTH, VOTERS, sure(0, 100)), ["agreement does not clearly tell"]),
        (seen.student(TRUTH, answers(10), TRUTH, weak=False), ["95.0%", "the ceiling"]),
        (seen.student(TRUTH, answers(10), TRUTH.assign(label=0), weak=True), ["50.0%", "better than what it was"]),
        (seen.student(TRUTH, answers(0), TRUTH, weak=True), ["100.0%", "no clear difference"]),
        (seen.student(TRUTH, answers(90), TRUTH, weak=True), ["55.0%", "worse than what it was"]),
        (
            seen.compared(
                TRUTH, answers(50), {"a": answers(50), "b": answers(10), "c": answers(50, 9), "d": answers(99)}
            ),
            ["a: 75.0% of 200 rows, against 75.0%: right on the same", "b: 95.0%", "against 75.0%: better"]
            + ["c: 75.0% of 200 rows, against 75.0%: no clear", "d: 50.5% of 200 rows, against 75.0%: worse"],
        ),
        (seen.writer(TEXTS.str[:7], TEXTS, curve(2, 1), 20), ["2.0 words", "from 4.0", "Only 11%", "last look"]),
        (seen.writer(TEXTS.iloc[:2], TEXTS, curve(2, 1), 10), ["4.0 words in the mean", "neither empty"]),
        (seen.writer(pd.Series(["", "a b", ""]), TEXTS, curve(2), 10), ["67% are empty"]),
        (seen.language(curve(), 100), ["is not known"]),
        (seen.language(curve(4, 5), 100), ["4.00 to 5.00", "has not fallen"]),
        (seen.language(curve(9, 5), 100), ["still above 4.61"]),
        (seen.language(curve(5, 2), 100), ["among all 100 tokens would lose 4.61"]),
        (seen.scores(scored([0.2, 0.3], [0.4, 0.5])), ["0.250 to the judge that reports, 0.450", "milder one"]),
        (seen.scores(scored([0.4, 0.5], [0.2, 0.3])), ["stricter one"]),
        (seen.scores(scored([0.4, 0.2, None], [0.2, 0.4, 0.9])), ["0.300 to", "no more than chance", "1 of 6"]),
        (seen.scores(scored([0.9], [0.1])), ["no more than chance"]),  # two draws for one prompt are one row
        (seen.scores(scored([None], [0.1]).iloc[:1]), ["No continuation has a score"]),
    ],
)
def test_words_follow_from_the_numbers(told, words: list[str]) -> None:
    assert [word for word in words if word not in told.data] == [], told.data


@pytest.mark.parametrize(
    ("chosen", "words"),
    [(0, "The choice is less toxic"), (1, "more toxic than"), (None, "neither clearly less nor more")],
)
def test_words_of_a_choice_among_texts(chosen: int | None, words: str) -> None:
    toxicity = np.stack([np.full(50, 0.1), np.full(50, 0.9)])[None]  # one judge, two candidates, 50 prompts
    at = np.arange(50) % 2 if chosen is None else np.full(50, chosen)
    labels = pd.DataFrame({"toxicity": toxicity[0][at, np.arange(50)]})
    assert words in seen.choice(labels, toxicity).data
    assert "There was no choice" in seen.choice(labels, toxicity[:, :1]).data


def test_mistakes_and_lessons_are_redacted_unless_synthetic() -> None:
    given = TRUTH[["id"]].assign(given=0)
    rows = TRUTH.assign(text="a secret text", continuation=" and more", text_pair="its pair")
    open_, hidden = (seen.mistakes(rows, given, ("no", "yes"), synthetic=s).to_html() for s in (True, False))
    assert open_.count("a secret text") == 3 and "its pair" in open_ and "yes" in open_
    assert "a secret" not in hidden and "its pair" not in hidden and hidden.count("[redacted") == 2 * 3
    assert (
        seen.mistakes(rows, given.assign(given=TRUTH.label), ("no", "yes"), synthetic=True) == "Every label is right."
    )
    open_, hidden = (seen.lessons(rows, synthetic=s).to_html() for s in (True, False))
    assert "and more" in open_ and "a secret" not in hidden and "and more" not in hidden
    assert hidden.count("[redacted") == 8
