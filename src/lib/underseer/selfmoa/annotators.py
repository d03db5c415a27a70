"""People who label pairs once, for the human-supervised baselines: in the testbed the oracle stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underseer.judges.oracle import Oracle

if TYPE_CHECKING:
    import pandas as pd


def label(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with what people would say of them: ``unsafe``, ``helpful``, and who said it."""
    from underseer.selfmoa.preferences import judge

    return judge(answers, {measure: Oracle(measure) for measure in ("unsafe", "helpful")})
