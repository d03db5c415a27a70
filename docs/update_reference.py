"""Write docs/parameters.md and docs/stages.md from the schema, params/base and the notebooks: ``python docs/update_reference.py``.

A test holds both files equal to what this writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from underseer.runs import params, pipelines

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SOURCE = re.compile(r"\(((?:ours|paper|released|RealToxicityPrompts|MODPO|after)[^()]*)\)$")
LINE = re.compile(r"^(\w+):(?: [^#]*)?#\s*(.*)$")


def base(pipeline: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The defaults of a pipeline, and the remark that params/base makes on each."""
    text = (ROOT / f"params/base/{pipeline}.yaml").read_text(encoding="utf-8")
    remarks = {m[1]: m[2] for line in text.splitlines() if (m := LINE.match(line))}
    return yaml.safe_load(text), remarks


def cell(text: str) -> str:
    """Text as it may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def allowed(field: Any) -> str:
    """What a parameter may be: its choices, or its type with its limits."""
    kinds = [k for k in (get_args(field.annotation) or (field.annotation,)) if k is not type(None)]
    if get_origin(field.annotation) is not None and all(isinstance(k, str) for k in kinds):
        return ", ".join(f"`{k}`" for k in kinds)
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    limits = [
        f"{sign} {getattr(m, name):g}"
        for m in field.metadata
        for name, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if isinstance(getattr(m, name, None), int | float)
    ]
    kind = " or ".join(dict.fromkeys(names.get(k, "") for k in kinds if k in names)) or "number or text"
    null = ["or null"] if type(None) in get_args(field.annotation) else []
    return ", ".join([kind, *limits, *null])


def parameters() -> str:
    """The page of parameters."""
    bases = {pipeline: base(pipeline) for pipeline in pipelines.PIPELINES}
    lines = [
        "# Parameters",
        "",
        "Every parameter that an experiment file may hold, made from the schema (`src/lib/underseer/runs/params.py`) and from `params/base` by "
        '`docs/update_reference.py`. Sources: "paper" and "released" are a paper and its code, "ours" a choice where both are silent. A result parameter is part of the keys of the stages that read it; one of how it runs is part of none.',
        "",
    ]
    for title, affects in (("Decide results", "result"), ("How it runs", "runtime")):
        lines += [f"## {title}", "", "| Parameter | What it is | Allowed | Default: W2S | Default: Self-MOA | Source |", "|:--|:--|:--|:--|:--|:--|"]  # fmt: skip
        for name, field in params.Schema.model_fields.items():
            if field.json_schema_extra["affects"] == affects:
                defaults = [f"`{json.dumps(b[name])}`" if name in b else "" for b, _ in bases.values()]
                source = next((m[1] for _, r in bases.values() if (m := SOURCE.search(r.get(name, "")))), "")
                cells = [f"`{name}`", field.description, allowed(field), *defaults, source]
                lines.append(f"| {' | '.join(map(cell, cells))} |")
        lines.append("")
    return "\n".join(lines)


def stages() -> str:
    """The page of stages."""
    lines = [
        "# Stages",
        "",
        "A stage is a notebook. Made from the notebooks by `docs/update_reference.py`: what each asks, and the parameters that it declares. Which stage "
        "needs which stands in `src/lib/underseer/runs/pipelines.py`.",
        "",
    ]
    for pipeline, patterns in pipelines.NOTEBOOKS.items():
        lines += [f"## {pipeline}", "", "| Stage | What it is | Asked | Parameters |", "|:--|:--|:--|:--|"]
        for file in (f for pattern in patterns for f in sorted(NOTEBOOKS.glob(f"{pattern}.ipynb"))):
            stage = file.relative_to(NOTEBOOKS).with_suffix("")
            title, asked, declared = notebook(file)
            lines.append(f"| [`{stage}`](../notebooks/{stage}.ipynb) | {cell(title)} | {cell(asked)} | {', '.join(f'`{d}`' for d in declared)} |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def notebook(file: Path) -> tuple[str, str, list[str]]:
    """The title of a notebook, its question, and the names in its parameters cell."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    head = "".join(cells[0]["source"])
    title = head.splitlines()[0].lstrip("# ")
    body = head.split("\n", 1)[1].strip()
    asked = re.search(r"\*\*Asked[.:]\*\*\s*(.*?)(?=\*\*Answer|\n\n|$)", body, re.DOTALL)
    (given,) = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    names = [m[1] for line in given["source"] if (m := re.match(r"(\w+)(?::[^=]*)? =", line))]
    first = re.split(r"(?<=[.?])\s", body, maxsplit=1)[0]
    return title, asked[1] if asked else first, [n for n in names if n not in ("experiment", "scratch")]


def pages() -> Iterator[tuple[Path, str]]:
    """Both files with their text."""
    yield ROOT / "docs/parameters.md", parameters()
    yield ROOT / "docs/stages.md", stages()


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
