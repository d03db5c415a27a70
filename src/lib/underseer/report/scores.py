"""From per-item predictions to scores with bootstrap replicates: joins by id, one draw of items for all methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths import metrics, stats

COLUMNS = ("method", "seed", "dataset", "id", "label", "p")

STUDENT_KEYS = frozenset({"voting", "bootstraps", "student_loss", "min_agreement"})
"""Variant keys that concern the student alone: its weak supervisor and ceiling may have other values or none."""

Key = dict[str, Any]
"""The ``method``, ``variant`` and ``dataset`` that a `Scored` is of."""


@dataclass(kw_only=True)
class Scored:
    """One method in one variant on one data set: S seeds, B replicates.

    rows, items, outcome: per seed (n_s,), in order of ids. `rows` says which row it is, `items` the independent unit that
    it belongs to (the row itself, or its cluster), numbered within the data set; `outcome` is the row's share in the
    primary metric, NaN where it has none.
    values: metric -> (S,). boot: metric -> (B, S); row b uses the same item draw in every Scored of the data set.
    """

    method: str
    variant: dict[str, Any]
    dataset: str
    seeds: list[int]
    rows: list[np.ndarray]
    items: list[np.ndarray]
    outcome: list[np.ndarray]
    primary: str = "accuracy"
    unit: str = "items"
    values: dict[str, np.ndarray] = field(default_factory=dict)
    boot: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Any]:
        """What a row of results.json says of the method."""
        return {"method": self.method, "variant": self.variant, "dataset": self.dataset}

    @property
    def n_items(self) -> int:
        """Unique test items over all seeds."""
        return len(np.unique(np.concatenate(self.items)))

    @property
    def clustered(self) -> bool:
        """Whether an item may hold several rows."""
        return any(len(np.unique(i)) < len(np.unique(r)) for i, r in zip(self.items, self.rows, strict=True))

    def at(self, metric: str, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(values (S',), boot (B, S')) of a metric for some of the seeds, in their order."""
        where = [self.seeds.index(s) for s in seeds]
        return self.values[metric][where], self.boot[metric][:, where]

    def outcomes(self, seed: int) -> np.ndarray:
        """(n_s,) what each row contributes to the primary metric: 1.0 where a prediction is right."""
        return self.outcome[self.seeds.index(seed)]


@dataclass(kw_only=True)
class Classified(Scored):
    """A classifier: y, p, predicted per seed (n_s,); outcome 1.0 where the prediction is right."""

    y: list[np.ndarray]
    p: list[np.ndarray]
    predicted: list[np.ndarray]

    @property
    def chance(self) -> list[float]:
        """Accuracy of saying the more frequent class of each seed's rows, whatever is asked."""
        return [max(float(y.mean()), 1 - float(y.mean())) for y in self.y]


def score(
    predictions: pd.DataFrame, *, n_boot: int = stats.N_BOOT, seed: int = 0, unit: str = "clusters"
) -> list[Classified]:
    """Every method of a tidy predictions table, scored on paired bootstrap draws.

    predictions: columns method, seed, dataset, id, label (0/1), p (probability of class 1), optionally variant
    (JSON of a dict), predicted (0/1; default p >= 0.5) and cluster: rows of a cluster (say, clauses of one question) are
    not independent, so that clusters are drawn, all rows of each together; `unit` is what they are called. Raises
    ValueError for a missing column, values that are no labels or probabilities, or an id in two clusters.
    """
    frame = checked(predictions, COLUMNS)
    if "cluster" in frame.columns:
        _check_clusters(frame)
    scored: list[Classified] = []
    for _, part in frame.groupby("dataset", sort=False):
        groups = [_classified(key, rows, unit) for key, rows in methods(part)]
        features = [[metrics.row_features(*row) for row in zip(g.y, g.p, g.predicted, strict=True)] for g in groups]
        bootstrap(groups, features, metrics.metrics_from_sums, n_boot, np.random.default_rng(seed))
        scored += groups
    return scored


