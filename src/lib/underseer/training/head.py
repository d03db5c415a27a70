"""The language-model head of preference training: log-probabilities of the answers' tokens, and of no others.

TRL's trainers ask a model for them through one seam, ``model(..., labels=labels, fused_lm_head=True).log_probs``. Its own
answer to that call, made for GPUs, scores every position of every row on a CPU (prompts and padding too), goes over
the logits four times more for metrics, and computes them again in the backward pass.

Imports torch and trl.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")  # heads that are left to TRL
CHUNK = 2**26  # logits held at once (256 MiB in fp32); more are computed in parts, and again in the backward pass


class CompletionHead:
    """Stands as ``model.forward`` after TRL has put its own there; ``log_probs`` keeps what was computed last.

    On devices where TRL's kernel runs (CUDA, XPU), and for models that scale their logits, TRL's head goes on. Else entropy, mean logits
    and top-1 hits, which TRL asks for in every step to log them, are zeros: ``PairTrainer`` logs none of them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.theirs = model, model.forward
        config = model.config.get_text_config()
        self.softcap = getattr(config, "final_logit_softcapping", None)
        self.scaled = any(getattr(config, name, None) not in (None, 1) for name in SCALES)
        self.log_probs: torch.Tensor | None = None
        model.forward = self

    def remove(self) -> None:
        """Give the model back the ``forward`` of its class."""
        self.model.__dict__.pop("forward", None)

    def __call__(self, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return self.theirs(*args, **kwargs, **({} if labels is None else {"labels": labels}))
        theirs = self.scaled or labels.device.type in ("cuda", "xpu") or kwargs.get("output_router_logits")
        if theirs:
            output = self.theirs(*args, fused_lm_head=True, labels=labels, **kwargs)
        else:
            output = self._ours(labels, *args, **kwargs)
        self.log_probs = output.log_probs
        return output

    def _ours(self, labels: torch.Tensor, *args: Any, **kwargs: Any) -> FusedCausalLMOutput:
        hidden = self.model.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        mask = labels != -100
        picked, targets = hidden[mask], labels[mask]
        head = self.model.get_output_embeddings()
        rows = max(1, CHUNK // head.weight.shape[0])
        if len(picked) <= rows:
            scores = self._scores(head, picked, targets)
        else:
            parts = zip(picked.split(rows), targets.split(rows), strict=True)
            scores = torch.cat([checkpoint(self._scores, head, *part, use_reentrant=False) for part in parts])
        log_probs = scores.new_zeros(mask.shape).masked_scatter(mask, scores)
        nothing = log_probs.new_zeros(()).expand(mask.shape)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    def _scores(self, head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = head(hidden).float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
