"""What a chat template writes: each message whole, the same on every day, or an error."""

from __future__ import annotations

import pytest

from underseer.errors import UserError
from underseer.models import chats, loading

TEXT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
PARTS = (  # as Llama-Guard-3-1B's: content that is a text is left out in silence
    "{% for m in messages %}[{{ m.role }}] {% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] }}{% endfor %}{{ '\n' }}{% endfor %}"
)
TYPED = "{% for m in messages %}[{{ m.role }}] {{ m.content[0].text }}\n{% endfor %}"
EXCHANGE = [*chats.ask("a QUESTION"), {"role": "assistant", "content": "an ANSWER"}]


@pytest.fixture(scope="module")
def tokenizer():
    return loading.train_tokenizer(["some text"] * 5, vocab_size=400)


@pytest.mark.parametrize("template", [TEXT, PARTS, TYPED])
def test_every_message_stands_in_the_prompt(tokenizer, template):
    tokenizer.chat_template = template
    written = "[user] a QUESTION\n[assistant] an ANSWER\n"
    assert chats.render(tokenizer, EXCHANGE) == chats.render_closed(tokenizer, EXCHANGE) == written


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        TEXT.replace("m.content", "m.content[:2000]"),
        TEXT.replace("m.content", "m.content | tojson"),
        TEXT.replace("m.content", "m.content | upper"),
        "{{ messages[-1].content }}",
    ],
    ids=["drops a role", "cuts", "escapes", "rewrites", "keeps the last"],
)
def test_a_template_that_leaves_out_cuts_or_rewrites_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(
        UserError, match="leaves out, cuts or rewrites messages.*user, assistant, user.*chat_template.jinja"
    ):
        chats.render(tokenizer, [*EXCHANGE, *chats.ask("and a third")])


def test_a_prompt_is_the_same_on_every_day(tokenizer):
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + TEXT
    assert chats.render(tokenizer, chats.ask("x")) == "26 Jul 2024[user] x\n"


def test_a_turn_ends_with_the_token_that_the_template_writes():
    """In training and in generation, whatever the tokenizer's end token is; without a template it is that one."""
    from underseer.engines.rows import stops

    own = loading.train_tokenizer(["some text"] * 5, vocab_size=400, special=("<|im_end|>",))
    end = own.convert_tokens_to_ids("<|im_end|>")
    assert chats.turn_end(own) == own.eos_token_id != end and stops(own, None) == {own.eos_token_id}
    own.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    assert chats.turn_end(own) == chats.answer_rows(own, ["text"])[0][-1] == end
    assert stops(own, None) == {own.eos_token_id, end}


def test_a_role_that_a_template_does_not_take_is_its_own_error(tokenizer):
    from jinja2 import TemplateError

    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEXT
    )
    assert chats.render(tokenizer, chats.ask("x")) == "[user] x\n"
    with pytest.raises(TemplateError, match="no system"):
        chats.render(tokenizer, chats.ask("x", "be brief"))


@pytest.mark.parametrize("cut", ["m.content[:200]", "m.content | truncate(300)", "m.content[:4000]"])
@pytest.mark.parametrize("chat", [EXCHANGE, EXCHANGE[:1]], ids=["an exchange", "a prompt"])
def test_a_template_that_cuts_the_first_message_is_refused(tokenizer, cut, chat):
    tokenizer.chat_template = TEXT.replace("m.content", cut)
    for render in (chats.render, chats.render_closed):
        with pytest.raises(UserError, match="leaves out, cuts or rewrites messages"):
            render(tokenizer, chat)


@pytest.mark.parametrize("drawn", ["{{ [1, 2, 3] | random }}", "{{ lipsum(1) }}"])
@pytest.mark.parametrize("where", ["{}", "{{% if add_generation_prompt %}}{}{{% endif %}}"])
def test_a_template_that_draws_by_chance_is_refused(tokenizer, drawn, where):
    tokenizer.chat_template = TEXT + where.format(drawn)
    with pytest.raises(UserError, match="from one time to the next.*roles user.*chat_template.jinja"):
        chats.render(tokenizer, EXCHANGE[:1])
