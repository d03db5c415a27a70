"""What `4_align` trains: the loop's MODPO, and each baseline, from one set of judged answers or from people's pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import paths
from underseer.errors import UserError, nearest
from underseer.selfmoa import preferences

if TYPE_CHECKING:
    import pandas as pd

    from underseer.models.adapters import LoraSettings
    from underseer.selfmoa.targets import Target
    from underseer.store import Output
    from underseer.training.settings import TrainSettings


@dataclass(frozen=True)
class Method:
    """How a method orders answers and weighs objectives. ``human``: its pairs are people's; ``sft``: no pairs at all."""

    ordering: str
    weights: str  # "": as the parameters say
    human: bool = False
    sft: bool = False
    name: str = ""


METHODS: dict[str, Method] = {
    "selfmoa": Method("", ""),  # as the parameters say
    "human_dpo": Method("weighted_sum", "helpfulness:1", human=True),
    "human_modpo": Method("helpfulness", "", human=True),
    "dpo_helpful_only": Method("helpfulness", "helpfulness:1"),
    "dpo_safety_only": Method("safety", "safety:1"),
    "dpo_weighted_sum": Method("weighted_sum", "helpfulness:1"),
    "sft": Method("weighted_sum", "helpfulness:1", sft=True),
}


def plan(method: str, *, ordering: str, objective_weights: str) -> Method:
    """A method with what the parameters say filled in. Raises UserError for an unknown one."""
    if method not in METHODS:
        raise UserError(f"method {method!r} is unknown; allowed are {', '.join(METHODS)}{nearest(method, METHODS)}")
    told = METHODS[method]
    return replace(told, ordering=told.ordering or ordering, weights=told.weights or objective_weights, name=method)


def objective(ordering: str) -> str:
    """The objective whose weight an order's pairs take: those in order of the weighted sum that of helpfulness."""
    return "helpfulness" if ordering == "weighted_sum" else ordering


def rows(told: Method, source: Output, rules: preferences.Rules) -> pd.DataFrame:
    """What the method learns from: pairs in its order, or the best answers (``prompt, answer``)."""
    if told.human:
        return source.table(f"pairs_{told.ordering}")
    if told.sft:
        return preferences.best(source.table("answers"), rules)
    if told.name == "selfmoa":
        return source.table("pairs")
    return preferences.pairs(source.table("answers"), rules, ordering=told.ordering)[0]


def shown(told: Method, found: pd.DataFrame, *, synthetic: bool) -> Any:
    """A look at the rows."""
    from underseer import look_selfmoa as look

    print(f"{told.name}: {len(found)} rows, ordered by {told.ordering}, weights {told.weights}")  # noqa: T201
    if not len(found) or told.sft:
        return None
    return look.pairs(found, synthetic=synthetic)


@dataclass(frozen=True)
class Learnt:
    """A trained adapter or model; None where there was nothing to learn from, and the target stays as it is."""

    model: Any
    tokenizer: Any
    kept: Path | None  # adapter of the target, where nothing was trained
    curves: pd.DataFrame
    outcome: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def train(
    run: Any, told: Method, found: pd.DataFrame, target: Target, settings: TrainSettings, *, lora: LoraSettings | None,
    nll_weight: float, unsafe_threshold: float, **goals: Any,
) -> Learnt:  # fmt: skip
    """Train a method on its rows, from the target on. The adapter of an iterate goes on training; baselines begin anew."""
    import pandas as pd

    if not len(found):
        nothing = pd.DataFrame({"step": [], "metric": [], "value": []})
        text = "Nothing to learn from: no pairs. The target stays as it is, and the loop ends here."
        return Learnt(None, None, target.adapter, nothing, text, {"trained": 0})
    model, tokenizer = target.load(settings.max_length)
    if told.sft:
        from underseer.training.finetune import fit_chats

        fit = fit_chats(model, tokenizer, found, None, settings, lora=lora, checkpoint_dir=run.checkpoints)
        run.cost.add(tokens_trained=fit.tokens_trained)
        return Learnt(
            fit.model, tokenizer, None, fit.curves, f"Fine-tuned on {len(found)} best answers.", {"trained": 1}
        )
    from underseer.training.align import AlignSettings, align

    how = AlignSettings(
        settings, objective_weights=told.weights, ordering=objective(told.ordering), lora=lora, nll_weight=nll_weight,
        unsafe_threshold=unsafe_threshold, **goals,
    )  # fmt: skip
    done = align(
        model, tokenizer, found, how, adapter_in=target.adapter, cache=paths.runs() / ".reference",
        checkpoint_dir=run.checkpoints,
    )  # fmt: skip
    run.cost.add(tokens_trained=done.tokens_trained, tokens_scored=done.tokens_scored)
    text = f"Learnt from {done.pairs_trained} pairs by {done.variant} at DPO temperature {done.dpo_beta:g}."
    return Learnt(done.model, tokenizer, None, done.curves, text, {"trained": 1, "pairs_trained": done.pairs_trained})


def curves(learnt: Learnt) -> Any:
    """Loss, and the log-probabilities of chosen and rejected answers, over optimizer steps."""
    from underseer import look_selfmoa as look

    return look.alignment(learnt.curves)


def save(run: Any, learnt: Learnt) -> None:
    """Save what was learnt as ``adapter`` or ``model``; an unchanged target's adapter is passed on."""
    run.save_table("curves", learnt.curves)
    if learnt.model is None:
        if learnt.kept is not None:
            shutil.copytree(learnt.kept, run.path("adapter"))
        run.save_json("outcome", {"outcome": learnt.outcome})
        return
    if hasattr(learnt.model, "peft_config"):
        learnt.model.save_pretrained(run.path("adapter"))
    else:
        run.save_model("model", learnt.model, learnt.tokenizer)
    run.save_json("outcome", {"outcome": learnt.outcome})
