"""Answers kept on disk while an engine works, so that a rerun after an interruption repeats none of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines import Answer, Engine, Prompt, Sampling
from underseer.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_TABLE = "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)"


class Kept:
    """Values (anything that JSON holds) by a hash of what was asked. Several processes may share the file.

    Everything is on disk when ``put`` returns. Without a file the values live as long as the object. Raises UserError
    for a file that cannot be opened or is no such file.
    """

    def __init__(self, file: Path | str | None) -> None:
        try:
            if file is not None:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if file is None else file, timeout=60, isolation_level=None)
            self._db.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the kept answers {str(file)!r} cannot be used: {error}; move the file away") from error

    def get(self, asked: Any) -> Any:
        """The value of what was asked (anything that JSON holds), or None."""
        found = self._db.execute("SELECT value FROM kept WHERE key = ?", (_key(asked),)).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Keep values, all or none of them."""
        rows = [(_key(asked), json.dumps(value)) for asked, value in pairs]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


def _key(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


class KeepingEngine:
    """An engine whose answers are kept, ``block`` prompts at a time. ``model`` identifies the model (a fingerprint)."""

    def __init__(self, engine: Engine, kept: Kept, model: str, block: int = 256) -> None:
        self.name, self.version = engine.name, engine.version
        self._engine, self._kept, self._block = engine, kept, block
        self._identity = [engine.name, engine.version, model]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        prompts = list(prompts)
        asked = [[*self._identity, adapter_digest(adapter), asdict(sampling), log_probs, prompt] for prompt in prompts]
        found = {i: value for i, question in enumerate(asked) if (value := self._kept.get(question)) is not None}
        answers = {i: [Answer(**fields) for fields in value] for i, value in found.items()}
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


def adapter_digest(folder: Path | str | None) -> str | None:
    """What identifies an adapter by content; a served name, which is no folder here, stands for itself."""
    if folder is None:
        return None
    from underseer.models import specs

    return specs.weights_digest(Path(folder)) if Path(folder).is_dir() else str(folder)


def _length(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def _answered(answers: Sequence[Answer]) -> bool:
    return all(answer.failure is None for answer in answers)
