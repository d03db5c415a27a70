"""What judges by sequence classifiers share: models are loaded and run, and the probability of a class is read from outputs.

Classifiers come in three kinds. One class a text (``problem_type`` single_label_classification, or none and several classes):
the softmax over the classes. Several labels at once (multi_label_classification), or a single logit: the sigmoid of the
class's own. Regression: a number on a scale of the model's own, which is read only where it is declared a probability.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from underseer.errors import UserError, nearest, short
from underseer.judges.asking import ExchangeJudge
from underseer.judges.base import Exchange, Opening, Reply, Scores, judge_full
from underseer.judges.spec import JudgeSpec, architectures
from underseer.models import specs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.models.batches import TokenRows

Loader = Callable[[], "tuple[PreTrainedModel, PreTrainedTokenizerBase]"]
MOST_CLASSES = 100_000
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True)
class Output:
    """Where a score stands in a classifier's outputs, and by which function it becomes a probability."""

    column: int
    form: Literal["softmax", "sigmoid", "probability"]


def output_of(config: Mapping[str, Any], judge: JudgeSpec, meaning: Sequence[str]) -> Output:
    """The output of the class that a judge looks for: of its option ``label``, else the only one, else the first of
    ``meaning`` that there is (case, "-" and "_" do not count).

    ``config`` is a model's configuration as a mapping. Raises UserError that names the classes, and for outputs that are no
    probabilities.
    """
    named = class_names(config, judge)
    if _number_of_classes(config, judge, len(named)) != len(named):
        raise UserError(
            f"judge {str(judge)!r}: its configuration has num_labels = {config['num_labels']} and names {len(named)} classes "
            f"({', '.join(named.values())}); correct its config.json"
        )
    return Output(_column(named, judge, meaning), _form(config.get("problem_type"), len(named), judge))


def class_names(config: Mapping[str, Any], judge: JudgeSpec) -> dict[int, str]:
    """Column -> class, of a configuration as a mapping. Raises UserError where it names them in another form."""
    given = config.get("id2label")
    if not given:
        return {index: f"LABEL_{index}" for index in range(_number_of_classes(config, judge, 2))}
    try:
        named = {int(index): str(name) for index, name in given.items()}
    except (AttributeError, TypeError, ValueError):
        named = {}
    if sorted(named) != list(range(len(given) if isinstance(given, Mapping) else 1)):
        raise UserError(
            f"judge {str(judge)!r}: its config.json has id2label = {short(given)}; allowed are names of classes by their numbers "
            'from 0, as {"0": "safe", "1": "unsafe"}; correct it, or fetch the model again'
        )
    return named


def _number_of_classes(config: Mapping[str, Any], judge: JudgeSpec, default: int) -> int:
    given = config.get("num_labels") or default
    try:
        n = int(given)
    except (TypeError, ValueError, OverflowError):
        n = 0
    if not 1 <= n <= MOST_CLASSES:
        raise UserError(
            f"judge {str(judge)!r}: its config.json has num_labels = {short(given)}; allowed is a whole number of classes from 1 "
            f"to {MOST_CLASSES:,}; correct it, or fetch the model again"
        )
    return n


def _column(named: Mapping[int, str], judge: JudgeSpec, meaning: Sequence[str]) -> int:
    label = judge.option("label")
    if label is None and len(named) == 1:
        return next(iter(named))
    index_of = {_plain(name): index for index, name in reversed(named.items())}
    for name in meaning if label is None else (label,):
        if _plain(name) in index_of:
            return index_of[_plain(name)]
    hint = f"none is {label!r}{nearest(label, named.values())}" if label else f"none is known to mean {meaning[0]}"
    raise UserError(f"judge {str(judge)!r} has the classes {', '.join(named.values())}; {hint}: give ?label=NAME")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _form(problem: str | None, n: int, judge: JudgeSpec) -> Literal["softmax", "sigmoid", "probability"]:
    declared = judge.option("output") == "probability"
    if problem not in (None, *PROBLEMS):
        raise UserError(f"judge {str(judge)!r}: problem_type {problem!r} is unknown; allowed are {', '.join(PROBLEMS)}")
    if problem == "regression" and not declared:
        raise UserError(
            f"judge {str(judge)!r} was trained by regression: its output is a number on a scale of its own, no probability; "
            "give a classifier or, where its numbers lie in [0, 1], add ?output=probability"
        )
    if declared and problem != "regression" and not (problem is None and n == 1):
        raise UserError(f"judge {str(judge)!r}: its outputs are logits of {n} classes; leave out output=probability")
    if problem == "single_label_classification" and n == 1:
        raise UserError(
            f"judge {str(judge)!r} has a single class, whose probability is always 1; give another classifier"
        )
    if declared:
        return "probability"
    return "sigmoid" if n == 1 or problem == "multi_label_classification" else "softmax"


