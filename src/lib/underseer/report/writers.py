"""Tables as files: CSV with the numbers, Markdown and LaTeX as shown, everything escaped."""

from __future__ import annotations

from pathlib import Path

from underseer.report.tables import Table


def text_columns(table: Table) -> list[bool]:
    """Which columns hold words, not numbers: the first, and those whose cells do not start with a number."""
    shown = table.shown.astype(str)
    starts = {c: [v.lstrip("+-< ")[:1] for v in shown[c] if v] for c in shown.columns}
    return [k == 0 or not any(v.isdigit() for v in starts[c]) for k, c in enumerate(shown.columns)]


def save(table: Table, folder: Path) -> None:
    """Write <name>.csv (numbers), .md and .tex (as shown)."""
    table.data.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """A pipe table with its caption; cell text is escaped, so that it is shown as it is."""
    lines = [list(table.shown.columns), *table.shown.astype(str).to_numpy().tolist()]
    body = ["| " + " | ".join(_md(c) for c in line) + " |" for line in lines]
    body.insert(1, "|" + "|".join(" --- " if words else " ---: " for words in text_columns(table)) + "|")
    return "\n".join([*body, "", _md(table.caption), ""])


def _md(text: str) -> str:
    text = (
        " ".join(str(text).split())
        .replace("\\", "\\\\")
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    for character in "|*_`[]":
        text = text.replace(character, "\\" + character)
    return text


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped, on one line."""
    return "".join(_TEX.get(c, c) for c in " ".join(str(text).split()))


def latex(table: Table) -> str:
    """A booktabs table: words left, numbers right; needs \\usepackage{booktabs}."""
    shown = table.shown.astype(str)
    columns = "".join("l" if words else "r" for words in text_columns(table))
    rows = [" & ".join(tex(c) for c in line) + r" \\" for line in shown.to_numpy().tolist()]
    head = " & ".join(tex(c) for c in shown.columns) + r" \\"
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(table.caption)}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
