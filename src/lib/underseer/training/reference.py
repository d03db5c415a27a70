"""Log-probabilities of answers under the reference model: computed once, and kept on disk by content.

A value belongs to the model's weights (and adapter), its precision, and the token ids of prompt and answer. Neither beta, nor
weights, nor margins nor which answer was chosen enter: a sweep over them needs one pass. A folder of the cache belongs to a
model, a file in it (safetensors) to a set of answers, scored in the order of their tokens. Sets that overlap share nothing: in
other batches an answer's value is rounded otherwise, and a result would depend on which stage came first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from underseer.models.batches import pad, sorted_batches

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from underseer.training.pair_rows import PairRows

VOLATILE = ("_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "pad_token_id")
Score = Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]  # prompts, answers -> sums of log-probabilities (n,)


def model_key(model: PreTrainedModel, adapter: Path | None = None, *, bf16: bool = False) -> str:
    """Hash of all of a model that decides log-probabilities: configuration, weights, precision, adapter."""
    import torch

    digest = hashlib.sha256()
    config = {key: value for key, value in model.config.to_dict().items() if key not in VOLATILE}
    digest.update(json.dumps([config, bf16], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy())
    if adapter is not None:
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            digest.update((Path(adapter) / file).read_bytes())
    return digest.hexdigest()[:32]


def row_key(prompt: np.ndarray, answer: np.ndarray) -> bytes:
    """Sixteen bytes that stand for the token ids of a prompt and its answer."""
    both = np.concatenate([[len(prompt)], prompt, answer]).astype("<i8")
    return hashlib.sha256(both.tobytes()).digest()[:16]


class ReferenceCache:
    """Known log-probabilities of one model. Without a folder, they last as long as the object."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.known: dict[str, dict[bytes, float]] = {}  # by set of answers
        self.tokens = 0  # that had to be read, of answers and their prompts

    def pairs(self, rows: PairRows, score: Score, *, write: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities (n,) float32 of the chosen and the rejected answers; ``score`` computes a set not known."""
        prompts, answers = rows.prompts * 2, rows.chosen + rows.rejected
        keys = [row_key(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        once = {key: i for i, key in enumerate(keys)}.values()
        todo = sorted(once, key=lambda i: (tuple(prompts[i]), tuple(answers[i])))
        order = [keys[i] for i in todo]
        name = hashlib.sha256(b"".join(order)).hexdigest()[:24]
        if name not in self.known:
            self.known[name] = self._load(name)
        known = self.known[name]
        if len(known) < len(order):
            values = score([prompts[i] for i in todo], [answers[i] for i in todo])
            known.update(zip(order, values.tolist(), strict=True))
            self.tokens += sum(len(prompts[i]) + len(answers[i]) for i in todo)
            if write and self.folder is not None:
                self._save(name, order, values)
        sums = np.asarray([known[key] for key in keys], dtype=np.float32)
        return sums[: len(rows)], sums[len(rows) :]

    def _load(self, name: str) -> dict[bytes, float]:
        from safetensors.numpy import load_file

        if self.folder is None or not (path := self.folder / f"{name}.safetensors").is_file():
            return {}
        stored = load_file(path)
        return dict(zip(map(bytes, stored["keys"]), stored["log_probs"].tolist(), strict=True))

    def _save(self, name: str, keys: list[bytes], values: np.ndarray) -> None:
        from safetensors.numpy import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        stored = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
        partial = self.folder / f"{name}.{os.getpid()}"
        save_file({"keys": stored.copy(), "log_probs": values.astype(np.float32)}, partial)
        partial.replace(self.folder / f"{name}.safetensors")  # whole, or not there


def answer_log_probs(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Sums of log-probabilities (n,), float32, in nats, of answers after their prompts, in batches of like length.

    ``model`` is a causal language model with TRL's seam ``fused_lm_head`` (``head.CompletionHead``).
    """
    import torch

    rows = [np.concatenate(both) for both in zip(prompts, answers, strict=True)]
    begins = np.asarray([len(prompt) for prompt in prompts])
    out = np.empty(len(rows), dtype=np.float32)
    with torch.inference_mode():
        for batch in sorted_batches(np.asarray([len(row) for row in rows]), batch_size) if rows else []:
            ids, mask = pad([rows[i] for i in batch], pad_id)
            learnt = mask * (np.arange(ids.shape[1]) >= begins[batch][:, None])
            inputs = {"input_ids": ids, "attention_mask": mask, "labels": np.where(learnt, ids, -100)}
            inputs = {key: torch.from_numpy(value).to(device) for key, value in inputs.items()}
            scored = model(**inputs, fused_lm_head=True, use_cache=False).log_probs
            out[batch] = scored.float().sum(dim=1).cpu().numpy()
    return out
