"""Write docs/findings.md: the papers' questions, each answered from the results of a finished experiment, by ``make findings``.

Every number comes from a ``results.json``; a question whose experiment has not run says so. Nothing in the page is typed by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from findings_figures import draw, sweep
from findings_table import PGR, QUESTIONS, Question

from underseer.maths import differences
from underseer.report import ablation
from underseer.report import compared as paired
from underseer.report import wording as w
from underseer.report.names import iteration
from underseer.report.results import load_results

ROOT = Path(__file__).resolve().parents[1]
NOT_SHOWN = "not shown"
Results = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One comparison of an experiment: its name, the verdict of its corrected test ('better', ..., NOT_SHOWN), the difference with
    its interval, and the smallest difference that the test would have shown in four of five such runs."""

    name: str
    verdict: str
    difference: str
    smallest: str


@dataclass(frozen=True)
class Place:
    """Where results lie: a store, and what is added to the name of an experiment there and to its command."""

    home: Path
    suffix: str = ""
    before: str = ""
    after: str = ""

    def results(self, name: str) -> Results | None:
        """The results of an experiment; None where it has not run."""
        file = self.home / "reports" / f"{name}{self.suffix}" / "results.json"
        return load_results(file) if file.is_file() else None

    def command(self, name: str) -> str:
        return f".venv/bin/underseer {self.before}run params/{name}.yaml{self.after}"


def answers(results: Results, question: Question) -> list[Answer]:
    """What an experiment says of a question."""
    return list(compared(results, question.pairs) if question.pairs else trends(results, question.scored))


def compared(results: Results, pairs: Sequence[tuple[str, str]]) -> Iterator[Answer]:
    """The tests of the results that compare these methods, the first with the second; 'last' is the last iterate of the loop."""
    last = max((r["method"] for r in results["rows"] if iteration(r["method"])), key=iteration, default="last")
    wanted = [tuple(last if m == "last" else m for m in pair) for pair in pairs]
    loop = results["pipeline"] == "selfmoa"
    where = question_sets(results) if loop else {(w.main_dataset(results), w.primary(results))}
    labels = [] if loop else (results.get("label_quality") or {}).get("tests") or []
    for test in [*results["tests"]["rows"], *labels]:
        if (test["a"], test["b"]) in wanted and ((test["dataset"], test["metric"]) in where or test in labels):
            names = [w.method_name(test[side]) for side in "ab"]
            said = (
                f"labels by {names[0].lower()} against those by {names[1].lower()}"
                if test in labels
                else " against ".join(names)
            )
            metric = f", {w.spoken(test['metric'])} on {w.dataset_name(test['dataset'])}" if loop else ""
            yield answer(f"{said}{metric}{variant(test['variant_a'])}", test)


def question_sets(results: Results) -> set[tuple[str, str]]:
    """Sets of prompts and metrics of the loop's comparisons."""
    metrics = {"attack": "unsafe_rate", "safe": "helpfulness", "borderline": "over_refusal"}
    return {(s["dataset"], metrics[s["role"]]) for s in results["sets"]}


def variant(values: Mapping[str, Any]) -> str:
    """The swept values of a comparison, in brackets."""
    own = {k: v for k, v in values.items() if k not in ablation.METHOD_KEYS}
    return f" ({', '.join(f'{k} {v}' for k, v in own.items())})" if own else ""


def answer(name: str, test: Mapping[str, Any]) -> Answer:
    verdict = NOT_SHOWN if test["better"] is None else paired.verdict(test)
    return Answer(name, verdict, paired.difference(test), paired.smallest(test))


