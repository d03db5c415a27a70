"""Shares and means of items under several methods, with paired bootstrap replicates, and their mean over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from underseer.report.scores import Scored, bootstrap, methods

AVERAGE = "all attack sets"
"""Name of the mean over several attack sets, each counting the same."""


@dataclass(kw_only=True)
class Measured(Scored):
    """A method whose every metric is a mean over items; `shares`: metric -> per seed (n_s,) the items' own values, NaN
    where an item has none."""

    shares: dict[str, list[np.ndarray]] = field(default_factory=dict)
    role: str = ""

    def on(self, metric: str) -> Measured:
        """The same method with `metric` as the primary one, for paired tests."""
        return replace(self, primary=metric, outcome=self.shares[metric])


def measure(
    frame: pd.DataFrame, names: Sequence[str], *, n_boot: int, rng: np.random.Generator, unit: str = "prompts"
) -> list[Measured]:
    """Every method of one data set.

    frame: method, variant (JSON), seed, dataset, id, optionally draw, and a column for each of `names`, NaN where a row has
    no value. Rows of one id are averaged first, so that an id counts once however often it was drawn.
    """
    groups, features = [], []
    used = ["method", "variant", "seed", "dataset", "id", *(c for c in ("draw",) if c in frame.columns), *names]
    for key, by_seed in methods(frame[used]):
        tables = [_means(part, names) for part in by_seed.values()]
        group = Measured(
            **key,
            seeds=list(by_seed),
            rows=[t[0] for t in tables],
            items=[t[0] for t in tables],
            outcome=[],
            primary="",
            unit=unit,
            shares={m: [t[1][:, k] for t in tables] for k, m in enumerate(names)},
        )
        groups.append(group)
        features.append([np.hstack([np.nan_to_num(t[1]), ~np.isnan(t[1])]) for t in tables])
    if groups:
        bootstrap(groups, features, lambda sums: _ratios(sums, names), n_boot, rng)
    return groups


def _means(part: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items (n,) in order, and their mean values (n, k), NaN where there is none."""
    means = part.groupby("_row", sort=True)[list(names)].mean()
    return means.index.to_numpy(), means.to_numpy(dtype=float)


def _ratios(sums: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    above, below = sums[..., : len(names)], sums[..., len(names) :]
    ratio = np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
    return {name: ratio[..., k] for k, name in enumerate(names)}


def averages(groups: Sequence[Measured]) -> list[Measured]:
    """Of each method that was measured on every data set of `groups`: the mean over data sets, each counting the same.

    Data sets are independent, so replicate b of the mean is the mean of their replicates b.
    """
    datasets = list(dict.fromkeys(g.dataset for g in groups))
    by_method: dict[tuple, list[Measured]] = {}
    for g in groups:
        by_method.setdefault((g.method, repr(g.variant)), []).append(g)
    offsets, n = {}, 0
    for name in datasets:
        offsets[name] = n
        n += 1 + max(int(i.max()) for g in groups if g.dataset == name for i in g.items)
    whole = [same for same in by_method.values() if len(same) == len(datasets)]
    return [average for same in whole if (average := _average(same, offsets))]


def _average(same: Sequence[Measured], offsets: Mapping[str, int]) -> Measured | None:
    seeds = [s for s in same[0].seeds if all(s in g.seeds for g in same)]
    metrics = [m for m in same[0].values if all(m in g.values for g in same)]
    if not seeds:
        return None
    at = {m: [g.at(m, seeds) for g in same] for m in metrics}
    items = [np.concatenate([g.items[g.seeds.index(s)] + offsets[g.dataset] for g in same]) for s in seeds]
    return replace(
        same[0],
        dataset=AVERAGE,
        seeds=seeds,
        rows=items,
        items=items,
        outcome=[],
        values={m: np.mean([v for v, _ in at[m]], 0) for m in metrics},
        boot={m: np.mean([b for _, b in at[m]], 0) for m in metrics},
        shares={m: [_weighted(same, m, s) for s in seeds] for m in metrics},
    )


def _weighted(same: Sequence[Measured], metric: str, seed: int) -> np.ndarray:
    """The items' values, scaled so that their plain mean is the mean over data sets."""
    parts = [g.shares[metric][g.seeds.index(seed)] for g in same]
    counts = [(~np.isnan(p)).sum() for p in parts]
    return np.concatenate([p * sum(counts) / (len(parts) * max(1, n)) for p, n in zip(parts, counts, strict=True)])
