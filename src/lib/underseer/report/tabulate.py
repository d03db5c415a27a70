"""What the tables of a report share: the type, rows as text and as numbers, and their files, written by pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from underseer.report import latex, links
from underseer.report import wording as w

Results = Mapping[str, Any]
LISTED = 24
"""Characters from which the numbers of a cell are a list, which a page breaks into lines."""


@dataclass(frozen=True)
class Table:
    """name: file stem. caption: plain text. shown: strings, for people. data: the same rows as numbers, for the
    CSV. rows: of each line the result row that its numbers were made from, for links (``links.cells``); none for no links."""

    name: str
    title: str
    caption: str
    shown: pd.DataFrame
    data: pd.DataFrame
    rows: Sequence[Mapping[str, Any] | None] = ()


def table(
    results: Results, name: str, title: str, caption: str, shown: Any, data: Any, rows: Sequence[Mapping | None] = ()
) -> Table | None:
    """A table whose caption ends with the mark of the results; None without lines. shown, data: frames, or their lines."""
    if not len(shown):
        return None
    return Table(name, title, caption + mark(results), pd.DataFrame(shown), pd.DataFrame(data), rows)


def ends(row: Mapping[str, Any], start: str = "ci95") -> dict[str, float | None]:
    """The ends of a row's interval as two columns."""
    low, high = row["ci95"] or (None, None)
    return {f"{start}_low": low, f"{start}_high": high}


def flat(rows: Sequence[Mapping], **columns: str) -> pd.DataFrame:
    """Result rows as numbers: one line each, per-seed values joined by ';'. columns: further ones, by the key of the row."""
    lines = []
    for r in rows:
        joined = {k: ";".join("" if v is None else str(v) for v in r[k]) for k in ("values", "seeds")}
        lines.append(
            {"method": r["method"], **{f"variant.{k}": v for k, v in r["variant"].items()}}
            | {k: r[k] for k in ("dataset", "metric", "mean")}
            | {**ends(r), **joined}
            | ({"note": r["note"]} if "note" in r else {"n_items": r["n_items"]})
            | {name: r[key] for name, key in columns.items()}
        )
    return pd.DataFrame(lines)


