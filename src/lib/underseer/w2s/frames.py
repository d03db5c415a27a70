"""Between stages: the tables of supervisors, votes and students, joined by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.maths import metrics, votes
from underseer.w2s.tasks import RELIABLE

if TYPE_CHECKING:
    import pandas as pd


def sample(supervise: pd.DataFrame, replicate: int, seed: int) -> pd.DataFrame:
    """The rows that a supervisor is trained on: all (replicate 0), or bootstrap sample ``replicate``, with repetitions."""
    return supervise if replicate == 0 else supervise.iloc[votes.bootstrap_sample(len(supervise), replicate, seed)]


def align(predictions: Sequence[pd.DataFrame], column: str = "p") -> pd.DataFrame:
    """Several supervisors' answers (id, split, and ``column``) side by side: id, split, and for p: p0, p1, ...

    Raises:
        UserError: no supervisor, or supervisors that answered different rows.
    """
    if not predictions:
        raise UserError("no supervisor to vote: bootstraps = 0; give at least 1")
    first = predictions[0]
    aligned = first[["id", "split"]].copy()
    for number, given in enumerate(predictions):
        answers = given.set_index("id")[column]
        if len(answers) != len(first) or not answers.index.is_unique or set(answers.index) != set(first.id):
            raise UserError(f"supervisor {number} answered other rows than supervisor 0; run both on the same data")
        aligned[f"{column}{number}"] = answers.reindex(aligned.id).to_numpy()
    return aligned


def vote(answers: pd.DataFrame, voting: str) -> pd.DataFrame:
    """The weak labels: id, split, weak_label, p (mean probability of class 1), share (of supervisors that agree).

    ``answers`` is as ``align`` returns it; ``voting`` is none (one supervisor), hard or soft.
    """
    p = answers.filter(regex=r"^p\d+$").to_numpy().T  # (B, n)
    if voting == "none" and len(p) != 1:
        raise UserError(f"voting = 'none': {len(p)} supervisors; one is needed, or voting hard or soft")
    if voting == "hard":
        label, _ = votes.hard_vote(p)
        mean = p.mean(axis=0)
    else:
        label, mean = votes.soft_vote(p)
    share = ((p >= 0.5) == label.astype(bool)).mean(axis=0)
    return answers[["id", "split"]].assign(weak_label=label, p=mean, share=share)


def teach(rows: pd.DataFrame, weak_labels: pd.DataFrame | None) -> pd.DataFrame:
    """What a student learns from: transfer and validation rows with weak labels, or with the truth where there are none.

    ``label`` is the target of a loss on labels, ``p`` that of a loss on probabilities.

    Raises:
        UserError: a row without a weak label.
    """
    taught = rows[rows.split.isin(["transfer", "validation"])]
    if weak_labels is None:
        return taught.astype({"label": int})
    found = taught.drop(columns="label").merge(
        weak_labels.drop(columns="split"), on="id", how="left", validate="one_to_one"
    )
    missing = int(found.weak_label.isna().sum())
    if missing:
        raise UserError(f"{missing} of {len(found)} rows have no weak label; the labels were made for other rows")
    return found.rename(columns={"weak_label": "label"}).astype({"label": int})


def loss_on_rows(student_loss: str) -> str:
    """The loss that a student minimises on each row: filtering and weighting are of rows, on top of cross-entropy."""
    return "hard_ce" if student_loss in RELIABLE else student_loss


def reliable(taught: pd.DataFrame, student_loss: str, min_agreement: float) -> pd.DataFrame:
    """Rows chosen or weighted by how far the supervisors agree on their labels (``share``); others lose as they are.

    After Guo and Yang 2024 (arXiv 2406.19032), who filter and re-weight weak labels by the uncertainty of repeated
    weak answers; here the repeated answers are those of the bootstrap supervisors. ``filtered_ce`` drops rows with
    ``share < min_agreement``; ``weighted_ce`` gives a row the weight ``2 share - 1``: 0 for a tie, 1 where all agree
    (variant: ours). Validation rows stay, so that early stopping looks at the same rows as any other student's.

    Raises:
        UserError: no transfer row is left, or one class alone.
    """
    transfer = taught.split == "transfer"
    if student_loss == "filtered_ce":
        kept = taught[~transfer | (taught.share >= min_agreement - 1e-9)]
        left = kept[kept.split == "transfer"]
        if left.label.nunique() < 2:
            raise UserError(
                f"min_agreement = {min_agreement}: {len(left)} of {int(transfer.sum())} transfer rows are left, of "
                f"{left.label.nunique()} class(es); lower it, or take student_loss weighted_ce"
            )
        return kept
    if student_loss == "weighted_ce":
        return taught.assign(weight=(2 * taught.share - 1).where(transfer, 1.0))
    return taught


def scores(truth: pd.DataFrame, predictions: pd.DataFrame, prefix: str = "validation") -> dict[str, float]:
    """Metrics of predictions (id, p) on rows with a known label (id, label), joined by id."""
    joined = truth[["id", "label"]].merge(predictions[["id", "p"]], on="id", validate="one_to_one")
    found = metrics.classification_metrics(joined.label.to_numpy(dtype=int), joined.p.to_numpy())
    return {f"{prefix}_{name}": value for name, value in found.items()}


def label_scores(truth: pd.DataFrame, weak_labels: pd.DataFrame) -> dict[str, float]:
    """How good weak labels are on rows with a known label: accuracy, and the mean share of agreeing supervisors."""
    joined = truth[["id", "label"]].merge(weak_labels, on="id", validate="one_to_one")
    right = joined.label.astype(int) == joined.weak_label
    return {"label_accuracy": float(right.mean()), "agreement": float(joined.share.mean())}
