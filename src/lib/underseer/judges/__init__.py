"""Judges of texts: one interface for scorers trained here, published classifiers, the Perspective API and the
testbed's oracle.

``preflight`` checks them before anything runs, ``open_judge`` makes one ready, ``judge.score(texts)`` gives ``Scores``,
``failure_counts`` says how many texts have none and why, ``calibration`` compares a judge with the truth. Nothing here
imports torch until a model is needed.

Judges of exchanges, an answer with the prompt that it answers, stand beside: ``exchange`` opens and checks them,
``evaluator`` trains one, ``noisy`` makes one weaker, ``card`` measures one. Who reads texts alone reaches none of these.
"""

from __future__ import annotations

from underseer.judges.base import Judge, JudgeSpec, Scores, failure_counts, open_judge, parse_judge, preflight
from underseer.judges.calibration import calibration
from underseer.judges.trained import held_out, judge_rows, train_scorer

__all__ = [
    "Judge", "JudgeSpec", "Scores", "calibration", "failure_counts", "held_out", "judge_rows", "open_judge",
    "parse_judge", "preflight", "train_scorer",
]  # fmt: skip
