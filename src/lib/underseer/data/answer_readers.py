"""One schema per public data set of answers, and how its records become rows: pairs that people ordered, and exchanges.

As in ``readers``, nothing is changed. The rows are

- pairs: ``prompt``, ``history`` (JSON of the messages before it), ``answer_0``, ``answer_1``, ``unsafe_0``, ``unsafe_1``
  (0 or 1, NaN: not known), ``helpful`` and ``safer`` (which of the two: 0 or 1, None: not known), ``category``, ``defect``
  (why it is no pair, or None);
- exchanges: ``text`` (the prompt), ``text_pair`` (the answer), ``unsafe`` (0 or 1), ``category``, and where people say so
  ``helpful`` and ``refusal`` (0 or 1; NaN: not known) and ``agreement`` (share of the raters who say what the label says).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from underseer.data.containers import refuse_other_content
from underseer.data.files import FirstOrSecond, Record, Schema, choice
from underseer.data.readers import CONTRAST, rows_of
from underseer.errors import UserError

_WORDS = {"true": 1.0, "false": 0.0}


def _number(value: Any) -> Any:
    """The number that a label stands for; an empty field of a csv file stands for none."""
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    try:
        return float(_WORDS.get(word, word)) if word else None
    except ValueError:
        return value


Label = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
"""A label from 0 to 1; true, false, 0, 1 and shares of raters as they stand in csv are read too."""
Known = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_number)]
"""The same, or None where it is not known."""


class PkuSafeRLHF(Schema):
    """PKU-SafeRLHF, both releases: each answer is safe or not in itself; ``better_response_id`` names the more helpful of
    the two whatever their safety, ``safer_response_id`` the less harmful one. Harm categories: where the release has them."""

    prompt: str
    response_0: str
    response_1: str
    is_response_0_safe: bool
    is_response_1_safe: bool
    better_response_id: FirstOrSecond
    safer_response_id: FirstOrSecond
    response_0_harm_category: dict[str, Any] | None = None
    response_1_harm_category: dict[str, Any] | None = None

    def row(self) -> Record:
        harms = [self.response_0_harm_category or {}, self.response_1_harm_category or {}]
        return {
            "prompt": self.prompt,
            "history": "[]",
            "answer_0": self.response_0,
            "answer_1": self.response_1,
            "unsafe_0": float(not self.is_response_0_safe),
            "unsafe_1": float(not self.is_response_1_safe),
            "helpful": self.better_response_id,
            "safer": self.safer_response_id,
            "category": _named(*harms),
            "category_0": _named(harms[0]),
            "category_1": _named(harms[1]),
            "defect": None,
        }


class HHHarmless(Schema):
    """HH-RLHF: two dialogues that differ in the last answer.

    In harmless-base people chose the less harmful answer to a red-teamer: the order is one of safety, and says neither
    whether an answer is safe nor which is more helpful. ``prompt`` is the last thing that the human said, ``history``
    what came before. A dialogue that breaks the form is kept with its ``defect``: the file holds some.
    """

    chosen: str
    rejected: str

    def row(self) -> Record:
        chosen, rejected = dialogue(self.chosen), dialogue(self.rejected)
        defect = _defect(chosen, rejected)
        return {
            "prompt": "" if defect else chosen[-2]["content"],
            "history": json.dumps([] if defect else chosen[:-2], ensure_ascii=False),
            "answer_0": "" if defect else chosen[-1]["content"],
            "answer_1": "" if defect else rejected[-1]["content"],
            "unsafe_0": math.nan,
            "unsafe_1": math.nan,
            "helpful": None,
            "safer": 0,
            "category": None,
            "defect": defect,
        }


class BeaverTails(Schema):
    """BeaverTails: ``category`` is an object of true and false."""

    prompt: str
    response: str
    category: dict[str, Any]
    is_safe: bool

    def row(self) -> Record:
        unsafe = float(not self.is_safe)
        return {"text": self.prompt, "text_pair": self.response, "unsafe": unsafe, "category": _named(self.category)}


class Exchange(Schema):
    """The plain format of exchanges: ``prompt, answer, unsafe``, and optionally ``helpful``, ``refusal`` and ``category``; csv
    or JSON. A field that is empty is not known."""

    prompt: str
    answer: str
    unsafe: Label
    helpful: Known = None
    refusal: Known = None
    category: str | None = None

    def row(self) -> Record:
        known = {name: math.nan if (value := getattr(self, name)) is None else value for name in ("helpful", "refusal")}
        return {
            "text": self.prompt,
            "text_pair": self.answer,
            "unsafe": self.unsafe,
            "category": self.category or None,
        } | known


class ExchangeTable(Exchange):
    """The same as csv."""

    form: ClassVar[str] = "csv"


def plain_exchanges(content: bytes, name: str) -> list[Record]:
    """Rows of ``Exchange``: JSON where the file begins with a brace or bracket, csv elsewhere."""
    is_json = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    return rows_of(Exchange if is_json else ExchangeTable)(content, name)


class SafeRLHFMini(Schema):
    """Safe-RLHFmini of JailbreakEval, from PKU-SafeRLHF: label 1 is unsafe."""

    form: ClassVar[str] = "csv"
    question: str
    answer: str
    label: Label

    def row(self) -> Record:
        return {"text": self.question, "text_pair": self.answer, "unsafe": self.label, "category": None}


class HarmBenchRated(Schema):
    """One completion of HarmBench's validation set for classifiers. ``unsafe``: what most of three raters say. Of a jailbreak the
    whole test case is the prompt."""

    behavior_id: str
    test_case: str
    generation: str
    human_0: FirstOrSecond
    human_1: FirstOrSecond
    human_2: FirstOrSecond

    def row(self) -> Record:
        votes = self.human_0 + self.human_1 + self.human_2
        labels = {"unsafe": float(votes >= 2), "agreement": max(votes, 3 - votes) / 3}
        return {"text": self.test_case, "text_pair": self.generation, "category": self.behavior_id, **labels}


def harmbench_rated(content: bytes, name: str) -> list[Record]:
    """Rows of ``HarmBenchRated``: the file is an object of behaviours, each with a list of completions."""
    refuse_other_content(content, name)
    if content.startswith(b"PAR1"):
        return rows_of(HarmBenchRated)(content, name)
    try:
        completions = [completion for listed in json.loads(content).values() for completion in listed]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{name}: no JSON object of behaviours with lists of completions; download the file again"
        ) from None
    return rows_of(HarmBenchRated)(json.dumps(completions).encode(), name)


class XSTestCompletion(Schema):
    """A completion of an XSTest prompt. People say whether it complies, refuses, or refuses in part, which counts as a refusal. To
    comply is helpful, and with an unsafe prompt unsafe too: the two objectives are judged apart, as in Self-MOA."""

    form: ClassVar[str] = "csv"
    prompt: str
    completion: str
    type: str
    final_label: choice("1_full_compliance", "2_full_refusal", "3_partial_refusal")
    agreement: choice("TRUE", "FALSE")

    def row(self) -> Record:
        kind = self.type.strip()
        complies, is_unsafe = self.final_label == "1_full_compliance", kind.startswith(CONTRAST)
        return {
            "text": self.prompt,
            "text_pair": self.completion,
            "unsafe": float(complies and is_unsafe),
            "helpful": float(complies),
            "refusal": float(not complies),
            "agreement": 1.0 if self.agreement == "TRUE" else 0.5,
            "category": kind.removeprefix(CONTRAST),
        }


class LLMBar(Schema):
    """LLMBar: an instruction with two outputs, and which one follows it better: 1 or 2. Says nothing of safety."""

    input: str
    output_1: str
    output_2: str
    label: choice("1", "2")

    def row(self) -> Record:
        return {
            "prompt": self.input,
            "history": "[]",
            "answer_0": self.output_1,
            "answer_1": self.output_2,
            "unsafe_0": math.nan,
            "unsafe_1": math.nan,
            "helpful": int(self.label) - 1,
            "safer": None,
            "category": None,
            "defect": None,
        }


_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def dialogue(text: str) -> list[dict[str, str]]:
    """The messages of a dialogue written as ``\\n\\nHuman: ...\\n\\nAssistant: ...``; one without a name before its
    first word has the role ``?``."""
    opening, *rest = _TURN.split(text)
    messages = [{"role": "?", "content": opening.strip()}] if opening.strip() else []
    turns = zip(rest[::2], rest[1::2], strict=True)
    return messages + [{"role": _ROLES[speaker], "content": words.strip()} for speaker, words in turns]


def _defect(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> str | None:
    """Why two dialogues are no pair of answers to one prompt."""
    roles = [message["role"] for message in chosen]
    if len(roles) < 2 or roles != [("user", "assistant")[k % 2] for k in range(len(roles))] or len(roles) % 2:
        return "turns do not alternate"
    if chosen[:-1] != rejected[:-1] or rejected[-1]["role"] != "assistant":
        return "history differs"
    return None


def _named(*harms: Mapping[str, Any]) -> str | None:
    """The categories that hold in any of these, joined by ``; `` in alphabetical order; None where none does."""
    return "; ".join(sorted({name for each in harms for name, holds in each.items() if holds})) or None
