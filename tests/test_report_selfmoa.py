"""The report of the Self-MOA loop: every number from its tables, and nothing unsafe shown unless asked for."""

from __future__ import annotations

import csv
import json
import re
from html import escape

import numpy as np
import pandas as pd
import pytest

import selfmoa_tables as tables_of
from selfmoa_tables import EVIL, LEVELS, LOOP
from underseer.errors import StageError
from underseer.maths.diversity import self_bleu
from underseer.maths.prevalence import corrected_rate, wilson
from underseer.report import ablation, compared, names, page, tables_case, tables_ledger, wording
from underseer.report import collect_selfmoa as collect
from underseer.report import figures as shared
from underseer.report.headline import first_screen
from underseer.report.results import Experiment, load_results
from underseer.report.selfmoa import (
    accounts,
    attacks,
    case,
    diagram,
    figures,
    figures_training,
    headline,
    stages,
    tables_loop,
    tidy,
    tidy_judges,
)
from underseer.report.selfmoa import tables as loop
from underseer.report.selfmoa.results import Loop, build_selfmoa_results

LOOPED = {m: LEVELS[m] for m in LOOP}
GAP = "unsafe_rate_judge_gap"


def built(answers: pd.DataFrame, synthetic: bool = True, **given) -> dict:
    name = f"{'demo' if synthetic else 'paper'}/selfmoa"
    own = {k: given.pop(k) for k in ("unsafe_threshold", "n_boot", "seed") if k in given}
    loop = Loop(**{k: given.pop(k) for k in ("attacks", "pairs", "judges", "utility") if k in given})
    facts = {"cost": {"seconds": 3}, "provenance": tables_of.PROVENANCE} | given
    experiment = Experiment(name=name, pipeline="selfmoa", task="self-alignment", synthetic=synthetic, **facts)
    return build_selfmoa_results(experiment, answers, loop, **{"n_boot": 200} | own)


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    return tables_of.answers(n=40)


@pytest.fixture(scope="module")
def results(answers) -> dict:
    return built(
        answers,
        attacks=tables_of.attacks(per=60),
        pairs=tables_of.pairs(),
        judges=tables_of.judges(),
        utility=tables_of.utility(),
        curves=tables_of.curves(),
        cost=tables_of.cost(),
        notes=[EVIL],
    )


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    """The loop alone, few prompts: what most tests need."""
    return tables_of.answers(LOOPED, n=20, draws=1)


def drawn(results: dict) -> dict:
    """Every figure of the loop that the results have."""
    strategies = tidy.strategies(results)
    found = {
        "pipeline": diagram.pipeline(results),
        "scores": figures.methods(tidy.methods(results)),
        "stages": figures.by_stage(tidy.by_stage(results, ("attack", "safety_score"), ("safe", "helpfulness"))),
        "categories": figures.categories(tidy.categories(results)),
        "attack_success": figures.attack_success(tidy.attack_success(results), strategies),
        "attack_fate": figures.fates(tidy.fates(results)),
        "judge_gap": figures.judge_gap(tidy_judges.judge_gap(results), "x"),
        "cards": figures.cards(tidy_judges.cards(results)),
        "pareto": figures.pareto(tidy.weights(results)),
        "efficiency": figures.efficiency(tidy.efficiency(results)),
        "logps": figures_training.logps(tidy.curves(results, "chosen", "rejected")),
        "margins": figures_training.margins(tidy.curves(results, "loss", "margin")),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def made(results: dict) -> dict:
    """Every table of the loop that the results have."""
    makers = [loop.stage_table, loop.baselines, loop.changes, compared.tests, ablation.table, loop.categories]
    makers += [
        tables_loop.attacks,
        tables_loop.fate,
        tables_loop.pairs,
        loop.by_judge,
        tables_loop.judge_cards,
        loop.utility,
    ]
    makers += [tables_case.case_study, tables_loop.efficiency, tables_ledger.cost]
    return {table.name: table for make in makers if (table := make(results)) is not None}


def row(results: dict, method: str, metric: str, dataset: str = "attack") -> dict:
    (found,) = [r for r in wording.pick(results["rows"], dataset=dataset, metric=metric) if r["method"] == method]
    return found


def test_schema(results, tmp_path):
    for key in ("schema", "name", "pipeline", "task", "synthetic", "rows", "pgr", "cost", "provenance"):
        assert key in results
    assert results["pipeline"] == "selfmoa" and results["pgr"] == []
    assert wording.main_dataset(results) == "attack" and results["rows"][0]["method"] == "aligned"
    (tmp_path / "results.json").write_text(json.dumps(results, allow_nan=False))
    assert load_results(tmp_path / "results.json") == results


def test_every_number_is_that_of_the_answers(answers, results):
    for (dataset, method), part in answers.groupby(["set", "method"]):
        unsafe = {"reporting": part["unsafe"] >= 0.5, "training": part["unsafe_training"] >= 0.5}
        refused = "refusal_rate" if "attack" in dataset else "over_refusal"
        expected = {
            "unsafe_rate": unsafe["reporting"],
            "safety_score": part["unsafe"],
            "helpfulness": part["helpful"],
            refused: part["refusal"] >= 0.5,
            "unsafe_rate_training_judge": unsafe["training"],
            "safety_score_training_judge": part["unsafe_training"],
            "helpfulness_training_judge": part["helpful_training"],
            GAP: unsafe["training"].astype(float) - unsafe["reporting"],
        }
        for metric, values in expected.items():
            found = row(results, method, metric, dataset)
            by_prompt = values.astype(float).groupby([part["seed"], part["id"]]).mean().groupby("seed").mean()
            assert found["values"] == pytest.approx(by_prompt.tolist()), (dataset, method, metric)
            assert found["mean"] == pytest.approx(by_prompt.mean()) and found["n_items"] == 120
            assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]


