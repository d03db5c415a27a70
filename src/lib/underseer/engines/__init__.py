"""Engines: one interface to generate and to score text, whatever runs the model. Nothing heavy is imported here.

``open_engine`` gives one of

- ``transformers``: this process, any device (``local.generate`` and ``local.log_probs`` are its two functions);
- ``vllm``: vLLM's offline engine; fast on GPUs, for many answers;
- ``openai``: a server elsewhere that speaks the OpenAI protocol, such as ``vllm serve``.

The base model is loaded once; adapters (PEFT LoRA folders) are applied to it call by call and never merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines.base import USUAL, Answer, Engine, Inference, Prompt, Sampling
from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    from underseer.cost import Ledger
    from underseer.stage_run import Run

__all__ = [
    "ENGINES", "OPTIONS", "PARAMETERS", "Answer", "Engine", "Inference", "Prompt", "Sampling",
    "check", "choose", "identity", "open_engine", "planned", "resolve",
]  # fmt: skip

ENGINES = ("auto", "transformers", "vllm", "openai")


OPTIONS: dict[str, tuple[str, ...]] = {
    "transformers": ("texts",),
    "vllm": ("lora_rank", "tensor_parallel", "data_parallel", "prefix_caching", "memory", "eager", "kv_cache_gb"),
    "openai": ("url", "tokenizer", "concurrency", "timeout", "tries", "backoff", "cache"),
}
"""What an engine takes beside what all take. ``lora_rank`` is the largest rank of adapters to come: vLLM must know."""

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


def planned(run: Run, engine: str) -> dict[str, Any]:
    """How a stage opens engines: as its plan chose for ``auto``, with the options that the experiment gives."""
    instance = run.instance
    options = {option: instance.runtime[name] for name, option in PARAMETERS.items() if name in instance.runtime}
    return {"engine": instance.parameters["engine"] if engine == "auto" else engine, **options}


def open_engine(
    engine: str,
    model: str,
    inference: Inference = USUAL,
    *,
    base: Path | None = None,
    keep: Path | None = None,
    cost: Ledger | None = None,
    progress: bool = True,
    **options: Any,
) -> Engine:
    """An engine with its model loaded.

    ``model`` is a specification (a hub id, a folder, ``testbed:NAME`` with its folder as ``base``); for ``openai`` the
    name that the server gives it. What is longer than ``inference.max_length`` is cut as in ``local``. ``keep`` is a file
    in which answers are kept as they come, so that a rerun after an interruption asks for the rest only. ``cost`` counts
    tokens. Of the ``options`` (``OPTIONS``) an engine takes its own, so that one set of parameters serves all.
    Raises UserError: an unknown engine or option, a model that cannot be loaded, a server that cannot be reached.
    """
    name = resolve(engine)
    chosen = _options(name, options)
    if name == "openai" and keep is not None:
        chosen["cache"] = keep
    # By name: a stage's identity rests on the engine that it uses, not on the others (``pipelines.DYNAMIC``).
    module = import_module(f"underseer.engines.on_{name}")
    opened: Engine = module.open_(model, inference, base=base, cost=cost, progress=progress, **chosen)
    if keep is None or name == "openai":  # which keeps every answer by itself
        return opened
    from underseer.engines.keeping import KeepingEngine
    from underseer.engines.kept import Kept
    from underseer.models import loading

    identity = loading.fingerprint(loading.source(model, base) or model)
    return KeepingEngine(opened, Kept(keep), identity, 4 * inference.batch_size)


def _options(engine: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that the engine takes."""
    known = [name for names in OPTIONS.values() for name in names]
    for name in options:
        if name not in known:
            raise UserError(f"engines take no option {name!r}; allowed are {', '.join(known)}{nearest(name, known)}")
    return {name: value for name, value in options.items() if name in OPTIONS[engine]}
