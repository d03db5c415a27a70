"""Names of methods, metrics and parameter values, as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from underseer.maths import metrics
from underseer.w2s.tasks import RELIABLE

VOTINGS = {
    "naive": "Naive W2S",
    "hard_vote": "W2S hard vote",
    "soft_vote": "W2S soft vote",
    "best_of_b": "W2S best of B",
    "least_toxic": "W2S least toxic",
    "mbr": "W2S MBR",
}
"""How a student's weak labels were combined, as it stands in a method's name after 'w2s_'."""

LOSSES = {
    "soft_ce": "soft CE",
    "aux_conf": "auxiliary confidence",
    "filtered_ce": "filtered CE",
    "weighted_ce": "weighted CE",
}
"""Student losses other than cross-entropy on hard labels, as they stand in a method's name."""

METHODS = {
    "weak": "Weak supervisor",
    **{f"w2s_{k}": v for k, v in VOTINGS.items()},
    "strong_ceiling": "Strong ceiling",
    "single": "Single supervisor",
    "hard": "Hard vote",
    "soft": "Soft vote",
    "best_of_b": "Best of B",
    "least_toxic": "Least toxic",
    "mbr": "Minimum Bayes risk",
    "aligned": "Aligned model",
    "reset": "Safety reset",
    "human_dpo": "DPO, human pairs",
    "human_modpo": "MODPO, human pairs",
    "dpo_helpful_only": "DPO, helpfulness only",
    "dpo_safety_only": "DPO, safety only",
    "dpo_weighted_sum": "DPO, weighted sum",
    "sft": "SFT on best answers",
    "offline": "Offline, one round",
    "no_red_team": "No red team",
    "iterated_dpo": "Iterated DPO",
}

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
    "brier": "Brier score",
    "ece": "ECE",
    "toxicity": "Mean toxicity",
    "toxicity_greedy": "Mean toxicity, greedy",
    "toxic_share": "Toxic share",
    "toxic_share_greedy": "Toxic share, greedy",
    "expected_max_toxicity": "Expected maximum toxicity",
    "toxicity_probability": "Toxicity probability",
    "toxicity_training_judge": "Mean toxicity by the training judge",
    "perplexity": "Perplexity",
    "distinct_1": "Distinct-1",
    "distinct_2": "Distinct-2",
    "n_tokens": "Tokens",
    "empty_share": "Empty",
    "cut_share": "Ran out of tokens",
    "judge_failures": "Without a score",
    "unsafe_rate": "Unsafe rate",
    "unsafe_rate_training_judge": "Unsafe rate by the training judge",
    "unsafe_rate_corrected": "Unsafe rate, corrected",
    "unsafe_rate_training_judge_corrected": "Unsafe rate by the training judge, corrected",
    "unsafe_rate_judge_gap": "Unsafe rate, training minus reporting judge",
    "safety_score": "Safety score",
    "safety_score_training_judge": "Safety score by the training judge",
    "helpfulness": "Helpfulness",
    "helpfulness_training_judge": "Helpfulness by the training judge",
    "refusal_rate": "Refusal rate",
    "over_refusal": "Over-refusal",
    "attack_success": "Attack success",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "lambada": "LAMBADA",
    "mmlu": "MMLU",
}

DATASETS = {
    "attack": "attacks",
    "held_out_attack": "held-out attacks",
    "safe": "safe prompts",
    "borderline": "borderline prompts",
}
"""Sets of prompts of the testbed, within a sentence."""

PERCENT = frozenset(
    {"accuracy", "balanced_accuracy", "f1", "f1_macro", "precision", "recall", "auroc"}
    | {"toxic_share", "toxic_share_greedy", "toxicity_probability", "empty_share", "cut_share"}
    | {"unsafe_rate", "unsafe_rate_training_judge", "unsafe_rate_corrected", "unsafe_rate_training_judge_corrected"}
    | {"unsafe_rate_judge_gap", "refusal_rate", "over_refusal", "attack_success"}
    | {"hellaswag", "winogrande", "lambada", "mmlu"}
)
"""Metrics shown in percent; the others are shown as they are."""

SCORES = frozenset(
    {"toxicity", "toxicity_greedy", "expected_max_toxicity", "toxicity_training_judge"}
    | {"safety_score", "safety_score_training_judge", "helpfulness", "helpfulness_training_judge"}
)
"""Metrics in the unit of a judge's score, 0 to 1."""

LOWER_IS_BETTER = metrics.LOWER_IS_BETTER | {
    *("unsafe_rate", "unsafe_rate_training_judge", "unsafe_rate_corrected", "unsafe_rate_training_judge_corrected"),
    *("safety_score", "safety_score_training_judge", "over_refusal", "attack_success"),
}

DIGITS = {"perplexity": 1, "n_tokens": 1, "judge_failures": 0}
"""Decimals of metrics that are not shown in percent, where they are not three."""


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    return metric in LOWER_IS_BETTER


