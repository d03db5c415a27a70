"""Which GPUs this process sees. Needs no torch, and leaves CUDA alone: a process that has begun with it cannot fork."""

from __future__ import annotations

import ctypes
import os


def visible() -> list[str]:
    """Names, as CUDA_VISIBLE_DEVICES gives them, of the NVIDIA GPUs that this process may use."""
    n, chosen = _count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(i) for i in range(n)]
    named = [name.strip() for name in chosen.split(",")]
    usable = named[: next((i for i, name in enumerate(named) if name in ("", "-1")), len(named))]  # as CUDA reads it
    return usable[:n]


def _count() -> int:
    """GPUs that the driver manages; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if driver.nvmlInit_v2() != 0:
        return 0
    try:
        return count.value if driver.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        driver.nvmlShutdown()
