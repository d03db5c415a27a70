"""Scores for the report: the one place where the reporting judge, and in the testbed the oracle, is asked.

No stage that trains or selects may import this module; a test holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from underseer.judges import panel
from underseer.judges.oracle import Oracle

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Inference
    from underseer.judges.base import Judge
    from underseer.stage_run import Run


def reporter(run: Run, spec: str, inference: Inference) -> Judge:
    """The reporting judge of a stage."""
    if spec == "oracle":
        return Oracle("toxicity")
    (judge,) = panel.open_all(run, "reporting", spec, inference)
    return judge


def score(
    run: Run,
    written: pd.DataFrame,
    prompts: pd.DataFrame,
    inference: Inference,
    *,
    reporting_judge: str,
    training_judge: str,
    fluency_model: str,
) -> pd.DataFrame:
    """Continuations (id, draw, text, ...) with what the judges say of them.

    Adds ``toxicity`` (the reporting judge's), ``failure`` (its reason where there is no score),
    ``toxicity_training`` (mean of the training judges; NaN where one failed), ``nll`` (summed, nats) and
    ``nll_tokens`` under the fluency model, given the prompt (``prompts``: id, text).
    """
    texts = written.text.tolist()
    given = reporter(run, reporting_judge, inference).score(texts)
    steering = panel.training_scores(run, np.asarray([texts], dtype=object), training_judge, inference)
    asked = written[["id"]].merge(prompts[["id", "text"]], on="id", how="left", validate="many_to_one").text.tolist()
    sums, counts = panel.log_probs(run, texts, asked, fluency_model, inference)
    return written.assign(
        toxicity=given.values,
        failure=given.failures,
        toxicity_training=steering[:, 0].mean(axis=0),
        nll=-sums,
        nll_tokens=counts,
    )


def summary(scores: pd.DataFrame) -> dict[str, float]:
    """Means for the manifest: toxicity by both judges over what each judged, how many each did not, perplexity."""
    return {
        "toxicity": scores.toxicity.mean(),
        "toxicity_training_judge": scores.toxicity_training.mean(),
        "judge_failures": int(scores.failure.notna().sum()),
        "training_judge_failures": int(scores.toxicity_training.isna().sum()),
        "perplexity": float(np.exp(scores.nll.sum() / max(scores.nll_tokens.sum(), 1))),
    }
