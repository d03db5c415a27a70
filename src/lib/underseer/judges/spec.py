"""Kinds of judges, and judges by name: a specification parsed, without anything of the judge itself. Needs no torch.

Each kind is one file of this folder, which registers a ``Kind``; ``judges/__init__.py`` imports the files, one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest, short
from underseer.models.specs import ModelSpec
from underseer.models.specs import parse as parse_model

if TYPE_CHECKING:
    from underseer.judges.base import Judge, Opening
    from underseer.models.chats import Chat

MEASURES = {
    "toxicity": "probability that a text is toxic; it is read without its prompt",
    "unsafe": "probability that the answer is unsafe; lower is safer",
    "helpful": "degree to which the answer helps; higher is better",
    "refusal": "probability that the answer refuses",
}
"""What a judge may measure. All but toxicity are of exchanges: answers with the prompts that they answer."""

RULES = ("mean", "majority", "worst")
"""How judges may vote; the first where none is named."""

OF_EXCHANGES = tuple(name for name in MEASURES if name != "toxicity")


@dataclass(frozen=True)
class JudgeSpec:
    """A parsed judge specification: ``KIND:MODEL?OPTION=VALUE``, or ``KIND:RULE:A+B`` of judges that vote."""

    kind: str
    model: ModelSpec | None = None
    options: tuple[tuple[str, str], ...] = ()
    members: tuple[JudgeSpec, ...] = ()

    def __str__(self) -> str:
        if self.members:
            return f"{self.kind}:{self.option('rule')}:{'+'.join(map(str, self.members))}"
        return self.kind + ("" if self.model is None else f":{self.model}") + self._query

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)

    @property
    def _query(self) -> str:
        text = "&".join(f"{key}={value}" for key, value in self.options)
        return f"?{text}" if text else ""

    @property
    def name(self) -> str:
        """The specification as results show it: of a folder only its last name, so that no machine's path is."""
        if self.members:
            return f"{self.kind}:{self.option('rule')}:{'+'.join(member.name for member in self.members)}"
        if self.model is None or self.model.kind != "folder":
            return str(self)
        return f"{self.kind}:{Path(self.model.name).name}{self._query}"


@dataclass(frozen=True)
class Writing:
    """How judges of a kind write their verdicts: the chats by which they ask about a prompt and its answer, and two verdicts in
    their form, each in the pieces that a rehearsal teaches to a tiny model. ``models`` is a pattern of the names that it is of."""

    asks: tuple[Callable[[str, str], Chat], ...]
    examples: tuple[tuple[str, ...], tuple[str, ...]]
    models: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of judge.

    ``open`` makes a judge of it ready to score; None where evaluation alone may ask it (``oracle.open_reporting``).
    ``check`` raises UserError for what can be seen to be wrong before anything runs, without torch, and returns remarks.
    """

    name: str
    usage: str
    measures: tuple[str, ...]
    open: Callable[[JudgeSpec, str, Opening], Judge] | None
    check: Callable[[JudgeSpec, str, Mapping[str, Any]], list[str]] = lambda judge, measure, parameters: []
    models: tuple[str, ...] = ()  # kinds of model that it may name (``ModelSpec.kind``); none: it takes no model
    options: Mapping[str, str | None] = field(default_factory=dict)  # name -> the one value allowed (None: any)
    votes: bool = False  # it names other judges, not a model
    scales: bool = False  # the stage that measures it fits its scale, on exchanges that need no labels
    learns: bool = False  # the stage that measures it trains it, on exchanges with labels
    writing: tuple[Writing, ...] = ()  # of judges that write their verdicts: the first whose ``models`` fits counts


KINDS: dict[str, Kind] = {}
"""All kinds of judges by name."""


def register(kind: Kind) -> Kind:
    KINDS[kind.name] = kind
    return kind


def parse(spec: str | JudgeSpec) -> JudgeSpec:
    """Parse a judge specification. Raises UserError for an unknown kind or option, a missing model, or a model that no
    judge of this kind can use."""
    if isinstance(spec, JudgeSpec):
        return spec
    text = str(spec).strip()
    name, colon, rest = text.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        usages = ", ".join(k.usage for k in KINDS.values())
        raise UserError(f"judge {text!r} is unknown; allowed are {usages}{nearest(name, KINDS)}")
    if kind.votes:
        return _vote(text, kind, rest)
    if not kind.models:
        if colon:
            raise UserError(f"judge {text!r}: {name!r} takes no model; write {name}")
        return JudgeSpec(name)
    rest, options = _options(text, kind, rest)
    if not rest:
        raise UserError(f"judge {text!r} names no model; write {kind.usage}")
    model = parse_model(rest)
    if model.kind not in kind.models:
        raise UserError(
            f"judge {text!r}: a {name} is a model that is already trained; to train {rest!r} here write trained:{rest}"
        )
    return JudgeSpec(name, model, options)


def _vote(text: str, kind: Kind, rest: str) -> JudgeSpec:
    """Judges that vote: at least two, each one that could judge alone."""
    rule, members = voters(text)
    given = [parse(member) for member in members]
    if len(given) < 2 or any(KINDS[member.kind].votes or KINDS[member.kind].open is None for member in given):
        raise UserError(
            f"judge {text!r}: a vote takes at least two judges, none of them a vote or the oracle; write {kind.usage}"
        )
    return JudgeSpec(kind.name, None, (("rule", rule),), tuple(given))


def _options(text: str, kind: Kind, rest: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The model of a specification, and its options."""
    if not kind.options:
        return rest, ()
    rest, query, given = rest.partition("?")
    options = [tuple(option.partition("=")[::2]) for option in given.split("&")] if query else []
    for key, value in options:
        if not value or kind.options.get(key, "") not in (None, value):
            allowed = ", ".join(f"{name}={one or 'NAME'}" for name, one in kind.options.items())
            raise UserError(f"judge {text!r}: unknown option '{key}={value}'; allowed are {allowed}")
    return rest, tuple(options)


