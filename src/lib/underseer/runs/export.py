"""A folder for publication: a report with all that is needed to check and to cite it, and models only where they are named.

Nothing of the run store goes into it but what is asked for by stage and key. A report that shows unsafe texts is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.errors import UserError
from underseer.runs import publish
from underseer.runs.run import rests_on

UNSAFE = 'class="banner unsafe"'
"""What a report's page holds where it shows unsafe texts."""
UP = '<a class="up" href="../index.html">all experiments</a>'
"""A link of that page which leads out of its folder."""
LOCK = "requirements.lock"
CITATION = """cff-version: 1.2.0
message: Please cite the paper whose method these results are about, and this software.
title: "underseer: {name}"
type: dataset
authors:
  - name: The contributors to underseer
license: Apache-2.0
date-released: {day}
version: "{commit}"
references:
  - type: article
    title: "{paper}"
"""


def export(name: str, to: Path | None, artefacts: Sequence[str]) -> tuple[Path, list[str]]:
    """Write the folder of an experiment's newest report; returns it, and which of the artefacts are marked unsafe.

    Args:
        name: of the experiment.
        to: the folder; None: ``exports/<name>`` beside ``reports/``. It must not hold anything.
        artefacts: ``STAGE/KEY`` of stages whose outputs go into ``artefacts/``.

    Raises:
        UserError: no such report, or stage; one that is damaged, or is not what its page shows; a report that shows unsafe texts; a folder that is not empty.
    """
    report, page = publish.newest_report(name), paths.home() / "reports" / name
    named = [_artefact(one) for one in artefacts]
    if not (page / "index.html").is_file():
        raise UserError(f"{name}: its report is not published; make it with: .venv/bin/underseer report {name}")
    if UNSAFE in (page / "index.html").read_text(encoding="utf-8"):
        raise UserError(f"{name}: its page shows unsafe texts; make it without: .venv/bin/underseer report {name}")
    publish.check(report, *named)
    if not publish.shows(report, page):
        raise UserError(
            f"{paths.shown(page / 'results.json')}: not the numbers of the newest report; publish them with: .venv/bin/underseer report {name}"
        )
    folder = (to or paths.home() / "exports" / name).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{paths.shown(folder)}: holds files already; remove it, or give another folder with --to")
    with store.replacing(folder) as fresh:
        shutil.copytree(page, fresh, dirs_exist_ok=True)
        for output in named:
            shutil.copytree(output.path, fresh / "artefacts" / output.name, copy_function=shutil.copyfile)
        alone = (fresh / "index.html").read_text(encoding="utf-8").replace(UP, "")
        (fresh / "index.html").write_text(alone, encoding="utf-8")
        _describe(name, report, named, fresh)
    return folder, [o.name for o in named if o.manifest["marks"].get("unsafe")]


def _artefact(name: str) -> store.Output:
    stage, _, key = name.rpartition("/")
    output = store.read(stage, key) if stage.count("/") == 1 else None
    if output is None:
        raise UserError(f"--with {name}: no such stage in the store; give STAGE/KEY as the page of stages lists them")
    return output


