"""The report: results.json from predictions, and tables, figures and pages from results.json alone."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zlib
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scipy.special import ndtri

from underseer.maths import differences, metrics
from underseer.maths.prevalence import wilson
from underseer.report import (
    collect,
    compare,
    compared,
    figures,
    links,
    markup,
    page,
    paper,
    scores,
    tables,
    tables_ledger,
    tabulate,
    tidy,
    wording,
)
from underseer.report.headline import first_screen, headline
from underseer.report.results import (
    Experiment,
    build_results,
    load_results,
    metric_rows,
    pgr_rows,
    save_results,
    strict,
)

ACCURACY = {"weak": 0.80, "w2s_naive": 0.86, "w2s_hard_vote": 0.87, "w2s_soft_vote": 0.87, "strong_ceiling": 0.95}
VARIANTS = {"w2s_naive": "none", "w2s_hard_vote": "hard", "w2s_soft_vote": "soft"}
EVIL = "<script>alert(1)</script> & 100% of $x_1 | {y} \\ ~^#"


def predictions(seeds=(0, 1, 2), n: int = 300, accuracy=ACCURACY, seed_sd: float = 0.02) -> pd.DataFrame:
    rng, parts = np.random.default_rng(0), []
    for s in seeds:
        ids = [hashlib.sha256(f"{s}-{i}".encode()).hexdigest()[:16] for i in range(n)]
        y, difficulty = rng.integers(0, 2, n), rng.normal(0, 0.7, n)
        for method, a in accuracy.items():
            skill = ndtri(a) + rng.normal(0, seed_sd) + difficulty + rng.normal(0, 0.71, n)
            variant = json.dumps({"voting": VARIANTS[method]} if method in VARIANTS else {})
            p = 1 / (1 + np.exp(-1.8 * np.where(y == 1, skill, -skill)))
            parts.append(
                pd.DataFrame(
                    {"method": method, "variant": variant, "seed": s, "dataset": "test", "id": ids, "label": y, "p": p}
                )
            )
    return pd.concat(parts, ignore_index=True)


def weak_labels(frame: pd.DataFrame) -> pd.DataFrame:
    names = {"weak": "single", "w2s_hard_vote": "hard", "w2s_soft_vote": "soft"}
    part = frame[frame["method"].isin(names)]
    return part.assign(vote=part["method"].map(names)).drop(columns=["method", "variant", "dataset"])


def built(frame: pd.DataFrame, synthetic: bool = True, **options) -> dict:
    name = "demo/w2s_safety" if synthetic else "cpu/w2s_safety"
    spent = {f"w2s/4_student/k{i}": {"tokens_trained": 100, "seconds": 1.5, "peak_memory_mb": 10 + i} for i in range(3)}
    facts = {"commit": "abc", "params": {"evil": EVIL}}
    return of_task("safety", frame, name=name, synthetic=synthetic, cost=spent, provenance=facts, **options)


def of_task(task: str, frame: pd.DataFrame, **options) -> dict:
    """options: of the experiment, and of `build_results`."""
    own = {k: options.pop(k) for k in ("labels", "classes") if k in options}
    return build_results(Experiment(pipeline="w2s", task=task, **options), frame, n_boot=300, **own)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return predictions()


@pytest.fixture(scope="module")
def results(frame) -> dict:
    hygiene = pd.DataFrame(
        {"check": ["exact duplicates", EVIL], "scope": ["all", "a / b"], "rows": [4, 0], "share": [0.01, np.nan]}
    )
    curves = pd.DataFrame({"method": "weak", "seed": 0, "step": [0, 1], "metric": "loss", "value": [0.7, 0.5]})
    texts = dict.fromkeys(frame["id"], EVIL)
    return built(frame, labels=weak_labels(frame), hygiene=hygiene, curves=curves, texts=texts, notes=[EVIL])


def test_schema_and_strict_json(results, tmp_path):
    for key in ("schema", "name", "pipeline", "task", "synthetic", "rows", "pgr", "cost", "provenance"):
        assert key in results
    row = results["rows"][0]
    assert row["method"] == "weak"
    assert row["dataset"] == "test"
    assert row["metric"] == "accuracy"
    assert row["seeds"] == [0, 1, 2]
    assert row["mean"] == pytest.approx(np.mean(row["values"])) and row["ci95"][0] < row["mean"] < row["ci95"][1]
    save_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results
    assert results["hygiene"][1]["share"] is None
    assert strict({"a": np.float32("inf"), "b": (np.int64(2),)}) == {"a": None, "b": [2]}


def test_every_number_is_that_of_the_predictions(frame, results):
    for row in results["rows"]:
        for seed, value in zip(row["seeds"], row["values"], strict=True):
            part = frame[(frame["method"] == row["method"]) & (frame["seed"] == seed)]
            expected = metrics.classification_metrics(part["label"], part["p"])[row["metric"]]
            assert value == pytest.approx(expected, abs=1e-9)


def test_row_order_changes_nothing(frame, results):
    order = frame.assign(k=frame["method"].map({m: k for k, m in enumerate(ACCURACY)}))
    shuffled = order.sample(frac=1, random_state=1).sort_values("k", kind="stable").drop(columns="k")
    assert built(shuffled)["rows"] == results["rows"]


def test_pgr_of_each_seed_and_of_the_means(results):
    acc = {r["method"]: r for r in results["rows"] if r["metric"] == "accuracy"}
    row = next(r for r in results["pgr"] if r["method"] == "w2s_naive" and r["metric"] == "accuracy")
    weak, w2s, top = (np.array(acc[m]["values"]) for m in ("weak", "w2s_naive", "strong_ceiling"))
    assert row["values"] == pytest.approx((w2s - weak) / (top - weak))
    assert row["mean"] == pytest.approx((w2s.mean() - weak.mean()) / (top.mean() - weak.mean()), abs=1e-6)
    assert row["ci95"][0] < row["mean"] < row["ci95"][1]


def test_pgr_is_null_where_the_ceiling_is_not_above_the_weak_model():
    found = built(predictions(accuracy=ACCURACY | {"strong_ceiling": 0.70}))
    rows = [r for r in found["pgr"] if r["metric"] == "accuracy"]
    assert rows and all(r["mean"] is None and r["ci95"] is None and "undefined" in r["note"] for r in rows)
    assert "undefined" in tables.scores(found).shown["PGR (accuracy)"].tolist()
    assert any("not above" in n for n in found["notes"])
    assert set(tables.pgr(found).shown["Accuracy"]) == {"undefined"}
    assert [t.get_text() for t in figures.gaps(tidy.gaps(found), "accuracy").axes[0].texts].count("undefined") == 6


def test_better_is_said_only_where_the_tests_say_so(results):
    many = built(predictions(seeds=range(8), n=200))["tests"]["rows"]
    by_pair = {(t["a"], t["b"]): t for t in many}
    assert by_pair["strong_ceiling", "weak"]["better"] == by_pair["w2s_naive", "weak"]["better"] == "a"
    stated = [t for t in many if t["family"] == "primary"]
    assert [(t["a"], t["b"]) for t in stated] == [("w2s_naive", "weak"), ("strong_ceiling", "w2s_naive")]
    assert many[:2] == stated
    for t in (*results["tests"]["rows"], *many):
        assert t["test"] == "seeds_and_items" and t["p_holm"] >= t["p"] and len(t["mcnemar_p"]) == len(t["seeds"])
        for shown, p in (("ci95", t["p"]), ("ci95_holm", t["p_holm"])):
            assert (p < 0.05) == (not t[shown][0] <= 0 <= t[shown][1])
        assert (t["better"] is not None) == (t["p_holm"] < 0.05)
        assert t["ci95_holm"][0] <= t["ci95"][0] and t["level_holm"] >= 0.95 and t["smallest_effect"] > 0
    equal = built(predictions(accuracy=dict.fromkeys(ACCURACY, 0.8)))
    assert not any(t["better"] for t in equal["tests"]["rows"]) and "etter than" not in " ".join(headline(equal))


def test_one_seed_covers_items_only_and_says_so(frame):
    found = built(frame[frame["seed"] == 1])
    assert {t["test"] for t in found["tests"]["rows"]} == {"items_only"}
    assert "nothing about another training" in found["tests"]["rule"] and "seeds by" not in found["tests"]["rule"]
    assert found["interval"]["covers"] == "test items only (one seed)"
    group = {m: p.sort_values("id") for m, p in frame[frame["seed"] == 1].groupby("method")}
    right = {m: ((p["p"] >= 0.5) == p["label"]).to_numpy() for m, p in group.items()}
    test = next(t for t in found["tests"]["rows"] if (t["a"], t["b"]) == ("w2s_naive", "weak"))
    exact = differences.mcnemar(right["w2s_naive"], right["weak"])
    assert test["mcnemar_p"] == [pytest.approx(exact)] and test["p"] == pytest.approx(exact, rel=0.5)


def test_every_seed_has_its_own_interval_and_a_lost_training_is_named(frame):
    chance = (frame["method"] == "w2s_naive") & (frame["seed"] == 2)
    coins = np.random.default_rng(0).random(chance.sum())
    lost = frame.assign(p=frame["p"].mask(chance, pd.Series(coins, frame.index[chance])))
    rows = {r["method"]: r for r in built(lost)["rows"] if r["metric"] == "accuracy"}
    assert rows["w2s_naive"]["collapsed"] == [2] and rows["weak"]["collapsed"] == []
    row = rows["w2s_naive"]
    assert row["median"] == pytest.approx(np.median(row["values"])) and row["median"] > row["mean"]
    for value, (lo, hi) in zip(row["values"], row["seed_ci95"], strict=True):
        assert [lo, hi] == pytest.approx(wilson(300 * value, 300)) and lo < value < hi


def test_repeated_rows_and_further_data_sets(frame):
    twice = pd.concat([frame, frame.iloc[:200].assign(dataset="test_clean"), frame.iloc[:5]])
    with_repeats = twice[twice["method"] == "weak"]
    found = built(with_repeats)
    assert {r["dataset"] for r in found["rows"]} == {"test", "test_clean"}
    assert found["pgr"] == []
    assert found["case_study"] is None
    assert next(r["n_items"] for r in found["rows"]) == 900


def test_a_student_is_compared_with_the_weak_model_of_its_own_variant():
    def one(method, variant, accuracy):
        return predictions((0,), 200, {method: accuracy}).assign(method=method, variant=json.dumps(variant))

    rows = [one("weak", {"n": 10}, 0.6), one("weak", {"n": 99}, 0.8), one("strong_ceiling", {}, 0.95)]
    rows += [one("w2s_naive", {"n": n, "voting": "none"}, 0.9) for n in (10, 99)]
    groups = scores.score(pd.concat(rows), n_boot=50)
    for student in groups[-2:]:
        assert scores.reference(groups, student, "weak").variant == {"n": student.variant["n"]}
    assert len({r["mean"] for r in pgr_rows(groups) if r["metric"] == "accuracy"}) == 2
    assert wording.row_names([{"method": g.method, "variant": g.variant} for g in groups])[:2] == [
        "Weak supervisor (n = 10)", "Weak supervisor (n = 99)",
    ]  # fmt: skip


def test_bootstrap_draws_are_paired_and_follow_the_weights(frame):
    groups = scores.score(frame[frame["seed"] == 0], n_boot=500)
    weak, top = groups[0], groups[-1]
    assert np.corrcoef(weak.boot["accuracy"][:, 0], top.boot["accuracy"][:, 0])[0, 1] > 0.1
    share = weak.values["accuracy"][0]
    assert weak.boot["accuracy"].std() == pytest.approx(np.sqrt(share * (1 - share) / 300), rel=0.15)
    assert [r["metric"] for r in metric_rows(weak)] == list(metrics.METRICS)


def test_case_study_follows_its_rule(frame, results):
    case = results["case_study"]
    part = frame[frame["seed"] == 0].pivot(index="id", columns="method", values="p").sort_index()
    truth = frame[(frame["seed"] == 0) & (frame["method"] == "weak")].set_index("id")["label"].sort_index()
    fits = ((part["weak"] >= 0.5) != truth) & ((part["strong_ceiling"] >= 0.5) == truth)
    assert case["id"] == fits[fits].index[0] and case["n_candidates"] == fits.sum() and case["text"] == EVIL


@pytest.mark.parametrize(("label", "truth"), [(1, "unsafe"), (0, "safe")])
def test_text_of_real_data_is_not_kept_and_shown_only_on_request(frame, tmp_path, shown, label, truth):
    part = frame[frame["label"] == label]
    texts = dict.fromkeys(part["id"], "a very unsafe thing")
    found = built(part, synthetic=False, texts=texts)
    assert found["case_study"]["redacted"] and "very unsafe" not in json.dumps(found)
    page.Page(found, tmp_path).case_study()
    redacted = f"[redacted prompt, 4 words, truth {truth}, id {found['case_study']['id']}]"
    assert redacted in "".join(shown) and "very unsafe" not in "".join(shown)
    asked = page.Page(found, tmp_path, texts)
    asked.header()
    asked.case_study()
    assert "a very unsafe thing" in "".join(shown) and "Do not publish" in "".join(shown)


def test_published_values_never_stand_beside_synthetic_ones(frame):
    published = {"source": "Figure 1", "values": {"weak": {"accuracy": 0.802}}}
    assert built(frame, published=published)["published"] is None
    real = built(frame, synthetic=False, published=published)
    assert tables.scores(real).shown["Published accuracy, %"].tolist() == ["80.2", "", "", "", ""]
    assert "Published accuracy, %" not in tables.scores(built(frame)).shown.columns


def clustered(frame: pd.DataFrame, size: int = 5) -> pd.DataFrame:
    """Rows in groups of `size`, as clauses of one question."""
    number = frame.groupby(["method", "variant", "seed"]).cumcount() // size
    return frame.assign(cluster="q" + frame["seed"].astype(str) + "-" + number.astype(str))


def legal(frame: pd.DataFrame, synthetic: bool = False, **options) -> dict:
    return of_task("legal", frame, name="paper/w2s_legal", synthetic=synthetic, **options)


def test_rows_of_a_cluster_are_drawn_together(frame):
    """Five copies of each row are no more evidence than one: intervals and tests are those of the single rows."""
    one = frame[frame["seed"] == 0]
    copies = pd.concat([one.assign(id=one["id"] + f"-{k}", cluster=one["id"]) for k in range(5)])
    single, repeated = (scores.score(f, n_boot=300) for f in (one, copies))
    for a, b in zip(single, repeated, strict=True):
        assert b.n_items == 300 == a.n_items and b.clustered and not a.clustered
        assert b.boot["accuracy"] == pytest.approx(a.boot["accuracy"])
        assert b.values["f1"] == pytest.approx(a.values["f1"])
    alone, tests = legal(one)["tests"]["rows"], legal(copies)["tests"]["rows"]
    assert all(t["mcnemar_p"] == [] for t in tests) and all(len(t["mcnemar_p"]) == 1 for t in alone)
    for a, b in zip(alone, tests, strict=True):
        assert b["n_items"] == 300 and b["difference"] == pytest.approx(a["difference"])
        assert b["p"] == pytest.approx(a["p"], rel=1e-3)


def test_items_that_differ_are_counted_by_cluster(frame):
    rows = clustered(frame[frame["seed"] == 0])
    a, b = scores.score(rows[rows["method"].isin(["weak", "strong_ceiling"])], n_boot=10)
    right = (rows["p"] >= 0.5) == rows["label"]
    by_cluster = rows.assign(right=right.astype(float)).pivot_table("right", "cluster", "method", aggfunc="sum")
    expected = (by_cluster["strong_ceiling"] != by_cluster["weak"]).sum()
    assert compare._n_differ([b.outcomes(0) - a.outcomes(0)], [a.items[0]]) == expected > 0


def test_questions_are_counted_as_such(frame):
    found = legal(clustered(frame))
    row = found["rows"][0]
    assert (row["n_items"], row["n_rows"], row["unit"]) == (180, 900, "questions")
    assert found["interval"]["covers"] == "seeds and test questions"
    foot = tidy.scores(found).attrs["foot"]
    assert foot == "3 seeds, 180 test questions with 900 rows; 95 % intervals over seeds and test questions"
    assert "questions" in found["tests"]["rule"] and "McNemar" not in found["tests"]["rule"]


def test_malformed_clusters_are_refused(frame):
    rows = clustered(frame[frame["seed"] == 0])
    with pytest.raises(ValueError, match="have no cluster"):
        scores.score(rows.assign(cluster=rows["cluster"].where(rows["method"] == "weak")))
    with pytest.raises(ValueError, match="stands in 2 clusters"):
        scores.score(rows.assign(cluster=rows["cluster"].mask(rows["method"] == "weak", "other")))


PUBLISHED = {
    "source": "Figure 1",
    "note": "read off",
    "values": {"weak": {"accuracy": 0.802, "balanced_accuracy": 0.806, "f1": 0.801}},
}


def test_figure_1_of_the_legal_task(frame):
    found = legal(clustered(frame), published=PUBLISHED)
    table = tables.figure1(found)
    assert table.shown["Published accuracy, %"].tolist() == ["80.2", "", "", "", ""]
    assert table.shown["Accuracy, %"].tolist()[0] == wording.with_interval(found["rows"][0], "accuracy")
    behind = links.cells(table.rows[0], "F1 (weighted), %")
    assert behind == links.address({"dataset": "test", "method": "weak", "metric": "f1"}) and "method=weak" in behind
    bars = figures.figure1(tidy.figure1(found)).axes[0].patches
    assert len(bars) == 3 * (5 + 1) and sum(bool(b.get_hatch()) for b in bars) == 3
    of = {r["metric"]: 100 * r["mean"] for r in found["rows"] if r["method"] == "strong_ceiling"}
    assert {round(b.get_height(), 6) for b in bars} >= {round(of[m], 6) for m in tidy.FIGURE1} | {80.2, 80.6, 80.1}
    assert "Hatched: published values (Figure 1; read off)" in table.caption
    synthetic = legal(clustered(frame), synthetic=True, published=PUBLISHED)
    assert len(figures.figure1(tidy.figure1(synthetic)).axes[0].patches) == 15
    assert "Hatched" not in tables.figure1(synthetic).caption
    assert figures.figure1(tidy.figure1(built(frame))) is None and tables.figure1(built(frame)) is None


def test_results_name_their_primary_metric(results):
    assert results["primary_metric"] == "accuracy"
    old = {k: v for k, v in results.items() if k != "primary_metric"}
    assert headline(old) == headline(results)
    assert tables.scores(old).shown.equals(tables.scores(results).shown)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("w2s_naive", "Naive W2S"),
        ("w2s_best_of_b", "W2S best of B"),
        ("w2s_least_toxic", "W2S least toxic"),
        ("w2s_mbr", "W2S MBR"),
        ("w2s_filtered_ce", "W2S hard vote, filtered CE"),
        ("w2s_hard_vote_weighted_ce", "W2S hard vote, weighted CE"),
        ("w2s_new_thing", "W2S new thing"),
        ("selfmoa_iter1", "Self-MOA, iteration 1"),
    ],
)
def test_names_of_methods(method, name):
    assert wording.method_name(method) == name


def test_files_of_a_report(rendered, results):
    names = (
        "scores",
        "pgr",
        "primary_tests",
        "seeds",
        "tests",
        "label_quality",
        "label_tests",
        "hygiene",
        "case_study",
        "cost",
    )
    plots = ("scores", "pgr", "label_quality", "confusion", "calibration", "curves")
    assert {p.name for p in (rendered / "tables").iterdir()} == {
        f"{n}.{e}" for n in names for e in ("csv", "md", "tex")
    }
    assert {p.name for p in (rendered / "figures").iterdir()} == {
        f"{n}{e}" for n in plots for e in (".png", ".pdf", "_column.pdf", ".txt")
    }
    assert "3 seeds, 900 test items" in (rendered / "figures" / "scores.txt").read_text()
    rows = list(csv.DictReader((rendered / "tables" / "scores.csv").open()))
    assert [float(r["mean"]) for r in rows] == pytest.approx([r["mean"] for r in results["rows"]])
    assert load_results(rendered / "results.json") == results


def test_figures_of_a_paper_are_one_or_two_columns_wide_with_readable_type(rendered):
    """What was saved is read: each page's width, and the size of all type on it."""
    for file in (rendered / "figures").glob("*.pdf"):
        written = file.read_bytes()
        streams = re.findall(rb"FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", written, re.DOTALL)
        sizes = [float(size) for s in streams for size in re.findall(rb"/F\S+ ([\d.]+) Tf", zlib.decompress(s))]
        width = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", written)[1]) / 72
        assert width == pytest.approx(3.3 if file.stem.endswith("_column") else 6.9), file.name
        assert sizes and min(sizes) >= 7, file.name


