"""The training loop behind ``finetune``: the Hugging Face Trainer with our batches, validation, best state and
checkpoints.

Why not the Trainer alone, with its ``compute_loss_func``, grouping by length, validation, early stopping and best state: a
training of the demo's student then takes 18 % more CPU time (docs/benchmarks.md): 7 at its start (see ``run``), the rest for its
validation and for the checkpoint that it writes at each look. What did not pay has no hook here.

Imports torch and transformers: reach it through ``finetune`` or ``align`` only.
"""

from __future__ import annotations

import contextlib
import gc
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from underseer.errors import UserError
from underseer.models.batches import LengthGroupedBatches, TokenRows, sorted_batches
from underseer.models.loading import n_parameters, quiet, resolve_device
from underseer.training.objectives import weighted_items
from underseer.training.precision import CPU_ROWS, use_bf16
from underseer.training.settings import FitResult, curves_of, rate_for
from underseer.training.steering import Steering, last_checkpoint

if TYPE_CHECKING:
    from underseer.training.settings import TrainSettings

Loss = Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor | None], torch.Tensor]
Metrics = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[dict[str, float], float]]


class Lean:
    """Hooks that our trainers share, mixed in before the Trainer: autocast of our choosing, and a quiet console."""

    autocast_bf16 = False

    def hush(self) -> None:
        """Leave the progress to ``Steering``."""
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        if not self.autocast_bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16, cache_enabled=cache_enabled)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with quiet():
            super()._save_checkpoint(*args, **kwargs)


