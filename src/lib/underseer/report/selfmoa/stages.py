"""The stages of the loop in order, and which rows of results.json belong to one run of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from underseer.report import wording as w
from underseer.report.names import iteration, rounds
from underseer.selfmoa.checks import BASELINES, CONTROLS

ATTACKS = "every attack set"
"""Name of the answers to all attack sets together, held-out ones too."""

Results = Mapping[str, Any]
Row = Mapping[str, Any]


def order(method: str) -> tuple[int, int, str]:
    """Where a method stands: aligned model, reset, iterates, controls with their iterates, baselines, others."""
    if method in ("aligned", "reset"):
        return (0, int(method == "reset"), "")
    if (k := iteration(method)) is not None:
        return (1, k, "")
    name, known = (rounds(method) or (method, 0))[0], CONTROLS + BASELINES
    return (2, known.index(name) if name in known else len(known), method)


def last_control(method: str, methods: Iterable[str]) -> bool:
    """Whether a method is a control, and of a control with iterates the last one among ``methods``."""
    iterate = rounds(method)
    if iterate is None:
        return method in CONTROLS
    own = [k for name, k in filter(None, map(rounds, methods)) if name == iterate[0]]
    return iterate[0] in CONTROLS and iterate[1] == max(own, default=iterate[1])


def stage_name(method: str) -> str:
    """Short name of a stage, for an axis: 'Aligned', 'Reset', 'Iter. 2'."""
    k = iteration(method)
    return {"aligned": "Aligned", "reset": "Reset"}.get(method, f"Iter. {k}" if k is not None else method)


@dataclass(frozen=True)
class Line:
    """One run of the loop (all seeds): its variant, a name where there are several, and its rows by method."""

    variant: Mapping[str, Any]
    name: str
    rows: Mapping[str, Row]

    @property
    def last(self) -> str | None:
        """The last iterate, or None where there is none."""
        iterates = [m for m in self.rows if iteration(m) is not None]
        return max(iterates, key=order) if iterates else None


def loops(results: Results) -> list[Mapping[str, Any]]:
    """The variants of the loop, in order; one that only holds fewer keys than another is part of it."""
    variants = list({repr(r["variant"]): r["variant"] for r in results["rows"] if iteration(r["method"])}.values())
    return [v for v in variants if not any(v is not o and len(v) < len(o) and _within(v, o) for o in variants)]


def _within(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(k in whole and whole[k] == v for k, v in part.items())


def agrees(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two variants have the same values where both have one."""
    return all(other.get(k, v) == v for k, v in one.items())


def lines(results: Results, rows: Sequence[Row]) -> list[Line]:
    """The runs of the loop among rows of one data set and metric: aligned model, reset, iterates; of several variants of a
    stage the one that agrees with the run. Without any iterate, the stages that there are."""
    staged = sorted((r for r in rows if order(r["method"])[0] < 2), key=lambda r: order(r["method"]))
    variants = loops(results) or [{}]
    names = w.row_names([{"method": "selfmoa", "variant": v} for v in variants])
    runs = []
    for variant, name in zip(variants, names, strict=True):
        by_method: dict[str, Row] = {}
        for row in staged:
            held = by_method.get(row["method"])
            if _within(row["variant"], variant) and (held is None or len(row["variant"]) > len(held["variant"])):
                by_method[row["method"]] = row
        if by_method:
            runs.append(Line(variant, name.partition("(")[2].rstrip(")"), by_method))
    return runs


def trusted(results: Results, line: Line) -> dict[str, Row]:
    """The training judge against the reporting judge on all attacks together, at each stage of a run of the loop."""
    rows = [r for r in results.get("judges_by_stage") or [] if r["dataset"] == ATTACKS]
    by_key = {(r["method"], repr(r["variant"])): r for r in rows}
    keys = {method: (method, repr(held["variant"])) for method, held in line.rows.items()}
    return {method: by_key[key] for method, key in keys.items() if key in by_key}


def of_role(results: Results, role: str) -> list[str]:
    """Data sets of a role, those held out last."""
    return [s["dataset"] for s in results["sets"] if s["role"] == role]


def main_of(results: Results, role: str) -> str | None:
    """The data set that stands for a role: the mean over attack sets where there is one, else the first of the role."""
    if role == "attack":
        return w.main_dataset(results)
    return next(iter(of_role(results, role)), None)


def rows_of(results: Results, dataset: str | None, metric: str) -> list[Row]:
    """Rows of one data set and metric that have a value."""
    rows = w.pick(results["rows"], dataset=dataset, metric=metric) if dataset else []
    return [r for r in rows if r["mean"] is not None]
