"""Where the model that a stage works with is: the target as it was aligned, after the reset, or after an iteration."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.models import specs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.engines import Engine, Inference
    from underseer.stage_run import Run


@dataclass(frozen=True)
class Target:
    """A base model by its specification, with the folder of a testbed model, and an adapter on it. ``start``: what the loop
    began with, where this is an iterate that is a whole model."""

    spec: str
    folder: Path | None = None
    adapter: Path | None = None
    start: Target | None = None

    @property
    def lora_rank(self) -> int:
        """Rank of the adapter; 0 without one."""
        if self.adapter is None:
            return 0
        return int(json.loads((self.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])

    def load(self, max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The base model (without its adapter) and its tokenizer; refuses what is no chat model."""
        from underseer.models import chats, loading

        model, tokenizer = loading.load_language_model(self.spec, base=self.folder, max_length=max_length)
        chats.check_template(tokenizer, self.spec)
        return model, tokenizer


def locate(run: Run, target_model: str) -> Target:
    """The target of a stage: what its inputs ``previous`` (an iterate) and ``reset`` hold, the latest first; else the model before."""
    reset, previous = run.input("reset"), run.input("previous")
    start = aligned(run, target_model) if reset is None else Target(str(reset.file("model")))
    if previous is not None and previous.has("model"):
        return Target(str(previous.file("model")), start=start)
    adapter = previous.file("adapter") if previous is not None and previous.has("adapter") else None
    return replace(start, adapter=adapter)


def aligned(run: Run, target_model: str) -> Target:
    """The target before the reset: what the inputs ``supervised`` and ``target`` (a chat model of the testbed) hold, the latest first;
    else the model of the specification itself."""
    if (supervised := run.input("supervised")) is not None:
        return Target(str(supervised.file("model")))
    return Target(target_model, chat_folder(run, "target"))


def chat_folder(run: Run, role: str) -> Path | None:
    """The folder of a testbed model that fills a role; None for a model that exists already."""
    output = run.input(role)
    return output.file("model") if output is not None else None


def engine(run: Run, engine: str, target: Target, inference: Inference) -> Engine:
    """The engine that answers for a target. Answers of a stage that was cut short are kept beside its checkpoints."""
    from underseer.engines import open_engine, planned

    opened = open_engine(
        model=target.spec, inference=inference, base=target.folder, lora_rank=target.lora_rank,
        keep=run.checkpoints / "answers.sqlite", cost=run.cost, **planned(run, engine),
    )  # fmt: skip
    run.used(opened)
    return opened


def check_spec(spec: str) -> None:
    """Raise UserError where a chat model on this machine has no chat template. Needs no torch."""
    model = specs.parse(spec)
    if model.kind == "templates":
        raise UserError("target_model = 'templates' is an attacker and no model; give a chat model")
    folder = specs.local_folder(model)
    if folder is not None and not specs.has_chat_template(folder):
        raise UserError(
            f"model {spec!r} has no chat template, so it is no chat model; give an instruct model, or put the template of "
            "its family into its folder as chat_template.jinja"
        )
