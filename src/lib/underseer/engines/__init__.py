"""Engines: one interface to generate and to score text, whatever runs the model. Nothing heavy is imported here.

``open_engine`` gives one of

- ``transformers``: this process, any device (``local.generate`` and ``local.log_probs`` are its two functions);
- ``vllm``: vLLM's offline engine; fast on GPUs, for many answers;
- ``openai``: a server elsewhere that speaks the OpenAI protocol, such as ``vllm serve``.

The base model is loaded once; adapters (PEFT LoRA folders) are applied to it call by call and never merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

    from underseer.cost import Ledger

Prompt = str | list[dict[str, str]]
"""What is continued: a text that reads on, or a chat (``chats.Chat``) that the assistant answers."""

ENGINES = ("auto", "transformers", "vllm", "openai")


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. Raises UserError for values out of range."""

    max_new_tokens: int = 20
    temperature: float = 0.0  # 0 = greedy: always the likeliest token
    top_p: float = 1.0  # only the likeliest tokens that together reach this probability; 1 = all
    top_k: int = 0  # only this many likeliest tokens; 0 = all
    no_repeat_ngram: int = 0  # no n-gram of this many tokens twice in prompt and answer; 0 = allowed
    n: int = 1  # answers per prompt
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature >= 0, "at least 0 (0 = greedy)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (1 = off)"),
            "top_k": (self.top_k >= 0, "at least 0 (0 = off)"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, "at least 0 (0 = off)"),
            "n": (self.n >= 1, "at least 1"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                raise UserError(f"sampling: {name} = {getattr(self, name)!r}; it must be {allowed}")
        if self.temperature == 0 and self.n > 1:
            raise UserError(f"sampling: n = {self.n} greedy answers would all be the same; set a temperature, or n = 1")


@dataclass(frozen=True)
class Inference:
    """How forward passes without gradients run. ``max_length``: most tokens of a prompt with its answer."""

    device: str
    precision: str
    batch_size: int
    max_length: int


@dataclass(frozen=True)
class Answer:
    """One continuation, without its prompt. ``token_ids`` leave out the end token that closed it, if one did."""

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length", "failed"]  # the model ended its text, max_new_tokens did, or see failure
    log_probs: list[float] | None = (
        None  # of token_ids, nats, by the model alone: before temperature, top-k, top-p, bans
    )
    n_prompt_tokens: int = 0  # that the model read before it, after cutting
    failure: str | None = None  # why there is no answer (then text is empty): only engines that call a server fail so
    counted: int | None = None  # tokens by a server's count, where it does not give their ids

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids) if self.counted is None else self.counted


class Engine(Protocol):
    """A model that is ready. ``version`` holds what, beside the model, decides its answers; it goes into results."""

    name: str
    version: str

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        """For each prompt, in the order given, its ``sampling.n`` answers."""
        ...

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed log-probability of each text's tokens in nats (n,) float64, and how many tokens were counted (n,)."""
        ...

    def close(self) -> None:
        """Give back memory and processes. An engine is not used afterwards."""
        ...


OPTIONS: dict[str, tuple[str, ...]] = {
    "transformers": ("texts",),
    "vllm": ("tensor_parallel", "data_parallel", "prefix_caching", "memory", "eager", "kv_cache_gb"),
    "openai": ("url", "tokenizer", "concurrency", "timeout", "tries", "backoff", "cache"),
}
"""What an engine takes beside what all take."""

PARAMETERS = {
    "tensor_parallel": "tensor_parallel",
    "data_parallel": "data_parallel",
    "kv_cache_gb": "kv_cache_gb",
    "server_concurrency": "concurrency",
    "server_timeout": "timeout",
    "server_tries": "tries",
}
"""Parameters of an experiment that say how an engine runs, and the option that each is."""