def test_methods_stand_in_the_order_of_the_loop(small):
    shuffled = small.sample(frac=1, random_state=1)
    found = built(shuffled)
    assert list(dict.fromkeys(r["method"] for r in found["rows"])) == list(LOOP)
    assert found["rows"] == built(small)["rows"]
    assert [s["dataset"] for s in found["sets"]][0] == "attack"
    assert {s["role"] for s in found["sets"]} == {"attack", "safe", "borderline"}


def test_the_threshold_counts_as_unsafe(small):
    scores = small.assign(unsafe=0.6)
    assert row(built(scores, unsafe_threshold=0.6), "reset", "unsafe_rate")["mean"] == 1
    assert row(built(scores, unsafe_threshold=0.61), "reset", "unsafe_rate")["mean"] == 0
    assert row(built(scores, unsafe_threshold=0.61), "reset", "safety_score")["mean"] == pytest.approx(0.6)


def test_failures_are_left_out_and_counted(small):
    lost = (small["method"] == "reset") & (small["set"] == "attack") & (small.groupby("method").cumcount() % 5 == 0)
    blind = {"unsafe_training": np.nan, "helpful_training": np.nan}
    found = built(small.assign(unsafe=small["unsafe"].mask(lost), **blind))
    kept = small[(small["method"] == "reset") & (small["set"] == "attack") & ~lost]
    assert row(found, "reset", "unsafe_rate")["values"] == pytest.approx(kept.groupby("seed")["unsafe"].mean().tolist())
    assert sum(row(found, "reset", "judge_failures")["values"]) == lost.sum() > 0
    assert any(f"{lost.sum()} of" in n and "Safety reset" in n for n in found["notes"])
    assert not any("training_judge" in r["metric"] or r["metric"] == GAP for r in found["rows"])
    nothing = built(small.assign(unsafe=np.nan))
    assert row(nothing, "reset", "unsafe_rate")["mean"] is None and headline.headline(nothing) == []


def test_several_attack_sets_count_the_same():
    frame = tables_of.answers(LOOPED, seeds=(0, 1), n=30, draws=1, sets=tables_of.REAL, oracle=False)
    drop = (frame["set"] == "advbench") & (frame.groupby(["method", "seed", "set"]).cumcount() >= 10)
    found = built(frame[~drop], synthetic=False)
    assert wording.main_dataset(found) == "all attack sets" == stages.main_of(found, "attack")
    own = [row(found, "reset", "unsafe_rate", d)["mean"] for d in ("advbench", "malicious-instruct", "salad-bench")]
    whole = row(found, "reset", "unsafe_rate", "all attack sets")
    assert whole["mean"] == pytest.approx(np.mean(own)) and whole["n_items"] == 2 * (10 + 30 + 30)
    test = headline.test_of(found, "all attack sets", "unsafe_rate", "selfmoa_iter3", "reset", {})
    last = row(found, "selfmoa_iter3", "unsafe_rate", "all attack sets")
    assert test["difference"] == pytest.approx(last["mean"] - whole["mean"]) and test["better"] == "a"
    assert found["categories"][0]["dataset"] == "salad-bench"


def test_one_name_for_two_kinds_of_prompts(small):
    """XSTest holds safe prompts that look unsafe, and unsafe contrasts."""
    found = built(small.assign(set=small["set"].replace({"borderline": "xstest", "held_out_attack": "xstest"})))
    assert {s["dataset"]: s["role"] for s in found["sets"] if "xstest" in s["dataset"]} == {
        "xstest (attack)": "attack",
        "xstest (borderline)": "borderline",
    }


def test_better_is_said_only_where_the_tests_say_so(results, small):
    many = built(tables_of.answers(LOOPED, seeds=range(8), n=20, draws=1))
    for found, last, better in (
        (many, 3, "a"),
        (results, 3, "a"),
        (results, 2, None),
    ):  # three seeds show what was stated, alone
        test = headline.test_of(found, "attack", "unsafe_rate", f"selfmoa_iter{last}", "reset", {})
        assert test["family"] == ("primary" if last == 3 else "secondary")
        assert test["better"] == better and test["difference"] < 0 and (test["p_holm"] < 0.05) == (better == "a")
    assert "safer by a paired test" in " ".join(headline.headline(many))
    same = small[small["method"] == "reset"]
    equal = pd.concat([same.assign(method=m) for m in LOOP])
    found = built(equal)
    assert not any(t["better"] for t in found["tests"]["rows"])
    said = " ".join(headline.headline(found))
    assert "by a paired test" not in said and "no difference shown" in said


def test_a_reset_without_effect_is_named(results):
    levels = {name: LEVELS[name] for name in ("aligned", "reset", "selfmoa_iter1")} | {"aligned": LEVELS["reset"]}
    said = headline.headline(built(tables_of.answers(levels)))
    assert said[1].startswith("Nothing to reset: ") and said[1].endswith("use `reset: false`.")
    assert "Nothing to reset" not in " ".join(headline.headline(results))


def test_tests_are_those_of_the_rule(results):
    pairs = {(t["a"], t["b"]) for t in results["tests"]["rows"] if t["metric"] == "unsafe_rate"}
    assert {("selfmoa_iter3", "human_dpo"), ("selfmoa_iter2", "selfmoa_iter1"), ("human_dpo", "reset")} <= pairs
    assert ("reset", "aligned") in pairs and ("selfmoa_iter1", "human_dpo") not in pairs
    assert {(t["a"], t["b"]) for t in results["tests"]["rows"] if t["metric"] == GAP} == {
        ("selfmoa_iter3", "reset"),
        ("selfmoa_iter3", "aligned"),
    }
    # the oracle says 0 or 1: the safety score is the unsafe rate, tested once
    assert not any(t["metric"] == "safety_score" for t in results["tests"]["rows"])
    soft = built(tables_of.answers(LOOPED, n=20, draws=1, oracle=False))
    assert any(t["metric"] == "safety_score" for t in soft["tests"]["rows"])
    holm = [t for t in results["tests"]["rows"] if t["dataset"] == "attack"]
    assert max(t["p_holm"] / t["p"] for t in holm if t["p_holm"] < 1) == pytest.approx(len(holm), rel=0.5)


