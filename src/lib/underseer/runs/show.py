"""Tables of stage instances on the terminal."""

from __future__ import annotations

from rich.table import Table

from underseer import paths, store
from underseer.runs.plan import Instance


def counts(failed: list[dict[str, str]]) -> dict[str, list[int]]:
    """By stage, how many instances of the store are done, run now, and failed when they were last executed."""
    rows: dict[str, list[int]] = {}
    for output in store.outputs():
        rows.setdefault(output.manifest["stage"], [0, 0, 0])[0] += 1
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
