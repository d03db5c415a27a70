"""An ablation costs only what it changes: each parameter reruns the stages whose outputs it can change, and no others.

The walk: every result parameter of a pipeline gets another valid value, the experiment is planned again, and the stages that
run anew although none of their inputs did are compared with a table. What follows from them, inputs decide.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import pytest

from conftest import ROOT
from underseer.errors import UserError
from underseer.runs import params, plan
from underseer.runs.params import KNOWN, RUNTIME, Schema
from underseer.runs.pipelines import STEERS
from underseer.selfmoa import checks

NOTHING, REFUSED = "nothing", "refused"
TINY, SHA = "scratch:gpt2?n_layer=1&n_embd=32&n_head=2", "0" * 40


@dataclass(frozen=True)
class Walk:
    """An experiment to walk over: its file, settings under which much of it is read, and what each parameter must rerun.

    ``table``: the first stages to run anew, parted by blanks, or NOTHING or REFUSED -> the parameters, parted by blanks.
    ``values``: other values, where the schema gives none.
    """

    file: str
    settings: tuple[str, ...]
    table: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)

    def plan(self, *sets: str) -> plan.Plan:
        return plan.make(params.load(ROOT / self.file, [*self.settings, *sets], "walk"))

    @cached_property
    def before(self) -> plan.Plan:
        return self.plan()

    @cached_property
    def expected(self) -> dict[str, str]:
        return {name: stages for stages, names in self.table.items() for name in names.split()}

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The result parameters that an experiment file of the pipeline holds, with their values here."""
        declared = {n for stage in plan.stages(self.before.pipeline) for n in plan.read_notebook(stage).defaults}
        held = self.before.variants[0]["parameters"]
        return {n: held[n] for n in KNOWN if n not in RUNTIME and n in declared | STEERS[self.before.pipeline]}

    def another(self, name: str) -> Any:
        """Another valid value: from ``values``, or by the type and the range in the schema."""
        value = self.parameters[name]
        if name in self.values:
            return self.values[name]
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float):
            return next(v for v in (value + 1, value / 2, (value + 1) / 2) if v != value and self._valid(name, v))
        return next(v for v in get_args(Schema.model_fields[name].annotation) if isinstance(v, str) and v != value)

    def _valid(self, name: str, value: Any) -> bool:
        try:
            params.load(ROOT / self.file, [f"{name}={json.dumps(value)}"])
        except UserError:
            return False
        return True

    def anew(self, name: str) -> str:
        """What another value of a parameter reruns, as in ``table``."""
        try:
            after = self.plan(f"{name}={json.dumps(self.another(name))}")
        except UserError:
            return REFUSED
        new = {key: i for key, i in after.instances.items() if key not in self.before.instances}
        first = {i.stage for i in new.values() if not any(key in new for keys in i.inputs.values() for key in keys)}
        return " ".join(sorted(first)) or NOTHING


