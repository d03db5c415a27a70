"""A sequence classifier as a judge: the probability of one of its classes is the score.

Published classifiers come in two kinds. One class per text: softmax over the classes. Several labels at once
(``problem_type`` multi_label_classification), or a single output: the sigmoid of the class's own logit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError, nearest
from underseer.judges.base import JudgeSpec, Scores, judge_full
from underseer.models import specs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger

TOXIC = ("toxic", "toxicity", "unsafe", "hate", "hateful", "hate speech", "offensive", "harmful", "abusive")
"""Class names that mean toxic, the first that a classifier has counts; case, '-' and '_' do not."""


class ModelJudge:
    """A loaded classifier; the probability of class ``column`` is the score."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        column: int,
        *,
        name: str,
        version: str,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        max_length: int = 128,
        cost: Ledger | None = None,
    ) -> None:
        self.model, self.tokenizer, self.column = model, tokenizer, column
        self.name, self.version, self.cost = name, version, cost
        self._how = {"batch_size": batch_size, "device": device, "precision": precision, "max_length": max_length}

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n texts, in batches of like length; a text longer than ``max_length`` by its beginning."""
        return judge_full(texts, self._probabilities, self)

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        import pandas as pd

        from underseer.training.finetune import predict_proba

        if self.cost is not None:
            self.cost.add(judge_calls=len(texts))
        frame = pd.DataFrame({"text": texts})
        return predict_proba(self.model, self.tokenizer, frame, **self._how, cost=self.cost)[:, self.column]


def open_classifier(judge: JudgeSpec, *, name: str, version: str, **how: Any) -> ModelJudge:
    """A published classifier as a judge. Raises UserError: no such model, no trained head, no class of that name."""
    specs.preflight(judge.model)
    preflight(judge)
    model, tokenizer = load(judge.model.name, judge.model.revision)
    column, sigmoid = class_of(model.config.to_dict(), judge.label, str(judge))
    if sigmoid:
        column = _as_two_classes(model, column)
    return ModelJudge(model, tokenizer, column, name=name, version=version or specs.fingerprint(judge.model), **how)


def preflight(judge: JudgeSpec, meaning: Sequence[str] = TOXIC) -> None:
    """Check a classifier's configuration where it is on this machine: it is a sequence classifier and has the class.

    Raises UserError. Of a hub model that is not cached nothing is known yet; loading it checks the same.
    """
    config = configuration(judge)
    if config is not None:
        class_of(config, judge.label, str(judge), meaning)


def configuration(judge: JudgeSpec) -> dict[str, Any] | None:
    """The configuration of a sequence classifier, None where it is not on this machine. Raises UserError."""
    config = specs.configuration(judge.model)
    architectures = (config or {}).get("architectures") or []
    if architectures and not any("SequenceClassification" in name for name in architectures):
        raise UserError(
            f"judge {str(judge)!r} is no sequence classifier but {', '.join(architectures)}; "
            f"give a classifier, or train one here: trained:{judge.model}"
        )
    return config


def class_of(
    config: Mapping[str, Any], label: str | None, what: str, meaning: Sequence[str] = TOXIC
) -> tuple[int, bool]:
    """Index of the class whose probability is the score, and whether a sigmoid gives it (otherwise a softmax).

    ``config`` is a model's configuration as a mapping. Without a ``label`` the class is the only one, or the first
    of ``meaning`` that there is. Raises UserError that names the classes.
    """
    named = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    named = named or {index: f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2))}
    sigmoid = len(named) == 1 or config.get("problem_type") == "multi_label_classification"
    if label is None and len(named) == 1:
        return next(iter(named)), sigmoid
    index_of = {_plain(name): index for index, name in reversed(named.items())}
    for name in meaning if label is None else (label,):
        if _plain(name) in index_of:
            return index_of[_plain(name)], sigmoid
    hint = f"none is {label!r}{nearest(label, named.values())}" if label else f"none is known to mean {meaning[0]}"
    raise UserError(f"judge {what!r} has the classes {', '.join(named.values())}; {hint}: give ?label=NAME")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def load(source: str, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained sequence classifier, fp32, with the head that is stored, and its tokenizer.

    Remote code is never trusted and only safetensors are read. Raises UserError where a part of the model is not in
    the file: a classifier whose head is drawn at random is no judge.
    """
    import torch
    import transformers

    from underseer.models import loading

    try:
        with loading.quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                source,
                revision=revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"judge model {source!r} cannot be loaded as a sequence classifier: {first}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"judge model {source!r} has no trained head ({missing} not stored); give a trained classifier")
    loading._set_padding(model, tokenizer, own_token=True)
    model.config.use_cache = False
    return loading.with_fused_gelu(model).eval(), tokenizer


def _as_two_classes(model: PreTrainedModel, column: int) -> int:
    """Give the model two logits, 0 and the class's own: their softmax is the sigmoid. Returns the class's new index."""
    import torch

    def two_logits(module: Any, inputs: Any, output: Any) -> Any:
        own = output.logits[:, column].float()
        output.logits = torch.stack([torch.zeros_like(own), own], dim=-1)
        return output

    model.register_forward_hook(two_logits)
    model.config.num_labels = 2
    return 1
