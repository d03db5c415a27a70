"""Tasks that classify: a model gives the probability of class 1, weak labels are classes with probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import look
from underseer.models import loading
from underseer.training import finetune
from underseer.w2s import frames
from underseer.w2s.kinds import Decoding, Kind

if TYPE_CHECKING:
    import pandas as pd


class Classification(Kind):
    """Safety and legal reasoning."""

    def load(self, spec: str, rows: pd.DataFrame, *, base: Path | None, seed: int, max_length: int) -> Any:
        part = rows[rows.split == "transfer"]
        texts = [*part.text, *(part.text_pair if "text_pair" in part else ())]
        labels = self.task.labels
        return loading.load_classifier(spec, labels=labels, texts=texts, base=base, seed=seed, max_length=max_length)

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
        loss = frames.loss_on_rows(loss)
        return finetune.fit_classifier(
            model, tokenizer, rows, validation, settings, loss=loss, checkpoint_dir=checkpoint_dir
        )

    def answer(self, model: Any, tokenizer: Any, rows: pd.DataFrame, *, decoding: Decoding, **how: Any) -> pd.DataFrame:
        p = finetune.predict_proba(model, tokenizer, rows, **how)
        return rows[["id", "split"]].assign(p=p[:, 1])

    def gather(self, predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return frames.align([p[p.split != "test"] for p in predictions])

    def vote(self, answers: pd.DataFrame, voting: str, rows: pd.DataFrame, run: Any, **judges: Any) -> pd.DataFrame:
        return frames.vote(answers, voting)

    def teach(
        self, rows: pd.DataFrame, weak_labels: pd.DataFrame | None, *, loss: str, min_agreement: float
    ) -> pd.DataFrame:
        taught = frames.teach(rows, weak_labels)
        return taught if weak_labels is None else frames.reliable(taught, loss, min_agreement)

    def scores(self, truth: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
        return frames.scores(truth, predictions)

    def label_scores(self, truth: pd.DataFrame, weak_labels: pd.DataFrame) -> dict[str, float]:
        return frames.label_scores(truth, weak_labels)

    def check_answers(self, run: Any, predictions: pd.DataFrame) -> None:
        run.check(predictions.p.between(0, 1).all(), "every probability lies in [0, 1]")
        run.check(predictions.id.is_unique, "every row is answered once")

    def check_labels(self, run: Any, weak_labels: pd.DataFrame, transfer: pd.DataFrame) -> None:
        run.check(weak_labels.weak_label.isin([0, 1]).all(), "every row has a label")
        run.check(set(weak_labels.id) >= set(transfer.id), "every transfer row is labelled")
        run.check(weak_labels.weak_label.nunique() == 2, "both classes occur among the weak labels")

    def look_answers(self, truth: pd.DataFrame, predictions: pd.DataFrame, *, synthetic: bool) -> Any:
        return look.classifier(truth, predictions, self.task.labels)

    def look_votes(self, weak_labels: pd.DataFrame) -> Any:
        return look.agreement(weak_labels)

    def look_labels(self, truth: pd.DataFrame, weak_labels: pd.DataFrame, *, synthetic: bool) -> Any:
        return look.labelled(truth, weak_labels, self.task.labels)


KIND = Classification