def resolve(engine: str) -> str:
    """The engine that ``auto`` stands for on this machine: vLLM where it and an NVIDIA GPU are, else transformers.

    On a CPU vLLM starts in 25 to 46 s, which pays only past some 0.6 million new tokens of a 4-layer 256-wide GPT-2, or
    36,000 of GPT-2 small (two cores); ask for it by name there. Needs no torch. Raises UserError for an unknown engine.
    """
    if engine not in ENGINES:
        raise UserError(f"engine {engine!r} is unknown; allowed are {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if engine != "auto":
        return engine
    from underseer.engines import gpus

    return "vllm" if find_spec("vllm") is not None and gpus.visible() else "transformers"


def choose(engine: str, models: Sequence[str] = (), device: str = "auto") -> str:
    """``resolve`` for a stage: ``auto`` keeps to transformers off the GPU, and for models of the testbed, which are small
    and of a family (GPT-2) whose adapters vLLM does not serve."""
    if engine == "auto" and (device in ("cpu", "mps") or any(m.startswith(("testbed:", "scratch:")) for m in models)):
        return "transformers"
    return resolve(engine)


@cache
def identity(engine: str, precision: str = "fp32") -> str:
    """What of the engine decides a stage's answers, for its key: name, package versions, precision. Needs no torch.

    How many GPUs share the work is left out, as the device is. Of a server only that it is one is known before it is
    asked; what it runs stands in the opened engine's ``version``, which goes into the stage's manifest.
    """
    name = resolve(engine)
    return f"{name}: {import_module(f'underseer.engines.on_{name}').version(precision)}"


def check(engine: str) -> None:
    """Raise UserError where an engine is unknown or, as far as can be seen before it is opened, cannot be opened here."""
    module = import_module(f"underseer.engines.on_{resolve(engine)}")
    getattr(module, "check", lambda: None)()


def planned(run: Any, engine: str) -> dict[str, Any]:
    """How a stage opens engines: as its plan chose for ``auto``, with the options that the experiment gives."""
    instance = run.instance
    options = {option: instance.runtime[name] for name, option in PARAMETERS.items() if name in instance.runtime}
    return {"engine": instance.parameters["engine"] if engine == "auto" else engine, **options}


def open_engine(
    engine: str,
    model: str,
    *,
    base: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 128,
    max_length: int = 512,
    lora_rank: int = 0,
    keep: Path | None = None,
    cost: Ledger | None = None,
    progress: bool = True,
    **options: Any,
) -> Engine:
    """An engine with its model loaded.

    ``model`` is a specification (a hub id, a folder, ``testbed:NAME`` with its folder as ``base``); for ``openai`` the
    name that the server gives it. ``max_length`` is the most tokens of a prompt with its answer, or of a scored row;
    what is longer is cut as in ``local``. ``lora_rank`` is the largest rank of adapters to come (vLLM must know).
    ``keep`` is a file in which answers are kept as they come, so that a rerun after an interruption asks for the rest
    only. ``cost`` is told tokens. ``options`` that only another engine takes are left aside, so that one set of
    parameters serves all.
    Raises UserError: an unknown engine or option, a model that cannot be loaded, a server that cannot be reached.
    """
    name = resolve(engine)
    chosen = _options(name, options)
    how: dict[str, Any] = {"base": base, "max_length": max_length, "cost": cost, "progress": progress, **chosen}
    if name == "openai":
        how["cache"] = keep if keep is not None else chosen.get("cache")
    else:
        how.update(precision=precision, batch_size=batch_size)
    if name == "transformers":
        how["device"] = device
    elif name == "vllm":
        how["lora_rank"] = lora_rank
    # By name: a stage's identity rests on the engine that it uses, not on the others (``pipelines.DYNAMIC``).
    opened: Engine = import_module(f"underseer.engines.on_{name}").open_(model, **how)
    if keep is None or name == "openai":  # which keeps every answer by itself
        return opened
    from underseer.engines.kept import KeepingEngine, Kept
    from underseer.models import loading

    place = loading.source(model, base)
    return KeepingEngine(opened, Kept(keep), loading.fingerprint(model if place is None else place), 4 * batch_size)


def _options(engine: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that the engine takes."""
    known = [name for names in OPTIONS.values() for name in names]
    for name in options:
        if name not in known:
            raise UserError(f"engines take no option {name!r}; allowed are {', '.join(known)}{nearest(name, known)}")
    return {name: value for name, value in options.items() if name in OPTIONS[engine]}
