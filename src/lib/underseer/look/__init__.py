"""Looks at a stage's work, for its notebook: tables, curves, examples. Shows; never decides a result."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
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
    import pandas as pd

    return pd.DataFrame({"value": {k: str(v) for k, v in asdict(spec).items()}})


def texts(found: Sequence[str]) -> Any:
    """Some texts as a table; the notebook shows it escaped."""
    import pandas as pd

    return _wide(pd.DataFrame({"text": list(found)}))


def examples(rows: pd.DataFrame, labels: Sequence[str], *, synthetic: bool, n: int = 3) -> Any:
    """Some rows of each class. Texts of real data are redacted, those labelled harmless too: published labels err."""
    import pandas as pd

    found = pd.concat([part.head(n) for _, part in rows.sort_values("id").groupby("label")])
    shown = [t if synthetic else redacted(i, t) for i, t in zip(found.id, found.text, strict=True)]
    return _wide(pd.DataFrame({"id": found.id, "label": [labels[label] for label in found.label], "text": shown}))


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
    from underseer.maths import metrics

    joined = truth[["id", "label"]].merge(predictions[["id", "p"]], on="id", validate="one_to_one")
    y, p = joined.label.to_numpy(dtype=int), joined.p.to_numpy()
    figure, (left, right) = _figure(2)
    counts = metrics.confusion(y, p)
    left.imshow(counts, cmap="Blues")
    for (row, column), count in _cells(counts):
        left.text(
            column,
            row,
            f"{count:.0f}",
            ha="center",
            va="center",
            color="white" if count > counts.max() / 2 else "black",
        )
    left.set(
        xticks=[0, 1],
        yticks=[0, 1],
        xticklabels=labels,
        yticklabels=labels,
        xlabel="said",
        ylabel=f"true (n = {len(y)})",
    )
    told = metrics.calibration_curve(y, p)
    right.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    right.plot(told["mean_p"], told["share"], marker="o", markersize=4)
    right.set(
        xlabel=f"mean probability of {labels[1]}, in bins",
        ylabel=f"share of {labels[1]} rows",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    return figure


def agreement(weak_labels: pd.DataFrame) -> Any:
    """Rows by the share of supervisors that gave the winning label."""
    counts = weak_labels.share.round(3).value_counts().sort_index(ascending=False)
    return (
        counts.rename("rows")
        .rename_axis("share of supervisors that agree")
        .to_frame()
        .assign(of_all=lambda t: (t.rows / t.rows.sum()).round(3))
    )


def labelled(truth: pd.DataFrame, weak_labels: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Weak labels against the truth: rows by true class and given class, and the share that is right."""
    joined = truth[["id", "label"]].merge(weak_labels, on="id", validate="one_to_one")
    named = joined.assign(
        true=[labels[int(v)] for v in joined.label], given=[labels[int(v)] for v in joined.weak_label]
    )
    table = named.groupby(["true", "given"]).size().unstack(fill_value=0)
    right = named.assign(right=named.true == named.given).groupby("true").right.mean().round(3)
    return table.assign(right=right)


def continuations(truth: pd.DataFrame, written: pd.DataFrame, *, synthetic: bool, n: int = 4) -> Any:
    """Some prompts with what people wrote and what the model wrote. Texts of real data are redacted: a model that
    imitates people may write anything."""
    import pandas as pd

    first = written.sort_values("draw").drop_duplicates("id")
    found = first.drop(columns="split", errors="ignore").merge(truth, on="id", suffixes=("", "_prompt"))
    found = found.sort_values("id").head(n)
    told = {"prompt": found.get("text_prompt", found.text), "people": found.continuation, "model": found.text}
    shown = pd.DataFrame({"id": found.id, **told})
    if not synthetic:
        for column in told:
            texts = shown[column].fillna("")
            shown[column] = [redacted(i, t) for i, t in zip(shown.id, texts, strict=True)]
    return _wide(shown.dropna(axis="columns", how="all"))


def chosen(weak_labels: pd.DataFrame) -> pd.DataFrame:
    """Whose continuation was chosen, and what the training judges and the fluency model say of those."""
    groups = weak_labels.groupby("supervisor")
    told = {
        "prompts": groups.size(),
        "toxicity (training judges)": groups.toxicity.mean(),
        "nats per token": groups.nll.mean(),
    }
    return _frame(told).dropna(axis="columns", how="all").round(3)


def scored(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Texts with a stored score ``p``: how many, their mean, and the share that counts as toxic."""
    told = {
        n: {"texts": len(t), "mean score": t.p.mean(), "share >= 0.5": (t.p >= 0.5).mean()} for n, t in parts.items()
    }
    return _frame(told).T.astype({"texts": int}).round(3)


def calibration(told: Mapping[str, Any]) -> Figure:
    """A scorer against stored scores: mean stored score by predicted score, with the numbers in the title."""
    figure, axes = _figure(1)
    bins = told["reliability"]
    full = [k for k, n in enumerate(bins["n"]) if n]
    axes[0].plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes[0].plot([bins["mean_predicted"][k] for k in full], [bins["mean_truth"][k] for k in full], marker="o")
    axes[0].set(xlabel="mean predicted score, in bins", ylabel="mean stored score", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_title(
        ", ".join(f"{k} {told[k]:.2f}" for k in ("spearman", "agreement") if told[k] is not None), fontsize=9
    )
    return figure


def toxicity(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of greedy and of sampled continuations: means by both judges, share at 0.5 and above, failures."""
    drawn = scores.assign(draws=["greedy" if d == 0 else "sampled" for d in scores.draw]).groupby("draws")
    told = {
        "continuations": drawn.size(),
        "mean toxicity": drawn.toxicity.mean(),
        "share >= 0.5": drawn.toxicity.agg(lambda t: (t.dropna() >= 0.5).mean()),
        "mean toxicity (training judges)": drawn.toxicity_training.mean(),
        "failures": drawn.failure.count(),
    }
    return _frame(told).round(4)


def _figure(columns: int) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(4.6 * columns, 3.2), layout="constrained", squeeze=False)
    plt.close(figure)  # the notebook shows what a cell returns; an open figure would be shown twice
    return figure, axes[0]


def _cells(counts: Any) -> list[tuple[tuple[int, int], float]]:
    return [((r, c), counts[r, c]) for r in range(2) for c in range(2)]


def _wide(table: pd.DataFrame) -> Any:
    """Texts in full, left-aligned; pandas escapes them."""
    left = {"text-align": "left", "white-space": "normal"}
    heads = [{"selector": "th", "props": list(left.items())}]
    return table.style.format(escape="html").hide(axis="index").set_properties(**left).set_table_styles(heads)


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)
