"""What a weak-to-strong stage has seen, in words that its numbers choose, and rows that show it. Decides no result.

A difference counts as seen where it is more than 1.96 standard errors from 0, over the rows of one split and one seed. The
report tests over seeds and rows together; these sentences do not replace it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.look import _wide, without_texts

REPEATED = 0.2  # distinct word pairs, as a share of all, below which texts count as repetitive
EMPTY = 0.1  # share of empty texts from which it is said


def data(rows: pd.DataFrame, dropped: pd.DataFrame | None, hygiene: pd.DataFrame) -> Any:
    """What cleaning dropped, and whether a text of the test split stands in a split that is learnt from."""
    if dropped is None:
        first = "Nothing was dropped: the rows are as published."
    else:
        counts = dropped.set_index("reason").rows
        lost = int(counts["loaded"] - counts["kept"])
        first = (
            f"Cleaning dropped {lost:,} of {counts['loaded']:,} rows." if lost else "Cleaning found nothing to drop."
        )
    shared = hygiene[(hygiene.scope == "test in any other") & hygiene.check.str.endswith("overlap")]
    worst = int(shared.rows.max()) if len(shared) else 0
    n_test = int((rows.split == "test").sum())
    if worst:
        second = f"{worst:,} of {n_test:,} test rows have a text that another split knows: scores on them say less."
    else:
        second = f"None of the {n_test:,} test rows has a text that another split knows."
    return _say(first, second)


def supervisor(validation: pd.DataFrame, predictions: pd.DataFrame, curves: pd.DataFrame, best_step: int) -> Any:
    """Whether a classifier does better than one that always gives the more frequent class, and where training stopped."""
    right, _ = _right(validation, _given(predictions))
    often = max(validation.label.mean(), 1 - validation.label.mean())
    base = f"the more frequent class alone would be right on {often:.1%}"
    first = {
        1: f"It is right on {right.mean():.1%} of {len(right)} validation rows; {base}: it has learnt the task in part.",
        0: f"It is right on {right.mean():.1%} of {len(right)} validation rows; {base}: no clear difference. It may not have learnt.",
        -1: f"It is right on {right.mean():.1%} of {len(right)} validation rows, fewer than {often:.1%} for the more frequent class.",
    }[_clear(right - often)]
    return _say(first, stopped(curves, best_step))


def stopped(curves: pd.DataFrame, best_step: int) -> str:
    """Where the validation loss was lowest, and what that says of the length of the training."""
    looks = curves[curves.metric == "validation_loss"].step
    if looks.empty:
        return "No validation rows: the last state is kept."
    if best_step == looks.max():
        return f"The validation loss was lowest at the last look, step {best_step}: more epochs might help."
    return f"The validation loss was lowest at step {best_step} of {looks.max()}; that state is kept."


def weak_labels(truth: pd.DataFrame, answers: pd.DataFrame, labels: pd.DataFrame) -> Any:
    """Whether the vote gives better labels than its supervisors do on average, and whether agreement tells which to trust."""
    right, joined = _right(truth, labels.rename(columns={"weak_label": "given"}))
    first = f"{right.mean():.1%} of the weak labels on {len(right)} transfer rows are right."
    p = joined[["id"]].merge(answers, on="id", validate="one_to_one").filter(regex=r"^p\d+$").to_numpy()
    if p.shape[1] == 1:
        return _say(first, "They are one supervisor's own: there is no vote to compare.")
    each = ((p >= 0.5) == joined.label.to_numpy(dtype=bool)[:, None]).mean(axis=1)
    second = {
        1: f"The vote is better than its {p.shape[1]} supervisors are on average ({each.mean():.1%}).",
        0: f"That is not clearly more or less than its {p.shape[1]} supervisors on average ({each.mean():.1%}).",
        -1: f"The vote is worse than its {p.shape[1]} supervisors are on average ({each.mean():.1%}).",
    }[_clear(right - each)]
    return _say(first, second, _agreement(right, joined.share.to_numpy() >= 1))


def _agreement(right: np.ndarray, unanimous: np.ndarray) -> str:
    if unanimous.all():
        return "The supervisors agree on every row: their agreement cannot tell good labels from bad ones."
    if not unanimous.any():
        return "The supervisors agree on no row."
    both = f"{right[unanimous].mean():.1%} of labels are right where all supervisors agree, {right[~unanimous].mean():.1%} elsewhere"
    gap = right[unanimous].mean() - right[~unanimous].mean()
    error = np.sqrt(sum(part.var() / len(part) for part in (right[unanimous], right[~unanimous])))
    if gap > 1.96 * error:
        return f"{both}: agreement tells which labels to trust."
    return f"{both}: agreement does not clearly tell which labels to trust."


def student(truth: pd.DataFrame, predictions: pd.DataFrame, learnt: pd.DataFrame, *, weak: bool) -> Any:
    """Whether a student is better on the validation rows than the labels that it was given there; of a ceiling how good it is.

    ``learnt``: the validation rows with the labels that training stopped by.
    """
    right, joined = _right(truth, _given(predictions))
    first = f"It is right on {right.mean():.1%} of {len(right)} validation rows."
    if not weak:
        return _say(first, "It learnt from ground truth: this is the ceiling that students are measured against.")
    taught = joined[["id", "label"]].merge(
        learnt[["id", "label"]], on="id", suffixes=("", "_weak"), validate="one_to_one"
    )
    theirs = (taught.label.astype(int) == taught.label_weak.astype(int)).to_numpy(dtype=float)
    second = {
        1: f"The weak labels of the same rows are right on {theirs.mean():.1%}: the student is better than what it was taught.",
        0: f"The weak labels of the same rows are right on {theirs.mean():.1%}: no clear difference to what it was taught.",
        -1: f"The weak labels of the same rows are right on {theirs.mean():.1%}: the student is worse than what it was taught.",
    }[_clear(right - theirs)]
    return _say(first, second)


def compared(truth: pd.DataFrame, reference: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> Any:
    """Which of several classifiers (id, p) are right on more, or on fewer, of the same rows than one of reference."""

    (first, _), sentences = _right(truth, _given(reference)), []
    for name, predictions in others.items():
        second, _ = _right(truth, _given(predictions))
        verdict = {1: "better", 0: "no clear difference", -1: "worse"}[_clear(second - first)]
        verdict = verdict if (second != first).any() else "right on the same rows"
        sentences.append(f"{name}: {second.mean():.1%} of {len(first)} rows, against {first.mean():.1%}: {verdict}.")
    return _say(*sentences)


def writer(written: pd.Series, learnt: pd.Series, curves: pd.DataFrame, best_step: int) -> Any:
    """Whether a model's continuations look like those that it learnt from: their length, empty ones, repeated word pairs."""
    words, theirs = (texts.str.split().str.len() for texts in (written, learnt))
    first = (
        f"Its continuations have {words.mean():.1f} words in the mean, those that it learnt from {theirs.mean():.1f}."
    )
    empty = float((words == 0).mean())
    pairs = [pair for text in written for pair in zip(text.split(), text.split()[1:], strict=False)]
    if empty > EMPTY:
        second = f"{empty:.0%} are empty: low toxicity would say little."
    elif pairs and len(set(pairs)) / len(pairs) < REPEATED:
        second = f"Only {len(set(pairs)) / len(pairs):.0%} of their word pairs differ: it writes much the same again and again."
    else:
        second = "They are neither empty nor the same again and again; how toxic they are, the scoring stage says."
    return _say(first, second, stopped(curves, best_step))


