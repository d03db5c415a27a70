"""Looks at the work of the Self-MOA stages, for their notebooks. Shows; never decides a result.

Texts are shown of the testbed alone (``synthetic``). Of real data each prompt and each answer is redacted, safe ones too:
what a model answers is not known beforehand, and evaluation prompts that are spread end up in training data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.look import _figure, _wide, redacted

SCORES = ("unsafe", "helpful", "refusal")


def prompts(frame: pd.DataFrame, *, synthetic: bool, n: int = 2) -> Any:
    """Some prompts of each role."""
    rows = _some(frame, "role", n)
    return _table(rows, ("role", "source", "category", "kind"), {"prompt": "text"}, synthetic)


def exchanges(frame: pd.DataFrame, *, synthetic: bool, n: int = 4) -> Any:
    """Some prompts with their answers and what is known of these: the first ``n`` of each set, by id."""
    group = next((column for column in ("set", "role", "source") if column in frame.columns), None)
    rows = _some(frame, group, n)
    labels = ("set", "role", "source", "category", "kind")
    return _table(rows, labels, {"prompt": "prompt", "answer": "answer"}, synthetic, SCORES)


def pairs(frame: pd.DataFrame, *, synthetic: bool, n: int = 2) -> Any:
    """Some pairs of each set: what is preferred to what, and the scores of both."""
    rows = _some(frame, "set", n)
    scores = [c for name in ("helpful", "unsafe") for c in (f"{name}_chosen", f"{name}_rejected")]
    texts = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    return _table(rows, ("set", "category", "iteration"), texts, synthetic, (*scores, "safety_difference"))


def attacks(frame: pd.DataFrame, *, synthetic: bool, n: int = 2) -> Any:
    """Some attacks of each strategy with the target's answers, those that succeeded first."""
    order = frame.assign(failed=~frame["success"].fillna(False).astype(bool)).sort_values(["failed", "id"])
    rows = order.groupby("strategy", sort=True).head(n).sort_values(["strategy", "failed", "id"])
    labels = ("strategy", "category", "round", "success")
    return _table(rows, labels, {"attack": "text", "answer": "answer"}, synthetic, ("unsafe",))


def instructions(texts: Mapping[str, str]) -> Any:
    """What an attacker is asked, by strategy."""
    return _wide(pd.DataFrame({"strategy": list(texts), "instruction": list(texts.values())}))


def loss_words(curves: pd.DataFrame) -> str:
    """In words, what a fine-tuning's loss did; what became of the model is for the evaluation to say."""
    losses = curves[curves.metric == "train_loss"].value
    if not len(losses):
        return "Nothing was trained: there is nothing to learn from, and the target stays as it is."
    first, last = losses.iloc[0], losses.iloc[-1]
    if len(losses) == 1 and math.isfinite(first):
        return f"The loss was {first:.2f} nats per token, noted once. `5_evaluate` says what the model does now."
    if not math.isfinite(last):
        return f"The loss is no number any more (at first {first:.2f} nats per token): training failed."
    went = "fell" if last < first else "did not fall"
    return f"The loss {went}: {first:.2f} nats per token at first, {last:.2f} at the end. `5_evaluate` says what the model does now."


def _some(frame: pd.DataFrame, group: str | None, n: int) -> pd.DataFrame:
    """The first rows by id, ``n`` of each value of a column."""
    ordered = frame.sort_values("id", kind="stable")
    if group is None or group not in frame.columns:
        return ordered.head(n)
    return ordered.groupby(group, sort=True, dropna=False).head(n).sort_values([group, "id"], kind="stable")


def _table(
    rows: pd.DataFrame, labels: Sequence[str], texts: Mapping[str, str], synthetic: bool, scores: Sequence[str] = ()
) -> Any:
    """Id, labels, scores and texts (shown name -> column) as a table, escaped; texts redacted unless synthetic."""
    shown = {"id": rows["id"].tolist()}
    shown |= {c: rows[c].tolist() for c in labels if c in rows.columns and rows[c].notna().any()}
    for column in scores:
        if column in rows.columns and rows[column].notna().any():
            shown[column.replace("_", " ")] = ["" if v != v else f"{v:.2f}" for v in rows[column].astype(float)]
    for name, column in texts.items():
        if column in rows.columns:
            texts_of = zip(rows["id"], rows[column], strict=True)
            shown[name] = [_text(row, text, synthetic) for row, text in texts_of]
    return _wide(pd.DataFrame(shown).fillna(""))


def _text(row: str, text: Any, synthetic: bool) -> str:
    """A text as shown; one that is not there (a failed call) is empty."""
    if not isinstance(text, str):
        return ""
    return text if synthetic else redacted(row, text)


def alignment(curves: pd.DataFrame) -> Any:
    """Training loss, and the log-probabilities of chosen and rejected answers, over optimizer steps."""
    if not len(curves):
        return "Nothing was trained."
    groups = (("train_loss",), ("chosen_logp", "rejected_logp")), ("loss (nats)", "log-probability of an answer (nats)")
    figure, axes = _figure(2 if (curves.metric == "chosen_logp").any() else 1)
    for ax, names, label in zip(axes, *groups, strict=False):
        for name in names:
            part = curves[curves.metric == name]
            ax.plot(part.step, part.value, marker="o", markersize=3, label=name.replace("_", " "))
        ax.set(xlabel="optimizer step", ylabel=label)
        ax.legend(frameon=False)
    return figure
