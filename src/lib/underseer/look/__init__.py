"""Looks at a stage's work, for its notebook: tables, curves, examples. Shows; never decides a result."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure


def source(*functions: Callable[..., Any]) -> Any:
    """The code of functions, with their places in the library, as the notebook's output: the formula where it is used."""
    from IPython.display import Markdown

    return Markdown("\n\n".join(_source(function) for function in functions))


def _source(function: Callable[..., Any]) -> str:
    try:
        code = inspect.getsource(function)
    except (OSError, TypeError):  # compiled, or an object that is called
        return f"`{function!r}` has no Python source to show."
    plain = inspect.unwrap(function)
    module = getattr(plain, "__module__", "")
    place = f"`{module}`, line {inspect.getsourcelines(plain)[1]}:\n\n" if module.startswith("underseer.") else ""
    return f"{place}```python\n{textwrap.dedent(code).strip()}\n```"


def settings(spec: Any) -> pd.DataFrame:
    """The fields of a dataclass as a table."""
    return pd.DataFrame({"value": {k: str(v) for k, v in asdict(spec).items()}})


def texts(given: Sequence[str]) -> Any:
    """Some texts as a table; the notebook shows it escaped."""
    return _wide(pd.DataFrame({"text": list(given)}))


def examples(rows: pd.DataFrame, labels: Sequence[str], *, synthetic: bool, n: int = 3) -> Any:
    """Some rows of each class. Texts of real data are redacted, those labelled harmless too: published labels err."""
    some = rows.sort_values("id").groupby("label").head(n).sort_values("label", kind="stable")
    shown = some[["id", "label", "text"]].assign(label=[labels[label] for label in some.label])
    return _wide(shown if synthetic else without_texts(shown, ["text"]))


