"""What the code of a stage sees of the run that it works for: inputs to read, outputs to write, and a ledger.

These are types alone, so that the steps of a method import nothing of the machinery above them. ``runs.run.Run`` is one under the
executor, ``runs.scratch.ScratchRun`` one by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from underseer.cost import Ledger
from underseer.store import Output


class Instance(Protocol):
    """The stage that runs: its ``key``, the ``parameters`` that decide its result, and the ``runtime`` ones that do not."""

    key: str
    parameters: dict[str, Any]
    runtime: dict[str, Any]


class Run(Protocol):
    """A stage at work. ``input`` and ``inputs`` read what fills a role; ``path`` and ``save_*`` write below the stage's folder."""

    instance: Instance
    cost: Ledger

    @property
    def checkpoints(self) -> Path: ...

    def input(self, role: str) -> Output | None: ...

    def inputs(self, role: str) -> list[Output]: ...

    def path(self, name: str) -> Path: ...

    def save_table(self, name: str, table: Any) -> None: ...

    def save_model(self, name: str, model: Any, tokenizer: Any) -> None: ...

    def save_json(self, name: str, value: Any) -> None: ...

    def used(self, engine: Any) -> None: ...
