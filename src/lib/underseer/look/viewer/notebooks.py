"""The executed notebooks of an experiment's stages as pages, and a page that lists them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from underseer import store
from underseer.look.viewer.parts import place
from underseer.report.page import templates

HERE = Path(__file__).parent
NOTEBOOK = "notebook.ipynb"
MARKS = {
    "synthetic": "Synthetic testbed.",
    "rehearsal": "Rehearsal: these numbers mean nothing.",
    "unsafe": "What this stage made is unsafe or can make unsafe text; real texts are redacted here.",
}


def write(outputs: Mapping[str, store.Output], folder: Path, command: str) -> dict[str, str]:
    """Write a page for each stage's executed notebook, and index.html; returns key -> page, relative to the folder's parent."""
    folder.mkdir(parents=True, exist_ok=True)
    held = {key: output for key, output in outputs.items() if output.has(NOTEBOOK)}
    pages = {key: f"{output.manifest['stage'].replace('/', '.')}.{key}.html" for key, output in held.items()}
    for key, output in held.items():
        (folder / pages[key]).write_text(page(output, pages, command), encoding="utf-8")
    ordered = sorted(outputs.values(), key=lambda o: (o.manifest["stage"], str(o.parameters.get("seed")), o.key))
    listed = templates(HERE).get_template("stages.html.j2").render(outputs=ordered, pages=pages, command=command)
    (folder / "index.html").write_text(listed, encoding="utf-8")
    return {key: f"{folder.name}/{name}" for key, name in pages.items()}


def page(output: store.Output, pages: Mapping[str, str], command: str) -> str:
    """An executed notebook as HTML, under what its manifest says. pages: key of a stage -> its page."""
    import nbformat

    manifest = output.manifest
    made = manifest.get("provenance") or {}
    facts = {
        "In the store": place(output),
        "Finished": f"{manifest['finished']}, {output.seconds or 0} s",
        "Commit": (made.get("commit") or "unknown")
        + " and uncommitted changes" * bool(made.get("uncommitted_changes")),
        "With its experiment": f"{command} --until {manifest['stage']}",
        "By hand": _by_hand(output, command),
        "Parameters": json.dumps(manifest["parameters"], ensure_ascii=False),
        "Metrics": json.dumps(manifest["metrics"]),
    }
    marks = {mark: text for mark, text in MARKS.items() if manifest["marks"].get(mark)}
    values = {"stage": manifest["stage"], "key": output.key, "facts": facts, "marks": marks}
    values["inputs"] = [(name, pages.get(key)) for key, name in output.inputs.items()]
    notebook = nbformat.read(output.file(NOTEBOOK), 4)
    return templates(HERE).get_template("stage.html.j2").render(values, cells=notebook.cells)


def _by_hand(output: store.Output, command: str) -> str:
    """The command that executes the stage's notebook alone with the same parameters; its results are exploratory."""
    file = next((word for word in command.split() if word.endswith(".yaml")), None)
    given = {"experiment": file, **output.parameters}
    options = " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)
    return f".venv/bin/papermill notebooks/{output.manifest['stage']}.ipynb out.ipynb {options}"
