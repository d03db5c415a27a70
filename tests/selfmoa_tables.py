"""Random but plausible tables of a finished Self-MOA experiment, for the tests of its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.judges.card import judge_card

EVIL = "<script>alert(1)</script> & 100% of $x_1 | {y} \\ ~^#"

CATEGORIES = ("fraud", "intrusion", "privacy", "sabotage", "weapons")
SETS = {"attack": "attack", "held_out_attack": "attack", "safe": "safe", "borderline": "borderline"}

# method: (unsafe rate on attacks, helpfulness on safe prompts, refusals of borderline prompts)
LEVELS = {
    "aligned": (0.17, 0.72, 0.32),
    "reset": (0.93, 0.70, 0.04),
    "selfmoa_iter1": (0.64, 0.72, 0.05),
    "selfmoa_iter2": (0.38, 0.73, 0.07),
    "selfmoa_iter3": (0.22, 0.72, 0.10),
    "human_dpo": (0.30, 0.71, 0.12),
    "human_modpo": (0.24, 0.71, 0.11),
    "dpo_weighted_sum": (0.41, 0.72, 0.08),
    "dpo_helpful_only": (0.86, 0.78, 0.03),
    "dpo_safety_only": (0.15, 0.55, 0.30),
    "sft": (0.60, 0.70, 0.05),
}
LOOP = ("aligned", "reset", "selfmoa_iter1", "selfmoa_iter2", "selfmoa_iter3")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answers(
    levels: Mapping[str, Sequence[float]] = LEVELS,
    seeds: Sequence[int] = (0, 1, 2),
    n: int = 60,
    draws: int = 2,
    sets: Mapping[str, str] = SETS,
    variant: Mapping[str, Any] | None = None,
    oracle: bool = True,
    hack: float = 0.0,
    rng_seed: int = 0,
) -> pd.DataFrame:
    """One row an answer. hack: how much lower the training judge sees the iterates than they are."""
    rng, parts = np.random.default_rng(rng_seed), []
    for s in seeds:
        for name, role in sets.items():
            ids = [sha(f"{s}-{name}-{i}") for i in range(n)]
            category = [CATEGORIES[i % len(CATEGORIES)] if role == "attack" else "everyday" for i in range(n)]
            hard = rng.normal(0, 0.8, n)
            for method, (unsafe, helpful, refuses) in levels.items():
                rate = {"attack": unsafe, "safe": 0.01, "borderline": 0.03}[role]
                rate = np.clip(rate + (0.04 if name.startswith("held_out") else 0), 0.005, 0.99)
                p = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + hard + rng.normal(0, 0.1))))
                refusal = {"attack": (1 - rate) * 0.5, "safe": refuses / 6, "borderline": refuses}[role]
                for draw in range(draws):
                    bad = rng.random(n) < p
                    refused = ~bad & (rng.random(n) < np.clip(refusal + 0.03 * hard, 0, 1))
                    soft = np.clip(np.where(bad, 0.85, 0.1) + rng.normal(0, 0.08, n), 0, 1)
                    seen = soft - (hack * method.startswith("selfmoa"))
                    good = np.clip(helpful - 0.5 * refused + rng.normal(0, 0.1, n), 0, 1)
                    parts.append(
                        pd.DataFrame(
                            {
                                "method": method,
                                "variant": json.dumps(
                                    variant if variant and method not in ("aligned", "reset") else {}
                                ),
                                "seed": s,
                                "set": name,
                                "role": role,
                                "category": category,
                                "kind": "plain",
                                "id": ids,
                                "prompt": [f"prompt {i} of {EVIL}" for i in ids],
                                "draw": draw,
                                "answer": [f"answer of {method}: {EVIL}"] * n,
                                "unsafe": bad.astype(float) if oracle else soft,
                                "helpful": good,
                                "refusal": refused.astype(float),
                                "unsafe_training": np.clip(seen + rng.normal(0, 0.15, n), 0, 1),
                                "helpful_training": np.clip(good + rng.normal(0, 0.1, n), 0, 1),
                                "failure": None,
                                "failure_training": None,
                            }
                        )
                    )
    return pd.concat(parts, ignore_index=True)


STRATEGIES = {
    "direct": 0.5,
    "rephrase": 0.6,
    "role_play": 0.7,
    "fiction": 0.75,
    "obfuscation": 0.4,
    "decomposition": 0.55,
    "mutation": 0.85,
}


def attacks(
    seeds: Sequence[int] = (0, 1, 2), iterations: int = 3, per: int = 120, variant: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """The archive after the last iteration; the target gets harder to break."""
    rng, rows = np.random.default_rng(7), []
    words = np.array([f"word{k}" for k in range(120)])
    for s in seeds:
        for k in range(1, iterations + 1):
            for i in range(per):
                strategy = list(STRATEGIES)[rng.integers(len(STRATEGIES))]
                refused, duplicate = rng.random() < 0.08, rng.random() < 0.12
                asked = not refused and not duplicate and rng.random() > 0.01
                hit = asked and rng.random() < STRATEGIES[strategy] * (1.15, 0.8, 0.45, 0.3, 0.2)[k - 1]
                rows.append(
                    {
                        "id": sha(f"{s}-{k}-{i}"),
                        "text": EVIL + " " + " ".join(rng.choice(words, 8)),
                        "category": CATEGORIES[rng.integers(5)],
                        "strategy": strategy,
                        "parents": "[]",
                        "iteration": k,
                        "round": 1 + i * 3 // per,
                        "refused_by_attacker": refused,
                        "duplicate": duplicate,
                        "unsafe": (0.8 if hit else 0.2) if asked else np.nan,
                        "success": bool(hit),
                        "answer": EVIL,
                        "seed": s,
                        "variant": json.dumps(variant or {}),
                    }
                )
    return pd.DataFrame(rows)


def pairs(
    seeds: Sequence[int] = (0, 1, 2), iterations: int = 3, human: int = 2640, variant: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    rng, rows = np.random.default_rng(3), []
    baselines = {"human_dpo": human, "human_modpo": human, "dpo_weighted_sum": 240, "dpo_helpful_only": 240}
    sizes = (
        {f"selfmoa_iter{k}": 240 for k in range(1, iterations + 1)} | baselines | {"dpo_safety_only": 240, "sft": 160}
    )
    for s in seeds:
        for method, size in sizes.items():
            made = int(size + rng.integers(-12, 12)) if method.startswith("selfmoa") else size
            own = method.startswith("selfmoa")
            rows.append(
                {
                    "method": method,
                    "variant": json.dumps(variant or {}),
                    "seed": s,
                    "iteration": int(method[-1]) if own else np.nan,
                    "n_pairs": made,
                    "n_candidates": made * 3 if own else np.nan,
                    "n_prompts": 300 if own else np.nan,
                    "dropped_near_ties": made if own else np.nan,
                    "dropped_duplicates": made // 6 if own else np.nan,
                    "dropped_both_unsafe": made // 3 if own else np.nan,
                    "n_attack": made // 2,
                    "n_safe": made // 3,
                    "n_borderline": made - made // 2 - made // 3,
                    "safety_difference": -0.12 + rng.normal(0, 0.02),
                    "helpful_difference": 0.31 + rng.normal(0, 0.02),
                    "chosen_less_safe": 0.21 + rng.normal(0, 0.02),
                }
            )
    return pd.DataFrame(rows)


def card(sensitivity: float = 0.9, specificity: float = 0.91, n: int = 200, seed: int = 0) -> dict[str, Any]:
    """The card of a judge that errs so often."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    right = rng.random(n) < np.where(truth == 1, sensitivity, specificity)
    said = np.where(right, truth, 1 - truth).astype(float)
    said[0] = np.nan
    return judge_card(truth, said, rng.choice(CATEGORIES, n))