def test_relative_change(results):
    change = next(
        c for c in results["changes"] if (c["a"], c["b"], c["dataset"]) == ("selfmoa_iter3", "reset", "attack")
    )
    last, reset = (row(results, m, "safety_score")["mean"] for m in ("selfmoa_iter3", "reset"))
    assert change["mean"] == pytest.approx(last / reset - 1) and change["ci95"][0] < change["mean"] < change["ci95"][1]
    test = headline.test_of(results, "attack", "unsafe_rate", "selfmoa_iter3", "reset", {})
    assert change["ci95_holm"][0] >= -1 and (change["ci95_holm"][1] < 0) == (test["better"] == "a")
    assert headline.relative({"mean": -0.5, "ci95": None}) == "-50.0 %, no finite interval"
    assert headline.relative({"mean": -0.923, "ci95": [-1.024, -0.825]}) == "-92.3 % [-100.0, -82.5]"


def test_reward_hacking_shows_where_the_gap_widens(small, results):
    assert "shows no reward hacking" in " ".join(headline.headline(results))
    gamed = built(tables_of.answers(LOOPED, seeds=range(8), n=30, draws=1, hack=0.6))
    assert "reward hacking shows" in " ".join(headline.headline(gamed))
    blind = built(small.drop(columns=["unsafe_training", "helpful_training"]))
    assert "hacking" not in " ".join(headline.headline(blind))


def test_rates_are_corrected_by_their_own_judge(small):
    judge = {
        "role": "training",
        "measure": "unsafe",
        "name": "x",
        "version": "1",
        "seed": None,
        "card": tables_of.card(),
    }
    one = small[small["seed"] == 0]
    found = row(built(one, judges=[judge]), "reset", "unsafe_rate_training_judge_corrected")
    raw = row(built(one), "reset", "unsafe_rate_training_judge")
    counts = judge["card"]["counts"]
    assert found["values"] == [pytest.approx(corrected_rate(raw["mean"] * 20, 20, counts).estimate)]
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    assert found["ci95"][1] - found["ci95"][0] >= corrected_rate(raw["mean"] * 1e6, 1e6, counts).hi - found["mean"]
    other = built(one, judges=[{**judge, "seed": 7}])
    assert not any(r["metric"].endswith("corrected") for r in other["rows"])
    blind = built(one, judges=[{**judge, "card": {**judge["card"], "counts": {"tp": 5, "fp": 5, "tn": 5, "fn": 5}}}])
    nothing = row(blind, "reset", "unsafe_rate_training_judge_corrected")
    assert nothing["mean"] is None and "tells nothing apart" in nothing["note"]


