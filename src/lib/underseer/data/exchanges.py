"""Prompts with answers that people have labelled: to train and to calibrate evaluators, and for the safety reset.

Columns: ``id`` (of prompt and answer, by content), ``prompt_id`` (the id that ``load_prompts`` gives the prompt: rows of one
prompt share it, split by it and not by row), ``prompt``, ``answer``, ``unsafe`` (0 or 1), ``category`` (the harms named,
joined by ``; ``; None: none), ``source``; and where the data say so ``helpful`` and ``refusal`` (0 to 1; NaN: not known) and
``agreement`` (share of the raters who say what the label says).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from underseer.data.clean import reasons
from underseer.data.loading import content_ids, drawn, no_rows, read_parts
from underseer.data.overlap import without_held_out

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "prompt_id", "prompt", "answer", "unsafe", "category", "source")
FURTHER = ("helpful", "refusal", "agreement")
"""Columns that are there where any of the data sets knows them."""


def load_exchanges(
    name: str,
    path: str | None = None,
    revision: str | None = None,
    n: int | None = None,
    seed: int = 0,
    *,
    clean: bool = True,
    held_out: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The labelled answers of a data set (or of several joined by ``+``); ``/unsafe`` keeps the answers that people
    call unsafe: harmful questions with harmful answers, for the reset. ``/safe`` keeps the others.

    Of PKU-SafeRLHF each pair gives two exchanges, the more helpful of the two with ``helpful`` 1, the other with 0. With ``clean``, exchanges without prompt or answer, repeated ones, and
    ones that people labelled both ways are left out. ``held_out``: evaluation prompts (column ``text``); exchanges whose
    prompt is one of them, exactly or nearly, are left out. ``attrs["dropped"]`` counts both. ``n`` is drawn of each part
    after that, and a smaller draw is part of a larger one. Raises ``UserError`` as ``load`` does.
    """
    import pandas as pd

    frames, files, dropped = [], [], Counter[str]()
    for part, records, record in read_parts(name, path, revision, "exchanges"):
        rows = _exchanges(records).assign(source=part.info.name)
        rows["id"] = content_ids(rows)
        if clean:
            rows = _cleaned(rows, dropped)
        rows = rows if part.keep is None else rows[rows["unsafe"] == part.keep]
        if rows.empty:
            raise no_rows(name, part)
        rows, shared = without_held_out(rows, held_out)
        dropped.update(shared)
        frames.append(drawn(rows, rows["id"].tolist(), n, seed, part.info.name))
        files.append(record)
    df = pd.concat(frames, ignore_index=True)
    df["id"] = content_ids(df)  # an answer may stand in two data sets
    df = df.rename(columns={"text": "prompt", "text_pair": "answer"})
    df["prompt_id"] = prompt_ids(df["prompt"].tolist())
    df = df[[*COLUMNS, *(name for name in FURTHER if name in df.columns and df[name].notna().any())]]
    df.attrs = {"files": files, "dropped": dict(dropped)}
    return df


def _cleaned(rows: pd.DataFrame, dropped: Counter[str]) -> pd.DataFrame:
    """The rows without defects; those left out are counted in ``dropped``."""
    defects = reasons(rows)
    dropped.update(reason for reason in defects if reason)
    return rows[[reason is None for reason in defects]]


def prompt_ids(prompts: list[str]) -> list[str]:
    """For each prompt the id that ``load`` gives its text; the same for the same text."""
    import pandas as pd

    known = list(dict.fromkeys(prompts))
    ids = dict(zip(known, content_ids(pd.DataFrame({"text": known})), strict=True))
    return [ids[prompt] for prompt in prompts]


def _exchanges(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Records of exchanges or of pairs as exchanges, with a ``label`` by which repeated ones are compared."""
    import pandas as pd

    if "answer_0" in records[0]:
        records = [_answer(record, k) for record in records for k in (0, 1)]
    rows = pd.DataFrame(records)
    rows["label"] = rows["unsafe"]
    rows["category"] = pd.Series([record["category"] for record in records], dtype=object)
    return rows


def _answer(pair: Mapping[str, Any], k: int) -> dict[str, Any]:
    """One of the two answers of a pair."""
    return {
        "text": pair["prompt"],
        "text_pair": pair[f"answer_{k}"],
        "unsafe": pair[f"unsafe_{k}"],
        "helpful": float(pair["helpful"] == k) if pair["helpful"] in (0, 1) else float("nan"),
        "category": pair[f"category_{k}"],
    }
