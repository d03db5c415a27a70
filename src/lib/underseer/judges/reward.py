"""A reward model as a judge: its single logit, which has to rise with what is measured, as a score in [0, 1].

A logit has no zero and no unit: 23.0 and 3.59 are far apart for the model that gave them, and 0.027 apart after a sigmoid. So the
score of helpfulness is the normal distribution function of the logit, standardised by mean and standard deviation over the
exchanges of the judge's stage: about the share of those that it is above. Without such a stage, and of safety, where 0 parts what a
cost model calls safe from what it does not, it is the sigmoid.

It reads an exchange through its tokenizer's chat template where it has one, else as a pair of texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError
from underseer.judges.base import Exchange, Opening, Reply
from underseer.judges.classifiers import Classifier, Output, PairJudge, class_names, configuration, load, padding
from underseer.judges.cutting import cut
from underseer.judges.spec import JudgeSpec, Kind, register
from underseer.models import chats, specs

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SCALE, STANDARDISED = "scale.json", "helpful"
"""The file of mean and standard deviation of logits, and the measure that they are for."""


class RewardJudge(PairJudge):
    """A reward model; ``scale`` is mean and standard deviation of its logits (None: the sigmoid)."""

    def __init__(
        self, classifier: Classifier, spec: JudgeSpec, measure: str, opening: Opening, *, version: str
    ) -> None:
        super().__init__(classifier, spec, measure, opening, version=version)
        self.scale = None if opening.folder is None else json.loads(Path(opening.folder).read_text(encoding="utf-8"))
        self._identity.append(str(self.scale))

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The scores of a batch of exchanges."""
        replies = self.logits(exchanges)
        logits = np.array([reply.value for reply in replies])
        if self.scale is None:
            values = 1 / (1 + np.exp(-logits))
        else:
            from scipy.special import ndtr

            values = ndtr((logits - self.scale["mean"]) / self.scale["deviation"])
        return [replace(reply, value=float(p)) for reply, p in zip(replies, values, strict=True)]

    def logits(self, exchanges: list[Exchange]) -> list[Reply]:
        """The logits of a batch of exchanges."""
        from underseer.models.batches import TokenRows
        from underseer.training.precision import longest_row

        model, tokenizer = self.classifier.loaded
        if not getattr(tokenizer, "chat_template", None):
            return super().ask(exchanges)
        if self.cost is not None:
            self.cost.add(judge_calls=len(exchanges))
        ids, shortened = chat_rows(tokenizer, exchanges, longest_row(model, self.max_length))
        logits = self.classifier.logits(TokenRows(ids, padding(model, tokenizer, ids)))
        return [Reply(float(x), cut=was) for x, was in zip(logits, shortened, strict=True)]


def fitted(judge: RewardJudge, rows: pd.DataFrame) -> dict[str, float]:
    """Mean and standard deviation of a judge's logits over exchanges ``prompt, answer``. Raises UserError where the model gives
    all of them the same."""
    pairs = list(zip(rows["prompt"], rows["answer"], strict=True))
    batches = [pairs[i : i + judge.batch_size] for i in range(0, len(pairs), judge.batch_size)]
    logits = np.array([reply.value for batch in batches for reply in judge.logits(batch)])
    mean, deviation = float(logits.mean()), float(logits.std())
    if not deviation > 0 or not np.isfinite(deviation):
        raise UserError(
            f"judge {judge.name!r} gives all {len(pairs)} exchanges the logit {mean:.3g}; give another reward model"
        )
    return {"mean": mean, "deviation": deviation}


def chat_rows(
    tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[Exchange], max_length: int
) -> tuple[list[np.ndarray], list[bool]]:
    """Token ids (n of (L,)) of each exchange as a chat of two turns, at most ``max_length`` of them; and whether its texts
    were cut (n,), at their ends, the longer one first. Raises UserError where the template alone leaves no room."""

    def row(exchange: Exchange) -> np.ndarray:
        chat = [*chats.ask(exchange[0]), {"role": "assistant", "content": exchange[1]}]
        return chats.text_rows(tokenizer, [chats.render_closed(tokenizer, chat)])[0]

    rows, shortened = [row(exchange) for exchange in exchanges], [False] * len(exchanges)
    for i, exchange in enumerate(exchanges):
        if len(rows[i]) > max_length:
            kept = cut(tokenizer, exchange, texts=max_length, whole=max_length, length=lambda e: len(row(e)))
            rows[i], shortened[i] = row(kept), True
    return rows, shortened


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Raise UserError where the model, on this machine, has more than one output."""
    config = configuration(judge)
    if config is not None:
        _check_single(config, judge)
    return []


def _check_single(config: Mapping[str, Any], judge: JudgeSpec) -> None:
    classes = list(class_names(config, judge).values())
    if len(classes) != 1:
        raise UserError(
            f"judge {str(judge)!r} has {len(classes)} outputs ({', '.join(map(str, classes))}); a reward model has one: "
            f"write classifier:{judge.model}?label=NAME for one of them"
        )


def open_reward(judge: JudgeSpec, measure: str, opening: Opening) -> RewardJudge:
    """The judge. Raises UserError: no such model, more than one logit."""
    specs.preflight(judge.model)
    check(judge, measure, {})

    def loaded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = load(judge.model.name, judge.model.revision)
        _check_single(model.config.to_dict(), judge)
        model.reads_last_token = (specs.configuration(judge.model) or {}).get("pad_token_id") is None
        return model, tokenizer

    classifier = Classifier(loaded, Output(0, "probability"), opening)
    return RewardJudge(classifier, judge, measure, opening, version=specs.fingerprint(judge.model))


register(
    Kind(
        "reward",
        "reward:HUB_ID_OR_FOLDER (a reward model with a single logit)",
        ("unsafe", "helpful"),
        open_reward,
        check,
        models=("hub", "folder"),
        scales=True,
    )
)