def checked(
    table: pd.DataFrame, columns: Sequence[str], optional: Sequence[str] = (), scores: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with a `variant`, and NaN in `optional` columns that it lacks. Raises ValueError naming columns that are missing, and a
    column of `scores` with a value outside [0, 1]."""
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise ValueError(f"predictions have columns {list(table.columns)}; missing: {', '.join(missing)}")
    table = table.assign(**{c: np.nan for c in optional if c not in table.columns})
    for column in scores:
        known = table[column].dropna().astype(float)
        if not known.between(0, 1).all():
            raise ValueError(f"{column} must lie in [0, 1] or be NaN, got {known.min():g} to {known.max():g}")
    return table if "variant" in table.columns else table.assign(variant="{}")


def check_draws(frame: pd.DataFrame) -> None:
    """Raise ValueError where a draw of a prompt stands twice."""
    twice = frame[frame.duplicated(["method", "variant", "seed", "dataset", "id", "draw"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(f"{row['method']}, seed {row['seed']}: draw {row['draw']} of prompt {row['id']} stands twice")


def _check_clusters(frame: pd.DataFrame) -> None:
    if frame["cluster"].isna().any():
        raise ValueError(
            f"{int(frame['cluster'].isna().sum())} of {len(frame)} predictions have no cluster: give all or none"
        )
    of = frame.groupby("id")["cluster"].nunique()
    if (of > 1).any():
        raise ValueError(f"id {of.index[of > 1][0]!r} stands in {of.max()} clusters; a row belongs to one")


def methods(frame: pd.DataFrame) -> Iterator[tuple[Key, dict[int, pd.DataFrame]]]:
    """The methods of one data set in the order of their first rows: what each is called, and its rows by seed.

    Rows are sorted by id and numbered in `_row`; `_item` numbers the clusters, or the ids where there are none.
    """
    numbers = {c: {v: k for k, v in enumerate(sorted(frame[c].unique()))} for c in ("id", "cluster") if c in frame}
    frame = frame.assign(_row=frame["id"].map(numbers["id"]))
    frame["_item"] = frame["cluster"].map(numbers["cluster"]) if "cluster" in frame else frame["_row"]
    frame = frame.sort_values(["_row", *(c for c in ("label", "draw") if c in frame)], kind="stable")
    order = {key: k for k, key in enumerate(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))}
    for (method, variant), rows in sorted(frame.groupby(["method", "variant"], sort=False), key=lambda g: order[g[0]]):
        key = {"method": method, "variant": json.loads(variant), "dataset": str(rows["dataset"].iloc[0])}
        yield key, {int(s): r for s, r in rows.groupby("seed")}


def _classified(key: Key, by_seed: Mapping[int, pd.DataFrame], unit: str) -> Classified:
    frames = list(by_seed.values())
    y = [r["label"].to_numpy() for r in frames]
    p = [r["p"].to_numpy(dtype=float) for r in frames]
    guess = [
        (r["predicted"].to_numpy() if "predicted" in r and r["predicted"].notna().all() else q >= 0.5).astype(np.int64)
        for r, q in zip(frames, p, strict=True)
    ]
    return Classified(
        **key,
        seeds=list(by_seed),
        rows=[2 * r["_row"].to_numpy() + (t == 1) for r, t in zip(frames, y, strict=True)],
        items=[r["_item"].to_numpy() for r in frames],
        outcome=[(g == t).astype(float) for g, t in zip(guess, y, strict=True)],
        unit=unit if "cluster" in frames[0] else "items",
        y=y,
        p=p,
        predicted=guess,
    )


def bootstrap(
    groups: Sequence[Scored],
    features: Sequence[Sequence[np.ndarray]],
    from_sums: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_boot: int,
    rng: np.random.Generator,
) -> None:
    """Fill `values` and `boot` of the methods of one data set.

    features: per method and seed (n_s, k), weighted sums of whose rows `from_sums` turns into metrics.
    """
    n = 1 + max(int(i.max()) for g in groups for i in g.items)
    tasks = [(g, k, f) for g, by_seed in zip(groups, features, strict=True) for k, f in enumerate(by_seed)]
    for g, by_seed in zip(groups, features, strict=True):
        point = [from_sums(f.sum(0)) for f in by_seed]
        g.values = {m: np.array([v[m] for v in point], float) for m in point[0]}
        g.boot = {m: np.empty((n_boot, len(g.seeds))) for m in point[0]}
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
            for g, k, table in same:
                for m, value in from_sums(drawn @ table.astype(np.float32)).items():
                    g.boot[m][block, k] = value
        done += len(weights)


def compatible(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two variants differ in nothing but what concerns the student alone."""
    return all(a[k] == b[k] for k in a.keys() & b.keys() - STUDENT_KEYS)


def reference(groups: Sequence[Scored], of: Scored, method: str) -> Scored | None:
    """The weak supervisor or ceiling that a student belongs to: same data set, compatible variant, most keys in
    common."""
    same = [g for g in groups if g.method == method and g.dataset == of.dataset and compatible(g.variant, of.variant)]
    paired = [g for g in same if paired_seeds(g, of)]
    agreement = [sum(of.variant.get(k) == v for k, v in g.variant.items()) for g in paired]
    return paired[int(np.argmax(agreement))] if paired else None


def paired_seeds(*groups: Scored) -> list[int]:
    """Seeds in which all of these were scored on the same rows (and labels)."""
    first = groups[0]

    def same(g: Scored, s: int) -> bool:
        return np.array_equal(first.rows[first.seeds.index(s)], g.rows[g.seeds.index(s)])

    return [s for s in first.seeds if all(s in g.seeds and same(g, s) for g in groups[1:])]
