"""Everything that can be seen to be wrong with one variant of the loop before anything runs. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from underseer import engines
from underseer.errors import UserError, nearest
from underseer.prompts import strategies
from underseer.selfmoa import pools, red_team, targets

DATASETS = {
    "dataset": "rows",
    "safe_dataset": "rows",
    "supervised_dataset": None,
    "exchange_dataset": "exchanges",
    "judge_dataset": "exchanges",
    "reporting_judge_dataset": "exchanges",
    "human_dataset": "pairs",
    "evaluation_datasets": "rows",
}
"""Parameters that name data, and what each must hold; None: exchanges or pairs."""

UNSCORED = ("hh-harmless", "beavertails", "llmbar")
"""Pairs by people that say nothing of helpfulness, or nothing of safety."""

BASELINES = ("human_dpo", "human_modpo", "dpo_weighted_sum", "dpo_helpful_only", "dpo_safety_only", "sft")
CONTROLS = ("offline", "no_red_team", "iterated_dpo")
"""What may be trained beside the loop, in a report's order. A control leaves one part of the loop out (``runs.rounds``); the last two
are loops of their own, with iterates."""
HUMAN = ("human_dpo", "human_modpo")
"""Baselines that learn from pairs which people ordered."""


def baselines(value: str | bool) -> tuple[str, ...]:
    """The names in the parameter ``baselines``: joined by '+', or all or none (true and false). Raises UserError."""
    known = (*BASELINES, *CONTROLS)
    if value in (False, "none"):
        return ()
    if value in (True, "all"):
        return known
    names = [name.strip() for name in str(value).split("+")]
    for name in names:
        if name not in known:
            raise UserError(
                f"baselines = {value!r}: {name!r} is unknown{nearest(name, known)}; give all, none, or some of "
                f"{', '.join(known)}, joined by '+'"
            )
    return tuple(name for name in known if name in names)


def own(name: str, value: float | str | None, method: str) -> float | None:
    """What a parameter of the baselines says of one of them: a number is for all, ``sft:0.001,human_dpo:0.002`` for those
    named; None where it says nothing. Raises UserError."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().partition(":")[::2] for part in value.split(",")]
    given = dict(parts)
    if len(given) < len(parts):
        twice = next(one for i, (one, _) in enumerate(parts) if one in dict(parts[:i]))
        raise UserError(f"{name} = {value!r}: {twice} stands there twice; name each baseline once")
    for baseline, number in given.items():
        if (
            baseline not in (*BASELINES, *CONTROLS)
            or not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", number)
            or not 0 < float(number) < 1e9
        ):
            raise UserError(
                f"{name} = {value!r}: {baseline}:{number} is not BASELINE:NUMBER with a number above 0; give for example "
                "sft:0.001,human_dpo:0.002, or one number for all"
            )
    return float(given[method]) if method in given else None


def preflight(parameters: Mapping[str, Any]) -> list[str]:
    """Check data, models, judges, weights and strategies of a variant; gives remarks that the user should read.

    Raises UserError with every mistake, one a line.
    """
    from underseer.judges import opening

    mistakes: list[str] = []
    remarks: list[str] = []
    looks = (
        _data,
        _weights,
        _room,
        _mix,
        _benchmarks,
        lambda p: engines.check(p["engine"]),
        _errors,
        lambda p: strategies.chosen(p["attack_strategies"]),
        _models,
        _adapter,
        _labels,
        _people,
    )
    for look in (*looks, lambda p: remarks.extend(opening.preflight(p, opening.OF_EXCHANGES))):
        _collect(mistakes, look, parameters)
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))
    return remarks


def _collect(mistakes: list[str], look: Callable[[Mapping[str, Any]], Any], parameters: Mapping[str, Any]) -> None:
    try:
        look(parameters)
    except UserError as error:
        mistakes += str(error).split("\n")


def _data(p: Mapping[str, Any]) -> None:
    from underseer.data import check_files

    if pools.is_testbed({p[name] for name in DATASETS if p[name] is not None}):
        if p["dataset_path"]:
            raise UserError(
                f"dataset_path = {p['dataset_path']}: {pools.TESTBED} is generated and reads no file; leave it empty"
            )
        return
    for name, holds in DATASETS.items():
        unread = name == "human_dataset" and not set(HUMAN).intersection(baselines(p["baselines"]))
        if unread or p[name] is None:
            continue
        check_files(p[name], p["dataset_path"], None, holds=holds)
    _answers(p)


def _answers(p: Mapping[str, Any]) -> None:
    """Data for supervised fine-tuning that hold no safe answers, or from which judges learn."""
    from underseer.data.registry import parse

    given, judges = p["supervised_dataset"], [p[_judged_on(p, role)] for role in ("training_judge", "reporting_judge")]
    for part in parse(given, None) if given else ():
        name, wrong = part.info.name, None
        if "rows" in part.info.holds:
            wrong = "holds prompts without answers; give exchanges or pairs, such as hh-harmless"
        elif part.keep is not None:
            wrong = "is read without a class: its safe or chosen answers are learnt; leave the '/' out"
        elif any(name == other.info.name for data in judges for other in parse(data, None)):
            wrong = "is what judges learn from: a target that was taught the same answers would be judged by them; give another"
        if wrong:
            raise UserError(f"supervised_dataset = {given!r}: {name} {wrong}")


def _judged_on(p: Mapping[str, Any], role: str) -> str:
    """The parameter that names the exchanges which a judge learns from and is measured on."""
    names = ("reporting_judge_dataset", "judge_dataset") if reports(p, role) else ("judge_dataset",)
    return next((name for name in names if p[name] is not None), "exchange_dataset")