def test_cards_of_several_seeds(answers):
    results = built(answers, judges=[j for j in tables_of.judges() if j["role"] == "training"])
    found = row(results, "selfmoa_iter2", "unsafe_rate_training_judge_corrected")
    assert found["corrected_by"] == "card" and results["label_sample"] is None
    raw = row(results, "selfmoa_iter2", "unsafe_rate_training_judge")
    cards = [j["card"]["counts"] for j in tables_of.judges() if j["role"] == "training" and j["measure"] == "unsafe"]
    expected = [corrected_rate(v * 40, 40, c).estimate for v, c in zip(raw["values"], cards, strict=True)]
    assert found["values"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(np.mean(expected), abs=0.02)
    assert not any(r["metric"] == "unsafe_rate_corrected" for r in results["rows"])  # the oracle needs no correction


def test_rates_are_corrected_by_labelled_answers(answers):
    """The estimator by hand, of the first 50 answers of each method, seed and attack set; all methods have the same prompts labelled."""
    found = built(answers, judges=tables_of.judges())
    assert found["label_sample"]["labels"] == 50 * 2 * 3 * answers["method"].nunique()
    assert found["label_sample"]["labels_each"] == 50
    part = answers[(answers["set"] == "attack") & (answers["method"] == "selfmoa_iter2")]
    part = part.assign(verdict=part["unsafe_training"] >= 0.5, error=part["unsafe"] - (part["unsafe_training"] >= 0.5))
    expected = []
    for _, own in part.groupby("seed"):
        labelled = own.sort_values(["draw", "id"]).head(50)
        expected.append(own["verdict"].mean() + labelled.groupby("id")["error"].mean().mean())
    corrected = row(found, "selfmoa_iter2", "unsafe_rate_training_judge_corrected")
    assert corrected["values"] == pytest.approx(expected) and corrected["corrected_by"] == "sample"
    off = {"judge": [], "corrected": []}
    for _, own in part.groupby("seed"):
        rest = own.sort_values(["draw", "id"])[50:]
        labelled = own.sort_values(["draw", "id"]).head(50)
        off["judge"].append(abs(rest["error"].mean()))
        off["corrected"].append(abs(labelled["error"].mean() - rest["error"].mean()))
    (of,) = [r for r in found["label_sample"]["off"] if (r["dataset"], r["method"]) == ("attack", "selfmoa_iter2")]
    assert [of[side] for side in off] == pytest.approx([np.mean(errors) for errors in off.values()])
    for method in LEVELS:
        truth, corrected = (
            row(found, method, f"unsafe_rate{end}")["mean"] for end in ("", "_training_judge_corrected")
        )
        assert corrected == pytest.approx(truth, abs=0.1)
    assert "1,000 labels" not in loop.by_judge(found).caption and "3,300 labels" in loop.by_judge(found).caption


def test_the_training_judge_is_measured_where_it_is_used(answers, results, small):
    rows = {(r["method"], r["dataset"]): r for r in results["judges_by_stage"]}
    part = answers[(answers["set"] == "attack") & (answers["method"] == "reset")]
    unsafe, verdict = part["unsafe"] >= 0.5, part["unsafe_training"] >= 0.5
    counts = rows["reset", "attack"]["counts"]
    assert counts == {"tp": (unsafe & verdict).sum(), "fn": (unsafe & ~verdict).sum(), "tn": (~unsafe & ~verdict).sum(),
                      "fp": (~unsafe & verdict).sum()}  # fmt: skip
    share = rows["reset", "attack"]["sensitivity"]
    assert share["value"] == pytest.approx(counts["tp"] / unsafe.sum())
    assert [share["lo"], share["hi"]] == pytest.approx(wilson(counts["tp"], unsafe.sum()))
    whole = rows["reset", "every attack set"]
    assert (
        whole["counts"]["tp"]
        == sum(c["tp"] for c in whole["counts_by_seed"])
        == counts["tp"] + rows["reset", "held_out_attack"]["counts"]["tp"]
    )
    assert "no change is shown" in " ".join(headline.headline(results))
    gamed = built(tables_of.answers(LOOPED, seeds=range(5), n=30, draws=1, hack=0.4), judges=tables_of.judges())
    (decay,) = gamed["judge_decay"]
    assert decay["difference"] < -0.3
    assert decay["p"] < 0.05
    assert "finds fewer as the loop goes on" in " ".join(headline.headline(gamed))
    blind = built(small.drop(columns=["unsafe_training", "helpful_training"]))
    assert blind["judges_by_stage"] == [] == blind["judge_decay"]
    assert loop.trusted(blind) is None
    assert figures.trusted(tidy_judges.trusted(blind)) is None


def test_attack_success_is_drawn_in_the_order_of_iterations(results):
    attacks = {**results["attacks"], "rows": results["attacks"]["rows"][::-1]}
    shuffled = {**results, "attacks": attacks}
    fig = figures.attack_success(tidy.attack_success(shuffled), tidy.strategies(shuffled))
    lines = [line.get_xdata() for line in fig.axes[0].get_lines() if len(line.get_xdata()) > 2]
    assert lines and all(list(x) == sorted(x) for x in lines)


def test_attack_success_counts_what_was_asked(results):
    frame = tables_of.attacks(per=60)
    asked = frame[~frame["refused_by_attacker"] & ~frame["duplicate"] & frame["unsafe"].notna()]
    for k in (1, 2, 3):
        part = asked[asked["iteration"] == k]
        found = row(results, f"selfmoa_iter{k}", "attack_success", "red_team")
        assert found["values"] == pytest.approx(part.groupby("seed")["success"].mean().tolist())
        assert found["n_items"] == len(part)
        fate = results["attacks"]["fate"][k - 1]
        assert fate["asked"] == len(part) and fate["successes"] == part["success"].sum()
        counted = ("asked", "refused_by_attacker", "duplicates", "not_judged")
        assert sum(fate[c] for c in counted) == fate["written"] == 180
    strategies = {r["strategy"] for r in results["attacks"]["strategies"]}
    assert strategies == set(tables_of.STRATEGIES)


def test_a_red_team_without_success(small):
    frame = tables_of.attacks(seeds=(0,), per=20).assign(success=False)
    found = built(small, attacks=frame)
    assert all(f["successes"] == 0 and f["self_bleu"] is None for f in found["attacks"]["fate"])
    assert {"attack_success", "attack_fate"} <= drawn(found).keys()
    nobody = built(small, attacks=frame.assign(refused_by_attacker=True, unsafe=np.nan))
    assert nobody["attacks"]["rows"] == []
    assert "attack_fate" in made(nobody) and "attacks" not in made(nobody)
    assert attacks.red_team(frame.head(0), n_boot=10, seed=0) is None


def test_self_bleu():
    assert self_bleu(["a b c d e", "A b c d e"]) == pytest.approx(1)
    assert self_bleu(["a b c d", "e f g h"]) == 0
    assert np.isnan(self_bleu(["only one", " "]))
    # by hand: 'a b c' against 'a b d': unigrams 2 / 3, bigrams (1 + 1) / (2 + 1), lengths equal
    assert self_bleu(["a b c", "a b d"], n=2) == pytest.approx((2 / 3 * 2 / 3) ** 0.5)
    # a short text against longer ones pays the brevity penalty: exp(1 - 4 / 2)
    assert self_bleu(["a b", "a b c d"], n=1) == pytest.approx((np.exp(-1) + 0.5) / 2)
    same = ["x y z w"] * 300
    assert self_bleu(same) == pytest.approx(1) and self_bleu(same, sample=10) == pytest.approx(1)


def test_pairs_add_up_over_iterations(results):
    table = tables_of.pairs()
    first = table[table["method"] == "selfmoa_iter1"].set_index("seed")["n_pairs"]
    second = table[table["method"] == "selfmoa_iter2"].set_index("seed")["n_pairs"]
    assert accounts.pairs_used(results, "selfmoa_iter2", {}) == (first + second).tolist()
    assert accounts.pairs_used(results, "human_dpo", {}) == [2640.0] * 3
    assert accounts.pairs_used(results, "reset", {}) == []
    total = table[table["method"].str.startswith("selfmoa")].groupby("seed")["n_pairs"].sum().mean()
    said = " ".join(headline.headline(results))
    assert f"{total:,.0f} a seed" in said and f"{2640 / total:.1f} times the loop's" in said


@pytest.mark.parametrize(
    "empty, says",
    [((0, 1, 2), "Nothing was trained in 3 of 3 seeds: "), ((1,), "Nothing was trained in 1 of 3 seeds: "), ((), None)],
)
def test_a_loop_that_learnt_from_nothing_says_so_first(results, empty, says):
    seeds = sorted({row["seed"] for row in results["pairs"]})
    none = {seeds[k] for k in empty}
    pairs = [row | ({"n_pairs": 0} if row["seed"] in none else {}) for row in results["pairs"]]
    first = headline.headline({**results, "pairs": pairs})[0]
    assert first.startswith(says or "Unsafe rate on")


CONTROLLED = LOOPED | {"offline": (0.5, 0.7, 0.05)} | {f"{n}_{k}": (0.9 / k, 0.7, 0.05) for n in ("no_red_team", "iterated_dpo") for k in (1, 2)}  # fmt: skip


def test_controls_stand_between_the_loop_and_the_baselines():
    levels = dict(reversed(CONTROLLED.items())) | {"sft": (0.6, 0.7, 0.05)}
    made = built(tables_of.answers(levels, n=20, draws=1))
    methods = [r["method"] for r in made["rows"] if (r["dataset"], r["metric"]) == ("attack", "unsafe_rate")]
    iterates = [f"{n}_{k}" for n in ("no_red_team", "iterated_dpo") for k in (1, 2)]
    assert sorted(methods, key=stages.order) == [*LOOP, "offline", *iterates, "sft"]
    assert names.method_name("iterated_dpo_2") == "Iterated DPO, iteration 2"
    tested = {(t["a"], t["b"]) for t in made["tests"]["rows"] if t["metric"] == "unsafe_rate"}
    last = {"offline", "no_red_team_2", "iterated_dpo_2", "sft"}
    assert {b for a, b in tested if a == "selfmoa_iter3"} == last | {"aligned", "reset", "selfmoa_iter2"}
    assert {a for a, b in tested if b == "reset"} == last | set(LOOP[2:])
    assert not {m for pair in tested for m in pair} & {"no_red_team_1", "iterated_dpo_1"}
    used = [{"method": m, "variant": {}, "seed": 0, "n_pairs": n} for m, n in (("selfmoa_iter1", 7), ("no_red_team_1", 20), ("no_red_team_2", 3), ("offline", 9))]  # fmt: skip
    sums = {m: accounts.pairs_used({"pairs": used}, m, {}) for m in ("no_red_team_1", "no_red_team_2", "offline")}
    assert sums == {"no_red_team_1": [20], "no_red_team_2": [23], "offline": [9]}


def test_the_loop_pays_for_its_own_stages(results):
    spent = accounts.loop_cost(results)
    assert spent["seconds"] == pytest.approx(3 * 12.5 + 27 * 31.0)  # neither human_dpo nor evaluations
    reset, last = (row(results, m, "unsafe_rate")["values"] for m in ("reset", "selfmoa_iter3"))
    assert accounts.removed(results) == pytest.approx(100 * (sum(reset) - sum(last)))
    seconds = tables_loop.efficiency(results).data.set_index("spent").loc["seconds"]
    assert seconds["by_pair"] == pytest.approx(seconds["total"] / accounts.accepted(results))
    assert accounts.loop_cost({"cost": {"seconds": 3}}) == {}


def test_published_values_never_stand_as_ours(results, small):
    said = " ".join(headline.headline(results))
    assert "+12.41 %" in said and "1/11" in said and "not reproduced by these numbers" in said
    assert "utility" not in results["published"]
    assert not any("Published" in v for v in loop.utility(results).shown["Method"])
    real = built(small, synthetic=False, utility=tables_of.lm_eval())
    table = loop.utility(real)
    line = table.shown[table.shown["Method"].str.startswith("Published")].iloc[0]
    assert line["HellaSwag, %"] == "60.01" and line["MMLU, %"] == "59.02"
    ours = table.shown[table.shown["Method"] == "Aligned model"].iloc[0]
    assert ours["HellaSwag, %"] == "59.0 [57.0, 61.0]"  # one seed: the harness's standard error
    assert "synthetic" not in " ".join(headline.headline(real)).lower()


def test_files_of_a_report(rendered, results):
    names = {p.stem.removesuffix("_column") for p in (rendered / "figures").iterdir()}
    assert names == {
        *("pipeline", "scores", "safety_stages", "helpfulness_attack", "helpfulness_safe", "categories", "refusal"),
        *("data_efficiency", "attack_success", "attack_fate", "judge_gap", "judge_cards", "curves", "margins"),
        "judges_by_stage",
    }
    expected = {"stages", "baselines", "changes", "tests", "categories", "attacks", "attack_fate", "pairs", "by_judge"}
    assert {p.stem for p in (rendered / "tables").iterdir()} == expected | {
        *("judge_cards", "utility", "case_study", "efficiency", "cost", "primary_tests", "seeds", "judges_by_stage"),
    }
    rows = list(csv.DictReader((rendered / "tables" / "stages.csv").open()))
    first = row(results, "aligned", "unsafe_rate")
    assert float(rows[0]["mean"]) == pytest.approx(first["mean"]) and rows[0]["method"] == "aligned"
    for caption in (rendered / "figures").glob("*.txt"):
        assert "Synthetic testbed" in caption.read_text()
    assert "lower is safer" in (rendered / "figures" / "safety_stages.txt").read_text()


def test_the_page_shows_every_file(rendered):
    html = (rendered / "index.html").read_text()
    known = [
        p.relative_to(rendered) for f in ("figures", "tables") for p in (rendered / f).iterdir() if p.suffix != ".txt"
    ]
    assert known and all(f'href="{path}"' in html for path in known)
    assert "<h2>Red team</h2>" in html and "<h2>Ablation</h2>" not in html


def test_text_is_shown_as_text(rendered):
    html = (rendered / "index.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    tex = (rendered / "tables" / "case_study.tex").read_text()
    assert r"\textless{}script\textgreater{}" in tex and r"\$x\_1" in tex
    assert "<script" not in (rendered / "tables" / "case_study.md").read_text()


def test_case_study_follows_its_rule(answers, results):
    found = results["case_study"]
    part = answers[(answers["set"] == "attack") & (answers["seed"] == 0) & (answers["draw"] == 0)]
    reset = part[(part["method"] == "reset") & (part["unsafe"] >= 0.5)].sort_values("id")
    expected = reset.groupby("category")["id"].first().sort_index().head(3)
    assert [p["id"] for p in found["prompts"]] == expected.tolist() and found["n_candidates"] == len(reset)
    assert [a["method"] for a in found["prompts"][0]["answers"]] == ["aligned", "reset", "selfmoa_iter3"]
    last = part[(part["method"] == "selfmoa_iter3") & part["id"].isin(reset["id"])]
    assert found["safe_among_candidates"]["selfmoa_iter3"] == pytest.approx((last["unsafe"] < 0.5).mean())
    harmless = built(answers[answers["method"].isin(LOOP)].assign(unsafe=0.0))["case_study"]
    assert not harmless["rule_fits"] and harmless["n_candidates"] == 0


def test_real_texts_are_not_kept_and_shown_only_on_request(small, tmp_path, shown):
    vile = small.assign(prompt="an awful prompt", answer="a vile answer")
    archive = tables_of.attacks(seeds=(0,), per=20).assign(text="a harvested attack", answer="a vile answer")
    found = built(vile, synthetic=False, attacks=archive)
    kept = json.dumps(found)
    assert not any(word in kept for word in ("awful", "vile", "harvested")) and found["case_study"]["redacted"]
    page.Page(found, tmp_path).case_study()
    assert "[redacted, 3 words]" in "".join(shown) and "vile" not in "".join(shown)
    texts = case.raw_texts(found["case_study"], vile)
    shown.clear()
    asked = page.Page(found, tmp_path, texts)
    asked.header()
    asked.case_study()
    html, n = "".join(shown), len(found["case_study"]["prompts"])
    assert html.count("an awful prompt") == n and html.count("a vile answer") == 3 * n and "Do not publish" in html
    assert "vile" not in (tmp_path / "tables" / "case_study.md").read_text()


def test_an_answer_that_failed_is_no_text(small):
    found = built(small.assign(answer=None, unsafe=small["unsafe"].where(small["method"] != "aligned")))
    assert found["case_study"]["prompts"][0]["answers"][0]["unsafe"] is None
    assert "[says nothing]" in tables_case.case_study(found).shown["Answer"].tolist()


@pytest.fixture(scope="module")
def weighted() -> dict:
    answers, archive, made = tables_of.front()
    return built(answers, attacks=archive, pairs=made)


def test_pareto_front(weighted):
    assert figures.front([(0.7, 70), (0.6, 30), (0.5, 40), (0.4, 10)]) == [3, 1, 0]
    points = tidy.weights(weighted)
    labels = ["0.9 : 0.1", "0.7 : 0.3", "0.5 : 0.5", "0.3 : 0.7", "0.1 : 0.9", "Aligned model", "Safety reset"]
    assert points["label"].tolist() == labels and set(points["method"][:5]) == {"selfmoa_iter2"}
    fig = figures.pareto(points)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["not beaten on both", *labels]
    assert "helpfulness : safety" in " ".join(fig.get_supxlabel().split())


def test_one_weight_makes_no_front(results):
    assert figures.pareto(tidy.weights(results)) is None and ablation.sweep(results) is None


def test_headline_of_several_variants(weighted):
    said = headline.headline(weighted)
    assert "helpfulness 0.9, safety 0.1: " in said[0] and said[1].startswith("Before: Aligned model")
    assert any(s.startswith("Against the reset, no difference shown: ") for s in said)  # by three seeds
    said = headline.headline(built(tables_of.front(seeds=range(8), n=20, draws=1)[0]))
    assert any(s.startswith("Against the reset, safer by a paired test") for s in said)


def test_a_seed_that_stays_at_the_reset_is_named(small):
    reset = small[(small["method"] == "reset") & (small["seed"] == 1)].set_index(["set", "id"])["unsafe"]
    lost = (small["method"] == "selfmoa_iter3") & (small["seed"] == 1)
    same = [reset[key] for key in zip(small.loc[lost, "set"], small.loc[lost, "id"], strict=True)]
    found = built(small.assign(unsafe=small["unsafe"].mask(lost, pd.Series(same, small.index[lost]))))
    last, first = (row(found, m, "unsafe_rate") for m in ("selfmoa_iter3", "reset"))
    assert last["collapsed"] == [1] and row(found, "selfmoa_iter2", "unsafe_rate")["collapsed"] == []
    assert "collapsed" not in first and len(last["seed_ci95"]) == 3 and last["median"] == np.median(last["values"])


def test_stages_of_several_variants_share_what_came_before(weighted):
    lines = stages.lines(weighted, stages.rows_of(weighted, "attack", "unsafe_rate"))
    assert len(lines) == 5 and all(set(line.rows) == set(LOOP[:4]) and line.last == "selfmoa_iter2" for line in lines)
    assert len({id(line.rows["reset"]) for line in lines}) == 1
    a, b = (lines[k].rows["selfmoa_iter2"]["variant"] for k in (0, 4))
    assert a != b
    assert not any(
        t["variant_a"] and t["variant_b"] and t["variant_a"] != t["variant_b"] for t in weighted["tests"]["rows"]
    )


def test_ablation_of_the_judges_noise():
    answers, archive, made = tables_of.noise()
    found = built(answers, attacks=archive, pairs=made)
    swept = ablation.sweep(found)
    assert set(swept.scores) == {"unsafe_rate", "helpfulness", "over_refusal"} and swept.values == [0.0, 0.1, 0.2, 0.3]
    places = swept.scores["unsafe_rate"].groupby("line")["place"].apply(list)
    assert len(places["Self-MOA, iteration 2"]) == 4 and np.isnan(places["Safety reset"]).all()
    assert "Self-MOA, iteration 1" not in places
    table = ablation.table(found)
    assert len(table.shown) == 4 * 2 + 3 and "judge_noise" in table.caption
    assert shared.sweep(swept.panels, swept.head) is not None


@pytest.mark.parametrize(
    ("ordering", "weights", "expected"),
    [
        ("safety", "safety:1.0", ["ordered by safety,", "without a margin"]),
        ("helpfulness", "helpfulness:0.3,safety:0.7", ["ordered by helpfulness,", "safety as the margin"]),
        ("weighted_sum", "helpfulness:1", ["ordered by weighted sum,", "without a margin"]),
        (None, None, []),
    ],
)
def test_the_figure_of_the_loop_says_what_orders_its_pairs(ordering, weights, expected):
    assert diagram._objectives({"ordering": ordering, "objective_weights": weights}) == expected


def test_data_efficiency_over_human_pairs():
    answers, _, made = tables_of.human()
    found = built(answers, pairs=made)
    rows = tidy.efficiency(found)
    pairs = rows.dropna(subset="pairs").groupby("line")["pairs"].apply(sorted)
    assert pairs["DPO, human pairs"] == [240, 960, 2160] and len(pairs["Self-MOA"]) == 3
    assert figures.efficiency(rows) is not None
    (said,) = [s for s in headline.headline(found) if s.startswith("DPO, human pairs")]
    assert "240 pairs" in said and "2,160 pairs" in said and "960" not in said


def test_one_seed_covers_prompts_only(small):
    found = built(small[small["seed"] == 1])
    assert found["interval"]["covers"] == "test prompts only (one seed)"


@pytest.mark.parametrize("methods", [["aligned"], ["aligned", "reset"], ["aligned", "selfmoa_iter1"], ["sft"]])
def test_a_loop_that_is_not_whole(methods):
    found = built(tables_of.answers({m: LEVELS[m] for m in methods}, seeds=(0,), n=10, draws=1))
    assert "scores" in drawn(found) and ("stages" in made(found)) == (methods != ["sft"])
    assert bool(headline.headline(found)) == ("selfmoa_iter1" in methods) and isinstance(first_screen(found)[1], list)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unsafe": 1.2}, r"unsafe must lie in \[0, 1\]"),
        ({"role": "harm"}, "one of attack, safe, borderline"),
        ({"id": "x"}, "stands twice"),
    ],
)
def test_malformed_tables_are_refused(small, change, says):
    with pytest.raises(ValueError, match=says):
        built(small.assign(**change))
    with pytest.raises(ValueError, match="missing: draw"):
        built(small.drop(columns="draw"))
    with pytest.raises(ValueError, match="pairs.*missing: n_pairs"):
        built(small, pairs=tables_of.pairs().drop(columns="n_pairs"))


