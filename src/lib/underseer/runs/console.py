"""What the commands share: the two streams that they write to, and how a table looks."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str, *, failed: bool = False) -> None:
    """Print a line as it is, never folded, so that paths can be copied; to standard error where something ``failed``."""
    (errors if failed else console).print(text, markup=False, soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: int = 0, title: str = "") -> Table:
    """A table without lines; 0 and None are empty cells.

    Args:
        columns: their names.
        rows: the cells of each row.
        numbers: how many columns after the first one hold numbers; these stand to the right.
        title: a line above it.
    """
    shown = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for n, column in enumerate(columns):
        shown.add_column(
            column, justify="right" if 0 < n <= numbers else "left", overflow="fold", no_wrap=n == 0 < numbers
        )
    for row in rows:
        shown.add_row(*(str(cell or "") for cell in row))
    return shown