def test_a_figure_of_one_column_keeps_names_and_numbers_inside(results):
    rows = tidy.scores(results)
    bins = pd.concat([tidy.calibration(results).assign(panel=name) for name in "abcde"])
    bins.attrs = tidy.calibration(results).attrs
    for figure, columns in (
        (figures.intervals(rows, "Accuracy (%)"), 1),
        (figures.reliability(bins, "Said", "Seen"), 2),
    ):
        fitted = paper.fitted(figure, 3.3)
        canvas = FigureCanvasAgg(fitted)
        canvas.draw()
        assert {ax.get_subplotspec().get_gridspec().ncols for ax in fitted.axes} == {columns}
        shown = [t for t in fitted.findobj(Text) if t.get_text() and t.get_visible() and t.get_text()[0].isalnum()]
        names = [t for t in shown if not t.get_text().replace(".", "").isdigit()]  # ticks beyond an axis are not drawn
        boxes = [t.get_window_extent(canvas.get_renderer()) for t in names]
        assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= 331 and b.y1 <= fitted.bbox.height + 1 for b in boxes)
        assert {t.get_text() for t in names} >= (
            set(rows["name"]) | set(rows["text"]) if columns == 1 else set("abcde")
        )
    assert figure.get_figwidth() > 10, "the figure itself stays as it is"


