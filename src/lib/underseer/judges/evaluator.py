"""Sequence classifiers as judges of exchanges: trained here, published, or a reward model with a single logit.

They read prompt and answer as a pair of texts, by the tokenizer's own template for pairs; a reward model whose
tokenizer has a chat template reads the chat. Longer exchanges are judged by their beginnings: the longer of both texts
is cut first. A model is loaded when an answer has to be judged that has no verdict yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError
from underseer.judges.asking import ExchangeJudge
from underseer.judges.base import Exchange, Reply
from underseer.judges.spec import JudgeSpec
from underseer.models import specs

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.training.settings import FitResult, TrainSettings

LABELS = {"unsafe": ("safe", "unsafe"), "helpful": ("unhelpful", "helpful"), "refusal": ("answers", "refuses")}
"""Classes of an evaluator trained here, by what it measures; the second one's probability is the score."""

MEANING = {
    "unsafe": ("unsafe", "harmful", "toxic", "toxicity", "harm", "violation", "unsafe response"),
    "helpful": ("helpful", "helpfulness", "good", "useful"),
    "refusal": ("refusal", "refuses", "refuse", "refused", "rejection", "reject", "rejected"),
}
"""Class names of published classifiers that mean what is measured, the first that one has counts."""

Loader = Callable[[], "tuple[PreTrainedModel, PreTrainedTokenizerBase]"]


class EvaluatorJudge(ExchangeJudge):
    """A classifier of exchanges; the probability of class ``column`` is the score.

    ``reads`` is "pair", or "answer" where the model knows answers alone.
    """

    by_batch = True

    def __init__(
        self,
        load: Loader,
        column: int,
        *,
        reads: str = "pair",
        max_length: int = 512,
        device: str = "auto",
        precision: str = "auto",
        identity: str,
        **how: Any,
    ) -> None:
        super().__init__(identity=f"{identity}\x1f{column}\x1f{reads}\x1f{max_length}\x1f{precision}", **how)
        self._load, self._column, self._reads = load, column, reads
        self._how = {"max_length": max_length, "device": device, "precision": precision}

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self._load()

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The probability of the class, for a batch of exchanges."""
        import pandas as pd

        from underseer.training.finetune import predict_proba

        if self.cost is not None:
            self.cost.add(judge_calls=len(exchanges))
        prompts, answers = zip(*exchanges, strict=True)
        columns = {"text": answers} if self._reads == "answer" else {"text": prompts, "text_pair": answers}
        how = {**self._how, "batch_size": self.batch_size, "cost": self.cost}
        probabilities = predict_proba(*self._loaded, pd.DataFrame(columns), **how)
        return [Reply(float(p)) for p in probabilities[:, self._column]]


class RewardJudge(EvaluatorJudge):
    """A reward model: the sigmoid of its single logit. The logit has to rise with what is measured."""

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The sigmoid of the logit, for a batch of exchanges."""
        from underseer.judges.reward import logits

        if self.cost is not None:
            self.cost.add(judge_calls=len(exchanges))
        found = logits(*self._loaded, exchanges, batch_size=self.batch_size, cost=self.cost, **self._how)
        return [Reply(float(p)) for p in 1 / (1 + np.exp(-found))]


def train_evaluator(
    spec: str | JudgeSpec,
    rows: pd.DataFrame,
    validation: pd.DataFrame | None,
    *,
    measure: str,
    settings: TrainSettings,
    base: Path | None = None,
    seed: int = 0,
    checkpoint_dir: Path | str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, FitResult]:
    """Train an evaluator of exchanges: frames ``prompt, answer`` with ``p`` in [0, 1] or ``label`` (0 or 1), and
    optionally ``weight``.

    ``spec`` is ``trained:MODEL``; ``base`` the folder of its pre-trained model where MODEL is of the testbed. ``seed``
    draws the head (and a scratch model's weights); batches follow ``settings.seed``. The loss is the cross-entropy with
    the target itself. Save model and tokenizer with ``models.save``; ``open_exchange_judge(spec, measure, folder=...)``
    reads them. Raises UserError.
    """
    from underseer.judges.exchange import check_measure, parse_exchange
    from underseer.maths.losses import soft_ce
    from underseer.models import loading
    from underseer.training import finetune

    judge = parse_exchange(spec)
    check_measure(judge, measure)
    if judge.kind != "trained":
        raise UserError(f"judge {str(judge)!r} is not trained here; only trained:MODEL is")
    frames = [None if df is None else _pairs(df, what) for df, what in ((rows, "training"), (validation, "validation"))]
    texts = [*rows["prompt"], *rows["answer"]] if judge.model.kind == "scratch" else None
    model, tokenizer = loading.load_classifier(
        judge.model, labels=LABELS[measure], texts=texts, base=base, seed=seed, max_length=settings.max_length
    )
    fit = finetune.fit_classifier(
        model, tokenizer, *frames, settings, loss=soft_ce, target="p", checkpoint_dir=checkpoint_dir
    )
    return fit.model, tokenizer, fit


