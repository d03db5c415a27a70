"""Data parallelism of the ``vllm`` engine: the same model several times, in processes of their own, prompts dealt out.

Each replica takes ``tensor_parallel`` of the GPUs that this process sees (on a CPU: its share of the cores). Answers
are those of a single engine, since an answer's seed depends on its prompt alone.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines.base import Answer, Inference, Prompt, Sampling
from underseer.engines.rows import by_prompt
from underseer.engines.vllm_start import Settings
from underseer.errors import EngineEnded, StageError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from underseer.cost import Ledger


class Replicas:
    """``settings.data_parallel`` engines. Arguments as ``VllmEngine`` takes them."""

    name = "vllm"

    def __init__(
        self, model: str, inference: Inference, settings: Settings, *, base: Path | None, cost: Ledger | None = None
    ) -> None:
        self._cost, self._model, self._base = cost, model, base
        context = multiprocessing.get_context("spawn")  # a process that has touched a GPU must not be forked
        self._pipes, self._processes = [], []
        for environment in _shares(settings.data_parallel, settings.tensor_parallel):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, environment, (model, inference, settings), base))
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        try:
            self.version, self.positions = [self._receive(i) for i in range(settings.data_parallel)][0]
        except BaseException:
            self.close()
            raise

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own."""
        from underseer.engines.rows import load_tokenizer
        from underseer.models import loading

        return load_tokenizer(loading.source(self._model, self._base), loading.parse(self._model).revision)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        prompts = list(prompts)
        parts = self._deal(len(prompts))
        replies = self._all(
            "generate", [([prompts[i] for i in part], sampling) for part in parts], adapter=adapter, log_probs=log_probs
        )
        answers = dict(pair for part, rows in zip(parts, replies, strict=True) for pair in zip(part, rows, strict=True))
        drawn = [answer for i in range(len(prompts)) for answer in answers[i]]
        return by_prompt(drawn, sampling.n, self._cost)

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        texts, contexts = list(texts), None if contexts is None else list(contexts)
        if contexts is not None and len(contexts) != len(texts):
            raise UserError(f"{len(texts)} texts and {len(contexts)} contexts; give one context a text, or none at all")
        parts = self._deal(len(texts))
        asked = [
            ([texts[i] for i in part], None if contexts is None else [contexts[i] for i in part]) for part in parts
        ]
        sums, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        for part, (own_sums, own_counts) in zip(parts, self._all("score", asked, adapter=adapter), strict=True):
            sums[part], counts[part] = own_sums, own_counts
        if self._cost is not None:
            self._cost.add(tokens_scored=int(counts.sum()))
        return sums, counts

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # a replica ends when its pipe does
        for process in self._processes:
            process.join(timeout=30)
            if process.is_alive():
                process.terminate()
        self._pipes, self._processes = [], []

    def _deal(self, n: int) -> list[list[int]]:
        """Items of each replica, in turns."""
        return [list(range(i, n, len(self._pipes))) for i in range(len(self._pipes))]

    def _all(self, method: str, arguments: list[tuple[Any, Any]], **named: Any) -> list[Any]:
        for pipe, given in zip(self._pipes, arguments, strict=True):
            pipe.send((method, given, named))
        return [self._receive(i) for i in range(len(self._pipes))]

    def _receive(self, i: int) -> Any:
        try:
            outcome, value = self._pipes[i].recv()
        except (EOFError, OSError) as error:
            raise EngineEnded(f"replica {i} of the vLLM engine ended (its log says why); run again") from error
        if outcome == "error":
            raise value
        return value


def _shares(n: int, tensor_parallel: int) -> list[dict[str, str]]:
    """What each replica's environment says of its share of the machine. Raises UserError where GPUs are too few."""
    from underseer.engines.gpus import visible

    gpus = visible()
    if not gpus:
        return [{} for _ in range(n)]
    if len(gpus) < n * tensor_parallel:
        raise UserError(
            f"engine 'vllm': data_parallel = {n} times tensor_parallel = {tensor_parallel} needs {n * tensor_parallel} "
            f"GPUs, and {len(gpus)} are visible; lower one of them"
        )
    parts = [gpus[i * tensor_parallel : (i + 1) * tensor_parallel] for i in range(n)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]


def _serve(pipe: Any, environment: dict[str, str], model: tuple[str, Inference, Settings], base: Path | None) -> None:
    """A replica: opens its engine and answers until its pipe is closed."""
    os.environ.update(environment)
    from underseer.engines.vllm_engine import VllmEngine

    engine = None
    try:
        engine = VllmEngine(*model, base=base, progress=False)
        pipe.send(("done", (engine.version, engine.positions)))
        while True:
            method, given, keywords = pipe.recv()
            positional = given if method == "generate" else given[:1]
            named = keywords if method == "generate" else {**keywords, "contexts": given[1]}
            try:
                pipe.send(("done", getattr(engine, method)(*positional, **named)))
            except (UserError, StageError) as error:
                pipe.send(("error", error))
    except (EOFError, OSError, KeyboardInterrupt):
        pass
    except (UserError, StageError) as error:
        pipe.send(("error", error))
    finally:
        if engine is not None:
            engine.close()
