"""Tables as LaTeX for a paper: numbers in columns of siunitx, a caption of one line, a note with all that must be known.

A document needs ``\\usepackage{array,booktabs,graphicx,siunitx}``. A table that is wider than a column of text spans two (``table*``); what is
still too wide is set smaller, so that no box is overfull.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

PACKAGES = "array,booktabs,graphicx,siunitx"
COLUMN = 58
"""Characters of 8-point type in one column of a two-column page."""
LONG = 34
"""Characters from which a column of words is broken into lines."""
NUMBER = re.compile(r"([+-]?)(\d[\d,]*)(?:\.(\d+))?(†?(?: \[.*\])?)")
"""A number as shown, with the dagger of a collapsed training and an interval."""
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"

_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "†": r"\dag{}",
    "[": "{[}",
    "]": "{]}",
}


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped, on one line. Brackets too: a row that began with one would change the line before."""
    return "".join(_TEX.get(c, c) for c in " ".join(str(text).split()))


def latex(shown: pd.DataFrame, words: Sequence[bool], *, name: str, title: str, caption: str) -> str:
    """A table of strings as a float. words: which of its columns hold words."""
    heads, columns, cells = [], [], []
    for head_text, is_text in zip(shown.columns, words, strict=True):
        head, column, filled = (_words if is_text else _numbers)(head_text, list(shown[head_text]))
        heads.append(head)
        columns.append(column)
        cells.append(filled)
    width = sum(min(max(map(len, [*shown[c], ""])), LONG) + 2 for c in shown.columns)
    float_ = "table*" if width > COLUMN else "table"
    lines = [" & ".join(row) + r" \\" for row in zip(*cells, strict=True)]
    return "\n".join(
        [
            f"% needs \\usepackage{{{PACKAGES}}}",
            f"\\begin{{{float_}}}",
            r"\centering\footnotesize",
            f"\\caption{{{tex(title)}.}}",
            f"\\label{{tab:{name.replace('_', '-')}}}",
            FITTED,
            f"\\begin{{tabular}}{{{''.join(columns)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\raggedright\\scriptsize {tex(caption)}}}",
            f"\\end{{{float_}}}",
            "",
        ]
    )


def _words(name: str, texts: Sequence[str]) -> tuple[str, str, list[str]]:
    """Head, column type and cells of a column of words; long ones in lines of LONG characters."""
    longest = max(map(len, [*texts, ""]))
    column = rf">{{\raggedright\arraybackslash}}p{{{LONG * 0.47:.1f}em}}" if longest > LONG else "l"
    return tex(name), column, [tex(t) for t in texts]


def _numbers(name: str, texts: Sequence[str]) -> tuple[str, str, list[str]]:
    """Head, column type and cells of a column of numbers: aligned at the point, intervals beside them; as text where they are lists."""
    read = [NUMBER.fullmatch(t) for t in texts]
    if any(
        m is None and any(c.isdigit() for c in t) and not t.startswith("<") for m, t in zip(read, texts, strict=True)
    ):
        return tex(name), "r", [tex(t) for t in texts]
    known = [m for m in read if m]
    whole = max((len(m[2].replace(",", "")) for m in known), default=1)
    sign = "+" if any(m[1] for m in known) else ""
    form = f"S[table-format={sign}{whole}.{max((len(m[3] or '') for m in known), default=0)}]"
    numbers = [m[0][: m.start(4)].replace(",", "") if m else f"{{{tex(t)}}}" for m, t in zip(read, texts, strict=True)]
    if not any(m[4] for m in known):
        return f"{{{tex(name)}}}", form, numbers
    beside = [tex(m[4].strip()) if m else "" for m in read]
    both = [f"{number} & {text}" for number, text in zip(numbers, beside, strict=True)]
    return rf"\multicolumn{{2}}{{c}}{{{tex(name)}}}", form + r"@{\,}l", both