class Fit(Lean, Trainer):
    """The Trainer with length-grouped batches and a validation pass in batches of like length.

    ``loss_sum(logits, labels, progress, weight)`` is the summed loss of a micro-batch; it is divided by the number of
    items (rows, or tokens to predict) of the whole optimiser step. ``metrics(logits, labels, weight)`` gives means
    over a batch and its number of items. ``weight`` (n,) is None where rows have none; else an item counts as much as
    its row weighs, in the sums and in the numbers.
    """

    def __init__(self, *args: Any, loss_sum: Loss, metrics: Metrics, bf16: bool, **kwargs: Any) -> None:
        super().__init__(*args, compute_loss_func=self._loss, **kwargs)
        self.loss_sum, self.metrics, self.autocast_bf16 = loss_sum, metrics, bf16
        self.weight: torch.Tensor | None = None  # of the micro-batch at hand
        rows: TokenRows = self.train_dataset
        classes = None if rows.targets is None else rows.targets >= 0.5
        self.batches = LengthGroupedBatches(rows.lengths, self.args.train_batch_size, self.args.seed, classes=classes)
        self.hush()

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=_as_is,
            generator=torch.Generator(),  # leaves the global generator to dropout alone
            pin_memory=self.args.device.type == "cuda",
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.weight = inputs.pop("weight", None)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        if not batch_samples or "weight" not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)
        return sum(weighted_items(batch["labels"], batch["weight"]) for batch in batch_samples).to(device)

    def _loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        progress = self.state.global_step / max(self.state.max_steps, 1)
        return self.loss_sum(outputs.logits.float(), labels, progress, self.weight) / num_items_in_batch

    @torch.inference_mode()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Means over the validation rows. Logits are dropped batch by batch, so memory does not grow with the rows."""
        rows: TokenRows = self.eval_dataset
        model = self.accelerator.unwrap_model(self.model).eval()
        sums: dict[str, float] = {}
        total = 0.0
        for indices in sorted_batches(rows.lengths, self.args.eval_batch_size):
            batch = {key: value.to(self.args.device) for key, value in rows.__getitems__(indices).items()}
            labels, weight = batch.pop("labels"), batch.pop("weight", None)
            with self.autocast_smart_context_manager():
                logits = model(**batch).logits
            means, n = self.metrics(logits.float(), labels, weight)
            for name, value in means.items():
                sums[name] = sums.get(name, 0.0) + value * n
            total += n
        values = {f"eval_{name}": value / (total or 1) for name, value in sums.items()}
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values


def _as_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch


def arguments_for(
    settings: TrainSettings,
    folder: Path,
    device: torch.device,
    n_train: int,
    kind: type[TrainingArguments] = TrainingArguments,
    **more: Any,
) -> TrainingArguments:
    """The Trainer's arguments, of the given kind; ``n_train`` rows make an epoch."""
    steps = math.ceil(
        math.ceil(math.ceil(n_train / settings.batch_size) / settings.gradient_accumulation) * settings.epochs
    )
    values = dict(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=max(CPU_ROWS if device.type == "cpu" else 64, settings.batch_size),
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps or math.ceil(settings.warmup_ratio * steps),
        lr_scheduler_type=settings.scheduler,
        optim="adamw_torch_fused" if device.type in ("cpu", "cuda") else "adamw_torch",
        use_cpu=device.type == "cpu",
        seed=settings.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=2,  # the newest may be cut short: the one before stays until it is complete
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    arguments = kind(**{**values, **more})
    arguments._n_gpu = min(arguments.n_gpu, 1)  # never DataParallel: several GPUs are the launcher's business
    return arguments


def fit(
    model: PreTrainedModel,
    train: TokenRows,
    validation: TokenRows | None,
    settings: TrainSettings,
    *,
    loss_sum: Loss,
    metrics: Metrics,
    checkpoint_dir: Path | str | None,
) -> FitResult:
    """Train ``model`` in place, from the last checkpoint in ``checkpoint_dir`` if there is one."""
    start = time.monotonic()
    device = resolve_device(settings.device)
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=rate_for(n_parameters(model)))
    steering = Steering(settings, validate=validation is not None, save=checkpoint_dir is not None)
    with contextlib.ExitStack() as stack:
        folder = Path(checkpoint_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="underseer-")))
        trainer = Fit(
            model, arguments_for(settings, folder, device, len(train)), train_dataset=train, eval_dataset=validation,
            callbacks=[steering], loss_sum=loss_sum, metrics=metrics, bf16=use_bf16(model, device, settings.precision),
        )  # fmt: skip
        steps = run(trainer, model, steering, settings, None if checkpoint_dir is None else folder)
    per_epoch = math.ceil(len(trainer.batches) / settings.gradient_accumulation)
    epochs, rest = divmod(steps, per_epoch)
    seen = epochs * len(trainer.batches) + min(rest * settings.gradient_accumulation, len(trainer.batches))
    return FitResult(
        model=model,
        curves=curves_of(trainer.state.log_history),
        tokens_trained=trainer.batches.tokens(seen),
        best_step=steering.best_step if steering.best else steps,
        seconds=time.monotonic() - start,
    )


def run(
    trainer: Trainer, model: PreTrainedModel, steering: Steering, settings: TrainSettings, checkpoint_dir: Path | None
) -> int:
    """Train, from the last checkpoint in ``checkpoint_dir`` if any; leaves the best state, in eval mode. Gives the steps taken."""
    checkpoint = last_checkpoint(checkpoint_dir) if checkpoint_dir else None
    if checkpoint is not None:
        steering.resume(checkpoint)
    use_cache = getattr(model.config, "use_cache", None)
    model.config.use_cache = False
    gc.freeze()  # else the Trainer's collection at each start walks over all imported libraries: a third of a second
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        gc.unfreeze()
        if steering.bar is not None:
            steering.bar.close()
        if use_cache is not None:
            model.config.use_cache = use_cache
    steps = trainer.state.global_step
    if steering.best and not math.isfinite(steering.best_loss):
        raise UserError(
            f"training diverged: the validation loss never was finite; lower learning_rate = {settings.learning_rate:g}"
        )
    if steering.best and steering.best_step != steps:
        steering.restore(model)
    model.eval()
    return steps