def reports(p: Mapping[str, Any], role: str) -> bool:
    """Whether a judge learns from what is kept for judges that report: these, and a judge of refusals that learns."""
    from underseer.judges import spec

    return role.startswith("reporting") or (role == "refusal_judge" and spec.learns(p[role]))


def _weights(p: Mapping[str, Any]) -> None:
    from underseer.maths import modpo

    modpo.parse_weights(p["objective_weights"], modpo.objective(p["ordering"]))
    for part in p["objective_weights"].split(","):
        name = re.split("[:=]", part)[0].strip()
        if name and name not in modpo.COLUMNS:
            raise UserError(
                f"objective_weights = {p['objective_weights']!r}: {name!r} is no objective{nearest(name, modpo.COLUMNS)}; the pairs of "
                f"the loop are judged by {' and '.join(modpo.COLUMNS)}"
            )
    if "human_modpo" in baselines(p["baselines"]):  # it learns from pairs that are ordered by helpfulness
        modpo.parse_weights(p["objective_weights"], "helpfulness")


def _room(p: Mapping[str, Any]) -> None:
    if p["max_new_tokens"] >= p["max_length"]:
        raise UserError(
            f"max_new_tokens = {p['max_new_tokens']} and max_length = {p['max_length']}: an answer leaves no room for its prompt; give "
            f"max_new_tokens below {p['max_length']}, or raise max_length"
        )


def _errors(p: Mapping[str, Any]) -> None:
    if p["judge_noise"] and p["judge_error"] == "blind_spot" and not pools.is_testbed({p["dataset"]}):
        raise UserError(
            f"judge_error = 'blind_spot': the categories of harm of {p['dataset']} cannot be read from its words; give flips "
            f"or length, or {pools.TESTBED} as data"
        )


def _mix(p: Mapping[str, Any]) -> None:
    if p["safe_share"] + p["borderline_share"] > 1:
        raise UserError(
            f"safe_share = {p['safe_share']} and borderline_share = {p['borderline_share']}: together above 1; lower one of them"
        )


def _benchmarks(p: Mapping[str, Any]) -> None:
    if p["benchmarks"] and find_spec("lm_eval") is None:
        from underseer.selfmoa import utility

        raise UserError(
            f"benchmarks = {p['benchmarks']!r}: lm-evaluation-harness is not installed; install it with {utility.INSTALL}, or leave "
            "benchmarks empty"
        )


def _models(p: Mapping[str, Any]) -> None:
    targets.check_spec(p["target_model"])
    if p["red_team_model"] != red_team.TEMPLATES:
        targets.check_spec(p["red_team_model"])


def _labels(p: Mapping[str, Any]) -> None:
    """Judges that no label here can train, and labels of one class."""
    from underseer.data.registry import measures_of, parse
    from underseer.judges import spec
    from underseer.judges.opening import OF_EXCHANGES

    mistakes = []
    for role, measure in OF_EXCHANGES.items():
        name = _judged_on(p, role)
        kind = spec.split(p[role])[0]
        if kind == "oracle" or p[name].startswith("testbed"):
            continue
        if measure not in measures_of(p[name]) and spec.learns(p[role]):
            mistakes.append(
                f"{role} = {p[role]!r}: {p[name]} has no labels of {measure} to train it on; give a judge that is there already, such "
                "as classifier:, reward: or rubric:MODEL"
            )
        sides = {part.keep for part in parse(p[name], "exchanges")}
        if measure == "unsafe" and len(sides) == 1 and None not in sides:
            mistakes.append(
                f"{name} = {p[name]!r}: its labels are all {p[name].rpartition('/')[2]}, and {role} = {p[role]!r} can neither learn nor be "
                f"measured without both; give judge_dataset = {re.sub('/[a-z]+', '', p[name])}"
            )
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))


def _people(p: Mapping[str, Any]) -> None:
    """Pairs by people that a baseline cannot learn from."""
    unscored = [name for name in str(p["human_dataset"]).split("+") if name in UNSCORED]
    if unscored and "human_modpo" in baselines(p["baselines"]):
        raise UserError(
            f"human_dataset = {p['human_dataset']!r}: human_modpo needs pairs ordered by helpfulness with their safety, and not "
            f"both are known of {', '.join(unscored)}; give pku-saferlhf, or leave human_modpo out of baselines"
        )


def _adapter(p: Mapping[str, Any]) -> None:
    """Layers that the adapter names and the target does not have. Names cost the import of torch; all-linear always matches."""
    from underseer.models import adapters

    if p["lora_rank"] and p["lora_targets"] != adapters.ALL_LINEAR:
        settings = adapters.LoraSettings(p["lora_rank"], p["lora_alpha"], targets=p["lora_targets"])
        model = _without_weights(p["target_model"])
        if model is not None:
            adapters.lora_config(model, settings)


@cache
def _without_weights(spec: str) -> Any:
    """The architecture of a language model, once for all variants; None where its configuration cannot be read, which
    others tell."""
    from transformers import AutoConfig

    from underseer.models import adapters, loading, specs

    model = specs.parse(spec)
    if model.kind == "scratch":
        return None
    if model.kind == "testbed":
        config = AutoConfig.for_model("gpt2")  # all of its chat models are
    else:
        try:
            place = loading.source(model)
            config = AutoConfig.from_pretrained(place, revision=model.revision, trust_remote_code=False)
        except (OSError, ValueError):
            return None
    return adapters.skeleton(config)