class Classifier:
    """A classifier that is loaded when it is first asked, and gives the score of texts, or of pairs of texts."""

    def __init__(self, load: Loader, output: Output, opening: Opening) -> None:
        self._load, self.output, self._inference, self._cost = load, output, opening.inference, opening.cost

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self._load()

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Scores (n,): probabilities, or what is none where the model's output is none."""
        import pandas as pd

        from underseer.models.batches import TokenRows, tokenise
        from underseer.training.finetune import predict_proba
        from underseer.training.precision import longest_row

        if self._cost is not None:
            self._cost.add(judge_calls=len(texts))
        model, tokenizer = self.loaded
        if self.output.form == "softmax":
            frame = pd.DataFrame({"text": texts} if pairs is None else {"text": texts, "text_pair": pairs})
            return predict_proba(model, tokenizer, frame, **vars(self._inference), cost=self._cost)[
                :, self.output.column
            ]
        longest = longest_row(model, self._inference.max_length)
        ids, types = tokenise(tokenizer, texts, pairs, max_length=longest)
        logits = self.logits(TokenRows(ids, padding(model, tokenizer, ids), types=types))
        return logits if self.output.form == "probability" else 1 / (1 + np.exp(-logits))

    def logits(self, rows: TokenRows) -> np.ndarray:
        """The logit (n,) float64 of the class for each row, in their order."""
        import torch

        from underseer.models.batches import sorted_batches
        from underseer.models.loading import resolve_device
        from underseer.training.precision import autocast

        model, place = self.loaded[0], resolve_device(self._inference.device)
        if self._cost is not None:
            self._cost.add(tokens_scored=int(sum(rows.lengths)))
        out = np.empty(len(rows))
        model.to(place).eval()
        with torch.inference_mode(), autocast(model, place, self._inference.precision):
            for batch in sorted_batches(rows.lengths, self._inference.batch_size):
                inputs = {key: value.to(place) for key, value in rows.__getitems__(batch).items()}
                out[batch] = model(**inputs).logits[:, self.output.column].double().cpu().numpy()
        return out

    def replies(self, values: np.ndarray, texts: Sequence[tuple[str, ...]]) -> list[Reply]:
        """Scores (n,) of n texts, or pairs of them, as replies, with whether each was cut."""
        from underseer.judges.cutting import is_longer
        from underseer.training.precision import longest_row

        model, tokenizer = self.loaded
        longest = longest_row(model, self._inference.max_length)
        return [Reply(float(p), cut=is_longer(tokenizer, t, longest)) for p, t in zip(values, texts, strict=True)]


class TextJudge:
    """A classifier of texts alone."""

    def __init__(self, classifier: Classifier, name: str, version: str, opening: Opening) -> None:
        self.name, self.version, self.classifier = opening.name or name, opening.version or version, classifier

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n texts, in batches of like length; a text longer than ``max_length`` by its beginning."""

        def reply(full: list[str]) -> list[Reply]:
            return self.classifier.replies(self.classifier.scores(full), [(text,) for text in full])

        return judge_full(texts, reply, self)


class PairJudge(ExchangeJudge):
    """A classifier of exchanges, read as a pair of texts; with ``reads`` = "answer", of answers alone."""

    by_batch = True

    def __init__(
        self,
        classifier: Classifier,
        spec: JudgeSpec,
        measure: str,
        opening: Opening,
        *,
        version: str,
        reads: str | None = None,
    ) -> None:
        inference = opening.inference
        parts = (spec.kind, version, classifier.output, reads or "pair", inference.max_length, inference.precision)
        super().__init__(spec.name, version, measure, "\x1f".join(map(str, parts)), opening)
        self.classifier, self.max_length, self._reads = classifier, inference.max_length, reads

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The score of each exchange of a batch."""
        prompts, answers = zip(*exchanges, strict=True)
        if self._reads == "answer":
            return self.classifier.replies(self.classifier.scores(answers), [(answer,) for answer in answers])
        return self.classifier.replies(self.classifier.scores(prompts, answers), exchanges)


# ---------------------------------------------------------------------------------------------------- models


def padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[np.ndarray]) -> int:
    """The id to pad with. The model reads the last token that is not it.

    A model stored without a pad id (``reads_last_token``) was trained to read the last token, whatever it is; then the
    pad id must close no row, as the end token that stands in for it would.
    """
    if not getattr(model, "reads_last_token", False):
        return tokenizer.pad_token_id
    last = {int(row[-1]) for row in ids}
    model.config.get_text_config().pad_token_id = next(i for i in range(len(last) + 1) if i not in last)
    return model.config.get_text_config().pad_token_id


def configuration(judge: JudgeSpec) -> dict[str, Any] | None:
    """The configuration of a sequence classifier, None where it is not on this machine. Raises UserError."""
    config = specs.configuration(judge.model)
    named = architectures(config, judge)
    if named and not any("SequenceClassification" in name for name in named):
        raise UserError(
            f"judge {str(judge)!r} is no sequence classifier but {', '.join(named)}; "
            f"give a classifier, or train one here: trained:{judge.model}"
        )
    return config


def load(source: str, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained sequence classifier, fp32, with the head that is stored, and its tokenizer.

    Remote code is never trusted and only safetensors are read. Raises UserError where a part of the model is not in
    the file: a classifier whose head is drawn at random is no judge.
    """
    import torch
    import transformers

    from underseer.models import loading

    safely = {"revision": revision, "trust_remote_code": False}
    try:
        with loading.quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safely)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **safely
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"judge model {source!r} cannot be loaded as a sequence classifier: {first}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"judge model {source!r} has no trained head ({missing} not stored); give a trained classifier")
    loading._set_padding(model, tokenizer, own_token=True)
    model.config.use_cache = False
    return loading.with_fused_gelu(model).eval(), tokenizer
