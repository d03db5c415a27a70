"""A model's answers to prompts, one a row: what pairs are made of, and what is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underseer.models import chats

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from underseer.engines import Engine, Sampling


def answer(engine: Engine, prompts: pd.DataFrame, sampling: Sampling, *, adapter: Path | None = None) -> pd.DataFrame:
    """``sampling.n`` answers to each prompt: its columns, its ``text`` as ``prompt``, and ``draw``, ``answer``, ``call`` (why a
    call to the engine failed; then the answer is empty)."""
    found = engine.generate([chats.ask(text) for text in prompts.text], sampling, adapter=adapter)
    rows = prompts.rename(columns={"text": "prompt"})
    rows = rows.loc[rows.index.repeat([len(each) for each in found])].reset_index(drop=True)
    answers = [(draw, a.text, a.failure) for each in found for draw, a in enumerate(each)]
    draws, texts, failures = zip(*answers, strict=True) if answers else ((), (), ())
    return rows.assign(draw=list(draws), answer=list(texts), call=list(failures))
