"""Which types of models the installed transformers knows, and which of them write: read from its tables, without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from underseer.errors import UserError, nearest
from underseer.models.parsing import FAMILIES

ENCODERS = ("bert",)
"""Families of scratch models that read in both directions."""


def check_type(place: str, config: Mapping[str, Any]) -> None:
    """Raise UserError for a type of model that transformers does not know, unless vLLM is there, which knows others."""
    name, known = config["model_type"], _tables()[0]
    if known and name not in known and find_spec("vllm") is None:
        raise UserError(
            f"{place} is of the type {name[:80]!r}, which transformers {version('transformers')} does not know"
            f"{nearest(name, known)}; give a model of a type that it knows (code that comes with a model is never run)"
        )


def check_writes(place: str, config: Mapping[str, Any]) -> None:
    """Raise UserError for a configuration whose model does not write from left to right: an encoder, or one with a decoder of its own."""
    name, (_, causal, masked) = config["model_type"], _tables()
    wrong = None
    if config.get("is_encoder_decoder"):
        wrong = "has an encoder and a decoder"
    elif name in masked and not config.get("is_decoder"):
        wrong = "reads a text in both directions"
    elif causal and name not in causal and find_spec("vllm") is None:
        wrong = "is none that writes"
    if wrong:
        raise UserError(
            f"{place} ({name}) {wrong}, and a language model is needed, which writes from left to right; give one such as "
            "gpt2, llama or qwen2"
        )


def check_family(place: str, family: str) -> None:
    """Raise UserError for a family of scratch models that reads in both directions."""
    if family in ENCODERS:
        writers = ", ".join(name for name in FAMILIES if name not in ENCODERS)
        raise UserError(
            f"{place} reads a text in both directions, and a language model is needed, which writes from left to right; give "
            f"scratch: with one of {writers}"
        )


@cache
def _tables() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The types that transformers knows, those that it opens as causal language models, and those that it opens as masked ones; empty
    where its tables do not stand where they are looked for."""
    found = find_spec("transformers")
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) / "models" / "auto" if found else Path()
    names = ("auto_mappings.py", "configuration_auto.py", "modeling_auto.py")
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in names if (folder / name).is_file()}
    if len(texts) < len(names):
        return frozenset(), frozenset(), frozenset()
    known = re.findall(r'"([\w.-]+)"[:,] "\w+Config"', texts[names[0]] + texts[names[1]])
    causal, masked = (_keys(texts[names[2]], f"MODEL_FOR_{kind}_LM_MAPPING_NAMES") for kind in ("CAUSAL", "MASKED"))
    return frozenset(known), causal, masked


def _keys(source: str, name: str) -> frozenset[str]:
    """The keys of ``NAME = OrderedDict([(key, value), ...])`` in a Python source."""
    start = source.find(f"\n{name} = OrderedDict(")
    if start < 0:
        return frozenset()
    try:
        (statement,) = ast.parse(source[start : source.index("\n)", start) + 2]).body
        return frozenset(key for key, _ in ast.literal_eval(statement.value.args[0]))
    except (ValueError, SyntaxError, AttributeError, IndexError, TypeError):
        return frozenset()
