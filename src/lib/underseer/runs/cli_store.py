"""Commands that look into the store or keep it small: status, show, diff, open, logs, du, gc, verify."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from underseer import paths
from underseer.errors import UserError
from underseer.runs.console import console, say, table

app = typer.Typer()
Key = Annotated[str, typer.Argument(metavar="KEY", help="A result's key, its first characters, or a scratch folder.")]
MEGABYTE = 2**20


@app.command()
def status(
    stages: Annotated[bool, typer.Option("--stages", help="By stage instead of by experiment.")] = False,
) -> None:
    """Show by experiment what is done, what runs now with its progress and the time left, and what failed."""
    from underseer.runs import show, workflow

    failed = workflow.failures()
    counted = show.by_stage(failed)
    if not counted.rows:
        say(
            f"nothing has run in {paths.shown(paths.runs())} yet; "
            "begin with: .venv/bin/underseer run params/demo/w2s_safety.yaml"
        )
        return
    working = show.working()
    console.print(counted if stages else show.by_experiment(workflow.saved(), working, failed))
    for name, text in working.items():
        say(f"at work: {name} {text}")
    for one in failed:
        say(f"failed: {one['stage']} {one['key']}: {one['problem']}\n  notebook: {one['notebook']}")


@app.command()
def show(key: Key) -> None:
    """Show a result: its stage, parameters, inputs, metrics, cost and files."""
    from underseer.runs import housekeeping

    output = housekeeping.named(key)
    manifest = output.manifest
    say(f"{output.name}  {paths.shown(output.path)}")
    made = manifest["provenance"]
    say(f"made {manifest['finished']} at commit {(made['commit'] or 'none')[:12]} on {made['host']}")
    marks = [name for name, holds in manifest["marks"].items() if holds]
    say(f"marks: {', '.join(marks) or 'none'}")
    _values("parameters", manifest["parameters"])
    _values("inputs", {role: ", ".join(names) for role, names in manifest["inputs"].items()})
    _values("metrics", manifest["metrics"])
    _values("cost", manifest["cost"])
    _values("files", {name: f"{record['bytes']:,} bytes" for name, record in manifest["files"].items()})


@app.command()
def diff(a: Key, b: Key) -> None:
    """Show how two results differ: parameters, inputs, code, data, metrics and cost."""
    from underseer.runs import housekeeping

    one, other = housekeeping.named(a), housekeeping.named(b)
    parts = housekeeping.differences(one, other)
    for part, rows in parts.items():
        if rows:
            console.print(table((part, one.key, other.key), ((name, _text(x), _text(y)) for name, x, y in rows)))
        else:
            say(f"{part}: the same")
    code = housekeeping.code_diff(one, other) if one.manifest["stage"] == other.manifest["stage"] else ""
    if code:
        say(code)


@app.command("open")
def open_(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="An experiment, such as demo/w2s_safety: its page. A key: its notebook."),
    ],
    show_only: Annotated[bool, typer.Option("--print", help="Print the path and open nothing.")] = False,
) -> None:
    """Open an experiment's page, or the executed notebook of a key, and print its path."""
    from underseer.runs import housekeeping

    page = paths.home() / "reports" / name / "index.html"
    file = page if page.is_file() else housekeeping.executed(name)
    say(paths.shown(file))
    if not show_only:
        typer.launch(str(file))


@app.command()
def logs(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="An experiment: what its last run wrote. A key: what its cells printed."),
    ] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="The last lines to show.")] = 40,
) -> None:
    """Show what a stage printed, or what the last run's workflow wrote."""
    from underseer.runs import housekeeping

    folder = paths.plans() / name
    written = sorted(folder.glob("*.log") if name else folder.rglob("*.log"), key=lambda f: f.stat().st_mtime)
    if written:
        text, file = written[-1].read_text(encoding="utf-8", errors="replace").splitlines(), written[-1]
    elif name:
        file = housekeeping.executed(name)
        text = [line for part in housekeeping.printed(file) for line in part.splitlines()]
    else:
        raise UserError(f"no run has left a log in {paths.shown(paths.plans())} yet")
    say(f"{paths.shown(file)}:")
    say("\n".join(text[-lines:]))


@app.command()
def mlflow(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 in a container.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI of this store, and print the address of a view of each experiment."""
    from underseer.runs import tracking

    address = tracking.uri()
    served = address.startswith("http")
    base = address if served else f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    try:
        for name, view in tracking.views(base).items():
            say(f"{name}: {view}")
    except tracking.Unreachable as error:
        raise UserError(f"MLflow is away ({error}); run an experiment first, or look at MLFLOW_TRACKING_URI") from None
    if not served:
        ui = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
        os.execv(sys.executable, [*ui, "--backend-store-uri", address])


@app.command()
def du() -> None:
    """Show how much room results take, by stage and kind of file."""
    from underseer import store
    from underseer.runs import housekeeping

    sizes = housekeeping.sizes(store.outputs())
    columns = ("results", "models", "tables", "notebooks", "other")
    total = {column: sum(row[column] for row in sizes.values()) for column in columns}
    rows = []
    for stage, row in [*sorted(sizes.items()), ("runs/", total)]:
        held = [row[c] / MEGABYTE for c in columns[1:]]
        rows.append((stage, str(row["results"]), *(f"{n:.1f}" for n in (*held, sum(held)))))
    for name in (paths.SCRATCH, "reports", "mlartifacts", "mlflow.db"):
        place = paths.home() / name
        size = housekeeping.folder_bytes(place) if place.is_dir() else place.stat().st_size if place.is_file() else 0
        rows.append((f"{name}{'/' if place.is_dir() else ''}", *[""] * 5, f"{size / MEGABYTE:.1f}"))
    console.print(table(("stage", *columns, "MB"), rows, numbers=6))


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete it. Without this nothing is deleted.")] = False,
) -> None:
    """Find what no experiment file and no report reaches, and what failed or killed stages left; delete nothing unless told to."""
    from underseer.runs import housekeeping

    unreached = housekeeping.garbage()
    for line in unreached.unplanned:
        say(f"not planned, its results are kept only where a run saved its plan: {line}")
    for path in [*(output.path for output in unreached.results), *unreached.leavings]:
        say(f"  {paths.shown(path)}")
    size = (
        f"{len(unreached.results)} results and {len(unreached.leavings)} leavings, {unreached.bytes / MEGABYTE:.1f} MB"
    )
    if delete:
        housekeeping.remove(unreached)
        say(f"deleted: {size}")
    else:
        say(
            f"reached by nothing: {size}"
            + ("; delete it with: .venv/bin/underseer gc --delete" * (unreached.bytes > 0))
        )


@app.command()
def verify(
    path: Annotated[
        Path | None, typer.Argument(readable=False, help="A folder of the run store; default: all of it.")
    ] = None,
) -> None:
    """Recompute every checksum; name what is damaged; exit 1 if anything is."""
    from underseer import store

    count, damaged = store.verify(path.resolve() if path else None)
    if path and not count:
        there = f"give a folder of {paths.shown(paths.runs())}, or none for all of it"
        raise UserError(f"{path}: holds no finished result, nothing to verify; {there}")
    for line in damaged:
        say(line, failed=True)
    if damaged:
        say("Delete the folders named above and run the experiment again: only they are made anew.", failed=True)
        raise typer.Exit(1)
    say(f"{count} stage outputs verified, all as their manifests say")


def _values(title: str, values: dict[str, Any]) -> None:
    say(f"{title}:" + ("" if values else " none"))
    for name, value in values.items():
        say(f"  {name}: {_text(value)}")


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
