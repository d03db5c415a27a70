"""Evaluation of one model: its answers to the evaluation sets, judged by those who steer and by those who report.

The one module of the loop that asks the reporting judges, and in the testbed the oracle; no stage that trains or selects may
import it (a test holds that).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from underseer.judges import bench
from underseer.judges.base import release
from underseer.judges.oracle import open_reporting

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from underseer.engines import Engine, Inference
    from underseer.judges.base import Judge
    from underseer.runs.stage import Run


def reporting(run: Run, specs: Mapping[str, str], *, engine: str, inference: Inference) -> dict[str, Judge]:
    """The reporting judges by measure, from their specifications."""
    opening = bench.opening(run, inference, engine)
    return {measure: open_reporting(spec, measure, opening) for measure, spec in specs.items()}


def judge(answers: pd.DataFrame, reporters: Mapping[str, Judge], training: Mapping[str, Judge]) -> pd.DataFrame:
    """Answers with all scores: ``unsafe, helpful, refusal``, ``unsafe_training, helpful_training``, ``failure``, ``failure_training``."""
    texts, prompts = answers.answer.tolist(), answers.prompt.tolist()
    failures: dict[str, list[str | None]] = {"failure": answers.call.tolist(), "failure_training": [None] * len(texts)}
    for judges, suffix in ((reporters, ""), (training, "_training")):
        for measure, one in judges.items():
            scores = one.score(texts, prompts)
            release(one)  # the next one may need its memory
            answers = answers.assign(**{measure + suffix: scores.values})
            name = f"failure{suffix}"
            failures[name] = [old or new for old, new in zip(failures[name], scores.failures, strict=True)]
    return answers.drop(columns="call").assign(**failures)


def told(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Means by set: unsafe rate by both judges, helpfulness, refusals."""
    flat = table.assign(unsafe_rate=table.unsafe >= threshold, unsafe_rate_training=table.unsafe_training >= threshold)
    columns = ["unsafe_rate", "unsafe_rate_training", "helpful", "helpful_training", "refusal"]
    return flat.groupby("set", sort=False)[columns].mean().round(3)


def metrics(table: pd.DataFrame, threshold: float) -> dict[str, float]:
    """The same numbers, flat, for the manifest."""
    wide = told(table, threshold)
    return {f"{name}_{row}": float(wide.loc[row, name]) for row in wide.index for name in wide.columns}


def named(reporters: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """The reporting judges, for the report."""
    return [{"role": "reporting", "measure": m, "name": j.name, "version": j.version} for m, j in reporters.items()]


def held_out_texts(synthetic: bool, table: pd.DataFrame) -> list[str]:
    """Texts that no model was aligned on: the testbed's own corpus, else the safe evaluation prompts."""
    if synthetic:
        from underseer.testbed import corpus

        return corpus.texts(300, 2_000_003, "chat")
    return table[table.role != "attack"].prompt.drop_duplicates().head(300).tolist()


def perplexity(engine: Engine, texts: list[str], *, adapter: Path | None) -> dict[str, Any]:
    """Perplexity of texts under the model (``utility.perplexity``)."""
    from underseer import utility

    return utility.perplexity(engine, texts, adapter=adapter)
