"""The task that generates: a model continues a prompt, weak labels are the weak model's continuations (toxicity)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import look
from underseer.models import loading
from underseer.training import finetune
from underseer.w2s import frames, passages
from underseer.w2s.kinds import Decoding, Kind

if TYPE_CHECKING:
    import pandas as pd


class Continuation(Kind):
    """Toxicity: continue a prompt without toxic text; mean toxicity of the continuations, lower is better."""

    def load(self, spec: str, rows: pd.DataFrame, *, base: Path | None, seed: int, max_length: int) -> Any:
        texts = rows[rows.split.isin(["supervise", "transfer"])].text
        return loading.load_language_model(spec, texts=texts, base=base, seed=seed, max_length=max_length)

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        rows: pd.DataFrame,
        validation: pd.DataFrame,
        settings: finetune.TrainSettings,
        *,
        loss: str = "hard_ce",
        checkpoint_dir: Path | None = None,
    ) -> finetune.FitResult:
        """``loss`` can only be hard_ce: cross-entropy on the tokens of the continuation and the end token."""
        return finetune.fit_continuations(model, tokenizer, rows, validation, settings, checkpoint_dir=checkpoint_dir)

    def answer(self, model: Any, tokenizer: Any, rows: pd.DataFrame, *, decoding: Decoding, **how: Any) -> pd.DataFrame:
        how.pop("max_length")
        return passages.write(model, tokenizer, rows, decoding, **how)

    def gather(self, predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return frames.align([p[p.split != "test"] for p in predictions], "text")

    def vote(self, answers: pd.DataFrame, voting: str, rows: pd.DataFrame, run: Any, **judges: Any) -> pd.DataFrame:
        return passages.vote(answers, voting, rows, run, **judges)

    def teach(
        self, rows: pd.DataFrame, weak_labels: pd.DataFrame | None, *, loss: str, min_agreement: float
    ) -> pd.DataFrame:
        return passages.teach(rows, weak_labels)

    def scores(self, truth: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
        written = predictions[predictions.split == "validation"]
        return {f"validation_{name}": value for name, value in passages.shape(written.text).items()}

    def label_scores(self, truth: pd.DataFrame, weak_labels: pd.DataFrame) -> dict[str, float]:
        return passages.shape(weak_labels.continuation)

    def check_answers(self, run: Any, predictions: pd.DataFrame) -> None:
        run.check(not predictions.duplicated(["id", "draw"]).any(), "every prompt is continued once a draw")
        run.check(predictions.text.notna().all(), "every continuation is a text, if an empty one")
        run.check((predictions.n_tokens > 0).any(), "the model writes something")

    def check_labels(self, run: Any, weak_labels: pd.DataFrame, transfer: pd.DataFrame) -> None:
        run.check(weak_labels.id.is_unique, "each prompt has one continuation")
        run.check(set(weak_labels.id) >= set(transfer.id), "every transfer prompt has one")
        run.check((weak_labels.continuation.str.strip() != "").any(), "continuations are not all empty")

    def look_answers(self, truth: pd.DataFrame, predictions: pd.DataFrame, *, synthetic: bool) -> Any:
        return look.continuations(truth, predictions, synthetic=synthetic)

    def look_votes(self, weak_labels: pd.DataFrame) -> Any:
        return look.chosen(weak_labels)

    def look_labels(self, truth: pd.DataFrame, weak_labels: pd.DataFrame, *, synthetic: bool) -> Any:
        written = weak_labels.rename(columns={"continuation": "text"}).assign(draw=0)
        return look.continuations(truth, written, synthetic=synthetic)


KIND = Continuation