def plain(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Rows as numbers: intervals as two columns, variants as text, other nested values left out."""
    lines = []
    for r in rows:
        variants = {k: str(v) for k, v in r.items() if k.startswith("variant")}
        scalars = {k: v for k, v in r.items() if not isinstance(v, list | dict) and k != "ci95"}
        lines.append(scalars | ends(r) | variants)
    return pd.DataFrame(lines)


def score_lines(
    rows: Sequence[Mapping], shown: Sequence[str], head: str, seeds: bool = False
) -> tuple[list[dict[str, str]], list[Mapping]]:
    """Shown lines, one per method, with the columns `shown`; and the first row that each was made from. seeds: two columns more on
    the first of `shown`: its value in each seed, and its interval for these very trainings."""
    unique = list({(r["dataset"], r["method"], repr(r["variant"])): r for r in rows}.values())
    several = len({r["dataset"] for r in rows}) > 1
    lines, first = [], []
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        part = [r for r in unique if r["dataset"] == dataset]
        for name, row in zip(w.row_names(part), part, strict=True):
            by_metric = lines_of(rows, row)
            scores = {w.metric_head(m): w.with_interval(by_metric.get(m), m) for m in shown}
            scores |= _seeds(by_metric.get(shown[0]), shown[0]) if seeds and shown else {}
            lines.append(({"Data": dataset} if several else {}) | {head: name} | scores)
            first.append(row)
    return lines, first


NEW_ITEMS = "Same trainings, new items"
EACH_SEED = "Each seed"
SEEDS = (
    " 'Each seed' (of more than eight: lowest, median, highest; "
    + w.COLLAPSED
    + ") and 'same trainings, new items' (95 % "
    "interval over items alone: it covers these models, not another training) are {of}."
)
"""What the columns of `score_lines` about seeds mean."""


def _seeds(row: Mapping | None, metric: str) -> dict[str, str]:
    """The two columns about seeds; none of a row of one seed."""
    if row is None or row["mean"] is None or len(row["values"]) < 2:
        return {}
    low, high = row.get("ci95_items") or (None, None)
    ends = w.DASH if low is None else f"[{w.number(low, metric)}, {w.number(high, metric)}]"
    return {EACH_SEED: w.each_seed(row, metric), NEW_ITEMS: ends}


def about_seeds(lines: Sequence[Mapping[str, str]], of: str = "of the first score") -> str:
    """SEEDS where lines have these columns, else nothing."""
    return SEEDS.format(of=of) if any(EACH_SEED in line for line in lines) else ""


def lines_of(rows: Sequence[Mapping], row: Mapping) -> dict[str, Mapping]:
    """Metric -> row, of the same data set, method and variant."""
    return {x["metric"]: x for x in rows if all(x[k] == row[k] for k in ("dataset", "method", "variant"))}


def sample(results: Results) -> str:
    """Number of seeds and items of the main data set, and what the intervals cover."""
    rows = w.pick(results["rows"], dataset=w.main_dataset(results))
    return w.capital(w.sample_text(rows, results["interval"]["covers"]))


def mark(results: Results) -> str:
    """The mark of the testbed or of a rehearsal, at the end of a caption; empty for others."""
    return f" {text}" if (text := w.mark(results)) else ""


def cell(value: Any, *, percent: bool = False) -> str:
    """A value of a plain table as shown."""
    if value is None or value != value:
        return w.DASH
    if isinstance(value, bool | str):
        return str(value)
    if percent:
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def text_columns(table: Table) -> list[bool]:
    """Which columns hold words, not numbers: the first, and those whose cells do not start with a number."""
    starts = {c: [v.lstrip("+-< [")[:1] for v in table.shown[c].astype(str) if v] for c in table.shown.columns}
    return [k == 0 or not any(v.isdigit() for v in starts[c]) for k, c in enumerate(table.shown.columns)]


def save(table: Table, folder: Path) -> None:
    """Write <name>.csv (numbers), .md and .tex (as shown)."""
    table.data.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(tex(table), encoding="utf-8")


def tex(table: Table) -> str:
    """The table for a paper."""
    named = {"name": table.name, "title": table.title, "caption": table.caption}
    return latex.latex(table.shown.astype(str), text_columns(table), **named)


def markdown(table: Table) -> str:
    """A pipe table with its caption; cell text is escaped, so that it is shown as it is."""
    shown = table.shown.astype(str).map(md).rename(columns=md)
    align = ["left" if words else "right" for words in text_columns(table)]
    body = shown.to_markdown(index=False, tablefmt="pipe", colalign=align, disable_numparse=True)
    return f"{body}\n\n{md(table.caption)}\n"


def html(table: Table) -> str:
    """The table as HTML, escaped; numbers are aligned to the right, and lead to their rows where these are known."""
    shown = table.shown.astype(str).map(escape)
    numbers = [c for c, words in zip(shown.columns, text_columns(table), strict=True) if not words]
    for column in numbers if table.rows else ():
        places = [links.cells(row, column) for row in table.rows]
        shown[column] = [_linked(text, place) for text, place in zip(shown[column], places, strict=True)]
    longest = table.shown.astype(str).map(len).max()
    fit = {c: "white-space: nowrap" if longest[c] <= LISTED else "min-width: 12em" for c in numbers}
    right = {escape(c): [{"selector": "", "props": f"text-align: right; {fit[c]}"}] for c in numbers}
    styled = shown.rename(columns=escape).style.format(None).hide(axis="index")
    styled = styled.set_uuid(table.name.replace("_", "-")).set_table_styles(right)
    return styled.set_table_attributes(f'aria-describedby="about-{table.name}"').to_html()


def _linked(text: str, place: str | None) -> str:
    """A number, escaped, that leads to its rows; a dash leads nowhere."""
    return f'<a href="{escape(place)}">{text}</a>' if place and any(c.isdigit() for c in text) else text


def md(text: str) -> str:
    """Text with Markdown's special characters escaped, on one line."""
    text = " ".join(str(text).split()).replace("\\", "\\\\")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "|*_`[]":
        text = text.replace(character, "\\" + character)
    return text
