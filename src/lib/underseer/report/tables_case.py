"""The case study as a table, and the texts that it may show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underseer.report import wording as w
from underseer.report.case import unredacted
from underseer.report.selfmoa import case as exchanges
from underseer.report.tabulate import Results, Table, table


def case_study(results: Results, texts: Mapping[str, str] | None = None) -> Table | None:
    """What each model answers to one item (Table 3 of the W2S paper), or to a few attack prompts; None where there is no case.

    texts: raw texts by ``answer_key``; given, continuations and answers are shown in full.
    """
    case = results.get("case_study")
    if not case:
        return None
    if case.get("kind") == exchanges.KIND:
        return _exchanges(results, exchanges.unredacted(case, texts) if texts else case)
    if case.get("kind") == "continuation":
        return _continuations(results, unredacted(case, texts) if texts else case)
    probability = "Probability of " + results["classes"][1]
    lines = [{"Model": "Truth", "Answer": case["truth"], probability: "", "Right": ""}]
    lines += [
        {"Model": n, "Answer": a["answer"], probability: f"{a['p']:.3f}", "Right": "yes" if a["right"] else "no"}
        for n, a in zip(w.row_names(case["answers"]), case["answers"], strict=True)
    ]
    data = [
        {"model": a["method"], "variant": str(a["variant"])}
        | {k: a[k] for k in ("answer", "p", "right")}
        | {"id": case["id"]}
        for a in case["answers"]
    ]
    caption = f"Item {case['id']}, seed {case['seed']}: {case['rule']}. {_fits(case, 'item')}"
    caption += _typical(case["right_among_candidates"], "of these are answered right by")
    return table(results, "case_study", "Case study", caption, lines, data)


def _fits(case: Mapping[str, Any], noun: str) -> str:
    """'12 of 900 items fit the rule'."""
    first = f"{noun} of each category" if case.get("kind") == exchanges.KIND else f"{noun} of all"
    instead = "" if case["rule_fits"] else f", so the first {first} is shown"
    return f"{case['n_candidates']:,} of {case['n_items']:,} {noun}s fit the rule{instead}"


def _typical(shares: Mapping[str, float], text: str) -> str:
    """How typical the case is: what share of all that fit the rule each method gets right."""
    named = "; ".join(f"{w.method_name(m)} {100 * v:.0f} %" for m, v in shares.items())
    return f"; {text} {named}." if named else "."


def _continuations(results: Results, case: Mapping[str, Any]) -> Table:
    lines = [
        {"Model": n, "Greedy continuation": answer_text(a), "Toxicity": w.number(a["toxicity"], "toxicity")}
        for n, a in zip(w.row_names(case["answers"]), case["answers"], strict=True)
    ]
    data = [
        {k: a[k] for k in ("method", "toxicity", "words")} | {"variant": str(a["variant"]), "id": case["id"]}
        for a in case["answers"]
    ]
    toxicity = w.number(case["prompt_toxicity"], "toxicity")
    caption = f"Prompt {case['id']} (toxicity {toxicity}), seed {case['seed']}: {case['rule']}. {_fits(case, 'prompt')}"
    caption += _typical(case["civil_among_candidates"], "of these are continued with a score below 0.5 by")
    return table(results, "case_study", "Case study", caption, lines, data)


def _exchanges(results: Results, case: Mapping[str, Any]) -> Table:
    lines, data = [], []
    for prompt in case["prompts"]:
        asked = f"{answer_text(prompt)} ({prompt['category'].replace('_', ' ')}, id {prompt['id']})"
        for k, answer in enumerate(prompt["answers"]):
            lines.append(
                {"Prompt": "" if k else asked, "Model": w.method_name(answer["method"]), "Answer": answer_text(answer)}
                | {"Safety score": w.number(answer["unsafe"], "safety_score", 2)}
                | {"Helpfulness": w.number(answer["helpful"], "helpfulness", 2)}
            )
            known = {k: answer[k] for k in ("method", "unsafe", "helpful", "words")}
            data.append(
                {"id": prompt["id"], "category": prompt["category"]} | known | {"variant": str(answer["variant"])}
            )
    caption = (
        f"{w.capital(w.dataset_name(case['dataset']))}, seed {case['seed']}: {case['rule']}. {_fits(case, 'prompt')}"
    )
    caption += _typical(case["safe_among_candidates"], "of these are answered safely by")
    return table(results, "case_study", "Case study", caption, lines, data)


def answer_text(answer: Mapping[str, Any]) -> str:
    """A continuation as shown: its text in quotes, or how many words are redacted."""
    if answer["text"] is None:
        return f"[redacted, {answer['words']} words]"
    return f"\u201c{' '.join(answer['text'].split())}\u201d" if answer["text"].strip() else "[says nothing]"


def prompt_text(case: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> str:
    """The case study's prompt, or what stands for it: a redacted or unknown text; nothing where its table holds several.
    `texts` given: the raw text is shown."""
    if case.get("kind") == exchanges.KIND:
        return ""
    if texts and case["id"] in texts:
        return str(texts[case["id"]])
    if case["redacted"]:
        words = f", {case['words']} words" if case["words"] else ""
        truth = "" if case.get("kind") == "continuation" else f", truth {case['truth']}"
        return f"[redacted prompt{words}{truth}, id {case['id']}]"
    return case["text"] if case["text"] is not None else f"[text not stored, id {case['id']}]"
