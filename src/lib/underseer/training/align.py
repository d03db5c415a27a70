"""Alignment by preference pairs: TRL's DPO with a shifted reference, of whole models or adapters.

The column ``shift`` of the pairs, in nats, is added to the reference log-probabilities of the chosen answers. With a shift of
margin / beta and a temperature of beta / w this is MODPO (``maths.modpo``); without a shift it is plain DPO.
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
from underseer.models.adapters import LoraSettings
from underseer.models.loading import resolve_device
from underseer.training.precision import longest_row, use_bf16
from underseer.training.settings import TrainSettings, curves_of

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.training.dpo import ShiftedDPO, Trained
    from underseer.training.loop import Steering
    from underseer.training.pair_rows import PairRows
    from underseer.training.pair_trainer import Faster

REFERENCES = ("reset", "previous")


@dataclass(frozen=True)
class AlignSettings:
    """How to align. ``train.batch_size`` counts pairs per optimiser step and micro-batch, over all processes.

    Dropout is off while aligning, an adapter's too, as TRL does: else policy and reference would differ by chance.
    """

    train: TrainSettings
    temperature: float = 0.1  # beta of DPO's sigmoid; for MODPO beta / w
    beta: float | None = None  # of the rewards in the curves; None: the temperature
    reference: str = "reset"  # reset: the model below the adapter; previous: what training starts from, frozen
    lora: LoraSettings | None = field(default_factory=LoraSettings)  # None: train the whole model
    nll_weight: float = 0.0  # of the NLL per token of the chosen answers marked ``counted``
    fast: bool = True  # False: TRL's trainer as it is, at less than half the speed on a CPU and without the NLL term
    gradient_checkpointing: bool = False  # less memory, about a fifth slower
    trl_options: Mapping[str, Any] = field(default_factory=dict)  # further fields of trl.DPOConfig, such as fsdp

    def __post_init__(self) -> None:
        for name, value in {"temperature": self.temperature, "beta": self.reward_scale}.items():
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} = {value:g}; it must be above 0")
        if not self.nll_weight >= 0:
            raise UserError(f"nll_weight = {self.nll_weight:g}; it must be at least 0")
        if self.nll_weight and not self.fast:
            raise UserError(f"nll_weight = {self.nll_weight:g}: TRL's trainer has no such term; take fast = True, or 0")
        if self.reference not in REFERENCES:
            raise UserError(
                f"reference = {self.reference!r}; allowed are {', '.join(REFERENCES)}{nearest(self.reference, REFERENCES)}"
            )

    @property
    def reward_scale(self) -> float:
        """Factor between log-ratios and the rewards in the curves."""
        return self.temperature if self.beta is None else self.beta


@dataclass(frozen=True)
class Origin:
    """From where training starts, and what the reference is, beside the model."""

    adapter_in: Path | str | None = None  # the previous iterate's, which goes on training with its own rank and targets
    reference_model: PreTrainedModel | None = None  # of a model that is trained whole; None: the model as given
    cache: Path | str | None = None  # folder in which reference log-probabilities are kept by content (``reference``)


@dataclass(frozen=True)
class AlignResult:
    """An aligned model (best state, eval mode; a peft model where an adapter was trained) and how it got there."""

    model: PreTrainedModel
    curves: pd.DataFrame  # step, metric, value: see CURVES
    trained: Trained  # log-probabilities and TRL's loss of some pairs at the end: what the formula can be checked on
    pairs_trained: int  # different pairs that were learnt from
    tokens_trained: int  # real tokens through forward and backward
    tokens_scored: int  # real tokens that the reference pass read; 0 where the cache had all
    best_step: int
    seconds: float
    dropped: dict[str, int]  # pairs left out: long_prompt, same_answer
    cut: int  # answers that lost their end to max_length
    counted: int  # chosen answers that the NLL term may learn from


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
    "logps/chosen": "chosen_logp",  # TRL's own names; its rewards hold the shift, and are left out
    "logps/rejected": "rejected_logp",
}


def align(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    settings: AlignSettings,
    *,
    validation: pd.DataFrame | None = None,
    origin: Origin = Origin(),
    checkpoint_dir: Path | str | None = None,
) -> AlignResult:
    """Align ``model``, in place, with preference pairs: ``id, prompt, chosen, rejected``; optionally ``shift`` (nats, else 0)
    and ``counted`` (whether the NLL term may learn from the chosen answer, else true).

    With ``settings.lora``, ``model`` is the reset model without adapter; without, the whole model is trained. ``validation`` pairs
    stop the training early and choose the state that is restored, by the training's own loss. An interrupted call goes on from
    the last checkpoint in ``checkpoint_dir`` and ends in the same weights. Works under ``accelerate launch``; then every process
    returns the same model. Raises UserError for pairs or settings that cannot be used.
    """
    from underseer.training.loop import run

    start = time.monotonic()
    rows = _rows(model, tokenizer, pairs, validation, settings)
    _check_adapters(model, settings, origin.adapter_in)
    with contextlib.ExitStack() as stack:
        folder = Path(checkpoint_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="underseer-")))
        trainer, steering = make_trainer(
            model, tokenizer, rows, settings, folder, origin, save=checkpoint_dir is not None
        )
        try:
            steps = run(trainer, trainer.model, steering, settings.train, folder if checkpoint_dir else None)
            trained = trainer.trained_on()
        finally:
            trainer.release()
    return _result(trainer, steering, rows["training"], steps, trained, time.monotonic() - start)


def _result(
    trainer: ShiftedDPO, steering: Steering, rows: PairRows, steps: int, trained: Trained, seconds: float
) -> AlignResult:
    return AlignResult(
        model=trainer.model,
        curves=curves_of(trainer.state.log_history, CURVES),
        trained=trained,
        pairs_trained=len(rows),
        tokens_trained=trainer.tokens_trained(steps),
        tokens_scored=trainer.tokens_scored,
        best_step=steering.best_step if steering.best else steps,
        seconds=seconds,
        dropped=rows.dropped,
        cut=rows.cut,
        counted=int(rows.counted.sum()),
    )


def _rows(
    model: Any, tokenizer: Any, pairs: pd.DataFrame, validation: pd.DataFrame | None, settings: AlignSettings
) -> dict[str, PairRows]:
    """Token rows by the name of their frame."""
    from underseer.training.pair_rows import pair_rows

    frames = {"training": pairs} | ({} if validation is None else {"validation": validation})
    length = longest_row(model, settings.train.max_length)
    return {name: pair_rows(tokenizer, frame, name, length=length) for name, frame in frames.items()}


def _check_adapters(model: Any, settings: AlignSettings, adapter_in: Any) -> None:
    if hasattr(model, "peft_config"):
        raise UserError(
            "the model has an adapter already; give the model below it, and the adapter's folder as adapter_in"
        )
    if adapter_in is not None and settings.lora is None:
        raise UserError("adapter_in is given, but lora is none: merge the adapter first, or train it on")


def make_trainer(
    model: Any, tokenizer: Any, rows: dict[str, PairRows], settings: AlignSettings, folder: Path, origin: Origin = Origin(),
    *, save: bool = False,
) -> tuple[ShiftedDPO, Steering]:  # fmt: skip
    """The trainer, its reference log-probabilities computed and shifted, and what steers it."""
    from trl import DPOConfig

    from underseer.models.adapters import load_lora, lora_config
    from underseer.training.loop import arguments_for
    from underseer.training.steering import Steering

    device = resolve_device(settings.train.device)
    bf16 = use_bf16(model, device, settings.train.precision)
    more: dict[str, Any] = {"tokenizer": tokenizer, "bf16": bf16}
    if settings.fast:
        more["faster"] = _faster(origin.reference_model or model, settings, origin, bf16)
    if settings.lora is None:
        more["ref_model"] = origin.reference_model
    if origin.adapter_in is not None:
        model = load_lora(model, origin.adapter_in, trainable=True)
    elif settings.lora is not None:
        more["peft_config"] = lora_config(model, settings.lora)
    arguments = arguments_for(
        settings.train, folder, device, len(rows["training"]), DPOConfig, **_options(settings, device.type)
    )
    steering = Steering(settings.train, validate="validation" in rows, save=save)
    return _kind(settings)(
        model, arguments, rows["training"], rows.get("validation"), callbacks=[steering], **more
    ), steering


def _kind(settings: AlignSettings) -> type[ShiftedDPO]:
    from underseer.training import dpo, pair_trainer

    return pair_trainer.PairTrainer if settings.fast else dpo.ShiftedDPO


def _faster(reference: Any, settings: AlignSettings, origin: Origin, bf16: bool) -> Faster:
    from underseer.training.pair_trainer import Faster
    from underseer.training.reference import ReferenceCache, model_key

    previous = settings.reference == "previous"
    store = ReferenceCache()
    if origin.cache is not None:
        known = model_key(reference, origin.adapter_in if previous else None, bf16=bf16)
        store = ReferenceCache(Path(origin.cache) / known)
    return Faster(store, settings.nll_weight, settings.reward_scale, adapter_is_reference=previous)


def _options(settings: AlignSettings, device: str) -> dict[str, Any]:
    """Fields of DPOConfig: ours, and those that the user adds."""
    from trl import DPOConfig

    ours = dict(
        beta=settings.temperature,
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
