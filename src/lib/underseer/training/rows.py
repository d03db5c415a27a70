"""Frames into token rows for training: columns, targets and weights are checked here, before a model moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.errors import UserError
from underseer.models.batches import (
    TokenRows,
    bare_ids,
    continued,
    end_token,
    packed,
    prompt_ids,
    start_token,
    tokenise,
)
from underseer.models.chats import answer_rows, ask, check_template, prompt_rows, unended

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


def check_columns(df: pd.DataFrame, names: list[str], part: str, may_be_empty: bool = False) -> None:
    """Raise UserError for a missing column or, unless allowed, an empty frame."""
    for name in names:
        if name not in df.columns:
            raise UserError(f"the {part} rows have no column {name!r}; they have {', '.join(map(str, df.columns))}")
    if df.empty and not may_be_empty:
        raise UserError(f"there are no {part} rows; give at least one")


def texts_of(df: pd.DataFrame) -> tuple[list[str], list[str] | None]:
    """Texts, and second texts where the frame has pairs."""
    return df["text"].tolist(), df["text_pair"].tolist() if "text_pair" in df.columns else None


def classifier_rows(
    tokenizer: PreTrainedTokenizerBase, df: pd.DataFrame, part: str, *, target: str, length: int, multiple: int
) -> TokenRows:
    """Rows of ``text`` (and ``text_pair``) with their target, a column of labels or probabilities of class 1."""
    check_columns(df, ["text", target], part)
    df, weights = _weighed(df, part)
    targets = df[target].to_numpy(dtype=np.float32)
    if not ((targets >= 0) & (targets <= 1)).all():
        raise UserError(f"column {target!r} of the {part} rows holds values outside [0, 1] or missing ones")
    ids, types = tokenise(tokenizer, *texts_of(df), max_length=length)
    return TokenRows(ids, tokenizer.pad_token_id, types=types, targets=targets, weights=weights, multiple=multiple)


def language_rows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], part: str, *, pack: bool, length: int, multiple: int
) -> TokenRows:
    """Texts, each closed by the end token: as rows of their own, or packed into blocks of ``length`` tokens."""
    end = end_token(tokenizer)
    ids, _ = tokenise(tokenizer, texts, max_length=10**9 if pack else length - 1)
    ids = packed(ids, end, length) if pack else [np.append(row, end) for row in ids]
    if not ids:
        raise UserError(f"there are no {part} texts; give at least one")
    return TokenRows(ids, tokenizer.pad_token_id, language_model=True, multiple=multiple)


def continuation_rows(
    tokenizer: PreTrainedTokenizerBase, df: pd.DataFrame, part: str, *, length: int, multiple: int
) -> TokenRows:
    """Rows ``text`` + ``continuation`` + end token, of which only the continuation and the end token are learnt.
    One that ran out of tokens (column ``cut``, where it is there) has no end token.

    Both parts are tokenised apart, so that the learnt tokens are those that a model continuing the prompt must write.
    """
    check_columns(df, ["text", "continuation"], part)
    df, weights = _weighed(df, part)
    missing = df["continuation"].isna() | df["text"].isna()
    if missing.any():
        raise UserError(
            f"{int(missing.sum())} of the {len(df)} {part} rows have no text or no continuation (missing values); "
            "drop them, or give an empty string where nothing follows"
        )
    if length < 2:
        raise UserError(f"max_length = {length} leaves no room for a prompt and its continuation; give at least 2")
    end = end_token(tokenizer)
    learnt = [np.append(row, end) for row in bare_ids(tokenizer, df["continuation"].tolist())]
    learnt = unended(learnt, df["cut"]) if "cut" in df.columns else learnt
    ids, begins = continued(prompt_ids(tokenizer, df["text"].tolist()), learnt, length, start_token(tokenizer))
    return TokenRows(
        ids, tokenizer.pad_token_id, language_model=True, begins=begins, weights=weights, multiple=multiple
    )


def chat_rows(
    tokenizer: PreTrainedTokenizerBase, df: pd.DataFrame, part: str, *, length: int, multiple: int
) -> TokenRows:
    """Chats of one ``prompt`` and its ``answer``; only the answer and the token that ends its turn are learnt."""
    check_columns(df, ["prompt", "answer"], part)
    df, weights = _weighed(df, part)
    missing = df["answer"].isna() | df["prompt"].isna()
    if missing.any():
        raise UserError(
            f"{int(missing.sum())} of the {len(df)} {part} rows have no prompt or no answer (missing values); drop them"
        )
    check_template(tokenizer, tokenizer.name_or_path)
    prompts = prompt_rows(tokenizer, [ask(text) for text in df["prompt"]])
    answers = answer_rows(tokenizer, df["answer"].tolist(), cut=df.get("cut"))
    ids, begins = continued(prompts, answers, length, start_token(tokenizer))
    return TokenRows(
        ids, tokenizer.pad_token_id, language_model=True, begins=begins, weights=weights, multiple=multiple
    )


def _weighed(df: pd.DataFrame, part: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Rows whose ``weight`` is above 0, and their weights (n,); None where all are equal, as without the column."""
    if "weight" not in df.columns:
        return df, None
    weights = df["weight"].to_numpy(dtype=np.float32)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise UserError(f"column 'weight' of the {part} rows holds negative, infinite or missing values; allowed: >= 0")
    kept = weights > 0
    if not kept.any():
        raise UserError(f"all {len(df)} {part} rows have weight 0; give at least one a weight above 0")
    df, weights = df[kept], weights[kept]
    return df, None if (weights == weights[0]).all() else weights
