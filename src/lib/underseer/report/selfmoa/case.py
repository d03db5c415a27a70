"""The case study: attack prompts with what the aligned model, the reset and the last iterate answer, chosen by a rule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from underseer.report.case import answer_key
from underseer.report.case import unredacted as answered
from underseer.report.names import iteration
from underseer.report.selfmoa.stages import agrees, order

KIND = "exchanges"
PROMPTS = 3
RULE = (
    "of each category the first prompt in order of its content hash, lowest seed, whose first answer by the reset model is "
    "unsafe; up to three categories in order of name; the rule does not look at what the iterates answer"
)


def case_study(frame: pd.DataFrame, *, threshold: float, synthetic: bool) -> dict[str, Any] | None:
    """Prompts of RULE of the first attack set with the answers; None where no reset or no answer texts are there.

    frame: as `answers.tidy` gives it. Real texts are left out (None, only their number of words is told), prompts and
    answers both. Where no prompt fits the rule, the first of each category is taken and the entry says so.
    """
    if not {"prompt", "answer"} <= set(frame.columns) or not (frame["role"] == "attack").any():
        return None
    part = frame[frame["dataset"] == frame.loc[frame["role"] == "attack", "dataset"].iloc[0]]
    part = part[(part["seed"] == part["seed"].min()) & (part["draw"] == part["draw"].min())]
    part = _stages(part)
    reset = part[part["method"] == "reset"].drop_duplicates("id").sort_values(["category", "id"], kind="stable")
    if not len(reset):
        return None
    fits = reset[reset["unsafe"] >= threshold]
    chosen = (fits if len(fits) else reset).drop_duplicates("category").head(PROMPTS)
    return {
        "kind": KIND,
        "rule": RULE,
        "rule_fits": bool(len(fits)),
        "dataset": str(part["dataset"].iloc[0]),
        "seed": int(part["seed"].iloc[0]),
        "draw": int(part["draw"].iloc[0]),
        "n_candidates": len(fits),
        "n_items": len(reset),
        "redacted": not synthetic,
        "prompts": [_prompt(part, r, synthetic) for r in chosen.to_dict("records")],
        "safe_among_candidates": _safe(part[part["id"].isin(fits["id"])], threshold),
    }


def _stages(part: pd.DataFrame) -> pd.DataFrame:
    """Rows of the aligned model, the reset and the last iterate: of the first variant of the latter, and what it began
    with."""
    iterates = [m for m in part["method"].unique() if iteration(m)]
    last = max(iterates, key=order) if iterates else None
    variant = json.loads(part.loc[part["method"] == last, "variant"].iloc[0]) if last else {}
    wanted = []
    for method in ("aligned", "reset", last):
        known = [v for v in part.loc[part["method"] == method, "variant"].unique() if agrees(json.loads(v), variant)]
        wanted += [(method, v) for v in known[:1]]
    return part[[which in wanted for which in zip(part["method"], part["variant"], strict=True)]]


def _prompt(part: pd.DataFrame, row: Mapping[str, Any], synthetic: bool) -> dict[str, Any]:
    rows = part[part["id"] == row["id"]].to_dict("records")
    return {
        "id": row["id"],
        "category": str(row["category"]),
        "words": len(str(row["prompt"]).split()),
        "text": str(row["prompt"]) if synthetic else None,
        "answers": [
            {
                "method": r["method"],
                "variant": json.loads(r["variant"]),
                "unsafe": float(r["unsafe"]),
                "helpful": float(r["helpful"]),
                "words": len(str(r["answer"] or "").split()),
                "text": str(r["answer"] or "") if synthetic else None,
            }
            for r in rows
        ],
    }


def _safe(part: pd.DataFrame, threshold: float) -> dict[str, float]:
    """Share of the candidate prompts that each stage but the reset answers safely: how typical the chosen ones are."""
    judged = part[(part["method"] != "reset") & part["unsafe"].notna()]
    return {m: float(v) for m, v in (judged["unsafe"] < threshold).groupby(judged["method"], sort=False).mean().items()}


def unredacted(case: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """The case with those raw texts put in that `texts` holds: of a prompt by its id, of an answer by `answer_key`."""
    prompts = [{**answered(p, texts), "text": texts.get(p["id"], p["text"])} for p in case["prompts"]]
    return {**case, "prompts": prompts}


def raw_texts(case: Mapping[str, Any], answers: pd.DataFrame) -> dict[str, str]:
    """The raw prompts and answers of a case study, by id and `answer_key`, from the answers that it was made from
    (method, variant, seed, set, id, draw, prompt, answer)."""
    ids = [p["id"] for p in case["prompts"]]
    rows = answers[answers["id"].isin(ids) & (answers["seed"] == case["seed"]) & (answers["draw"] == case["draw"])]
    texts: dict[str, str] = {}
    for row in rows.to_dict("records"):
        key = answer_key(row, {"method": row["method"], "variant": json.loads(row["variant"])})
        texts |= {row["id"]: str(row["prompt"]), key: str(row["answer"] or "")}
    return texts
