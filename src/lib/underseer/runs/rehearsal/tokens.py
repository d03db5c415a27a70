"""Tokenizers of tiny models: the special tokens, the order around texts and the chat template of a family of models.

Templates are those that the families publish, shortened to what a chat of system, user and assistant messages needs; what
they refuse (Gemma: a system message) they refuse here too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n' + system + '<|eot_id|>' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Tokens:
    """Special tokens by name, and others; ``around`` and ``pair`` say where they stand in one text and in two ($A, $B)."""

    named: dict[str, str]
    others: tuple[str, ...] = ()
    around: str | None = None
    pair: str | None = None
    types: bool = False  # whether the two texts of a pair are told apart by token types
    template: str | None = None
    ends: tuple[str, ...] = ()  # further tokens at which generation ends


_BERT = dict(zip(("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
                 ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))  # fmt: skip
_ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>",
            "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip

FAMILIES: dict[str, Tokens] = {
    "gpt1": Tokens({"unk_token": "<unk>"}),
    "gpt2": Tokens(dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")),
    "bert": Tokens(_BERT, around="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", types=True),
    "roberta": Tokens(_ROBERTA, around="<s> $A </s>", pair="<s> $A </s> </s> $B </s>"),
    "chatml": Tokens(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ("<|im_start|>",),
        template=CHATML,
        ends=("<|endoftext|>",),
    ),
    "llama3": Tokens(
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        around="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        template=LLAMA3,
        ends=("<|end_of_text|>",),
    ),
    "gemma": Tokens(
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        ("<start_of_turn>", "<end_of_turn>"),
        around="<bos> $A",
        pair="<bos> $A <bos> $B",
        template=GEMMA,
        ends=("<end_of_turn>",),
    ),
    "mistral": Tokens(
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        ("[INST]", "[/INST]"),
        around="<s> $A",
        pair="<s> $A <s> $B",
        template=MISTRAL,
    ),
}

_BY_TYPE = {"openai-gpt": "gpt1", "gpt2": "gpt2", "roberta": "roberta", "xlm-roberta": "roberta", "qwen2": "chatml",
            "qwen3": "chatml", "llama": "llama3", "mistral": "mistral", "gemma": "gemma", "gemma2": "gemma"}  # fmt: skip


def of(folder: Path, config: dict[str, Any]) -> Tokens:
    """The tokens of a model whose files are here: its own special tokens and chat template, in its family's order."""
    family = FAMILIES[_BY_TYPE.get(config.get("model_type", ""), "bert")]
    settings = _json(folder / "tokenizer_config.json")
    named = {name: _content(settings[name]) for name in NAMED if settings.get(name)}
    template = settings.get("chat_template")
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        template = jinja.read_text(encoding="utf-8")
    if not isinstance(template, str):
        template = None
    added = [t["content"] for t in _json(folder / "tokenizer.json").get("added_tokens", ()) if t.get("special")]
    spelt = tuple(t for t in added if template and t in template and t not in named.values())
    if not named:
        return replace(family, template=template, others=(*family.others, *spelt))
    own = set(named.values())
    same = set(family.named.values()) <= own
    ends = tuple(t for t in (*spelt, *own) if t in family.ends)
    if same:
        return replace(family, named=named, others=spelt, template=template, ends=ends)
    return Tokens(named, spelt, template=template, ends=ends)


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
