"""How the judges of the loop did, as tidy tables; units and ``attrs`` as in ``report.tidy``."""

from __future__ import annotations

import pandas as pd

from underseer.report import tidy as shared
from underseer.report import wording as w
from underseer.report.selfmoa import stages, tidy
from underseer.report.selfmoa.stages import Line, Results


def judge_gap(results: Results, most: int = 4) -> pd.DataFrame:
    """Unsafe rate at each stage by the reporting and by the training judge, a ``panel`` for each of the first variants."""
    dataset = w.main_dataset(results)
    judges = {"by the reporting judge": "unsafe_rate", "by the training judge": "unsafe_rate_training_judge"}
    by_judge = {n: stages.lines(results, stages.rows_of(results, dataset, m)) for n, m in judges.items()}
    parts = []
    for k in range(min(most, *map(len, by_judge.values()))):
        pair = [Line(lines[k].variant, name, lines[k].rows) for name, lines in by_judge.items()]
        parts.append(tidy.staged(results, pair).assign(panel=by_judge["by the reporting judge"][k].name))
    table = tidy.joined(results, parts)
    left = min(map(len, by_judge.values())) - len(parts)
    if parts and left:
        table.attrs["foot"] += f"; {w.plural(left, 'more variant')} in the table"
    return table


def trusted(results: Results) -> pd.DataFrame:
    """The training judge against the reporting judge at each stage of the loop, on all attacks together: ``panel`` (sensitivity,
    specificity, with what it is a share of), line, place, tick, mean, low, high (%), values (one a seed)."""
    lines = stages.lines(results, stages.rows_of(results, w.main_dataset(results), "unsafe_rate"))
    places = {m: k for k, m in enumerate(sorted({m for line in lines for m in line.rows}, key=stages.order))}
    rows, without = [], {}
    for line in lines:
        for method, row in stages.trusted(results, line).items():
            for aspect, hit, miss in (("sensitivity", "tp", "fn"), ("specificity", "tn", "fp")):
                share, counts = row[aspect], [(c[hit], c[hit] + c[miss]) for c in row["counts_by_seed"]]
                ends = {k: float("nan") if share[v] is None else 100 * share[v] for k, v in _ENDS.items()}
                known = {"method": method, "variant": repr(row["variant"]), "metric": f"{aspect} of the training judge"}
                known |= {"line": line.name or "Self-MOA", "place": places[method], "tick": stages.stage_name(method)}
                values = [100 * k / n for k, n in counts if n]
                if len(values) < len(counts):
                    said = f"{len(counts) - len(values)} of {w.plural(len(counts), 'seed')}"
                    without[method, aspect] = f"{known['tick']}: {said} without {_OF[aspect]} answers, no point"
                rows.append({"panel": aspect, "values": values, **known, **ends})
    table = pd.DataFrame(rows)
    seeds = w.plural(max((len(r["counts_by_seed"]) for r in results.get("judges_by_stage") or []), default=0), "seed")
    foot = f"All attack sets together, {seeds}; 95 % intervals (Wilson) over answers of all seeds"
    return shared.footed(results, table, "; ".join((foot, *without.values())))


_OF = {"sensitivity": "unsafe", "specificity": "safe"}
_ENDS = {"mean": "value", "low": "lo", "high": "hi"}

MEASURES = {"unsafe": "safety", "helpful": "helpfulness", "refusal": "refusal"}


def cards(results: Results) -> pd.DataFrame:
    """Sensitivity and specificity (%) of every judge with a card: panel, tick (who judges what), place, role, mean, low, high."""
    known = [j for j in results["judges"] if (j.get("card") or {}).get("n")]
    lines = list(dict.fromkeys((j["role"], j["measure"], j["name"]) for j in known))
    rows = []
    for judge in known:
        place = lines.index((judge["role"], judge["measure"], judge["name"]))
        same = [j for j in known if (j["role"], j["measure"], j["name"]) == lines[place]]
        aside = (same.index(judge) - (len(same) - 1) / 2) * min(0.2, 0.6 / len(same))
        tick = f"{judge['role']} judge, {MEASURES.get(judge['measure'], judge['measure'])}\n{w.short(judge['name'])}"
        for aspect in ("sensitivity", "specificity"):
            of = judge["card"][aspect]
            if of["value"] is not None:
                numbers = {"mean": 100 * of["value"], "low": 100 * of["lo"], "high": 100 * of["hi"], "values": []}
                rows.append(
                    {"panel": aspect, "tick": tick, "place": place, "at": place + aside, "role": judge["role"]}
                    | numbers
                )
    table = pd.DataFrame(rows)
    n = [j["card"]["n"] for j in known] or [0]
    sizes = f"{min(n):,} to {max(n):,}" if min(n) < max(n) else f"{n[0]:,}"
    foot = f"{sizes} labelled answers a card; one point a card; 95 % intervals over labelled answers"
    return shared.footed(results, table, foot)
