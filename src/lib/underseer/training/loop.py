"""The training loop behind ``train``: the Hugging Face Trainer with our batches, validation, best state and
checkpoints.

Imports torch and transformers: reach it through ``train`` only.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate.optimizer
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainerCallback

from underseer.errors import UserError
from underseer.models.batches import LengthGroupedBatches, TokenRows, sorted_batches
from underseer.training.loop_base import Lean, arguments_for
from underseer.training.objectives import weighted_items

if TYPE_CHECKING:
    from underseer.training.finetune import TrainSettings

# Accelerate looks for the package lomo on the disk in every step.
accelerate.optimizer.is_lomo_available = functools.cache(accelerate.optimizer.is_lomo_available)

SAVE_SECONDS = 60.0  # least time between two checkpoints
LOG_STEPS = 10  # steps between two points of the training curve, at most
MARK = "complete.json"  # written last into a checkpoint: one without it was cut short and is ignored

Loss = Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor | None], torch.Tensor]
Metrics = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[dict[str, float], float]]


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
        self.batches = LengthGroupedBatches(self.train_dataset.lengths, self.args.train_batch_size, self.args.seed)
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

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass. The Trainer's own also sets train mode on every module, in every step."""
        inputs = self._prepare_inputs(inputs)
        self.weight = inputs.pop("weight", None)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

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
        model.train()
        return values


def _as_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch


class Steering(TrainerCallback):
    """Decides when to log, validate, save and stop; keeps the best state; shows the one progress bar."""

    def __init__(self, settings: TrainSettings, validate: bool, save: bool) -> None:
        self.settings, self.validate, self.save = settings, validate, save
        self.log_steps = max(1, min(LOG_STEPS, settings.eval_steps))
        self.best: dict[str, torch.Tensor] = {}
        self.best_loss, self.best_step, self.misses = math.inf, 0, 0
        self.saved_at, self.bar = time.monotonic(), None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.train()
        shown = {} if self.settings.progress else {"disable": True}  # else as TQDM_DISABLE says
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", unit="step",
            mininterval=0.5, leave=False, **shown,
        )  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, last = state.global_step, state.global_step >= state.max_steps
        self.bar.update(1)
        control.should_log = last or step % self.log_steps == 0
        control.should_evaluate = self.validate and (last or step % self.settings.eval_steps == 0)
        may = self.save and control.should_log and not last
        control.should_save = may and _agreed(time.monotonic() - self.saved_at >= SAVE_SECONDS)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs and self.bar is not None:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: PreTrainedModel | None = None,
        metrics: dict[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        loss = metrics["eval_loss"]
        if loss < self.best_loss or not self.best:
            self.best_loss, self.best_step, self.misses = loss, state.global_step, 0
            self.best = {name: value.detach().cpu().clone() for name, value in _trained(model).items()}
        else:
            self.misses += 1
            if self.settings.patience and self.misses >= self.settings.patience:
                control.should_training_stop, control.should_save = True, False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved_at = time.monotonic()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
        save_file(self.best, folder / "best.safetensors")
        counters = {
            "best_loss": self.best_loss if self.best else None,
            "best_step": self.best_step,
            "misses": self.misses,
        }
        (folder / MARK).write_text(json.dumps(counters))

    def resume(self, folder: Path) -> None:
        """Take up the best state and the counters of a checkpoint."""
        counters = json.loads((folder / MARK).read_text())
        self.best = load_file(folder / "best.safetensors")
        self.best_loss = math.inf if counters["best_loss"] is None else counters["best_loss"]
        self.best_step, self.misses = counters["best_step"], counters["misses"]

    def restore(self, model: PreTrainedModel) -> None:
        """Put the best state back into the model."""
        with torch.no_grad():
            for name, value in _trained(model).items():
                value.copy_(self.best[name])


def _agreed(yes: bool) -> bool:
    """What the first process says: clocks differ, and all processes must save together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return yes
    said = [yes]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def _trained(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What training can change: trainable parameters (all of a model, or an adapter's) and floating-point buffers."""
    tensors = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return tensors | {name: value for name, value in model.named_buffers() if value.is_floating_point()}


def last_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint in a folder; those cut short while being written are deleted."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        if (path / MARK).is_file():
            complete.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)  # another process may be at it
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def fit(
    model: PreTrainedModel,
    train: TokenRows,
    validation: TokenRows | None,
    settings: TrainSettings,
    *,
    loss_sum: Loss,
    metrics: Metrics,
    device: torch.device,
    bf16: bool,
    checkpoint_dir: Path | None,
) -> dict[str, Any]:
    """Train ``model`` in place, from a checkpoint in ``checkpoint_dir`` if any; gives what ``FitResult`` says, the curves as history."""
    start = time.monotonic()
    steering = Steering(settings, validate=validation is not None, save=checkpoint_dir is not None)
    with contextlib.ExitStack() as stack:
        folder = checkpoint_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="underseer-")))
        arguments = arguments_for(settings, folder, device, len(train))
        trainer = Fit(
            model, arguments, train_dataset=train, eval_dataset=validation, callbacks=[steering],
            loss_sum=loss_sum, metrics=metrics, bf16=bf16,
        )  # fmt: skip
        steps = run(trainer, model, steering, settings, checkpoint_dir)
    per_epoch = math.ceil(len(trainer.batches) / settings.gradient_accumulation)
    epochs, rest = divmod(steps, per_epoch)
    seen = epochs * len(trainer.batches) + min(rest * settings.gradient_accumulation, len(trainer.batches))
    return {
        "model": model,
        "history": trainer.state.log_history,
        "tokens_trained": trainer.batches.tokens(seen),
        "best_step": steering.best_step if steering.best else steps,
        "seconds": time.monotonic() - start,
    }


def run(
    trainer: Trainer, model: PreTrainedModel, steering: Steering, settings: TrainSettings, checkpoint_dir: Path | None
) -> int:
    """Train, from the last checkpoint in ``checkpoint_dir`` if any; leaves the best state, in eval mode. Gives the steps taken."""
    checkpoint = last_checkpoint(checkpoint_dir) if checkpoint_dir else None
    if checkpoint is not None:
        steering.resume(checkpoint)
    use_cache = getattr(model.config, "use_cache", None)
    model.config.use_cache = False
    gc.freeze()  # else each start of a training walks over all imported libraries: half a second
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