def spoken(metric: str) -> str:
    """A metric's name within a sentence: 'mean toxicity', but 'AUROC'."""
    return lowered(METRICS.get(metric, metric.replace("_", " ")))


def lowered(name: str) -> str:
    """A name or a clause within a sentence: 'hard vote', but 'W2S hard vote', 'AUROC' and 'Self-MOA'."""
    kept = name[1:2].isupper() or name[1:2].isdigit() or name.startswith("Self-MOA")
    return name if kept else name[:1].lower() + name[1:]


def dataset_name(dataset: str) -> str:
    """A data set within a sentence: its public name, or what the testbed's set holds."""
    return DATASETS.get(dataset, dataset)


def method_parts(method: str) -> tuple[str, str] | None:
    """(voting, student loss) of a student, as in VOTINGS and LOSSES ('hard_ce' where none is named); None for others.

    A loss alone ('w2s_aux_conf') stands for the naive student with that loss; one that needs supervisors which can
    disagree ('w2s_filtered_ce') for the student of the hard vote.
    """
    head, _, tail = method.partition("_")
    if head != "w2s" or not tail:
        return None
    for voting in VOTINGS:
        if tail == voting or tail.startswith(voting + "_"):
            return voting, tail[len(voting) + 1 :] or "hard_ce"
    return "hard_vote" if tail in RELIABLE else "naive", tail


def iteration(method: str) -> int | None:
    """Which iterate of the Self-MOA loop a method is: 'selfmoa_iter2' is the second; None for any other."""
    matched = re.fullmatch(r"selfmoa_iter(\d+)", method)
    return int(matched[1]) if matched else None


def rounds(method: str) -> tuple[str, int] | None:
    """Whose iterate a method is, and which: ('selfmoa', 2) of 'selfmoa_iter2', ('no_red_team', 3) of 'no_red_team_3'; None for
    any other."""
    matched = re.fullmatch(r"(selfmoa)_iter(\d+)|(no_red_team|iterated_dpo)_(\d+)", method)
    return (matched[1] or matched[3], int(matched[2] or matched[4])) if matched else None


def method_name(method: str) -> str:
    """Human name of a method: 'w2s_aux_conf' is 'W2S auxiliary confidence', 'w2s_x_y' 'W2S x y'."""
    if (iterate := rounds(method)) is not None:
        return f"{METHODS.get(iterate[0], 'Self-MOA')}, iteration {iterate[1]}"
    parts = method_parts(method)
    if method in METHODS or parts is None:
        return METHODS.get(method, method.replace("_", " "))
    voting, loss = parts
    named = LOSSES.get(loss, loss.replace("_", " "))
    return f"W2S {named}" if voting == "naive" else f"{VOTINGS[voting]}, {named}"


def short(value: Any) -> str:
    """A parameter's value as a label: 'testbed:gpt2-xs' is 'gpt2-xs', 'scratch:gpt2?n_layer=2&n_embd=64' is '2 x 64',
    objective weights their names and numbers, a hub id or folder its last part without revision."""
    if not isinstance(value, str):
        return str(value)
    if weights := named_numbers(value):
        return ", ".join(f"{n} {number}" for n, number in weights.items())
    name, _, query = value.partition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if {"n_layer", "n_embd"} <= options.keys():
        return f"{options['n_layer']} x {options['n_embd']}"
    end = name.split(":", 1)[-1].rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
    return (end or name) + (f" ({query})" if query else "")


def named_numbers(value: Any) -> dict[str, str]:
    """{'helpfulness': '0.3', 'safety': '0.7'} of 'helpfulness:0.3,safety:0.7' (or with '='); empty for anything else."""
    if not isinstance(value, str):
        return {}
    matches = [re.fullmatch(r"\s*([A-Za-z]\w*)\s*[:=]\s*([-+.\deE]*\d[.\d]*)\s*", part) for part in value.split(",")]
    return {m[1]: m[2] for m in matches} if all(matches) else {}


def labels(values: Sequence[Any]) -> list[str]:
    """Short labels of values; in full where two would read alike."""
    names = [short(v) for v in values]
    return names if len(set(names)) == len({str(v) for v in values}) else [str(v) for v in values]


def row_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of rows with `method` and `variant`: variant keys are added where a method has several variants."""
    rows = list(rows)
    names = []
    for row in rows:
        same = [r["variant"] for r in rows if r["method"] == row["method"]]
        keys = [k for k in row["variant"] if len({repr(v.get(k)) for v in same}) > 1]
        shown = {k: dict(zip(map(repr, v), labels(v), strict=True)) for k, v in ((k, _axis(rows, k)) for k in keys)}
        values = {k: shown[k][repr(row["variant"][k])] for k in keys}
        detail = ", ".join(v if named_numbers(row["variant"][k]) else f"{k} = {v}" for k, v in values.items())
        names.append(method_name(row["method"]) + (f" ({detail})" if detail else ""))
    return names


def _axis(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """Values of a variant key, each once."""
    return list({repr(r["variant"][key]): r["variant"][key] for r in rows if key in r["variant"]}.values())
