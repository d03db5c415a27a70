"""The judges of continuations, asked about many texts at once; and the model that measures fluency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.engines import local
from underseer.errors import UserError
from underseer.judges.base import Opening
from underseer.judges.opening import open_judge
from underseer.models import loading

if TYPE_CHECKING:
    from underseer.engines import Inference
    from underseer.judges.base import Judge
    from underseer.stage_run import Run


def open_all(run: Run, role: str, spec: str, inference: Inference) -> list[Judge]:
    """The judges of texts that fill a role of a stage (``training`` or ``reporting``): trained ones from their folders.
    Raises UserError for the oracle: only ``scoring`` may ask it."""
    if spec == "oracle":
        raise UserError("training_judge = 'oracle': the oracle serves evaluation only; give trained:MODEL")
    folders = [(output, output.file("model") if output.has("model") else None) for output in run.inputs(role)]
    return [
        open_judge(spec, "toxicity", Opening(inference, cost=run.cost, folder=folder, version=output.key))
        for output, folder in folders
    ]


def training_scores(run: Run, texts: np.ndarray, training_judge: str, inference: Inference) -> np.ndarray:
    """(M, B, n) score of each of M training judges for texts (B, n); NaN where a judge failed."""
    flat = texts.ravel().tolist()
    scores = [judge.score(flat).values for judge in open_all(run, "training", training_judge, inference)]
    return np.stack(scores).reshape(len(scores), *texts.shape)


def log_probs(
    run: Run, texts: Sequence[str], prompts: Sequence[str], fluency_model: str, inference: Inference
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability (nats) of each text after its prompt under the fluency model, and tokens counted."""
    output = run.input("fluency")
    folder = output and output.file("model")
    longest = inference.max_length
    if fluency_model.startswith("trained:"):
        model, tokenizer = loading.load_language_model(str(folder), max_length=longest)
    else:
        model, tokenizer = loading.load_language_model(fluency_model, base=folder, max_length=longest)
    return local.log_probs(model, tokenizer, texts, inference, contexts=prompts, cost=run.cost)


def nll_per_token(
    run: Run, texts: np.ndarray, prompts: Sequence[str], fluency_model: str, inference: Inference
) -> np.ndarray:
    """(B, n) mean negative log-probability a token of texts (B, n), each after its own of n prompts."""
    sums, counts = log_probs(run, texts.ravel().tolist(), list(prompts) * len(texts), fluency_model, inference)
    return (-sums / np.maximum(counts, 1)).reshape(texts.shape)
