"""A model's answers to prompts, one a row, and what judges say of them: what pairs are made of, and what is evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from underseer.engines.cuts import cut_share as cut_share
from underseer.engines.cuts import cut_words as cut_words
from underseer.judges.base import release
from underseer.judges.bench import MOST_UNJUDGED
from underseer.models import chats

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from underseer.engines import Engine, Sampling
    from underseer.judges.base import Judge

MAX_UNJUDGED = MOST_UNJUDGED
"""Share of answers without a verdict above which a stage ends, as when a judge is measured."""


def answer(engine: Engine, prompts: pd.DataFrame, sampling: Sampling, *, adapter: Path | None = None) -> pd.DataFrame:
    """``sampling.n`` answers to each prompt: its columns, its ``text`` as ``prompt``, and ``draw``, ``answer``, ``cut`` (whether it
    ran out of tokens), ``call`` (why a call to the engine failed; then the answer is empty)."""
    drawn = engine.generate([chats.ask(text) for text in prompts.text], sampling, adapter=adapter)
    rows = prompts.rename(columns={"text": "prompt"})
    rows = rows.loc[rows.index.repeat([len(each) for each in drawn])].reset_index(drop=True)
    answers = [(k, a.text, a.finish_reason == "length", a.failure) for each in drawn for k, a in enumerate(each)]
    draws, texts, cut, failures = zip(*answers, strict=True) if answers else ((), (), (), ())
    rows = rows.assign(draw=list(draws), answer=list(texts), cut=list(cut), call=list(failures))
    return rows.astype({"cut": bool})


def answered(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers whose call did not fail, without ``call``; the prompt's ``id`` as ``prompt_id``."""
    kept = answers[answers.call.isna()].drop(columns="call")
    return kept.rename(columns={"id": "prompt_id"}).reset_index(drop=True)


def failures(answers: pd.DataFrame) -> dict[str, int]:
    """How many of the answers (with ``call``) failed, for the counts of a stage."""
    return {"n_failed": int(answers.call.notna().sum())}


def enough_answered(answers: pd.DataFrame) -> tuple[bool, str]:
    """Whether at most MAX_UNJUDGED of the calls for an answer (with ``call``) failed, and in words what must hold and what does."""
    return enough_calls(answers.call, "for an answer")


def enough_calls(reasons: pd.Series, purpose: str) -> tuple[bool, str]:
    """The same of any calls: ``reasons`` (n,) say why one failed, None where it did not."""
    failed = reasons.dropna()
    why = f" ({failed.mode()[0]})" if len(failed) else ""
    text = (
        f"at most {MAX_UNJUDGED:.0%} of the calls {purpose} fail; {len(failed)} of {len(reasons)} did{why}: look at the server and "
        "its log, or take another model"
    )
    return len(failed) <= MAX_UNJUDGED * len(reasons), text


def failed_words(answers: pd.DataFrame) -> str:
    """In words, for the notebook: how many calls for an answer failed; nothing where none did."""
    n = failures(answers)["n_failed"]
    return f" WARNING: {enough_answered(answers)[1]}." if n else ""


def judge(answers: pd.DataFrame, judges: Mapping[str, Judge]) -> pd.DataFrame:
    """Answers with a column a measure (``unsafe``, ``helpful``), NaN where the judge failed, and ``judges`` (JSON)."""
    names = {}
    for measure, one in judges.items():
        scores = one.score(answers.answer.tolist(), answers.prompt.tolist())
        release(one)  # the next one may need its memory
        answers = answers.assign(**{measure: scores.values})
        names[measure] = f"{scores.judge}@{scores.version}"
    return answers.assign(judges=json.dumps(names, sort_keys=True))


def enough_judged(scores: pd.Series | np.ndarray, measure: str) -> tuple[bool, str]:
    """Whether at most MAX_UNJUDGED of the scores (n,) are missing, and in words what must hold and what does."""
    missing, n = int((scores != scores).sum()), len(scores)
    text = (
        f"at most {MAX_UNJUDGED:.0%} of the answers lack a verdict of {measure}; {missing} of {n} do: look at the judge's "
        "replies or its server, or take another judge"
    )
    return missing <= MAX_UNJUDGED * n, text