def without_texts(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows with the texts of these columns redacted."""
    return rows.assign(**{c: [redacted(i, t) for i, t in zip(rows["id"], rows[c], strict=True)] for c in columns})


def redacted(row: str, text: str) -> str:
    """What stands for a text of real data."""
    return f"[redacted, {len(text.split())} words, id {row}]"


def shares(rows: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Rows of each split and class."""
    known = rows.assign(label=[labels[int(label)] for label in rows.label])
    return (
        known.groupby(["split", "label"], sort=False).size().unstack(fill_value=0).assign(rows=lambda t: t.sum(axis=1))
    )


def hygiene(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of rows: a line a split (or a pair of splits), a column a check."""
    wide = table.pivot(index="scope", columns="check", values="rows")
    wide = wide.reindex(index=table.scope.unique(), columns=table.check.unique())
    return wide.map(lambda n: "" if n != n else f"{n:,.0f}")


def curves(table: pd.DataFrame, *, unit: str = "nats", best_step: int | None = None) -> Figure:
    """Training and validation loss over optimizer steps, and validation accuracy where there is one."""
    if not len(table):
        return "Nothing was trained."
    accuracy = table[table.metric == "validation_accuracy"]
    figure, axes = _figure(2 if len(accuracy) else 1)
    for metric in ("train_loss", "validation_loss"):
        part = table[table.metric == metric]
        axes[0].plot(
            part.step, part.value, label=metric.replace("_", " "), marker="o" if len(part) < 30 else "", markersize=3
        )
    axes[0].set(xlabel="optimizer step", ylabel=f"loss ({unit})")
    if len(accuracy):
        axes[1].plot(accuracy.step, accuracy.value, marker="o", markersize=3, color="tab:green")
        axes[1].set(xlabel="optimizer step", ylabel="validation accuracy (share of rows)")
    for ax in axes:
        if best_step is not None:
            ax.axvline(best_step, color="grey", linestyle=":", linewidth=1, label="state kept")
    axes[0].legend(frameon=False)
    return figure


def classifier(truth: pd.DataFrame, predictions: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Confusion matrix and reliability diagram of predictions on rows with a known label."""
    import seaborn

    from underseer.maths import metrics

    joined = truth[["id", "label"]].merge(predictions[["id", "p"]], on="id", validate="one_to_one")
    y, p = joined.label.to_numpy(dtype=int), joined.p.to_numpy()
    figure, (left, right) = _figure(2)
    seaborn.heatmap(
        metrics.confusion(y, p), annot=True, fmt=".0f", cmap="Blues", cbar=False, square=True, ax=left,
        xticklabels=labels, yticklabels=labels,
    )  # fmt: skip
    left.set(xlabel="said", ylabel=f"true (n = {len(y)})")
    curve = metrics.calibration_curve(y, p)
    right.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    right.plot(curve["mean_p"], curve["share"], marker="o", markersize=4)
    right.set(xlabel=f"mean probability of {labels[1]}, in bins", ylabel=f"share of {labels[1]} rows")
    right.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def agreement(weak_labels: pd.DataFrame) -> Any:
    """Rows by the share of supervisors that gave the winning label."""
    counts = weak_labels.share.round(3).value_counts().sort_index(ascending=False)
    table = counts.rename("rows").rename_axis("share of supervisors that agree").to_frame()
    return table.assign(of_all=(table.rows / table.rows.sum()).round(3))


def labelled(truth: pd.DataFrame, weak_labels: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Weak labels against the truth: rows by true class and given class, and the share that is right."""
    joined = truth[["id", "label"]].merge(weak_labels, on="id", validate="one_to_one")
    names = dict(enumerate(labels))
    true = joined.label.astype(int).map(names).rename("true")
    given = joined.weak_label.astype(int).map(names).rename("given")
    return pd.crosstab(true, given).assign(right=(true == given).groupby(true).mean().round(3))


def continuations(truth: pd.DataFrame, written: pd.DataFrame, *, synthetic: bool, n: int = 4) -> Any:
    """Some prompts with what people wrote and what the model wrote. Texts of real data are redacted: a model that
    imitates people may write anything."""
    first = written.sort_values("draw").drop_duplicates("id").drop(columns="split", errors="ignore")
    joined = first.merge(truth, on="id", suffixes=("", "_prompt")).sort_values("id").head(n)
    texts = {"prompt": joined.get("text_prompt", joined.text), "people": joined.continuation, "model": joined.text}
    shown = pd.DataFrame({"id": joined.id, **texts})
    return _wide(
        (shown if synthetic else without_texts(shown.fillna(""), list(texts))).dropna(axis="columns", how="all")
    )


def chosen(weak_labels: pd.DataFrame) -> pd.DataFrame:
    """Whose continuation was chosen, and what the training judges and the fluency model say of those."""
    groups = weak_labels[weak_labels.supervisor >= 0].groupby("supervisor")
    means = {
        "prompts": groups.size(),
        "toxicity (training judges)": groups.toxicity.mean(),
        "nats per token": groups.nll.mean(),
    }
    return pd.DataFrame(means).dropna(axis="columns", how="all").round(3)


def scored(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Texts with a stored score ``p``: how many, their mean, and the share that counts as toxic."""
    means = {
        n: {"texts": len(t), "mean score": t.p.mean(), "share >= 0.5": (t.p >= 0.5).mean()} for n, t in parts.items()
    }
    return pd.DataFrame(means).T.astype({"texts": int}).round(3)


def calibration(measures: Mapping[str, Any]) -> Figure:
    """A scorer against stored scores: mean stored score by predicted score, with the numbers in the title."""
    figure, (axis,) = _figure(1)
    bins = pd.DataFrame(measures["reliability"]).query("n > 0")
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axis.plot(bins.mean_predicted, bins.mean_truth, marker="o")
    axis.set(xlabel="mean predicted score, in bins", ylabel="mean stored score", xlim=(0, 1), ylim=(0, 1))
    numbers = [f"{k} {measures[k]:.2f}" for k in ("spearman", "agreement") if measures[k] is not None]
    axis.set_title(", ".join(numbers), fontsize=9)
    return figure


def toxicity(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of greedy and of sampled continuations: means by both judges, share at 0.5 and above, failures."""
    drawn = scores.assign(draws=["greedy" if d == 0 else "sampled" for d in scores.draw]).groupby("draws")
    means = {
        "continuations": drawn.size(),
        "mean toxicity": drawn.toxicity.mean(),
        "share >= 0.5": drawn.toxicity.agg(lambda t: (t.dropna() >= 0.5).mean()),
        "mean toxicity (training judges)": drawn.toxicity_training.mean(),
        "failures": drawn.failure.count(),
    }
    return pd.DataFrame(means).round(4)


def _figure(columns: int) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(4.6 * columns, 3.2), layout="constrained", squeeze=False)
    plt.close(figure)  # the notebook shows what a cell returns; an open figure would be shown twice
    return figure, axes[0]


def _wide(table: pd.DataFrame) -> Any:
    """Texts in full, left-aligned; pandas escapes them."""
    left = {"text-align": "left", "white-space": "normal"}
    heads = [{"selector": "th", "props": list(left.items())}]
    return table.style.format(escape="html").hide(axis="index").set_properties(**left).set_table_styles(heads)
