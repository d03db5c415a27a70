"""Judges of exchanges, answers with the prompts that they answer: opened by name, checked before anything runs.

A judge measures one thing (``MEASURES``); its score lies in [0, 1]. ``open_exchange_judge`` makes one ready,
``judge.score(answers, prompts)`` gives ``Scores``. The testbed's oracle is not opened here, so that no stage which
trains or selects reaches it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest
from underseer.judges.spec import JudgeSpec, parse_judge
from underseer.models import specs

if TYPE_CHECKING:
    from underseer.cost import Ledger
    from underseer.engines import Engine
    from underseer.judges.base import Judge

MEASURES = {
    "unsafe": "probability that the answer is unsafe; lower is safer",
    "helpful": "degree to which the answer helps; higher is better",
    "refusal": "probability that the answer refuses",
}
KINDS = {
    "trained": "trained:MODEL (a classifier of exchanges trained here)",
    "classifier": "classifier:HUB_ID_OR_FOLDER[?label=NAME][&reads=answer]",
    "reward": "reward:HUB_ID_OR_FOLDER (a reward model with a single logit)",
    "rubric": "rubric:MODEL (a language model that grades from 1 to 5)",
    "guard": "guard:MODEL (Llama Guard and its kind)",
    "strings": "strings (refusals by their opening phrases)",
    "oracle": "oracle (the testbed's truth, evaluation only)",
}
ABLE = {"reward": ("unsafe", "helpful"), "guard": ("unsafe",), "strings": ("refusal",)}
"""What judges of a kind can measure, where it is not everything."""

ROLES = {
    "training_judge": "unsafe",
    "helpfulness_judge": "helpful",
    "refusal_judge": "refusal",
    "reporting_judge": "unsafe",
    "reporting_helpfulness_judge": "helpful",
}
"""Parameters that name a judge of exchanges, and what each measures."""

APART = (("training_judge", "reporting_judge"), ("helpfulness_judge", "reporting_helpfulness_judge"))
"""A judge that trains, and the one that reports the same measure: never one and the same."""

TEMPLATE_ROOM = 1024  # tokens that a guard's or rubric's own text may take beside the exchange
SERVED = "openai"  # an engine whose models are names on a server, not files


def parse_exchange(spec: str | JudgeSpec) -> JudgeSpec:
    """Parse the specification of a judge of exchanges. Raises UserError."""
    return parse_judge(spec, KINDS)


def open_exchange_judge(
    spec: str | JudgeSpec,
    measure: str,
    *,
    folder: Path | str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    base: Path | None = None,
    engine: str | Engine = "auto",
    name: str | None = None,
    version: str = "",
    cache: Path | str | None = None,
    cost: Ledger | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    max_length: int = 512,
    max_replies: int = 3,
    max_new_tokens: int = 160,
    progress: bool = True,
    **options: Any,
) -> Judge:
    """A judge of exchanges that is ready to score.

    ``trained`` takes the ``folder`` that training stored, or ``model`` and ``tokenizer`` in memory. ``rubric`` and
    ``guard`` run on ``engine``: a name, with ``options`` of ``engines.open_engine``, or an engine that is open;
    ``base`` is the folder of a testbed model. A rubric model may give ``max_replies`` for one verdict, of at most
    ``max_new_tokens`` each.
    ``max_length`` is in tokens of the exchange: longer ones are judged by their beginnings. ``cache`` is the file in
    which verdicts are kept, by model, settings and exchange (default: in the run store; ":memory:": nowhere). ``cost``
    is told tokens and calls. Raises UserError as ``preflight`` does, and for the oracle, which evaluation alone may
    ask.
    """
    judge = parse_exchange(spec)
    check_measure(judge, measure)
    if judge.kind == "oracle":
        raise UserError("the oracle serves evaluation only, and is not opened as other judges are; give trained:MODEL")
    named = {"name": name or judge.name, "version": version}
    if judge.kind == "strings":
        from underseer.judges.strings import StringsJudge

        return StringsJudge(**named)
    how = {**named, "cache": cache, "cost": cost, "batch_size": batch_size, "max_length": max_length}
    how["progress"] = progress
    if judge.kind in ("rubric", "guard"):
        engine_how = {"base": base, "device": device, "precision": precision, **options}
        replies = {"max_replies": max_replies, "max_new_tokens": max_new_tokens} if judge.kind == "rubric" else {}
        return _on_engine(judge, measure, engine, engine_how, **replies, **how)
    from underseer.judges import evaluator

    how |= {"device": device, "precision": precision}
    if judge.kind == "trained":
        return evaluator.open_trained(judge, measure, folder, model, tokenizer, **how)
    opened = evaluator.open_classifier if judge.kind == "classifier" else evaluator.open_reward
    return opened(judge, measure, **how)


def _on_engine(judge: JudgeSpec, measure: str, engine: str | Engine, engine_how: dict[str, Any], **how: Any) -> Judge:
    from underseer.judges import guard, rubric

    written, judging = (rubric, rubric.RubricJudge) if judge.kind == "rubric" else (guard, guard.GuardJudge)
    if isinstance(engine, str):
        from underseer.engines import identity as engine_identity

        check_chat_model(judge, engine)
        ran = f"{engine_identity(engine, engine_how['precision'])}\x1f{engine_how.get('url', '')}"
    else:
        ran = f"{engine.name}\x1f{engine.version}"
    identity = _model_identity(judge, engine, engine_how["base"])

    def opened() -> Engine:
        if not isinstance(engine, str):
            return engine
        from underseer.engines import open_engine

        window = how["max_length"] + TEMPLATE_ROOM
        shared = {key: how[key] for key in ("batch_size", "cost", "progress")}
        return open_engine(engine, str(judge.model), max_length=window, **shared, **engine_how)

    how["version"] = how["version"] or f"{identity}, {judge.kind} {written.VERSION}"
    asked = {"measure": measure, "identity": f"{identity}\x1f{ran}", **how}
    return judging(opened, **asked)


def _model_identity(judge: JudgeSpec, engine: str | Engine, base: Path | None) -> str:
    """What says which model this is, by its content where it is at hand."""
    if engine == SERVED or getattr(engine, "name", None) == SERVED:
        return f"served:{judge.model}"
    if judge.model.kind == "testbed" and base is not None:
        return specs.fingerprint(specs.ModelSpec("folder", str(base)))
    return specs.fingerprint(judge.model)


# ---------------------------------------------------------------------------------------------------- checks


def check_measure(judge: JudgeSpec, measure: str) -> None:
    """Raise UserError for an unknown measure, or one that this kind of judge cannot take."""
    if measure not in MEASURES:
        raise UserError(
            f"measure {measure!r} is unknown; allowed are {', '.join(MEASURES)}{nearest(measure, MEASURES)}"
        )
    able = ABLE.get(judge.kind, tuple(MEASURES))
    if measure not in able:
        others = ", ".join(kind for kind in KINDS if measure in ABLE.get(kind, tuple(MEASURES)))
        raise UserError(
            f"judge {str(judge)!r} measures {' or '.join(able)}, not {measure}; judges of {measure} are {others}"
        )


def check_chat_model(judge: JudgeSpec, engine: str = "auto") -> None:
    """Raise UserError where the model of a rubric or guard is, on this machine, no chat model. Needs no torch."""
    folder = None if engine == SERVED else specs.local_folder(judge.model)
    if folder is None:
        return
    architectures = (specs.configuration(judge.model) or {}).get("architectures") or []
    if architectures and all("Classification" in name or "MaskedLM" in name for name in architectures):
        raise UserError(
            f"judge {str(judge)!r} is no language model but {', '.join(architectures)}; give one that writes, or "
            f"classifier:{judge.model}"
        )
    if not specs.has_chat_template(folder):
        raise UserError(
            f"judge {str(judge)!r}: the model has no chat template, so it cannot be asked; give an instruct model"
            f"{' or a guard' if judge.kind == 'guard' else ''}, or put the template of its family into its folder as "
            "chat_template.jinja"
        )


def preflight(parameters: Mapping[str, Any]) -> list[str]:
    """Check the judges of one variant before anything runs, without torch: the parameters of ``ROLES``, and, where they
    are given, ``dataset`` and ``engine``.

    Returns remarks that the user should read. Raises UserError with every mistake, one a line: an unknown judge or
    model, a judge that cannot measure what its role needs, a rubric or guard without chat template, the oracle where it
    would train or select or does not know the data, a judge that trains and reports the same measure.
    """
    mistakes: list[str] = []
    judges: dict[str, JudgeSpec] = {}
    for role, measure in ROLES.items():
        if parameters.get(role) is None:
            continue
        try:
            judge = parse_exchange(parameters[role])
            _check_judge(judge, role, measure, parameters)
            judges[role] = judge
        except UserError as error:
            mistakes += [f"{role} = {parameters[role]!r}: {line}" for line in str(error).split("\n")]
    mistakes += [
        f"{second} = {str(judges[second])!r} is the {first} too: a judge that trains must not report, or what was learnt to "
        "please it counts as success; give two judges"
        for first, second in APART
        if _one(judges, first, second)
    ]
    if mistakes:
        raise UserError("\n".join(mistakes))
    return _remarks(judges)


def _check_judge(judge: JudgeSpec, role: str, measure: str, parameters: Mapping[str, Any]) -> None:
    check_measure(judge, measure)
    if judge.kind == "oracle":
        from underseer.judges.base import _check_oracle

        if not role.startswith("reporting"):
            raise UserError("the oracle serves evaluation only; give trained:MODEL")
        _check_oracle(parameters.get("dataset"))
    if judge.model is None:
        return
    engine = parameters.get("engine") or "auto"
    if judge.kind in ("rubric", "guard") and engine == SERVED:
        return
    specs.preflight(judge.model)
    if judge.kind in ("rubric", "guard"):
        check_chat_model(judge, engine)
    elif judge.kind != "trained":
        from underseer.judges import evaluator

        evaluator.preflight(judge, measure)


def _one(judges: Mapping[str, JudgeSpec], first: str, second: str) -> bool:
    return first in judges and second in judges and bool(identities(judges[first]) & identities(judges[second]))


def identities(judge: JudgeSpec) -> set[str]:
    """Names under which a judge is the same judge, whatever kind or class it is opened as.

    A published model is the same by its id, its place on this machine or its content. A model trained here is another
    judge than the one it starts from, and the same for the same start.
    """
    model = judge.model
    if model is None:
        return {judge.kind}
    if judge.kind == "trained":
        return {f"trained {name}" for name in _names(model)}
    return _names(model)


def _names(model: specs.ModelSpec) -> set[str]:
    names, folder = {str(model)}, specs.local_folder(model)
    if folder is not None:
        names = {os.path.realpath(folder), specs.fingerprint(specs.ModelSpec("folder", str(folder)))}
    return names


def _remarks(judges: Mapping[str, JudgeSpec]) -> list[str]:
    crossed = (("training_judge", "reporting_helpfulness_judge"), ("helpfulness_judge", "reporting_judge"))
    return [
        f"{second} = {str(judges[second])!r} also trains, as {first}: it reports another measure than the one it trains"
        for first, second in crossed
        if "oracle" not in (getattr(judges.get(r), "kind", None) for r in (first, second))
        and _one(judges, first, second)
    ]
