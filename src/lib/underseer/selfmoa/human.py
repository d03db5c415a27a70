"""Pairs labelled by people: preference data by name, or answers of the testbed's models that its oracle judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from underseer.selfmoa import preferences, targets

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Sampling

ORDERINGS = ("weighted_sum", "helpfulness")
"""What people were asked: which answer is better in all (DPO), or which helps more (MODPO, with its safety beside it)."""


def pairs(
    run: Any, dataset: str, path: str | None, target_model: str, *, n: int, sampling: Sampling, rules: preferences.Rules,
    engine: str, seed: int, **how: Any,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """``n`` pairs in each of ORDERINGS."""
    if not dataset.startswith("testbed"):
        from underseer.data.preferences import load_preferences

        evaluation = run.input("data").table("evaluation")
        return dict.fromkeys(ORDERINGS, load_preferences(dataset, path, n=n, seed=seed, held_out=evaluation))
    from underseer.selfmoa import annotators

    train = run.input("data").table("train")
    labelled = annotators.label(_answers(run, train, target_model, n, sampling, rules, engine, **how))
    return {o: preferences.pairs(labelled, rules, ordering=o, iteration=0)[0].head(n) for o in ORDERINGS}


def _answers(
    run: Any, train: pd.DataFrame, target_model: str, n: int, sampling: Sampling, rules: preferences.Rules, engine: str, **how: Any
) -> pd.DataFrame:  # fmt: skip
    """Answers of the model before and after the reset, half each, so that people see answers of all kinds."""
    import pandas as pd

    wanted = -(-2 * n // rules.pairs_per_prompt)  # prompts: about half of them give the pairs they may
    shuffled = train.sample(frac=1, random_state=sampling.seed).head(wanted)
    before = targets.Target(target_model, targets.chat_folder(run, "target"))
    models = [before] + ([targets.locate(run, target_model)] if run.input("reset") is not None else [])
    frames = []
    for k, target in enumerate(models):
        opened = targets.engine(run, engine, target, **how)
        drawn = replace(sampling, n=max(1, sampling.n // 2), seed=sampling.seed + k)
        frames.append(preferences.answer(opened, shuffled, drawn))
        opened.close()
    return pd.concat(frames, ignore_index=True)
