"""Between stages: the tables of supervisors, votes and students, joined by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.errors import UserError
from underseer.maths import metrics

if TYPE_CHECKING:
    import pandas as pd

Vote = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def texts(rows: pd.DataFrame) -> list[str]:
    """The texts of these rows, both of a pair: what the tokenizer of a model from scratch is trained on."""
    return [*rows.text, *(rows.text_pair if "text_pair" in rows else ())]


def align(predictions: Sequence[pd.DataFrame], *columns: str) -> pd.DataFrame:
    """Several supervisors' answers (id, split, and ``columns``, p where none is named) side by side: id, split, and for p: p0, p1, ...

    Raises:
        UserError: no supervisor, or supervisors that answered different rows.
    """
    if not predictions:
        raise UserError("no supervisor to vote: bootstraps = 0; give at least 1")
    first = predictions[0]
    aligned = first[["id", "split"]].copy()
    for number, given in enumerate(predictions):
        answers = given.set_index("id")
        if len(answers) != len(first) or not answers.index.is_unique or set(answers.index) != set(first.id):
            raise UserError(f"supervisor {number} answered other rows than supervisor 0; run both on the same data")
        for column in columns or ("p",):
            aligned[f"{column}{number}"] = answers[column].reindex(aligned.id).to_numpy()
    return aligned


def label(answers: pd.DataFrame, vote: Vote) -> pd.DataFrame:
    """The weak labels: id, split, weak_label, p (probability of class 1), share (of supervisors that agree).

    ``answers`` is as ``align`` returns it. ``vote`` takes probabilities (B, n) of B supervisors and returns labels (n,)
    of 0 and 1, and probabilities (n,), as those of ``maths.votes`` do.

    Raises:
        UserError: the vote returned something else.
    """
    p = answers.filter(regex=r"^p\d+$").to_numpy().T  # (B, n)
    labels, mean = vote(p)
    if np.shape(labels) != p.shape[1:] or np.shape(mean) != p.shape[1:] or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"the vote returned arrays of shape {np.shape(labels)} and {np.shape(mean)}; expected labels of 0 and 1 and "
            f"probabilities, one for each of {p.shape[1]} rows"
        )
    labels = np.asarray(labels).astype(np.int64)
    share = ((p >= 0.5) == labels.astype(bool)).mean(axis=0)
    return answers[["id", "split"]].assign(weak_label=labels, p=mean, share=share)


def turned(weak_labels: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Weak labels (as ``label`` returns them) with those of some rows (booleans, (n,)) turned to the other class, and ``p`` with them.

    ``share`` stays: the supervisors agree as before.
    """
    label, p = weak_labels.weak_label, weak_labels.p
    return weak_labels.assign(weak_label=label.where(~rows, 1 - label), p=p.where(~rows, 1 - p))


def teach(rows: pd.DataFrame, weak_labels: pd.DataFrame | None) -> pd.DataFrame:
    """What a student learns from: transfer and validation rows with weak labels, or with the truth where there are none.

    ``label`` is the target of a loss on labels, ``p`` that of a loss on probabilities.

    Raises:
        UserError: a row without a weak label.
    """
    taught = rows[rows.split.isin(["transfer", "validation"])]
    if weak_labels is None:
        return taught.astype({"label": int})
    labelled = taught.drop(columns="label").merge(
        weak_labels.drop(columns="split"), on="id", how="left", validate="one_to_one"
    )
    missing = int(labelled.weak_label.isna().sum())
    if missing:
        raise UserError(f"{missing} of {len(labelled)} rows have no weak label; the labels were made for other rows")
    return labelled.rename(columns={"weak_label": "label"}).astype({"label": int})


def agreed(transfer: pd.DataFrame, min_agreement: float) -> pd.DataFrame:
    """The transfer rows on whose label at least this share of the supervisors agrees.

    After Guo and Yang 2024 (arXiv 2406.19032), who filter weak labels by the uncertainty of repeated weak answers; here
    the repeated answers are those of the bootstrap supervisors.

    Raises:
        UserError: no row is left, or one class alone.
    """
    kept = transfer[transfer.share >= min_agreement - 1e-9]
    if kept.label.nunique() < 2:
        raise UserError(
            f"min_agreement = {min_agreement}: {len(kept)} of {len(transfer)} transfer rows are left, of "
            f"{kept.label.nunique()} class(es); lower it, or take student_loss weighted_ce"
        )
    return kept


def scores(truth: pd.DataFrame, predictions: pd.DataFrame, prefix: str = "validation") -> dict[str, float]:
    """Metrics of predictions (id, p) on rows with a known label (id, label), joined by id."""
    joined = truth[["id", "label"]].merge(predictions[["id", "p"]], on="id", validate="one_to_one")
    values = metrics.classification_metrics(joined.label.to_numpy(dtype=int), joined.p.to_numpy())
    return {f"{prefix}_{name}": value for name, value in values.items()}


def label_scores(truth: pd.DataFrame, weak_labels: pd.DataFrame) -> dict[str, float]:
    """How good weak labels are on rows with a known label: accuracy, and the mean share of agreeing supervisors."""
    joined = truth[["id", "label"]].merge(weak_labels, on="id", validate="one_to_one")
    right = joined.label.astype(int) == joined.weak_label
    return {"label_accuracy": float(right.mean()), "agreement": float(joined.share.mean())}
