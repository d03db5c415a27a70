"""The page of a report: its notebook, executed, with what the cells show laid out by a template.

In the notebook, ``Page`` shows each figure and table and keeps it as files. ``write`` makes index.html of the executed notebook;
``render`` executes those cells of a notebook that need nothing but results.json, so that a report can be rebuilt without its stages.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import paths
from underseer.errors import StageError
from underseer.report import headline, links, paper, tables_case, tabulate
from underseer.report import wording as w
from underseer.report.drawing import set_style
from underseer.report.results import load_results, save_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent
STAGE = "stage"
"""Tag of the cells that are about the stage, not about the report: they need its inputs, and the page leaves them out."""
HIDDEN = {STAGE, "parameters", "injected-parameters"}
FOLDED = 40
"""Tables of more rows are folded on the page."""
FIRST = ("ablation", "safety_stages", "scores")
"""Figures for the first screen of the page: the first of these that there is."""
SLOT = "<!-- first screen -->"
"""Where the header leaves room for it: it needs figures that are drawn later."""


class Page:
    """What a report's notebook shows, kept in ``folder`` as tables/ (csv, md, tex) and figures/ (png, pdf, caption).

    texts: raw texts by id, given only where unsafe material is to be shown (continuations and answers by ``answer_key``): the page
    alone shows them, under a warning; the files stay redacted.
    """

    def __init__(self, results: Mapping[str, Any], folder: Path | str, texts: Mapping[str, str] | None = None) -> None:
        self.results, self.folder, self.texts = results, Path(folder), texts
        for name in ("tables", "figures"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        set_style()

    def header(self) -> None:
        """Title, marks, what was asked and what was found."""
        values = {"headline": headline.headline(self.results), "unsafe": bool(self.texts), "slot": SLOT, "links": links}
        _show("header", results=self.results, w=w, **values)

    def figure(self, figure: Figure | None, name: str, title: str, caption: str) -> None:
        """Show a figure and keep it by ``save_figure``; nothing where there is none.

        The caption is completed by what stands at the figure's foot: sample and intervals.
        """
        if figure is None:
            return
        foot = " ".join(figure.get_supxlabel().split()).removeprefix(w.foot_mark(self.results))
        caption = f"{caption} {w.capital(foot)}.{tabulate.mark(self.results)}"
        save_figure(figure, name, caption, self.folder / "figures")
        image = base64.b64encode((self.folder / "figures" / f"{name}.png").read_bytes()).decode()
        made = [f"{name}.png", *(f"{name}{end}.pdf" for end in paper.WIDTHS)]
        files = [file for file in made if (self.folder / "figures" / file).is_file()]
        _show("figure", files=files, title=title, caption=caption, image=image, rows=links.ROWS)

    def table(self, table: tabulate.Table | None) -> None:
        """Show a table and keep it as <name>.csv, .md and .tex; nothing where there is none."""
        if table is not None:
            tabulate.save(table, self.folder / "tables")
            self._table(table)

    def case_study(self) -> None:
        """Show the case study, its raw texts only where ``texts`` holds them; its files stay redacted."""
        table = tables_case.case_study(self.results)
        if table is not None:
            _show("quote", text=tables_case.prompt_text(self.results["case_study"], self.texts))
            tabulate.save(table, self.folder / "tables")
            self._table(tables_case.case_study(self.results, self.texts))

    def _table(self, table: tabulate.Table) -> None:
        origin = links.STAGES if table.name in ("cost", "efficiency") else links.ROWS
        _show("table", table=table, html=tabulate.html(table), folded=len(table.shown) > FOLDED, origin=origin)

    def provenance(self) -> None:
        """Where the numbers come from, and what the intervals cover."""
        facts = [(k.replace("_", " "), v, isinstance(v, Mapping | list)) for k, v in self.results["provenance"].items()]
        _show("provenance", interval=self.results["interval"], facts=facts, stages=links.STAGES)


def save_figure(figure: Figure, name: str, caption: str, folder: Path) -> None:
    """Write <name>.png (200 dots per inch), <name>.pdf (two columns of a paper wide), <name>_column.pdf (one) and <name>.txt (the
    caption). Files hold no date, so equal in, equal out."""
    figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    for end, width in paper.WIDTHS.items():
        if (printed := paper.fitted(figure, width)) is not None:
            printed.savefig(folder / f"{name}{end}.pdf", metadata={"CreationDate": None})
    (folder / f"{name}.txt").write_text(caption + "\n", encoding="utf-8")


@cache
def templates(folder: Path = TEMPLATES) -> Any:
    """The templates of a folder: strict, all values escaped, ``css`` known to each."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    known = Environment(loader=FileSystemLoader(folder), **options)
    known.filters |= {"pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False), "markdown": _markdown}
    known.globals["css"] = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return known


def _markdown(text: str) -> str:
    from underseer.report.markup import markdown  # takes seconds to import, and few pages need it

    return markdown(text)


def _show(part: str, **values: Any) -> None:
    """Show a part of the page (a macro of parts.html.j2, which escapes its values) as the output of a cell."""
    from IPython.display import HTML, display

    html = _part(part, **values)
    if html.strip():
        display(HTML(html))


def _part(part: str, **values: Any) -> str:
    return str(getattr(templates().get_template("parts.html.j2").module, part)(**values))


def write(notebook: NotebookNode, folder: Path) -> None:
    """Write index.html: the outputs of an executed notebook in sections, each cell's code folded; sections without output and cells
    tagged as the stage's are left out. Documents that the page leads to are written beside it."""
    opening, sections = [], []
    for cell in notebook.cells:
        if HIDDEN & set(cell.metadata.get("tags", ())):
            continue
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            title, _, text = cell.source.removeprefix("## ").partition("\n")
            sections.append({"title": title, "anchor": title.lower().replace(" ", "-"), "text": text, "cells": []})
        elif cell.cell_type == "code" and cell.outputs:
            (sections[-1]["cells"] if sections else opening).append(cell)
    results = load_results(folder / "results.json")
    values = {"opening": opening, "sections": [s for s in sections if s["cells"]]}
    values |= {"title": results["name"] + (" (exploratory)" if w.is_exploratory(results) else "")}
    values |= {"alone": w.is_exploratory(results), "notebook": (folder / "notebook.ipynb").is_file()}
    html = templates().get_template("page.html.j2").render(values)
    html = html.replace(SLOT, _first_screen(results, folder), 1)
    (folder / "index.html").write_text(html, encoding="utf-8")
    for file in links.documents(html):
        text = file.read_text(encoding="utf-8")
        document = templates().get_template("document.html.j2").render(name=file.stem, text=_markdown(text))
        (folder / "docs").mkdir(exist_ok=True)
        (folder / "docs" / f"{file.stem}.html").write_text(document, encoding="utf-8")


def _first_screen(results: Mapping[str, Any], folder: Path) -> str:
    """One figure, the three numbers that matter, one sentence."""
    sentence, numbers = headline.first_screen(results)
    name = next((n for n in FIRST if (folder / "figures" / f"{n}.png").is_file()), None)
    image = base64.b64encode((folder / "figures" / f"{name}.png").read_bytes()).decode() if name else None
    return _part("first_screen", sentence=sentence, numbers=numbers, image=image)


def render(notebook: Path, results: Mapping[str, Any], folder: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write tables/, figures/ and index.html into ``folder``: the notebook's cells that are not the stage's are executed on results.

    results.json is written where it is not there yet. texts: as of ``Page``. Raises StageError where a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "results.json").is_file():
        save_results(results, folder / "results.json")
    cells = nbformat.read(notebook, 4).cells
    kept = [c for c in cells if not HIDDEN & set(c.metadata.get("tags", ()))]
    with paths.temporary() as private:
        given = Path(private) / "given.json"
        given.write_text(json.dumps({"results": results, "folder": str(folder), "texts": texts}), encoding="utf-8")
        source = f"from underseer.report.page import opened\n\npage = opened({str(given)!r})\nresults = page.results"
        first = nbformat.v4.new_code_cell(source, metadata={"tags": [STAGE]})
        executed = nbformat.v4.new_notebook(cells=[first, *kept])
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{private}/kernel"}})
        client = NotebookClient(executed, config=sockets, resources={"metadata": {"path": str(paths.ROOT)}})
        try:
            client.execute()
        except CellExecutionError as error:
            raise StageError(
                f"{paths.shown(notebook)} failed on these results: {error.ename}: {error.evalue}"
            ) from None
    write(executed, folder)


def opened(given: str) -> Page:
    """The page that ``render`` asks a kernel to fill."""
    return Page(**json.loads(Path(given).read_text(encoding="utf-8")))


def write_index(reports: Path, profile: str, running: Sequence[str] = ()) -> None:
    """Write reports/<profile>/index.html, which leads to every experiment of a profile, and reports/index.html.

    running: a line for each experiment that still runs.
    """
    folder = Path(reports) / profile
    folder.mkdir(parents=True, exist_ok=True)
    files = [f for f in sorted(folder.glob("*/results.json")) if not f.parent.name.startswith(".")]
    entries = [_entry(f.parent, load_results(f), running) for f in files]
    rehearsal = [w.REHEARSAL] * bool(entries and all(w.is_rehearsal(e["results"]) for e in entries))
    synthetic = [w.SYNTHETIC] * bool(entries and all(e["results"]["synthetic"] for e in entries))
    title = f"Experiments of the profile {profile}"
    _index(folder, title, entries=entries, banners=[*rehearsal, *synthetic], profiles=[], running=running)
    write_top(reports)


def write_top(reports: Path) -> None:
    """Write reports/index.html, which leads to every profile that has a page."""
    profiles = sorted(p.parent.name for p in Path(reports).glob("*/index.html"))
    _index(Path(reports), "Reports", entries=[], banners=[], profiles=profiles, running=())


def _index(folder: Path, title: str, **values: Any) -> None:
    html = templates().get_template("index.html.j2").render(title=title, w=w, **values)
    (folder / "index.html").write_text(html, encoding="utf-8")


def _entry(folder: Path, results: Mapping[str, Any], running: Sequence[str]) -> dict[str, Any]:
    """An experiment as the page of its profile shows it."""
    sentence, numbers = headline.first_screen(results)
    pages = {"report": "index.html", "rows": links.ROWS, "stages": links.STAGES}
    return {
        "stem": folder.name,
        "results": results,
        "sentence": sentence,
        "numbers": numbers,
        "running": any(text.startswith(f"{results['name']}: ") for text in running),
        "pages": {text: page for text, page in pages.items() if (folder / page).is_file()},
    }
