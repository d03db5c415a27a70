"""The ``transformers`` engine: one model in this process, and any number of LoRA adapters beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import adapters, local
from underseer.engines.base import Answer, Inference, Prompt, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger


def open_(
    model: str, inference: Inference, *, base: Path | None, cost: Ledger | None, progress: bool, texts: Any = None
) -> TransformersEngine:
    """Load a model by its specification. ``texts`` train the tokenizer of a ``scratch`` model."""
    from underseer.models import loading
    from underseer.training.precision import use_bf16

    loaded, tokenizer = loading.load_language_model(model, base=base, max_length=inference.max_length, texts=texts)
    place = loading.resolve_device(inference.device)
    if place.type == "cuda" and use_bf16(loaded, place, inference.precision):
        loaded = loaded.bfloat16()  # nothing is trained: half the memory, and no casts under autocast
    source = loading.source(model, base)
    return TransformersEngine(loaded, tokenizer, inference, source=source, cost=cost, progress=progress)


class TransformersEngine:
    """A loaded model; ``source`` is the folder or hub id that adapters must fit (None: not checked by name)."""

    name = "transformers"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        inference: Inference,
        *,
        source: str | None = None,
        cost: Ledger | None = None,
        progress: bool = True,
    ) -> None:
        self.version = version(inference.precision)
        self.tokenizer, self._model, self._source = tokenizer, model, source
        self.positions = local.positions(model, inference.max_length)
        self._settings: dict[str, Any] = {"inference": inference, "cost": cost, "progress": progress}
        self._adapters: dict[tuple[str, int, int], str] = {}  # adapter's identity -> its name in the PEFT model

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        with self._adapted(adapter) as model:
            return local.generate(model, self.tokenizer, prompts, sampling, log_probs=log_probs, **self._settings)

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._adapted(adapter) as model:
            return local.log_probs(model, self.tokenizer, texts, contexts=contexts, **self._settings)

    def close(self) -> None:
        self._model = None
        self._adapters.clear()
        local.free_memory()

    @contextlib.contextmanager
    def _adapted(self, folder: Path | None) -> Iterator[Any]:
        """The model with the adapter of a folder applied, or as it was loaded."""
        if self._model is None:
            raise RuntimeError("this engine is closed")
        if folder is None and not self._adapters:
            yield self._model
        elif folder is None:
            with self._model.disable_adapter():
                yield self._model
        else:
            self._load(Path(folder))
            yield self._model

    def _load(self, folder: Path) -> None:
        """Make the adapter of a folder the active one; its weights are read the first time only."""
        config = adapters.check_adapter(folder, self._source)
        key = adapters.identity(folder)
        if key not in self._adapters:
            self._add(folder, f"adapter{len(self._adapters)}", config.get("base_model_name_or_path"))
            self._adapters[key] = f"adapter{len(self._adapters)}"
        self._model.set_adapter(self._adapters[key])

    def _add(self, folder: Path, name: str, made_for: str | None) -> None:
        """Put an adapter beside the model."""
        from peft import PeftModel

        base = self._model.get_base_model() if self._adapters else self._model
        if not adapters.fits(folder, base):
            raise adapters.misfit(folder, self._source, made_for)
        if self._adapters:
            self._model.load_adapter(folder, adapter_name=name)
        else:
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name)


def version(precision: str) -> str:
    """What decides the answers of this engine beside the model, without importing it. Which build of torch it is goes with
    the device, and is left out."""
    torch = metadata.version("torch").partition("+")[0]
    return f"transformers {metadata.version('transformers')}, torch {torch}, {precision}"
