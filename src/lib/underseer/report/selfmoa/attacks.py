"""What the red team found: success by iteration, strategy and category, what became of each prompt, and how varied."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths.diversity import self_bleu
from underseer.report.rows import covers, metric_rows
from underseer.report.scores import checked
from underseer.report.selfmoa.measured import Measured, measure

COLUMNS = (
    *("variant", "seed", "id", "text", "category", "strategy", "iteration"),
    *("refused_by_attacker", "duplicate", "unsafe", "success"),
)
RED_TEAM = "red_team"
"""Name of the prompts of the red team as a data set."""


def red_team(attacks: pd.DataFrame | None, *, n_boot: int, seed: int) -> dict[str, Any] | None:
    """The red team's blocks of results.json, or None where none was at work.

    attacks: the archive of the last iteration of each variant and seed: COLUMNS. Success is the share of the prompts that
    were asked (neither a duplicate nor refused by the attacker, and judged by the training judge) whose answer counted as
    unsafe. Iteration k attacks the model that iteration k begins with. Returns {'rows' (by iteration), 'strategies',
    'categories', 'fate', 'covers'}.
    """
    if attacks is None or not len(attacks):
        return None
    frame = checked(attacks, COLUMNS)
    frame = frame.assign(method=[f"selfmoa_iter{int(k)}" for k in frame["iteration"]], dataset=RED_TEAM)
    for column in ("refused_by_attacker", "duplicate", "success"):
        frame[column] = frame[column].fillna(False).astype(bool)
    kept = ~frame["refused_by_attacker"] & ~frame["duplicate"]
    asked = frame[kept & frame["unsafe"].notna()]
    asked = asked.assign(attack_success=asked["success"].astype(float))
    groups = _success(asked, n_boot, seed)
    return {
        "rows": [r for g in groups for r in metric_rows(g)],
        "strategies": _split(asked, "strategy", n_boot, seed),
        "categories": _split(asked.assign(method="all"), "category", n_boot, seed),
        "fate": _fate(frame),
        "covers": covers(groups).replace("test ", ""),
    }


def _success(asked: pd.DataFrame, n_boot: int, seed: int) -> list[Measured]:
    return measure(
        asked, ("attack_success",), n_boot=n_boot, rng=np.random.default_rng([seed, 2000]), unit="attack prompts"
    )


def _split(asked: pd.DataFrame, column: str, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Success by the values of a column, by iteration and (method 'all') over all of them."""
    made = []
    for value, part in asked.groupby(column, sort=True):
        both = [part.assign(method="all")] + ([part] if (part["method"] != "all").any() else [])
        for rows in both:
            made += [{**r, column: str(value)} for g in _success(rows, n_boot, seed) for r in metric_rows(g)]
    return made


def _fate(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """By variant and iteration: counts summed over seeds; of the successes, means over seeds of how many categories and
    strategies they have and of their self-BLEU."""
    fates = []
    first = {v: k for k, v in enumerate(frame["variant"].unique())}
    parts = frame.groupby(["variant", "iteration"], sort=False)
    for (variant, iteration), part in sorted(parts, key=lambda p: (first[p[0][0]], p[0][1])):
        by_seed = [_counts(rows) for _, rows in part.groupby("seed")]
        means = ("categories", "strategies")
        total = {k: sum(c[k] for c in by_seed) for k in by_seed[0] if k not in (*means, "self_bleu")}
        total |= {k: float(np.mean([c[k] for c in by_seed])) for k in means}
        varied = [c["self_bleu"] for c in by_seed if not np.isnan(c["self_bleu"])]
        fates.append(
            {"variant": variant, "iteration": int(iteration), "n_seeds": len(by_seed), **total}
            | {"self_bleu": float(np.mean(varied)) if varied else None, "self_bleu_values": varied}
        )
    return [{**f, "variant": json.loads(f["variant"])} for f in fates]


def _counts(rows: pd.DataFrame) -> dict[str, float]:
    """What became of the prompts of one seed and iteration; each counts once."""
    refused, duplicate = rows["refused_by_attacker"], rows["duplicate"] & ~rows["refused_by_attacker"]
    kept = ~refused & ~duplicate
    hits = rows[kept & rows["success"]]
    return {
        "written": len(rows),
        "refused_by_attacker": int(refused.sum()),
        "duplicates": int(duplicate.sum()),
        "not_judged": int((kept & rows["unsafe"].isna()).sum()),
        "asked": int((kept & rows["unsafe"].notna()).sum()),
        "successes": len(hits),
        "distinct_successes": int(hits["text"].str.lower().str.split().str.join(" ").nunique()),
        "categories": int(hits["category"].nunique()),
        "strategies": int(hits["strategy"].nunique()),
        "self_bleu": self_bleu(hits["text"].tolist()),
    }
