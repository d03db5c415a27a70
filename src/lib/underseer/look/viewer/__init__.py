"""One page per experiment, ``rows.html``, that browses every row behind its report, and the executed notebooks of its stages.

The page is a file: everything it needs stands in it, and it asks no server. Texts are fenced as in reports and notebooks: those of
the testbed, abstract and harmless, are shown; of all other data the page holds the number of words alone, harmless rows included,
since published labels err. Real texts never enter the page, so that it may be handed on or logged without a second thought. Who
wants to read them asks for a second file (``unlock``), which lies in the run store, where these texts lie anyway, readable for
its owner only. The page reads that file when it is chosen there, and forgets it when it is closed. A page with texts in clear,
the other way to do it, would differ from a harmless one by its name alone.

Why no table library: of itables (DataTables) the same 50,000 rows with five answers each need 6.1 s of processor time until they are
shown, here 0.5 s; and it shows tables, not answers side by side. tests/browser/test_viewer.py holds the times of this page.

Texts are untrusted. The page puts them in as text, and its content security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.look.viewer import loop, notebooks, w2s
from underseer.look.viewer.parts import Part, Pool, inputs, packed, place
from underseer.report.collect import Variants
from underseer.report.page import templates

HERE = Path(__file__).parent
PAGE = "rows.html"


def write(report: store.Output, folder: Path, command: str) -> Path:
    """Write rows.html and stages/ of a finished report into ``folder``; returns the page.

    command: the command that makes the experiment, shown beside each stage.
    """
    there = outputs(report)
    pages = notebooks.write(there, folder / "stages", command)
    stages = {
        key: {"stage": output.manifest["stage"], "key": key, "page": pages.get(key), "place": place(output)}
        | {"command": f"{command} --until {output.manifest['stage']}"}
        for key, output in there.items()
    }
    page = folder / PAGE
    name, redacted = report.parameters["name"], not report.manifest["marks"]["synthetic"]
    page.write_text(html(name, parts(report), stages, redacted=redacted), encoding="utf-8")
    return page


def unlock(report: store.Output) -> Path:
    """Write the texts of a report's page into the run store, readable for their owner alone; returns the file."""
    pool = Pool()
    _packed(parts(report), pool, {})
    file = paths.runs() / ".texts" / f"{report.parameters['name']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        json.dump({"fingerprint": _fingerprint(pool.texts), "texts": joined(pool.texts)}, handle, ensure_ascii=False)
    return file


def parts(report: store.Output) -> list[Part]:
    """The lists of rows of a finished report, from those of its stages that are still in the store."""
    held = outputs(report)
    variants: Variants = [
        {"values": cell["values"], "outputs": {r: held[k] for r, k in cell["roles"].items() if k in held}}
        for cell in report.manifest["variants"]
    ]
    if report.manifest["stage"].startswith("selfmoa/"):
        return loop.parts(variants)
    return w2s.parts(variants, report.parameters["task"])


def html(name: str, shown: Sequence[Part], stages: Mapping[str, Mapping[str, Any]], *, redacted: bool) -> str:
    """The page. stages: key -> what is said of a stage (stage, key, page, place, command). redacted: texts are left out."""
    pool = Pool()
    lists = _packed(shown, pool, {key: k for k, key in enumerate(stages)})
    meta = {"name": name, "redacted": redacted, "fingerprint": _fingerprint(pool.texts)}
    meta["unlock"] = f".venv/bin/underseer rows {name} --show-unsafe"
    texts = {"words": [len(text.split()) for text in pool.texts]} if redacted else joined(pool.texts)
    data = {"meta": meta, "parts": lists, "stages": list(stages.values()), "texts": texts}
    script = (HERE / "viewer.js").read_text(encoding="utf-8")
    values = {"meta": meta, "script": script, "css": (HERE / "viewer.css").read_text(encoding="utf-8")}
    values["hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values["data"] = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )
    return templates(HERE).get_template("page.html.j2").render(values)


def joined(texts: Sequence[str]) -> dict[str, Any]:
    """Texts as one, each behind a separator, with their lengths in UTF-16 units: a browser reads and searches one long text faster."""
    return {
        "joined": "".join(f"\x1f{text}" for text in texts),
        "lengths": [len(t.encode("utf-16-le", "surrogatepass")) // 2 for t in texts],
    }


def _packed(shown: Sequence[Part], pool: Pool, stages: Mapping[str, int]) -> list[dict[str, Any]]:
    return [packed(part, pool, stages) for part in shown]


def _fingerprint(texts: Sequence[str]) -> str:
    """What tells the texts of one page from those of another, without giving any away."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def outputs(report: store.Output) -> dict[str, store.Output]:
    """By key, the stages that a report reads, and the supervisors behind its weak labels, as far as they are in the store."""
    read = {o.key: o for role in report.manifest["inputs"] for o in inputs(report, role)}
    behind = {s.key: s for o in read.values() for s in inputs(o, "supervisors")}
    return read | behind
