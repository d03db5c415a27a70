"""The command line: run, plan, status, verify, promote, sync, report. Exit codes: 0 done, 1 a stage failed, 2 the input was wrong."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from underseer import paths, store
from underseer.errors import StageError, UserError, unreadable
from underseer.runs import cli_pages
from underseer.runs.warm import AVX2

if TYPE_CHECKING:
    from underseer.runs.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_pages.app)
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
Name = Annotated[
    str | None, typer.Option(help="Name of the report and of the MLflow experiment, after the file's own and '@'.")
]
Until = Annotated[
    list[str],
    typer.Option(metavar="STAGE[,..]", help="Run these stages, such as w2s/1_data, and what they need; no report."),
]


@app.callback()
def hold(
    cpu: Annotated[
        Literal["avx2"] | None,
        typer.Option(help="Compute as a CPU with these instructions alone does; a store of its own: avx2/."),
    ] = None,
) -> None:
    """Weak-to-strong generalisation and self-alignment from weak judges: experiments that are cheap to repeat, vary and trust."""
    if cpu:
        os.environ.update(AVX2 | {"UNDERSEER_HOME": str(paths.home() / cpu)})


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
    until: Until = [],  # noqa: B006
    name: Name = None,
) -> None:
    """Run what is missing of one or more experiments, then their reports; with --until, less."""
    from underseer.runs import show, workflow
    from underseer.runs.plan import merged

    started = time.monotonic()
    stages = [stage for text in until for stage in text.split(",")]
    plans = [_make(file, set_, rehearse=rehearse, until=stages, name=name) for file in dict.fromkeys(params)]
    missing = merged(plans).missing()
    _preflight(plans, profile)
    if dry_run:
        console.print(show.instances(missing, "would run"))
        return
    try:
        failed = workflow.run(plans, missing, jobs=jobs, profile=profile, console=console) if missing else []
    except KeyboardInterrupt:
        errors.print("stopped; the same command continues")
        raise typer.Exit(130) from None
    _close(plans, failed)
    console.print(f"done in {show.minutes(time.monotonic() - started)}" if missing else "nothing to do")
    for p in plans if not until else ():
        console.print(f"  report: {paths.shown(paths.home() / 'reports' / p.name / 'index.html')}", soft_wrap=True)
    console.print("  MLflow: make mlflow, then open http://127.0.0.1:5000", soft_wrap=True)


def _preflight(plans: list, profile: str | None) -> None:
    """Say what is to run, and look for what can be seen to be wrong before it does."""
    from underseer.runs import workflow
    from underseer.runs.preflight import preflight

    remarks: dict[str, None] = {}
    for p in plans:
        left = p.missing()
        counts = f"{len(p.variants)} variants, {len(p.instances)} stages, {len(p.instances) - len(left)} cached"
        scope = f"until {', '.join(p.until)}" if p.until else counts
        console.print(f"{p.name}: {scope}, {len(left)} to run")
        remarks |= dict.fromkeys(preflight(p, left, elsewhere=bool(workflow.profile_folder(profile)))) if left else {}
    for remark in remarks:
        console.print(remark, style="yellow", markup=False)


def _close(plans: list, failed: list[dict[str, str]]) -> None:
    """Publish the reports that are there, log to MLflow, and end with exit code 1 where something is left."""
    from underseer.runs import publish, show, workflow
    from underseer.runs.plan import merged

    for p in plans:
        if not p.until and p.report.cached and not publish.is_published(p):
            publish.publish(p)
        workflow.save(p)
    show.synced(plans, console, errors)
    left = merged(plans).missing()
    if failed or left:
        for one in failed:
            errors.print(
                f"failed: {one['stage']} {one['key']}: {one['problem']}\n  notebook: {one['notebook']}", markup=False
            )
        errors.print(f"{len(left)} stages left; the same command continues.")
        raise typer.Exit(1)


@app.command()
def plan(
    params: Params,
    set_: Set = [],  # noqa: B006
    json_: Annotated[
        bool, typer.Option("--json", help="Machine-readable: key, stage, parameters, inputs, cached.")
    ] = False,
) -> None:
    """Show the stage instances of an experiment, and which are cached."""
    from underseer.runs import show

    made = _make(params, set_)
    if json_:
        import json

        rows = [
            {"key": i.key, "stage": i.stage, "parameters": i.parameters, "inputs": i.inputs, "cached": i.cached}
            for i in made.instances.values()
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    console.print(show.instances(list(made.instances.values()), "plan"))


@app.command()
def status() -> None:
    """Show what has run, what runs now, and what failed and where its notebook is."""
    from underseer.runs import show, workflow

    failed = workflow.failures()
    counts = show.counts(failed)
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
    count, damaged = store.verify(path.resolve() if path else None)
    for line in damaged:
        errors.print(line, markup=False, soft_wrap=True)
    if damaged:
        errors.print("Delete the folders named above and run the experiment again: only they are made anew.")
        raise typer.Exit(1)
    console.print(f"{count} stage outputs verified, all as their manifests say")


@app.command()
def promote(
    folder: Annotated[
        Path, typer.Argument(metavar="SCRATCH_FOLDER", help="An exploratory result: scratch/w2s/4_student/DATE-TIME.")
    ],
) -> None:
    """Keep an exploratory result: execute the saved notebook with its parameters under a key of its own.

    Says what differs and keeps nothing (exit code 2) where other cells ran than the saved notebook's, where the library or
    an input has changed, or where an input is exploratory itself.
    """
    from underseer.runs import promote as promotion

    output, there = promotion.promote(folder)
    console.print(f"{'already promoted' if there else 'promoted'}: {paths.shown(output.path)}", soft_wrap=True)


@app.command()
def sync() -> None:
    """Log to MLflow what it missed."""
    from underseer.runs import show, workflow

    plans = workflow.saved()
    if not plans:
        console.print("nothing to log: no experiment has run in this store")
    elif not show.synced(plans, console, errors, force=True):
        raise typer.Exit(1)


def _make(
    params: Path, set_: list[str], *, rehearse: bool = False, until: Sequence[str] = (), name: str | None = None
) -> Plan:
    from underseer.runs import plan as planning
    from underseer.runs.params import load

    try:
        experiment = load(params, set_, name)
        if rehearse:
            from underseer.runs import rehearsal

            experiment = rehearsal.prepare(experiment)
        return planning.make(experiment, until)
    except OSError as error:
        raise UserError(unreadable(error)) from None


def _terminated(number: int, _: object) -> NoReturn:
    """End as after a Ctrl-C; the argument says that the other processes have not seen it."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> None:
    """Entry point: a user's mistake is a message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        os.environ.update(paths.user())
        app(standalone_mode=True)
    except UserError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except (StageError, OSError) as error:
        errors.print(unreadable(error) if isinstance(error, OSError) else str(error), markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
