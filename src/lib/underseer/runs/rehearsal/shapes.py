"""What a tiny model is made of: the configuration of the model that it stands for, with every size small.

The configuration is that of the model's files where they are on this machine (a folder, the hub's cache); else that of
the architecture which its hub id names. Nothing is downloaded and nothing of torch is imported.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from underseer.errors import UserError
from underseer.judges.spec import KINDS, Writing
from underseer.models import parsing, specs
from underseer.runs.rehearsal import tokens
from underseer.runs.rehearsal.tokens import Tokens

VERSION = "5"  # of what a shape is made into: another one makes all tiny models anew
WIDTH, LAYERS, HEADS, POSITIONS = 64, 2, 2, 4096
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "embedding_size", "pooler_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim"), 2 * WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), HEADS),
    **dict.fromkeys(("head_dim", "query_pre_attn_scalar"), WIDTH // HEADS),
}
"""Sizes by the names that configurations give them. Where there are several layers or heads, one alone could hide a mistake."""

DECIDED = ("vocab_size", "layer_types", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "dtype", "torch_dtype",
           "quantization_config", "task_specific_params", "_name_or_path", "transformers_version")  # fmt: skip
"""What the tokenizer or the number of layers decides, or what is about the weights."""


@dataclass(frozen=True)
class Shape:
    """A tiny model: what it stands for (``name``), its shrunk configuration, its class, its tokenizer."""

    name: str
    config: dict[str, Any]
    auto: str  # class of transformers
    tokens: Tokens
    labels: tuple[str, ...] = ()  # of a classifier
    extra: dict[str, Any] = field(default_factory=dict)  # of the configuration, not to be shrunk
    says: tuple[tuple[str, ...], ...] = ()  # verdicts that a judge which writes them is taught, each in its tokens

    @property
    def writing(self) -> Writing:
        """How the judge whose verdicts it says writes them."""
        return next(w for kind in KINDS.values() for w in kind.writing if w.examples == self.says)

    @property
    def digest(self) -> str:
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Architecture:
    """A family of models on the hub: type and class in transformers, its tokenizer, what differs from the type's defaults."""

    model_type: str
    model_class: str
    tokens: str
    config: dict[str, Any] = field(default_factory=dict)


_TIED = {
    "max_position_embeddings": POSITIONS,
    "tie_word_embeddings": True,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
ARCHITECTURES: tuple[tuple[str, Architecture], ...] = (
    (r"openai-gpt$", Architecture("openai-gpt", "OpenAIGPTLMHeadModel", "gpt1")),
    (r"gpt-?2", Architecture("gpt2", "GPT2LMHeadModel", "gpt2")),
    (r"qwen-?3", Architecture("qwen3", "Qwen3ForCausalLM", "chatml", _TIED)),
    (r"qwen-?2", Architecture("qwen2", "Qwen2ForCausalLM", "chatml", _TIED)),
    (r"llama", Architecture("llama", "LlamaForCausalLM", "llama3", _TIED)),
    (
        r"mistral|wildguard|md-?judge",
        Architecture("mistral", "MistralForCausalLM", "mistral", {**_TIED, "tie_word_embeddings": False}),
    ),
    (r"granite", Architecture("granite", "GraniteForCausalLM", "chatml", _TIED)),
    (r"gemma-?2|shieldgemma", Architecture("gemma2", "Gemma2ForCausalLM", "gemma", _TIED)),
    (r"deberta", Architecture("deberta-v2", "DebertaV2ForMaskedLM", "bert")),
    (r"roberta", Architecture("roberta", "RobertaForMaskedLM", "roberta", {"max_position_embeddings": 514})),
    (r"distilbert", Architecture("distilbert", "DistilBertForMaskedLM", "bert")),
    (r"minilm", Architecture("bert", "BertModel", "bert")),
    (r"bert", Architecture("bert", "BertForMaskedLM", "bert")),
)
"""Pattern of a model's name, the first that fits counts -> its architecture."""

_CHATS = re.compile(r"instruct|chat|[-_]it\b|guard|shieldgemma|qwen|md-?judge|harmbench")
"""Names of models whose tokenizers come with a chat template."""

_MULTI = {"problem_type": "multi_label_classification"}
CLASSIFIERS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "unitary/toxic-bert": (("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"), _MULTI),
    "unitary/unbiased-toxic-roberta": (("toxicity", "severe_toxicity", "obscene", "threat", "insult"), _MULTI),
    "s-nlp/roberta_toxicity_classifier": (("neutral", "toxic"), {}),
    "martin-ha/toxic-comment-model": (("non-toxic", "toxic"), {}),
    "facebook/roberta-hate-speech-dynabench-r4-target": (("nothate", "hate"), {}),
    "protectai/distilroberta-base-rejection-v1": (("NORMAL", "REJECTION"), {}),
}
"""Classes of published classifiers, in their order, and how they are trained."""
_ALSO = {"martin-ha/toxic-comment-model": "distilbert"}
"""Models whose name does not tell their architecture -> a name that does."""


