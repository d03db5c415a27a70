"""The command line. Exit codes: 0 done, 1 a stage failed, 2 the input was wrong. Commands about the store: ``cli_store``."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from underseer import paths
from underseer.errors import StageError, UserError, unreadable
from underseer.runs import cli_pages, cli_store
from underseer.runs.console import console, say
from underseer.runs.warm import AVX2, CPU, SOCKET

if TYPE_CHECKING:
    from underseer.runs.launch import Profile
    from underseer.runs.plan import Plan

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cli_pages.app)
app.add_typer(cli_store.app)

# readable=False: reading it tells; asked beforehand, the system knows nothing of capabilities, by which containers read
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="PARAMS.yaml...",
        readable=False,
        help="Experiment files, or folders of them: params/demo. They share stages.",
    ),
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
    typer.Option(metavar="STAGE[,..]", help="Only these stages, such as w2s/1_data, and what they need; no report."),
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
        os.environ.pop(SOCKET, None)  # a warm process has imported torch with the instructions of its own
        os.environ.update(AVX2 | {CPU: cpu, "UNDERSEER_HOME": str(paths.home() / cpu)})


@app.command()
def run(
    params: Files,
    set_: Set = [],  # noqa: B006 (typer copies it)
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Stages at a time.", show_default="cores; on a GPU 1; the profile's"),
    ] = None,
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
    from underseer.runs import launch, show, workflow
    from underseer.runs.plan import merged

    started = time.monotonic()
    files = _files(params)
    say(f"planning {', '.join(paths.shown(file) for file in files)}")
    plans = [_make(file, set_, rehearse=rehearse, until=until, name=name) for file in files]
    missing = merged(plans).missing()
    opened = _preflight(plans, profile)
    if dry_run:
        console.print(show.instances(missing, "would run"))
        return
    launch.clear()
    try:
        failed = workflow.run(plans, missing, jobs, opened) if missing else []
    except KeyboardInterrupt as stop:
        _stopped(plans, by_hand=not stop.args)
    _close(plans, failed)
    say(f"done in {show.minutes(time.monotonic() - started)}" if missing else "nothing to do")
    show.places(() if until else plans)


def _files(given: Sequence[Path]) -> list[Path]:
    """Experiment files, each once; a folder stands for the experiment files in it."""
    files: dict[Path, None] = {}
    for path in given:
        inside = sorted(path.glob("*.yaml")) if os.path.isdir(path) else [path]
        if not inside:
            raise UserError(f"{paths.shown(path)}: holds no experiment file (*.yaml); `ls params` shows the folders")
        files |= dict.fromkeys(inside)
    return list(files)


def _stopped(plans: list, *, by_hand: bool) -> NoReturn:
    """After a Ctrl-C, log to MLflow what finished, unless there is a second one; after another signal end at once."""
    from underseer.runs import show

    say("stopped; the same command continues", failed=True)
    if by_hand and any(i.cached for p in plans for i in p.instances.values()):
        say("logging what finished to MLflow; Ctrl-C once more leaves that out", failed=True)
        with suppress(KeyboardInterrupt):
            show.synced(plans)
    raise typer.Exit(130)


def _preflight(plans: list, profile: str | None) -> Profile | None:
    """Say what is to run, and look for what can be seen to be wrong before it does; returns the profile by its name."""
    from underseer.runs import launch
    from underseer.runs.preflight import preflight

    opened = launch.open_profile(profile) if profile else None
    elsewhere = opened is not None and opened.is_cluster
    remarks: dict[str, None] = {}
    for p in plans:
        left = p.missing()
        counts = f"{len(p.variants)} variants, {len(p.instances)} stages, {len(p.instances) - len(left)} cached"
        scope = f"until {', '.join(p.until)}" if p.until else counts
        console.print(f"{p.name}: {scope}, {len(left)} to run")
        if left:
            say("  looking at its data, models and judges")
            remarks |= dict.fromkeys(preflight(p, left, elsewhere=elsewhere))
    for remark in remarks:
        console.print(remark, style="yellow", markup=False)
    return opened


def _close(plans: list, failed: list[dict[str, str]]) -> None:
    """Publish the reports that are there, log to MLflow, and end with exit code 1 where something is left."""
    from underseer.runs import publish, show, workflow
    from underseer.runs.plan import merged

    publish.publish_made(plans)
    for p in plans:
        workflow.save(p)
    show.synced(plans)
    left = merged(plans).missing()
    if failed or left:
        for one in failed:
            say(f"failed: {one['stage']} {one['key']}: {one['problem']}\n  notebook: {one['notebook']}", failed=True)
        say(f"{len(left)} stages left; the same command continues.", failed=True)
        raise typer.Exit(1)


@app.command()
def plan(
    params: Files,
    set_: Set = [],  # noqa: B006
    until: Until = [],  # noqa: B006
    json_: Annotated[
        bool, typer.Option("--json", help="Machine-readable: key, stage, parameters, inputs, cached.")
    ] = False,
    estimated: Annotated[bool, typer.Option("--estimate", help="What is left will cost, by what ran here.")] = False,
) -> None:
    """Show the stage instances of one or more experiments, and which are cached."""
    from underseer.runs import estimate, show
    from underseer.runs.plan import merged

    made = merged([_make(file, set_, until=until) for file in _files(params)])
    if estimated:
        console.print(estimate.table(estimate.estimate(made)) if made.missing() else "nothing to do")
        return
    if json_:
        import json

        rows = [
            {"key": i.key, "stage": i.stage, "parameters": i.parameters, "inputs": i.inputs, "cached": i.cached}
            for i in made.needed()
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    console.print(show.instances(made.needed(), "plan"))


@app.command()
def promote(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="SCRATCH_FOLDER", readable=False, help="An exploratory result: scratch/w2s/4_student/DATE-TIME."
        ),
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
    elif not show.synced(plans, force=True):
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
        return planning.make(experiment, [stage for text in until for stage in text.split(",")])
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
        say(str(error), failed=True)
        sys.exit(2)
    except (StageError, OSError) as error:
        say(unreadable(error) if isinstance(error, OSError) else str(error), failed=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
