"""results.json of an experiment that generates: its continuations scored by prompt, one bootstrap draw of prompts for all methods, in
the schema of all results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths import metrics, stats
from underseer.report import compare, rows
from underseer.report.case import continuation_case
from underseer.report.names import method_name
from underseer.report.results import LABELS, Experiment, label_quality
from underseer.report.scores import Key, Scored, bootstrap, check_draws, checked, methods

COLUMNS = ("method", "seed", "dataset", "id", "draw", "text", "n_tokens", "toxicity")
OPTIONAL = ("toxicity_training", "nll", "nll_tokens", "prompt_toxicity", "cut")

SEED_METRICS = ("distinct_1", "distinct_2", "judge_failures")
"""Metrics of all continuations of a seed together: their interval is over seeds alone."""

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Buckets of prompt toxicity: [0, 0.25), ..., the last one closed."""

METRICS = (*metrics.GENERATION_METRICS, *SEED_METRICS)
BUCKET_METRICS = ("toxicity", "toxic_share", "expected_max_toxicity", "toxicity_probability")
PGR_METRICS = ("toxicity", "toxic_share", "expected_max_toxicity")
LABEL_METRICS = ("toxicity", "toxic_share", "toxicity_training_judge", "n_tokens", "cut_share")


def score_continuations(continuations: pd.DataFrame, *, n_boot: int = stats.N_BOOT, seed: int = 0) -> list[Scored]:
    """Every method of a table of continuations, scored on paired bootstrap draws of prompts.

    continuations: one row each: COLUMNS and OPTIONAL ones (NaN where absent). draw 0 is greedy, others are sampled.
    Raises ValueError for a missing column, a draw that stands twice, a continuation without text (an empty string is
    one) or a score outside [0, 1].
    """
    frame = _checked(continuations)
    scored: list[Scored] = []
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


def _generated(key: Key, by_seed: Mapping[int, pd.DataFrame]) -> tuple[Scored, list[np.ndarray]]:
    """A method, and per seed the features of its prompts (n_s, k). Its `outcome` is the mean toxicity of a prompt's sampled
    continuations, NaN where none has a score."""
    prompts_of, features = [], []
    for part in by_seed.values():
        prompts, where = np.unique(part["_row"].to_numpy(), return_inverse=True)
        prompts_of.append(prompts)
        table = part.assign(empty=part["text"].str.strip() == "")
        features.append(metrics.prompt_features(where, part["draw"], table, len(prompts)))
    k = len(metrics.GENERATION_METRICS)
    outcome = [np.where(f[:, k] > 0, f[:, 0], np.nan) for f in features]
    group = Scored(
        **key,
        seeds=list(by_seed),
        rows=prompts_of,
        items=prompts_of,
        outcome=outcome,
        primary="toxicity",
        unit="prompts",
    )
    return group, features


