"""Which stage needs which; ``rounds`` holds the rounds of Self-MOA.

A pipeline is a function of one variant's parameters. It names each stage instance with ``add(stage, values, role=...)``:
``values`` are the parameters that the pipeline itself decides (a replicate, whose labels a student sees); the roles are
the stage instances whose outputs it reads. It returns the instances that the report reads, by role.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from underseer.data.registry import measures_of
from underseer.errors import UserError
from underseer.judges import spec as judge_specs
from underseer.runs import rounds
from underseer.selfmoa import checks
from underseer.testbed import chat
from underseer.w2s import tasks

REPORTS = {"w2s": "w2s/5_report", "selfmoa": "selfmoa/6_report"}
"""The last stage of each pipeline: it reads all variants."""

NOTEBOOKS = {
    "w2s": ("testbed/pretrain", "judges/fluency", "judges/score", "judges/scorer", "w2s/*"),
    "selfmoa": ("testbed/pretrain", "testbed/chat", "judges/evaluator", "selfmoa/*"),
}
"""The notebooks of each pipeline, as patterns below ``notebooks/``."""

DECIDED = {
    "replicate",
    "supervision",
    "base_model",
    "judge",
    "judge_role",
    "chat_model",
    "measure",
    "iteration",
    "method",
}
"""Parameters of notebooks that the pipeline decides and no experiment file may hold."""

STEERS = {
    "w2s": frozenset({"bootstraps", "judge_members"}),
    "selfmoa": frozenset({"iterations", "reset", "baselines", "baseline_pairs"})
    | {"baseline_beta", "baseline_epochs", "baseline_learning_rate"},
}
"""Parameters that no notebook declares: the pipeline reads them to decide which instances there are."""

HANDED_ON = frozenset(
    {"epochs", "learning_rate", "weak_epochs", "weak_learning_rate", "nll_weight", "max_length", "judge_max_length"}
    | {"baseline_beta", "baseline_epochs", "baseline_learning_rate"}
    | {"beta", "objective_weights", "ordering", "divide_by_weight", "judge_dataset", "reporting_judge_dataset"}
)
"""Parameters that a pipeline reads only to settle the value of another or their own: they tell no instances apart. All
others that it reads do."""

DYNAMIC: dict[str, tuple[str, Callable[[Any], str | None]]] = {
    "selfmoa.pools": ("dataset", lambda name: "testbed.chat" if name.startswith("testbed") else None),
    "selfmoa.supervised": ("supervised_dataset", lambda name: "testbed.chat" if name.startswith("testbed") else None),
    "judges.labelled": ("judge_dataset", lambda name: "testbed.chat" if name.startswith("testbed") else None),
    "judges.noisy": ("judge_error", lambda kind: "testbed.lexicon" if kind == "blind_spot" else None),
    "data.loading": ("dataset", lambda names: "testbed.tasks" if "testbed" in names else None),
    "engines": ("engine", lambda name: f"engines.on_{name}" if name else None),  # planning has decided on ``auto``
}
"""Modules that import another by a parameter's value: the parameter, and the module that a value names."""


class Add(Protocol):
    def __call__(self, stage: str, values: dict[str, Any] | None = None, **inputs: Any) -> Any: ...


def w2s(add: Add, p: dict[str, Any]) -> dict[str, Any]:
    """Weak-to-strong generalisation: supervisors -> weak labels -> student, beside the ceiling."""
    tasks.check(p)
    own = {} if p["student_loss"] == "filtered_ce" else {"min_agreement": None}
    own |= {"dataset_revision": None} if p["dataset"].startswith("testbed") else {}  # generated: there is none
    own |= {f"weak_{name}": p[f"weak_{name}"] or p[name] for name in ("epochs", "learning_rate")}
    return (_continue if tasks.task(p["task"]).kind == "continuation" else _classify)(add, p, own)


