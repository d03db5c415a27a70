"""Write docs/findings.md: the papers' questions, each answered from the results of a finished experiment, by ``make findings``.

Every number comes from a ``results.json``; nothing in the page is typed by hand. What an experiment says is kept in
docs/findings_results.json, so that one more experiment adds to the page where the others' results are no longer at hand; a question
whose experiment has never run says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from findings_answers import NOT_SHOWN, Answer, Results, answers, gap
from findings_figures import draw
from findings_table import CORRECTED, EXAMPLES, QUESTIONS, Question

from underseer.report import wording as w
from underseer.report.results import load_results

ROOT = Path(__file__).resolve().parents[1]


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


def record(results: Results, question: Question) -> dict[str, Any]:
    """What is kept of an experiment for a question: its answers, the share of the gap, and what it rests on."""
    provenance = results.get("provenance", {})
    given = w.known_seeds(results)
    seeds = given.get("values") or sorted({s for r in results["rows"] for s in r["seeds"]})
    return {
        "answers": [asdict(a) for a in answers(results, question)],
        "gap": gap(results) if ("w2s_naive", "weak") in question.pairs else None,
        "seeds": f"{', '.join(map(str, seeds))}{' (' + given['set'] + ')' if given.get('set') else ''}",
        "seconds": sum(cost["seconds"] for cost in results["cost"].values()),
        "code": (provenance.get("commit") or "")[:7],
        "cpu": ", ".join(provenance.get("cpu_capability") or []),
    }


def collected(questions: Sequence[Question], places: Mapping[str, Place], kept: dict[str, Any]) -> dict[str, Any]:
    """By place, experiment and question what each says, from its results where they are at hand, else as it was kept."""
    records: dict[str, Any] = {}
    for place, where in places.items():
        for question in questions:
            for name in question.experiments:
                results = where.results(name)
                path = f"{place}/{name}/{question.slug}"
                if results is not None:
                    records[path] = record(results, question)
                elif path in kept:
                    records[path] = kept[path]
    return records


@dataclass(frozen=True)
class Page:
    """The page: what is known, where experiments lie, and the folder of its figures."""

    records: Mapping[str, Any]
    places: Mapping[str, Place]
    folder: Path

    def said(self, question: Question, place: str = "reporting") -> dict[str, dict[str, Any]]:
        """By experiment, what it says of the question."""
        made = {name: self.records.get(f"{place}/{name}/{question.slug}") for name in question.experiments}
        return {name: one for name, one in made.items() if one is not None}

    def section(self, number: int, question: Question) -> str:
        main, said = self.places["reporting"], self.said(question)
        lines = [f"## {number}. {question.text}", ""]
        if said:
            lines += [f"**{sentence(said, question)}**", ""]
            lines += [f"![{question.text}](findings/{question.slug}.png)", ""] if self.drawn(question, said) else []
            lines += [*table(said), ""]
        for name in question.experiments:
            lines += [] if name in said else [f"Not run yet: `{main.command(name)}`", ""]
        lines += [f"How it is read: {question.reading}", ""]
        if said:
            lines += ["| Command | Seeds | Seconds of its stages | Code | CPU |", "|:--|:--|--:|:--|:--|"]
            lines += [
                f"| `{main.command(n)}` | {r['seeds']} | {r['seconds']:,.0f} | {r['code']} | {r['cpu']} |"
                for n, r in said.items()
            ]
            lines += [""]
        return "\n".join(lines)

    def drawn(self, question: Question, said: Mapping[str, Any]) -> bool:
        """Whether the question has a figure: drawn anew where the results of all that it shows are at hand, else as it was."""
        image = self.folder / "findings" / f"{question.slug}.png"
        experiments = {name: self.places["reporting"].results(name) for name in said}
        if all(experiments.values()):
            image.unlink(missing_ok=True)
            return draw(question, experiments, image)
        return image.is_file()

    def robustness(self, questions: Sequence[Question]) -> str:
        """The table of verdicts on the reporting seeds, on the second seeds and under AVX2; the demo's comparisons alone."""
        lines = ["| Comparison | Reporting | Second seeds | AVX2 | The same? |", "|:--|:--|:--|:--|:--|"]
        asked: dict[str, None] = {}
        for question in questions:
            others = {place: self.said(question, place) for place in ("second", "avx2")}
            for name, one in self.said(question).items():
                if name.startswith("demo/"):
                    asked[name] = None
                    lines += [verdicts(name, a, {p: others[p].get(name) for p in others}) for a in one["answers"]]
        commands = [f"- `{self.places[p].command(n)}`" for p in ("second", "avx2") for n in asked]
        return "\n".join(lines if asked else ["Not run yet."]) + "\n\n" + "\n".join(commands)

    def text(self, questions: Sequence[Question]) -> str:
        sections = [self.section(k + 1, question) for k, question in enumerate(questions)]
        main = self.places["reporting"]
        missing = dict.fromkeys(n for q in questions for n in q.experiments if n not in self.said(q))
        return "\n".join(
            [
                "# Findings",
                "",
                "Made by `make findings` from results of this repository's experiments; no number is typed by hand. All are of the synthetic "
                "testbed: they show directions, and reproduce no published number. Settings were chosen on other seeds than those reported "
                "([tuning.md](tuning.md)), but for one: how many seeds W2S has was raised after reporting seeds 10 to 15 had been read, so that the "
                "second set of seeds, at which nobody had looked, is the test. \"Not shown\" is a finding: the corrected test shows no "
                "difference; the smallest one that it would show in four of five such runs stands beside it. Seconds of stages are "
                "elapsed time, one core each.",
                "",
                *sections,
                f"## {len(questions) + 1}. Do the demo's conclusions hold on other seeds, and on a CPU with AVX2 alone?",
                "",
                self.robustness(questions),
                "",
                "## Not run yet",
                "",
                *([f"- `{main.command(name)}`" for name in missing] or ["All of it has run."]),
                "",
            ]
        )  # fmt: skip


