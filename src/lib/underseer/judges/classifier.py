"""A published sequence classifier as a judge, of texts or of exchanges: the probability of one of its classes is the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underseer.errors import UserError
from underseer.judges.base import Judge, Opening
from underseer.judges.classifiers import Classifier, PairJudge, TextJudge, configuration, load, output_of
from underseer.judges.spec import MEASURES, JudgeSpec, Kind, register
from underseer.models import specs

MEANING = {
    "toxicity": (
        "toxic", "toxicity", "unsafe", "hate", "hateful", "hate speech", "offensive", "harmful", "abusive",
    ),
    "unsafe": ("unsafe", "harmful", "toxic", "toxicity", "harm", "violation", "unsafe response"),
    "helpful": ("helpful", "helpfulness", "good", "useful"),
    "refusal": ("refusal", "refuses", "refuse", "refused", "rejection", "reject", "rejected"),
}  # fmt: skip
"""Class names of published classifiers that mean what is measured, the first that one has counts."""


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Check a classifier's configuration where it is on this machine: it is a sequence classifier, has the class, and gives
    a probability. Raises UserError. Of a hub model that is not cached nothing is known yet; loading it checks the same."""
    if measure == "toxicity" and judge.option("reads"):
        raise UserError(f"judge {str(judge)!r}: a judge of toxicity reads no prompt; leave out reads=answer")
    config = configuration(judge)
    if config is not None:
        output_of(config, judge, MEANING[measure])
    return []


def open_classifier(judge: JudgeSpec, measure: str, opening: Opening) -> Judge:
    """The judge. Raises UserError: no such model, no trained head, no class of that name, outputs that are no probabilities."""
    specs.preflight(judge.model)
    check(judge, measure, {})
    config = specs.configuration(judge.model)
    if config is None:  # of the hub, and not here yet: its classes are known once it is
        config = load(judge.model.name, judge.model.revision)[0].config.to_dict()
    output = output_of(config, judge, MEANING[measure])
    classifier = Classifier(lambda: load(judge.model.name, judge.model.revision), output, opening)
    version = specs.fingerprint(judge.model)
    if measure == "toxicity":
        return TextJudge(classifier, judge.name, version, opening)
    return PairJudge(classifier, judge, measure, opening, version=version, reads=judge.option("reads"))


register(
    Kind(
        "classifier",
        "classifier:HUB_ID_OR_FOLDER[?label=NAME][&reads=answer][&output=probability]",
        tuple(MEASURES),
        open_classifier,
        check,
        models=("hub", "folder"),
        options={"label": None, "reads": "answer", "output": "probability"},
    )
)
