"""Judges by name: a specification parsed, without anything of the judge itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from underseer.errors import UserError, nearest
from underseer.models.specs import ModelSpec
from underseer.models.specs import parse as parse_model

KINDS = {
    "trained": "trained:MODEL (a scorer trained here on stored scores)",
    "classifier": "classifier:HUB_ID_OR_FOLDER[?label=NAME]",
    "perspective": "perspective",
    "oracle": "oracle (the testbed's truth, evaluation only)",
}
"""Judges of toxicity; those of exchanges are ``exchange.KINDS``."""

WITHOUT_MODEL = ("perspective", "oracle", "strings")
TRAINED_ALREADY = ("classifier", "reward", "rubric", "guard")


@dataclass(frozen=True)
class JudgeSpec:
    """A parsed judge specification."""

    kind: str  # a key of KINDS, or of exchange.KINDS
    model: ModelSpec | None = None
    label: str | None = None  # of `classifier`: the class whose probability is the score
    reads: str | None = None  # of `classifier` in an exchange: "answer" where it reads the answer alone

    def __str__(self) -> str:
        return self.kind + ("" if self.model is None else f":{self.model}") + self._options

    @property
    def _options(self) -> str:
        given = {"label": self.label, "reads": self.reads}
        text = "&".join(f"{key}={value}" for key, value in given.items() if value)
        return f"?{text}" if text else ""

    @property
    def name(self) -> str:
        """The specification as results show it: of a folder only its last name, so that no machine's path is."""
        if self.model is None or self.model.kind != "folder":
            return str(self)
        return f"{self.kind}:{Path(self.model.name).name}{self._options}"


def parse_judge(spec: str | JudgeSpec, kinds: Mapping[str, str] = KINDS) -> JudgeSpec:
    """Parse a judge specification. Raises UserError for an unknown kind, a missing model, or a model that no judge of
    this kind can use."""
    if isinstance(spec, JudgeSpec):
        return spec
    text = str(spec).strip()
    kind, colon, rest = text.partition(":")
    if kind not in kinds:
        raise UserError(f"judge {text!r} is unknown; allowed are {', '.join(kinds.values())}{nearest(kind, kinds)}")
    if kind in WITHOUT_MODEL:
        if colon:
            raise UserError(f"judge {text!r}: {kind!r} takes no model; write {kind}")
        return JudgeSpec(kind)
    options: dict[str, str] = {}
    if kind == "classifier":
        rest, options = _options(text, rest, kinds)
    if not rest:
        raise UserError(f"judge {text!r} names no model; write {kinds[kind]}")
    model = parse_model(rest)
    allowed = ("hub", "folder", "testbed") if kind in ("rubric", "guard") else ("hub", "folder")
    if kind in TRAINED_ALREADY and model.kind not in allowed:
        raise UserError(
            f"judge {text!r}: a {kind} is a hub id or a folder, already trained; to train {rest!r} here write "
            f"trained:{rest}"
        )
    return JudgeSpec(kind, model, **options)


def _options(text: str, rest: str, kinds: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The model of a classifier's specification, and its options."""
    rest, query, given = rest.partition("?")
    options = {}
    for option in given.split("&") if query else ():
        key, _, value = option.partition("=")
        if not (key == "label" and value) and not (kinds is not KINDS and option == "reads=answer"):
            more = "" if kinds is KINDS else " and reads=answer (where it reads no prompt)"
            raise UserError(
                f"judge {text!r}: unknown option {option!r}; allowed is ?label=NAME, the class looked for{more}"
            )
        options[key] = value
    return rest, options
