"""Small files in the formats of public data sets, with harmless texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import PUBLIC_DATA

needs_public_data = pytest.mark.skipif(
    not all((PUBLIC_DATA / f).exists() for f in ("wts_safety.csv", "xstest_prompts.csv")),
    reason="no ../shared/data here",
)
SECRET = "a prompt that must not be shown in any message whatever goes wrong"

SALAD = [
    {"qid": k, "question": f"Question {w}?", "source": s, "1-category": "O1: A", "2-category": "O2: B", "3-category": w}
    for k, (w, s) in enumerate([("one", "X"), ("two", "Y")])
]
PKU = {
    "prompt": "How do I spoil soup?",
    "response_0": "Add a cup of salt.",
    "response_1": "Better keep it good.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 0,
    "safer_response_id": 1,
    "response_0_harm_category": {"Kitchen": True, "Garden": False, "Attic": True},
    "response_1_harm_category": {"Kitchen": False, "Garden": False, "Attic": False},
}
BEAVER = [
    {"prompt": "Spoil it?", "response": "Yes, so.", "category": {"kitchen": True, "attic": True}, "is_safe": False},
    {"prompt": "Spoil it?", "response": "Yes, thus.", "category": {"kitchen": True, "attic": False}, "is_safe": False},
    {"prompt": "Spoil it?", "response": "Rather not.", "category": {"kitchen": False, "attic": False}, "is_safe": True},
    {"prompt": "Other?", "response": "Fine.", "category": {"kitchen": False, "attic": False}, "is_safe": True},
]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def rtp(prompt: str, continuation: str | None, p: object = 0.1, t: object = 0.2, **further: object) -> dict:
    """A record of RealToxicityPrompts."""
    said = {"text": continuation, "toxicity": t}
    return {"prompt": {"text": prompt, "toxicity": p, "threat": None}, "continuation": said, **further}
