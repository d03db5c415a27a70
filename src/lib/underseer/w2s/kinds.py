"""How a task is done: classification or continuation. The five notebooks speak to this interface and name no task.

A kind's module is imported by the task's name, so that a stage rests on its own kind's code alone
(``plan.DYNAMIC`` knows of it): a change to generation reruns no classifier.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.w2s.tasks import Task, task

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger
    from underseer.runs.stage import Run
    from underseer.training.finetune import FitResult, TrainSettings


@dataclass(frozen=True)
class Decoding:
    """How a language model writes continuations; a classifier ignores it.

    A test prompt gets one greedy continuation and ``samples`` sampled ones, as in the W2S paper's released code; a
    prompt that is to be labelled gets one, by ``weak_decoding`` (greedy or sample).
    """

    samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    no_repeat_ngram: int
    weak_decoding: str = "sample"
    seed: int = 0


@dataclass(frozen=True)
class Kind(ABC):
    """What the notebooks ask of a task."""

    task: Task

    @abstractmethod
    def load(
        self, spec: str, rows: pd.DataFrame, *, base: Path | None, seed: int, max_length: int
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A model and its tokenizer; prompts among ``rows`` train the tokenizer of a scratch model."""

    @abstractmethod
    def fit(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: pd.DataFrame,
        validation: pd.DataFrame,
        settings: TrainSettings,
        *,
        loss: str = "hard_ce",
        checkpoint_dir: Path | None = None,
    ) -> FitResult:
        """Fine-tune on rows with the truth, or with weak labels as ``teach`` gives them."""

    @abstractmethod
    def answer(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: pd.DataFrame,
        *,
        decoding: Decoding,
        max_length: int,
        batch_size: int,
        device: str,
        precision: str,
        cost: Ledger,
    ) -> pd.DataFrame:
        """What the model says of each row: the table ``predictions`` (id, split, ...)."""

    @abstractmethod
    def gather(self, predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """The supervisors' answers to transfer and validation rows, joined by id."""

    @abstractmethod
    def vote(self, answers: pd.DataFrame, voting: str, rows: pd.DataFrame, run: Run, **judges: Any) -> pd.DataFrame:
        """The weak labels (id, split, ...). ``judges``: the stage's parameters that name judges, and how to run
        them; a vote over classes needs none."""

    @abstractmethod
    def teach(
        self, rows: pd.DataFrame, weak_labels: pd.DataFrame | None, *, loss: str, min_agreement: float
    ) -> pd.DataFrame:
        """What a student learns from: weak labels, or the truth where there are none."""

    @abstractmethod
    def scores(self, truth: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
        """Numbers of a stage on the validation split, for its manifest."""

    @abstractmethod
    def label_scores(self, truth: pd.DataFrame, weak_labels: pd.DataFrame) -> dict[str, float]:
        """How good weak labels are, for the manifest."""

    @abstractmethod
    def check_answers(self, run: Run, predictions: pd.DataFrame) -> None:
        """Stop the stage where answers are malformed."""

    @abstractmethod
    def check_labels(self, run: Run, weak_labels: pd.DataFrame, transfer: pd.DataFrame) -> None:
        """Stop the stage where weak labels are malformed."""

    @abstractmethod
    def look_answers(self, truth: pd.DataFrame, predictions: pd.DataFrame, *, synthetic: bool) -> Any:
        """Answers against rows whose truth is known, for the eye."""

    @abstractmethod
    def look_votes(self, weak_labels: pd.DataFrame) -> Any:
        """How far the supervisors agree, or whom the vote chose."""

    @abstractmethod
    def look_labels(self, truth: pd.DataFrame, weak_labels: pd.DataFrame, *, synthetic: bool) -> Any:
        """Weak labels against the truth."""


def of(name: str) -> Kind:
    """The kind of a task, by the task's name. Raises UserError for a task that does not exist."""
    found = task(name)
    return import_module(f"underseer.w2s.{found.kind}").KIND(found)
