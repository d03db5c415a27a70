"""The same as ``dpo.ShiftedDPO`` in less than half the time on a CPU: less work in each step, TRL's loss.

Nothing of TRL's loss is repeated here. What is hooked: the reference pass (``reference``), the head (``head``), batches of
like length, and what is logged.

Imports torch and trl (six seconds): reach it through ``align`` only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from underseer.maths.modpo import length_normalised_nll
from underseer.models.batches import LengthGroupedBatches, sorted_batches
from underseer.training.dpo import ShiftedDPO
from underseer.training.head import CompletionHead
from underseer.training.pair_rows import PairRows
from underseer.training.reference import ReferenceCache, answer_log_probs

NOTED = ("chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy", "nll")


class PairBatches(LengthGroupedBatches):
    """Batches for one of several processes: each batch is cut into as many parts, and this process has one of them.

    A last batch with fewer pairs than processes is left out.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, process: int = 0, processes: int = 1) -> None:
        super().__init__(lengths, batch_size, seed)
        self.process, self.processes = process, processes

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest >= self.processes)

    def __iter__(self) -> Any:
        for batch in self.batches(self.epoch):
            if len(batch) >= self.processes:
                yield np.array_split(batch, self.processes)[self.process].tolist()

    def total(self, counts: np.ndarray, batches_seen: int) -> int:
        """Sum of ``counts`` (one a pair) over the first ``batches_seen`` batches of all processes, over epochs."""
        total, epoch = 0, 0
        while batches_seen > 0:
            batches = [batch for batch in self.batches(epoch) if len(batch) >= self.processes]
            total += sum(int(counts[batch].sum()) for batch in batches[:batches_seen])
            batches_seen, epoch = batches_seen - len(batches), epoch + 1
        return total


class _Loader(torch.utils.data.DataLoader):
    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


@dataclass(frozen=True)
class Faster:
    """What the faster trainer takes beside. ``adapter_is_reference``: the reference is the adapter as it starts, not the model
    below it. ``nll_weight`` times the length-normalised NLL of the chosen answers marked ``counted`` is added to the loss."""

    cache: ReferenceCache
    nll_weight: float
    reward_scale: float  # beta of the rewards in the curves; the loss's may be divided by w
    adapter_is_reference: bool


