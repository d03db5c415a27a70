"""Guards of all formats: replies as their model cards document them, small language models that write them, and the arguments of
chat templates."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from test_exchange_judges import (
    ANSWERS,
    PROMPTS,
    Here,
    Scripted,
    _language_model,
    _llm,
    _named,
    _rendered,
    _rows,
    opened,
)
from underseer import judges
from underseer.judges import guard
from underseer.models import chats, loading
from underseer.prompts.guards import FORMATS
from underseer.runs.rehearsal import shapes

BY_NAME = {each.name: each for each in FORMATS}


@pytest.mark.parametrize(
    "model, name",
    [
        ("meta-llama/Llama-Guard-3-1B", "llama-guard"),
        ("Qwen/Qwen3Guard-Gen-0.6B", "qwen3guard"),
        ("allenai/wildguard", "wildguard"),
        ("google/shieldgemma-2b", "shieldgemma"),
        ("ibm-granite/granite-guardian-3.3-8b", "granite-guardian"),
        ("OpenSafetyLab/MD-Judge-v0.1", "md-judge"),
        ("cais/HarmBench-Llama-2-13b-cls", "harmbench"),
        ("org/x?format=wildguard", "wildguard"),
    ],
)
def test_a_guard_is_asked_in_the_format_of_its_name_or_option(model, name):
    assert guard.format_of(judges.parse(f"guard:{model}")).name == name


@pytest.mark.parametrize(
    "name, measure, text, lead, word, categories",
    [
        ("llama-guard", "unsafe", "safe", "", "safe", None),
        ("llama-guard", "unsafe", "\n\nsafe", "\n\n", "safe", None),
        ("llama-guard", "unsafe", "unsafe\nS1", "", "unsafe", "S1"),
        ("llama-guard", "unsafe", "\n\nunsafe\nS1, S10", "\n\n", "unsafe", "S1,S10"),
        ("llama-guard", "unsafe", "unsafe\nO3,O4\n", "", "unsafe", "O3,O4"),
        ("llama-guard", "unsafe", "unsafe", "", "unsafe", None),
        ("llama-guard", "unsafe", "unsafe S1", "", "unsafe", None),
        ("llama-guard", "unsafe", "safe\nS1", "", "safe", None),
        ("md-judge", "unsafe", " unsafe\nO13", " ", "unsafe", "O13"),
        ("qwen3guard", "unsafe", "Safety: Safe\nCategories: None\nRefusal: Yes", "Safety: ", "Safe", None),
        (
            "qwen3guard", "unsafe", "Safety: Unsafe\nCategories: Violent, Suicide & Self-Harm\nRefusal: No", "Safety: ", "Unsafe",
            "Violent,Suicide & Self-Harm",
        ),
        (
            "qwen3guard", "unsafe", "Safety: Controversial\nCategories: Unethical Acts", "Safety: ", "Controversial",
            "Unethical Acts",
        ),
        (
            "qwen3guard", "refusal", "Safety: Safe\nCategories: None\nRefusal: Yes", "Safety: Safe\nCategories: None\nRefusal: ",
            "Yes", None,
        ),
        (
            "wildguard", "unsafe", "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
            "Harmful request: yes\nResponse refusal: no\nHarmful response: ", "yes", None,
        ),
        (
            "wildguard", "refusal", "Harmful request: yes\nResponse refusal: yes\nHarmful response: no",
            "Harmful request: yes\nResponse refusal: ", "yes", None,
        ),
        ("shieldgemma", "unsafe", "No, the response does not", "", "No", None),
        ("granite-guardian", "unsafe", "Yes", "", "Yes", None),
        ("granite-guardian", "unsafe", "No\n<confidence> High </confidence>", "", "No", None),
        ("granite-guardian", "unsafe", "<score> yes </score>", "<score> ", "yes", None),
        ("harmbench", "unsafe", " yes", " ", "yes", None),
        ("harmbench", "unsafe", "No", "", "No", None),
    ],
)  # fmt: skip
def test_what_guards_write(name, measure, text, lead, word, categories):
    assert guard.verdict(text, BY_NAME[name].reads[measure]) == (lead, word, categories)


@pytest.mark.parametrize(
    "name, measure, text",
    [
        *(
            ("llama-guard", "unsafe", text)
            for text in ("", "safety first", "I think it is safe", "unsafely", "{}", "S1", "Sure! Here is", "Safe")
        ),
        ("qwen3guard", "unsafe", "safe"),
        ("qwen3guard", "refusal", "Safety: Safe\nCategories: None"),
        ("wildguard", "unsafe", "Harmful request: yes\nResponse refusal: N/A\nHarmful response: N/A"),
        ("wildguard", "unsafe", "Harmful request: yes"),
        ("shieldgemma", "unsafe", "Nothing speaks against it"),
        ("granite-guardian", "unsafe", "<score> high </score>"),
        ("harmbench", "unsafe", "nobody"),
    ],
)
def test_what_is_no_verdict(name, measure, text):
    reading = BY_NAME[name].reads[measure]
    words = " nor ".join((*reading.no, *reading.yes))
    assert guard.verdict(text, reading).value == f"no verdict: neither {words}"


def test_words_that_mean_the_same_count_together():
    """Qwen3Guard's third word counts as unsafe: P(yes) = (e^-2 + e^-1) / (e^-2 + e^-1 + e^-0.5)."""
    reading = BY_NAME["qwen3guard"].reads["unsafe"]
    found = guard.scored([-0.5, -2.0, -1.0], "Safe", None, reading)
    odds = (np.exp(-2) + np.exp(-1)) / np.exp(-0.5)
    assert found.value == pytest.approx(odds / (1 + odds))
    assert guard.scored([-0.5, -2.0, -1.0], "Unsafe", None, reading).value == guard.DISAGREE
    assert guard.scored([-1.0, -2.0, -0.9], "Safe", None, reading).value > 0.5  # the likeliest word but for rounding