def test_pages_escape_and_stand_alone(rendered):
    html = (rendered / "index.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "Synthetic testbed" in html and "no reproduction of a published number" in html
    outside = [
        u for u in re.findall(r'(?:src|href)="([^"]+)"', html) if not u.startswith(("#", "data:", "../index.html"))
    ]
    files = {u.partition("#")[0] for u in outside}
    assert all(
        (rendered / u).is_file() for u in files - {links.ROWS, links.STAGES}
    )  # these two are published beside it
    assert files >= {links.ROWS, links.STAGES, "results.json"}


def test_a_number_leads_to_its_rows(results, rendered):
    """Of a method, a data set and what the number counts; a recovered gap to what the student gained."""
    html = (rendered / "index.html").read_text()
    naive = next(r for r in results["rows"] if r["method"] == "w2s_naive" and r["metric"] == "accuracy")
    place = "rows.html#part=test&method=w2s_naive&is=right&variant=%7B%22voting%22%3A%22none%22%7D"
    assert links.address(naive) == place
    number = wording.with_interval(naive, "accuracy")
    assert f'<a href="{place.replace("&", "&amp;")}">{number}</a>' in html
    first = html[html.index('<div class="first">') : html.index('id="asked"')]
    assert re.findall(r"is=(\w+)", first) == ["right", "right", "gained"] and first.count("<img") == 1
    assert number.split()[0] in first and "Naive W2S against weak supervisor" in first
    label = results["label_quality"]["rows"][0]
    assert links.address(label).startswith(f"rows.html#part=transfer&method=vote_{label['method']}")


def test_rendering_again_gives_the_same_bytes(rendered, tmp_path, shown):
    results = load_results(rendered / "results.json")
    again = page.Page(results, tmp_path)
    again.figure(figures.intervals(tidy.scores(results), figures.axis_label("accuracy")), "scores", "Accuracy", "x")
    again.table(tables.scores(results))
    made = [p for p in sorted(tmp_path.rglob("*")) if p.is_file() and p.suffix != ".txt"]
    assert {p.suffix for p in made} == {".csv", ".md", ".tex", ".png", ".pdf"}
    for path in made:
        assert path.read_bytes() == (rendered / path.relative_to(tmp_path)).read_bytes(), path.name


def test_a_page_is_what_its_notebook_shows(rendered):
    """Sections without output are left out; the code of a figure is there, folded; the stage's own cells are not."""
    html = (rendered / "index.html").read_text()
    assert "<h2>Scores</h2>" in html and "<h2>Fluency and diversity</h2>" not in html
    assert "<h2>Ablation</h2>" not in html
    assert html.index("What was found") < html.index("<h2>Scores</h2>")
    assert "figures.intervals(rows, figures.axis_label(metric))" in html and "run.finish()" not in html


def test_exploratory_results_say_so_on_their_face(frame, tmp_path, shown):
    found = built(frame[frame["seed"] == 0])
    assert not any("xploratory" in s for s in headline(found)) and "xploratory" not in tables.scores(found).caption
    marked = {**found, "provenance": {**found["provenance"], "exploratory": True}}
    page.Page(marked, tmp_path).header()
    assert "<h1>demo/w2s_safety (exploratory)</h1>" in shown[0] and wording.EXPLORATORY in shown[0]
    assert headline(marked)[0].startswith("Exploratory: ")
    assert tidy.scores(marked).attrs["foot"].startswith("Exploratory")
    assert wording.EXPLORATORY_SHORT in tables.scores(marked).caption
    folder = tmp_path / "mine" / "w2s_safety"
    folder.mkdir(parents=True)
    save_results(marked, folder / "results.json")
    page.write(nbformat.v4.new_notebook(), folder)
    assert "<title>demo/w2s_safety (exploratory)" in (folder / "index.html").read_text()
    page.write_index(tmp_path, "mine")
    assert '<span class="tag">exploratory</span>' in (tmp_path / "mine" / "index.html").read_text()


def test_an_interval_that_goes_on_beyond_the_axis_ends_in_an_arrow(results):
    rows = tidy.gaps(results)
    wide = rows.assign(low=[-20.4, *rows["low"][1:]])
    wide.attrs = rows.attrs
    ax = figures.gaps(wide, "accuracy").axes[0]
    assert ax.get_xlim()[0] == -1.5 and [line.get_marker() for line in ax.get_lines()].count("<") == 1
    assert "arrow" in ax.figure.get_supxlabel() and "arrow" not in figures.gaps(rows, "accuracy").get_supxlabel()
    seeds = [line for line in ax.get_lines() if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    assert [len(line.get_xdata()) for line in seeds] == [len(v) for v in rows["values"]]


def test_a_document_that_a_page_names_stands_beside_it_as_a_page(results, tmp_path, shown):
    seeds = {"set": "reporting", "values": [10, 11], "tuned_on": [0], "choices": "docs/tuning.md"}
    seen = {**results, "provenance": {**results["provenance"], "seeds": seeds}}
    page.Page(seen, tmp_path).header()
    assert '(<a href="docs/tuning.html">docs/tuning.md</a>)' in shown[0]
    assert links.documented("<b> docs/none.md") == "&lt;b&gt; docs/none.md"
    save_results(seen, tmp_path / "results.json")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("page.header()")])
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/html": shown[0]})]
    page.write(notebook, tmp_path)
    document = (tmp_path / "docs" / "tuning.html").read_text()
    assert "<table>" in document and 'href="../index.html"' in document and "](" not in document


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        (r"so $\hat y_i \ge \tfrac12$", '<mover accent="true"><mi>y</mi><mo>^</mo></mover>'),
        ("$$\\mathcal{L} =\n\\frac{1}{n}$$", 'display="block"'),
        (r"$\mathbb{1}[f > t]$", "<mn>\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}</mn>"),
        (r"$\text{<img>}$", "<mtext>&lt;img&gt;</mtext>"),
        (r"$x_$", "<code>x_</code>"),
        ("<script>a</script>", "&lt;script&gt;a&lt;/script&gt;"),
        ("`$x$` [1. Data](1_data.ipynb), [a](javascript:b)", '<code>$x$</code> 1. Data, <a href="#harmful-link">a</a>'),
    ],
)
def test_formulas_are_mathml_and_texts_are_escaped(text, shows):
    html = markup.markdown(text)
    assert shows in html and "<img" not in html and "<script" not in html


