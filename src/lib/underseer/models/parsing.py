"""Model specifications: their four forms, and the shapes of the models that are made from random weights."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from underseer.errors import UserError, nearest

# Family -> (model type in transformers, name of each shape option in its configuration).
_GPT = {"n_layer": "n_layer", "n_embd": "n_embd", "n_head": "n_head", "n_positions": "n_positions"}
_MODERN = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
_BERT = {key: name for key, name in _MODERN.items() if key != "n_kv_head"}
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "gpt1": ("openai-gpt", _GPT),
    "gpt2": ("gpt2", {**_GPT, "n_inner": "n_inner"}),
    "bert": ("bert", _BERT),
    "llama": ("llama", _MODERN),
    "mistral": ("mistral", _MODERN),
    "qwen2": ("qwen2", _MODERN),
    "qwen3": ("qwen3", _MODERN),
    "gemma2": ("gemma2", _MODERN),
}
DROPOUT = {
    "gpt1": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}
DEFAULT_SHAPE = {"n_layer": 4, "n_embd": 256, "n_positions": 512, "vocab_size": 8192}
MOST_WEIGHTS = 10**10  # of a scratch model; what is larger is never trained from random weights here
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSpec:
    """A parsed model specification. ``options`` holds the shape of a ``scratch`` model, by its short names."""

    kind: str  # testbed | scratch | folder | hub | templates (an attacker that is no model)
    name: str  # base-model name, family, folder path or hub id
    options: dict[str, float | int] = field(default_factory=dict)
    revision: str | None = None

    def __str__(self) -> str:
        if self.kind == "testbed":
            return f"testbed:{self.name}"
        if self.kind == "scratch":
            query = "&".join(f"{key}={value:g}" for key, value in sorted(self.options.items()))
            return f"scratch:{self.name}" + (f"?{query}" if query else "")
        return self.name + (f"@{self.revision}" if self.revision else "")


TESTBED_MODELS: set[str] = set()
"""Names of the testbed's models: ``testbed.chat`` adds them when it is imported, as planning does. Empty: not checked."""


def parse(spec: str | ModelSpec) -> ModelSpec:
    """Parse a model specification. Raises UserError for a form, family or option that does not exist."""
    if isinstance(spec, ModelSpec):
        return spec
    text = str(spec).strip()
    if text == "templates":
        return ModelSpec("templates", text)
    prefix, colon, rest = text.partition(":")
    if colon and prefix == "testbed":
        return ModelSpec("testbed", rest)
    if colon and prefix == "scratch":
        family, _, query = rest.partition("?")
        return ModelSpec("scratch", family, _scratch_options(text, family, query))
    if text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf") or (text and Path(text).is_dir()):
        return ModelSpec("folder", os.path.expanduser(text))
    name, _, revision = text.partition("@")
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"model {text!r} is not a model specification; allowed are testbed:NAME, "
            "scratch:FAMILY?n_layer=2&n_embd=64, a folder or gguf file (/path or ./path) or a hub id (org/name or org/name@revision)"
            + (nearest(prefix, ("testbed", "scratch")) if colon else "")
        )
    return ModelSpec("hub", name, revision=revision or None)


def _scratch_options(text: str, family: str, query: str) -> dict[str, float | int]:
    if family not in FAMILIES:
        raise UserError(
            f"model {text!r}: unknown family {family!r}; allowed are {', '.join(FAMILIES)}{nearest(family, FAMILIES)}"
        )
    allowed = [*FAMILIES[family][1], "vocab_size"] + (["dropout"] if family in DROPOUT else [])
    native = {long: short for short, long in FAMILIES[family][1].items()}
    options: dict[str, float | int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        key = native.get(key, key)
        if key not in allowed:
            raise UserError(
                f"model {text!r}: unknown option {key!r}; allowed are {', '.join(allowed)}{nearest(key, allowed)}"
            )
        options[key] = _number(text, key, value)
    sizes = shape(options)
    if sizes["n_embd"] % sizes["n_head"]:
        raise UserError(
            f"model {text!r}: n_embd={sizes['n_embd']} is not divisible by n_head={sizes['n_head']}; choose a multiple"
        )
    _check_shape(text, family, sizes)
    weights = 12 * sizes["n_layer"] * sizes["n_embd"] ** 2
    weights += (sizes["vocab_size"] + sizes["n_positions"]) * sizes["n_embd"]
    if weights > MOST_WEIGHTS:
        raise UserError(f"model {text!r}: about {weights:.0e} random weights; at most {MOST_WEIGHTS:.0e} are made here")
    if sizes["n_head"] % sizes.get("n_kv_head", 1):
        raise UserError(f"model {text!r}: n_head={sizes['n_head']} is not divisible by n_kv_head={sizes['n_kv_head']}")
    return options


def _check_shape(text: str, family: str, sizes: dict[str, Any]) -> None:
    """Raise UserError for a shape that no model of the family can have."""
    head = sizes["n_embd"] // sizes["n_head"]
    if FAMILIES[family][1] is _MODERN and head % 2:
        raise UserError(
            f"model {text!r}: n_embd={sizes['n_embd']} and n_head={sizes['n_head']} make heads of {head}, and {family} turns their "
            "numbers in pairs; choose sizes that make it even"
        )
    if sizes["n_positions"] < 2:
        raise UserError(
            f"model {text!r}: n_positions={sizes['n_positions']} leaves nothing to read before a token; give at least 2"
        )


def _number(text: str, key: str, value: str) -> float | int:
    """The value of an option of a scratch model."""
    is_share = key == "dropout"
    try:
        number = float(value) if is_share else int(value)
    except ValueError:
        number = -1
    if not (0 <= number < 1 if is_share else number >= 1):
        allowed = "a number from 0 to below 1" if is_share else "a whole number of at least 1"
        raise UserError(f"model {text!r}: option {key}={value!r} must be {allowed}")
    return number


def shape(options: dict[str, float | int]) -> dict[str, Any]:
    """All sizes of a scratch model, by their short names: the defaults, and the options given over them."""
    sizes = {**DEFAULT_SHAPE, **options}
    sizes.setdefault("n_head", max(1, int(sizes["n_embd"]) // 64))
    return sizes
