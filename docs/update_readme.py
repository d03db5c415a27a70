"""Put the demo's figures and tables into README.md: run after ``make demo``, by ``make readme``.

Everything between the markers is generated; nothing there is typed by hand. README's headline numbers are kept in
readme_results.json too; ``--compare``, the end of ``make demo``, holds this machine's against them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from underseer import paths
from underseer.report import drawing, figures, tabulate, tidy
from underseer.report import wording as w
from underseer.report.names import iteration
from underseer.report.results import load_results
from underseer.report.selfmoa import figures as loop_figures
from underseer.report.selfmoa import stages
from underseer.report.selfmoa import tidy as loop_tidy
from underseer.report.tabulate import Table

ROOT = Path(__file__).resolve().parents[1]
REPORTS = paths.home() / "reports" / "demo"
NUMBERS = ROOT / "docs" / "readme_results.json"
TASKS = ("w2s_safety", "w2s_legal", "w2s_toxicity")
LOOP = "selfmoa"
HEADS = {
    "weak": "Weak supervisor",
    "w2s_naive": "Naive W2S",
    "votes": "W2S by vote",
    "strong_ceiling": "Strong ceiling",
}


def main() -> None:
    """Draw the figures, replace the tables."""
    tasks, loop = demo()
    drawing.set_style()
    figure(tasks).savefig(ROOT / "docs" / "demo.png", dpi=160, metadata={"Software": None})
    loop_figure(loop).savefig(ROOT / "docs" / "selfmoa.png", dpi=160, metadata={"Software": None})
    put({"demo": table(tasks), "selfmoa": loop_table(loop)})
    NUMBERS.write_text(json.dumps(headlines(tasks, loop), indent=1) + "\n", "utf-8")


def demo() -> tuple[list[dict], dict]:
    """The results of the three tasks, and of the loop."""
    missing = [name for name in (*TASKS, LOOP) if not (REPORTS / name / "results.json").is_file()]
    if missing:
        raise SystemExit(f"reports/demo/{missing[0]} has no results yet: run `make demo` first")
    return [load_results(REPORTS / n / "results.json") for n in TASKS], load_results(REPORTS / LOOP / "results.json")


def headlines(tasks: list[dict], loop: dict) -> list[dict]:
    """The numbers that README is about: name, metric, mean, ci95 (null: no finite interval)."""
    rows = []
    for results in tasks:
        rows += [(f"{results['task']}, {HEADS[r['method']]}", r) for r in scores(results) if r["method"] in HEADS]
        pgr = w.pick(results["pgr"], dataset=w.main_dataset(results), metric=w.primary(results))
        rows += [(f"{results['task']}, PGR, naive", {**r, "metric": "pgr"}) for r in pgr if r["method"] == "w2s_naive"]
    last = max((r["method"] for r in loop["rows"] if iteration(r["method"])), key=iteration)
    for dataset, metric, title in SHOWN:
        picked = [r for r in w.pick(loop["rows"], dataset=dataset, metric=metric) if r["method"] in ("reset", last)]
        rows += [(f"{w.method_name(r['method'])}, {title}", r) for r in picked]
    return [{"name": name, "metric": r["metric"], "mean": r["mean"], "ci95": r["ci95"]} for name, r in rows]


def compared(here: list[dict], readme: list[dict]) -> list[str]:
    """A line a headline number: README's and this machine's, and whether they agree, which is whether their intervals meet."""
    theirs, lines = {row["name"]: row for row in readme}, []
    for row in here:
        other = theirs.get(row["name"])
        if other is None:
            continue
        ends = [r["ci95"] for r in (row, other)]
        apart = all(ends) and (ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0])
        said = "cannot be said" if not all(ends) else "differ" if apart else "agree"
        texts = [w.with_interval(r, r["metric"]) for r in (other, row)]
        lines.append(f"{row['name']:<58} README {texts[0]:<22} here {texts[1]:<22} {said}")
    return lines


def compare() -> None:
    """Print this machine's numbers beside README's."""
    if not NUMBERS.is_file():
        raise SystemExit("docs/readme_results.json is missing: `make readme` writes it")
    lines = compared(headlines(*demo()), json.loads(NUMBERS.read_text("utf-8")))
    sys.stdout.write("\n".join(["", "Yours against README (they agree where their 95 % intervals meet):", *lines, ""]))


def put(blocks: dict[str, str]) -> None:
    """Put each text between its markers in README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        text = re.sub(f"{begin}.*{end}", lambda _, new=f"{begin}\n{block}\n{end}": new, text, flags=re.S)
    readme.write_text(text, "utf-8")


