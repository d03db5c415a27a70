"""One training of the loop or of a baseline: from pairs or answers to an adapter, and whether it is what the formula says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from underseer import paths

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerBase

    from underseer.maths.modpo import Objectives
    from underseer.models.adapters import LoraSettings
    from underseer.selfmoa.targets import Target
    from underseer.stage_run import Run
    from underseer.training.align import AlignResult, AlignSettings
    from underseer.training.settings import FitResult, TrainSettings

    Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def train(
    run: Run, target: Target, pairs: pd.DataFrame, settings: AlignSettings
) -> tuple[AlignResult | None, PreTrainedTokenizerBase | None]:
    """Align the target by pairs; gives the result and the model's tokenizer, None where there is no pair. The adapter of an iterate
    goes on training."""
    if not len(pairs):
        return None, None
    from underseer.training.align import Origin, align

    model, tokenizer = target.load(settings.train.max_length)
    whole = settings.lora is None and settings.reference == "reset" and target.start is not None
    reference = target.start.load(settings.train.max_length)[0] if whole else None
    origin = Origin(target.adapter, reference, paths.runs() / ".reference")
    aligned = align(model, tokenizer, pairs, settings, origin=origin, checkpoint_dir=run.checkpoints)
    run.cost.add(tokens_trained=aligned.tokens_trained, tokens_scored=aligned.tokens_scored)
    return aligned, tokenizer


def imitate(
    run: Run, target: Target, answers: pd.DataFrame, settings: TrainSettings, lora: LoraSettings | None
) -> tuple[FitResult | None, PreTrainedTokenizerBase | None]:
    """Fine-tune the target on answers (``prompt, answer``); None where there is no answer."""
    if not len(answers):
        return None, None
    from underseer.training.finetune import fit_chats

    model, tokenizer = target.load(settings.max_length)
    fit = fit_chats(model, tokenizer, answers, None, settings, lora=lora, checkpoint_dir=run.checkpoints)
    run.cost.add(tokens_trained=fit.tokens_trained)
    return fit, tokenizer


def largest_difference(aligned: AlignResult | None, formula: Formula, margins: np.ndarray) -> float:
    """Largest difference (nats, over 1 + the loss) between what TRL computes for a pair and the formula, as the model stands after training.

    ``formula``: of chosen, rejected, ref_chosen, ref_rejected and margins, all (n,), such as ``modpo.modpo_loss`` with its
    weights. ``margins``: one a training pair. 0 where nothing was trained.
    """
    import torch

    if aligned is None:
        return 0.0
    on = aligned.trained
    m = torch.tensor(margins[on.rows], dtype=torch.float32)
    loss = formula(on.chosen, on.rejected, on.ref_chosen, on.ref_rejected, m)
    return float(((loss - on.loss).abs() / (1 + loss)).max())


def curves(trained: AlignResult | FitResult | None) -> pd.DataFrame:
    """Step, metric, value; empty where nothing was trained."""
    import pandas as pd

    return pd.DataFrame({"step": [], "metric": [], "value": []}) if trained is None else trained.curves


def are_finite(curves: pd.DataFrame) -> bool:
    """Whether all values of curves are finite numbers; true of none."""
    import numpy as np

    return bool(np.isfinite(curves.value.to_numpy(dtype=float)).all())


def metrics(aligned: AlignResult | None) -> dict[str, int]:
    """For the manifest: whether there was anything to learn from, and how many pairs were learnt from."""
    return {"trained": 0} if aligned is None else {"trained": 1, "pairs_trained": aligned.pairs_trained}


def outcome(aligned: AlignResult | None, objectives: Objectives) -> str:
    """In words, for the notebook: what was learnt from, and whether chosen answers became likelier than rejected ones."""
    if aligned is None:
        return "Nothing to learn from: no pairs. The target stays as it is, and the loop ends here."
    name = "MODPO" if objectives.others else "DPO"
    margin = aligned.curves[aligned.curves.metric == "reward_margin"].value
    text = f"Learnt from {aligned.pairs_trained} pairs by {name}."
    if not len(margin):
        return text
    first = f", {margin.iloc[0]:.2f} at first" if len(margin) > 1 else ""
    apart = "prefers the chosen answers" if margin.iloc[-1] > 0 else "does not prefer the chosen answers"
    return f"{text} Against its reference the model now {apart}: mean reward margin {margin.iloc[-1]:.2f}{first}."


def save(
    run: Run, target: Target, trained: AlignResult | FitResult | None, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    """Save the adapter as ``adapter`` or the whole model as ``model``, and the curves; where nothing was trained the target's adapter
    is passed on."""
    run.save_table("curves", curves(trained))
    if trained is None:
        if target.adapter is not None:
            shutil.copytree(target.adapter, run.path("adapter"))
    elif hasattr(trained.model, "peft_config"):
        trained.model.save_pretrained(run.path("adapter"))
    else:
        run.save_model("model", trained.model, tokenizer)
