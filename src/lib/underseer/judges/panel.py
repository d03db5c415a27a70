"""The judges of a stage: trained or opened, asked about many texts at once; and the model that measures fluency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import local
from underseer.errors import UserError
from underseer.judges import base, trained
from underseer.models import loading

if TYPE_CHECKING:
    import pandas as pd

    from underseer.judges.base import Judge
    from underseer.training.settings import TrainSettings


def train_or_open(
    run: Any,
    spec: str,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    settings: TrainSettings,
    *,
    folder: Path | None,
    **how: Any,
) -> tuple[Judge, pd.DataFrame]:
    """A judge, and the training curves of one that is trained here (else an empty table).

    ``rows``: (fit, validation) as ``trained.judge_rows`` gives them; ``folder``: the pre-trained base of a testbed
    model. A trained judge is saved as the stage's ``model``.
    """
    import pandas as pd

    if base.parse_judge(spec).kind != "trained":
        return base.open_judge(spec, **how), pd.DataFrame(columns=["step", "metric", "value"])
    model, tokenizer, fit = trained.train_scorer(
        spec, *rows, settings=settings, base=folder, seed=settings.seed, checkpoint_dir=run.checkpoints
    )
    run.cost.add(tokens_trained=fit.tokens_trained)
    run.save_model("model", model, tokenizer)
    judge = base.open_judge(spec, model=model, tokenizer=tokenizer, version=run.instance.key, **how)
    return judge, fit.curves


def open_all(run: Any, role: str, spec: str, **how: Any) -> list[Judge]:
    """The judges that fill a role of a stage (``training`` or ``reporting``): trained ones from their folders.

    ``how``: batch_size, max_length, device, precision, cost. Raises UserError for the oracle: only ``scoring`` may
    ask it.
    """
    if spec == "oracle":
        raise UserError("training_judge = 'oracle': the oracle serves evaluation only; give trained:MODEL")
    found = run.inputs(role)
    return [
        base.open_judge(spec, folder=o.file("model") if o.has("model") else None, version=o.key, **how) for o in found
    ]


def training_scores(run: Any, texts: np.ndarray, *, training_judge: str, **how: Any) -> np.ndarray:
    """(M, B, n) score of each of M training judges for texts (B, n); NaN where a judge failed."""
    flat = texts.ravel().tolist()
    found = [judge.score(flat).values for judge in open_all(run, "training", training_judge, **_judging(how))]
    return np.stack(found).reshape(len(found), *texts.shape)


def log_probs(
    run: Any, texts: Sequence[str], prompts: Sequence[str], *, fluency_model: str, max_length: int, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability (nats) of each text after its prompt under the fluency model, and tokens counted."""
    found = run.input("fluency")
    folder = found and found.file("model")
    if fluency_model.startswith("trained:"):
        model, tokenizer = loading.load_language_model(str(folder), max_length=max_length)
    else:
        model, tokenizer = loading.load_language_model(fluency_model, base=folder, max_length=max_length)
    how = {k: v for k, v in how.items() if k in ("batch_size", "device", "precision", "cost")}
    return local.log_probs(model, tokenizer, texts, contexts=prompts, max_length=max_length, **how)


def nll_per_token(run: Any, texts: np.ndarray, prompts: Sequence[str], **how: Any) -> np.ndarray:
    """(B, n) mean negative log-probability a token of texts (B, n), each after its own of n prompts."""
    sums, counts = log_probs(run, texts.ravel().tolist(), list(prompts) * len(texts), **how)
    return (-sums / np.maximum(counts, 1)).reshape(texts.shape)


def reading(rows: pd.DataFrame, held_out: float = 0.15) -> tuple[list[str], list[str]]:
    """Passages of the judge split, prompt and continuation together, for a fluency model: (to learn, held out)."""
    part = rows[rows.split == "judge"].sort_values("id")
    texts = [f"{prompt}{continuation}" for prompt, continuation in zip(part.text, part.continuation, strict=True)]
    kept = max(1, round(held_out * len(texts)))  # ids are hashes: their order is as good as random
    if len(texts) < 2:
        raise UserError(f"the judge split has {len(texts)} rows; a fluency model needs at least 2: raise n_judge")
    return texts[kept:], texts[:kept]


def _judging(how: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in how.items() if k in ("batch_size", "max_length", "device", "precision", "cost")}
