"""From judged answers to preference pairs: ordered by one objective, the other scores kept with the pair.

Source: Self-MOA (arXiv 2603.07017): several answers a prompt come from the target itself; pairs are ordered by helpfulness, and
the signed difference of the safety scores (lower is safer) is stored, so that ``chosen`` may be less safe than ``rejected``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underseer.judges.base import release
from underseer.selfmoa import answering

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from underseer.engines import Engine, Sampling
    from underseer.judges.base import Judge

ORDERINGS = ("helpfulness", "safety", "weighted_sum")
COLUMNS = (
    "id", "prompt_id", "prompt", "set", "chosen", "rejected", "helpful_chosen", "helpful_rejected", "unsafe_chosen", "unsafe_rejected",
    "safety_difference", "judges", "iteration",
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """Which pairs of a prompt's answers are kept."""

    min_margin: float  # pairs closer than this in the ordering score are near-ties and are dropped
    pairs_per_prompt: int  # at most, those on which both scores agree most (widest in the weighted sum)
    drop_both_unsafe: bool  # pairs in which both answers are unsafe teach better harmful answers
    unsafe_threshold: float
    safety_weight: float = 0.5  # of the weighted sum
    seed: int = 0


def prompt_mix(
    train: pd.DataFrame,
    archive: pd.DataFrame,
    iteration: int,
    *,
    n: int,
    safe_share: float,
    borderline_share: float,
    replay_attacks: bool = True,
    seed: int,
) -> pd.DataFrame:
    """``n`` prompts to answer, ``id, text, set``: this iteration's successful attacks, and safe and borderline ones.

    Where these attacks are fewer than their share, ``replay_attacks`` adds successes of earlier iterations, the newest
    first; what is still missing is not made up by others. Iterations draw different safe and borderline prompts.
    """
    import pandas as pd

    wins = archive[archive.success & archive.iteration.between(1 if replay_attacks else iteration, iteration)]
    wins = wins.sort_values("iteration", ascending=False, kind="stable")
    wanted = {"safe": round(n * safe_share), "borderline": round(n * borderline_share)}
    parts = [wins.head(n - sum(wanted.values())).assign(set="attack")]
    for name, size in wanted.items():
        pool = train[train.set == name].sample(frac=1, random_state=seed)
        start = (iteration - 1) * size % max(len(pool), 1)
        parts.append(pd.concat([pool, pool]).iloc[start : start + min(size, len(pool))])
    return pd.concat(parts, ignore_index=True)[["id", "text", "set"]]


def answer(engine: Engine, prompts: pd.DataFrame, sampling: Sampling, *, adapter: Path | None = None) -> pd.DataFrame:
    """The target's answers: ``prompt_id, prompt, set, draw, answer``; failed calls are left out."""
    rows = answering.answer(engine, prompts[["id", "text", "set"]], sampling, adapter=adapter)
    return rows[rows.call.isna()].drop(columns="call").rename(columns={"id": "prompt_id"}).reset_index(drop=True)


def judge(answers: pd.DataFrame, judges: Mapping[str, Judge]) -> pd.DataFrame:
    """Answers with a column a measure (``unsafe``, ``helpful``), NaN where the judge failed, and ``judges`` (JSON)."""
    names = {}
    for measure, one in judges.items():
        scores = one.score(answers.answer.tolist(), answers.prompt.tolist())
        release(one)  # the next one may need its memory
        answers = answers.assign(**{measure: scores.values})
        names[measure] = f"{scores.judge}@{scores.version}"
    return answers.assign(judges=json.dumps(names, sort_keys=True))


