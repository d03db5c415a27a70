"""What is known of a data set: what it holds, where it is published, under which licence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CLASSES: dict[str, tuple[str, str]] = {
    "safety": ("safe", "unsafe"),
    "legal": ("irrelevant", "relevant"),
    "toxicity": ("civil", "toxic"),
}
"""Class names of each task's data; a row's ``label`` is the index."""

LABELS = CLASSES["safety"]

TRAIN_LABELS: dict[str, frozenset[int]] = {"toxicity": frozenset({0})}
"""Labels that may be learnt from, where not all may: the W2S paper trains on rows of toxicity below 0.5."""


HOLDINGS = {
    "rows": "labelled prompts or texts",
    "pairs": "preference pairs",
    "exchanges": "prompts with labelled answers",
}
"""What a data set can be loaded as: by ``load`` and ``load_prompts``, ``load_preferences``, ``load_exchanges``."""


@dataclass(frozen=True)
class DatasetInfo:
    """One public (or generated) data set.

    ``holds`` says what it can be loaded as. ``task`` is what its labels are about, and decides the names of its
    ``classes``; ``roles`` is what prompts of either class are for in an evaluation. ``host`` says where ``repo`` and
    ``file`` stand: ``hub`` (a Hugging Face data set), ``github``, or None for one that is generated or, with a ``reader``, given as a file. ``revision``
    is the pinned commit; ``sha256`` that of the file at this commit, where it is known. ``local_names`` are the file
    names looked for in a folder, as patterns, case and ``-``/``_`` alike. ``measures``: of what its exchanges may hold labels.
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
    task: str = "safety"
    holds: tuple[str, ...] = ("rows",)
    measures: tuple[str, ...] = ("unsafe",)
    roles: tuple[str, str] = ("safe", "attack")

    @property
    def classes(self) -> tuple[str, str]:
        """Names of label 0 and label 1."""
        return CLASSES[self.task]

    @property
    def train_labels(self) -> frozenset[int] | None:
        """Labels that may be learnt from; None: all."""
        return TRAIN_LABELS.get(self.task)

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
