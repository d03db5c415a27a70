"""The progress bar of long work."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, name: str, unit: str, *, shown: bool = True, initial: int = 0) -> Any:
    """A bar that is gone when the work is done: none where ``shown`` is false or ``TQDM_DISABLE`` is set."""
    from tqdm.auto import tqdm

    file = sys.stdout if "ipykernel" in sys.modules else None  # a notebook paints stderr red
    hidden = {} if shown else {"disable": True}
    return tqdm(total=total, desc=name, unit=unit, initial=initial, mininterval=0.5, leave=False, file=file, **hidden)
