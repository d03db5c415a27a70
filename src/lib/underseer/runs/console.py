"""What the commands share: the two streams that they write to."""

from __future__ import annotations

from rich.console import Console

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str, *, failed: bool = False) -> None:
    """Print a line as it is, never folded, so that paths can be copied; to standard error where something ``failed``."""
    (errors if failed else console).print(text, markup=False, soft_wrap=True)
