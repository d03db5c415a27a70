"""One schema per public data set, and how its records become rows.

A reader changes nothing: duplicates, contradictions, missing scores and stray whitespace stay as published (``clean`` is
where they go). How files are read and mistakes are reported stands in ``files``. Three kinds of rows come out:

- prompts and texts: ``text``, ``label`` (index of the class), and where a data set has them ``category`` (what a prompt is
  about), ``kind`` (how it is made), ``text_pair``, ``group``, ``continuation``, ``prompt_toxicity``, ``toxicity``;
- pairs: ``prompt``, ``history`` (JSON of the messages before it), ``answer_0``, ``answer_1``, ``unsafe_0``, ``unsafe_1``
  (0 or 1, NaN: not known), ``helpful`` and ``safer`` (which of the two: 0 or 1, None: not known), ``category``, ``defect``
  (why it is no pair, or None);
- exchanges: ``text`` (the prompt), ``text_pair`` (the answer), ``unsafe`` (0 or 1), ``category``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from underseer.data.files import FirstOrSecond, Record, Schema, Text, choice, read_records
from underseer.data.policies import policies

TOXIC = 0.5
"""Score from which a text counts as toxic (W2S paper; RealToxicityPrompts says the same)."""

CONTRAST = "contrast_"

TrueFalse = choice("True", "False")
Relevance = choice("Relevant", "Irrelevant")
Safety = choice("safe", "unsafe")
Score = Annotated[float, Field(ge=0, le=1)] | None
"""A score of the Perspective API, or None where there is none."""


def rows_of(schema: type[Any]) -> Callable[[bytes, str], list[Record]]:
    """The reader of a data set: the bytes of a file and its name in, a row of each record out."""

    def read(content: bytes, name: str) -> list[Record]:
        return [record.row() for record in read_records(content, name, schema)]

    return read


# ------------------------------------------------------------------------------------------------- prompts and texts


class WtsSafety(Schema):
    """The W2S paper's safety prompts. The published file holds an empty prompt, duplicates and prompts with both labels."""

    form: ClassVar[str] = "csv"
    prompt: str
    is_safe: TrueFalse

    def row(self) -> Record:
        return {"text": self.prompt, "label": int(self.is_safe == "False")}


class AdvBench(Schema):
    """AdvBench harmful behaviours: the goals are the prompts, all of them unsafe."""

    form: ClassVar[str] = "csv"
    goal: Text
    target: str

    def row(self) -> Record:
        return {"text": self.goal, "label": 1}


class SEval(Schema):
    """S-Eval base risk prompts. S-Eval states that it mixes a few high-risk prompts with low-risk ones; the W2S paper
    counts all as unsafe."""

    prompt: Text
    risk_type: str

    def row(self) -> Record:
        return {"text": self.prompt, "label": 1, "category": self.risk_type}


class PrivacyPolicyQA(Schema):
    """LegalBench's questions about privacy policies: ``text`` is the clause of a policy."""

    form: ClassVar[str] = "tsv"
    question: str
    text: str
    answer: Relevance

    def row(self) -> Record:
        return {"text": self.question, "text_pair": self.text, "label": int(self.answer == "Relevant")}


def privacy_policy_qa(content: bytes, name: str) -> list[Record]:
    """Rows of ``PrivacyPolicyQA`` with ``group``, the policy as far as the file shows it (see ``policies``)."""
    rows = rows_of(PrivacyPolicyQA)(content, name)
    groups = policies([row["text"] for row in rows], [row["text_pair"] for row in rows])
    return [{**row, "group": group} for row, group in zip(rows, groups, strict=True)]


class ScoredText(Schema):
    """A text of RealToxicityPrompts with its score."""

    text: str
    toxicity: Score


class RealToxicityPrompts(Schema):
    """RealToxicityPrompts. Rows without a score keep NaN; label 1 (toxic): a score that is there, that of the prompt or
    that of the continuation, is at least ``TOXIC``."""

    prompt: ScoredText
    continuation: ScoredText

    def row(self) -> Record:
        scores = [part.toxicity for part in (self.prompt, self.continuation)]
        prompt_score, score = (math.nan if s is None else s for s in scores)
        return {
            "text": self.prompt.text,
            "continuation": self.continuation.text,
            "prompt_toxicity": prompt_score,
            "toxicity": score,
            "label": int(max((s for s in scores if s is not None), default=0.0) >= TOXIC),
        }


class XSTest(Schema):
    """XSTest. ``kind`` is the published type, such as ``contrast_homonyms``; ``category`` the same without ``contrast_``,
    so that safe prompts and their contrasts stand together where XSTest pairs them (its types of discrimination and
    privacy prompts have no contrast of the same name)."""

    form: ClassVar[str] = "csv"
    prompt: Text
    type: str
    label: Safety

    def row(self) -> Record:
        kind = self.type.strip()
        label = int(self.label == "unsafe")
        return {"text": self.prompt, "label": label, "category": kind.removeprefix(CONTRAST), "kind": kind}


class MaliciousInstruct(Schema):
    """MaliciousInstruct: one prompt a line; all unsafe. The paper's ten intentions are not in the file."""

    form: ClassVar[str] = "text"
    text: str

    def row(self) -> Record:
        return {"text": self.text, "label": 1}


class SaladBench(Schema):
    """SALAD-Bench base set; all unsafe. ``category`` is the first of three levels (6 domains), ``category_2`` and
    ``category_3`` the others (16 tasks, 66 categories), as published: ``O1: ...``. ``kind`` is where SALAD-Bench has the
    question from; a part is from AdvBench and HH-RLHF."""

    question: Text
    category_1: str = Field(alias="1-category")
    category_2: str = Field(alias="2-category")
    category_3: str = Field(alias="3-category")
    source: Any = None

    def row(self) -> Record:
        return {
            "text": self.question,
            "label": 1,
            "category": self.category_1,
            "category_2": self.category_2,
            "category_3": self.category_3,
            "kind": str(self.source or "base"),
        }


class HarmBench(Schema):
    """HarmBench text behaviours; all unsafe. ``category`` is the semantic one; ``kind`` the functional one: ``standard``,
    ``contextual`` (asked about a context, which comes first, as in HarmBench's direct requests), ``copyright`` (which
    HarmBench judges by comparison with the protected text: no judge of harm sees it)."""

    form: ClassVar[str] = "csv"
    behavior: Text = Field(alias="Behavior")
    functional: str = Field(alias="FunctionalCategory")
    semantic: str = Field(alias="SemanticCategory")
    context: str = Field(alias="ContextString")

    def row(self) -> Record:
        text = f"{self.context}\n\n---\n\n{self.behavior}" if self.context.strip() else self.behavior
        return {"text": text, "label": 1, "category": self.semantic, "kind": self.functional}


# ---------------------------------------------------------------------------------------------- pairs and exchanges


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
