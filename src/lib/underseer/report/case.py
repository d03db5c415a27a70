"""The case study (W2S paper, Table 3): one item and what each model answered, chosen by a rule, not by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths.metrics import TOXIC

GUARDED = frozenset({"safety", "toxicity"})
"""Tasks whose real texts a report does not show unless asked to, harmless ones too: labels err, and so do scores."""

RULE = (
    "the first item in order of its content hash, of the lowest seed, on which the weak supervisor is wrong and the "
    "strong ceiling right; the rule does not look at what the weak-to-strong students answer"
)


def case_study(
    predictions: pd.DataFrame, *, task: str, synthetic: bool, labels: Sequence[str], texts: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The item of RULE with every method's answer; None where weak or ceiling is missing.

    Where no item fits the rule, the first item of all is taken and the entry says so. `text` is None where the text
    is unknown or guarded: real material is kept out of the results altogether, only its number of words is told.
    """
    part = predictions[predictions["dataset"] == predictions["dataset"].iloc[0]]
    part = part[part["seed"] == part["seed"].min()]
    part = part.drop_duplicates(["method", "variant", "id"]).sort_values("id", kind="stable")
    weak, ceiling = (
        part[part["method"] == m].drop_duplicates("id").set_index("id") for m in ("weak", "strong_ceiling")
    )
    both = weak.index.intersection(ceiling.index).sort_values()
    if both.empty:
        return None
    weak, ceiling = weak.loc[both], ceiling.loc[both]
    fits = ((weak["p"] >= 0.5) != weak["label"]) & ((ceiling["p"] >= 0.5) == ceiling["label"])
    chosen = both[np.flatnonzero(fits)[0]] if fits.any() else both[0]
    truth = int(weak.loc[chosen, "label"])
    rows = part[part["id"] == chosen]
    answers = [
        {
            "method": r.method,
            "variant": json.loads(r.variant),
            "answer": labels[int(r.p >= 0.5)],
            "p": float(r.p),
            "right": bool((r.p >= 0.5) == truth),
        }
        for r in rows.itertuples()
    ]
    text = (texts or {}).get(chosen)
    guarded = not synthetic and task in GUARDED
    return {
        "rule": RULE,
        "rule_fits": bool(fits.any()),
        "dataset": str(part["dataset"].iloc[0]),
        "seed": int(part["seed"].iloc[0]),
        "n_candidates": int(fits.sum()),
        "n_items": len(both),
        "id": chosen,
        "truth": labels[truth],
        "answers": answers,
        "redacted": guarded,
        "words": None if text is None else len(text.split()),
        "text": None if guarded else text,
        "right_among_candidates": _right(part, both[np.flatnonzero(fits)]),
    }


def _right(part: pd.DataFrame, candidates: pd.Index) -> dict[str, float]:
    """Share of the candidate items that each student gets right: how typical the chosen item is."""
    rows = part[part["id"].isin(candidates) & ~part["method"].isin(["weak", "strong_ceiling"])]
    right = (rows["p"] >= 0.5) == rows["label"]
    return {m: float(v) for m, v in right.groupby(rows["method"], sort=False).mean().items()} if len(rows) else {}


CONTINUATION_RULE = (
    "the first prompt in order of its content hash, of the lowest seed, whose greedy continuation by the weak supervisor "
    "scores 0.5 or more and that by the strong ceiling less; the rule does not look at what the weak-to-strong students "
    "write"
)


def continuation_case(
    continuations: pd.DataFrame, *, synthetic: bool, texts: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The prompt of CONTINUATION_RULE with every method's greedy continuation; None where weak or ceiling is missing.

    Where no prompt fits the rule, the first of all is taken and the entry says so. Of real data all texts are redacted
    (None, only their number of words is told). texts: id -> prompt.
    """
    part = continuations[continuations["dataset"] == continuations["dataset"].iloc[0]]
    part = part[(part["seed"] == part["seed"].min()) & (part["draw"] == 0)].sort_values("id", kind="stable")
    weak, ceiling = (
        part[part["method"] == m].drop_duplicates("id").set_index("id") for m in ("weak", "strong_ceiling")
    )
    both = weak.index.intersection(ceiling.index).sort_values()
    if both.empty:
        return None
    fits = (weak.loc[both, "toxicity"] >= TOXIC) & (ceiling.loc[both, "toxicity"] < TOXIC)
    candidates = both[np.flatnonzero(fits)]
    chosen = candidates[0] if len(candidates) else both[0]
    rows = part[part["id"] == chosen]
    guarded = not synthetic
    prompt = (texts or {}).get(chosen)
    told = rows["prompt_toxicity"].dropna() if "prompt_toxicity" in rows else pd.Series(dtype=float)
    return {
        "kind": "continuation",
        "rule": CONTINUATION_RULE,
        "rule_fits": bool(len(candidates)),
        "dataset": str(part["dataset"].iloc[0]),
        "seed": int(part["seed"].iloc[0]),
        "n_candidates": len(candidates),
        "n_items": len(both),
        "id": chosen,
        "prompt_toxicity": float(told.iloc[0]) if len(told) else None,
        "answers": [_continuation(r, guarded) for r in rows.to_dict("records")],
        "redacted": guarded,
        "words": None if prompt is None else len(prompt.split()),
        "text": None if guarded else prompt,
        "civil_among_candidates": _civil(part, candidates),
    }


def _continuation(row: Mapping[str, Any], guarded: bool) -> dict[str, Any]:
    return {
        "method": row["method"],
        "variant": json.loads(row["variant"]),
        "toxicity": float(row["toxicity"]),
        "words": len(row["text"].split()),
        "text": None if guarded else row["text"],
    }


def _civil(part: pd.DataFrame, candidates: pd.Index) -> dict[str, float]:
    """Share of the candidate prompts that each student continues with a score below 0.5."""
    rows = part[part["id"].isin(candidates) & ~part["method"].isin(["weak", "strong_ceiling"])].dropna(
        subset="toxicity"
    )
    civil = rows["toxicity"] < TOXIC
    return {m: float(v) for m, v in civil.groupby(rows["method"], sort=False).mean().items()} if len(rows) else {}


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
    found = {
        (r["method"], json.dumps(json.loads(r["variant"]), sort_keys=True)): r["text"] for r in rows.to_dict("records")
    }
    keys = [(answer_key(case, a), (a["method"], json.dumps(a["variant"], sort_keys=True))) for a in case["answers"]]
    return {key: found[which] for key, which in keys if which in found}


def unredacted(case: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """The case with those raw texts put in that `texts` holds."""
    answers = [{**a, "text": texts.get(answer_key(case, a), a.get("text"))} for a in case["answers"]]
    return {**case, "answers": answers}
