"""The case study (W2S paper, Table 3): one item and what each model answered, chosen by a rule, not by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.maths.metrics import TOXIC

GUARDED = frozenset({"safety", "toxicity"})
"""Tasks whose real texts a report does not show unless asked to, harmless ones too: labels err, and so do scores."""

RULE = (
    "the first item in order of its content hash, of the lowest seed, on which the weak supervisor is wrong and the "
    "strong ceiling right; the rule does not look at what the weak-to-strong students answer"
)


CONTINUATION_RULE = (
    "the first prompt in order of its content hash, of the lowest seed, whose greedy continuation by the weak supervisor "
    "scores 0.5 or more and that by the strong ceiling less; the rule does not look at what the weak-to-strong students "
    "write"
)


def case_study(
    predictions: pd.DataFrame, *, task: str, synthetic: bool, labels: Sequence[str], texts: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The item of RULE with every method's answer; None where weak or ceiling is missing.

    Where no item fits the rule, the first item of all is taken and the entry says so. `text` is None where the text
    is unknown or guarded: real material is kept out of the results altogether, only its number of words is stated.
    """
    part = _first(predictions).drop_duplicates(["method", "variant", "id"]).sort_values("id", kind="stable")
    part = part.assign(right=(part["p"] >= 0.5) == part["label"])
    weak, ceiling = _extremes(part, "right")
    if weak.empty:
        return None
    head, rows = _chosen(RULE, part, weak.index, ~weak & ceiling)
    truth = labels[int(rows["label"].iloc[0])]
    answers = [
        {"method": r.method, "variant": json.loads(r.variant), "answer": labels[int(r.p >= 0.5)]}
        | {"p": float(r.p), "right": bool(r.right)}
        for r in rows.itertuples()
    ]
    typical = _students(part, weak.index[~weak & ceiling], "right")
    shown = _text(texts, head["id"], guarded=not synthetic and task in GUARDED)
    return {**head, "truth": truth, "answers": answers, **shown, "right_among_candidates": typical}


def continuation_case(
    continuations: pd.DataFrame, *, synthetic: bool, texts: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The prompt of CONTINUATION_RULE with every method's greedy continuation; None where weak or ceiling is missing.

    Where no prompt fits the rule, the first of all is taken and the entry says so. Of real data all texts are redacted
    (None, only their number of words is stated). texts: id -> prompt.
    """
    part = _first(continuations).query("draw == 0").sort_values("id", kind="stable")
    weak, ceiling = _extremes(part, "toxicity")
    if weak.empty:
        return None
    fits = (weak >= TOXIC) & (ceiling < TOXIC)
    head, rows = _chosen(CONTINUATION_RULE, part, weak.index, fits)
    stated = rows["prompt_toxicity"].dropna() if "prompt_toxicity" in rows else pd.Series(dtype=float)
    scored = part.dropna(subset="toxicity")
    return {
        "kind": "continuation",
        **head,
        "prompt_toxicity": float(stated.iloc[0]) if len(stated) else None,
        "answers": [_continuation(r, not synthetic) for r in rows.to_dict("records")],
        **_text(texts, head["id"], guarded=not synthetic),
        "civil_among_candidates": _students(scored.assign(civil=scored["toxicity"] < TOXIC), weak.index[fits], "civil"),
    }


def _first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first data set and the lowest seed."""
    part = table[table["dataset"] == table["dataset"].iloc[0]]
    return part[part["seed"] == part["seed"].min()]


def _extremes(part: pd.DataFrame, column: str) -> list[pd.Series]:
    """A column of weak supervisor and of ceiling, by id, of the ids that both have."""
    ends = [part[part["method"] == m].drop_duplicates("id").set_index("id")[column] for m in ("weak", "strong_ceiling")]
    both = ends[0].index.intersection(ends[1].index).sort_values()
    return [end.loc[both] for end in ends]


def _chosen(rule: str, part: pd.DataFrame, ids: pd.Index, fits: pd.Series) -> tuple[dict[str, Any], pd.DataFrame]:
    """The first entries of a case, and the rows of the item: the first that fits the rule, or the first of all."""
    chosen = ids[int(fits.to_numpy().argmax())]
    head = {"rule": rule, "rule_fits": bool(fits.any()), "dataset": str(part["dataset"].iloc[0])}
    head |= {"seed": int(part["seed"].iloc[0]), "n_candidates": int(fits.sum()), "n_items": len(ids), "id": chosen}
    return head, part[part["id"] == chosen]


def _text(texts: Mapping[str, str] | None, chosen: str, *, guarded: bool) -> dict[str, Any]:
    text = (texts or {}).get(chosen)
    words = None if text is None else len(text.split())
    return {"redacted": guarded, "words": words, "text": None if guarded else text}


def _students(part: pd.DataFrame, candidates: pd.Index, column: str) -> dict[str, float]:
    """Share of the candidates for which a column is true, of each student: how typical the chosen item is."""
    rows = part[part["id"].isin(candidates) & ~part["method"].isin(["weak", "strong_ceiling"])]
    return {m: float(v) for m, v in rows.groupby("method", sort=False)[column].mean().items()}


def _continuation(row: Mapping[str, Any], guarded: bool) -> dict[str, Any]:
    return {
        "method": row["method"],
        "variant": json.loads(row["variant"]),
        "toxicity": float(row["toxicity"]),
        "words": len(row["text"].split()),
        "text": None if guarded else row["text"],
    }


def answer_key(case: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Name under which the raw text of a continuation stands in the `texts` of `render.render`."""
    return f"{case['id']}/{answer['method']}/{json.dumps(answer['variant'], sort_keys=True)}"


def case_texts(case: Mapping[str, Any], continuations: pd.DataFrame) -> dict[str, str]:
    """The raw continuations of a case study, by `answer_key`: to show what results.json does not hold."""
    if case.get("kind") != "continuation":
        return {}
    rows = continuations[
        (continuations["dataset"] == case["dataset"])
        & (continuations["seed"] == case["seed"])
        & (continuations["id"] == case["id"])
        & (continuations["draw"] == 0)
    ]
    known = {answer_key(case, {**r, "variant": json.loads(r["variant"])}): r["text"] for r in rows.to_dict("records")}
    return {key: known[key] for a in case["answers"] if (key := answer_key(case, a)) in known}


def unredacted(case: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """The case with those raw texts put in that `texts` holds."""
    answers = [{**a, "text": texts.get(answer_key(case, a), a.get("text"))} for a in case["answers"]]
    return {**case, "answers": answers}