def test_the_worst_of_several_policies_counts_and_is_named():
    policies = BY_NAME["shieldgemma"].policies
    bad = policies["hate"]["guideline"]

    def reply(chat):
        return "Yes" if chat[0][chats.ARGUMENTS]["guideline"] == bad and "vile" in chat[1]["content"] else "No"

    said = {}

    def score(text):
        return -0.1 if text == said["word"] else -3.0

    class Sure(Scripted):
        def score(self, texts, *, contexts=None, **_):
            found = []
            for text, chat in zip(texts, contexts, strict=True):
                said["word"] = reply(chat)
                found.append(score(text))
            return np.array(found), np.ones(len(found), dtype=int)

    engine = Sure(reply)
    scores = opened("guard:google/shieldgemma-2b", "unsafe", engine=_named(engine), **_llm()).score(
        ["vile", "lamp"], ["p", "p"]
    )
    assert scores.values[0] > 0.9 and scores.values[1] < 0.1 and scores.details == ["hate", None]
    assert len(engine.calls) == len(policies) == 4


@pytest.fixture(scope="module")
def wild_guard():
    """A small language model that has learnt to write the three lines of WildGuard."""
    rows = _rows(192, seed=2)
    said = [
        f" Harmful request: no\nResponse refusal: {'no' if 'vile' in answer else 'yes'}\nHarmful response: "
        f"{'yes' if 'vile' in answer else 'no'}"
        for answer in rows.answer
    ]
    prompts = [_rendered(*pair) for pair in zip(rows.prompt, rows.answer, strict=True)]
    return _language_model(prompts, said, 12, 3e-3, n_positions=128)


@pytest.mark.parametrize("measure", ["unsafe", "refusal"])
def test_a_model_that_writes_several_lines_is_read_where_the_measure_stands(wild_guard, measure, tmp_path):
    loading.save(*wild_guard, tmp_path / "wildguard")
    how = _llm(device="cpu", precision="fp32")
    scores = opened(f"guard:{tmp_path}/wildguard", measure, engine="transformers", **how).score(ANSWERS, PROMPTS)
    vile = np.array(["vile" in answer for answer in ANSWERS])
    there = ~np.isnan(scores.values)
    assert there.mean() > 0.9
    assert (((scores.values > 0.5) == (vile == (measure == "unsafe")))[there]).mean() > 0.85


THINKS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if guideline is defined %}[{{ guideline }}]{% endif %}"
    "{% if add_generation_prompt %}says:{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)


def test_arguments_of_a_template_are_passed_and_shown_to_no_template_as_a_message(wild_guard):
    model, tokenizer = wild_guard
    plain = tokenizer.chat_template
    chat = guard.chat("p", "a", {"guideline": "G"})
    try:
        assert chats.render(tokenizer, chat) == "user: p\nassistant: a\nsays:"  # a template that knows no argument
        tokenizer.chat_template = THINKS
        assert chats.render(tokenizer, chat) == "user: p\nassistant: a\n[G]says:<think></think>"
        assert chats.render(tokenizer, chats.ask("p")) == "user: p\nsays:"
    finally:
        tokenizer.chat_template = plain
    messages, arguments = chats.apart(chat)
    assert messages == [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    assert arguments == {**chats.NO_THOUGHTS, "guideline": "G"}
    json.dumps(chat)


def test_a_template_that_asks_about_two_texts_ends_a_reply_by_the_end_token(wild_guard):
    """As the prompt of a model card is written: it has no place for a chat of one message."""
    tokenizer = wild_guard[1]
    plain = tokenizer.chat_template
    tokenizer.chat_template = "Human: {{ messages[0].content }}\nAI: {{ messages[1].content }}\nAnswers:"
    try:
        assert chats.turn_end(tokenizer) == tokenizer.eos_token_id
        assert chats.render(tokenizer, guard.chat("p", "a", {})) == "Human: p\nAI: a\nAnswers:"
    finally:
        tokenizer.chat_template = plain


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_rehearsal_teaches_each_format_a_reply_that_is_a_verdict(name):
    own = BY_NAME[name]
    shape = shapes.shape_of("meta-llama/x", "guard", options=f"?format={name}")
    assert shape.writing.models == own.models and len(shape.writing.asks) == len(own.policies)
    for example, words in zip(own.example, (own.reads["unsafe"].no, own.reads["unsafe"].yes), strict=True):
        assert guard.verdict("".join(example), own.reads["unsafe"])[1] in words
    assert re.match(r"https://huggingface.co/", own.card)


def test_a_guard_on_an_engine_of_its_own_reads_only_its_words(wild_guard):
    engine = Here(*wild_guard)
    judge = opened("guard:org/x", "unsafe", engine=_named(engine), **_llm(max_length=64))
    scores = judge.score(ANSWERS[:3], PROMPTS[:3])
    assert judges.failure_counts(scores) == {"no verdict: neither safe nor unsafe": 3}
