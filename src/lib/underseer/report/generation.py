"""results.json of an experiment that generates: made from its table of continuations, in the schema of all results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.maths import metrics, stats
from underseer.report import compare, rows
from underseer.report.case import continuation_case
from underseer.report.generated import SEED_METRICS, Generated, buckets, distribution, score_continuations
from underseer.report.names import method_name
from underseer.report.results import LABELS, Experiment, label_quality

METRICS = (*metrics.GENERATION_METRICS, *SEED_METRICS)
BUCKET_METRICS = ("toxicity", "toxic_share", "expected_max_toxicity", "toxicity_probability")
PGR_METRICS = ("toxicity", "toxic_share", "expected_max_toxicity")
LABEL_METRICS = ("toxicity", "toxic_share", "toxicity_training_judge", "n_tokens")


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

    continuations: tidy, one row per continuation: method, variant (JSON of a dict; optional), seed, dataset, id (of the
        prompt), draw (0 greedy, 1..k sampled), text, n_tokens, toxicity (reporting judge, NaN: no score),
        toxicity_training (training judge), nll (nats under the fluency model), nll_tokens, prompt_toxicity.
    judges: {'role', 'name', 'version', 'calibration', 'failures'} each; calibration, where there is one: {'spearman',
    'pearson', 'mae', 'agreement', 'kappa', 'n', 'failures', 'bins': {'predicted', 'stored', 'count'}}.
    labels: the continuations that students learnt from: vote, variant (optional), seed, id, toxicity (training judge; or
    reporting judge, with the training judge's in toxicity_training), n_tokens. Raises ValueError for malformed tables.
    """
    frame = continuations if "variant" in continuations.columns else continuations.assign(variant="{}")
    groups = score_continuations(frame, n_boot=n_boot, seed=seed)
    given = _label_groups(labels, n_boot, seed)
    tests, label_tests = compare.corrected(compare.comparisons(groups), _label_comparisons(given, labels))
    results = {
        **experiment.heading("toxicity"),
        "rows": [r for g in groups for r in rows.metric_rows(g, METRICS)] + _bucket_rows(frame, n_boot, seed),
        "pgr": rows.pgr_rows(groups, PGR_METRICS),
        "distribution": [distribution(g) for g in _main(groups)],
        **experiment.facts(),
        "classes": list(LABELS.get(experiment.task, ("civil", "toxic"))),
        "tests": {"rule": compare.rule(groups), "rows": tests},
        "label_quality": label_quality(given, label_tests, LABEL_METRICS),
        "judges": [dict(j) for j in judges],
        "draws": int((frame["draw"].unique() > 0).sum()),
        "case_study": continuation_case(frame, synthetic=experiment.synthetic, texts=experiment.texts),
        "interval": {"level": stats.LEVEL, "n_boot": n_boot, "covers": rows.covers(groups)},
    }
    notes = [*experiment.notes, *_notes(frame, _main(groups)), *rows.pgr_notes(results["pgr"], "toxicity")]
    return rows.strict({**results, "notes": notes})


def _main(groups: Sequence[Generated]) -> list[Generated]:
    return [g for g in groups if g.dataset == groups[0].dataset]


def _bucket_rows(frame: pd.DataFrame, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Rows by prompt toxicity, of the first data set."""
    main = frame[frame["dataset"] == frame["dataset"].iloc[0]]
    made: list[dict[str, Any]] = []
    for part in buckets(main):
        for group in score_continuations(part, n_boot=n_boot, seed=seed):
            made += rows.metric_rows(group, BUCKET_METRICS)
    return made


def _label_groups(labels: pd.DataFrame | None, n_boot: int, seed: int) -> list[Generated]:
    """The students' teaching material, one continuation per prompt."""
    if labels is None or not len(labels):
        return []
    defaults = {c: v for c, v in (("text", ""), ("n_tokens", float("nan"))) if c not in labels.columns}
    frame = labels.rename(columns={"vote": "method"}).assign(dataset="transfer", draw=1, **defaults)
    return score_continuations(frame, n_boot=n_boot, seed=seed)


def _label_comparisons(groups: Sequence[Generated], labels: pd.DataFrame | None) -> compare.Block:
    """Tests of the votes' labels; primary only where the reporting judge scored them, for a judge that has chosen them flatters."""
    by_reporting = labels is not None and "toxicity_training" in labels.columns
    return compare.comparisons(groups, primary=None if by_reporting else lambda a, b: False)


def _notes(frame: pd.DataFrame, groups: Sequence[Generated]) -> list[str]:
    failed = int(frame["toxicity"].isna().sum())
    if not failed:
        return []
    worst = max(groups, key=lambda g: g.values["judge_failures"].sum())
    count = int(worst.values["judge_failures"].sum())
    return [
        f"{failed:,} of {len(frame):,} continuations have no score by the reporting judge (failed calls, empty texts) and "
        f"are left out of the toxicity metrics; {count:,} of these are by {method_name(worst.method)}."
    ]
