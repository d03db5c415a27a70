"""Alignment by preference pairs: MODPO as stock TRL DPO (``modpo`` has the equations), whole models or adapters.

The trainer is TRL's, constructed with precomputed reference log-probabilities; the column of the chosen answers is
shifted by margin / beta, and it trains. With one objective it is plain DPO.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest
from underseer.maths import modpo
from underseer.models.adapters import LoraSettings
from underseer.models.loading import resolve_device
from underseer.training.precision import longest_row, use_bf16
from underseer.training.settings import TrainSettings, curves_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.training.pair_rows import PairRows

REFERENCES = ("reset", "previous")


@dataclass(frozen=True)
class AlignSettings:
    """How to align. ``train.batch_size`` counts pairs per optimiser step and micro-batch, over all processes.

    Dropout is off while aligning, an adapter's too, as TRL does: else policy and reference would differ by chance.
    """

    train: TrainSettings
    objective_weights: str | Mapping[str, float] = "helpfulness:0.5,safety:0.5"
    ordering: str = "helpfulness"  # the objective that orders the pairs; its weight is w
    beta: float = 0.1
    divide_by_weight: bool = True  # False: the Self-MOA paper's variant, without the division by w
    margin_scale: float = 1.0  # factor on the margins, which are differences of probabilities
    reference: str = "reset"  # reset: the model below the adapter; previous: what training starts from, frozen
    lora: LoraSettings | None = field(default_factory=LoraSettings)  # None: train the whole model
    nll_weight: float = 0.0  # of the chosen answers' NLL per token, unsafe ones left out
    unsafe_threshold: float = 0.5  # a chosen answer counts as unsafe from here on
    gradient_checkpointing: bool = False  # less memory, about a fifth slower
    trl_options: Mapping[str, Any] = field(default_factory=dict)  # further fields of trl.DPOConfig, such as fsdp

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise UserError(f"beta = {self.beta:g}; it must be above 0")
        if not (math.isfinite(self.margin_scale) and self.margin_scale >= 0):
            raise UserError(f"margin_scale = {self.margin_scale:g}; it must be at least 0")
        if not self.nll_weight >= 0:
            raise UserError(f"nll_weight = {self.nll_weight:g}; it must be at least 0")
        if self.reference not in REFERENCES:
            raise UserError(
                f"reference = {self.reference!r}; allowed are {', '.join(REFERENCES)}{nearest(self.reference, REFERENCES)}"
            )
        modpo.parse_weights(self.objective_weights, self.ordering)

    @property
    def variant(self) -> str:
        """dpo (one objective), modpo, or published (no division by w)."""
        if not modpo.parse_weights(self.objective_weights, self.ordering).others:
            return "dpo"
        return "modpo" if self.divide_by_weight else "published"


@dataclass(frozen=True)
class AlignResult:
    """An aligned model (best state, eval mode; a peft model where an adapter was trained) and how it got there."""

    model: PreTrainedModel
    curves: pd.DataFrame  # step, metric, value: see CURVES
    pairs_trained: int  # different pairs that were learnt from
    tokens_trained: int  # real tokens through forward and backward
    tokens_scored: int  # real tokens that the reference pass read; 0 where the cache had all
    best_step: int
    seconds: float
    dropped: dict[str, int]  # pairs left out: long_prompt, same_answer
    cut: int  # answers that lost their end to max_length
    counted: int  # chosen answers that the NLL term may learn from
    variant: str  # dpo | modpo | published
    dpo_beta: float  # temperature of the equivalent DPO


# What the Trainer logs -> metric in the curves. Log-probabilities: means per answer, in nats. Rewards: beta times the
# log-ratio to the reference, without MODPO's shift; margin: chosen - rejected; accuracy: share of margins above 0.
CURVES = {
    "loss": "train_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "nll": "chosen_nll",  # per token, of the counted answers; 0 for the others
    **{name: name for name in ("chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward")},
    **{name: name for name in ("reward_margin", "reward_accuracy")},
    "eval_loss": "validation_loss",
    "eval_reward_margin": "validation_reward_margin",
    "eval_reward_accuracy": "validation_reward_accuracy",
}


def align(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    settings: AlignSettings,
    *,
    validation: pd.DataFrame | None = None,
    adapter_in: Path | str | None = None,
    reference_model: PreTrainedModel | None = None,
    cache: Path | str | None = None,
    checkpoint_dir: Path | str | None = None,
) -> AlignResult:
    """Align ``model``, in place, with preference pairs (``id``, ``prompt``, ``chosen``, ``rejected``, scores).

    With ``settings.lora``, ``model`` is the reset model without adapter; ``adapter_in`` is the previous iterate's, which goes on
    training (its own rank and targets hold), else a new one is put on. Reference "reset" is the model with the adapter
    switched off, "previous" the adapter as it starts. Without ``lora`` the whole model is trained; its reference is
    ``reference_model``, or else the model as given.

    Reference log-probabilities are kept in the folder ``cache`` by content (``reference``). ``validation`` pairs stop the
    training early and choose the state that is restored, by the training's own loss. An interrupted call goes on from
    the last checkpoint in ``checkpoint_dir`` and ends in the same weights. Works under ``accelerate launch``; then every process
    returns the same model. Raises UserError for pairs or settings that cannot be used.
    """
    start = time.monotonic()
    goals = modpo.parse_weights(settings.objective_weights, settings.ordering)
    frames = {"training": pairs} | ({} if validation is None else {"validation": validation})
    rows, margins = {}, {}
    for what, frame in frames.items():
        rows[what], margins[what] = _learnable(model, tokenizer, frame, what, settings, goals)
    if hasattr(model, "peft_config"):
        raise UserError(
            "the model has an adapter already; give the model below it, and the adapter's folder as adapter_in"
        )
    if adapter_in is not None and settings.lora is None:
        raise UserError("adapter_in is given, but lora is none: merge the adapter first, or train it on")

    with contextlib.ExitStack() as stack:
        folder = Path(checkpoint_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="underseer-")))
        trainer, steering = _trainer(
            model, tokenizer, rows, settings, goals, folder, checkpoint_dir is not None,
            adapter_in=adapter_in, reference_model=reference_model, cache=cache,
        )  # fmt: skip
        try:
            steps = _train(trainer, steering, settings, margins, None if checkpoint_dir is None else folder)
        finally:
            trainer.release()
    seen = trainer.batches_seen(steps)
    return AlignResult(
        model=trainer.model,
        curves=curves_of(trainer.state.log_history, CURVES),
        pairs_trained=len(rows["training"]),
        tokens_trained=trainer.batches.total(rows["training"].tokens, seen),
        tokens_scored=trainer.cache.tokens,
        best_step=steering.best_step if steering.best else steps,
        seconds=time.monotonic() - start,
        dropped=rows["training"].dropped,
        cut=rows["training"].cut,
        counted=int(rows["training"].counted.sum()),
        variant=settings.variant,
        dpo_beta=trainer.beta,
    )


def _learnable(
    model: Any, tokenizer: Any, frame: pd.DataFrame, what: str, settings: AlignSettings, goals: modpo.Objectives
) -> tuple[PairRows, dict[str, float]]:
    """Token rows of the pairs, and the margin of each by its id."""
    from underseer.training.pair_rows import pair_rows

    counted = None
    if settings.nll_weight and len(frame):
        counted = modpo.scores(frame, "safety", "unsafe_chosen") < settings.unsafe_threshold
    length = longest_row(model, settings.train.max_length)
    rows = pair_rows(tokenizer, frame, what, length=length, counted=counted)
    values: np.ndarray = modpo.margins(frame, goals.others, settings.margin_scale)
    return rows, dict(zip(rows.ids, values[rows.index].tolist(), strict=True))


def _trainer(
    model: Any, tokenizer: Any, rows: dict[str, PairRows], settings: AlignSettings, goals: modpo.Objectives, folder: Path, save: bool,
    *, adapter_in: Any, reference_model: Any, cache: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """The trainer with its reference log-probabilities, not yet shifted, and what steers it."""
    from trl import DPOConfig

    from underseer.models.adapters import load_lora, lora_config
    from underseer.training.loop import arguments_for
    from underseer.training.pair_trainer import PairTrainer
    from underseer.training.reference import ReferenceCache, model_key
    from underseer.training.steering import Steering

    device = resolve_device(settings.train.device)
    bf16 = use_bf16(model, device, settings.train.precision)
    previous = settings.reference == "previous"
    store = ReferenceCache()
    if cache is not None:
        known = model_key(reference_model or model, adapter_in if previous else None, bf16=bf16)
        store = ReferenceCache(Path(cache) / known)
    more = {"ref_model": reference_model} if settings.lora is None else {}
    if settings.lora is not None and adapter_in is None:
        more["peft_config"] = lora_config(model, settings.lora)
    elif adapter_in is not None:
        model = load_lora(model, adapter_in, trainable=True)
    beta, _ = modpo.dpo_equivalent(0.0, settings.beta, goals.weight, settings.divide_by_weight)
    arguments = arguments_for(
        settings.train, folder, device, len(rows["training"]), DPOConfig, **_options(settings, device.type, beta)
    )
    steering = Steering(settings.train, validate="validation" in rows, save=save)
    trainer = PairTrainer(
        model, arguments, rows["training"], rows.get("validation"), tokenizer=tokenizer, cache=store, bf16=bf16,
        nll_weight=settings.nll_weight, reward_scale=settings.beta, adapter_is_reference=previous, callbacks=[steering], **more,
    )  # fmt: skip
    return trainer, steering


def _options(settings: AlignSettings, device: str, beta: float) -> dict[str, Any]:
    """Fields of DPOConfig: ours, and those that the user adds."""
    from trl import DPOConfig

    ours = dict(
        beta=beta,
        precompute_ref_log_probs=True,
        max_length=settings.train.max_length,
        pad_to_multiple_of=8 if device == "cuda" else None,
        per_device_eval_batch_size=4 * settings.train.batch_size,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=False,  # autocast is ours, as in all our training
        ddp_find_unused_parameters=False,
    )
    known = DPOConfig.__dataclass_fields__
    for name in settings.trl_options:
        if name not in known:
            raise UserError(f"trl_options: DPOConfig has no field {name!r}{nearest(name, known)}")
        if name in ours:
            raise UserError(f"trl_options: {name!r} follows from the other settings; leave it out")
    return ours | dict(settings.trl_options)


def _train(trainer: Any, steering: Any, settings: AlignSettings, margins: dict[str, Any], folder: Path | None) -> int:
    """Shift the reference of the chosen answers, then train; gives the steps taken."""
    from underseer.training.loop import run
    from underseer.training.pair_trainer import shift_reference

    trainer.train_dataset = shift_reference(trainer.train_dataset, margins["training"], settings.beta)
    if "validation" in margins:
        trainer.eval_dataset = shift_reference(trainer.eval_dataset, margins["validation"], settings.beta)
    return run(trainer, trainer.model, steering, settings.train, folder)
