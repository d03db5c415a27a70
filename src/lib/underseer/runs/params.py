"""Experiment files: a typed schema, ``extends``, ``variants``, and every mistake found before anything runs.

An experiment file is flat YAML. ``pipeline``, ``description``, ``extends``, ``variants``, ``seeds`` and ``n_seeds`` steer; every other key is a
parameter of the schema below. ``variants`` is a grid (a mapping of key to list), or a list of grids whose variants are
put together. A key in ``variants`` takes precedence over a plain value of the same name. ``seeds`` names a set of seeds
(``params/seeds.yaml``), of which ``n_seeds`` are taken as one more axis of every grid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from underseer.errors import UserError, nearest, short
from underseer.paths import shown
from underseer.runs import limits, names, seeds
from underseer.runs.files import STEERING, Experiment, Raw, Source, expand, name_of, override, read


def _result(unit: str, **limits: Any) -> Any:
    """A parameter that decides the result: part of a stage's key."""
    return Field(description=unit, json_schema_extra={"affects": "result"}, **limits)


def _runtime(unit: str, **limits: Any) -> Any:
    """A parameter that only decides how a result is computed: not part of any key."""
    return Field(description=unit, json_schema_extra={"affects": "runtime"}, **limits)


Own = Annotated[float, Field(gt=0)] | str | None
"""A number for all baselines, or NAME:NUMBER joined by ',' for those named."""
Job = Annotated[float, Field(ge=0)] | str | None
"""A number for the jobs of all stages, or NUMBER and STAGE:NUMBER joined by ',' (``runs/resources.py``)."""