def trends(results: Results, scored: str) -> Iterator[Answer]:
    """Of each student, or of the loop's last iterate, the change from the first to the last value of the swept parameter.

    The interval is Student's t over the differences of the paired seeds, corrected by Holm's method over an experiment's changes.
    scored: 'pgr', or 'scores' for what the sweep scores.
    """
    swept = sweep(results)
    tables = {} if swept is None else {PGR: swept.gaps} if scored == PGR else swept.scores
    moves = []
    for metric, table in tables.items():
        kept = table[[m.startswith("w2s_") or bool(iteration(m)) for m in table["method"]]].dropna(subset="place")
        for line, rows in kept.groupby("line", sort=False):
            rows = rows.sort_values("place")
            first, last = (
                dict(zip(r["seeds"], r["values"], strict=True)) for r in (rows["row"].iloc[0], rows["row"].iloc[-1])
            )
            both = [s for s in first if first[s] is not None and last.get(s) is not None]
            change = np.array([last[s] - first[s] for s in both])
            if len(rows) > 1 and len(both) > 1:
                ends = f"{line}, {metric.upper() if metric == PGR else w.spoken(metric)}, {swept.key} {rows['tick'].iloc[0]} to {rows['tick'].iloc[-1]}"
                moves.append(
                    (ends, metric, both, differences.paired_difference(change, np.zeros((2, len(both))), 1000))
                )
    p_values = [d.p for *_, d in moves]
    for (ends, metric, both, d), p, level in zip(
        moves, differences.holm(p_values), differences.holm_levels(p_values), strict=True
    ):
        test = {
            "metric": metric,
            "dataset": "",
            "difference": d.mean,
            "ci95_holm": list(d.interval(level)),
            "seeds": both,
        }
        least = d.smallest_effect(level)
        test |= {"smallest_effect": None if np.isnan(least) else least, "better": None}
        if p < differences.ALPHA:
            test["better"] = "a" if (d.mean > 0) != w.lower_is_better(metric) else "b"
        yield answer(ends, test)


def sentence(said: Mapping[str, Sequence[Answer]], experiments: Mapping[str, Results], question: Question) -> str:
    """One sentence of all answers, by experiment: each difference that is shown, how many are not, and PGR where it is asked for."""
    every = [(name, a) for name, of in said.items() for a in of]
    shown = [f"{a.name} ({name}): {a.verdict}, {a.difference}" for name, a in every if a.verdict != NOT_SHOWN]
    if not every:
        return "It has run, but no comparison can be made: the score is defined in too few seeds."
    start = f"Shown in {len(shown)} of {w.plural(len(every), 'comparison')}"
    start = start if shown else f"Not shown ({w.plural(len(every), 'comparison')})"
    parts = [": ".join(filter(None, (start, "; ".join(shown))))]
    if ("w2s_naive", "weak") in question.pairs:
        gaps = {
            n: next(iter(w.pick([g for g in r["pgr"] if g["method"] == "w2s_naive"], metric=w.primary(r))), None)
            for n, r in experiments.items()
        }
        parts += [
            f"share of the gap that naive W2S recovers: {'; '.join(f'{n} {w.pgr_text(row)}' for n, row in gaps.items())}"
        ]
    return "; ".join(parts) + "."


def table(said: Mapping[str, Sequence[Answer]]) -> list[str]:
    """Every comparison of a question."""
    lines = ["| Experiment | Comparison | Verdict | Difference | Smallest that would show |", "|:--|:--|:--|:--|:--|"]
    return lines + [
        f"| {n} | {a.name} | {a.verdict} | {a.difference} | {a.smallest} |" for n, of in said.items() for a in of
    ]


def seeds_of(results: Results) -> str:
    given = w.known_seeds(results)
    values = given.get("values") or sorted({s for r in results["rows"] for s in r["seeds"]})
    return f"{', '.join(map(str, values))}{' (' + given['set'] + ')' if given.get('set') else ''}"


def seconds(results: Results) -> float:
    """Core-seconds of all stages that the results rest on; a stage has one thread, unless set otherwise."""
    return sum(cost["seconds"] for cost in results["cost"].values())


