"""Tables of a report as LaTeX: what a column becomes, and that a paper of two columns takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import test_report_generation as toxicity_tests
import test_report_selfmoa as loop_tests
from test_report import clustered, frame, legal, results  # noqa: F401 (fixtures)
from underseer.report import ablation, compared, latex, tables, tables_case, tables_ledger, tabulate

INSTALL = "apt-get install --no-install-recommends texlive-latex-base texlive-latex-recommended texlive-science"
SMALLEST = 5.0
"""Points of a table's type, at least: it is 8 before a table is fitted to its page."""
PAPER = r"""\documentclass[twocolumn]{article}
\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage[margin=0.75in]{geometry}\usepackage{%s}
\newcommand{\fitted}[1]{\sbox0{#1}\typeout{WIDTHS \the\wd0 \space \the\linewidth}%s#1}}
\begin{document}
%s
\end{document}
"""


@pytest.mark.parametrize(
    ("texts", "column", "cells"),
    [
        (["86.0", "7.25", "–"], "S[table-format=2.2]", ["86.0", "7.25", "{--}"]),
        (["+1,234", "-2"], "S[table-format=+4.0]", ["+1234", "-2"]),
        (["86.0 [84.1, 87.7]", "5.0†"], r"S[table-format=2.1]@{\,}l", [r"86.0 & {[}84.1, 87.7{]}", r"5.0 & \dag{}"]),
        (["1.0, 2.0", "3.0"], "r", ["1.0, 2.0", "3.0"]),
        (["< 0.001", "0.012"], "S[table-format=1.3]", [r"{\textless{} 0.001}", "0.012"]),
    ],
)
def test_columns_of_numbers(texts, column, cells) -> None:
    assert latex._numbers("Head", texts)[1:] == (column, cells)


def test_a_wide_table_spans_two_columns() -> None:
    narrow = tabulate.Table("a", "A", "Note.", pd.DataFrame({"x": ["one"], "y": ["1.0"]}), pd.DataFrame())
    wide = tabulate.Table(
        "a", "A", "Note.", pd.DataFrame({f"c{k}": ["twelve words"] for k in range(6)}), pd.DataFrame()
    )
    assert r"\begin{table}" in tabulate.tex(narrow)
    assert r"\begin{table*}" in tabulate.tex(wide)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason=f"no pdflatex: {INSTALL}")
def test_a_paper_takes_every_table_without_an_overfull_box(results, frame, tmp_path: Path) -> None:  # noqa: F811
    t = loop_tests.tables_of
    given = {
        "attacks": t.attacks(per=60),
        "pairs": t.pairs(),
        "judges": t.judges(),
        "utility": t.utility(),
        "cost": t.cost(),
    }
    own = loop_tests.built(t.answers(loop_tests.LOOPED, n=20, draws=1), **given)
    answers, archive, swept = t.noise()
    shared = [tables.scores, tables.pgr, tables.label_quality, compared.primary_tests, compared.tests, compared.seeds]
    shared += [tables_case.case_study, tables_ledger.hygiene, tables_ledger.cost]
    generated = toxicity_tests.built(toxicity_tests.continuations(n=20))
    makers = [
        *((f, results) for f in shared),
        *((f, generated) for f in (*shared, tables.buckets, tables.fluency, tables.judges, tables.by_judge)),
        (tables.figure1, legal(clustered(frame))),
        (ablation.table, loop_tests.built(answers, attacks=archive, pairs=swept)),
    ]
    made = [table for make, of in makers if (table := make(of)) is not None]
    made += loop_tests.made(own).values()
    assert {table.name for table in made} >= {"buckets", "fluency", "judges", "by_judge", "figure1", "ablation"}
    texts = "\n\\clearpage\n".join(tabulate.tex(t).replace(latex.FITTED, "\\fitted{%") for t in made)
    paper = PAPER % (latex.PACKAGES, latex.FITTED.removesuffix("%"), texts)
    (tmp_path / "paper.tex").write_text(paper, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull .*", done.stdout) and (tmp_path / "paper.pdf").is_file()
    widths = re.findall(r"WIDTHS ([\d.]+)pt ([\d.]+)pt", done.stdout)
    sizes = {table.name: 8 * min(1, float(b) / float(a)) for table, (a, b) in zip(made, widths, strict=True)}
    assert min(sizes.values()) >= SMALLEST, sizes
