"""Where the model that a stage works with is: the target as it was aligned, after the reset, or after an iteration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underseer.models import specs


@dataclass(frozen=True)
class Target:
    """A base model by its specification, with the folder of a testbed model, and an adapter on it."""

    spec: str
    folder: Path | None = None
    adapter: Path | None = None

    def load(self, max_length: int) -> tuple[Any, Any]:
        """The base model (without its adapter) and its tokenizer; refuses what is no chat model."""
        from underseer.models import chats, loading

        model, tokenizer = loading.load_language_model(self.spec, base=self.folder, max_length=max_length)
        chats.check_template(tokenizer, self.spec)
        return model, tokenizer


def locate(run: Any, target_model: str) -> Target:
    """The target of a stage: what its inputs ``previous`` (an iterate), ``reset`` and ``target`` (a chat model of the
    testbed) hold, the latest first; else the model of the specification itself."""
    reset, previous = run.input("reset"), run.input("previous")
    if previous is not None and previous.has("model"):
        return Target(str(previous.file("model")))
    adapter = previous.file("adapter") if previous is not None and previous.has("adapter") else None
    if reset is not None:
        return Target(str(reset.file("model")), adapter=adapter)
    return Target(target_model, chat_folder(run, "target"), adapter)


def chat_folder(run: Any, role: str) -> Path | None:
    """The folder of a testbed model that fills a role; None for a model that exists already."""
    found = run.input(role)
    return found.file("model") if found is not None else None


def engine(
    run: Any, engine: str, target: Target, *, max_length: int, device: str, precision: str, batch_size: int, lora_rank: int = 0
) -> Any:  # fmt: skip
    """The engine that answers for a target. Answers of a stage that was cut short are kept beside its checkpoints."""
    from underseer.engines import open_engine, planned

    opened = open_engine(
        model=target.spec, base=target.folder, device=device, precision=precision, batch_size=batch_size, max_length=max_length,
        lora_rank=lora_rank, keep=run.checkpoints / "answers.sqlite", cost=run.cost, **planned(run, engine),
    )  # fmt: skip
    run.used(opened)
    return opened


def check_spec(spec: str) -> None:
    """Raise UserError where a chat model on this machine has no chat template. Needs no torch."""
    model = specs.parse(spec)
    folder = specs.local_folder(model)
    if folder is not None and not specs.has_chat_template(folder):
        from underseer.errors import UserError

        raise UserError(
            f"model {spec!r} has no chat template, so it is no chat model; give an instruct model, or put the template of "
            "its family into its folder as chat_template.jinja"
        )