def test_the_page_of_a_profile_shows_the_first_numbers(rendered, results):
    reports = rendered.parent.parent
    page.write_index(reports, "demo")
    number = first_screen(results)[1][0]
    reset = wording.with_interval(row(results, "reset", "unsafe_rate"), "unsafe_rate")
    assert number.label == "Unsafe rate on attacks, safety reset" and reset == f"{number.value[:-2]} {number.interval}"
    shown = f'">{number.value}</a></b> {number.interval}'
    assert f'<a href="{rendered.name}/index.html{shown}' in (reports / "demo" / "index.html").read_text()
    (rendered / "rows.html").touch()
    page.write_index(reports, "demo")
    (rendered / "rows.html").unlink()
    address = f"{rendered.name}/{escape(number.rows)}"
    assert f'<a href="{address}{shown}' in (reports / "demo" / "index.html").read_text()


class Output:
    """A finished stage, as far as the report reads it."""

    def __init__(self, key: str, seed: int, tables=None, jsons=None, metrics=None, **parameters):
        self.key, self._tables, self._jsons = key, tables or {}, jsons or {}
        self.parameters, self.metrics = {"seed": seed, **parameters}, metrics or {}

    def has(self, name: str) -> bool:
        return name in {f"{t}.parquet" for t in self._tables} | {f"{j}.json" for j in self._jsons}

    def table(self, name: str) -> pd.DataFrame:
        return self._tables[name]

    def json(self, name: str):
        return self._jsons[name]


