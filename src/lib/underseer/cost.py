"""The ledger: what a stage spent. Tokens are real tokens, without padding."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """What one stage spends, from the moment it begins."""

    tokens_trained: int = 0
    tokens_scored: int = 0
    tokens_generated: int = 0
    judge_calls: int = 0
    labels: int = (
        0  # labelled exchanges or texts from which a judge learnt, and answers by people from which a target did
    )
    _begun: float = field(default_factory=time.monotonic)

    def add(self, **spent: int) -> None:
        """Add to a column, for example ``add(tokens_trained=120_000)``."""
        for name, amount in spent.items():
            setattr(self, name, getattr(self, name) + int(amount))

    def total(self) -> dict[str, float]:
        """All columns, with ``seconds`` since the stage began and ``peak_memory_mb`` (resident set, this process)."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        megabytes = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
        counts = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return {**counts, "seconds": round(time.monotonic() - self._begun, 2), "peak_memory_mb": round(megabytes)}
