"""Pairs of answers that people have ordered: what the human-supervised baselines learn from.

Columns: ``id`` (by content), ``prompt_id`` (as in ``load_prompts``), ``prompt``, ``history`` (JSON of the messages before
the prompt: none), ``set`` ("attack": these prompts come from red-teamers, though not each asks for harm), ``chosen``,
``rejected``, ``helpful_*`` (1 for the more helpful answer, 0; NaN), ``unsafe_*`` (NaN where not known),
``safety_difference`` (unsafe_chosen - unsafe_rejected), ``judges`` (JSON: measure -> "human"), ``iteration`` (0),
``category``, ``source``.

- ``pku-saferlhf``: ordered by helpfulness and by safety, with labels of safety. The order ``helpful`` is that of
  ``human_dpo``, and of ``human_modpo`` with the safety scores as its margin.
- ``hh-harmless``: ordered by safety alone, no labels (``unsafe_*`` is NaN, but by ``rank``).
- ``llmbar``: ordered by how well the instruction is followed, which counts as helpfulness; says nothing of safety.
- ``beavertails``: a safe and an unsafe answer to one prompt, each answer in one pair at most; ordered by safety alone.

Left out and counted: dialogues that are no pair, and those whose prompt is not the first message (who trains on ``prompt``
alone would train on answers without their question); empty texts; equal answers; repeated pairs; pairs that stand in both
orders; prompts of the evaluation.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from underseer.data.exchanges import prompt_ids
from underseer.data.loading import drawn, no_rows, read_parts
from underseer.data.overlap import without_held_out
from underseer.data.texts import FIELD_SEPARATOR, normalise
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("helpful", "safer")
SAFETY = ("label", "rank")
"""``label``: whether people call the answer unsafe (0 or 1). ``rank``: 0 for the safer answer of the pair and 1 for the
other, which also orders two unsafe ones."""

SCORES = ("helpful_chosen", "helpful_rejected", "unsafe_chosen", "unsafe_rejected", "safety_difference")
COLUMNS = (
    "id", "prompt_id", "prompt", "history", "set", "chosen", "rejected", *SCORES, "judges", "iteration", "category",
    "source",
)  # fmt: skip


def load_preferences(
    name: str,
    path: str | None = None,
    revision: str | None = None,
    n: int | None = None,
    seed: int = 0,
    *,
    order: str | None = None,
    safety: str = "label",
    held_out: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Human preferences in the schema of the loop's own pairs (or of several data sets, joined by ``+``).

    ``order``: the preference by which ``chosen`` is chosen, one of ``ORDERS``; None: ``helpful`` where the data know it.
    ``safety``: what ``unsafe_*`` is, one of ``SAFETY``. ``held_out``: evaluation prompts (column ``text``); a pair whose
    prompt is one of them, exactly or nearly, is left out. ``n`` is drawn of each part after that; a smaller draw is part of
    a larger one, so 1x to 11x pairs nest. What is left out is counted in ``attrs["dropped"]``. Columns and data sets: see
    the module. Raises ``UserError`` as ``load`` does, and for an order that the data do not hold.
    """
    import pandas as pd

    _check(order, safety)
    frames, files, dropped = [], [], Counter[str]()
    for part, records, record in read_parts(name, path, revision, "pairs"):
        if part.keep is not None:
            raise UserError(f"dataset = '{name}': a pair has no class of its own; leave the '/' out")
        kept, reasons = _pairs_of(part.info.name, records, order, safety)
        if kept.empty:
            raise no_rows(name, part)
        kept, shared = without_held_out(kept, held_out)
        dropped.update(reasons + Counter(shared))
        frames.append(drawn(kept, kept["id"].tolist(), n, seed, part.info.name))
        files.append(record)
    df = pd.concat(frames, ignore_index=True)[list(COLUMNS)]
    if (again := df["id"].duplicated()).any():  # of data sets that share pairs, the first named keeps them
        dropped["repeated pair"] += int(again.sum())
        df = df[~again].reset_index(drop=True)
    df.attrs = {"files": files, "dropped": dict(dropped)}
    return df


def _pairs_of(
    source: str, records: Sequence[Mapping[str, Any]], order: str | None, safety: str
) -> tuple[pd.DataFrame, Counter[str]]:
    """The pairs of one data set, and how many were left out for which reason."""
    import pandas as pd

    records = _pairs_of_answers(records) if "text_pair" in records[0] else records
    by = _order_of(records, order, source)
    pairs = [_ordered(each, by, safety, source) for each in records]
    reasons = _reasons(records, pairs)
    kept = pd.DataFrame([pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None])
    if len(kept):
        kept["category"] = kept["category"].astype(object).where(kept["category"].notna(), None)
        kept["prompt_id"] = prompt_ids(kept["prompt"].tolist())
    return kept, Counter(reason for reason in reasons if reason)


