"""Publish the report of a finished plan in ``reports/<name>/``, or render a stored one once more."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from underseer import paths, store
from underseer.errors import UserError
from underseer.runs import names
from underseer.runs.plan import Plan

FILES = ("results.json", "notebook.ipynb")
"""What stands beside a published page."""
READ = (".parquet", ".json", ".ipynb")
"""Endings of the files of stages that the page of rows shows: their models may have been removed."""


def publish(plan: Plan) -> Path:
    """Put the report that a finished plan made into ``reports/<name>/``; returns its folder."""
    output = store.Output(plan.report.place)
    check(output)
    return _place(plan.name, lambda fresh: _fill(output, fresh), output)


def publish_made(plans: Iterable[Plan]) -> None:
    """Publish the reports of plans that are made and not published."""
    for plan in plans:
        if not plan.until and plan.report.cached and not is_published(plan):
            publish(plan)


def write(output: store.Output, folder: Path) -> None:
    """Write a finished report into a folder, its page from the executed notebook: no unsafe text is in it. Raises UserError as ``check``."""
    check(output)
    _copy(output, folder)
    _fill(output, folder)


def check(report: store.Output, *artefacts: store.Output) -> None:
    """Compare a report, ``artefacts`` and what the page of rows shows with their manifests, before any of it is shown or handed on.

    Raises:
        UserError: what is damaged, and the command that makes it anew.
    """
    from underseer.look import viewer

    whole = dict.fromkeys((report, *artefacts), ("",))
    for output, endings in (whole | {o: READ for o in viewer.outputs(report).values() if o not in whole}).items():
        if lines := store.damage(output, endings):
            place = shlex.quote(paths.shown(output.path))
            until = "" if output is report else f" --until {'/'.join(output.path.parts[-3:-1])}"
            raise UserError(f"{lines[0]}; remove it (rm -r {place}) and make it anew: {command(report)}{until}")


def _copy(output: store.Output, folder: Path) -> None:
    """Copy what stands beside a page, content alone: what the store holds is read-only, and a published report may be edited."""
    for file in FILES:
        if (output.path / file).is_file():
            shutil.copyfile(output.path / file, folder / file)


def _fill(output: store.Output, folder: Path) -> None:
    """Write figures, tables and page into a folder that holds FILES."""
    import nbformat

    from underseer.report import page

    shutil.copytree(output.file("report"), folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    page.write(nbformat.read(output.file("notebook.ipynb"), 4), folder)


def republish(output: store.Output, name: str, *, unsafe: bool = False) -> Path:
    """Render tables, figures and pages once more, from a stored ``results.json`` alone, by the report's notebook as it is now; with the
    ``unsafe`` texts too where they are asked for."""
    check(output)
    shown = _texts(output) if unsafe else None
    return _place(name, lambda fresh: render(output.file("results.json"), fresh, shown), output)


def browse(name: str, *, texts: bool = False) -> tuple[Path, Path | None]:
    """Rebuild the page of an experiment's rows beside its report; returns it and, with ``texts``, the file of texts that it asks for."""
    from underseer.look import viewer

    output = newest_report(name)
    check(output)
    folder = paths.home() / "reports" / name
    folder.mkdir(parents=True, exist_ok=True)
    return viewer.write(output, folder, command(output)), viewer.unlock(output) if texts else None


def command(report: store.Output) -> str:
    """The command that makes the experiment of a report, or beside which a report was explored, as it was typed."""
    manifest = report.manifest
    if report.is_scratch:
        sets = names.sets({key: json.dumps(value) for key, value in manifest["set"].items()})
        return names.command(shlex.join([manifest["experiment"], *sets]))
    return names.command(manifest.get("options") or names.read(report.parameters["name"]))


def render(results_json: Path, folder: Path, texts: dict[str, str] | None = None) -> Path:
    """Write a report from results.json alone into a folder, by the cells of the report's notebook as it is now; returns the folder."""
    from underseer.report import page
    from underseer.runs.pipelines import REPORTS

    results = json.loads(results_json.read_text(encoding="utf-8"))
    notebook = paths.ROOT / "notebooks" / f"{REPORTS[results['pipeline']]}.ipynb"
    page.render(notebook, results, folder, texts)
    return folder


def explore(explored: store.Output) -> Path:
    """Render an exploratory report inside its own folder, with the page of its rows; returns the folder."""
    from underseer.look import viewer

    folder = render(explored.file("results.json"), explored.path / "report")
    viewer.write(explored, folder, command(explored))
    return folder


def _place(name: str, fill: Callable[[Path], object], output: store.Output) -> Path:
    """Fill ``reports/<name>/`` anew and whole, with the page of its rows, and rebuild the page that leads to all of its profile."""
    from underseer.look import viewer

    folder = paths.home() / "reports" / name
    with store.replacing(folder) as fresh:
        _copy(output, fresh)
        fill(fresh)
        viewer.write(output, fresh, command(output))
    write_index(name.split("/")[0])
    return folder


def write_index(profile: str, running: Sequence[str] = ()) -> None:
    """Rebuild the page that leads to all reports of a profile; ``running``: a line for each experiment that still runs."""
    from underseer.report import page

    page.write_index(paths.home() / "reports", profile, running)


def explored(name: str) -> store.Output | None:
    """The exploratory report in a folder of the store; None where there is none. A keyed one is never rendered in its place."""
    output = store.Output(paths.home() / name)
    made = all((output.path / file).is_file() for file in (store.MANIFEST, "results.json"))
    return output if made and output.is_scratch else None


def newest_report(name: str) -> store.Output:
    """The newest finished report of an experiment; one that was promoted is of what was explored.

    Raises:
        UserError: when there is none.
    """
    reports = [o for o in store.outputs() if "name" in o.parameters and "promoted_from" not in o.manifest]
    named = [o for o in reports if o.parameters["name"] == name and (o.path / "results.json").is_file()]
    if not named:
        names = sorted({o.parameters["name"] for o in reports})
        there = f"there are {', '.join(names)}" if names else "none has run yet"
        raise UserError(
            f"{name}: no finished report of that name; {there}. Make it with: .venv/bin/underseer run params/{name.split('@')[0]}.yaml"
        )
    return max(named, key=lambda o: o.manifest["finished"])


def is_published(plan: Plan) -> bool:
    """Whether ``reports/<name>/`` shows the results of this very plan."""
    return shows(store.Output(plan.report.place), paths.home() / "reports" / plan.name)


def shows(report: store.Output, folder: Path) -> bool:
    """Whether the numbers of a published report are those of a finished one."""
    shown, made = folder / "results.json", report.path / "results.json"
    return shown.is_file() and made.is_file() and shown.read_bytes() == made.read_bytes()


def _texts(report: store.Output) -> dict[str, str]:
    """The test texts of a report's data, by id, unsafe ones too, and those of its case study; of the loop those of its case study alone,
    answers as well."""
    from underseer.report import case, collect_w2s
    from underseer.report import collect_selfmoa as loop

    results = json.loads(report.file("results.json").read_text(encoding="utf-8"))
    if results["pipeline"] == "selfmoa":
        return loop.case_texts(results["case_study"], loop.evaluated(report.manifest["variants"]))
    keys = [k for cell in report.manifest["variants"] for k in cell["roles"].values()]
    outputs = [o for k in dict.fromkeys(keys) if (o := store.read("w2s/1_data", k))]
    texts = {i: t for output in outputs for i, t in collect_w2s.test_texts(output).items()}
    continues = (results.get("case_study") or {}).get("kind") == "continuation"
    return texts | (case.case_texts(results["case_study"], report.table("predictions")) if texts and continues else {})
