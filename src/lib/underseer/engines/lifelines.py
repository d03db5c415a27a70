"""Processes of vLLM and the one that started them: when one side is killed, the other does not wait, or stay, for ever."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterable, Iterator
from typing import Any

PATIENCE = 5  # seconds between the signal that asks a process to end and the one that ends it


class Lifeline:
    """Ends processes when this one ends, however it does: vLLM 0.32 leaves its own running, with the memory they hold.

    A shell waits at a pipe that only this process holds open; when the pipe breaks it sends the signals. A negative number
    names a group of processes, as ``kill`` has it.
    """

    def __init__(self, processes: Iterable[int]) -> None:
        script = f'read _; kill -s TERM -- "$@"; sleep {PATIENCE}; kill -s KILL -- "$@"'
        self._shell = subprocess.Popen(
            ["sh", "-c", script, "sh", *map(str, processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for this process
        )

    def cut(self) -> None:
        """The processes have ended in order: watch no longer."""
        self._shell.kill()
        self._shell.wait()
        self._shell.stdin.close()


@contextlib.contextmanager
def watched(core: Any) -> Iterator[None]:
    """Wake vLLM's loop when its process is killed: vLLM 0.32 notes the death, and waits for its output all the same."""
    from vllm.v1.engine.exceptions import EngineDeadError

    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if core.resources.engine_dead:
                core.outputs_queue.put_nowait(EngineDeadError())
                return

    if hasattr(core, "outputs_queue"):  # it runs in a process of its own
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