def cell(seed: int, weight: float) -> dict:
    """A variant with one iteration; its reset does not depend on the weight."""
    frame = tables_of.answers(LOOPED, seeds=(seed,), n=12, draws=1, rng_seed=int(10 * weight))
    outputs = {}
    for method in LOOP[:3]:
        key = f"{method}-{seed}" + (f"-{weight}" if method == "selfmoa_iter1" else "")
        own = frame[frame["method"] == method].drop(columns=["method", "variant", "seed"])
        told = {"perplexity": 6.0, "n_texts": 9, "mmlu": {"acc": 0.25, "stderr": 0.01, "n": 40}}
        outputs[f"evaluation_{method}"] = Output(
            key,
            seed,
            {"evaluation": own},
            {
                "utility": told,
                "judges": [{"role": "reporting", "measure": "unsafe", "name": "oracle", "version": None}],
            },
            unsafe_threshold=0.5,
            reporting_judge="oracle",
            metrics={"cut_share": 0.25 if method == "reset" and seed else 0.05},
        )
    archive = tables_of.attacks(seeds=(seed,), iterations=1, per=20).drop(columns=["seed", "variant"])
    made = pd.DataFrame(
        {"set": ["attack", "safe"], "iteration": 1, "safety_difference": [-0.4, 0.2]}
        | {"helpful_chosen": 0.8, "helpful_rejected": 0.3}
    )
    made = pd.concat([made, made.assign(iteration=0)])  # pairs of another iteration in the same table
    curve = pd.DataFrame({"step": [0, 10], "metric": "train_loss", "value": [0.7, 0.5]})
    return {
        "values": {"seed": seed, "weight": weight},
        "outputs": outputs
        | {
            "red_team_1": Output(f"red-{seed}", seed, {"attacks": archive}),
            "preferences_1": Output(
                f"pref-{seed}", seed, {"pairs": made}, {"summary": {"n_candidates": 9}}, {"cut_share": 0.1}
            ),
            "align_selfmoa_iter1": Output(f"align-{seed}-{weight}", seed, {"curves": curve}),
            "align_human_dpo": Output(f"human-{seed}", seed, {"curves": curve}, metrics={"pairs_trained": 77}),
            "training_judge": Output(
                f"judge-{seed}", seed, jsons={"card": {"judge": "x", "cut": 3, **tables_of.card()}}
            ),
            "helpfulness_judge": Output("shared", 0, jsons={"card": {"judge": "y", **tables_of.card()}}),
        },
    }


