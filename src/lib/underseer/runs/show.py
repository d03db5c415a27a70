"""What the command line shows: tables of experiments and of stage instances, and what was logged to MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.table import Table

from underseer import paths, progress, store
from underseer.runs import watch
from underseer.runs.console import say, table
from underseer.runs.plan import Instance, Plan


def by_stage(failed: list[dict[str, str]]) -> Table:
    """By stage, how many instances of the store are done, run now, and failed when they were last executed."""
    done = Counter("/".join(output.path.parts[-3:-1]) for output in store.outputs())
    now = Counter(stage for stage, _, _ in store.at_work())
    lost = Counter(one["stage"] for one in failed)
    rows = [(stage, done[stage], now[stage], lost[stage]) for stage in sorted({*done, *now, *lost})]
    return table(("stage", "done", "running", "failed"), rows)


def working() -> dict[str, str]:
    """By ``stage key``, how far each stage instance has come that runs now."""
    return {f"{stage} {key}": progress.line(progress.read(folder)) for stage, key, folder in store.at_work()}


def by_experiment(plans: list[Plan], at_work: Mapping[str, str], failed: list[dict[str, str]]) -> Table:
    """A row an experiment as it was last run: stages done, running, failed and left, and the time left at the pace of now.

    The time stands where something runs and each stage that is left has been run in this store before.
    """
    rows = []
    running, lost = {name.split()[1] for name in at_work}, {one["key"] for one in failed}
    usual = watch.seconds_by_stage() if running else {}
    for plan in plans:
        left = plan.missing()
        keys = {i.key for i in left}
        now = len(keys & running)
        seconds = watch.time_left(left, usual, {}, max(len(running), 1)) if now else None
        done = sum(i.cached for i in plan.instances.values())
        clock = "" if seconds is None else f"about {progress.clock(seconds)}"
        rows.append((plan.name, done, now, len(keys & lost), len(keys) - now, clock))
    return table(("experiment", "done", "running", "failed", "left", "time left"), rows)


def instances(planned: list[Instance], title: str) -> Table:
    """One row an instance, with the parameters in which the instances of its stage differ."""
    seen: dict[tuple[str, str], set[str]] = {}
    for i in planned:
        for name, value in i.parameters.items():
            seen.setdefault((i.stage, name), set()).add(repr(value))
    rows = []
    for i in planned:
        own = ", ".join(f"{name}={value}" for name, value in i.parameters.items() if len(seen[i.stage, name]) > 1)
        rows.append((i.stage, i.key, "yes" if i.cached else "no", own))
    return table(("stage", "key", "cached", "parameters"), rows, title=title)


def synced(plans: list[Plan], *, force: bool = False) -> bool:
    """Log to MLflow what it misses; False, and a line that says so, when MLflow cannot be reached. ``force``: look into MLflow also
    where this store's notes say that all was logged, since somebody may have deleted runs there."""
    from underseer.runs import tracking

    pending = [p for p in plans if force or not tracking.is_logged(p)]
    if not pending:
        return True
    try:
        for one in pending:
            logged = tracking.sync(one)
            told = f": {logged} runs logged" if logged or not force else " holds all of it"
            say(f"MLflow: experiment {one.name}{told}")
    except tracking.Unreachable as error:
        later = "everything is on disk, `.venv/bin/underseer sync` logs it later"
        say(f"MLflow is away ({error}); {later}", failed=True)
        return False
    return True


def places(plans: Iterable[Plan]) -> None:
    """Say where the reports of finished plans stand, and MLflow."""
    for plan in plans:
        say(f"  report: {paths.shown(paths.home() / 'reports' / plan.name / 'index.html')}")
    say("  MLflow: make mlflow")


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
