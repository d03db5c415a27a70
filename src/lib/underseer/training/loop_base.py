"""What our trainers share on top of the Hugging Face Trainer: hooks that save work in each step, and its arguments.

Imports torch and transformers: reach it through ``train`` or ``selfmoa.align`` only.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from underseer.models.loading import quiet
from underseer.training.finetune import CPU_ROWS

if TYPE_CHECKING:
    from underseer.training.finetune import TrainSettings


class Lean:
    """Hooks of the Trainer, mixed in before it: autocast of our choosing, and less to do in each step."""

    autocast_bf16 = False
    trained: list[torch.nn.Parameter] | None = None

    def hush(self) -> None:
        """Leave the progress to ``Steering``."""
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        if not self.autocast_bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16, cache_enabled=cache_enabled)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the Trainer's own count walks over all modules in each step

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """The Trainer's own walks over all modules twice in each step; with one process there is nothing to unshard."""
        if self.accelerator.num_processes > 1:
            return super()._clip_grad_norm(model)
        if self.trained is None:
            self.trained = [p for p in model.parameters() if p.requires_grad]
        return torch.nn.utils.clip_grad_norm_(self.trained, self.args.max_grad_norm)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with quiet():
            super()._save_checkpoint(*args, **kwargs)


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