def test_profile_page_leads_to_each_experiment(rendered):
    reports = rendered.parent.parent
    page.write_index(reports, "demo")
    html = (reports / "demo" / "index.html").read_text()
    assert 'href="w2s_safety/index.html"' in html and "<td>finished" in html
    assert "running" not in html.split("</style>")[1]
    sentence, numbers = first_screen(load_results(rendered / "results.json"))
    assert f"<td>{sentence}</td>" in html and all(f">{n.value}</a></b> {n.interval}" in html for n in numbers)
    page.write_index(reports, "demo", ["demo/w2s_safety: 3 of 4 stages done"])
    html = (reports / "demo" / "index.html").read_text()
    assert "<td>running again" in html and "Still running: demo/w2s_safety: 3 of 4 stages done" in html
    assert 'href="demo/index.html"' in (reports / "index.html").read_text()
    page.write_index(reports, "empty")
    assert "No experiment" in (reports / "empty" / "index.html").read_text()


def test_escaping_of_tables():
    table = tabulate.Table("x_y", "X", EVIL, pd.DataFrame({"a_b": [EVIL], "n": ["1.0"]}), pd.DataFrame())
    tex = tabulate.tex(table)
    assert r"100\% of \$x\_1 | \{y\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#" in tex
    assert "}S[table-format=1.1]}" in tex and r"\toprule" in tex and r"\caption{X.}" in tex
    cell = tabulate.markdown(table).splitlines()[2]
    assert "<script>" not in cell and r"\|" in cell
    html = tabulate.html(table)
    assert "<script" not in html and "&lt;script&gt;" in html and ".col1 {\n  text-align: right" in html


