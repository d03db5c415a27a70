"""In which arithmetic a model runs, and how long its rows may be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.models.loading import max_positions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CPU_ROWS = 32  # rows in a forward pass without gradients on a CPU: more do not fit its cache (measured: 128 take a fifth longer)
BF16_WIDTH = 128  # narrowest hidden size for which bf16 autocast is faster on a CPU with AVX512_BF16 (measured)


def longest_row(model: PreTrainedModel, max_length: int) -> int:
    """``max_length`` in tokens, or the model's own limit where that is less."""
    return min(max_length, max_positions(model) or max_length)


def native_bf16(device: torch.device) -> bool:
    """True where bf16 matrices multiply natively: CUDA from compute capability 8, CPUs with AVX512_BF16 or AMX unless PyTorch is
    held to less (``ATEN_CPU_CAPABILITY``)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2"):
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return False


def use_bf16(model: PreTrainedModel, device: torch.device, precision: str = "auto") -> bool:
    """Whether to run under bf16 autocast (weights stay fp32).

    "auto": where native, and on a CPU only for a hidden size of at least ``BF16_WIDTH``: below, the casts cost more
    than the multiplications save. "fp32" and "bf16" decide by themselves.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision {precision!r} is unknown; allowed are auto, fp32, bf16")
    if precision != "auto":
        return precision == "bf16"
    return native_bf16(device) and (device.type != "cpu" or model.config.hidden_size >= BF16_WIDTH)


def autocast(model: PreTrainedModel, device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which the model runs as ``use_bf16`` decides."""
    import torch

    return (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if use_bf16(model, device, precision)
        else contextlib.nullcontext()
    )
