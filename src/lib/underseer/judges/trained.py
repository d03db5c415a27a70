"""A judge that is trained here: a classifier of two classes that learns a score in [0, 1] as the probability of the second.

The loss is the cross-entropy with the score itself (``soft_ce``), so that the probability estimates the expected score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines.kept import MEMORY
from underseer.errors import UserError
from underseer.judges.base import Judge, Opening
from underseer.judges.classifiers import Classifier, Loader, Output, PairJudge, TextJudge, load
from underseer.judges.spec import MEASURES, JudgeSpec, Kind, check_measure, parse, register
from underseer.models import specs

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.training.settings import FitResult, TrainSettings

LABELS = {
    "toxicity": ("civil", "toxic"),
    "unsafe": ("safe", "unsafe"),
    "helpful": ("unhelpful", "helpful"),
    "refusal": ("answers", "refuses"),
}
"""Classes by what is measured; the second one's probability is the score."""


def train(
    spec: str | JudgeSpec,
    measure: str,
    rows: pd.DataFrame,
    validation: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    base: Path | None = None,
    seed: int | None = None,
    checkpoint_dir: Path | str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, FitResult]:
    """Train a judge on frames ``text, p`` (toxicity) or ``prompt, answer`` with ``p`` in [0, 1] or ``label`` (0 or 1), and
    optionally ``weight``.

    ``spec`` is ``trained:MODEL``; ``base`` the folder of its pre-trained model where MODEL is of the testbed. ``seed`` (by
    default that of the settings) draws the head and a scratch model's weights; batches follow ``settings.seed``. Save model
    and tokenizer with ``loading.save``; ``open_judge`` reads them from ``Opening.folder``. Raises UserError.
    """
    from underseer.maths.losses import soft_ce
    from underseer.models import loading
    from underseer.training import finetune

    judge = parse(spec)
    check_measure(judge, measure)
    if judge.kind != "trained":
        raise UserError(f"judge {str(judge)!r} is not trained here; only trained:MODEL is")
    named = ((rows, "training"), (validation, "validation"))
    frames = [df if df is None or measure == "toxicity" else _pairs(df, name) for df, name in named]
    columns = ("text",) if measure == "toxicity" else ("prompt", "answer")
    texts = [text for name in columns for text in rows[name]] if judge.model.kind == "scratch" else None
    seed, length = settings.seed if seed is None else seed, settings.max_length
    model, tokenizer = loading.load_classifier(
        judge.model, labels=LABELS[measure], texts=texts, base=base, seed=seed, max_length=length
    )
    fit = finetune.fit_classifier(
        model, tokenizer, *frames, settings, loss=soft_ce, target="p", checkpoint_dir=checkpoint_dir
    )
    return fit.model, tokenizer, fit


def _pairs(df: pd.DataFrame, name: str) -> pd.DataFrame:
    from underseer.training.rows import check_columns

    target = "p" if "p" in df.columns else "label"
    check_columns(df, ["prompt", "answer", target], name)
    kept = {"p": df[target]} | ({"weight": df["weight"]} if "weight" in df.columns else {})
    pairs = df[["prompt", "answer"]].set_axis(["text", "text_pair"], axis=1)
    if pairs.isna().any(axis=None):
        raise UserError(f"some of the {len(df)} {name} rows have no prompt or no answer (missing values); drop them")
    return pairs.assign(text=pairs["text"].str.strip(), text_pair=pairs["text_pair"].str.strip(), **kept)


def open_trained(judge: JudgeSpec, measure: str, opening: Opening) -> Judge:
    """The judge of a folder that training stored, or one in memory, whose verdicts are kept nowhere. Raises UserError."""
    loaded, config, version = _source(judge, opening)
    if opening.model is not None:
        opening = replace(opening, cache=MEMORY)
    names = tuple((config.get("id2label") or {}).values())
    if names != LABELS[measure]:
        raise UserError(
            f"judge {str(judge)!r}: the model's classes are {', '.join(map(str, names))}, not {', '.join(LABELS[measure])}: "
            f"it does not measure {measure!r}; train one that does"
        )
    classifier = Classifier(loaded, Output(1, "softmax"), opening)
    if measure == "toxicity":
        return TextJudge(classifier, judge.name, version, opening)
    return PairJudge(classifier, judge, measure, opening, version=version)


def _source(judge: JudgeSpec, opening: Opening) -> tuple[Loader, Mapping[str, Any], str]:
    """How the model is loaded, its configuration, and what identifies it."""
    model, tokenizer, folder = opening.model, opening.tokenizer, opening.folder
    if model is not None:
        return lambda: (model, tokenizer), model.config.to_dict(), "in memory"
    if folder is None:
        raise UserError(
            f"judge {str(judge)!r} has to be trained first; run judges/scorer (toxicity) or judges/evaluator, and give the "
            "folder that it stored"
        )
    specs.check_folder(Path(folder))
    stored = specs.ModelSpec("folder", str(folder))
    return lambda: load(str(folder)), specs.configuration(stored), specs.fingerprint(stored)


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Raise UserError where there are no rows to learn from."""
    if measure == "toxicity" and parameters.get("n_judge") is not None and int(parameters["n_judge"]) < 1:
        raise UserError(f"n_judge = {parameters['n_judge']}: a trained judge needs rows to learn from; set n_judge")
    return []


register(
    Kind(
        "trained",
        "trained:MODEL (a classifier trained here on stored scores or judged exchanges)",
        tuple(MEASURES),
        open_trained,
        check,
        models=("hub", "folder", "testbed", "scratch"),
        learns=True,
    )
)
