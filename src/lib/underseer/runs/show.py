"""What the command line shows: tables of experiments and of stage instances, and what was logged to MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from underseer import paths, progress, store
from underseer.runs import watch
from underseer.runs.console import say
from underseer.runs.plan import Instance, Plan


def counts(failed: list[dict[str, str]]) -> dict[str, list[int]]:
    """By stage, how many instances of the store are done, run now, and failed when they were last executed."""
    rows: dict[str, list[int]] = {}
    for output in store.outputs():
        rows.setdefault("/".join(output.path.parts[-3:-1]), [0, 0, 0])[0] += 1
    for folder in paths.runs().glob("*/*/.work-*"):
        rows.setdefault("/".join(folder.parts[-3:-1]), [0, 0, 0])[1] += store.is_working(folder)
    for one in failed:
        rows.setdefault(one["stage"], [0, 0, 0])[2] += 1
    return rows


def by_stage(rows: Mapping[str, list[int]]) -> Table:
    """What ``counts`` counted, a row a stage."""
    table = Table("stage", "done", "running", "failed", box=None, pad_edge=False)
    for stage, row in sorted(rows.items()):
        table.add_row(stage, *(str(n or "") for n in row))
    return table


def working() -> dict[str, str]:
    """By ``stage key``, how far each stage instance has come that runs now."""
    folders = [f for f in paths.runs().glob("*/*/.work-*") if store.is_working(f)]
    names = [f"{'/'.join(f.parts[-3:-1])} {f.name.removeprefix('.work-')}" for f in folders]
    return {name: progress.line(progress.read(f)) for name, f in zip(names, folders, strict=True)}


def by_experiment(plans: list[Plan], at_work: Mapping[str, str], failed: list[dict[str, str]]) -> Table:
    """A row an experiment as it was last run: stages done, running, failed and left, and the time left at the pace of now.

    The time stands where something runs and each stage that is left has been run in this store before.
    """
    table = Table("experiment", "done", "running", "failed", "left", "time left", box=None, pad_edge=False)
    running, lost = {name.split()[1] for name in at_work}, {one["key"] for one in failed}
    usual = watch.seconds_by_stage() if running else {}
    for plan in plans:
        left = plan.missing()
        keys = {i.key for i in left}
        now = len(keys & running)
        seconds = watch.time_left(left, usual, {}, max(len(running), 1)) if now else None
        done = sum(i.cached for i in plan.instances.values())
        counts = (done, now, len(keys & lost), len(keys) - now)
        clock = "" if seconds is None else f"about {progress.clock(seconds)}"
        table.add_row(plan.name, *(str(n or "") for n in counts), clock)
    return table


def instances(planned: list[Instance], title: str) -> Table:
    """One row an instance, with the parameters in which the instances of its stage differ."""
    table = Table("stage", "key", "cached", "parameters", box=None, pad_edge=False, title=title, title_justify="left")
    shared = _shared(planned)
    for i in planned:
        own = ", ".join(f"{k}={v}" for k, v in i.parameters.items() if k not in shared.get(i.stage, ()))
        table.add_row(i.stage, i.key, "yes" if i.cached else "no", own)
    return table


def _shared(planned: list[Instance]) -> dict[str, set[str]]:
    """By stage, the parameters that have the same value in all its instances: not worth a column."""
    seen: dict[str, dict[str, set[str]]] = {}
    for i in planned:
        for name, value in i.parameters.items():
            seen.setdefault(i.stage, {}).setdefault(name, set()).add(repr(value))
    return {stage: {n for n, values in names.items() if len(values) == 1} for stage, names in seen.items()}


def synced(plans: list[Plan], console: Console, errors: Console, *, force: bool = False) -> bool:
    """Log to MLflow what it misses; False, and a line that says so, when MLflow cannot be reached. ``force``: look into MLflow also
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
            f"MLflow is away ({error}); everything is on disk, `.venv/bin/underseer sync` logs it later",
            markup=False,
            soft_wrap=True,
        )
        return False
    return True


def places(plans: Iterable[Plan]) -> None:
    """Say where the reports of finished plans stand, and MLflow."""
    for plan in plans:
        say(f"  report: {paths.shown(paths.home() / 'reports' / plan.name / 'index.html')}")
    say("  MLflow: make mlflow")


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
