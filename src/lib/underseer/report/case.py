"""The case study (W2S paper, Table 3): one item and what each model answered, chosen by a rule, not by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

GUARDED = frozenset({"safety", "toxicity"})
"""Tasks whose class 1 is material that a report does not show unless asked to."""

RULE = (
    "the first item in order of its content hash, of the lowest seed, on which the weak supervisor is wrong and the "
    "strong ceiling right; the rule does not look at what the weak-to-strong students answer"
)


def case_study(
    predictions: pd.DataFrame, *, task: str, synthetic: bool, labels: Sequence[str], texts: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The item of RULE with every method's answer; None where weak or ceiling is missing.

    Where no item fits the rule, the first item of all is taken and the entry says so. `text` is None where the text
    is unknown or guarded: real material whose label or whose ceiling's answer is class 1 is kept out of the results
    altogether, only its number of words is told.
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
    guarded = not synthetic and task in GUARDED and (truth == 1 or float(ceiling.loc[chosen, "p"]) >= 0.5)
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
