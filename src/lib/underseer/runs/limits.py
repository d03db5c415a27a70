"""What cannot be run: values that nothing can compute with, store or show, sizes beyond reach."""

from __future__ import annotations

import math
import re
from typing import Any

MOST_VARIANTS, MOST_STAGES = 10_000, 20_000
MOST_BYTES = 1 << 20  # of an experiment file
SMALLEST, LARGEST = 1e-37, 3e38  # what a 32-bit float holds

MOST: tuple[tuple[str, float], ...] = (
    (r"seed$", 2**31 - 1),
    (r"epochs$", 10_000),
    (r"max_length|new_tokens", 2**20),
    (r"bootstraps|members|iterations|_rounds|samples|_per_prompt|threads|parallel|concurrency|tries", 1_000),
    (r"", 10**6),
)
"""Pattern of a parameter's name -> the most that a whole number, or a number of epochs, may be."""


def unfit(key: str, value: Any) -> str | None:
    """Why a value of the right type cannot be used, or None: a number that generators or 32-bit floats do not hold, or beyond
    any experiment; a text that can stand in no file's name, table or page."""
    if isinstance(value, str):
        return _unfit_text(value) or _unfit_own(key, value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value == 0:
        return None
    if isinstance(value, float) and not (math.isfinite(value) and SMALLEST <= abs(value) <= LARGEST):
        return f"expected a number from {SMALLEST:g} to {LARGEST:g} in size, or 0 where it is allowed"
    most = next(most for pattern, most in MOST if re.search(pattern, key))
    counted = isinstance(value, int) or key.endswith("epochs")
    return f"expected at most {most:,}" if counted and value > most else None


def _unfit_own(key: str, value: str) -> str | None:
    """The same of the numbers in a parameter of the baselines: ``sft:2,human_dpo:3``."""
    if not str(key).startswith("baseline_"):
        return None
    given = re.findall(r":\s*(\d*\.?\d+(?:e-?\d+)?)\s*(?:,|$)", value)
    found = (unfit(key, number) for number in map(float, given) if math.isfinite(number))
    return next((problem for problem in found if problem), None)


def _unfit_text(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a character: a lone surrogate"
    return None
