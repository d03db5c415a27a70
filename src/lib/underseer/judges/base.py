"""What every judge has in common: scores in [0, 1] with a reason where there is none, and specifications by name.

A judge reads texts and gives each a score: the probability, or degree, of what it looks for. Judges of toxicity read a
text alone; judges of exchanges (``exchange``) read an answer with the prompt that it answers. A text that cannot be
judged gets NaN and a reason; it is counted, and never turned into a number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from underseer.errors import UserError
from underseer.judges.spec import JudgeSpec, parse_judge

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
class Reply:
    """What a judge said of one text: a score, or why there is none."""

    value: Any
    detail: str | None = None
    keep: bool = True  # the judge's own answer, which asking again would not change; a call that failed is not


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
        said = reply.value if isinstance(reply, Reply) else reply
        if isinstance(said, str):
            failures.append(said)
        elif is_score(said):
            values[i] = float(said)
            failures.append(None)
        else:
            failures.append(NOT_A_SCORE)
    return Scores(values, failures, judge.name, judge.version, details if any(details) else None)


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


# ---------------------------------------------------------------------------------------------------- opening


def open_judge(
    spec: str | JudgeSpec,
    *,
    folder: Path | str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    name: str | None = None,
    version: str = "",
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    max_length: int = 128,
    cache: Path | str | None = None,
    cost: Any = None,
) -> Judge:
    """A judge that is ready to score.

    ``trained`` takes the ``folder`` that training stored, or ``model`` and ``tokenizer`` in memory. ``name`` and
    ``version`` replace those the judge gives itself (its specification, and its model's fingerprint). ``max_length``
    is in tokens: longer texts are judged by their beginning. ``cache`` is the file in which Perspective's answers
    are kept (default: in the run store). ``cost`` is a ledger: it is told tokens and calls. Raises UserError as
    ``preflight`` does, and for the oracle, which evaluation alone may ask (``judges.oracle.OracleJudge``).
    """
    judge = parse_judge(spec)
    named = {"name": name or judge.name, "version": version}
    if judge.kind == "oracle":
        raise UserError("the oracle serves evaluation only, and is not opened as other judges are; give trained:MODEL")
    if judge.kind == "perspective":
        from underseer.judges.perspective import PerspectiveJudge

        return PerspectiveJudge.from_environment(**named, cache=cache, cost=cost)
    how = {"batch_size": batch_size, "device": device, "precision": precision, "max_length": max_length, "cost": cost}
    from underseer.judges import classifier, trained

    if judge.kind == "classifier":
        return classifier.open_classifier(judge, **named, **how)
    return trained.open_trained(judge, folder, model, tokenizer, **named, **how)


# ---------------------------------------------------------------------------------------------------- checks


def preflight(parameters: Mapping[str, Any]) -> list[str]:
    """Check the judges of one variant before anything runs, without torch: ``training_judge``, ``reporting_judge``;
    and, where they are given, ``dataset``, ``n_judge``, ``task`` and ``voting``.

    Returns remarks that the user should read (the last day of a service). Raises UserError with every mistake, one
    per line: an unknown judge or model, a training judge that also reports, the oracle where it would train or does
    not know the data, Perspective without a key or after its end, a missing judge.
    """
    mistakes: list[str] = []
    remarks: list[str] = []
    judges: dict[str, JudgeSpec] = {}
    for role in ("training_judge", "reporting_judge"):
        if parameters.get(role) is None:
            continue
        try:
            judges[role] = parse_judge(parameters[role])
            remarks += _check_judge(judges[role], parameters)
        except UserError as error:
            mistakes += [f"{role} = {parameters[role]!r}: {line}" for line in str(error).split("\n")]
    mistakes += _check_roles(judges, parameters)
    if mistakes:
        raise UserError("\n".join(mistakes))
    return list(dict.fromkeys(remarks))


def _check_judge(judge: JudgeSpec, parameters: Mapping[str, Any]) -> list[str]:
    """Remarks on one judge; raises UserError."""
    from underseer.judges import classifier, perspective
    from underseer.models import specs

    if judge.kind == "perspective":
        return perspective.preflight()
    if judge.kind == "oracle":
        _check_oracle(parameters.get("dataset"))
        return []
    specs.preflight(judge.model)
    if judge.kind == "classifier":
        classifier.preflight(judge)
    elif parameters.get("n_judge") is not None and int(parameters["n_judge"]) < 1:
        raise UserError(f"n_judge = {parameters['n_judge']}: a trained judge needs rows to learn from; set n_judge")
    return []


def _check_oracle(dataset: str | None) -> None:
    from underseer.data.registry import parse

    strange = [part.info.name for part in parse(dataset) if not part.info.synthetic] if dataset else []
    if strange:
        raise UserError(
            f"the oracle knows the testbed's world alone, not {', '.join(strange)}; give trained:MODEL or a classifier"
        )


def _check_roles(judges: Mapping[str, JudgeSpec], parameters: Mapping[str, Any]) -> list[str]:
    training, reporting = judges.get("training_judge"), judges.get("reporting_judge")
    toxicity = parameters.get("task") == "toxicity"
    mistakes = []
    if training is not None and training.kind == "oracle":
        mistakes.append("training_judge = 'oracle': the oracle serves evaluation only; give trained:MODEL")
    if training is not None and reporting is not None and _identity(training) == _identity(reporting):
        mistakes.append(
            f"reporting_judge = {str(reporting)!r} is the training judge too: a judge that trains must not report, or "
            "what was learnt to please it counts as success; give two judges"
        )
    if toxicity and parameters.get("reporting_judge") is None:
        mistakes.append("reporting_judge = null: the toxicity task needs a scorer; give trained:MODEL, for example")
    if parameters.get("voting") in ("best_of_b", "least_toxic") and parameters.get("training_judge") is None:
        mistakes.append(f"voting = {parameters['voting']!r} needs a scorer: give training_judge, or voting: mbr")
    return mistakes


def _identity(judge: JudgeSpec) -> tuple[Any, ...]:
    """What makes two judges one: kind, class and model, a folder by its real path."""
    model = judge.model
    if model is not None and model.kind == "folder":
        return judge.kind, judge.label, os.path.realpath(model.name)
    return judge.kind, judge.label, str(model)
