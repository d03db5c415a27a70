"""Judges by name: opened, and checked before anything runs. Needs no torch until a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError
from underseer.judges.base import AS_IT_COMES, Judge, Opening
from underseer.judges.spec import KINDS, MEASURES, JudgeSpec, Kind, check_measure, parse, register
from underseer.models import specs

if TYPE_CHECKING:
    from collections.abc import Iterable

OF_TEXTS = {"training_judge": "toxicity", "reporting_judge": "toxicity"}
"""Parameters of weak-to-strong experiments that name a judge, and what each measures."""

OF_EXCHANGES = {
    "training_judge": "unsafe",
    "helpfulness_judge": "helpful",
    "refusal_judge": "refusal",
    "reporting_judge": "unsafe",
    "reporting_helpfulness_judge": "helpful",
}
"""The same of the Self-MOA loop."""

APART = (("training_judge", "reporting_judge"), ("helpfulness_judge", "reporting_helpfulness_judge"))
"""A judge that trains, and the one that reports the same measure: never one and the same."""

CROSSED = (("training_judge", "reporting_helpfulness_judge"), ("helpfulness_judge", "reporting_judge"))
"""A judge that trains, and one that reports another measure: may be one, with a remark."""

ORACLE = "the oracle serves evaluation only, and is not opened as other judges are; give trained:MODEL"


def open_judge(spec: str | JudgeSpec, measure: str, opening: Opening = AS_IT_COMES) -> Judge:
    """A judge that is ready to score: texts for "toxicity", answers with their prompts for all other measures.

    Raises UserError as ``preflight`` does, and for the oracle, which evaluation alone may ask.
    """
    judge = parse(spec)
    check_measure(judge, measure)
    kind = KINDS[judge.kind]
    if kind.open is None:
        raise UserError(ORACLE)
    return kind.open(judge, measure, opening)


def preflight(parameters: Mapping[str, Any], roles: Mapping[str, str] = OF_TEXTS) -> list[str]:
    """Check the judges of one variant before anything runs, without torch: the parameters of ``roles``, and, where they are
    given, ``dataset``, ``engine`` and ``n_judge``. (Whether a judge is needed at all, the pipelines say.)

    Returns remarks that the user should read. Raises UserError with every mistake, one a line: an unknown judge or model, a
    judge that cannot measure what its role needs, the oracle where it would train or select or does not
    know the data, a judge that trains and reports the same measure, whatever a kind checks itself.
    """
    mistakes, remarks, judges = [], [], {}
    for role, measure in roles.items():
        if parameters.get(role) is None:
            continue
        try:
            judge = parse(parameters[role])
            remarks += _check(judge, role, measure, parameters)
            judges[role] = judge
        except UserError as error:
            mistakes += [f"{role} = {parameters[role]!r}: {line}" for line in str(error).split("\n")]
    mistakes += [
        f"{second} = {str(judges[second])!r} is the {first} too: a judge that trains must not report, or what was learnt to "
        "please it counts as success; give two judges"
        for first, second in _same(judges, APART)
    ]
    if mistakes:
        raise UserError("\n".join(mistakes))
    remarks += [
        f"{second} = {str(judges[second])!r} also trains, as {first}: it reports another measure than the one it trains"
        for first, second in _same(judges, CROSSED)
        if judges[first].kind != "oracle"
    ]
    return list(dict.fromkeys(remarks))


def _check(judge: JudgeSpec, role: str, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    check_measure(judge, measure)
    kind = KINDS[judge.kind]
    if kind.open is None and not role.startswith("reporting"):
        raise UserError("the oracle serves evaluation only; give trained:MODEL")
    check_model(judge, parameters)
    return kind.check(judge, measure, parameters)


def check_model(judge: JudgeSpec, parameters: Mapping[str, Any]) -> None:
    """Raise UserError where the model of a judge, or of one that starts from it, is not there."""
    served = bool(KINDS[judge.kind].writing) and parameters.get("engine") == "openai"  # a name on a server, no file
    if judge.model is not None and not served:
        specs.preflight(judge.model)


def _same(judges: Mapping[str, JudgeSpec], pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the pairs of roles that one judge fills."""
    there = [(a, b) for a, b in pairs if a in judges and b in judges]
    return [(a, b) for a, b in there if identities(judges[a]) & identities(judges[b])]


def identities(judge: JudgeSpec) -> set[str]:
    """Names under which a judge is the same judge, whatever kind or class it is opened as.

    A published model is the same by its id, its place on this machine or its content. A model trained here is another
    judge than the one it starts from, and the same for the same start.
    """
    model = judge.model
    if judge.members:
        return set().union(*map(identities, judge.members))
    if model is None:
        return {judge.kind}
    names, folder = {str(model)}, specs.local_folder(model)
    if folder is not None:
        names = {os.path.realpath(folder), specs.fingerprint(specs.ModelSpec("folder", str(folder)))}
    return {f"trained {name}" for name in names} if judge.kind == "trained" else names


# ---------------------------------------------------------------------------------------------------- the oracle


def _check_oracle(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    from underseer.data.registry import parse as data_sets

    given = parameters.get("dataset")
    strange = [part.info.name for part in data_sets(given) if not part.info.synthetic] if given else []
    if strange:
        raise UserError(
            f"the oracle knows the testbed's world alone, not {', '.join(strange)}; give trained:MODEL or a classifier"
        )
    return []


register(Kind("oracle", "oracle (the testbed's truth, evaluation only)", tuple(MEASURES), None, _check_oracle))