def test_ledgers_are_summed_by_stage():
    by_stage = tables_ledger.cost_by_stage(
        {"a/b/k1": {"seconds": 1, "peak_memory_mb": 5}, "a/b/k2": {"seconds": 2, "peak_memory_mb": 7}}
    )
    assert by_stage["a/b"] == {"instances": 2, "seconds": 3, "peak_memory_mb": 7} == by_stage["total"]
    assert tables_ledger.cost_by_stage({}) == {}
    assert tables_ledger.cost_by_stage({"seconds": 3}) == {"all stages": {"seconds": 3}}


def test_malformed_predictions_are_refused(frame):
    with pytest.raises(ValueError, match="missing: p"):
        scores.score(frame.drop(columns="p"))
    with pytest.raises(ValueError, match="0 and 1"):
        scores.score(frame.assign(label=3))


@pytest.mark.parametrize(
    ("metric", "least", "text", "could", "missed"),
    [
        ("accuracy", 0.125, "+3.0 points [-4.0, +10.0]", "12.5 points", "one below 12.5 points would be missed"),
        ("helpfulness", 0.0625, "+0.030 [-0.040, +0.100]", "0.062", "one below 0.062 would be missed"),
        ("accuracy", 1.7, "+3.0 points [-4.0, +10.0]", "nothing", "one of any size would be missed"),
        ("accuracy", None, "+3.0 points [-4.0, +10.0]", wording.DASH, ""),
    ],
)
def test_a_difference_has_the_interval_of_its_test_and_says_what_it_could_show(metric, least, text, could, missed):
    """The interval of one comparison alone, [+1, +5], is not shown: it would contradict 'no difference shown'. It ends where scores do,
    and results of an older version, which has no other, show the one that they have."""
    test = {"metric": metric, "difference": 0.03, "ci95": [0.01, 0.05], "seeds": [0, 1, 2], "better": None}
    tested = {**test, "ci95_holm": [-0.04, 0.1], "smallest_effect": least}
    assert compared.difference(tested) == text and compared.smallest(tested) == could
    assert compared.missed(tested) == missed and compared.missed({**tested, "better": "a"}) == ""
    wide = {"metric": "unsafe_rate", "difference": -0.76, "ci95": [-0.9, -0.6], "ci95_holm": [-2.4, 0.9]}
    assert compared.difference(wide) == "-76.0 points [-100.0, +90.0]"
    assert compared.difference({**test, "metric": "accuracy"}) == "+3.0 points [+1.0, +5.0]"
    assert compared.missed(test) == ""


def test_a_key_that_decides_nothing_for_one_seed_decides_nothing_for_another() -> None:
    """Votes have fewer seeds than the single supervisor; the ceiling, which knows no vote, stays one method of all seeds. Two
    instances of one seed stay two."""

    def cell(seed: int, voting: str, ceiling: str) -> dict:
        made = {"ceiling": ceiling, "student": f"{seed}{voting}"}
        return {
            "values": {"seed": seed, "voting": voting},
            "outputs": {r: SimpleNamespace(key=k) for r, k in made.items()},
        }

    cells = [cell(s, v, f"c{s}") for s, v in ((0, "none"), (0, "hard"), (1, "none"), (1, "hard"), (2, "none"))]
    texts = {r: [collect.variant_text(own) for own, _ in collect.once(cells, r)] for r in ("ceiling", "student")}
    assert texts["ceiling"] == ["{}"] * 3
    assert [json.loads(t)["voting"] for t in texts["student"]] == ["none", "hard", "none", "hard", "none"]
    cells.append(cell(0, "soft", "another"))
    assert [collect.variant_text(own) for own, _ in collect.once(cells, "ceiling")][-1] == '{"voting": "soft"}'
