"""The progress of long work: a bar in JupyterLab, a line a minute in a batch notebook, and a file that other processes read.

Under the executor the file is ``progress.json`` in the stage's work folder (``UNDERSEER_WORK``), written once a second: the
terminal's table, ``underseer status`` and MLflow read it there. It is gone when the stage is finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FILE = "progress.json"
WRITE_SECONDS = 1.0
LINE_SECONDS = 60.0


class Bar(contextlib.AbstractContextManager):
    """Counts steps of long work up to ``total``, and shows them in each of the three ways."""

    def __init__(self, total: int, name: str, unit: str, *, shown: bool = True, initial: int = 0) -> None:
        """``shown``: whether there may be a bar and lines; ``initial``: steps that were done before, by a run that was killed."""
        # As text: a notebook's widget would not heed TQDM_DISABLE, and would be kept with the notebook.
        from tqdm import tqdm

        self.total, self.name, self.unit, self.n = total, name, unit, initial
        self._initial, self._values, self._shown = initial, {}, shown
        self._begun = self._written = self._said = time.monotonic()
        work = Path(os.environ.get("UNDERSEER_WORK") or "/")
        self._file = work / FILE if (work / "instance.json").is_file() else None
        out = sys.stdout if "ipykernel" in sys.modules else None  # a notebook paints stderr red
        hidden = {} if shown else {"disable": True}
        self._bar = tqdm(
            total=total, desc=name, unit=unit, initial=initial, mininterval=0.5, leave=False, file=out, **hidden
        )
        self._write()

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        self.n += n
        self._bar.update(n)
        now = time.monotonic()
        if self._file and now - self._written >= WRITE_SECONDS:
            self._written = now
            self._write()
        if self._file and self._shown and now - self._said >= LINE_SECONDS:
            self._said = now
            print(line(self._state()), flush=True)  # noqa: T201

    def set_postfix(self, *, refresh: bool = True, **values: str) -> None:
        """Numbers to show beside the count, such as ``loss="0.312"``."""
        self._values = values
        self._bar.set_postfix(values, refresh=refresh)

    def close(self) -> None:
        self._bar.close()
        if self._file:
            self._write()

    def _state(self) -> dict[str, Any]:
        done, seconds = self.n - self._initial, time.monotonic() - self._begun
        left = seconds / done * (self.total - self.n) if done and self.total else None
        facts = {"name": self.name, "unit": self.unit, "step": self.n, "total": self.total}
        return {**facts, "values": self._values, "seconds_left": left}

    def _write(self) -> None:
        if self._file and self._file.parent.is_dir():
            part = self._file.with_suffix(f".part{os.getpid()}")
            with contextlib.suppress(OSError):  # a full disk ends a stage where it matters
                part.write_text(json.dumps(self._state()), encoding="utf-8")
                part.rename(self._file)


def bar(total: int, name: str, unit: str, *, shown: bool = True, initial: int = 0) -> Bar:
    """A bar that is gone when the work is done: none where ``shown`` is false or ``TQDM_DISABLE`` is set."""
    return Bar(total, name, unit, shown=shown, initial=initial)


def read(work: Path) -> dict[str, Any] | None:
    """What a stage at work last wrote: ``name``, ``unit``, ``step``, ``total``, ``values``, ``seconds_left``; None before that."""
    try:
        return json.loads((work / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def line(state: dict[str, Any] | None) -> str:
    """A state in words: ``train 120 of 282 steps, loss 0.312, 0:12 left``; '' where there is none."""
    if not state:
        return ""
    values = "".join(f", {name} {value}" for name, value in state["values"].items())
    left = "" if state["seconds_left"] is None else f", {clock(state['seconds_left'])} left"
    plural = "es" if state["unit"].endswith("h") else "s"
    return f"{state['name']} {state['step']:,} of {state['total']:,} {state['unit']}{plural}{values}{left}"


def clock(seconds: float) -> str:
    """Minutes and seconds, ``3:07``; from an hour on hours too, ``1:03:07``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