def _check(order: str | None, safety: str) -> None:
    if order is not None and order not in ORDERS:
        raise UserError(f"order = {order!r}: allowed are {', '.join(ORDERS)}, or none for the data set's own")
    if safety not in SAFETY:
        raise UserError(f"safety = {safety!r}: allowed are {', '.join(SAFETY)}")


def _order_of(records: Sequence[Mapping[str, Any]], order: str | None, name: str) -> str:
    """The order asked for, or the data set's own."""
    known = "helpful" if records and records[0]["helpful"] in (0, 1) else "safer"
    if order == "safer" and records[0]["safer"] is None:
        raise UserError(f"order = 'safer': '{name}' does not say which answer is safer; give order = 'helpful'")
    if order == "helpful" and known != "helpful":
        raise UserError(
            f"order = 'helpful': '{name}' does not say which answer is more helpful; give order = 'safer', or pku-saferlhf"
        )
    return order or known


def _ordered(record: Mapping[str, Any], order: str, safety: str, source: str) -> dict[str, Any]:
    """A record as a pair: ``answer_0`` and ``answer_1`` as chosen and rejected, with their scores."""
    best = int(record[order])
    helpful = [math.nan] * 2
    if record["helpful"] in (0, 1):
        helpful = [float(record["helpful"] == k) for k in (0, 1)]
    ranked = safety == "rank" and record["safer"] is not None
    unsafe = [float(record["safer"] != k) if ranked else record[f"unsafe_{k}"] for k in (0, 1)]
    prompt, history = record["prompt"], record["history"]
    texts = (_whole(prompt, history), record[f"answer_{best}"], record[f"answer_{1 - best}"])
    measures = {"helpful": helpful[0], "unsafe": unsafe[0]}
    return {
        "id": hashlib.sha256(FIELD_SEPARATOR.join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "prompt": prompt,
        "history": history,
        "set": "attack",
        "chosen": texts[1],
        "rejected": texts[2],
        "helpful_chosen": helpful[best],
        "helpful_rejected": helpful[1 - best],
        "unsafe_chosen": unsafe[best],
        "unsafe_rejected": unsafe[1 - best],
        "safety_difference": unsafe[best] - unsafe[1 - best],
        "judges": json.dumps({measure: "human" for measure, score in measures.items() if not math.isnan(score)}),
        "iteration": 0,
        "category": record["category"],
        "source": source,
    }


def _reasons(records: Sequence[Mapping[str, Any]], pairs: list[dict[str, Any]]) -> list[str | None]:
    """For each pair the reason to leave it out, or None. Which rows are left out does not depend on their order."""
    keys = [
        (normalise(_whole(p["prompt"], p["history"])), normalise(p["chosen"]), normalise(p["rejected"])) for p in pairs
    ]
    present, seen = set(keys), set()
    reasons: list[str | None] = [None] * len(pairs)
    for i in sorted(range(len(pairs)), key=lambda i: pairs[i]["id"]):
        pair, (prompt, chosen, rejected) = pairs[i], keys[i]
        if records[i]["defect"]:
            reasons[i] = records[i]["defect"]
        elif pair["history"] != "[]":
            reasons[i] = "not the first turn"
        elif not all(pair[text].strip() for text in ("prompt", "chosen", "rejected")):
            reasons[i] = "empty text"
        elif chosen == rejected:
            reasons[i] = "equal answers"
        elif (prompt, rejected, chosen) in present:
            reasons[i] = "both orders"
        elif keys[i] in seen:
            reasons[i] = "repeated pair"
        seen.add(keys[i])
    return reasons


def _pairs_of_answers(answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Labelled answers as records of pairs: of each prompt the safe and the unsafe ones, joined in the order of their
    hashes. An answer labelled both ways is in none."""
    held: dict[str, dict[str, dict[float, Any]]] = {}
    for each in answers:
        held.setdefault(each["text"], {}).setdefault(each["text_pair"], {})[each["unsafe"]] = each["category"]
    records = []
    for prompt, labelled in held.items():
        sure = sorted((text for text, labels in labelled.items() if len(labels) == 1), key=_digest)
        safe, unsafe = ([text for text in sure if label in labelled[text]] for label in (0.0, 1.0))
        records += [
            {
                "prompt": prompt,
                "history": "[]",
                "answer_0": good,
                "answer_1": bad,
                "unsafe_0": 0.0,
                "unsafe_1": 1.0,
                "helpful": None,
                "safer": 0,
                "category": labelled[bad][1.0],
                "defect": None,
            }
            for good, bad in zip(safe, unsafe, strict=False)
        ]
    return records


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _whole(prompt: str, history: str) -> str:
    """The prompt with what came before it; the prompt alone where nothing did."""
    return prompt if history == "[]" else f"{history}{prompt}"
