"""Figures of the alignment trainings: log-probabilities, loss and reward margin over steps."""

from __future__ import annotations

import textwrap

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from underseer.report.drawing import canvas, colour, finish, grid, inks
from underseer.report.names import iteration


def logps(rows: pd.DataFrame) -> Figure | None:
    """Log-probabilities of chosen and rejected answers over steps, a panel a method."""
    if not len(rows):
        return None
    names = list(rows["name"].unique())
    fig, axes = grid(len(names), 2.3, 2.1, most=4, sharex=True, sharey=True)
    columns = axes.shape[1]
    look = {
        "hue": "quantity",
        "palette": {"chosen": "#0072B2", "rejected": "#D55E00"},
        "errorbar": ("pi", 100),
        "lw": 1.6,
    }
    for k, (name, ax) in enumerate(zip(names, axes.ravel(), strict=False)):
        sns.lineplot(rows[rows["name"] == name], x="step", y="value", style="quantity", **look, ax=ax)
        ax.get_legend().remove()
        lowest = k + columns >= len(names)
        ax.set(title=textwrap.fill(name, 26), ylabel="", xlabel="Optimiser step" if lowest else "")
        ax.title.set_size(9)
        ax.grid(True)
        ax.tick_params(labelbottom=lowest)
    for ax in axes[:, 0]:
        ax.set_ylabel("Log-probability\n(nats per answer)")
    return finish(fig, rows, legend=axes[0, 0])


def margins(rows: pd.DataFrame) -> Figure | None:
    """Loss and reward margin of every method that was trained."""
    if not len(rows):
        return None
    labels = {"loss": "Training loss (nats)", "margin": "Reward margin (nats)"}
    known = [q for q in labels if (rows["quantity"] == q).any()]
    methods = rows.drop_duplicates("name")
    looped = [m for m in methods["method"] if iteration(m)]
    shade = dict(zip(looped, inks(max(2, len(looped))), strict=False))
    palette = {n: shade.get(m) or colour(m, k) for k, (n, m) in enumerate(methods[["name", "method"]].to_numpy())}
    dashes = {n: "" if m in shade else (4, 2) for n, m in methods[["name", "method"]].to_numpy()}
    fig, axes = canvas(4.3 * len(known) + 0.4, 4.0, len(known))
    for ax, name in zip(axes[0], known, strict=True):
        sns.lineplot(rows[rows["quantity"] == name], x="step", y="value", hue="name", style="name", palette=palette,
                     dashes=dashes, errorbar=("pi", 100), lw=1.6, ax=ax)  # fmt: skip
        ax.get_legend().remove()
        ax.set(xlabel="Optimiser step", ylabel=labels[name])
        ax.grid(True)
    return finish(fig, rows, legend=axes[0, 0])
