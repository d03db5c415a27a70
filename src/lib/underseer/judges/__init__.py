"""Judges of texts, and of exchanges: answers with the prompts that they answer. One interface for classifiers trained here,
published classifiers, reward models, language models that write verdicts, the Perspective API and the testbed's oracle.

``preflight`` checks them before anything runs, ``open_judge(spec, measure, opening)`` makes one ready,
``judge.score(texts, prompts)`` gives ``Scores``, ``failure_counts`` says how many texts have none and why. ``card`` and
``calibration`` measure a judge, ``trained`` trains one, ``noisy`` makes one weaker. Nothing here imports torch until a model
is needed.

Each kind of judge is a file that registers itself; the list below is all that knows of it.
"""

from __future__ import annotations

from underseer.judges import (
    classifier,  # noqa: F401
    guard,  # noqa: F401
    perspective,  # noqa: F401
    reward,  # noqa: F401
    rubric,  # noqa: F401
    strings,  # noqa: F401
    trained,  # noqa: F401
    vote,  # noqa: F401
    words,  # noqa: F401
)
from underseer.judges.base import Judge, Opening, Scores, failure_counts
from underseer.judges.opening import open_judge, preflight
from underseer.judges.spec import JudgeSpec, parse

__all__ = [
    "Judge",
    "JudgeSpec",
    "Opening",
    "Scores",
    "failure_counts",
    "open_judge",
    "parse",
    "preflight",
]