def shape_of(spec: str, kind: str = "", label: str | None = None, options: str = "") -> Shape:
    """The tiny model for a model specification; ``kind`` is that of a judge (classifier, reward: one with a trained head), ``options`` are the
    judge's.

    Raises:
        UserError: the architecture, or a classifier's classes, are not known here; says what to fetch.
    """
    model = specs.parse(spec)
    config = specs.configuration(model) if model.kind in ("folder", "hub") else None
    if config is not None:
        folder = specs.local_folder(model)
        base, auto, own = (
            dict(config),
            (config.get("architectures") or ["AutoModelForCausalLM"])[0],
            tokens.of(folder, config),
        )
    else:
        architecture = _architecture(model)
        base = {"model_type": architecture.model_type, **architecture.config}
        auto, own = architecture.model_class, tokens.FAMILIES[architecture.tokens]
        if not _CHATS.search(model.name.lower()):
            own = replace(own, template=None)
        if model.kind == "testbed" and _testbed(model.name).shelf == "chat":
            turns = import_module("underseer.testbed.turns")
            own = replace(own, others=tuple(turns.TOKENS), template=turns.TEMPLATE)
    known = KINDS[kind].writing if kind else ()
    writing = next((w for w in known if re.search(w.models, f"{model.name}{options}", re.IGNORECASE)), None)
    if writing is not None:
        base["tie_word_embeddings"] = False  # how a verdict is read is one thing, how it is written another
    labels, extra = _head(model, kind, label, config)
    if labels:
        auto = "AutoModelForSequenceClassification"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(model.name).name).strip("-").lower()
    return Shape(name, shrunk(base), auto, own, labels, extra, writing.examples if writing else ())


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the sizes that it has small, and with the grouping of heads that it has."""
    kept = {
        k: v for k, v in config.items() if k not in (*DECIDED, "id2label", "label2id", "num_labels", "architectures")
    }
    small = {k: SMALL[k] if k in SMALL and v is not None else v for k, v in kept.items()}
    if kept.get("num_key_value_heads") is not None:
        grouped = kept["num_key_value_heads"] < kept.get("num_attention_heads", 0)
        small["num_key_value_heads"] = 1 if grouped else HEADS
    for name in ("max_position_embeddings", "n_positions"):
        if name in small:
            small[name] = min(small[name], POSITIONS)
    return small


def _architecture(model: specs.ModelSpec) -> Architecture:
    name = model.name
    if model.kind == "testbed":
        name = {"gpt1": "openai-gpt"}.get(_testbed(name).family, _testbed(name).family)
    elif model.kind == "scratch":
        name = parsing.FAMILIES[name][0] if name != "gpt1" else "openai-gpt"
    name = _ALSO.get(name, name).lower()
    architecture = next((a for pattern, a in ARCHITECTURES if re.search(pattern, name)), None)
    if architecture is None:
        raise UserError(
            f"--rehearse: model {str(model)!r}: its architecture is not known here; fetch its configuration first: "
            f"hf download {model.name} --include '*.json' '*.jinja'"
        )
    return architecture


def _testbed(name: str) -> Any:
    """What a model of the testbed is, or is trained from."""
    chat = import_module("underseer.testbed.chat").CHAT_MODELS
    return import_module("underseer.testbed.base").spec_of(chat[name].base if name in chat else name)


def _head(
    model: specs.ModelSpec, kind: str, label: str | None, config: dict[str, Any] | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The classes of a model that has a trained head, and how it was trained; none for other models."""
    if kind == "reward":
        return ("reward",), {}
    if kind != "classifier":
        return (), {}
    if config and config.get("id2label"):
        names = tuple(str(v) for _, v in sorted(config["id2label"].items(), key=lambda item: int(item[0])))
        return names, {k: config[k] for k in ("problem_type",) if config.get(k)}
    if model.name in CLASSIFIERS:
        return CLASSIFIERS[model.name]
    if label is None:
        raise UserError(
            f"--rehearse: classifier {str(model)!r}: its classes are not known here; name the one looked for "
            f"(?label=NAME), or fetch its configuration: hf download {model.name} --include '*.json'"
        )
    return ("other", label), {}