def verdicts(name: str, answer: Mapping[str, str], others: Mapping[str, Any]) -> str:
    """A line of the table: what each place says of a comparison, and whether all come to the same verdict."""
    elsewhere = {
        place: next((a for a in one["answers"] if a["name"] == answer["name"]), None) if one else "not run yet"
        for place, one in others.items()
    }
    run = [a["verdict"] if a else None for a in elsewhere.values() if a != "not run yet"]
    agree = "not shown in any" if answer["verdict"] == NOT_SHOWN else "yes"
    same = "not run yet" if not run else agree if all(v == answer["verdict"] for v in run) else "no"
    cells = [
        a if a == "not run yet" else outcome(a) if a else "no such comparison" for a in (answer, *elsewhere.values())
    ]
    return f"| {name}: {answer['name']} | {' | '.join(cells)} | {same} |"


def outcome(answer: Mapping[str, str]) -> str:
    """A verdict with its difference; in bold where one is shown."""
    mark = "" if answer["verdict"] == NOT_SHOWN else "**"
    return f"{mark}{answer['verdict']}{mark}, {answer['difference']}"


def sentence(said: Mapping[str, Mapping[str, Any]], question: Question) -> str:
    """The answer in a sentence: how many differences are shown, what they are where they are few, and PGR where it is asked for."""
    every = [(name, Answer(**a)) for name, one in said.items() for a in one["answers"]]
    if not every:
        return "It has run, but no comparison can be made: the score is defined in too few seeds."
    shown = [
        f"{a.name} ({name.split('/')[1]}): {a.verdict}, {a.difference}" for name, a in every if a.verdict != NOT_SHOWN
    ]
    start = f"Shown in {len(shown)} of {w.plural(len(every), 'comparison')}" if shown else f"Not shown ({w.plural(len(every), 'comparison')})"  # fmt: skip
    parts = [start if not shown or len(shown) > 6 else f"{start}: {'; '.join(shown)}"]
    if question.scored == CORRECTED:
        return "; ".join(f"{a.name}: {a.verdict}, {a.difference}" for _, a in every) + "."
    if question.scored == EXAMPLES and not shown:
        parts += [f"{a.name}: {a.difference}" for _, a in every]
    gaps = [f"{name.split('/')[1]} {one['gap']}" for name, one in said.items() if one["gap"]]
    parts += (
        [f"share of the gap that naive W2S recovers, with 95 % intervals that are not corrected: {'; '.join(gaps)}"]
        if gaps
        else []
    )
    return "; ".join(parts) + "."


def table(said: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every comparison of a question; those that are shown in bold."""
    lines = ["| Experiment | Comparison | Verdict | Difference | Smallest that would show |", "|:--|:--|:--|:--|:--|"]
    for name, one in said.items():
        for a in one["answers"]:
            verdict = a["verdict"] if a["verdict"] == NOT_SHOWN else f"**{a['verdict']}**"
            lines.append(f"| {name} | {a['name']} | {verdict} | {a['difference']} | {a['smallest']} |")
    return lines if len(lines) > 2 else []


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
    file = folder / "findings_results.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    records = collected(questions, places, kept)
    file.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = Page(records, places, folder).text(questions)
    (folder / "findings.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