def check_measure(judge: JudgeSpec, measure: str) -> None:
    """Raise UserError for an unknown measure, or one that this kind of judge cannot take."""
    if measure not in MEASURES:
        raise UserError(
            f"measure {measure!r} is unknown; allowed are {', '.join(MEASURES)}{nearest(measure, MEASURES)}"
        )
    able = KINDS[judge.kind].measures
    if measure not in able:
        others = ", ".join(kind.name for kind in KINDS.values() if measure in kind.measures)
        raise UserError(
            f"judge {str(judge)!r} measures {' or '.join(able)}, not {measure}; judges of {measure} are {others}"
        )


# ---------------------------------------------------------------------------------------------------- parameters


def voters(value: str) -> tuple[str, list[str]]:
    """Rule and members of a parameter that names judges that vote; ("", []) of any other."""
    name, _, rest = value.partition(":")
    if name not in KINDS or not KINDS[name].votes:
        return "", []
    rule, colon, members = rest.partition(":")
    rule, members = (rule, members) if colon and rule in RULES else (RULES[0], rest)
    return rule, [member for member in members.split("+") if member]


def mapped(value: str, of_model: Callable[[str, str, str], str]) -> str:
    """A parameter that names judges, or a model by itself, with ``of_model(kind, model, options)`` in the place of each model."""
    rule, members = voters(value)
    if members:
        return f"{value.partition(':')[0]}:{rule}:{'+'.join(mapped(member, of_model) for member in members)}"
    kind, model, options = split(value)
    return joined(kind, of_model(kind, model, options) if model else "", options)


def split(value: str) -> tuple[str, str, str]:
    """Kind, model and options of a parameter that names a judge, or a model by itself: ("trained", "testbed:gpt2-xs", ""),
    ("oracle", "", ""), ("", MODEL, ""), ("classifier", MODEL, "?label=toxic"). Checks nothing."""
    name, _, rest = value.partition(":")
    kind = KINDS.get(name)
    if kind is not None and kind.votes:
        return name, "", ""
    if kind is None or bool(kind.models) != bool(rest):
        return "", value, ""
    model, query, options = rest.partition("?") if kind.options else (rest, "", "")
    return name, model, query + options


def learns(value: str) -> bool:
    """Whether a parameter names a judge that is trained here, or a vote with such a member."""
    return any(kind in KINDS and KINDS[kind].learns for kind in kinds(value))


def scales(value: str) -> bool:
    """Whether a parameter names a judge whose scale is fitted here, or a vote with such a member."""
    return any(kind in KINDS and KINDS[kind].scales for kind in kinds(value))


def writes(value: str) -> bool:
    """Whether a parameter names a judge that writes its verdicts, or a vote with such a member."""
    return any(kind in KINDS and bool(KINDS[kind].writing) for kind in kinds(value))


def kinds(value: str) -> list[str]:
    """The kinds of a judge, or of the members of a vote."""
    return [split(member)[0] for member in voters(value)[1] or [value]]


def joined(kind: str, model: str, options: str = "") -> str:
    """The parameter that ``split`` took apart."""
    return (f"{kind}:{model}" if kind and model else kind or model) + options


def fingerprint(value: str, of_model: Callable[[str], str]) -> str:
    """What stands for a judge in a stage's key: kind, the fingerprint of its model or of the one it starts from, options."""
    return mapped(value, lambda kind, model, options: of_model(model))


def architectures(config: Mapping[str, Any] | None, judge: JudgeSpec) -> list[str]:
    """The architectures that a model's configuration names, none where it names none. Raises UserError where they are no names."""
    named = (config or {}).get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(
            f"judge {str(judge)!r}: its config.json has architectures = {short(named)}; allowed is a list of names, as "
            '["LlamaForCausalLM"]; correct it, or fetch the model again'
        )
    return named
