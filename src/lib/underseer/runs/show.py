"""What the command line tells: tables of stage instances, and what was logged to MLflow."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from underseer import paths, store
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
            f"MLflow is away ({error}); everything is on disk, `underseer sync` logs it later",
            markup=False,
            soft_wrap=True,
        )
        return False
    return True


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