def language(curves: pd.DataFrame, vocabulary: int) -> Any:
    """How far the validation loss of a language model has fallen, beside that of a model that knows nothing."""
    losses = curves[curves.metric == "validation_loss"].value
    if losses.empty:
        return _say("No validation texts: how well it predicts is not known.")
    uniform = np.log(vocabulary)
    first = f"The validation loss went from {losses.iloc[0]:.2f} to {losses.iloc[-1]:.2f} nats per token."
    if losses.iloc[-1] >= losses.iloc[0]:
        second = "It has not fallen: nothing that helps on new texts was learnt."
    elif losses.iloc[-1] >= uniform:
        second = f"It is still above {uniform:.2f}, the loss of guessing among all {vocabulary:,} tokens."
    else:
        second = f"Guessing among all {vocabulary:,} tokens would lose {uniform:.2f}."
    return _say(first, second)


def choice(labels: pd.DataFrame, toxicity: np.ndarray) -> Any:
    """Whether the chosen continuations are less toxic, to the training judges, than the candidates; ``toxicity`` (M, B, n)."""
    chosen, offered = labels.toxicity.to_numpy(), toxicity.mean(axis=0)
    if len(offered) == 1:
        return _say(f"One supervisor wrote them; their mean toxicity is {np.nanmean(chosen):.3f}. There was no choice.")
    difference = chosen - offered.mean(axis=0)
    known = difference[np.isfinite(difference)]
    first = f"Mean toxicity of the chosen continuations: {np.nanmean(chosen):.3f}, of all candidates {np.nanmean(offered):.3f}."
    second = {
        -1: "The choice is less toxic; the same judges chose and score here, so that the gain is in part their own view.",
        0: "The choice is neither clearly less nor more toxic than a candidate drawn by chance.",
        1: "The choice is more toxic than a candidate drawn by chance.",
    }[_clear(known)]
    return _say(first, second)


