"""Readers of the prompt sets that attack a chat model or test whether it refuses too much.

As in ``readers``: the bytes of the published file in, rows with ``text`` and ``label`` out, nothing changed. ``category``
is what a prompt is about, ``kind`` how it is made.
"""

from __future__ import annotations

from underseer.data.files import Mistakes, Row, checked, csv_records, has_text, object_records, shown, text_lines

CONTRAST = "contrast_"


def xstest(content: bytes, name: str) -> list[Row]:
    """XSTest: csv ``id,prompt,type,label,focus,note``; label 1 is unsafe.

    ``kind`` is the published type, such as ``contrast_homonyms``; ``category`` the same without ``contrast_``, so that
    safe prompts and their contrasts stand together where XSTest pairs them (its types of discrimination and privacy
    prompts have no contrast of the same name).
    """
    mistakes, rows = Mistakes(name), []
    for line, record in csv_records(content, name, ("prompt", "type", "label"), mistakes):
        label = {"safe": 0, "unsafe": 1}.get(record["label"].strip().lower())
        if label is None:
            mistakes.add(line, f"label = {shown(record['label'])} is neither safe nor unsafe; correct or drop the row")
        elif has_text(record["prompt"], "prompt", line, mistakes):
            kind = record["type"].strip()
            rows.append(
                {"text": record["prompt"], "label": label, "category": kind.removeprefix(CONTRAST), "kind": kind}
            )
    return checked(rows, mistakes)


def malicious_instruct(content: bytes, name: str) -> list[Row]:
    """MaliciousInstruct: one prompt a line; all unsafe. The paper's ten intentions are not in the file."""
    rows = [{"text": text, "label": 1} for _, text in text_lines(content, name)]
    return checked(rows, Mistakes(name))


def salad_bench(content: bytes, name: str) -> list[Row]:
    """SALAD-Bench base set: a JSON array of objects (JSON lines and Parquet are read too); all unsafe.

    ``category`` is the first of three levels (6 domains), ``category_2`` and ``category_3`` the others (16 tasks, 66
    categories), each as published: ``O1: ...``. ``kind`` is where SALAD-Bench has the question from; a part is from
    AdvBench and HH-RLHF, which ``overlap`` shows.
    """
    mistakes, rows = Mistakes(name), []
    hold = {"question": str, "1-category": str, "2-category": str, "3-category": str}
    for line, record in object_records(content, name, hold, mistakes):
        if has_text(record["question"], "question", line, mistakes):
            rows.append(
                {
                    "text": record["question"],
                    "label": 1,
                    "category": record["1-category"],
                    "category_2": record["2-category"],
                    "category_3": record["3-category"],
                    "kind": str(record.get("source") or "base"),
                }
            )
    return checked(rows, mistakes)


def harmbench(content: bytes, name: str) -> list[Row]:
    """HarmBench text behaviours: csv ``Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID``.

    All unsafe. ``category`` is the semantic one; ``kind`` the functional one: ``standard``, ``contextual`` (asked about a
    context, which comes first, as in HarmBench's direct requests), ``copyright`` (which HarmBench judges by comparison
    with the protected text: no judge of harm sees it).
    """
    mistakes, rows = Mistakes(name), []
    columns = ("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString")
    for line, record in csv_records(content, name, columns, mistakes):
        if has_text(record["Behavior"], "Behavior", line, mistakes):
            context = record["ContextString"]
            rows.append(
                {
                    "text": f"{context}\n\n---\n\n{record['Behavior']}" if context.strip() else record["Behavior"],
                    "label": 1,
                    "category": record["SemanticCategory"],
                    "kind": record["FunctionalCategory"],
                }
            )
    return checked(rows, mistakes)
