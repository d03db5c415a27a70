"""TRL's DPOTrainer with one column shifted: that is MODPO (``maths.modpo`` has the equations).

The reference log-probabilities are computed before training and stand as columns beside the token ids. ``shift``, the margin over
beta, is added to the column of the chosen answers; all else is TRL's. ``pair_trainer`` has the same in less time on a CPU.

Imports torch and trl (six seconds): reach it through ``align`` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from underseer.errors import UserError
from underseer.models.loading import quiet
from underseer.training.loop import Lean

if TYPE_CHECKING:
    from underseer.training.pair_rows import PairRows


def check_stock(args: DPOConfig) -> None:
    """Raise UserError for settings under which DPO with a shifted reference is no longer MODPO."""
    wrong = {
        "loss_type": (list(args.loss_type) == ["sigmoid"], "sigmoid"),
        "loss_weights": (args.loss_weights in (None, [1.0]), "none"),
        "f_divergence_type": (args.f_divergence_type == "reverse_kl", "reverse_kl"),
        "ld_alpha": (args.ld_alpha is None, "none (no length weighting)"),
        "use_weighting": (not args.use_weighting, "false (no WPO weighting)"),
        "use_liger_kernel": (not args.use_liger_kernel, "false"),
        "sync_ref_model": (not args.sync_ref_model, "false (the reference is fixed)"),
        "precompute_ref_log_probs": (bool(args.precompute_ref_log_probs), "true"),
        "truncation_mode": (args.truncation_mode == "keep_start", "keep_start"),
        "label_smoothing": (args.label_smoothing == 0, "0"),
    }
    lines = [
        f"{name} = {getattr(args, name)!r}: MODPO is DPO's sigmoid loss with a shifted reference and nothing else; "
        f"allowed is {allowed}"
        for name, (holds, allowed) in wrong.items()
        if not holds
    ]
    if lines:
        raise UserError("\n".join(lines))


def shift_reference(dataset: Dataset, shift: np.ndarray) -> Dataset:
    """Add ``shift`` (n,), in nats, to the column of the chosen answers' reference log-probabilities."""
    shifted = (np.asarray(dataset["ref_chosen_logps"]) + shift).astype(np.float32)
    return dataset.remove_columns("ref_chosen_logps").add_column("ref_chosen_logps", shifted)


@dataclass(frozen=True)
class Trained:
    """What was trained, on some pairs: everything that the loss of each is a function of. All (n,), float32, in nats."""

    rows: np.ndarray  # places of the pairs in the frame of training pairs
    chosen: torch.Tensor  # log-probabilities under the model
    rejected: torch.Tensor
    ref_chosen: torch.Tensor  # under the reference, without the shift
    ref_rejected: torch.Tensor
    loss: torch.Tensor  # TRL's, without the NLL term


class ShiftedDPO(Lean, DPOTrainer):
    """TRL's trainer on token rows, the reference of the chosen answers shifted; ``validation`` rows are watched."""

    def __init__(
        self, model: Any, args: DPOConfig, rows: PairRows, validation: PairRows | None, *, tokenizer: Any, bf16: bool = False,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        check_stock(args)
        self.rows, self.validation, self.autocast_bf16 = rows, validation, bf16
        with quiet():
            super().__init__(
                model=model, args=args, train_dataset=_dataset(rows), processing_class=tokenizer,
                eval_dataset=None if validation is None else _dataset(validation), **kwargs,
            )  # fmt: skip
        self.train_dataset = shift_reference(self.train_dataset, rows.shift)
        if validation is not None:
            self.eval_dataset = shift_reference(self.eval_dataset, validation.shift)
        self.hush()

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # token ids already

    def tokens_trained(self, steps: int) -> int:
        """Real tokens that so many optimizer steps read: whole epochs in all, parts of them by their share."""
        return round(self.rows.tokens.sum() * steps / self.state.max_steps * self.args.num_train_epochs)

    @property
    def tokens_scored(self) -> int:
        """Real tokens that the reference pass read."""
        return int(self.rows.tokens.sum())

    @torch.no_grad()
    def trained_on(self, n: int = 8) -> Trained:
        """Log-probabilities and TRL's loss of the first ``n`` training pairs, each alone, as the model stands now."""
        self.model.eval()
        model = self.accelerator.unwrap_model(self.model)
        values = []
        for i in range(min(n, len(self.rows))):
            batch = self._prepare_inputs(self.data_collator([self.train_dataset[i]]))
            with self.autocast_smart_context_manager():
                loss = DPOTrainer.compute_loss(self, model, batch)
            chosen, rejected = self._last_log_probs()
            reference = batch["ref_chosen_logps"].item() - self.rows.shift[i], batch["ref_rejected_logps"].item()
            values.append((chosen, rejected, *reference, loss.item()))
        self._metrics["eval"].clear()
        columns = torch.tensor(values, dtype=torch.float32).reshape(-1, 5).unbind(dim=1)
        return Trained(self.rows.index[: len(values)], *columns)

    def _last_log_probs(self) -> tuple[float, float]:
        """Log-probabilities of the chosen and the rejected answer in the batch of one pair that was just computed."""
        metrics = self._metrics["eval"]
        return metrics["logps/chosen"][-1], metrics["logps/rejected"][-1]

    def release(self) -> None:
        """Give the model back as it was but for its weights."""
        if self.args.gradient_checkpointing:
            self.model.gradient_checkpointing_disable()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass  # checkpoints are for resuming, not for publishing

    def _send_telemetry(self) -> None:
        pass  # nobody is told what is trained here


def _dataset(rows: PairRows) -> Dataset:
    return Dataset.from_dict(
        {
            "id": rows.ids,
            "prompt_ids": rows.prompts,
            "chosen_ids": rows.chosen,
            "rejected_ids": rows.rejected,
            "counted": rows.counted,
            "shift": rows.shift.astype(np.float32),
        }
    )
