"""Figures of reports: nothing stands where its value is not, and what is drawn can be told apart and read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

import selfmoa_tables as tables_of
from selfmoa_tables import LEVELS, LOOP
from test_report import ACCURACY, built, predictions
from test_report_selfmoa import built as built_loop
from underseer.report import drawing, figures, marks, tidy, wording
from underseer.report.selfmoa import figures as loop_figures
from underseer.report.selfmoa import tidy as loop_tidy
from underseer.report.selfmoa import tidy_judges
from underseer.selfmoa.checks import CONTROLS

LIMITS = (-1.5, 1.1)
FAR = [-0.8, -2.0, -3.0, -4.0, -5.0, -6.1]


def line(name: str, mean: float, low: float, high: float, values: list[float], place: float = 0.0) -> dict:
    told = {"line": name, "name": name, "method": f"w2s_{name}", "variant": "{}", "metric": "accuracy", "text": "x"}
    return told | {"place": place, "tick": str(place), "mean": mean, "low": low, "high": high, "values": values}


@pytest.fixture(scope="module")
def loop() -> dict:
    return built_loop(tables_of.answers({m: LEVELS[m] for m in LOOP}, n=20, draws=1))


def points(ax: Axes, *markers: str) -> list[tuple[float, float]]:
    """Where these markers stand."""
    lines = [line for line in ax.get_lines() if line.get_marker() in markers]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_a_value_beyond_the_axis_is_an_arrow_with_its_number_and_no_point() -> None:
    rows = pd.DataFrame([line("a", 0.4, 0.1, 0.7, [0.3, 0.5], 0), line("a", -3.49, -6.0, -1.2, FAR, 1)])
    ax = drawing.canvas(7, 3)[1][0, 0]
    drawing.trend(ax, rows, ["#123456"], limits=LIMITS)
    assert {y for _, y in points(ax, "o")} == {0.4, 0.3, 0.5, -0.8}
    arrows = [a for a in ax.get_lines() if a.get_marker() == "v"]
    assert [a.get_markerfacecolor() for a in arrows] == ["#123456", "white"]
    assert [list(a.get_xdata()) for a in arrows] == [[1], [pytest.approx(1.13)]]
    assert all(a.get_zorder() > 3 and list(a.get_ydata()) == [-1.5] for a in arrows)
    assert [t.get_text() for t in ax.texts] == ["-3.49\n5 of 6 seeds"]
    assert [-3.49] == [a.get_ydata()[-1] for a in ax.get_lines() if len(a.get_xdata()) == 2 and a.get_alpha()]


def test_a_line_says_how_many_of_its_seeds_lie_beyond_the_axis() -> None:
    rows = pd.DataFrame([line("a", -0.1, -1.39, 3.8, [-0.3, -7.0, 0.2, 4.0]), line("b", 0.5, 0.4, 0.6, [0.4, 0.6])])
    ax = drawing.canvas(7, 3)[1][0, 0]
    figures.forest(ax, rows, LIMITS)
    assert [t.get_text() for t in ax.texts] == ["x\n2 of 4 seeds beyond", "x"]
    shown = {m: len(points(ax, m)) for m in "<>"}
    assert shown == {"<": 1, ">": 2}  # the interval's lower end is within


def test_what_is_not_drawn_does_not_widen_the_axis() -> None:
    rows = pd.DataFrame([line("a", 0.5, 0.4, 0.6, [0.4, 0.6]), line("b", np.nan, np.nan, np.nan, [-9.0, 9.0])])
    assert marks.limited(rows) == pytest.approx((-0.15, 1.15)) and not marks.outside(rows, marks.limited(rows))


def test_numbers_of_neighbouring_lines_beyond_the_axis_stand_apart() -> None:
    rows = pd.DataFrame([line(n, 0.1, low, 0.5, []) for n, low in (("a", -4.0), ("b", -3.0))])
    ax = drawing.canvas(7, 3)[1][0, 0]
    drawing.trend(ax, rows, ["#123456", "#654321"], limits=LIMITS)
    assert [(t.get_text(), t.get_ha()) for t in ax.texts] == [("to -4.00", "right"), ("to -3.00", "left")]


def test_a_method_has_one_colour_in_all_its_rounds_and_no_other_has_it() -> None:
    rounds = {m: {drawing.colour(f"{m}_{k}", k) for k in range(1, 5)} for m in ("no_red_team", "iterated_dpo")}
    rounds["selfmoa"] = {drawing.colour(f"selfmoa_iter{k}", k) for k in range(1, 5)}
    assert all(len(tones) == 1 for tones in rounds.values())
    first = {m: drawing.colour(f"{m}_1" if m in rounds else m, 0) for m in (*CONTROLS, "aligned", "reset", "human_dpo")}
    others = [*first.values(), drawing.colour("selfmoa_iter1", 0), drawing.colour("human_modpo", 0)]
    assert len(set(others)) == len(others)


def test_many_lines_across_have_their_intervals_at_the_end_and_no_bands() -> None:
    across = [line(n, m, m - 20, m + 20, [], np.nan) for n, m in (("a", 30), ("b", 40), ("c", 50))]
    ax = drawing.canvas(7, 3)[1][0, 0]
    rows = pd.DataFrame([line("d", 10, 5, 15, [], 0), *across])
    drawing.trend(ax, rows, list("rgbk"))
    drawing.ticks(ax, rows)
    assert not ax.patches and len({x for x, _ in points(ax, "o") if x > 0.5 - 1e-9}) == 3
    assert max(x for x, _ in points(ax, "o")) < ax.get_xlim()[1]


def test_only_what_a_training_ended_in_is_crossed(loop: dict) -> None:
    """A seed that lags behind in the second iterate comes on in the third: its training did not collapse."""
    rows = [r | {"collapsed": [1]} if r["method"].startswith("selfmoa") else r for r in loop["rows"]]
    table = loop_tidy.of_dataset({**loop, "rows": rows}, "attack", "unsafe_rate")
    assert [r["method"] for r in table.to_dict("records") if marks.lost_values(r)] == ["selfmoa_iter3"]
    fig = loop_figures.by_stage(table)
    assert len(points(fig.axes[0], "x")) == 1 and "crossed: a training" in " ".join(fig.get_supxlabel().split())


def test_methods_stand_in_one_order_and_say_their_seeds_where_these_differ() -> None:
    frame = predictions(seeds=(0, 1, 2, 3), accuracy=ACCURACY)
    votes = frame["method"].str.endswith("_vote")
    frame = pd.concat([frame[~votes], frame[votes & (frame["seed"] < 3)]])  # the ceiling before the votes
    rows = tidy.scores(built(frame))
    assert list(rows["method"]) == list(ACCURACY)
    assert rows.attrs["foot"].startswith("Synthetic testbed. 3 to 4 seeds, 900 to 1,200 test items; ")
    ax = figures.intervals(rows, "x").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()][1:3] == ["Naive W2S (4 seeds)", "W2S hard vote (3 seeds)"]
    same = wording.sample_text([{"seeds": [1], "n_items": 5}, {"seeds": [2], "n_items": 4}])
    assert same == "1 seed, 5 test items" and wording.sample_text([]) == "0 seeds, 0 test items"


def test_numbers_of_the_stages_touch_no_mark_and_axes_have_units(loop: dict) -> None:
    for dataset, metric, label in (
        ("attack", "unsafe_rate", "Unsafe rate (%),\nlower is better"),
        ("safe", "helpfulness", "Helpfulness (score, 0 to 1)"),
    ):
        fig, axes = drawing.canvas(3.7, 2.7)
        ax, rows = axes[0, 0], loop_tidy.of_dataset(loop, dataset, metric)
        loop_figures.stages(ax, rows)
        assert ax.get_ylabel() == label
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        boxes = [t.get_window_extent(canvas.get_renderer()) for t in ax.texts if isinstance(t, Annotation)]
        seeds = [a for a in ax.get_lines() if a.get_markerfacecolor() == "white" and len(a.get_xdata())]
        at = [ax.transData.transform((x, y)) for a in seeds for x, y in zip(a.get_xdata(), a.get_ydata(), strict=True)]
        room = 2.5 * fig.dpi / 72
        assert boxes and at
        assert not any(b.x0 - room < x < b.x1 + room and b.y0 - room < y < b.y1 + room for b in boxes for x, y in at)


def test_a_seed_without_a_share_is_accounted_for(loop: dict) -> None:
    stages = [s for s in loop["judges_by_stage"] if s["dataset"] == "every attack set"]
    last = next(s for s in stages if s["method"] == "selfmoa_iter3")
    empty = [{"tp": 0, "fn": 0, "tn": 40, "fp": 0}, *last["counts_by_seed"][1:]]
    changed = [{**s, "counts_by_seed": empty} if s is last else s for s in loop["judges_by_stage"]]
    foot = tidy_judges.trusted({**loop, "judges_by_stage": changed}).attrs["foot"]
    assert foot.endswith("; Iter. 3: 1 of 3 seeds without unsafe answers, no point")
    assert "no point" not in tidy_judges.trusted(loop).attrs["foot"]