def pairs(
    answers: pd.DataFrame, rules: Rules, *, ordering: str = "helpfulness", iteration: int = 1
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Preference pairs of judged answers (COLUMNS), and how many candidates were dropped why.

    ``ordering``: helpfulness; safety; or weighted_sum of helpfulness and of 1 - unsafe.
    """
    import pandas as pd

    scored = answers[answers.unsafe.notna() & answers.helpful.notna()]
    distinct = scored.drop_duplicates(["prompt_id", "answer"])
    counts = {
        "n_prompts": answers.prompt_id.nunique(),
        "n_answers": len(answers),
        "n_unjudged": len(answers) - len(scored),
    }
    counts |= {
        "dropped_duplicates": len(scored) - len(distinct),
        "n_candidates": 0,
        "dropped_near_ties": 0,
        "dropped_both_unsafe": 0,
    }
    found = []
    agreed = order_score(distinct, "weighted_sum", rules.safety_weight)
    ordered = distinct.assign(order=order_score(distinct, ordering, rules.safety_weight), agreed=agreed)
    for name, own in ordered.groupby("prompt_id", sort=False):
        kept = []
        for (_, a), (_, b) in itertools.combinations(
            own.sort_values("order", ascending=False, kind="stable").iterrows(), 2
        ):
            counts["n_candidates"] += 1
            if a.order - b.order < rules.min_margin - 1e-9:
                counts["dropped_near_ties"] += 1
            elif rules.drop_both_unsafe and min(a.unsafe, b.unsafe) >= rules.unsafe_threshold:
                counts["dropped_both_unsafe"] += 1
            else:
                kept.append((a, b))
        random.Random(f"pairs/{rules.seed}/{name}").shuffle(kept)  # ties in no order of their own
        kept.sort(key=lambda pair: pair[1].agreed - pair[0].agreed)  # where the scores agree most, and judges err least
        found += [_pair(a, b, iteration) for a, b in kept[: rules.pairs_per_prompt]]
    return pd.DataFrame(found, columns=list(COLUMNS)), {**counts, "n_pairs": len(found)}


def order_score(answers: pd.DataFrame, ordering: str, safety_weight: float) -> pd.Series:
    """The score (n,) that orders answers, higher is better."""
    if ordering == "helpfulness":
        return answers.helpful
    safe = 1 - answers.unsafe
    return safe if ordering == "safety" else (1 - safety_weight) * answers.helpful + safety_weight * safe


def best(answers: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """The best answer of each prompt by the weighted sum, safe ones alone: ``prompt, answer``, for fine-tuning on them."""
    known = answers[answers.unsafe.notna() & answers.helpful.notna()]
    safe = known[known.unsafe < rules.unsafe_threshold]
    ordered = safe.assign(order=order_score(safe, "weighted_sum", rules.safety_weight)).sort_values(
        "order", ascending=False, kind="stable"
    )
    return ordered.drop_duplicates("prompt_id")[["prompt", "answer"]]


def _pair(a: Any, b: Any, iteration: int) -> dict[str, Any]:
    name = hashlib.sha256(f"{a.prompt_id}\n{a.answer}\n{b.answer}\n{iteration}".encode()).hexdigest()[:16]
    told = {
        "id": name,
        "prompt_id": a.prompt_id,
        "prompt": a.prompt,
        "set": a.set,
        "chosen": a.answer,
        "rejected": b.answer,
    }
    scores = {
        f"{m}_{role}": float(row[m]) for m in ("helpful", "unsafe") for role, row in (("chosen", a), ("rejected", b))
    }
    return {
        **told,
        **scores,
        "safety_difference": float(a.unsafe - b.unsafe),
        "judges": a.judges,
        "iteration": iteration,
    }


def outcome(counts: Mapping[str, int]) -> str:
    """In words, for the notebook."""
    if counts["n_pairs"]:
        return f"{counts['n_pairs']} pairs of {counts['n_candidates']} candidates over {counts['n_prompts']} prompts."
    return (
        f"No pairs: of {counts['n_candidates']} candidates {counts['dropped_near_ties']} are near-ties and "
        f"{counts['dropped_both_unsafe']} unsafe on both sides; {counts['dropped_duplicates']} answers repeat. There is nothing to learn "
        "from, and the target stays as it is: lower min_margin, raise answers_per_prompt or temperature to go on."
    )
