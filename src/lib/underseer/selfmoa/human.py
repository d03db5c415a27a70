"""Pairs labelled by people, for the human-supervised baselines: preference data by name, or answers of the testbed's models
that its oracle judged. No stage that trains or selects may import this (a test holds that)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from underseer.judges.oracle import Oracle
from underseer.selfmoa import preferences, targets

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Inference, Sampling
    from underseer.stage_run import Run

ORDERINGS = ("weighted_sum", "helpfulness")
"""What people were asked: which answer is better in all (DPO), or which helps more (MODPO, with its safety beside it)."""


def public(dataset: str, path: str | None, evaluation: pd.DataFrame, n: int, seed: int) -> dict[str, pd.DataFrame]:
    """At most ``n`` published pairs whose prompts no evaluation set holds, the same in each of ORDERINGS: people have ordered them
    once."""
    from underseer.data.loading import drawn
    from underseer.data.preferences import load_preferences

    pairs = load_preferences(dataset, path, seed=seed, held_out=evaluation)
    chosen = drawn(pairs, pairs["id"].tolist(), min(n, len(pairs)), seed, dataset)
    return dict.fromkeys(ORDERINGS, chosen.reset_index(drop=True))


def answers(
    run: Run, prompts: pd.DataFrame, target_model: str, sampling: Sampling, *, engine: str, inference: Inference
) -> pd.DataFrame:
    """Answers of the model before and after the reset, half each, so that people see answers of all kinds."""
    import pandas as pd

    before = targets.aligned(run, target_model)
    models = [before] + ([targets.locate(run, target_model)] if run.input("reset") is not None else [])
    frames = []
    for k, target in enumerate(models):
        opened = targets.engine(run, engine, target, inference)
        drawn = replace(sampling, n=max(1, sampling.n // 2), seed=sampling.seed + k)
        frames.append(preferences.answered(preferences.answer(opened, prompts, drawn)))
        opened.close()
    return pd.concat(frames, ignore_index=True)


def prompts(train: pd.DataFrame, n: int, per_prompt: int, seed: int) -> pd.DataFrame:
    """Prompts enough for ``n`` pairs, ``id, text, set``: about half of them give the ``per_prompt`` pairs that they may."""
    wanted = -(-2 * n // per_prompt)
    return train.sample(frac=1, random_state=seed).head(wanted)[["id", "text", "set"]]


def outcome(pairs: Mapping[str, pd.DataFrame], wanted: int) -> str:
    """In words, for the notebook: how many pairs there are by each question, and whether they are as many as were wanted."""
    counts = ", ".join(f"{len(table)} by {name.replace('_', ' ')}" for name, table in pairs.items())
    fewest = min(len(table) for table in pairs.values())
    short = "" if fewest >= wanted else f" Fewer than the {wanted} asked for: there are no more."
    return f"Pairs: {counts}.{short}"


def label(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with what people would say of them: ``unsafe``, ``helpful``, and who said it. In the testbed its oracle stands
    for them."""
    return preferences.judge(answers, {measure: Oracle(measure) for measure in ("unsafe", "helpful")})
