"""Conversations as token rows, through the model's own chat template.

A chat is a list of messages, each ``{"role": "system" | "user" | "assistant", "content": text}``. What people, attackers or
models wrote is content: special tokens that it spells are broken up, so that no content can open a turn of its own. Arguments
of the template (``with_arguments``) stand in the first message, so that they travel with the chat to whatever renders it.

A prompt depends on the model, the chat and the settings alone. Each template is tried for every order of roles, with short messages and
with long ones: the text of each message must stand in what it writes, it must write the same each time, and a template that
asks for the date is given ``DATE``.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError
from underseer.models.batches import end_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = list[dict[str, Any]]

DATE = datetime.datetime(2024, 7, 26)
"""The day that templates are told, always the same: the one that Llama 3's template takes where it has no clock."""

_PROBES = ('first "probe" <b>é</b>\n\n1 & 2', "second", "third\tprobe")
_LONG = " with many words" * 500 + " end"
_TRIES = 8  # times that a probe is written, to see whether chance has a part in it
_AS_PARTS: dict[tuple[str, ...], bool] = {}
"""Template, its arguments and roles -> whether messages are given as lists of parts, for all templates tried so far."""

ARGUMENTS = "template"
"""Key of the first message that holds the arguments of the chat template."""
NO_THOUGHTS = {"enable_thinking": False, "thinking": False, "think": False}
"""Names that chat templates have for whether the model thinks before it answers (Qwen3, SmolLM3 and GLM; DeepSeek; Granite)."""


def ask(text: str, system: str | None = None) -> Chat:
    """A chat of one user message, after a system message where one is given."""
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": text}]


def with_arguments(chat: Chat, arguments: Mapping[str, Any]) -> Chat:
    """The chat with arguments of its template; a template that does not know one of them ignores it."""
    return [{**chat[0], ARGUMENTS: {**chat[0].get(ARGUMENTS, {}), **arguments}}, *chat[1:]]


def apart(chat: Chat) -> tuple[Chat, dict[str, Any]]:
    """The messages of a chat as they are sent, and the arguments of its template."""
    arguments = chat[0].get(ARGUMENTS, {}) if chat else {}
    return [{key: value for key, value in message.items() if key != ARGUMENTS} for message in chat], arguments


def check_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError for a tokenizer without a chat template: how it marks turns cannot be guessed."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"model {name!r} has no chat template, so it is no chat model; give an instruct model, or put the template of "
            "its family into its folder as chat_template.jinja"
        )