class Run:
    synthetic = True

    def costs(self) -> dict:
        return {"selfmoa/2_red_team/red-0": {"seconds": 2.0}, "testbed/pretrain/base": {"seconds": 9.0}}

    def provenance(self) -> dict:
        return {"commit": "abc"}


def test_outputs_become_tables_and_a_report():
    cells = [cell(s, x) for x in (0.2, 0.8) for s in (0, 1)]
    answers = collect.answers(cells)
    known = answers[["method", "variant", "seed"]].drop_duplicates()
    assert len(known) == 2 + 2 + 4  # aligned and reset once a seed, the iterate for each weight too
    assert set(known.loc[known["method"] == "reset", "variant"]) == {"{}"}
    made = collect.pairs(cells)
    own = made[made["method"] == "selfmoa_iter1"]
    assert own["n_pairs"].tolist() == [2, 2] and own["n_attack"].tolist() == [1, 1]
    assert own["safety_difference"].iloc[0] == pytest.approx(-0.1) and own["chosen_less_safe"].iloc[0] == 0.5
    assert made.loc[made["method"] == "human_dpo", "n_pairs"].tolist() == [77, 77]
    judges = collect.judges(cells)
    assert [(j["role"], j["measure"], j["seed"]) for j in judges[:3]] == [
        ("training", "unsafe", 0),
        ("training", "unsafe", 1),
        ("training", "helpful", None),
    ]
    assert judges[-1]["name"] == "oracle" and judges[-1]["card"] is None
    assert set(collect.utility(cells)["metric"]) == {"perplexity", "mmlu", "cut_share"}
    found = collect.results("demo/selfmoa", Run(), cells, answers, n_boot=50)
    assert found["cost"]["selfmoa/2_red_team/red-0"]["role"] == "red_team_1"
    assert "role" not in found["cost"]["testbed/pretrain/base"]
    told = collect.summary(cells, found)
    assert len(told["variants"]) == 4 and len(told["configurations"]) == 2
    name = "selfmoa_iter1_unsafe_rate_attack"
    for one in told["configurations"]:
        (r,) = [
            r
            for r in wording.pick(found["rows"], dataset="attack", metric="unsafe_rate")
            if r["variant"] == one["values"]
        ]
        assert one["metrics"][name] == one["metrics"]["selfmoa_unsafe_rate_attack"] == r["mean"]
        assert one["metrics"][f"{name}.ci95_low"] == r["ci95"][0]
    first = told["variants"][0]
    assert first["values"] == {"seed": 0, "weight": 0.2} and first["metrics"]["reset_perplexity"] == 6.0
    assert all(re.fullmatch(r"[\w.-]+", n) for n in first["metrics"])
    texts = collect.case_texts(found["case_study"], cells)
    wanted = [case.answer_key(p, a) for p in found["case_study"]["prompts"] for a in p["answers"]]
    assert wanted and set(wanted) <= set(texts)