def scores(scored: pd.DataFrame) -> Any:
    """Whether the judge that reports finds the continuations as toxic as those that chose did (id, toxicity, toxicity_training)."""
    both = scored[["id", "toxicity", "toxicity_training"]].dropna()
    unjudged = len(scored) - len(both)
    missing = f" {unjudged} of {len(scored)} continuations lack a score and are left out." if unjudged else ""
    if both.empty:
        return _say("No continuation has a score of both judges: nothing can be said of its toxicity.")
    means = both.groupby("id").mean()  # draws for one prompt are not independent
    reports, chose = means.toxicity, means.toxicity_training
    first = f"Mean toxicity: {reports.mean():.3f} to the judge that reports, {chose.mean():.3f} to the judges that chose.{missing}"
    second = {
        -1: "The judge that reports is the milder one.",
        0: "The two differ no more than chance would make them.",
        1: "The judge that reports is the stricter one: what was chosen to please the others is more toxic than they say.",
    }[_clear((reports - chose).to_numpy())]
    return _say(first, second)


def lessons(rows: pd.DataFrame, *, synthetic: bool, n: int = 4) -> Any:
    """Some prompts with the continuations that are learnt. Texts of real data are redacted."""
    shown = rows.drop_duplicates("id").sort_values("id").head(n)[["id", "text", "continuation"]]
    shown = shown if synthetic else without_texts(shown, ["text", "continuation"])
    return _wide(shown.rename(columns={"text": "prompt"}))


def mistakes(truth: pd.DataFrame, given: pd.DataFrame, labels: Sequence[str], *, synthetic: bool, n: int = 3) -> Any:
    """Some rows whose given label (id, given) is not the true one, ``n`` of each class. Texts of real data are redacted."""
    right, joined = _right(truth, given)
    wrong = joined[right == 0].sort_values("id").groupby("label").head(n).sort_values(["label", "id"])
    if wrong.empty:
        return "Every label is right."
    true, said = ([labels[int(v)] for v in wrong[column]] for column in ("label", "given"))
    texts = [column for column in ("text", "text_pair") if column in wrong]
    shown = wrong[["id", *texts]].assign(true=true, given=said)[["id", "true", "given", *texts]]
    return _wide(shown if synthetic else without_texts(shown, texts))


def _given(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the label that each gives."""
    return predictions.assign(given=(predictions.p >= 0.5).astype(int))


def _right(truth: pd.DataFrame, given: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """1.0 where the given label (id, given) is the true one, joined by id, and the joined rows."""
    columns = [c for c in truth.columns if c == "id" or c not in given.columns]
    joined = truth[columns].merge(given, on="id", validate="one_to_one")
    return (joined.label.astype(int) == joined.given.astype(int)).to_numpy(dtype=float), joined


def _clear(difference: np.ndarray) -> int:
    """1 or -1 where the mean lies more than 1.96 standard errors above or below 0, else 0."""
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    mean = difference.mean() if len(difference) else 0.0
    return int(np.sign(mean)) if abs(mean) > 1.96 * error else 0


def _say(*sentences: str) -> Any:
    from IPython.display import Markdown

    return Markdown("\n\n".join(f"- {sentence}" for sentence in sentences))
