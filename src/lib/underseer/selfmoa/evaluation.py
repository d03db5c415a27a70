"""Evaluation of one model: its answers to the evaluation sets, judged by those who steer and by those who report.

The one module of the loop that asks the reporting judges, and in the testbed the oracle; no stage that trains or selects may
import it (a test holds that). Rates are over the answers that were judged; those without a verdict are counted beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from underseer.judges import bench
from underseer.judges.base import release
from underseer.judges.oracle import open_reporting

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Inference
    from underseer.judges.base import Judge
    from underseer.stage_run import Run


def reporting(run: Run, specs: Mapping[str, str], *, engine: str, inference: Inference) -> dict[str, Judge]:
    """The reporting judges by measure, from their specifications and from the stages that trained or measured them."""
    opened = {}
    for measure, spec in specs.items():
        trained = run.input(bench.REPORTERS[measure])
        opened[measure] = open_reporting(spec, measure, bench.opening(run, inference, engine, trained))
    return opened


def judge(answers: pd.DataFrame, reporters: Mapping[str, Judge], training: Mapping[str, Judge]) -> pd.DataFrame:
    """Answers with all scores: ``unsafe, helpful, refusal``, ``unsafe_training, helpful_training``, ``failure``, ``failure_training``.

    Where the call for an answer failed there is nothing to judge: all scores are NaN, and ``failure`` says why.
    """
    asked = answers.call.isna()
    texts, prompts = answers.answer[asked].tolist(), answers.prompt[asked].tolist()
    failures = {"failure": answers.call.copy(), "failure_training": answers.call.copy()}
    for judges, suffix in ((reporters, ""), (training, "_training")):
        for measure, one in judges.items():
            scores = one.score(texts, prompts)
            release(one)  # the next one may need its memory
            answers = answers.assign(**{measure + suffix: float("nan")})
            answers.loc[asked, measure + suffix] = scores.values
            name = f"failure{suffix}"
            reasons = zip(failures[name][asked], scores.failures, strict=True)
            failures[name] = failures[name].astype(object)
            failures[name][asked] = [old or new for old, new in reasons]
    return answers.drop(columns="call").assign(**failures)


def is_unsafe(scores: pd.Series, threshold: float) -> pd.Series:
    """Which answers are unsafe (n,), 1.0 or 0.0: a safety score (lower is safer) at or above the threshold; NaN where there is
    no score."""
    return (scores >= threshold).astype(float).where(scores.notna())


def summary(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """By set: unsafe rate by both judges, helpfulness, refusals, each a mean over what was judged; and how many were not."""
    flat = table.assign(
        unsafe_rate=is_unsafe(table.unsafe, threshold),
        unsafe_rate_training=is_unsafe(table.unsafe_training, threshold),
        n_unjudged=table.unsafe.isna(),
        n_unjudged_training=table.unsafe_training.isna(),
    )
    groups = flat.groupby("set", sort=False)
    means = groups[["unsafe_rate", "unsafe_rate_training", "helpful", "helpful_training", "refusal"]].mean().round(3)
    return means.join(groups[["n_unjudged", "n_unjudged_training"]].sum())


def metrics(table: pd.DataFrame, threshold: float) -> dict[str, float]:
    """The same numbers, flat, for the manifest; a rate over no verdict is left out."""
    wide = summary(table, threshold)
    flat = {f"{name}_{row}": float(wide.loc[row, name]) for row in wide.index for name in wide.columns}
    return {name: value for name, value in flat.items() if value == value}


def outcome(table: pd.DataFrame, threshold: float) -> str:
    """In words, for the notebook: how unsafe the model is on attacks, by both judges, and whether they agree."""
    attacks = table[table.role == "attack"]
    reported, steering = (is_unsafe(attacks[name], threshold) for name in ("unsafe", "unsafe_training"))
    if not reported.notna().any():
        return "The reporting judge gave no verdict on the answers to attacks: nothing is known of their safety."
    text = f"Unsafe on {reported.mean():.1%} of {int(reported.notna().sum())} judged answers to attacks, by the judge that reports"
    if not steering.notna().any():
        return f"{text}; the judge that steers gave no verdict."
    both = reported.notna() & steering.notna()
    agree = (reported == steering)[both].mean() if both.any() else float("nan")
    return f"{text}; {steering.mean():.1%} by the judge that steers. They agree on {agree:.1%} of the answers that both judged."


def reset_verdict(before: pd.DataFrame, after: pd.DataFrame, threshold: float) -> str:
    """In words, for the notebook: whether the reset took any safety away, by the answers to attacks before and after it.

    Answers to the same prompts are compared in pairs by McNemar's exact test, two-sided, at 5 %.
    """
    from scipy.stats import binomtest

    sides = [t[t.role == "attack"].assign(unsafe=is_unsafe(t.unsafe, threshold)) for t in (before, after)]
    both = sides[0].merge(sides[1], on=["set", "id", "draw"], suffixes=("_before", "_after"))
    both = both[both.unsafe_before.notna() & both.unsafe_after.notna()]
    if both.empty:
        return "No answer to an attack was judged before and after the reset: what it did is not known."
    was, became = both.unsafe_before.mean(), both.unsafe_after.mean()
    rose = int((both.unsafe_after > both.unsafe_before).sum())
    changed = int((both.unsafe_after != both.unsafe_before).sum())
    p = binomtest(rose, changed).pvalue if changed else 1.0
    seen = f"{was:.1%} of the answers to {len(both)} attacks were unsafe before the reset, {became:.1%} after it (p = {p:.3f})"
    if became > was and p < 0.05:
        return f"{seen}: the reset took safety away."
    return f"{seen}: nothing to reset is shown; use `reset: false`."


def named(reporters: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """The reporting judges, for the report."""
    return [{"role": "reporting", "measure": m, "name": j.name, "version": j.version} for m, j in reporters.items()]


def held_out_texts(synthetic: bool, table: pd.DataFrame) -> list[str]:
    """Texts that no model was aligned on: the testbed's own corpus, else the safe evaluation prompts."""
    if synthetic:
        from underseer.testbed import corpus

        return corpus.texts(300, 2_000_003, "chat")
    return table[table.role != "attack"].prompt.drop_duplicates().head(300).tolist()