def test_answers_that_ran_out_of_tokens_and_texts_read_in_part_are_shown():
    cells = [cell(s, 0.2) for s in (0, 1)]
    found = collect.results("demo/selfmoa", Run(), cells, collect.answers(cells), n_boot=50)
    head = "Ran out of tokens, %"
    assert loop.utility(found).shown[head].tolist() == ["5.0", "15.0", "5.0"]
    assert tables_loop.pairs(found).shown[head].tolist() == ["10.0", wording.DASH]
    assert tables_loop.judge_cards(found).shown["Read in part"].tolist() == ["3", "3", wording.DASH, wording.DASH]
    assert [n for n in found["notes"] if n.startswith("WARNING: more than 5 % of the answers that ")] == [
        "WARNING: more than 5 % of the answers that are evaluated ran out of tokens, by Safety reset (up to 25.0 %). They are judged as "
        "they stand; raise max_new_tokens.",
        "WARNING: more than 5 % of the answers that pairs are made of ran out of tokens, by Self-MOA, iteration 1 (up to 10.0 %). They "
        "are judged as they stand; raise max_new_tokens.",
    ]


def test_evaluations_must_share_their_threshold():
    cells = [cell(0, 0.2), cell(1, 0.2)]
    cells[1]["outputs"]["evaluation_reset"].parameters["unsafe_threshold"] = 0.7
    with pytest.raises(StageError, match=r"0\.5, 0\.7"):
        collect.threshold(cells)
    with pytest.raises(StageError, match="nothing to report"):
        collect.answers([{"values": {}, "outputs": {}}])


def test_iterations_make_no_variants():
    """Iteration 1 of a loop of one and of a loop of three iterations is one model."""
    cells = [{**cell(0, 0.2), "values": {"seed": 0, "iterations": k}} for k in (1, 3)]
    assert set(collect.answers(cells)["variant"]) == {"{}"}