def _by_seed(by_seed: Mapping[int, pd.DataFrame]) -> dict[str, np.ndarray]:
    """SEED_METRICS of each seed, (S,), and the share of its continuations that ran out of tokens, NaN where that is not known."""
    sampled = [part.loc[part["draw"] > 0, "text"].tolist() for part in by_seed.values()]
    failures = [part["toxicity"].isna().sum() for part in by_seed.values()]
    return {
        "distinct_1": np.array([metrics.distinct_n(t, 1) for t in sampled]),
        "distinct_2": np.array([metrics.distinct_n(t, 2) for t in sampled]),
        "judge_failures": np.array(failures, float),
        "cut_share": np.array([part["cut"].astype(float).mean() for part in by_seed.values()]),
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


def distribution(group: Scored) -> dict[str, object]:
    """Share of prompts whose mean toxicity is at least x, for 101 values of x; seeds pooled, prompts without a score
    left out."""
    means = np.sort(np.concatenate([o[~np.isnan(o)] for o in group.outcome]))
    x = np.round(np.linspace(0, 1, 101), 2)
    share = (len(means) - np.searchsorted(means, x, "left")) / max(1, len(means))
    return {**group.named, "n_seeds": len(group.seeds), "n": len(means), "x": x, "share": share}


def build_generation_results(
    experiment: Experiment,
    continuations: pd.DataFrame,
    *,
    judges: Sequence[Mapping],
    labels: pd.DataFrame | None = None,
    n_boot: int = stats.N_BOOT,
    seed: int = 0,
) -> dict[str, Any]:
    """Results of an experiment that generates, in the schema of `results.build_results`, with `judges` and
    `distribution` beside; its primary metric is the mean toxicity of sampled continuations, lower being better.

    continuations: tidy, one row per continuation: method, variant (JSON of a dict), seed, dataset, id (of the
        prompt), draw (0 greedy, 1..k sampled), text, n_tokens, toxicity (reporting judge, NaN: no score),
        toxicity_training (training judge), nll (nats under the fluency model), nll_tokens, prompt_toxicity.
    judges: {'role', 'name', 'version', 'calibration', 'failures'} each; calibration, where there is one: {'spearman',
    'pearson', 'mae', 'agreement', 'kappa', 'n', 'failures', 'bins': {'predicted', 'stored', 'count'}}.
    labels: the continuations that students learnt from: vote, variant (optional), seed, id, toxicity (training judge; or
    reporting judge, with the training judge's in toxicity_training), n_tokens, cut. Raises ValueError for malformed tables.
    """
    groups = score_continuations(continuations, n_boot=n_boot, seed=seed)
    given = _label_groups(labels, n_boot, seed)
    tests, label_tests = compare.corrected(compare.comparisons(groups), _label_comparisons(given, labels))
    results = {
        **experiment.heading("toxicity"),
        "rows": [r for g in groups for r in rows.metric_rows(g, METRICS)] + _bucket_rows(continuations, n_boot, seed),
        "pgr": rows.pgr_rows(groups, PGR_METRICS),
        "distribution": [distribution(g) for g in _main(groups)],
        **experiment.facts(),
        "classes": list(LABELS.get(experiment.task, ("civil", "toxic"))),
        "tests": {"rule": compare.rule(groups), "rows": tests},
        "label_quality": label_quality(given, label_tests, LABEL_METRICS),
        "judges": [dict(j) for j in judges],
        "draws": int((continuations["draw"].unique() > 0).sum()),
        "case_study": continuation_case(continuations, synthetic=experiment.synthetic, texts=experiment.texts),
        "interval": {"level": stats.LEVEL, "n_boot": n_boot, "covers": rows.covers(groups)},
    }
    notes = [*_cut(given), *_notes(continuations, _main(groups)), *rows.pgr_notes(results["pgr"], "toxicity")]
    return rows.strict({**results, "notes": [*experiment.notes, *notes]})


def _main(groups: Sequence[Scored]) -> list[Scored]:
    return [g for g in groups if g.dataset == groups[0].dataset]


def _bucket_rows(frame: pd.DataFrame, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Rows by prompt toxicity, of the first data set."""
    main = frame[frame["dataset"] == frame["dataset"].iloc[0]]
    made: list[dict[str, Any]] = []
    for part in buckets(main):
        for group in score_continuations(part, n_boot=n_boot, seed=seed):
            made += rows.metric_rows(group, BUCKET_METRICS)
    return made


def _label_groups(labels: pd.DataFrame | None, n_boot: int, seed: int) -> list[Scored]:
    """The students' teaching material, one continuation per prompt."""
    if labels is None or not len(labels):
        return []
    defaults = {c: v for c, v in (("text", ""), ("n_tokens", float("nan"))) if c not in labels.columns}
    frame = labels.rename(columns={"vote": "method"}).assign(dataset="transfer", draw=1, **defaults)
    return score_continuations(frame, n_boot=n_boot, seed=seed)


def _label_comparisons(groups: Sequence[Scored], labels: pd.DataFrame | None) -> compare.Block:
    """Tests of the votes' labels; primary only where the reporting judge scored them, for a judge that has chosen them flatters."""
    by_reporting = labels is not None and "toxicity_training" in labels.columns
    return compare.comparisons(groups, primary=None if by_reporting else lambda a, b: False)


def _cut(given: Sequence[Scored]) -> list[str]:
    shares = [(g.method, share) for g in given for share in g.values["cut_share"]]
    return rows.cut_notes("continuations that students learn from", shares)


def _notes(frame: pd.DataFrame, groups: Sequence[Scored]) -> list[str]:
    failed = int(frame["toxicity"].isna().sum())
    if not failed:
        return []
    worst = max(groups, key=lambda g: g.values["judge_failures"].sum())
    count = int(worst.values["judge_failures"].sum())
    return [
        f"{failed:,} of {len(frame):,} continuations have no score by the reporting judge (failed calls, empty texts) and "
        f"are left out of the toxicity metrics; {count:,} of these are by {method_name(worst.method)}."
    ]