CLASSIFY = Walk(
    "params/demo/w2s_safety.yaml",
    ("seed=0", "voting=hard"),
    {
        "w2s/1_data": "task seed dataset clean near_threshold n_supervise n_transfer n_validation n_test",
        "testbed/pretrain": "pretrain_seed",
        "w2s/2_supervisors": "weak_model weak_epochs weak_learning_rate bootstraps",
        "w2s/3_weak_labels": "voting label_noise",
        "w2s/4_student": "strong_model student_loss epochs learning_rate",
        "w2s/2_supervisors w2s/4_student": "batch_size weight_decay warmup_steps eval_steps patience max_length"
        " keep_models gradient_accumulation precision",
        # a generated data set has no revision; agreement is asked for by filtered_ce alone; the rest is of toxicity
        NOTHING: "dataset_revision min_agreement samples max_new_tokens temperature top_p top_k no_repeat_ngram weak_decoding"
        " training_judge reporting_judge judge_members judge_epochs judge_learning_rate fluency_model",
        REFUSED: "dataset_path n_judge",
    },
    {"dataset": "testbed-legal", "dataset_path": "README.md", "dataset_revision": SHA, "near_threshold": 0.9}
    | {"weak_model": TINY, "strong_model": TINY, "voting": "soft"}
    | dict.fromkeys(("training_judge", "reporting_judge"), f"trained:{TINY}")
    | {"fluency_model": TINY},
)
CONTINUE = Walk(
    "params/demo/w2s_toxicity.yaml",
    ("seed=0", "voting=least_toxic"),
    {
        "w2s/1_data": "seed dataset clean near_threshold n_supervise n_transfer n_validation n_test n_judge",
        "testbed/pretrain": "pretrain_seed",
        "w2s/2_supervisors_continuation": "weak_model weak_epochs weak_learning_rate bootstraps weak_decoding",
        "w2s/3_weak_labels_continuation": "voting",
        "w2s/4_student_continuation": "strong_model epochs learning_rate",
        "w2s/2_supervisors_continuation w2s/4_student_continuation": "keep_models gradient_accumulation samples"
        " max_new_tokens temperature top_p top_k no_repeat_ngram",
        "judges/scorer": "training_judge reporting_judge judge_members judge_epochs judge_learning_rate",
        "judges/scorer w2s/2_supervisors_continuation w2s/4_student_continuation": "batch_size weight_decay"
        " warmup_steps eval_steps patience max_length precision",
        "judges/score w2s/3_weak_labels_continuation": "fluency_model",
        NOTHING: "dataset_revision min_agreement label_noise",
        REFUSED: "task dataset_path student_loss",
    },
    {**CLASSIFY.values, "voting": "mbr"},
)
LOOP = Walk(
    "params/demo/selfmoa.yaml",
    ("seed=0", f"baselines={'+'.join(checks.BASELINES)}", "device=cpu", "engine=transformers"),
    {
        "selfmoa/0_supervised": "supervised_dataset",
        "selfmoa/0_data": "seed dataset safe_dataset evaluation_datasets n_seed_prompts n_safe n_borderline"
        " n_evaluation n_reset exchange_dataset",
        "judges/evaluator testbed/pretrain": "pretrain_seed",
        "judges/evaluator": "training_judge helpfulness_judge refusal_judge judge_epochs judge_learning_rate n_judged"
        " judge_dataset min_auroc reporting_judge reporting_helpfulness_judge judge_max_length",
        "selfmoa/2_red_team selfmoa/4_align": "baseline_pairs",  # the round with all budgets; people's pairs, fewer of them
        "judges/evaluator selfmoa/1_reset": "precision",
        "judges/evaluator selfmoa/2_red_team selfmoa/5_evaluate": "judge_noise",
        "judges/evaluator selfmoa/4_align": "unsafe_threshold",
        "selfmoa/1_reset": "batch_size reset_epochs reset_learning_rate lora_rank lora_alpha lora_targets",
        "selfmoa/1_reset selfmoa/5_evaluate": "max_length",
        "testbed/pretrain": "target_model red_team_model",
        "selfmoa/2_red_team": "iterations attack_budget attack_rounds attack_strategies min_new_successes",
        "selfmoa/2_red_team selfmoa/human_pairs": "reset",
        "selfmoa/2_red_team selfmoa/5_evaluate selfmoa/human_pairs": "max_new_tokens temperature top_p top_k",
        "selfmoa/3_preferences": "n_prompts safe_share borderline_share replay_attacks drop_both_unsafe ordering",
        "selfmoa/3_preferences selfmoa/human_pairs": "answers_per_prompt min_margin pairs_per_prompt",
        "selfmoa/4_align selfmoa/4_finetune": "epochs learning_rate weight_decay baseline_epochs baseline_learning_rate",
        "selfmoa/4_align": "baseline_beta objective_weights beta margin_scale divide_by_weight nll_weight reference",
        "selfmoa/5_evaluate": "benchmarks",
        "selfmoa/6_report": "baselines",
        "selfmoa/human_pairs": "human_dataset n_human_pairs",
        # judges that report are the oracle, which learns from nothing
        NOTHING: "engine judge_error reporting_judge_dataset n_supervised supervised_epochs supervised_learning_rate",  # on a CPU, auto is transformers; judges without errors have none of a kind
        REFUSED: "dataset_path",
    },
    dict.fromkeys(
        ("dataset", "safe_dataset", "exchange_dataset", "human_dataset", "judge_dataset", "supervised_dataset"),
        "pku-saferlhf",
    )
    | {"reporting_judge_dataset": "pku-saferlhf"}
    | {"evaluation_datasets": "xstest", "dataset_path": "README.md", "engine": "auto"}
    | {
        "benchmarks": "hellaswag",
        "target_model": "testbed:chat-test",
        "red_team_model": "testbed:attacker-test",
        "lora_targets": "c_attn",
        "attack_strategies": "direct",
        "judge_noise": 0.2,
        "baselines": "none",
        "baseline_beta": 0.7,
        "baseline_epochs": 2.0,
        "baseline_learning_rate": 0.01,
    }
    | dict.fromkeys(("training_judge", "helpfulness_judge", "refusal_judge"), f"trained:{TINY}")
    | dict.fromkeys(("reporting_judge", "reporting_helpfulness_judge"), "strings")
    | {"objective_weights": "helpfulness:0.3,safety:0.7"},
)
WALKS = {"classify": CLASSIFY, "continue": CONTINUE, "loop": LOOP}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_each_parameter_reruns_what_it_can_change(walk: Walk) -> None:
    assert sorted(walk.expected) == sorted(walk.parameters), "the table names each parameter of the pipeline once"
    assert {name: walk.anew(name) for name in walk.parameters} == walk.expected


def new(before: plan.Plan, after: plan.Plan) -> dict[str, int]:
    return dict(Counter(i.stage for key, i in after.instances.items() if key not in before.instances))


def test_what_only_the_report_reads_costs_no_vote() -> None:
    """Test prompts are continued by one supervisor of six; fluency is asked for by one rule of three."""
    assert new(CONTINUE.before, CONTINUE.plan("samples=9")) == {
        "w2s/2_supervisors_continuation": 1,
        "w2s/4_student_continuation": 2,
        "judges/score": 3,
        "w2s/5_report": 1,
    }
    vote = CONTINUE.plan("voting=mbr")
    assert new(vote, CONTINUE.plan("voting=mbr", f"fluency_model={TINY}")) == {"judges/score": 3, "w2s/5_report": 1}


def test_supervisors_have_one_number_of_epochs() -> None:
    """Where the supervisors' own is null, epochs is theirs too; the value decides the key, not where it was written."""
    both = {"w2s/2_supervisors", "w2s/3_weak_labels", "w2s/4_student", "w2s/5_report"}
    null = CLASSIFY.plan("weak_epochs=null")
    assert set(new(null, CLASSIFY.plan("weak_epochs=null", "epochs=5"))) == both
    assert not new(null, CLASSIFY.plan(f"weak_epochs={CLASSIFY.parameters['epochs']}"))


def test_agreement_is_asked_for_by_one_loss() -> None:
    filtered = CLASSIFY.plan("student_loss=filtered_ce")
    changed = new(filtered, CLASSIFY.plan("student_loss=filtered_ce", "min_agreement=0.9"))
    assert changed == {"w2s/4_student": 1, "w2s/5_report": 1}  # not the ceiling
