"""Commands about what one looks at and hands on: report, rows, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from underseer import paths
from underseer.runs.console import errors, say

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="An experiment's name, such as demo/selfmoa.")]


@app.command()
def report(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An experiment's name, such as demo/w2s_safety, or a scratch folder.")
    ],
    show_unsafe: Annotated[
        bool, typer.Option("--show-unsafe", help="Print unsafe texts instead of redacting them.")
    ] = False,
) -> None:
    """Rebuild tables, figures and pages without recomputing; of an exploratory report inside its scratch folder."""
    from underseer.runs import publish

    if not show_unsafe and (explored := publish.explored(name)):
        folder = publish.explore(explored)
        say(f"report: {paths.shown(folder / 'index.html')}")
        return
    output = publish.newest_report(name)
    if show_unsafe:
        errors.print("warning: the report will show unsafe texts; do not publish it", style="yellow")
    folder = publish.republish(output, name, unsafe=show_unsafe)
    say(f"report: {paths.shown(folder / 'index.html')}")


@app.command()
def rows(
    name: Name,
    show_unsafe: Annotated[
        bool, typer.Option("--show-unsafe", help="Write the texts too, which the page shows when it is given them.")
    ] = False,
) -> None:
    """Rebuild the page that browses every row behind a report: prompts, answers, verdicts, attacks, pairs."""
    from underseer.runs import publish

    page, texts = publish.browse(name, texts=show_unsafe)
    say(f"rows: {paths.shown(page)}")
    if texts:
        errors.print("warning: this file holds unsafe texts; do not hand it on", style="yellow")
        say(f"texts: {paths.shown(texts)} (press u on the page and choose it)")


@app.command()
def export(
    name: Name,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", readable=False, help="Where to; default: exports/NAME.")
    ] = None,
    artefacts: Annotated[
        list[str], typer.Option("--with", metavar="STAGE/KEY", help="Add this stage's outputs, models too. Repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
) -> None:
    """Make a folder for publication: report, figures, tables, parameters, lock, checksums, citation, RO-Crate, model card."""
    from underseer.runs import export as exporting

    folder, unsafe = exporting.export(name, to, artefacts)
    for one in unsafe:
        errors.print(f"warning: {one} is marked unsafe; it was asked for by name", style="yellow")
    say(f"exported: {paths.shown(folder)}")
