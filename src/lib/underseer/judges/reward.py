"""A reward model as a judge: the sigmoid of its single logit, which has to rise with what is measured.

It reads an exchange through its tokenizer's chat template where it has one, else as a pair of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError
from underseer.judges.base import Exchange, Opening, Reply
from underseer.judges.classifiers import Classifier, Output, PairJudge, configuration, load, padding
from underseer.judges.cutting import cut
from underseer.judges.spec import JudgeSpec, Kind, register
from underseer.models import chats, specs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardJudge(PairJudge):
    """A reward model."""

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The sigmoid of the logit, for a batch of exchanges."""
        from underseer.models.batches import TokenRows
        from underseer.training.precision import longest_row

        model, tokenizer = self.classifier.loaded
        if not getattr(tokenizer, "chat_template", None):
            return super().ask(exchanges)
        if self.cost is not None:
            self.cost.add(judge_calls=len(exchanges))
        ids, shortened = chat_rows(tokenizer, exchanges, longest_row(model, self.max_length))
        logits = self.classifier.logits(TokenRows(ids, padding(model, tokenizer, ids)))
        values = 1 / (1 + np.exp(-logits))
        return [Reply(float(p), cut=was) for p, was in zip(values, shortened, strict=True)]


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
    classes = list((config.get("id2label") or {0: "", 1: ""}).values())
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

    classifier = Classifier(loaded, Output(0, "sigmoid"), opening)
    return RewardJudge(classifier, judge, measure, opening, version=specs.fingerprint(judge.model))


register(
    Kind(
        "reward",
        "reward:HUB_ID_OR_FOLDER (a reward model with a single logit)",
        ("unsafe", "helpful"),
        open_reward,
        check,
        models=("hub", "folder"),
    )
)
