"""What both pipelines share where stored outputs of all variants become the tables that a report is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from underseer.store import Output

STEERING = frozenset({"seed", "iterations", "baselines"})
"""Keys that decide which models there are, not what one of them is: they make no variants of a method."""

Cell = Mapping[str, Any]
Variants = Sequence[Cell]
"""Each variant: its ``values`` of the grid, and by role its ``outputs``."""


class Run(Protocol):
    """The report's own stage: marks, costs and provenance of all that it rests on."""

    @property
    def synthetic(self) -> bool: ...
    def costs(self) -> dict[str, dict[str, Any]]: ...
    def provenance(self) -> dict[str, Any]: ...


def once(variants: Variants, role: str) -> Iterator[tuple[list[Cell], Output]]:
    """Each stage instance that fills a role once, after the variants that share it.

    Where a grid has fewer seeds than another, an instance of the seeds beyond them is in fewer variants; those that share the same
    instance of another seed come after its own, so that a key which decides nothing there does not seem to decide here.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in variants:
        if role in cell["outputs"]:
            groups.setdefault(cell["outputs"][role].key, []).append(cell)
    named: dict[str, list[Cell]] = {}
    for cells in groups.values():
        named.setdefault(variant_text(cells), []).extend(cells)
    for cells in groups.values():
        own = json.loads(variant_text(cells))
        shared = [
            cell
            for text, others in named.items()
            if (wider := json.loads(text)) != own
            and wider.items() <= own.items()
            and not _seeds(others) & _seeds(cells)
            for cell in others
        ]
        yield [*cells, *shared], cells[0]["outputs"][role]


def taught(variants: Variants) -> list[str]:
    """What the target learnt before the loop, in words; nothing where it is used as it comes."""
    outputs = [output for _, output in once(variants, "supervised")]
    n = sorted(int(output.metrics["n_answers"]) for output in outputs)
    named = " or ".join(sorted({output.parameters["supervised_dataset"].replace("+", " and ") for output in outputs}))
    of = f"{' to '.join(str(k) for k in dict.fromkeys(n[:1] + n[-1:]))} answers that were called safe or chosen ({named})"
    return [f"Before the loop the target learnt, for each seed, {of}."] if n else []


def objectives(cell: Cell, method: str) -> dict[str, Any]:
    """What orders a method's pairs and how the objectives are weighted, where it learns from pairs."""
    aligned = cell["outputs"].get(f"align_{method}")
    given = aligned.parameters if aligned else {}
    return {name: given[name] for name in ("ordering", "objective_weights") if given.get(name)}


def _seeds(cells: Sequence[Cell]) -> set[Any]:
    return {cell["values"].get("seed") for cell in cells}


def variant_text(cells: Sequence[Cell], **fixed: Any) -> str:
    """The keys of the grid that decide a stage instance (those that all its variants share, but STEERING), as JSON. fixed: values
    that a key has whatever the variants say, where they have it."""
    first = cells[0]["values"]
    own = {k: v for k, v in first.items() if all(c["values"].get(k) == v for c in cells)}
    own |= {k: v for k, v in fixed.items() if k in first}
    return json.dumps({k: v for k, v in own.items() if k not in STEERING}, sort_keys=True)


def with_intervals(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, float | None]:
    """Means under their names, beside ``<name>.ci95_low``, ``<name>.ci95_high`` and ``n_seeds``, for MLflow."""
    numbers: dict[str, float | None] = {}
    for name, row in rows:
        low, high = row["ci95"] or (None, None)
        numbers |= {name: row["mean"], f"{name}.ci95_low": low, f"{name}.ci95_high": high, "n_seeds": len(row["seeds"])}
    return numbers


def by_configuration(cells: Sequence[tuple[Cell, int, list[tuple[str, Mapping[str, Any]]]]]) -> dict[str, Any]:
    """Final numbers by variant (one seed) and by configuration (all its seeds), under the same names, for MLflow.

    cells: each variant with its seed and its rows of results.json by name; the intervals are those of the report.
    """
    by_variant, configurations = [], {}
    for cell, seed, rows in cells:
        values = cell["values"]
        metrics = {n: r["values"][r["seeds"].index(seed)] for n, r in rows if seed in r["seeds"]}
        by_variant.append({"values": values, "metrics": metrics})
        configuration = {k: v for k, v in values.items() if k != "seed"}
        key = json.dumps(configuration, sort_keys=True)
        configurations.setdefault(key, {"values": configuration, "metrics": with_intervals(rows)})
    return {"variants": by_variant, "configurations": list(configurations.values())}
