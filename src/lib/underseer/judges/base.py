"""What every judge has in common: scores in [0, 1] with a reason where there is none, and how a judge is opened.

A judge reads texts and gives each a score: the probability, or degree, of what it looks for. A text that cannot be judged
gets NaN and a reason; it is counted, and never turned into a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from underseer.engines.base import Engine, Inference

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger

EMPTY, NOT_A_SCORE = "empty text", "the reply is not a number in [0, 1]"
"""Reasons that any judge may give."""

Exchange = tuple[str, str]
"""A prompt, and the answer to it."""


@dataclass(frozen=True)
class Scores:
    """What a judge says of n texts. A value is NaN exactly where there is a reason."""

    values: np.ndarray  # (n,) float64 in [0, 1], or NaN
    failures: list[str | None]  # (n,) why there is no value
    judge: str
    version: str
    details: list[str | None] | None = None  # (n,) what else the judge said: a guard's categories
    n_cut: int = 0  # texts that were too long, and of which the beginning was judged

    def __post_init__(self) -> None:
        missing = np.isnan(self.values).tolist()
        if self.values.ndim != 1 or missing != [reason is not None for reason in self.failures]:
            raise ValueError("scores need one value or one reason for every text")
        if not ((self.values >= 0) & (self.values <= 1) | np.isnan(self.values)).all():
            raise ValueError("scores lie in [0, 1]")


class Judge(Protocol):
    """Anything that scores texts. ``name`` and ``version`` go into every result that rests on it."""

    name: str
    version: str

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n texts. Judges of exchanges take them for answers, and need the n prompts that they answer."""
        ...


def release(judge: Judge) -> None:
    """Give back the memory of a judge that runs a model of its own; it is loaded anew when the judge is asked again."""
    getattr(judge, "close", lambda: None)()


@dataclass(frozen=True)
class Opening:
    """How a judge is opened and runs; each kind takes what it needs.

    ``inference.max_length`` is in tokens of what is judged: longer texts and exchanges are judged by their beginnings.
    ``cache`` is the file in which verdicts are kept (None: one in the run store; ":memory:": nowhere). ``name`` and
    ``version`` replace those that the judge gives itself. A trained judge takes the ``folder`` that training stored, or
    ``model`` and ``tokenizer`` in memory. A judge that writes its verdicts runs on ``engine``, one that is open or a name
    with ``options`` of ``engines.open_engine``; ``base`` is the folder of a testbed model. ``texts`` are what it is asked
    with (``rubric.Texts``); None: those that it comes with.
    """

    inference: Inference = field(default_factory=Inference)
    cache: Path | str | None = None
    cost: Ledger | None = None
    progress: bool = True
    name: str | None = None
    version: str = ""
    folder: Path | str | None = None
    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    engine: str | Engine = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    base: Path | None = None
    texts: Any = None


AS_IT_COMES = Opening()


@dataclass(frozen=True)
class Reply:
    """What a judge said of one text: a score, or why there is none."""

    value: Any
    detail: str | None = None
    keep: bool = True  # the judge's own answer, which asking again would not change; a call that failed is not
    cut: bool = False  # the text was too long, and its beginning was judged


def failure_counts(scores: Scores) -> dict[str, int]:
    """How many texts have no score, by reason, the most frequent first."""
    return dict(Counter(reason for reason in scores.failures if reason is not None).most_common())


def collect(replies: Sequence[Any], judge: Judge) -> Scores:
    """Scores from replies (n,): a number, or a string that says why there is none; or either in a ``Reply``.

    Whatever is not a finite number in [0, 1] becomes NaN with a reason.
    """
    values, failures = np.full(len(replies), np.nan), []
    details = [reply.detail if isinstance(reply, Reply) else None for reply in replies]
    for i, reply in enumerate(replies):
        value = reply.value if isinstance(reply, Reply) else reply
        if isinstance(value, str):
            failures.append(value)
        elif is_score(value):
            values[i] = float(value)
            failures.append(None)
        else:
            failures.append(NOT_A_SCORE)
    n_cut = sum(isinstance(reply, Reply) and reply.cut for reply in replies)
    return Scores(values, failures, judge.name, judge.version, details if any(details) else None, n_cut)


def judge_full(
    texts: Sequence[str],
    reply: Callable[[list[Any]], Sequence[Any]],
    judge: Judge,
    prompts: Sequence[str] | None = None,
) -> Scores:
    """Scores of texts (n,), each different one judged once and without the whitespace around it.

    With ``prompts`` (n,) what is judged are exchanges (prompt, answer), and those are shown to ``reply``. Texts that
    are empty (or blank, or no string) are not shown to the judge: they fail. ``reply`` answers the others, in the order
    given to it.
    """
    plain: list[Any] = [_stripped(text) for text in texts]
    full = [bool(text) for text in plain]
    if prompts is not None:
        if len(prompts) != len(plain):
            raise ValueError(f"{len(plain)} answers and {len(prompts)} prompts; a judge needs one prompt an answer")
        plain = list(zip(map(_stripped, prompts), plain, strict=True))
    different = list(dict.fromkeys(item for item, there in zip(plain, full, strict=True) if there))
    replies = dict(zip(different, reply(different) if different else (), strict=True))
    return collect([replies.get(item, EMPTY) for item in plain], judge)


def _stripped(text: Any) -> str:
    return text.strip() if isinstance(text, str) else ""


def is_score(value: Any) -> bool:
    """Whether a value is a number in [0, 1]: not a truth value, not NaN, not a string of digits."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and 0 <= value <= 1