def scores(results: dict) -> list[dict]:
    """Rows of the primary metric on the whole test split."""
    return w.pick(results["rows"], dataset=w.main_dataset(results), metric=w.primary(results))


def figure(tasks: list[dict]):
    """A panel a task: every method's primary metric with its interval."""
    fig, axes = drawing.canvas(7.4, 6.0, rows=len(tasks))
    for ax, results in zip(axes[:, 0], tasks, strict=True):
        metric = w.primary(results)
        rows = tidy.scores(results)
        figures.forest(ax, rows)
        ax.set_xlabel(figures.axis_label(metric))
        ax.set_title(w.TASKS[results["task"]].rstrip("."))
    first = tidy.main_rows(tasks[0], w.primary(tasks[0]))
    first.attrs["foot"] = f"{w.foot_mark(tasks[0])}{seeds(*tasks)}; 95 % intervals over seeds and test items"
    return drawing.finish(fig, first)


def table(tasks: list[dict]) -> str:
    """A line a task: the primary metric of each method, and PGR of the naive student."""
    lines = []
    for results in tasks:
        metric = w.primary(results)
        rows = {r["method"]: r for r in scores(results)}
        votes = [m for m in rows if m not in HEADS]
        shown = {method: w.with_interval(rows[method], metric) for method in HEADS if method in rows}
        shown["votes"] = "; ".join(
            f"{w.method_name(m).removeprefix('W2S ')} {w.number(rows[m]['mean'], metric)}" for m in votes
        )
        pgr = w.pick(results["pgr"], dataset=w.main_dataset(results), metric=metric)
        unit = ", lower is better" if metric == "toxicity" else ", %"
        lines.append(
            {"Task": results["task"], "Metric": w.METRICS[metric] + unit}
            | {head: shown[method] for method, head in HEADS.items()}
            | {"PGR, naive": w.pgr_text(next(r for r in pgr if r["method"] == "w2s_naive"))}
        )
    return markdown(lines, f"Mean over {seeds(*tasks)} [95 % interval over seeds and test items].")


def seeds(*experiments: dict) -> str:
    """'5 to 6 seeds of the reporting set', as the results say."""
    given = [w.known_seeds(results) for results in experiments]
    least, most = (f(len(g["values"]) for g in given) for f in (min, max))
    number = w.plural(most, "seed") if least == most else f"{least} to {most} seeds"
    return number + (f" of the {given[0]['set']} set" if given[0]["set"] else "")


def markdown(lines: list[dict[str, str]], note: str) -> str:
    """A table of lines by heading, as reports write theirs."""
    shown = pd.DataFrame(lines)
    return tabulate.markdown(Table("", "", f"{note} {w.SYNTHETIC_SHORT}", shown, shown)).strip()


# What the loop's table shows: data set, metric, heading. Its figure shows the same, but helpfulness on attacks.
SHOWN = (
    ("attack", "unsafe_rate", "Unsafe answers to attacks, %"),
    ("held_out_attack", "unsafe_rate", "Unsafe, held-out attacks, %"),
    ("attack", "helpfulness", "Helpfulness on attacks"),
    ("safe", "helpfulness", "Helpfulness on safe prompts"),
    ("borderline", "over_refusal", "Over-refusal, borderline prompts, %"),
)


def loop_figure(results: dict):
    """The loop, stage by stage: safety, helpfulness and over-refusal."""
    fig, axes = drawing.canvas(7.4, 5.4, columns=2, rows=2)
    drawn = [s for s in SHOWN if s[:2] != ("attack", "helpfulness")]
    for ax, (dataset, metric, title) in zip(axes.ravel(), drawn, strict=True):
        rows = loop_tidy.of_dataset(results, dataset, metric)
        loop_figures.stages(ax, rows)
        ax.set_title(title, fontsize=9)
    return drawing.finish(fig, loop_tidy.of_dataset(results, *SHOWN[0][:2]))


def loop_table(results: dict) -> str:
    """A line a model: the aligned one, the reset one, each iterate and the baselines."""
    shown: dict[str, dict[str, str]] = {}
    for dataset, metric, title in SHOWN:
        for row in w.pick(results["rows"], dataset=dataset, metric=metric):
            shown.setdefault(row["method"], {})[title] = w.with_interval(row, metric)
    lines = [{"Model": w.method_name(method)} | shown[method] for method in sorted(shown, key=stages.order)]
    over = f"Mean over {seeds(results)} [95 % interval over seeds and test prompts]"
    return markdown(lines, f"{over}; by the testbed's oracle.")


if __name__ == "__main__":
    compare() if "--compare" in sys.argv[1:] else main()