def _describe(name: str, report: store.Output, artefacts: Sequence[store.Output], folder: Path) -> None:
    """Write parameters, lock, citation, model card, RO-Crate metadata and, last, the checksums of all files."""
    from underseer.report import wording

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    parameters = {name: output.parameters for name, output in rests_on([report], paths.home(), whole=False).items()}
    command = publish.command(report)
    _json(folder / "parameters.json", {"command": command, "stages": parameters})
    shutil.copyfile(paths.ROOT / LOCK, folder / LOCK)
    shutil.copyfile(paths.ROOT / "LICENSE", folder / "LICENSE")
    commit = results["provenance"].get("commit") or "unknown"
    paper = wording.PAPERS[results["pipeline"]]
    cited = CITATION.format(name=name, day=date.today().isoformat(), commit=commit, paper=paper)
    (folder / "CITATION.cff").write_text(cited, encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(_card(results, report, artefacts, folder), encoding="utf-8")
    _json(folder / "ro-crate-metadata.json", _crate(name, command, commit, folder))
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    sums = "".join(f"{store.sha256(p)}  {p.relative_to(folder)}\n" for p in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(results: dict[str, Any], report: store.Output, artefacts: Sequence[store.Output], folder: Path) -> str:
    """A model card after Mitchell et al. 2019 (arXiv 1810.03993): what the models are, how they were evaluated, and their limits."""
    from underseer.report import headline, wording

    tables = [folder / "tables" / f"{n}.md" for n in ("scores", "stages", "baselines")]
    listed = [_listed(output, results, report) for output in artefacts]
    mark = [f"**{text}**" for text in (wording.mark(results),) if text]
    parts = [
        f"# Model card: {results['name']}",
        *mark,
        f"Task: {wording.TASKS.get(results['task'], results['task'])} Method after: {wording.PAPERS[results['pipeline']]}.",
        "## Models in this folder",
        "\n\n".join(listed) or "None: `artefacts/` holds only what was asked for by name.",
        "## Evaluation of the experiment",
        *headline.headline(results)[:3],
        *(t.read_text(encoding="utf-8") for t in tables if t.is_file()),
        "## Use and limits",
        "Made for research on weak supervision. The numbers hold for the data, seeds and judges that `results.json` names; no model "
        "here was tested for any other use. A model after a safety reset answers harmful requests; do not deploy it.",
        f"How it was made: `parameters.json`, `{LOCK}`, commit {results['provenance'].get('commit') or 'unknown'}.",
    ]
    return "\n\n".join(parts) + "\n"


def _listed(output: store.Output, results: dict[str, Any], report: store.Output) -> str:
    """What is said of an artefact: its parameters, and its own scores where the report evaluates it."""
    from underseer.report import wording as w

    manifest, seed = output.manifest, output.parameters.get("seed")
    values = ", ".join(f"{k} = {v}" for k, v in output.parameters.items() if v is not None)
    unsafe = " **Marked unsafe.**" if manifest["marks"].get("unsafe") else ""
    lines = [
        f"| {w.dataset_name(row['dataset'])} | {w.metric_head(row['metric'])} "
        f"| {w.number(row['values'][row['seeds'].index(seed)], row['metric'])} | {w.with_interval(row, row['metric'])} |"
        for row in _rows_of(output, results, report)
        if seed in row["seeds"]
    ]
    head = ["", f"| Data | Metric | This model (seed {seed}) | Mean over seeds [95 % interval] |", "|:--|:--|--:|--:|"]
    return "\n".join([f"- `artefacts/{output.name}`: {values}.{unsafe}", *(head + lines if lines else ())])


def _rows_of(output: store.Output, results: dict[str, Any], report: store.Output) -> list[dict[str, Any]]:
    """The result rows of the method that a model stands for in a report; of a stage that is no method's model, none."""
    from underseer.report import collect_w2s

    for cell in report.manifest["variants"]:
        for role in (role for role, key in cell["roles"].items() if key == output.key):
            method = role.removeprefix("align_")
            if role in collect_w2s.ROLES:
                method = collect_w2s.method_name(role, output)
            rows = [r for r in results["rows"] if r["method"] == method and r["mean"] is not None]
            values = cell["values"] | ({"voting": "none"} if role == "weak" else {})  # one supervisor stands for itself
            return [r for r in rows if r["variant"].items() <= values.items()]
    return []


def _crate(name: str, command: str, commit: str, folder: Path) -> dict[str, Any]:
    """RO-Crate 1.1 metadata (w3id.org/ro/crate/1.1): the folder, its files, and the software that made them."""
    files = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
    software = {"@id": "#underseer", "@type": "SoftwareApplication", "name": "underseer", "version": commit}
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"underseer: {name}",
        "description": f"Results of the experiment {name}: report, figures, tables, numbers, parameters.",
        "datePublished": date.today().isoformat(),
        "license": {"@id": "LICENSE"},
        "hasPart": [{"@id": file} for file in files],
    }
    action = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": command,
        "instrument": {"@id": "#underseer"},
        "object": [{"@id": "parameters.json"}, {"@id": LOCK}],
        "result": {"@id": "results.json"},
    }
    about = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    entities = [{"@id": f, "@type": "File", "contentSize": str((folder / f).stat().st_size)} for f in files]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [about, root, software, action, *entities]}