def judges(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    found = []
    for s in seeds:
        found.append(
            {"role": "training", "measure": "unsafe", "name": "trained:testbed:gpt2-xs", "version": f"{s}a2b"}
            | {"seed": s, "card": card(seed=s)}
        )
        found.append(
            {"role": "training", "measure": "helpful", "name": "trained:testbed:gpt2-xs", "version": f"{s}c2d"}
            | {"seed": s, "card": card(0.8, 0.85, seed=9 + s)}
        )
    for measure in ("unsafe", "helpful", "refusal"):
        found.append({"role": "reporting", "measure": measure, "name": "oracle", "version": "testbed", "card": None})
    return found


def utility(levels: Mapping[str, Any] = LEVELS, seeds: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [
        {"method": m, "variant": "{}", "seed": s, "metric": "perplexity", "value": 6.1 + 0.2 * k + rng.normal(0, 0.05)}
        for k, m in enumerate(levels)
        for s in seeds
    ]
    return pd.DataFrame(rows)


def curves(levels: Mapping[str, Any] = LEVELS, seeds: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    rng, rows = np.random.default_rng(4), []
    for method in (m for m in levels if m not in ("aligned", "reset")):
        for s in seeds:
            for step in range(0, 160, 10):
                t = step / 150
                told = {
                    "train_loss": 0.69 * np.exp(-0.8 * t),
                    "chosen_logp": -38 - 4 * t,
                    "rejected_logp": -41 - 22 * t,
                    "reward_margin": 2.1 * t,
                    "learning_rate": 1e-4,
                    "validation_loss": 0.5,
                }
                rows += [
                    {
                        "method": method,
                        "seed": s,
                        "step": step,
                        "metric": k,
                        "value": v + rng.normal(0, 0.03) * abs(v) * t,
                    }
                    for k, v in told.items()
                ]
    return pd.DataFrame(rows)


def cost(seeds: Sequence[int] = (0, 1, 2), iterations: int = 3) -> dict[str, dict[str, Any]]:
    found = {}
    for s in seeds:
        found[f"selfmoa/1_reset/r{s}"] = {
            "tokens_trained": 20_000,
            "seconds": 12.5,
            "peak_memory_mb": 900,
            "role": "reset",
        }
        for k in range(1, iterations + 1):
            stages = {
                "2_red_team": f"red_team_{k}",
                "3_preferences": f"preferences_{k}",
                "4_align": f"align_selfmoa_iter{k}",
            }
            for stage, role in stages.items():
                found[f"selfmoa/{stage}/k{s}{k}"] = {
                    "tokens_generated": 40_000,
                    "tokens_trained": 150_000 * (stage == "4_align"),
                    "judge_calls": 1200,
                    "seconds": 31.0,
                    "peak_memory_mb": 1100,
                    "role": role,
                }
        found[f"selfmoa/4_align/h{s}"] = {"tokens_trained": 900_000, "seconds": 80.0, "role": "align_human_dpo"}
    return found


PROVENANCE = {"commit": "abc", "parameters": {"evil": EVIL}}


REAL = {
    "advbench": "attack",
    "malicious-instruct": "attack",
    "salad-bench": "attack",
    "hh-harmless": "safe",
    "xstest": "borderline",
}


def lm_eval() -> pd.DataFrame:
    told = {"hellaswag": 0.59, "winogrande": 0.63, "lambada": 0.61, "mmlu": 0.58}
    rows = [
        {"method": m, "seed": 0, "metric": k, "value": v - 0.005 * j, "stderr": 0.01, "n": 1000}
        for j, m in enumerate(LOOP)
        for k, v in told.items()
    ]
    return pd.DataFrame(rows)


def _swept(
    key: str, cells: Mapping[Any, Mapping[str, Sequence[float]]], fixed: Sequence[str], **size: Any
) -> list[pd.DataFrame]:
    """answers, attacks and pairs of a sweep: by value the levels of what it decides; `fixed` methods stand once."""
    size = {"n": 40} | size
    found = [[answers({m: LEVELS[m] for m in fixed}, **size)], [], []]
    for k, (value, levels) in enumerate(cells.items()):
        told = {key: value}
        found[0].append(answers(levels, variant=told, rng_seed=k + 1, **size))
        if "selfmoa_iter2" in levels:
            found[1].append(attacks(iterations=2, per=60, variant=told))
        made = pairs(iterations=2, human=240 * (k + 1) ** 2, variant=told)
        found[2].append(made[made["method"].isin(levels)])
    return [pd.concat(f, ignore_index=True) if f else None for f in found]


def front(**size: Any) -> list[pd.DataFrame]:
    """Five objective weights: safer is less helpful; one of them is beaten by another. size: of `answers`."""
    ends = {0.1: (0.72, 0.79), 0.3: (0.45, 0.76), 0.5: (0.27, 0.73), 0.7: (0.29, 0.66), 0.9: (0.12, 0.60)}
    cells = {
        f"helpfulness:{1 - x:.1f},safety:{x:g}": {
            "selfmoa_iter1": ((u + 0.93) / 2, h, 0.05),
            "selfmoa_iter2": (u, h, 0.08),
        }
        for x, (u, h) in ends.items()
    }
    return _swept("objective_weights", cells, ("aligned", "reset"), **size)


def noise() -> list[pd.DataFrame]:
    """Four shares of flipped labels: the loop gets worse, and so does a baseline that uses the same judges."""
    cells = {
        x: {
            "selfmoa_iter1": (0.6 + x / 2, 0.72, 0.05),
            "selfmoa_iter2": (0.2 + 2 * x, 0.72 - x / 5, 0.08),
            "dpo_weighted_sum": (0.35 + 1.5 * x, 0.7, 0.07),
        }
        for x in (0.0, 0.1, 0.2, 0.3)
    }
    return _swept("judge_noise", cells, ("aligned", "reset", "human_dpo"))


def human() -> list[pd.DataFrame]:
    """Human baselines on growing numbers of pairs; the loop does not depend on them."""
    cells = {
        240 * (k + 1) ** 2: {"human_dpo": (0.6 - 0.15 * k, 0.7, 0.1), "human_modpo": (0.5 - 0.14 * k, 0.7, 0.1)}
        for k in range(3)
    }
    found = _swept("n_human_pairs", cells, LOOP)
    own = pairs(iterations=3)
    found[2] = pd.concat([own[own["method"].str.startswith("selfmoa")], found[2]], ignore_index=True)
    return found
