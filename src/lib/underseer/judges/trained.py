"""A scorer trained here on stored scores in [0, 1]: a classifier with the classes civil and toxic that learns the
score as the probability of toxic.

RealToxicityPrompts stores Perspective's score of every prompt and continuation, so that a scorer can be trained, and
measured on rows it has not seen, without the service. The rows of the split ``judge`` are divided in two halves for
good: what selects continuations (role ``training``) and what reports (role ``reporting``) learn from different rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest
from underseer.judges.base import JudgeSpec
from underseer.models import specs

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.judges.classifier import ModelJudge
    from underseer.training.settings import FitResult, TrainSettings

LABELS = ("civil", "toxic")
ROLES = ("training", "reporting")
VALIDATION_SHARE = 0.15  # of a half's rows: they choose the moment at which training stops
COLUMNS = {"text": "prompt_toxicity", "continuation": "toxicity"}
"""Text column -> column of its stored score."""


def judge_rows(rows: pd.DataFrame, role: str, replicate: int = 0, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train a scorer on and rows to stop it by: two frames ``id, text, p``, prompts and continuations alike.

    ``rows`` are the data stage's: ``id``, ``text`` (the prompt), ``continuation``, ``prompt_toxicity``, ``toxicity``;
    with a column ``split``, those of ``judge``. Half and validation are hashes of the row's id: they depend on no seed,
    and a prompt stays with its continuation. ``replicate`` >= 1 draws a bootstrap sample of the rows to train on with
    ``seed`` (validation rows stay). A text that is empty or has no score is left out. Raises UserError: an unknown
    role, a missing column, a score outside [0, 1], too few rows.
    """
    half = _half(rows, role)
    held = [_share("judge validation", name) < VALIDATION_SHARE for name in half["id"]]
    fit, validation = half[[not h for h in held]], half[held]
    for frame, what in ((fit, "training"), (validation, "validation")):
        if frame.empty:
            raise UserError(f"the judge {role!r} has {len(half)} rows and no {what} row among them; raise n_judge")
    if replicate:
        from underseer.maths.votes import bootstrap_sample

        fit = fit.iloc[bootstrap_sample(len(fit), replicate, seed)]
    return _scored_texts(fit), _scored_texts(validation)


def held_out(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    """Rows that the scorers of ``role`` have not seen, to measure them on: the other half, as ``id, text, p``."""
    _check_role(role)
    return _scored_texts(_half(rows, ROLES[1 - ROLES.index(role)]))


def train_scorer(
    spec: str | JudgeSpec,
    rows: pd.DataFrame,
    validation: pd.DataFrame | None,
    *,
    settings: TrainSettings,
    base: Path | None = None,
    seed: int = 0,
    checkpoint_dir: Path | str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, FitResult]:
    """Train a scorer on texts and their scores: frames ``text, p``.

    ``spec`` is ``trained:MODEL``; ``base`` the folder of its pre-trained model where MODEL is of the testbed. ``seed``
    draws the head (and a scratch model's weights); batches follow ``settings.seed``. The loss is the cross-entropy
    with the score itself (``soft_ce``), so that the probability of toxic estimates the expected score. Save model and
    tokenizer with ``models.save``; ``open_judge(spec, folder=...)`` reads them. Raises UserError.
    """
    from underseer.judges.base import parse_judge
    from underseer.maths.losses import soft_ce
    from underseer.models import loading
    from underseer.training import finetune

    judge = parse_judge(spec)
    if judge.kind != "trained":
        raise UserError(f"judge {str(judge)!r} is not trained here; only trained:MODEL is")
    texts = rows["text"] if judge.model.kind == "scratch" else None
    model, tokenizer = loading.load_classifier(
        judge.model, labels=LABELS, texts=texts, base=base, seed=seed, max_length=settings.max_length
    )
    fit = finetune.fit_classifier(
        model, tokenizer, rows, validation, settings, loss=soft_ce, target="p", checkpoint_dir=checkpoint_dir
    )
    return fit.model, tokenizer, fit


def open_trained(
    judge: JudgeSpec, folder: Path | str | None, model: Any, tokenizer: Any, *, name: str, version: str, **how: Any
) -> ModelJudge:
    """The scorer of a folder in Hugging Face format, or one in memory, as a judge. Raises UserError."""
    from underseer.judges import classifier

    if model is None and folder is None:
        raise UserError(
            f"judge {str(judge)!r} has to be trained first; run judges/train and give the folder that it stored"
        )
    if model is None:
        specs.check_folder(Path(folder))
        model, tokenizer = classifier.load(str(folder))
        version = version or specs.fingerprint(specs.ModelSpec("folder", str(folder)))
    if tuple(model.config.id2label.values()) != LABELS:
        found = ", ".join(map(str, model.config.id2label.values()))
        raise UserError(
            f"judge {str(judge)!r}: the model's classes are {found}, not {', '.join(LABELS)}; train it anew"
        )
    return classifier.ModelJudge(model, tokenizer, 1, name=name, version=version or "in memory", **how)


# ---------------------------------------------------------------------------------------------------- rows


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UserError(f"judge role {role!r} is unknown; allowed are {', '.join(ROLES)}{nearest(role, ROLES)}")


def _half(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    _check_role(role)
    missing = [name for name in ("id", *COLUMNS, *COLUMNS.values()) if name not in rows.columns]
    if missing:
        raise UserError(
            f"a scorer cannot be trained on these rows: they lack {', '.join(missing)} (they have "
            f"{', '.join(map(str, rows.columns))}); give a toxicity data set, or a judge that is not trained here"
        )
    if "split" in rows.columns:
        rows = rows[rows["split"] == "judge"]
    for column in COLUMNS.values():
        score = rows[column].astype("float64")
        if not (score.isna() | ((score >= 0) & (score <= 1))).all():
            raise UserError(f"column {column!r} of the judge rows holds scores outside [0, 1]")
    first = [_share("judge half", name) < 0.5 for name in rows["id"]]
    half = rows[[inside == (role == ROLES[0]) for inside in first]]
    if half.empty:
        raise UserError(f"no row of the {len(rows)} in split 'judge' falls to the judge {role!r}; raise n_judge")
    return half


def _share(salt: str, name: str) -> float:
    """A number in [0, 1) that depends on salt and id alone; ids spread evenly."""
    return int(hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()[:13], 16) / 16**13


def _scored_texts(rows: pd.DataFrame) -> pd.DataFrame:
    """Prompts, then continuations: ``id, text, p``; whitespace around a text is not judged."""
    import pandas as pd

    parts = [
        pd.DataFrame({"id": rows["id"] + suffix, "text": _stripped(rows[column]), "p": rows[score].astype("float64")})
        for (column, score), suffix in zip(COLUMNS.items(), (":prompt", ":continuation"), strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[(table["text"] != "") & table["p"].notna()].reset_index(drop=True)


def _stripped(texts: Iterable[Any]) -> list[str]:
    return [text.strip() if isinstance(text, str) else "" for text in texts]