def _classify(add: Add, p: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The stages of a task that classifies. ``own``: parameters as decided; None where nothing reads the parameter."""
    data = add("w2s/1_data", own)
    weak_base, strong_base = _pretrained(add, p["weak_model"]), _pretrained(add, p["strong_model"])
    single, *voters = (
        add("w2s/2_supervisors", {**own, "replicate": r}, data=data, base=weak_base) for r in _replicates(p)
    )
    labels = add("w2s/3_weak_labels", data=data, supervisors=voters or [single])
    student = add("w2s/4_student", {**own, "supervision": "weak"}, data=data, weak_labels=labels, base=strong_base)
    truth = {"supervision": "truth", "student_loss": "hard_ce", "voting": "none", "min_agreement": None}
    ceiling = add("w2s/4_student", truth, data=data, base=strong_base)
    return {"data": data, "weak": single, "weak_labels": labels, "student": student, "ceiling": ceiling}


def _continue(add: Add, p: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The stages of a task that continues prompts, and the judges that choose and score. ``own``: as in ``_classify``."""
    data = add("w2s/1_data", own)
    weak_base, strong_base = _pretrained(add, p["weak_model"]), _pretrained(add, p["strong_model"])
    single, *voters = (
        add("w2s/2_supervisors_continuation", {**own, **test, "replicate": r}, data=data, base=weak_base)
        for r, test in ((r, {"samples": None} if r else {}) for r in _replicates(p))
    )
    training, fluency = _training_judges(add, p, data), _fluency(add, p, data)
    asked = p["voting"] == "least_toxic"  # the one rule that asks how fluent a text is
    labels = add(
        "w2s/3_weak_labels_continuation",
        {} if asked else {"fluency_model": None},
        data=data,
        supervisors=voters or [single],
        training=training,
        fluency=fluency if asked else None,
    )
    stage = "w2s/4_student_continuation"
    student = add(stage, {"supervision": "weak"}, data=data, weak_labels=labels, base=strong_base)
    ceiling = add(stage, {"supervision": "truth", "voting": "none"}, data=data, base=strong_base)
    roles = {"data": data, "weak": single, "weak_labels": labels, "student": student, "ceiling": ceiling}
    reporting = _judge(add, p["reporting_judge"], "reporting", 0, data)
    for role in ("weak", "student", "ceiling"):
        judges = {"training": training, "fluency": fluency, "reporting": reporting}
        roles[f"{role}_scores"] = add("judges/score", answers=roles[role], data=data, **judges)
    roles |= {"reporting_judge": reporting, "training_judge": training[0]}
    return {role: instance for role, instance in roles.items() if instance is not None}


def _replicates(p: dict[str, Any]) -> range:
    """The supervisors by number: 0 learns from all rows, the others from bootstrap samples and vote."""
    return range(p["bootstraps"] + 1 if p["voting"] != "none" else 1)


def _training_judges(add: Add, p: dict[str, Any], data: Any) -> list[Any]:
    """The judges that choose among continuations."""
    if p["training_judge"] == "oracle":
        raise UserError("training_judge = 'oracle': the oracle serves evaluation only; give trained:MODEL")
    members = p["judge_members"]
    replicates = range(1, members + 1) if members > 1 else (0,)
    return [_judge(add, p["training_judge"], "training", r, data) for r in replicates]


def _fluency(add: Add, p: dict[str, Any], data: Any) -> Any:
    """The stage that makes the model of fluency; None for one that exists already."""
    base = _pretrained(add, p["fluency_model"].removeprefix("trained:"))
    return add("judges/fluency", data=data, base=base) if p["fluency_model"].startswith("trained:") else base


def _judge(add: Add, spec: str, role: str, replicate: int, data: Any) -> Any:
    """The stage that trains a judge, or opens one that exists, and measures it against stored scores; None for the
    testbed's oracle, which is the measure itself."""
    kind, model, _ = judge_specs.split(spec)
    if kind == "oracle":
        return None
    base = _pretrained(add, model) if kind == "trained" else None
    return add("judges/scorer", {"judge": spec, "judge_role": role, "replicate": replicate}, data=data, base=base)


def _pretrained(add: Add, model: str) -> Any:
    """The stage that makes a testbed model, pre-trained or a chat model; None for a model that exists already."""
    kind, _, name = model.partition(":")
    if kind != "testbed":
        return None
    if name in chat.CHAT_MODELS:
        base = _pretrained(add, f"testbed:{chat.CHAT_MODELS[name].base}")
        return add("testbed/chat", {"chat_model": name}, base=base)
    return add("testbed/pretrain", {"base_model": name})


def selfmoa(add: Add, p: dict[str, Any]) -> dict[str, Any]:
    """Self-MOA: reset -> (red team -> preferences -> align -> evaluate), again and again; beside it controls and baselines. Before
    it supervised fine-tuning, where the experiment names answers for it."""
    data = add("selfmoa/0_data")
    target, attacker = _chat_model(add, p, "target_model"), _chat_model(add, p, "red_team_model")
    judges = _loop_judges(add, p)
    steering = {role: judges[role] for role in STEERING}
    supervised = add("selfmoa/0_supervised", data=data, target=target) if p["supervised_dataset"] else None
    aligned = {"target": target, "supervised": supervised}
    reset = add("selfmoa/1_reset", data=data, **aligned) if p["reset"] else None
    model = {**aligned, "reset": reset}
    roles = {"data": data, "supervised": supervised, "reset": reset, **judges}
    if p["judge_noise"]:  # the cards that the report reads are those of the judges as the loop hears them
        roles |= {role: _noisier(add, p, role, judge) for role, judge in steering.items()}

    listened = {role: judge for role, judge in judges.items() if MEMBER not in role}

    def evaluate(method: str, **where: Any) -> None:
        values = {"method": method, **rounds.heard(p)}
        roles[f"evaluation_{method}"] = add("selfmoa/5_evaluate", values, data=data, **where, **listened)

    evaluate("aligned", **aligned)
    if reset is not None:
        evaluate("reset", **model, before=roles["evaluation_aligned"])
    stages = rounds.Rounds(add, p, data, model, attacker, steering)
    loop = stages.run("selfmoa", {}, name="selfmoa_iter")
    for k, made in enumerate(loop.values(), 1):
        roles |= {f"red_team_{k}": made["red_team"], f"preferences_{k}": made["preferences"]}
    others = rounds.beside(stages, loop)
    for method, made in others.items():  # a stage that the loop has too is the loop's
        roles |= {f"{method}_{name}": i for name, i in made.items() if name != "align" and i not in roles.values()}
    for method, made in {**loop, **others}.items():
        evaluate(method, **model, previous=made["align"])
        roles[f"align_{method}"] = made["align"]
    return {role: instance for role, instance in roles.items() if instance is not None}


def _chat_model(add: Add, p: dict[str, Any], role: str) -> Any:
    """As ``_pretrained``. Raises UserError for a model that is none for chats."""
    kind, _, name = p[role].partition(":")
    if kind == "scratch" or (kind == "testbed" and name not in chat.CHAT_MODELS):
        raise UserError(
            f"{role} = {p[role]!r}: is no chat model; those of the testbed are {', '.join(chat.CHAT_MODELS)}"
        )
    return _pretrained(add, p[role])


STEERING = {"training_judge": "unsafe", "helpfulness_judge": "helpful"}
"""The judges that steer, and what each measures."""


REPORTING = {"refusal_judge": "refusal", "reporting_judge": "unsafe", "reporting_helpfulness_judge": "helpful"}
"""The judges that report, and what each measures."""


def _loop_judges(add: Add, p: dict[str, Any]) -> dict[str, Any]:
    """The judges that steer, those that report, and the members of those that vote, by role. A judge that is measured nowhere has
    no stage."""
    judges: dict[str, Any] = {}
    for role, measure in {**STEERING, **REPORTING}.items():
        values = _judged_by(p, role, measure)
        members = {m: _evaluator(add, values | _asks(m) | {"min_auroc": 0.0}) for m in judge_specs.voters(p[role])[1]}
        known = [stage for stage in members.values() if stage is not None]
        judges[role] = _evaluator(add, values, members=known or None)
        judges |= {f"{role}{MEMBER}{k}": stage for k, stage in enumerate(known, 1)}
    return judges


MEMBER = "_member_"
"""Between the role of judges that vote and the number of one of them."""


def _evaluator(add: Add, values: dict[str, Any], **inputs: Any) -> Any:
    """The stage that trains a judge of exchanges, or opens one that exists, and measures it; None for the oracle, and for a
    published judge of what the exchanges say nothing of (most public ones: of all but safety) and whose scale needs no fitting."""
    spec, data = values["judge"], values["reporting_judge_dataset"] or values["judge_dataset"]
    kind, model, _ = judge_specs.split(spec)
    known = data.startswith("testbed") or values["measure"] in measures_of(data) or judge_specs.learns(spec)
    known = known or judge_specs.scales(spec)
    if kind == "oracle" or not known:
        return None
    base = _pretrained(add, model) if model else None
    return add("judges/evaluator", values | {"judge_noise": 0.0, "judge_error": None}, base=base, **inputs)


def _noisier(add: Add, p: dict[str, Any], role: str, judge: Any) -> Any:
    """The stage that measures a judge with its errors; it is trained once for all kinds and strengths of them."""
    values = _judged_by(p, role, STEERING[role]) | {"min_auroc": 0.0}
    return None if judge is None else add("judges/evaluator", values, trained=judge)


def _judged_by(p: dict[str, Any], role: str, measure: str) -> dict[str, Any]:
    """What a judge is, and from which exchanges it learns; a judge that reports, from others than those that steer."""
    reports, data = checks.reports(p, role), p["judge_dataset"] or p["exchange_dataset"]
    values = {
        **rounds.judged_length(p),
        "measure": measure,
        "judge_role": "reporting" if reports else "training",
        "judge_dataset": data,
    }
    values["reporting_judge_dataset"] = p["reporting_judge_dataset"] if reports else None
    return values | _asks(p[role]) | ({} if role in STEERING else {"min_auroc": 0.0})


def _asks(spec: str) -> dict[str, Any]:
    """A judge, and no engine where it asks none: the same judge, whatever engine answers elsewhere."""
    return {"judge": spec} | ({} if judge_specs.writes(spec) else {"engine": None})


PIPELINES: dict[str, Callable[[Add, dict[str, Any]], dict[str, Any]]] = {"w2s": w2s, "selfmoa": selfmoa}