def render(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The text of a chat up to where the assistant's next message begins. Raises UserError as ``render_closed``."""
    return _rendered(tokenizer, _plain(tokenizer, chat), add_generation_prompt=True)


def render_closed(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The text of a chat that is over. Raises UserError where the template leaves out, cuts or rewrites a message."""
    return _rendered(tokenizer, _plain(tokenizer, chat))


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Chat, *, add_generation_prompt: bool = False) -> str:
    roles = tuple(message["role"] for message in chat)
    arguments = apart(chat)[1]
    tried = (str(tokenizer.chat_template), json.dumps(arguments, sort_keys=True), str(add_generation_prompt), *roles)
    if tried not in _AS_PARTS:
        _AS_PARTS[tried] = _reads_parts(tokenizer, roles, arguments, add_generation_prompt)
    return _apply(tokenizer, chat, _AS_PARTS[tried], add_generation_prompt=add_generation_prompt)


def _reads_parts(
    tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], arguments: Mapping[str, Any], opened: bool
) -> bool:
    """Whether the template reads contents as lists of parts, and not as texts; tried with short messages, with long ones, and several
    times. ``opened``: with the beginning of an answer. Raises UserError where it reads neither."""
    short = [f"{_PROBES[min(i, 2)]} {i}" for i in range(len(roles))]
    refused, wrong = None, "leaves out, cuts or rewrites messages"
    for as_parts in (False, True):
        try:
            for probes in (short, [f"{probe}{_LONG} {i}" for i, probe in enumerate(short)]):
                chat = [{"role": role, "content": probe} for role, probe in zip(roles, probes, strict=True)]
                chat = with_arguments(chat, arguments)
                written = {_apply(tokenizer, chat, as_parts, add_generation_prompt=opened) for _ in range(_TRIES)}
                if not all(probe in text for text in written for probe in probes):
                    break
                if len(written) > 1:
                    wrong = "writes the same messages differently from one time to the next"
                    break
            else:
                return as_parts
        except Exception as error:
            refused = refused or error
    if refused is not None and type(refused).__name__ == "TemplateError":
        raise refused  # the template's own word: roles that it does not take
    raise UserError(
        f"the chat template of {tokenizer.name_or_path!r} {wrong} (tried with the roles "
        f"{', '.join(roles)}), so that the model would not read what it is asked; put a template that writes each message "
        "whole, and always the same, into the model's folder as chat_template.jinja"
    )


def _apply(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, as_parts: bool, *, add_generation_prompt: bool = False
) -> str:
    messages, arguments = apart(chat)
    if as_parts:
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=DATE.strftime, **arguments
    )


def prompt_rows(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> list[np.ndarray]:
    """Token ids (n of (L,), int64) of each chat, up to where the assistant's next message begins."""
    return text_rows(tokenizer, [render(tokenizer, chat) for chat in chats])


def text_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of rendered chats: special tokens that the template wrote are read as such."""
    if not len(texts):
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, padding=False, truncation=False, verbose=False)
    return [np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]]


def _plain(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> Chat:
    """The chat with special tokens in its contents broken up by a space after their first character."""
    return [{**message, "content": _broken_up(tokenizer, [message["content"]])[0]} for message in chat]


def _broken_up(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """The texts with special tokens in them broken up. Added tokens of white space alone (Gemma has some) open no turn."""
    special = sorted(set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab()), key=len, reverse=True)
    special = [token for token in special if len(token) > 1 and token.strip()]
    texts = list(texts)
    for i, text in enumerate(texts):
        for token in special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        texts[i] = text
    return texts


def answer_rows(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[str], cut: Sequence[bool] | None = None
) -> list[np.ndarray]:
    """Token ids (n of (L,), int64) with which the assistant gives each answer: its text, and the token that ends its turn.

    They follow ``prompt_rows``: what the tokenizer makes of an answer where the assistant's message begins, without any of
    the prompt's tokens, since those stand when a model begins to write. What the template puts after the end of the turn
    (a newline, often) no model writes, and is left out. An answer marked ``cut`` (n,) ran out of tokens: its turn has not ended, and
    its row has no such token.
    """
    prompt, lead, end = _turn(tokenizer)
    (opening,) = text_rows(tokenizer, [prompt])
    parts = [lead + text for text in _broken_up(tokenizer, answers)]
    rows = []
    for part, row in zip(parts, text_rows(tokenizer, [prompt + part for part in parts]), strict=True):
        if np.array_equal(row[: len(opening)], opening):
            row = row[len(opening) :]
        else:  # its first characters merged with the prompt's last
            (row,) = text_rows(tokenizer, [part])
        rows.append(np.append(row, end))
    return rows if cut is None else unended(rows, cut)


def unended(rows: Sequence[np.ndarray], cut: Sequence[bool]) -> list[np.ndarray]:
    """Token rows without their last token, the end, where an answer was ``cut`` (n,); one of the end alone stays."""
    return [row[:-1] if was_cut and len(row) > 1 else row for row, was_cut in zip(rows, cut, strict=True)]


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id with which the chat template ends the assistant's turn; the end token where it writes none, where there is no template,
    and where the template knows no answer after a prompt: that of a guard asks about both."""
    from jinja2 import TemplateError

    if getattr(tokenizer, "chat_template", None):
        with contextlib.suppress(UserError, TemplateError):
            return _turn(tokenizer)[2]
    return end_token(tokenizer)


def _turn(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, int]:
    """A prompt, what the template puts before its answer (mostly nothing), and the id that ends the assistant's turn."""
    probe = "x"
    chat = ask(probe)
    prompt = render(tokenizer, chat)
    whole = _rendered(tokenizer, [*chat, {"role": "assistant", "content": probe}])
    lead, separator, tail = whole[len(prompt) :].partition(probe)
    if not whole.startswith(prompt) or not separator:
        raise UserError(
            "the chat template writes a prompt differently where an answer follows, so that answers cannot be told from "
            "prompts; put a template without this into the model's folder as chat_template.jinja"
        )
    known = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    closing = [token for token in tokenizer(tail, add_special_tokens=False)["input_ids"] if token in known]
    return prompt, lead, closing[0] if closing else end_token(tokenizer)