@dataclass
class Page:
    """The page as it grows."""

    places: dict[str, Place]
    folder: Path
    missing: list[str] = field(default_factory=list)
    verdicts: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def section(self, number: int, question: Question) -> str:
        main = self.places["reporting"]
        experiments = {n: r for n in question.experiments if (r := main.results(n))}
        absent = [n for n in question.experiments if n not in experiments]
        lines = [f"## {number}. {question.text}", ""]
        if experiments:
            said = {n: answers(r, question) for n, r in experiments.items()}
            lines += [f"**{sentence(said, experiments, question)}**", ""]
            image = self.folder / "findings" / f"{question.slug}.png"
            lines += [f"![{question.text}](findings/{image.name})", ""] if draw(question, experiments, image) else []
            lines += [*table(said), ""] if any(said.values()) else []
            self.note(question, said)
        for name in absent:
            self.missing.append(main.command(name))
            lines += [f"Not run yet: `{main.command(name)}`", ""]
        lines += [f"How it is read: {question.how}", ""]
        if experiments:
            lines += ["| Command | Seeds | Core-seconds |", "|:--|:--|--:|"]
            lines += [f"| `{main.command(n)}` | {seeds_of(r)} | {seconds(r):,.0f} |" for n, r in experiments.items()]
            lines += [""]
        return "\n".join(lines)

    def note(self, question: Question, said: Mapping[str, Sequence[Answer]]) -> None:
        """Keep the verdicts, and those of the same comparisons elsewhere."""
        for name, list_ in said.items():
            elsewhere = {p: self.places[p].results(name) for p in self.places if p != "reporting"}
            others = {p: {a.name: a.verdict for a in answers(r, question)} if r else None for p, r in elsewhere.items()}
            for one in list_:
                row = {"reporting": one.verdict}
                row |= {
                    p: "not run yet" if o is None else o.get(one.name, "no such comparison") for p, o in others.items()
                }
                self.verdicts[name, one.name] = row

    def robustness(self) -> str:
        """The table of verdicts on the reporting seeds, on the second seeds and under AVX2; the demo's comparisons alone."""
        lines = ["| Comparison | Reporting | Second seeds | AVX2 | The same? |", "|:--|:--|:--|:--|:--|"]
        asked = {k: v for k, v in self.verdicts.items() if k[0].startswith("demo/")}
        for (name, comparison), row in asked.items():
            others = [row[p] for p in ("second", "avx2") if row[p] != "not run yet"]
            same = "not run yet" if not others else "yes" if all(o == row["reporting"] for o in others) else "no"
            lines.append(f"| {name}: {comparison} | {row['reporting']} | {row['second']} | {row['avx2']} | {same} |")
        commands = [
            f"- `{self.places[p].command(n)}`" for p in ("second", "avx2") for n in dict.fromkeys(k[0] for k in asked)
        ]
        return "\n".join(lines if asked else ["Not run yet."]) + "\n\n" + "\n".join(commands)


def page(questions: Sequence[Question], places: dict[str, Place], folder: Path) -> str:
    """The text of findings.md; its figures are written below ``folder``."""
    made = Page(places, folder)
    sections = [made.section(k + 1, question) for k, question in enumerate(questions)]
    missing = [f"- `{command}`" for command in dict.fromkeys(made.missing)]
    return "\n".join(
        [
            "# Findings",
            "",
            "Made by `make findings` from results of this repository's experiments; no number is typed by hand. All are of the synthetic "
            "testbed: they show directions, and reproduce no published number. Reported on seeds that no choice has looked at "
            "([tuning.md](tuning.md) says what was chosen, and on which). \"Not shown\" is a finding: the corrected test shows no "
            "difference; the smallest one that it would show in four of five such runs stands beside it.",
            "",
            *sections,
            f"## {len(questions) + 1}. Do the demo's conclusions hold on other seeds, and on a CPU with AVX2 alone?",
            "",
            made.robustness(),
            "",
            "## Not run yet",
            "",
            *(missing or ["All of it has run."]),
            "",
        ]
    )  # fmt: skip


def main(
    given: Sequence[str] | None = None, questions: Sequence[Question] = QUESTIONS, folder: Path = ROOT / "docs"
) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT, help="the store with reports/ (default: the repository)")
    parser.add_argument("--second", type=Path, help="the store of the second seeds (default: --home)")
    parser.add_argument("--avx2", type=Path, help="the store of underseer --cpu avx2 (default: avx2/ in --home)")
    asked = parser.parse_args(given)
    places = {
        "reporting": Place(asked.home),
        "second": Place(asked.second or asked.home, "@seeds=second", "", " --set seeds=second"),
        "avx2": Place(asked.avx2 or asked.home / "avx2", "", "--cpu avx2 "),
    }
    (folder / "findings.md").write_text(page(questions, places, folder), encoding="utf-8")


if __name__ == "__main__":
    main()
