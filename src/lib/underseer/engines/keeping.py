"""An engine whose answers are kept while it works, so that a rerun after an interruption repeats none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from underseer.engines.adapters import adapter_digest
from underseer.engines.base import Answer, Engine, Prompt, Sampling
from underseer.engines.kept import Kept

if TYPE_CHECKING:
    import numpy as np


class KeepingEngine:
    """An engine whose answers are kept, ``block`` prompts at a time. ``model`` identifies the model (a fingerprint)."""

    def __init__(self, engine: Engine, kept: Kept, model: str, block: int = 256) -> None:
        self.name, self.version = engine.name, engine.version
        self.tokenizer, self.positions = getattr(engine, "tokenizer", None), getattr(engine, "positions", None)
        self._engine, self._kept, self._block = engine, kept, block
        self._identity = [engine.name, engine.version, model]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        prompts = list(prompts)
        asked = [[*self._identity, adapter_digest(adapter), asdict(sampling), log_probs, prompt] for prompt in prompts]
        known = {i: value for i, question in enumerate(asked) if (value := self._kept.get(question)) is not None}
        answers = {i: [Answer(**fields) for fields in value] for i, value in known.items()}
        missing = sorted((i for i in range(len(prompts)) if i not in answers), key=lambda i: -_length(prompts[i]))
        for start in range(0, len(missing), self._block):
            block = missing[start : start + self._block]
            new = self._engine.generate([prompts[i] for i in block], sampling, adapter=adapter, log_probs=log_probs)
            answers.update(zip(block, new, strict=True))
            whole = [(asked[i], [asdict(a) for a in row]) for i, row in zip(block, new, strict=True) if _answered(row)]
            self._kept.put(whole)
        return [answers[i] for i in range(len(prompts))]

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._engine.score(texts, contexts=contexts, adapter=adapter)

    def close(self) -> None:
        self._engine.close()
        self._kept.close()


def _length(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def _answered(answers: Sequence[Answer]) -> bool:
    return all(answer.failure is None for answer in answers)
