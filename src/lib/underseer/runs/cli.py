"""The command line: run, plan, status, verify, sync, report. Exit codes: 0 done, 1 a stage failed, 2 the input was wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from underseer import paths
from underseer.errors import StageError, UserError

app = typer.Typer(
    help="Weak-to-strong generalisation and self-alignment from weak judges: experiments that are cheap to repeat, vary and trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Params = Annotated[
    Path, typer.Argument(metavar="PARAMS.yaml", help="An experiment file, such as params/demo/w2s_safety.yaml.")
]
Files = Annotated[
    list[Path],
    typer.Argument(metavar="PARAMS.yaml...", help="Experiment files, such as params/demo/*.yaml; they share stages."),
]
Set = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a parameter; a list makes it a variant axis. Repeatable."),
]


@app.command()
def run(
    params: Files,
    set_: Set = [],  # noqa: B006 (typer copies it)
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Stages at a time.", show_default="CPU cores")
    ] = os.cpu_count() or 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Check everything, show what would run, run nothing.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="Snakemake profile: a name in profiles/ (slurm), or a folder.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Tiny random models of the same architectures, a few rows, on the CPU.")
    ] = False,
) -> None:
    """Run what is missing of one or more experiments, then their reports."""
    from underseer.runs import publish, workflow
    from underseer.runs.plan import merged

    started = time.monotonic()
    plans = [_make(file, set_, rehearse=rehearse) for file in dict.fromkeys(params)]
    left = {p.name: p.missing() for p in plans}
    missing = merged(plans).missing()
    for p in plans:
        n = len(left[p.name])
        told = f"{len(p.variants)} variants, {len(p.instances)} stages, {len(p.instances) - n} cached, {n} to run"
        console.print(f"{p.name}: {told}")
    remarks = dict.fromkeys(r for p in plans if left[p.name] for r in workflow.preflight(p, left[p.name]))
    for remark in remarks:
        console.print(remark, style="yellow", markup=False)
    if dry_run:
        _print_plan(missing, "would run")
        return
    try:
        failed = workflow.run(plans, missing, jobs=jobs, profile=profile, console=console) if missing else []
    except KeyboardInterrupt:
        errors.print("stopped; the same command continues")
        raise typer.Exit(130) from None
    done = [p for p in plans if p.report.cached]
    for p in plans:
        if p in done and not publish.is_published(p):
            publish.publish(p)
        workflow.save(p)
    _sync(plans)
    if failed or done != plans:
        for one in failed:
            errors.print(
                f"failed: {one['stage']} {one['key']}: {one['problem']}\n  notebook: {one['notebook']}", markup=False
            )
        errors.print(f"{len(merged(plans).missing())} stages left; the same command continues.")
        raise typer.Exit(1)
    console.print(f"done in {_minutes(time.monotonic() - started)}" if missing else "nothing to do")
    for p in plans:
        console.print(f"  report: {paths.shown(paths.home() / 'reports' / p.name / 'index.html')}", soft_wrap=True)
    console.print("  MLflow: make mlflow, then open http://127.0.0.1:5000", soft_wrap=True)


@app.command()
def plan(
    params: Params,
    set_: Set = [],  # noqa: B006
    json_: Annotated[
        bool, typer.Option("--json", help="Machine-readable: key, stage, parameters, inputs, cached.")
    ] = False,
) -> None:
    """Show the stage instances of an experiment, and which are cached."""
    made = _make(params, set_)
    if json_:
        import json

        rows = [
            {"key": i.key, "stage": i.stage, "parameters": i.parameters, "inputs": i.inputs, "cached": i.cached}
            for i in made.instances.values()
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    _print_plan(list(made.instances.values()), "plan")


@app.command()
def status() -> None:
    """Show what has run, what runs now, and what failed and where its notebook is."""
    from underseer import store
    from underseer.runs import workflow

    counts: dict[str, list[int]] = {}
    for output in store.outputs():
        row = counts.setdefault(output.manifest["stage"], [0, 0, 0])
        row[0] += 1
    for folder in paths.runs().glob("*/*/.work-*"):
        row = counts.setdefault("/".join(folder.parts[-3:-1]), [0, 0, 0])
        row[1] += store.is_working(folder)
    failed = workflow.failures()
    for one in failed:
        counts.setdefault(one["stage"], [0, 0, 0])[2] += 1
    if not counts:
        console.print(
            f"nothing has run in {paths.shown(paths.runs())} yet; begin with: underseer run params/demo/w2s_safety.yaml"
        )
        return
    table = Table("stage", "done", "running", "failed", box=None, pad_edge=False)
    for stage, row in sorted(counts.items()):
        table.add_row(stage, *(str(n or "") for n in row))
    console.print(table)
    for one in failed:
        console.print(
            f"failed: {one['stage']} {one['key']}: {one['problem']}\n  notebook: {one['notebook']}",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def verify(
    path: Annotated[Path | None, typer.Argument(help="A folder of the run store; default: all of it.")] = None,
) -> None:
    """Recompute every checksum; name what is damaged; exit 1 if anything is."""
    from underseer import store

    count, damaged = store.verify(path.resolve() if path else None)
    for line in damaged:
        errors.print(line, markup=False, soft_wrap=True)
    if damaged:
        errors.print("Delete the folders named above and run the experiment again: only they are made anew.")
        raise typer.Exit(1)
    console.print(f"{count} stage outputs verified, all as their manifests say")


@app.command()
def sync() -> None:
    """Log to MLflow what it missed."""
    from underseer.runs import workflow

    plans = workflow.saved()
    if not plans:
        console.print("nothing to log: no experiment has run in this store")
    elif not _sync(plans, force=True):
        raise typer.Exit(1)


@app.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment's name, such as demo/w2s_safety.")],
    show_unsafe: Annotated[
        bool, typer.Option("--show-unsafe", help="Print unsafe texts instead of redacting them.")
    ] = False,
) -> None:
    """Rebuild tables, figures and pages without recomputing."""
    from underseer.runs import publish

    output = publish.newest_report(name)
    texts = None
    if show_unsafe:
        errors.print("warning: the report will show unsafe texts; do not publish it", style="yellow")
        texts = publish.texts(output)
    folder = publish.republish(output, name, texts=texts)
    console.print(f"report: {paths.shown(folder / 'index.html')}", soft_wrap=True)


def _make(params: Path, set_: list[str], *, rehearse: bool = False):
    from underseer.runs import plan as planning
    from underseer.runs.params import load

    experiment = load(params, set_)
    if rehearse:
        from underseer.runs import rehearsal

        experiment = rehearsal.prepare(experiment)
    return planning.make(experiment)


def _print_plan(instances: list, title: str) -> None:
    table = Table("stage", "key", "cached", "parameters", box=None, pad_edge=False, title=title, title_justify="left")
    shared = _shared(instances)
    for i in instances:
        own = ", ".join(f"{k}={v}" for k, v in i.parameters.items() if k not in shared.get(i.stage, ()))
        table.add_row(i.stage, i.key, "yes" if i.cached else "no", own)
    console.print(table)


def _shared(instances: list) -> dict[str, set[str]]:
    """By stage, the parameters that have the same value in all its instances: not worth a column."""
    seen: dict[str, dict[str, set[str]]] = {}
    for i in instances:
        for name, value in i.parameters.items():
            seen.setdefault(i.stage, {}).setdefault(name, set()).add(repr(value))
    return {stage: {n for n, values in names.items() if len(values) == 1} for stage, names in seen.items()}


def _sync(plans: list, *, force: bool = False) -> bool:
    """Log what MLflow misses; False, and a line that says so, when MLflow cannot be reached. ``force``: look into MLflow also
    where this store's notes say that all was logged, since somebody may have deleted runs there."""
    from underseer.runs import tracking

    pending = [p for p in plans if force or not tracking.is_logged(p)]
    if not pending:
        return True
    try:
        for one in pending:
            logged = tracking.sync(one)
            if logged or not force:
                console.print(f"MLflow: experiment {one.name}: {logged} runs logged")
            else:
                console.print(f"MLflow: experiment {one.name} holds all of it")
    except tracking.Unreachable as error:
        errors.print(
            f"MLflow is away ({error}); everything is on disk, `underseer sync` logs it later",
            markup=False,
            soft_wrap=True,
        )
        return False
    return True


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _terminated(number: int, _: object) -> NoReturn:
    """End as after a Ctrl-C; the argument says that the other processes have not seen it."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> None:
    """Entry point: a user's mistake is a message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app(standalone_mode=True)
    except UserError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except StageError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