def _pairs(df: pd.DataFrame, what: str) -> pd.DataFrame:
    from underseer.training.rows import check_columns

    target = "p" if "p" in df.columns else "label"
    check_columns(df, ["prompt", "answer", target], what)
    kept = {"p": df[target]} | ({"weight": df["weight"]} if "weight" in df.columns else {})
    pairs = df[["prompt", "answer"]].set_axis(["text", "text_pair"], axis=1)
    if pairs.isna().any(axis=None):
        raise UserError(f"some of the {len(df)} {what} rows have no prompt or no answer (missing values); drop them")
    return pairs.assign(text=pairs["text"].str.strip(), text_pair=pairs["text_pair"].str.strip(), **kept)


def open_trained(
    judge: JudgeSpec, measure: str, folder: Path | str | None, model: Any, tokenizer: Any, **how: Any
) -> EvaluatorJudge:
    """The evaluator of a folder that training stored, or one in memory, whose verdicts are kept nowhere."""
    from underseer.judges import classifier
    from underseer.judges.asking import IN_MEMORY

    if model is None and folder is None:
        raise UserError(
            f"judge {str(judge)!r} has to be trained first; train it and give the folder that the stage stored"
        )
    if model is not None:
        config, identity, how["cache"] = model.config.to_dict(), "in memory", IN_MEMORY
    else:
        specs.check_folder(Path(folder))
        stored = specs.ModelSpec("folder", str(folder))
        config, identity = specs.configuration(stored), specs.fingerprint(stored)

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return classifier.load(str(folder)) if model is None else (model, tokenizer)

    found = tuple((config.get("id2label") or {}).values())
    if found != LABELS[measure]:
        raise UserError(
            f"judge {str(judge)!r}: the model's classes are {', '.join(map(str, found))}, not "
            f"{', '.join(LABELS[measure])}: it does not measure {measure!r}; train one that does"
        )
    how["version"] = how["version"] or identity
    return EvaluatorJudge(load, 1, identity=f"trained\x1f{identity}", measure=measure, **how)


def open_classifier(judge: JudgeSpec, measure: str, **how: Any) -> EvaluatorJudge:
    """A published classifier of exchanges. Raises UserError: no such model, no class of that name."""
    from underseer.judges import classifier

    specs.preflight(judge.model)
    preflight(judge, measure)
    config = specs.configuration(judge.model)
    if config is None:  # of the hub, and not here yet: its classes are known once it is
        config = classifier.load(judge.model.name, judge.model.revision)[0].config.to_dict()
    column, sigmoid = classifier.class_of(config, judge.label, str(judge), MEANING[measure])

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = classifier.load(judge.model.name, judge.model.revision)
        if sigmoid:
            classifier._as_two_classes(model, column)
        return model, tokenizer

    identity = specs.fingerprint(judge.model)
    how["version"] = how["version"] or identity
    reads = judge.reads or "pair"
    named = f"classifier\x1f{identity}\x1f{column}"
    return EvaluatorJudge(load, 1 if sigmoid else column, reads=reads, identity=named, measure=measure, **how)


def open_reward(judge: JudgeSpec, measure: str, **how: Any) -> RewardJudge:
    """A published reward model. Raises UserError: no such model, more than one logit."""
    from underseer.judges import classifier

    specs.preflight(judge.model)
    preflight(judge, measure)
    identity = specs.fingerprint(judge.model)
    how["version"] = how["version"] or identity

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = classifier.load(judge.model.name, judge.model.revision)
        _check_single(model.config.to_dict(), judge)
        model.reads_last_token = (specs.configuration(judge.model) or {}).get("pad_token_id") is None
        return model, tokenizer

    return RewardJudge(load, 0, identity=f"reward\x1f{identity}", measure=measure, **how)


def preflight(judge: JudgeSpec, measure: str) -> None:
    """Check a published classifier or reward model where it is on this machine, without torch. Raises UserError."""
    from underseer.judges import classifier

    if judge.kind == "classifier":
        classifier.preflight(judge, MEANING[measure])
    elif (config := classifier.configuration(judge)) is not None:
        _check_single(config, judge)


def _check_single(config: dict[str, Any], judge: JudgeSpec) -> None:
    classes: Sequence[str] = list((config.get("id2label") or {0: "", 1: ""}).values())
    if len(classes) != 1:
        raise UserError(
            f"judge {str(judge)!r} has {len(classes)} outputs ({', '.join(map(str, classes))}); a reward model has one: "
            f"write classifier:{judge.model}?label=NAME for one of them"
        )
