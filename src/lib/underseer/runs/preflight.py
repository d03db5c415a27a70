"""Everything that can be seen to be wrong with the stages that are to run, before one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from underseer.errors import UserError, short, unreadable
from underseer.judges import spec as judge_specs
from underseer.judges.classifiers import MOST_CLASSES
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


_HEAD: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id2label": (
        'names of classes by their numbers, as {"0": "safe", "1": "unsafe"}',
        lambda given: (
            given is None or (isinstance(given, dict) and all(map(str.isdecimal, given)) and _names(given.values()))
        ),
    ),
    "num_labels": (
        f"a whole number of classes from 1 to {MOST_CLASSES:,}",
        lambda given: type(given) is int and 1 <= given <= MOST_CLASSES,
    ),
    "architectures": (
        'a list of names, as ["LlamaForCausalLM"]',
        lambda given: given is None or (isinstance(given, list) and _names(given)),
    ),
}
"""What a config.json says of a model's head: what transformers reads, in words, and whether a value is that."""


def _names(given: Iterable[Any]) -> bool:
    return all(isinstance(name, str) for name in given)


def _check_head(spec: str) -> None:
    """Raise UserError for a head that transformers cannot read, and for a classifier of other than two classes: two are trained on it."""
    from underseer.models import specs

    config = specs.configuration(spec) or {}
    for name, (allowed, is_allowed) in _HEAD.items():
        if name in config and not is_allowed(config[name]):
            raise UserError(
                f"model {spec!r}: its config.json has {name} = {short(config[name])}; allowed is {allowed}; correct it, or fetch the "
                "model again"
            )
    is_classifier = any("SequenceClassification" in name for name in config.get("architectures") or ())
    counts = {n for n in (len(config.get("id2label") or ()), config.get("num_labels")) if n} or {2}
    if is_classifier and counts != {2}:
        raise UserError(
            f"model {spec!r} is a classifier of {' or '.join(map(str, sorted(counts)))} classes, and 2 are to be trained; give the "
            "model it was made from"
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
