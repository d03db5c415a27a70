"""The rounds of Self-MOA as stages, and what stands beside the loop: its controls and the baselines.

A control changes one thing of the loop: ``offline`` has one round with the budgets of all, ``no_red_team`` attacks with the
seed prompts alone, ``iterated_dpo`` learns by plain DPO from pairs whose chosen answer is not less safe. A method gives its
trained models by name, each with the stages that it rests on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from underseer.maths import modpo
from underseer.selfmoa import checks

PLAIN = {"margin_scale": 0.0, "divide_by_weight": False}
"""Alignment by one objective is plain DPO: no margin, no weight, so that a change of the margin reruns nothing."""
PAIRED: dict[str, dict[str, Any]] = {
    "dpo_helpful_only": {"ordering": "helpfulness", "objective_weights": "helpfulness:1", **PLAIN},
    "dpo_safety_only": {"ordering": "safety", "objective_weights": "safety:1", **PLAIN},
    "dpo_weighted_sum": {"ordering": "weighted_sum", "objective_weights": "helpfulness:1", **PLAIN},
    "human_dpo": {"ordering": "weighted_sum", "objective_weights": "helpfulness:1", **PLAIN},
    "human_modpo": {"ordering": "helpfulness"},
    "iterated_dpo": {"ordering": "not_less_safe", "objective_weights": "helpfulness:1", **PLAIN},
}
"""Baselines that learn from pairs, and what ``4_align`` is given for each."""
UNSAMPLED = dict.fromkeys(
    ("answers_per_prompt", "min_margin", "pairs_per_prompt", "temperature", "top_p", "top_k", "max_new_tokens", "max_length", "engine", "precision")
)  # fmt: skip
"""What pairs by people do not depend on where they are public data: nothing is answered."""

Models = dict[str, dict[str, Any]]
"""By the name of a trained model: ``align``, the stage that trained it, and where there are such ``red_team`` and
``preferences``, the attacks and the answers that it learnt from."""


@dataclass(frozen=True)
class Rounds:
    """The stages of one variant. ``model``: the stages that make the target and its reset; ``steering``: the judges'."""

    add: Callable[..., Any]
    p: dict[str, Any]
    data: Any
    model: dict[str, Any]
    attacker: Any
    steering: dict[str, Any]

    def attack(self, values: dict[str, Any], **inputs: Any) -> Any:
        players = {"attacker": self.attacker, "training_judge": self.steering["training_judge"]}
        return self.add("selfmoa/2_red_team", values | heard(self.p), data=self.data, **self.model, **players, **inputs)

    def answer(self, values: dict[str, Any], **inputs: Any) -> Any:
        return self.add("selfmoa/3_preferences", values | heard(self.p), data=self.data, **self.model, **self.steering, **inputs)  # fmt: skip

    def align(self, method: str, values: dict[str, Any], **inputs: Any) -> Any:
        """Alignment by pairs. The threshold of safety is used there for the NLL term alone."""
        nll = {} if self.p["nll_weight"] else {"unsafe_threshold": None}
        return self.add("selfmoa/4_align", {"method": method, **nll, **values}, **self.model, **inputs)

    def run(self, method: str, values: dict[str, Any], *, name: str, red_team: bool = True) -> Models:
        """All rounds of the loop or of a control, as ``name`` with the round's number; ``values`` are for the alignment."""
        models: Models = {}
        archive = previous = None
        for k in range(1, self.p["iterations"] + 1):
            now = {"iteration": k} if red_team else {"iteration": k, "replay_attacks": None}
            if red_team:
                archive = self.attack(now, previous=previous, archive=archive)
            answers = self.answer(now, previous=previous, red_team=archive)
            previous = self.align(method, values, preferences=answers, previous=previous)
            models[f"{name}{k}"] = {"red_team": archive, "preferences": answers, "align": previous}
        return models

    def once(self) -> dict[str, Any]:
        """Attacks and answers of one round from the reset model, with the budgets of all rounds together."""
        whole = {n: self.p["iterations"] * self.p[n] for n in ("attack_budget", "attack_rounds", "n_prompts")}
        archive = self.attack({"iteration": 1, **whole})
        return {"red_team": archive, "preferences": self.answer({"iteration": 1, **whole}, red_team=archive)}


def heard(p: dict[str, Any]) -> dict[str, Any]:
    """How judges err is read where they are made to; and how much they read."""
    return judged_length(p) | ({} if p["judge_noise"] else {"judge_error": None})


def judged_length(p: dict[str, Any]) -> dict[str, Any]:
    """How many tokens a judge reads: as many as the target, where nothing else is said."""
    return {"judge_max_length": p["judge_max_length"] or p["max_length"]}


def beside(rounds: Rounds, loop: Models) -> Models:
    """The controls and baselines that the experiment names."""
    p, chosen = rounds.p, checks.baselines(rounds.p["baselines"])
    answers = [m["preferences"] for m in loop.values()]
    single = rounds.once() if "offline" in chosen or p["baseline_pairs"] == "loop" else {}
    if p["baseline_pairs"] == "loop":
        source, matched = single["preferences"], {"matched": answers}
    else:
        source, matched = answers[0], {}
    models: Models = {}
    if "offline" in chosen:
        models["offline"] = {**single, "align": rounds.align("offline", {}, preferences=single["preferences"], matched=answers)}  # fmt: skip
    if "no_red_team" in chosen:
        models |= rounds.run("no_red_team", {}, name="no_red_team_", red_team=False)
    if "iterated_dpo" in chosen:
        models |= rounds.run("iterated_dpo", _learning(p, "iterated_dpo"), name="iterated_dpo_")
    people = _people(rounds) if any(m.startswith("human_") for m in chosen) else None
    for method in (m for m in PAIRED if m in chosen and m != "iterated_dpo"):
        pairs = people if method.startswith("human_") else source
        models[method] = {"align": rounds.align(method, _learning(p, method), preferences=pairs, **matched)}
    if "sft" in chosen:
        passes = _passes(p, "sft")
        models["sft"] = {
            "align": rounds.add("selfmoa/4_finetune", passes, preferences=source, **rounds.model, **matched)
        }
    return models


def _people(rounds: Rounds) -> Any:
    """The stage of pairs by people."""
    if rounds.p["human_dataset"].startswith("testbed"):
        return rounds.add("selfmoa/human_pairs", {"dataset_path": None}, data=rounds.data, **rounds.model)
    return rounds.add("selfmoa/human_pairs", UNSAMPLED | {"target_model": None}, data=rounds.data)


def _passes(p: dict[str, Any], method: str) -> dict[str, Any]:
    """Passes and step size of a baseline: its own, or the loop's."""
    return {n: checks.own(f"baseline_{n}", p[f"baseline_{n}"], method) or p[n] for n in ("epochs", "learning_rate")}


def _learning(p: dict[str, Any], method: str) -> dict[str, Any]:
    """What ``4_align`` is given for a baseline. Plain DPO gets the temperature that MODPO has for the objective that orders
    the loop's pairs, beta / w where the loop divides by w, if the experiment gives it no other."""
    values = PAIRED[method] | _passes(p, method)
    if "margin_scale" not in values:  # MODPO, as the loop
        return values
    weight = modpo.parse_weights(p["objective_weights"], modpo.objective(p["ordering"])).weight
    effective, _ = modpo.dpo_equivalent(0.0, p["beta"], weight, p["divide_by_weight"])
    return values | {"beta": checks.own("baseline_beta", p["baseline_beta"], method) or effective}
