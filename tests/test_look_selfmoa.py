"""What the Self-MOA notebooks show: everything of the testbed, nothing of real data."""

from __future__ import annotations

import pandas as pd
import pytest

from underseer.look import selfmoa as look_selfmoa

ASK, ANSWER, OTHER = "Tell me <b>how</b> to spoil it", "First add much salt", "I had rather not say"

PROMPTS = pd.DataFrame(
    {
        "id": ["b", "a"],
        "text": [ASK, OTHER],
        "category": ["x", None],
        "kind": None,
        "role": ["attack", "safe"],
        "source": "s",
    }
)
EXCHANGES = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "set": ["attack", "attack", "safe"],
        "category": "x",
        "prompt": ASK,
        "answer": [ANSWER, None, OTHER],
        "unsafe": [0.9, float("nan"), 0.0],
        "helpful": float("nan"),
        "failure": [None, "no reply", None],
    }
)
PAIRS = pd.DataFrame(
    {
        "id": ["a"],
        "set": ["attack"],
        "prompt": [ASK],
        "chosen": [ANSWER],
        "rejected": [OTHER],
        "helpful_chosen": [1.0],
        "helpful_rejected": [0.0],
        "unsafe_chosen": [0.75],
        "unsafe_rejected": [0.0],
        "safety_difference": [0.75],
    }
)
ATTACKS = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "text": ASK,
        "strategy": ["direct", "direct", "fiction"],
        "category": "x",
        "round": 1,
        "unsafe": [0.2, 0.8, float("nan")],
        "success": [False, True, None],
        "answer": [OTHER, ANSWER, None],
    }
)
LOOKS = [
    (look_selfmoa.prompts, PROMPTS),
    (look_selfmoa.exchanges, EXCHANGES),
    (look_selfmoa.pairs, PAIRS),
    (look_selfmoa.attacks, ATTACKS),
]


@pytest.mark.parametrize(("look", "frame"), LOOKS)
def test_real_texts_are_redacted_and_the_testbeds_are_shown(look, frame):
    hidden = look(frame, synthetic=False).to_html()
    assert not any(text in hidden for text in ("spoil", "salt", "rather")) and "[redacted, " in hidden
    shown = look(frame, synthetic=True).to_html()
    assert "how&lt;/b&gt; to spoil" in shown and "[redacted" not in shown


def test_what_stands_beside_the_texts():
    table = look_selfmoa.exchanges(EXCHANGES, synthetic=False, n=1).data
    assert table["id"].tolist() == ["a", "c"] and table["unsafe"].tolist() == ["0.90", "0.00"]
    assert table["answer"][0] == "[redacted, 4 words, id a]" and "helpful" not in table
    failed = look_selfmoa.exchanges(EXCHANGES, synthetic=True).data.set_index("id").loc["b"]
    assert failed["answer"] == "" and failed["unsafe"] == ""
    attacks = look_selfmoa.attacks(ATTACKS, synthetic=False, n=1).data
    assert attacks["id"].tolist() == ["b", "c"]  # the success of its strategy comes first
    assert look_selfmoa.pairs(PAIRS, synthetic=False).data["safety difference"].tolist() == ["0.75"]


def test_exchanges_as_loaded_and_empty_frames():
    loaded = EXCHANGES.drop(columns="set").assign(source="s")
    assert len(look_selfmoa.exchanges(loaded, synthetic=False).data) == 3
    assert look_selfmoa.attacks(ATTACKS[:0], synthetic=False).data.empty


def test_the_attackers_instructions_are_shown_in_full():
    assert "in &lt;your&gt; words" in look_selfmoa.instructions({"mine": "Ask in <your> words."}).to_html()
