"""From per-item predictions to scores with bootstrap replicates: joins by id, one draw of items for all methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer import metrics, stats

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("method", "seed", "dataset", "id", "label", "p")

STUDENT_KEYS = frozenset({"voting", "bootstraps", "student_loss"})
"""Variant keys that concern the student alone: its weak supervisor and ceiling may have other values or none."""


@dataclass
class Scored:
    """One method in one variant on one data set: S seeds, B replicates.

    y, p, predicted, items: per seed (n_s,), sorted by id; items numbers the unique ids of the data set.
    values: metric -> (S,). boot: metric -> (B, S); row b uses the same item draw in every Scored of the data set.
    """

    method: str
    variant: dict[str, Any]
    dataset: str
    seeds: list[int]
    y: list[np.ndarray]
    p: list[np.ndarray]
    predicted: list[np.ndarray]
    items: list[np.ndarray]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    boot: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Unique test items over all seeds."""
        return len(np.unique(np.concatenate(self.items)))

    def at(self, metric: str, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(values (S',), boot (B, S')) of a metric for some of the seeds, in their order."""
        where = [self.seeds.index(s) for s in seeds]
        return self.values[metric][where], self.boot[metric][:, where]

    def correct(self, seed: int) -> np.ndarray:
        """(n_s,) 1.0 where the prediction is right."""
        k = self.seeds.index(seed)
        return (self.predicted[k] == self.y[k]).astype(float)


def score(predictions: pd.DataFrame, *, n_boot: int = stats.N_BOOT, seed: int = 0) -> list[Scored]:
    """Every method of a tidy predictions table, scored on paired bootstrap draws.

    predictions: columns method, seed, dataset, id, label (0/1), p (probability of class 1), optionally variant
    (JSON of a dict) and predicted (0/1; default p >= 0.5). Raises ValueError for a missing column or values that
    are no labels or probabilities.
    """
    missing = [c for c in COLUMNS if c not in predictions.columns]
    if missing:
        raise ValueError(f"predictions have columns {list(predictions.columns)}; missing: {', '.join(missing)}")
    frame = predictions if "variant" in predictions.columns else predictions.assign(variant="{}")
    found: list[Scored] = []
    for _, part in frame.groupby("dataset", sort=False):
        groups = _groups(part)
        _bootstrap(groups, n_boot, np.random.default_rng(seed))
        found += groups
    return found


def _groups(frame: pd.DataFrame) -> list[Scored]:
    """The methods of one data set, in the order of their first rows, seeds ascending, rows by id."""
    universe = {name: k for k, name in enumerate(sorted(frame["id"].unique()))}
    frame = frame.assign(_item=frame["id"].map(universe)).sort_values(["_item", "label"], kind="stable")
    order = {key: k for k, key in enumerate(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))}
    groups = []
    for (method, variant), rows in sorted(frame.groupby(["method", "variant"], sort=False), key=lambda g: order[g[0]]):
        by_seed = {int(s): r for s, r in rows.groupby("seed")}
        y = [r["label"].to_numpy() for r in by_seed.values()]
        p = [r["p"].to_numpy(dtype=float) for r in by_seed.values()]
        guess = [
            r["predicted"].to_numpy() if "predicted" in r and r["predicted"].notna().all() else q >= 0.5
            for r, q in zip(by_seed.values(), p, strict=True)
        ]
        groups.append(
            Scored(
                method,
                json.loads(variant),
                str(rows["dataset"].iloc[0]),
                list(by_seed),
                y,
                p,
                [g.astype(np.int64) for g in guess],
                [r["_item"].to_numpy() for r in by_seed.values()],
            )
        )
    return groups


def _bootstrap(groups: list[Scored], n_boot: int, rng: np.random.Generator) -> None:
    """Fill `values` and `boot` of the methods of one data set."""
    n = 1 + max(int(i.max()) for g in groups for i in g.items)
    tasks = [(g, k, metrics.row_features(g.y[k], g.p[k], g.predicted[k])) for g in groups for k in range(len(g.seeds))]
    for g in groups:
        point = [metrics.metrics_from_sums(f.sum(0)) for h, _, f in tasks if h is g]
        g.values = {m: np.array([v[m] for v in point], float) for m in metrics.METRICS}
        g.boot = {m: np.empty((n_boot, len(g.seeds))) for m in metrics.METRICS}
    # Methods scored on the same rows stand side by side, so that a block of draws is gathered once for all of them.
    shared: dict[bytes, list] = {}
    for task in tasks:
        shared.setdefault(task[0].items[task[1]].tobytes(), []).append(task)
    done = 0
    for weights in stats.item_weights(n, n_boot, rng):
        block = slice(done, done + len(weights))
        for same in shared.values():
            items = same[0][0].items[same[0][1]]
            drawn = weights if len(items) == n and (items == np.arange(n)).all() else weights[:, items]
            for g, k, features in same:
                for m, value in metrics.metrics_from_sums(drawn @ features.astype(np.float32)).items():
                    g.boot[m][block, k] = value
        done += len(weights)


def compatible(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two variants differ in nothing but what concerns the student alone."""
    return all(a[k] == b[k] for k in a.keys() & b.keys() - STUDENT_KEYS)


def reference(groups: Sequence[Scored], of: Scored, method: str) -> Scored | None:
    """The weak supervisor or ceiling that a student belongs to: same data set, compatible variant, most keys in
    common."""
    found = [g for g in groups if g.method == method and g.dataset == of.dataset and compatible(g.variant, of.variant)]
    found = [g for g in found if paired_seeds(g, of)]
    agreement = [sum(of.variant.get(k) == v for k, v in g.variant.items()) for g in found]
    return found[int(np.argmax(agreement))] if found else None


def paired_seeds(*groups: Scored) -> list[int]:
    """Seeds in which all of these were scored on the same items."""
    first = groups[0]

    def same(g: Scored, s: int) -> bool:
        a, b = first.seeds.index(s), g.seeds.index(s)
        return np.array_equal(first.items[a], g.items[b]) and np.array_equal(first.y[a], g.y[b])

    return [s for s in first.seeds if all(s in g.seeds and same(g, s) for g in groups[1:])]
