"""The loop's parts on scripted engines and judges: attacks, pairs, methods; faults that must end properly."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from underseer import look_selfmoa
from underseer.engines import Answer, Sampling
from underseer.errors import UserError
from underseer.judges.base import Scores
from underseer.runs import params, plan
from underseer.selfmoa import answering, checks, evaluation, methods, preferences, red_team

RULES = preferences.Rules(min_margin=0.1, pairs_per_prompt=10, drop_both_unsafe=True, unsafe_threshold=0.5)


class Engine:
    """Answers by a function of the last message; keeps what it was asked."""

    name, version = "scripted", "1"

    def __init__(self, reply: Callable[[str, int], str]) -> None:
        self.reply, self.asked = reply, []

    def generate(self, prompts, sampling, *, adapter=None, log_probs=False):
        texts = [p[-1]["content"] for p in prompts]
        self.asked += texts
        return [[Answer(self.reply(t, k), [1], "stop") for k in range(sampling.n)] for t in texts]


class Judge:
    """A verdict by a function of the answer; NaN counts as a failure."""

    name, version = "scripted", "1"

    def __init__(self, verdict: Callable[[str], float]) -> None:
        self.verdict = verdict

    def score(self, texts, prompts=None):
        values = np.array([self.verdict(t) for t in texts], dtype=float)
        return Scores(values, ["garbage" if np.isnan(v) else None for v in values], self.name, self.version)


SEEDS = pd.DataFrame({"id": list("abcd"), "text": [f"seed {c}" for c in "abcd"], "category": ["x", "y", "x", "y"]})


def team(attacker, target, judge) -> red_team.RedTeam:
    return red_team.RedTeam(attacker, target, judge, adapter=None, sampling=Sampling(8, 1.0), seed=0)


def numbered() -> Engine:
    """An attacker that never writes the same twice."""
    count = itertools.count()
    return Engine(lambda t, k: f"attack {next(count)}")


def test_successes_feed_the_next_round() -> None:
    attacker, judge = numbered(), Judge(lambda a: float("yes" in a))
    target = Engine(lambda t, k: "yes" if t.endswith(("1", "2")) else "no")
    found = team(attacker, target, judge).attack(SEEDS, None, [], red_team.Budget(28, 2), 1)
    first, second = found[found["round"] == 1], found[found["round"] == 2]
    wins = set(first.id[first.success])
    assert wins and set(first.strategy[first.strategy == "mutation"]) == set(), "nothing to mutate yet"
    mutated = second[second.strategy == "mutation"]
    assert len(mutated) and all(set(json.loads(p)) <= wins for p in mutated.parents)
    assert found.id.is_unique and (found.unsafe.notna() == ~(found.refused_by_attacker | found.duplicate)).all()


def test_refusals_duplicates_and_judge_failures_are_no_failed_attacks() -> None:
    attacker = Engine(lambda t, k: "I cannot help with that." if t.endswith("a") else "the same prompt")
    found = team(attacker, Engine(lambda t, k: "x"), Judge(lambda a: float("nan"))).attack(
        SEEDS, None, ["Known!"], red_team.Budget(14, 1, min_new=0), 1
    )
    told = red_team.told(found, 1)
    assert told["n_refused_by_attacker"] + told["n_duplicates"] + told["n_asked"] == 14 and told["n_asked"] == 1
    assert told["n_successes"] == 0 and not found.success.any()


def test_no_attack_repeats_a_known_prompt() -> None:
    target = Engine(lambda t, k: "x")
    found = team(Engine(lambda t, k: "KNOWN, prompt"), target, Judge(lambda a: 1.0)).attack(
        SEEDS, None, ["known prompt"], red_team.Budget(7, 1), 1
    )
    assert found.duplicate.all() and target.asked == []


def test_no_success_ends_the_rounds_and_says_so() -> None:
    found = team(numbered(), Engine(lambda t, k: "no"), Judge(lambda a: 0.0)).attack(
        SEEDS, None, [], red_team.Budget(21, 3), 1
    )
    assert found["round"].max() == 1
    assert "No attack succeeded" in red_team.outcome(found, 1)


def answers(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["prompt_id", "answer", "helpful", "unsafe"])
    return frame.assign(prompt=frame.prompt_id, set="attack", draw=0, judges="{}")


def test_pairs_by_hand() -> None:
    rows = [("p", "full", 0.9, 1.0), ("p", "redirect", 0.8, 0.0), ("p", "refusal", 0.1, 0.0), ("p", "terse", 0.7, 1.0)]
    found, counts = preferences.pairs(answers([*rows, rows[0]]), RULES)
    pairs = {(a, b) for a, b in zip(found.chosen, found.rejected, strict=True)}
    assert pairs == {
        ("full", "redirect"),
        ("full", "refusal"),
        ("redirect", "refusal"),
        ("redirect", "terse"),
        ("terse", "refusal"),
    }
    assert counts["dropped_duplicates"] == 1 and counts["dropped_both_unsafe"] == 1 and counts["n_candidates"] == 6
    less_safe = found[(found.chosen == "full") & (found.rejected == "redirect")].iloc[0]
    assert less_safe.safety_difference == 1.0, "chosen may be less safe: the margin carries it"


@pytest.mark.parametrize(
    ("ordering", "best"), [("helpfulness", "full"), ("safety", "redirect"), ("weighted_sum", "redirect")]
)
def test_orderings(ordering: str, best: str) -> None:
    found, _ = preferences.pairs(
        answers([("p", "full", 0.9, 1.0), ("p", "redirect", 0.8, 0.0)]), RULES, ordering=ordering
    )
    assert found.chosen.tolist() == [best]


def test_where_few_pairs_are_kept_those_come_first_on_which_both_scores_agree() -> None:
    rows = [("p", "full", 0.9, 1.0), ("p", "redirect", 0.8, 0.0), ("p", "refusal", 0.1, 0.0), ("p", "terse", 0.7, 1.0)]
    found, _ = preferences.pairs(answers(rows), dataclasses.replace(RULES, pairs_per_prompt=2))
    assert list(zip(found.chosen, found.rejected, strict=True)) == [("redirect", "terse"), ("redirect", "refusal")]


def test_equal_answers_give_no_pairs_and_a_clear_outcome() -> None:
    found, counts = preferences.pairs(answers([("p", "same", 0.5, 0.0)] * 4), RULES)
    assert found.empty and list(found.columns) == list(preferences.COLUMNS)
    assert "No pairs" in preferences.outcome(counts) and "min_margin" in preferences.outcome(counts)


def test_an_iteration_without_attacks_and_other_prompts_ends_properly() -> None:
    """No attack succeeded and no other prompts are wanted: no answers, no pairs, and nothing that fails on the way."""
    train = pd.DataFrame({"id": ["s"], "text": ["s"], "set": ["safe"]})
    lost = red_team.RedTeam(numbered(), Engine(lambda t, k: "no"), Judge(lambda a: 0.0), adapter=None,
                            sampling=Sampling(8, 1.0), seed=0).attack(SEEDS, None, [], red_team.Budget(7, 1), 1)  # fmt: skip
    prompts = preferences.prompt_mix(train, lost, 1, n=10, safe_share=0.0, borderline_share=0.0, seed=0)
    found = preferences.answer(Engine(lambda t, k: "x"), prompts, Sampling(8, 1.0, n=4))
    judged = preferences.judge(found, {"unsafe": Judge(lambda a: 0.0), "helpful": Judge(lambda a: 1.0)})
    pairs, counts = preferences.pairs(judged, RULES)
    assert len(prompts) == len(judged) == len(pairs) == 0 and counts["n_prompts"] == 0
    assert "No pairs" in preferences.outcome(counts)
    look_selfmoa.pairs(pairs, synthetic=False)


@pytest.mark.parametrize("method", ["selfmoa", "dpo_safety_only", "sft"])
def test_without_pairs_nothing_is_trained_and_the_adapter_is_passed_on(tmp_path, method: str) -> None:
    class Target:
        adapter = tmp_path / "before"

        def load(self, max_length):
            raise AssertionError("a model was loaded")

    class Run(SimpleNamespace):
        def save_table(self, name, table):
            self.saved[name] = table

        def save_json(self, name, value):
            self.saved[name] = value

        def path(self, name):
            return tmp_path / name

    Target.adapter.mkdir()
    (Target.adapter / "adapter_config.json").write_text("{}")
    run = Run(saved={})
    plan_ = methods.plan(method, ordering="helpfulness", objective_weights="helpfulness:0.5,safety:0.5")
    learnt = methods.train(run, plan_, answers([]), Target(), None, lora=None, nll_weight=0.0, unsafe_threshold=0.5)
    assert "Nothing to learn from" in learnt.outcome and learnt.numbers == {"trained": 0}
    methods.save(run, learnt)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file() and run.saved["outcome"][
        "outcome"
    ] == learnt.outcome
    assert methods.curves(learnt) == "Nothing was trained."


def test_answers_without_a_verdict_make_no_pairs() -> None:
    found, counts = preferences.pairs(
        answers([("p", "a", np.nan, 0.0), ("p", "b", 0.5, np.nan), ("p", "c", 0.9, 0.0)]), RULES
    )
    assert found.empty and counts["n_unjudged"] == 2


def test_prompt_mix() -> None:
    train = pd.DataFrame({"id": range(30), "text": map(str, range(30)), "set": ["safe"] * 20 + ["borderline"] * 10})
    won = pd.DataFrame({"id": list("abcdef"), "iteration": [1, 1, 1, 2, 2, 3], "success": [True] * 4 + [False, True]})
    won = won.assign(text=won.id)
    how = {"n": 7, "safe_share": 0.4, "borderline_share": 0.2, "seed": 0}
    first, second = (preferences.prompt_mix(train, won, k, **how) for k in (1, 2))
    assert first.set.value_counts().to_dict() == {"safe": 3, "borderline": 1, "attack": 3}
    assert set(first.id[first.set == "safe"]).isdisjoint(second.id[second.set == "safe"])
    assert second.id[second.set == "attack"].tolist() == ["d", "a", "b"], "new successes first, then earlier ones"
    third = preferences.prompt_mix(train, won, 3, **how, replay_attacks=False)
    assert third.id[third.set == "attack"].tolist() == ["f"], "without replay an iteration learns from its own attacks"


def test_methods() -> None:
    told = methods.plan("selfmoa", ordering="helpfulness", objective_weights="helpfulness:0.5,safety:0.5")
    assert told.weights == "helpfulness:0.5,safety:0.5" and not told.human
    assert methods.plan(
        "human_modpo", ordering="safety", objective_weights="helpfulness:0.3,safety:0.7"
    ).weights.endswith("0.7")
    with pytest.raises(UserError, match="did you mean 'sft'"):
        methods.plan("sftt", ordering="safety", objective_weights="safety:1")


def test_best_answers_are_safe() -> None:
    found = preferences.best(
        answers([("p", "full", 0.9, 1.0), ("p", "redirect", 0.8, 0.0), ("p", "refusal", 0.1, 0.0)]), RULES
    )
    assert found.answer.tolist() == ["redirect"]


def test_evaluation_counts_failures_of_both_judges() -> None:
    prompts = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "set": "safe", "role": "safe"})
    table = answering.answer(Engine(lambda t, k: t), prompts, Sampling(4), adapter=None)
    broken = Judge(lambda a: float("nan") if a == "x" else 1.0)
    steady = Judge(lambda a: 0.0)
    found = evaluation.judge(
        table, {"unsafe": broken, "helpful": steady, "refusal": steady}, {"unsafe": steady, "helpful": steady}
    )
    assert found.failure[0] == "garbage" and pd.isna(found.failure[1]) and found.failure_training.isna().all()
    assert np.isnan(found.unsafe[0]) and found.unsafe[1] == 1


LOOP = ROOT / "params" / "demo" / "selfmoa.yaml"


def resolved(*sets: str) -> dict:
    return next(iter(params.load(LOOP, sets).resolved()))


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["reporting_judge=trained:testbed:chat-s"], "must not report"),
        (["training_judge=oracle"], "serves evaluation only"),
        (["safe_share=0.9", "borderline_share=0.3"], "together above 1"),
        (["attack_strategies=direct+fictoin"], "did you mean 'fiction'"),
        (["objective_weights=helpfulnes:1"], "helpfulnes"),
        (["dataset=advbench"], "stands for all data"),
        (
            ["lora_targets=q_proj"],
            "'q_proj' matches no linear layer of the model; allowed are all-linear or some of c_attn",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(sets: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        checks.preflight(resolved(*sets))


def test_layers_of_an_adapter_are_looked_for_in_the_targets_own_architecture(tmp_path) -> None:
    config = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = {"lora_rank": 4, "lora_alpha": 8, "target_model": str(tmp_path)}
    checks._adapter({**told, "lora_targets": "q_proj,v_proj"})
    with pytest.raises(UserError, match="'c_attn' matches no linear layer"):
        checks._adapter({**told, "lora_targets": "q_proj,c_attn"})


def test_a_chat_model_without_a_template(tmp_path) -> None:
    from underseer.models import loading

    model, tokenizer = loading.load_language_model("scratch:gpt2?n_layer=1&n_embd=16&n_head=2", texts=["a b c"] * 4)
    loading.save(model, tokenizer, tmp_path / "plain")
    with pytest.raises(UserError, match="no chat template"):
        checks.preflight(resolved(f"target_model={tmp_path / 'plain'}"))


def test_baselines_cost_no_loop_twice() -> None:
    """Sweeping the weights keeps the reset, its judges, the first attacks and the first answers."""
    made = plan.make(
        params.load(
            LOOP,
            [
                "seed=0",
                "baselines=false",
                'objective_weights=["helpfulness:0.5,safety:0.5","helpfulness:0.3,safety:0.7"]',
            ],
        )
    )
    counts = pd.Series([i.stage for i in made.instances.values()]).value_counts()
    assert counts["selfmoa/1_reset"] == 1 and counts["judges/evaluator"] == 3
    assert counts["selfmoa/4_align"] == 6 and counts["selfmoa/2_red_team"] == 5 and counts["selfmoa/3_preferences"] == 5


def test_a_judge_is_trained_once_for_all_shares_of_noise() -> None:
    """Another share is measured, on the judge that is there; the loop hears that judge with its noise."""
    made = plan.make(params.load(LOOP, ["seed=0", "baselines=false", "judge_noise=[0.0,0.2]"]))
    cards = {k: i for k, i in made.instances.items() if i.stage == "judges/evaluator"}
    measured = {k: i.inputs["trained"] for k, i in cards.items() if "trained" in i.inputs}
    trained = set(cards) - set(measured)
    assert len(trained) == 3 and len(measured) == 2
    for stage in ("selfmoa/2_red_team", "selfmoa/3_preferences", "selfmoa/5_evaluate"):
        heard = {k for i in made.instances.values() if i.stage == stage for k in i.inputs["training_judge"]}
        assert heard <= trained and len(heard) == 1
    clean, noisy = (v["roles"]["training_judge"] for v in made.variants)
    assert measured[noisy] == [clean]


TRAINING = ("1_reset", "2_red_team", "3_preferences", "4_align")


@pytest.mark.parametrize("stage", [f"selfmoa/{s}" for s in TRAINING] + ["judges/evaluator", "testbed/chat"])
def test_training_stages_cannot_reach_the_oracle(stage: str) -> None:
    reached = plan.read_notebook(stage).reached | plan._reached(["testbed.chat"])
    assert not reached & {"testbed.verdicts", "judges.oracle", "selfmoa.annotators", "selfmoa.evaluation"}


def test_the_evaluation_reaches_it() -> None:
    assert "judges.oracle" in plan.read_notebook("selfmoa/5_evaluate").reached
