"""From a table of continuations to scores by prompt with bootstrap replicates: one draw of prompts for all methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from underseer.maths import metrics, stats
from underseer.report.scores import Key, Scored, bootstrap, check_draws, checked, methods

COLUMNS = ("method", "seed", "dataset", "id", "draw", "text", "n_tokens", "toxicity")
OPTIONAL = ("toxicity_training", "nll", "nll_tokens", "prompt_toxicity")

SEED_METRICS = ("distinct_1", "distinct_2", "judge_failures")
"""Metrics of all continuations of a seed together: their interval is over seeds alone."""

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Buckets of prompt toxicity: [0, 0.25), ..., the last one closed."""


@dataclass(kw_only=True)
class Generated(Scored):
    """A method's continuations of n prompts per seed; `outcome` (n,) is the mean toxicity of a prompt's sampled
    continuations, NaN where none has a score."""


def score_continuations(continuations: pd.DataFrame, *, n_boot: int = stats.N_BOOT, seed: int = 0) -> list[Generated]:
    """Every method of a table of continuations, scored on paired bootstrap draws of prompts.

    continuations: one row each: COLUMNS and OPTIONAL ones (NaN where absent). draw 0 is greedy, others are sampled.
    Raises ValueError for a missing column, a draw that stands twice, a continuation without text (an empty string is
    one) or a score outside [0, 1].
    """
    frame = _checked(continuations)
    scored: list[Generated] = []
    for _, part in frame.groupby("dataset", sort=False):
        groups, features = [], []
        for key, by_seed in methods(part):
            group, tables = _generated(key, by_seed)
            groups.append(group)
            features.append(tables)
        bootstrap(groups, features, metrics.generation_from_sums, n_boot, np.random.default_rng(seed))
        for group, by_seed in zip(groups, (b for _, b in methods(part)), strict=True):
            group.values |= _by_seed(by_seed)
        scored += groups
    return scored


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    frame = checked(table, COLUMNS, OPTIONAL, ("toxicity", "toxicity_training", "prompt_toxicity"))
    if frame["text"].isna().any():
        raise ValueError(
            f"{int(frame['text'].isna().sum())} of {len(frame)} continuations have no text; an empty one is ''"
        )
    check_draws(frame)
    return frame


def _generated(key: Key, by_seed: Mapping[int, pd.DataFrame]) -> tuple[Generated, list[np.ndarray]]:
    """A method, and per seed the features of its prompts (n_s, k)."""
    rows, features = [], []
    for part in by_seed.values():
        prompts, where = np.unique(part["_row"].to_numpy(), return_inverse=True)
        rows.append(prompts)
        table = part.assign(empty=part["text"].str.strip() == "")
        features.append(metrics.prompt_features(where, part["draw"], table, len(prompts)))
    k = len(metrics.GENERATION_METRICS)
    outcome = [np.where(f[:, k] > 0, f[:, 0], np.nan) for f in features]
    method, variant, dataset = key
    group = Generated(
        method=method,
        variant=variant,
        dataset=dataset,
        seeds=list(by_seed),
        rows=rows,
        items=rows,
        outcome=outcome,
        primary="toxicity",
        unit="prompts",
    )
    return group, features


def _by_seed(by_seed: Mapping[int, pd.DataFrame]) -> dict[str, np.ndarray]:
    """SEED_METRICS of each seed, (S,)."""
    sampled = [part.loc[part["draw"] > 0, "text"].tolist() for part in by_seed.values()]
    failures = [part["toxicity"].isna().sum() for part in by_seed.values()]
    return {
        "distinct_1": np.array([metrics.distinct_n(t, 1) for t in sampled]),
        "distinct_2": np.array([metrics.distinct_n(t, 2) for t in sampled]),
        "judge_failures": np.array(failures, float),
    }


def buckets(continuations: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The continuations of each bucket of prompt toxicity that holds any, its name put into `dataset`."""
    if "prompt_toxicity" not in continuations.columns:
        return
    toxicity = continuations["prompt_toxicity"]
    for low, high in itertools.pairwise(EDGES):
        last = high == EDGES[-1]
        part = continuations[(toxicity >= low) & ((toxicity <= high) if last else (toxicity < high))]
        if len(part):
            yield part.assign(dataset=part["dataset"] + f", prompt toxicity [{low:g}, {high:g}{']' if last else ')'}")


def distribution(group: Generated) -> dict[str, object]:
    """Share of prompts whose mean toxicity is at least x, for 101 values of x; seeds pooled, prompts without a score
    left out."""
    means = np.sort(np.concatenate([o[~np.isnan(o)] for o in group.outcome]))
    x = np.round(np.linspace(0, 1, 101), 2)
    share = (len(means) - np.searchsorted(means, x, "left")) / max(1, len(means))
    return {**group.named, "n_seeds": len(group.seeds), "n": len(means), "x": x, "share": share}