class PairTrainer(ShiftedDPO):
    """``ShiftedDPO`` with what the module says hooked."""

    def __init__(
        self, model: Any, args: DPOConfig, rows: PairRows, validation: PairRows | None, *, faster: Faster, **kwargs: Any
    ) -> None:
        self.faster = faster
        self.heads: list[CompletionHead] = []
        self.sums: dict[str, torch.Tensor] = {}
        super().__init__(model, args, rows, validation, **kwargs)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's frozen copy: what it would say is in the columns
        self.ref_model = None  # not needed any more
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        self.batches = PairBatches(rows.longest, args.per_device_train_batch_size, args.seed, *share)

    # ------------------------------------------------------------------------------------------- data and reference

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Reference log-probabilities from the cache, or from one pass without gradients that fills it."""
        rows = self.rows if name == "train" else self.validation
        model = self.accelerator.unwrap_model(self.ref_model or self.model)
        if not self.heads:
            self.heads = [CompletionHead(_base(each)) for each in (self.model, self.ref_model) if each is not None]
        below = hasattr(model, "peft_config") and not self.faster.adapter_is_reference
        model.eval()
        with model.disable_adapter() if below else contextlib.nullcontext(), self.autocast_smart_context_manager():
            score = self._score(model, batch_size)
            chosen, rejected = self.faster.cache.pairs(rows, score, write=self.accelerator.is_main_process)
        for column, values in {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}.items():
            dataset = dataset.add_column(column, values)
        return dataset

    def _score(self, model: Any, batch_size: int) -> Any:
        """What computes log-probabilities of answers: each process its part of them."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes

        def score(prompts: list[np.ndarray], answers: list[np.ndarray]) -> np.ndarray:
            mine = answer_log_probs(
                model, prompts[process::processes], answers[process::processes], pad_id=self._tokenizer.pad_token_id,
                batch_size=2 * batch_size, device=self.args.device,
            )  # fmt: skip
            if processes == 1:
                return mine
            parts = gather_object([(process, mine)])
            out = np.empty(len(prompts), dtype=np.float32)
            for part, values in parts:
                out[part::processes] = values
            return out

        return score

    def _collate(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.data_collator(examples)
        batch["shift"] = torch.tensor([example["shift"] for example in examples])
        batch["counted"] = torch.tensor([example["counted"] for example in examples])
        return batch

    def get_train_dataloader(self) -> Any:
        return _Loader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self._collate,
            generator=torch.Generator(),
            pin_memory=self.args.device.type == "cuda",
        )

    # -------------------------------------------------------------------------------------------------------- steps

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's loss; with the NLL term, and so that the mean over processes is the mean over all their pairs."""
        counted, shift = inputs.pop("counted"), inputs.pop("shift")
        with _gathering_nothing(self.accelerator):
            loss = super().compute_loss(model, inputs)
        log_probs, self.heads[0].log_probs = self.heads[0].log_probs, None
        half = len(shift)
        nll = length_normalised_nll(log_probs[:half], inputs["completion_mask"][:half, 1:], counted)
        if self.faster.nll_weight:
            loss = loss + self.faster.nll_weight * nll.mean()
        self._note(log_probs.detach().sum(dim=1), inputs, shift, nll.detach())
        if self.accelerator.num_processes > 1 and self.model.training:
            total = self.accelerator.reduce(torch.tensor(float(half), device=loss.device), reduction="mean")
            loss = loss * (half / total)
        return loss

    def _note(self, sums: torch.Tensor, inputs: dict[str, Any], shift: torch.Tensor, nll: torch.Tensor) -> None:
        """Add up what is logged: log-probabilities in nats, and rewards beta * (log pi - log ref) without the shift."""
        mode = "train" if self.model.training else "eval"
        chosen, rejected = sums.chunk(2)
        good = self.faster.reward_scale * (chosen - (inputs["ref_chosen_logps"] - shift))
        bad = self.faster.reward_scale * (rejected - inputs["ref_rejected_logps"])
        noted = [chosen, rejected, good, bad, good - bad, (good > bad).float(), nll, torch.ones_like(nll)]
        noted = torch.stack([values.float().sum() for values in noted])
        self.sums[mode] = self.sums.get(mode, 0) + noted
        self._metrics[mode].clear()  # TRL's: rewards with the shift, and what the head does not compute

    def _means(self, mode: str, gather: bool) -> dict[str, float]:
        sums = self.sums.pop(mode, None)
        if sums is None:
            return {}
        if gather and self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, reduction="sum")
        *values, n = sums.tolist()
        return {name: value / n for name, value in zip(NOTED, values, strict=True)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self._means("train", gather=True))
        super(DPOTrainer, self).log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Means over the validation pairs, the whole of them in each process."""
        self.model.eval()
        loss = 0.0
        for indices in sorted_batches(self.validation.longest, self.args.eval_batch_size):
            batch = self._prepare_inputs(self._collate(self.eval_dataset.__getitems__(indices.tolist())))
            with self.autocast_smart_context_manager():
                loss += self.compute_loss(self.accelerator.unwrap_model(self.model), batch).item() * len(indices)
        values = {f"eval_{name}": value for name, value in self._means("eval", gather=False).items()}
        values["eval_loss"] = loss / len(self.validation)
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        self.model.train()
        return values

    def tokens_trained(self, steps: int) -> int:
        """Real tokens that so many optimizer steps read, in all processes."""
        accumulated = self.args.gradient_accumulation_steps
        epochs, rest = divmod(steps, -(-len(self.batches) // accumulated))
        seen = epochs * len(self.batches) + min(rest * accumulated, len(self.batches))
        return self.batches.total(self.rows.tokens, seen)

    @property
    def tokens_scored(self) -> int:
        """Real tokens that the reference pass read; 0 where the cache had all."""
        return self.faster.cache.tokens

    def _last_log_probs(self) -> tuple[float, float]:
        log_probs, self.heads[0].log_probs = self.heads[0].log_probs, None
        chosen, rejected = log_probs.float().sum(dim=1).tolist()
        return chosen, rejected

    def release(self) -> None:
        """Give the model back with the ``forward`` of its class."""
        for head in self.heads:
            head.remove()
        super().release()


@contextlib.contextmanager
def _gathering_nothing(accelerator: Any) -> Iterator[None]:
    """TRL gathers a dozen metrics from all processes in each step. They are not logged here, and parts may differ in size."""
    if accelerator.num_processes == 1:
        yield
        return
    accelerator.gather = accelerator.gather_for_metrics = lambda tensors, *args, **kwargs: tensors
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def _base(model: Any) -> Any:
    """The language model below an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model
