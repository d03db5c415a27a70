"""Which data sets there are, where each is published, and how a name such as ``advbench+wts-safety/safe`` is
read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from underseer.data import readers
from underseer.errors import UserError, nearest

LABELS = ("safe", "unsafe")
"""Class names of the safety data; a row's ``label`` is the index: 0 safe, 1 unsafe."""


@dataclass(frozen=True)
class DatasetInfo:
    """One public (or generated) data set.

    ``host`` says where ``repo`` and ``file`` stand: ``hub`` (a Hugging Face data set), ``github``, or None
    for a data set that is generated. ``revision`` is the pinned commit; ``sha256`` that of the file at this
    commit, where it is known. ``local_names`` are the file names looked for in a folder, as patterns, case
    and ``-``/``_`` alike.
    """

    name: str
    title: str
    licence: str
    file_format: str
    reader: Callable[[bytes, str], list[dict[str, Any]]] | None = None
    host: str | None = None
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    local_names: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def url(self) -> str | None:
        """Where a person downloads the file at the pinned revision."""
        return remote_url(self, self.revision)


def remote_url(info: DatasetInfo, revision: str | None) -> str | None:
    """The address of a data set's file at one commit; None for a generated data set."""
    if info.host == "hub":
        return f"https://huggingface.co/datasets/{info.repo}/resolve/{revision}/{info.file}"
    if info.host == "github":
        return f"https://raw.githubusercontent.com/{info.repo}/{revision}/{info.file}"
    return None


_ALL = (
    DatasetInfo(
        name="testbed-safety",
        title="prompts of the embedded testbed, labelled by its oracle (synthetic)",
        licence="Apache-2.0",
        file_format="generated",
        synthetic=True,
    ),
    DatasetInfo(
        name="wts-safety",
        title="the W2S paper's safety prompts (arXiv 2410.12621)",
        licence="none stated",
        file_format="csv: prompt, is_safe (True / False)",
        reader=readers.wts_safety,
        host="github",
        repo="yeruimeng/WTS",
        file="safety.csv",
        revision="f389b1c0656c90b56a38c410abcf8a1ac3c35ad2",
        local_names=("wts_safety.csv", "safety.csv"),
    ),
    DatasetInfo(
        name="advbench",
        title="AdvBench harmful behaviours (arXiv 2307.15043); every prompt is unsafe",
        licence="MIT",
        file_format="csv: goal, target",
        reader=readers.advbench,
        host="github",
        repo="llm-attacks/llm-attacks",
        file="data/advbench/harmful_behaviors.csv",
        revision="098262edf85f807224e70ecd87b9d83716bf6b73",
        sha256="6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
        local_names=("advbench_harmful_behaviors.csv", "harmful_behaviors.csv"),
    ),
    DatasetInfo(
        name="s-eval",
        # v0.1.1 was the current release when the W2S paper was written; which one it used is not stated.
        title="S-Eval base risk prompts, English, v0.1.1 (arXiv 2405.14191); every prompt counts as unsafe",
        licence="CC-BY-NC-SA-4.0",
        file_format="jsonl: prompt, risk_type",
        reader=readers.s_eval,
        host="hub",
        repo="IS2Lab/S-Eval",
        file="S-Eval_base_risk_en_v0.1.1.jsonl",
        revision="84d8ee015310009eefec069ee00f18d0b100b3c6",
        local_names=("s_eval_base_risk_en*.jsonl",),
    ),
)
DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _ALL}


@dataclass(frozen=True)
class Part:
    """One data set of a composition, and the one class kept of it (None: both)."""

    info: DatasetInfo
    keep: int | None


def parse(dataset: str) -> tuple[Part, ...]:
    """The parts of ``name[/safe|/unsafe]`` joined by ``+``. Raises ``UserError`` on an unknown name or
    class."""
    parts: list[Part] = []
    for piece in str(dataset).split("+"):
        name, _, keep = piece.strip().partition("/")
        if name not in DATASETS:
            raise UserError(
                f"dataset = '{dataset}': '{name}' is not a known data set{nearest(name, DATASETS)}; "
                f"allowed: {', '.join(DATASETS)}, each with /safe or /unsafe if wanted, joined by '+'"
            )
        if "/" in piece and keep not in LABELS:
            hint = nearest(keep, LABELS)
            raise UserError(f"dataset = '{dataset}': '/{keep}' is not a class{hint}; allowed: /safe, /unsafe")
        part = Part(DATASETS[name], LABELS.index(keep) if keep else None)
        if any(p.info is part.info and (None in (p.keep, part.keep) or p.keep == part.keep) for p in parts):
            raise UserError(f"dataset = '{dataset}': the rows of '{name}' are named twice; name each data set once")
        parts.append(part)
    return tuple(parts)


def is_synthetic(dataset: str) -> bool:
    """Whether any part of a data set is generated: then everything made from it is marked synthetic."""
    return any(part.info.synthetic for part in parse(dataset))