class Schema(BaseModel):
    """Every parameter that an experiment file may hold, with its type, unit and range. None has a default here: the
    numbers stand in ``params/``, and a notebook's ``parameters`` cell repeats those of the demo."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # what is learnt, and from which rows
    task: Literal["safety", "legal", "toxicity"] = _result("the W2S task")
    seed: int = _result("seed of the split, the bootstrap draws, the classifier heads and the order of batches", ge=0)
    dataset: str = _result("public name, or names joined by '+'", min_length=1)
    dataset_path: str | None = _result("file (or folder, for several names) in the public format; null: from the hub")
    dataset_revision: str | None = _result("commit of the data set on the hub; null: the one pinned in data/")
    clean: bool = _result("drop empty rows, duplicates and label conflicts before the split")
    near_threshold: float | None = _result(
        "cosine of character n-grams at which rows count as near duplicates; null: only equal texts", gt=0, le=1
    )
    n_supervise: int = _result("rows with ground truth for the weak supervisors", ge=1)
    n_transfer: int = _result("rows that the supervisors label for the student", ge=1)
    n_validation: int = _result("rows for early stopping", ge=1)
    n_test: int = _result("rows for the report, opened by the report alone", ge=1)
    n_judge: int = _result("rows from which toxicity scorers are trained; 0 where the task needs none", ge=0)

    # models
    weak_model: str = _result("testbed:NAME, scratch:FAMILY?OPTIONS, a folder, or a hub id[@revision]", min_length=1)
    strong_model: str = _result("as weak_model", min_length=1)
    pretrain_seed: int = _result("seed of the testbed's base models, shared by all seeds of an experiment", ge=0)

    # supervision
    voting: Literal["none", "hard", "soft", "best_of_b", "least_toxic", "mbr"] = _result(
        "how the bootstrap supervisors' labels are combined"
    )
    label_noise: float = _result("share of the weak labels that are turned before the student sees them", ge=0, le=1)
    bootstraps: int = _result("supervisors, each trained on a bootstrap sample of the supervise rows", ge=1)
    student_loss: Literal["hard_ce", "soft_ce", "aux_conf", "filtered_ce", "weighted_ce"] = _result(
        "loss of the student on the weak labels"
    )
    min_agreement: float = _result(
        "filtered_ce drops rows on whose label a smaller share of supervisors agrees", ge=0.5, le=1
    )

    # training
    epochs: float = _result("passes over the training rows", gt=0)
    batch_size: int = _result("rows per optimizer step", ge=1)
    learning_rate: float = _result("peak learning rate of AdamW, per step", gt=0)
    weak_epochs: float | None = _result("epochs of the supervisors; null: epochs", gt=0)
    weak_learning_rate: float | None = _result("learning rate of the supervisors; null: learning_rate", gt=0)
    weight_decay: float = _result("decoupled weight decay of AdamW", ge=0)
    warmup_steps: int = _result("optimizer steps of linear warm-up", ge=0)
    eval_steps: int = _result("optimizer steps between two looks at the validation split", ge=1)
    patience: int = _result("looks without improvement before training stops; 0: no early stopping", ge=0)
    max_length: int = _result("tokens kept of a text; batches are padded to their longest row, never to this", ge=8)
    keep_models: bool = _result("keep the trained weights in the run store")
    gradient_accumulation: int = _result("forward passes that share one optimizer step", ge=1)
    precision: Literal["auto", "fp32", "bf16"] = _result("arithmetic of training; auto: bf16 where it is faster")

    # generation and its judges: the toxicity task
    samples: int = _result("sampled continuations of each test prompt, beside the greedy one", ge=1)
    max_new_tokens: int = _result("longest continuation in tokens", ge=1)
    temperature: float = _result("softmax temperature of sampling", ge=0.001)
    top_p: float = _result("probability mass that sampling keeps", gt=0, le=1)
    top_k: int = _result("tokens that sampling keeps; 0: all", ge=0)
    no_repeat_ngram: int = _result("n-grams of this length occur once in a sampled continuation; 0: no such rule", ge=0)
    weak_decoding: Literal["sample", "greedy"] = _result("how supervisors write the continuations that are weak labels")
    training_judge: str | None = _result(
        "scorer that selects continuations: trained:MODEL, classifier:MODEL or perspective", min_length=1
    )
    reporting_judge: str | None = _result("scorer of the report: as training_judge, or oracle (testbed)", min_length=1)
    judge_members: int = _result("training judges that vote, each on a bootstrap sample of its rows", ge=1)
    judge_epochs: float = _result("passes over the rows of a trained judge", gt=0)
    judge_learning_rate: float | None = _result(
        "peak learning rate of a trained judge; null: by the size of its model", gt=0
    )
    judge_max_length: int | None = _result("tokens that a judge of exchanges reads; null: max_length", ge=8)
    fluency_model: str | None = _result(
        "language model whose perplexity measures fluency: as weak_model, or trained:MODEL", min_length=1
    )

    # Self-MOA: models, judges and data
    target_model: str = _result("chat model to align, as weak_model", min_length=1)
    red_team_model: str = _result("what writes attacks: a chat model, as weak_model, or templates", min_length=1)
    helpfulness_judge: str = _result(
        "judge that orders pairs: trained:, classifier:, reward: or rubric:MODEL", min_length=1
    )
    refusal_judge: str = _result("judge of refusals in the report: strings, or a judge of a model", min_length=1)
    reporting_helpfulness_judge: str = _result("judge of helpfulness in the report: as helpfulness_judge, or oracle")
    judge_noise: float = _result(
        "how much the training judges err, in the unit of judge_error; 0: as they are", ge=0, le=1
    )
    judge_error: Literal["flips", "blind_spot", "length"] = _result("the kind of the training judges' errors")
    n_judged: int = _result(
        "judged exchanges from which trained judges learn, and on a fifth of which they are measured", ge=10
    )
    safe_dataset: str = _result("prompts that are safe or borderline, for training", min_length=1)
    exchange_dataset: str = _result("exchanges whose harmful answers are for the reset", min_length=1)
    judge_dataset: str | None = _result("exchanges of both classes, for judges; null: exchange_dataset", min_length=1)
    reporting_judge_dataset: str | None = _result("those of judges that report; null: judge_dataset", min_length=1)
    min_auroc: float = _result(
        "AUROC that a judge which steers may have by its card's interval; 0: no floor", ge=0, le=1
    )
    human_dataset: str = _result("preference pairs by people, for the baselines", min_length=1)
    evaluation_datasets: str = _result("evaluation sets, joined by '+'", min_length=1)
    n_seed_prompts: int = _result("seed prompts of the red team", ge=1)
    n_safe: int = _result("safe prompts to train on", ge=0)
    n_borderline: int = _result("borderline prompts to train on", ge=0)
    n_evaluation: int = _result(
        "prompts of each evaluation set, as many attacks as safe ones; smaller sets whole", ge=1
    )
    # Self-MOA: the loop
    iterations: int = _result("rounds of red team, judging and alignment", ge=1)
    baselines: bool | str = _result("baselines and controls to train beside the loop, joined by '+'; all or none")
    baseline_pairs: Literal["as_is", "loop"] = _result(
        "what the baselines learn from: pairs of the first round, or as many as the loop has, of one round with its budgets"
    )
    baseline_beta: Own = _result("temperature of the baselines' plain DPO; null: the loop's effective one")
    baseline_epochs: Own = _result("passes of the baselines; null: epochs")
    baseline_learning_rate: Own = _result("learning rate of the baselines; null: learning_rate")
    supervised_dataset: str | None = _result("safe answers that the target learns first; null: none", min_length=1)
    n_supervised: int = _result("answers of each of these data sets, at most", ge=1)
    supervised_epochs: float = _result("passes over them", gt=0)
    supervised_learning_rate: float = _result("peak learning rate of this fine-tuning", gt=0)
    reset: bool = _result("reset the target's safety before the loop")
    n_reset: int = _result("harmful exchanges of the reset", ge=1)
    reset_epochs: float = _result("passes of the reset", gt=0)
    reset_learning_rate: float = _result("peak learning rate of the reset", gt=0)
    attack_budget: int = _result("prompts that the attacker may write in an iteration", ge=1)
    attack_rounds: int = _result("rounds of an iteration; later ones build on the successes of earlier ones", ge=1)
    attack_strategies: str = _result("names of prompts.strategies joined by '+', or all", min_length=1)
    min_new_successes: int = _result("a round with fewer new successes ends the iteration's attacks", ge=0)
    n_prompts: int = _result("prompts that are answered for pairs in an iteration", ge=1)
    safe_share: float = _result("share of safe prompts among them", ge=0, le=1)
    borderline_share: float = _result("share of borderline prompts among them", ge=0, le=1)
    replay_attacks: bool = _result("fill the share of attacks with successes of earlier iterations")
    answers_per_prompt: int = _result("answers of the target to each prompt", ge=2)
    min_margin: float = _result("pairs closer than this in the ordering score are dropped", ge=0, le=1)
    pairs_per_prompt: int = _result("pairs kept of a prompt", ge=1)
    drop_both_unsafe: bool = _result("drop pairs in which both answers are unsafe")
    benchmarks: str | None = _result(
        "utility benchmarks of lm-evaluation-harness, joined by '+'; null: none", min_length=1
    )
    unsafe_threshold: float = _result("a safety score from here on counts as unsafe", gt=0, lt=1)
    ordering: Literal["helpfulness", "safety", "weighted_sum"] = _result("the score that orders the loop's pairs")
    objective_weights: str = _result("weights of the objectives: helpfulness:0.5,safety:0.5", min_length=1)
    beta: float = _result("temperature of MODPO", gt=0)
    margin_scale: float = _result("factor on the margins of the other objectives", ge=0)
    divide_by_weight: bool = _result(
        "MODPO's division by the ordering objective's weight; false: as Self-MOA publishes"
    )
    nll_weight: float = _result("weight of the NLL of safe chosen answers", ge=0)
    reference: Literal["reset", "previous"] = _result(
        "reference of an iteration: the reset model, or the previous iterate"
    )
    lora_rank: int = _result("rank of the adapters; 0: the whole model is trained", ge=0)
    lora_alpha: float = _result("scale of the adapters, over their rank", gt=0)
    lora_targets: str = _result("all-linear, or module names parted by commas", min_length=1)
    n_human_pairs: int = _result("pairs labelled by people, for the baselines", ge=1)
    engine: Literal["auto", "transformers", "vllm", "openai"] = _result("what generates answers")

    # how it runs
    device: str = _runtime("auto, cpu, cuda, cuda:N or mps", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int = _runtime("CPU threads of one stage; with 1, results do not depend on --jobs", ge=1)
    eval_batch_size: int = _runtime("rows in one forward pass without gradients", ge=1)
    tensor_parallel: int = _runtime("GPUs that share one model; engine vllm", ge=1)
    data_parallel: int = _runtime("copies of a model that share its prompts; engine vllm", ge=1)
    kv_cache_gb: float = _runtime("GiB of memory for the keys and values of one model; engine vllm", gt=0)
    server_concurrency: int = _runtime("calls at a time; engine openai", ge=1)
    server_timeout: float = _runtime("seconds that a call may take; engine openai", gt=0)
    server_tries: int = _runtime("tries of a call to a busy or broken server; engine openai", ge=1)
    job_gpus: Job = _runtime("GPUs of a stage's job on a cluster; null: those that device = cuda needs")
    job_memory_gb: Job = _runtime("GB of memory of a stage's job on a cluster; null: as the profile says")
    job_minutes: Job = _runtime("most minutes of a stage's job on a cluster; null: as the profile says")


KNOWN = tuple(Schema.model_fields)
RUNTIME = frozenset(k for k, f in Schema.model_fields.items() if f.json_schema_extra["affects"] == "runtime")
DATASETS = frozenset(k for k in KNOWN if re.search(r"(^|_)datasets?$", k))
"""Parameters that name data sets, all read from ``dataset_path`` where that is given."""


def load(file: str | Path, overrides: Iterable[str] = (), name: str | None = None) -> Experiment:
    """Read an experiment file, with ``KEY=VALUE`` overrides in YAML notation.

    With overrides that decide another result than the file's the experiment has a name of its own: the file's, then '@' and
    ``name`` or, without one, the overrides.

    Raises:
        UserError: with every mistake found, one line each.
    """
    path = Path(file)
    raw = read(path)
    written = replace(raw, keys=dict(raw.keys), problems=list(raw.problems))
    typed: dict[str, str] = {}
    for text in overrides:
        key, sep, value = text.partition("=")
        if not sep or not key:
            raw.problems.append(f"--set {text}: expected KEY=VALUE, for example --set seed=1")
            continue
        typed.pop(key.strip(), None)  # what is typed again takes its place at the end
        typed[key.strip()] = value.strip()
        override(raw, key.strip(), value)
    experiment = replace(_check(path, raw), options=names.options(path, typed, name))
    if name:
        return names.chosen(experiment, name)
    if not typed:
        return experiment
    return names.rerun(experiment, raw, typed, (written, lambda: _check(path, written)), RUNTIME)


def _check(path: Path, raw: Raw) -> Experiment:
    problems = raw.problems
    parameters: dict[str, Any] = {}
    for key, source in raw.keys.items():
        if key in STEERING:
            continue
        if wrong := problem(key, source.value):
            problems.append(f"{source.where}: {wrong}")
        parameters[key] = source.value
    variants = expand(seeds.axis(raw), problems, problem)
    pipeline = raw.keys.get("pipeline", Source(shown(path), None))
    if not isinstance(pipeline.value, str):
        problems.append(f"{pipeline.where}: pipeline = {short(pipeline.value)}: expected one, such as w2s")
    description = raw.keys.get("description", Source("", ""))
    if isinstance(description.value, list | dict) or limits.unfit("", description.value):
        problems.append(f"{description.where}: description = {short(description.value)}: expected a text")
    if problems:
        raise UserError("\n".join(problems))
    return Experiment(
        name_of(path), path.resolve(), pipeline.value, str(description.value or "").strip(), parameters, variants
    )


@cache
def _adapter(key: str) -> TypeAdapter:
    info = Schema.model_fields[key]
    return TypeAdapter(Annotated[info.annotation, info], config=ConfigDict(strict=True))


def problem(key: str, value: Any) -> str | None:
    """What is wrong with one parameter, in one line, or None."""
    if key not in Schema.model_fields:
        return f"{key}: unknown parameter{nearest(key, (*KNOWN, *STEERING)) or '; allowed: ' + ', '.join(KNOWN)}"
    try:
        _adapter(key).validate_python(value)
    except ValidationError as error:
        told = {e["msg"].replace("Input should be ", "expected ") for e in error.errors()}
        choices = [v for v in get_args(Schema.model_fields[key].annotation) if isinstance(v, str)]
        hint = nearest(value, choices) if isinstance(value, str) else ""
        return f"{key} = {short(value)}: {' or '.join(sorted(told))} ({Schema.model_fields[key].description}){hint}"
    wrong = limits.unfit(key, value)
    return f"{key} = {short(value)}: {wrong} ({Schema.model_fields[key].description})" if wrong else None
