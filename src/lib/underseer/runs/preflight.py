"""Everything that can be seen to be wrong with the stages that are to run, before one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from underseer.errors import UserError, unreadable
from underseer.judges import spec as judge_specs
from underseer.runs import resources
from underseer.runs.files import JUDGES, MODELS
from underseer.runs.keys import stages
from underseer.runs.plan import Instance, Plan
from underseer.w2s import tasks


def preflight(plan: Plan, missing: Iterable[Instance], *, elsewhere: bool = False) -> list[str]:
    """Check data, models, judges and devices. ``elsewhere``: the stages run on a cluster, whose devices are not seen from here.

    Returns:
        Remarks that the user should read, such as the last day of a service.

    Raises:
        UserError: every problem, one line each.
    """
    from underseer.models import loading

    missing = list(missing)
    keys = {i.key for i in missing}
    found: dict[str, None] = {}
    remarks: dict[str, None] = {}
    _collect(found, lambda: resources.check(plan.instances.values(), stages(plan.pipeline)))
    for device in () if elsewhere else sorted({i.runtime.get("device", "auto") for i in missing}):
        _collect(found, lambda device=device: _check_device(device))
    variants = [v for v in plan.variants if keys.intersection(v["needs"])]
    for variant in variants:
        for look in _looks(plan.pipeline, with_data=variant["roles"].get("data") in keys):
            p = variant["parameters"]
            _collect(found, lambda p=p, look=look: remarks.update(dict.fromkeys(look(p) or ())))
    read = [(n, v) for i in missing for n, v in i.parameters.items() if v is not None]
    models = {v for n, v in read if n in MODELS} | {v.removeprefix("trained:") for n, v in read if n == "fluency_model"}
    for model in sorted(models):
        _collect(found, lambda model=model: loading.preflight(model))
    for model in sorted({model for v in variants for model in _writers(v["parameters"])} & models):
        _collect(found, lambda model=model: loading.check_language(model))
    for model in sorted({model for v in variants for model in _classifiers(v["parameters"])}):
        _collect(found, lambda model=model: _check_head(model))
    if found:
        raise UserError("\n".join(found))
    return list(remarks)


def _classifiers(p: dict[str, Any]) -> set[str]:
    """The models of a variant that are trained here as classifiers of two classes."""
    classifies = "task" in p and tasks.task(p["task"]).kind == "classification"
    named = {p["weak_model"], p["strong_model"]} if classifies else set()
    judges = [judge_specs.split(p[name]) for name in JUDGES - {"fluency_model"} if p.get(name)]
    return named | {model for kind, model, _ in judges if kind == "trained"}


def _writers(p: dict[str, Any]) -> set[str]:
    """The models of a variant that must write, or tell how likely a text is."""
    writes = "task" not in p or tasks.task(p["task"]).kind == "continuation"
    names = ("weak_model", "strong_model", "fluency_model", "target_model", "red_team_model")
    return {str(p[name]).removeprefix("trained:") for name in names if writes and p.get(name)}


def _check_head(spec: str) -> None:
    """Raise UserError for a classifier whose head is not one of the two classes that are trained on it."""
    from underseer.models import specs

    config = specs.configuration(spec) or {}
    is_classifier = any("SequenceClassification" in str(name) for name in config.get("architectures") or ())
    n = len(config.get("id2label") or ()) or config.get("num_labels", 2)
    if is_classifier and n != 2:
        raise UserError(
            f"model {spec!r} is a classifier of {n} classes, and 2 are to be trained; give the model it was made from"
        )


def _looks(pipeline: str, *, with_data: bool) -> list[Callable[[dict[str, Any]], list[str] | None]]:
    """What looks at a variant's parameters before it runs; data that were read already are not looked at again."""
    from underseer import data, judges
    from underseer.selfmoa import checks

    if pipeline == "selfmoa":
        return [checks.preflight]
    return [data.preflight, judges.preflight] if with_data else [judges.preflight]


def _collect(found: dict[str, None], look: Callable[[], Any]) -> None:
    try:
        look()
    except UserError as error:
        found.update(dict.fromkeys(str(error).splitlines()))
    except OSError as error:
        found[unreadable(error)] = None


def _check_device(name: str) -> None:
    """Raise UserError for a device that is not here. Torch is asked where NVIDIA's driver knows no such GPU: there are others."""
    from underseer.engines import gpus
    from underseer.models import loading

    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu") and not (kind == "cuda" and int(index or 0) < len(gpus.visible())):
        loading.resolve_device(name)
