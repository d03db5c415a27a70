"""What steers a training: when to log, validate, save and stop; the best state, and checkpoints to go on from.

The Trainer's own early stopping and best state would write a checkpoint at every look at the validation rows.
Imports torch and transformers: reach it through ``loop`` only.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, TrainerCallback

from underseer.progress import bar

if TYPE_CHECKING:
    from underseer.training.settings import TrainSettings

SAVE_SECONDS = 60.0  # least time between two checkpoints
LOG_STEPS = 10  # steps between two points of the training curve, at most
MARK = "complete.json"  # written last into a checkpoint: one without it was cut short and is ignored


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
        self.bar = bar(state.max_steps, "train", "step", shown=self.settings.progress, initial=state.global_step)

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
