"""What the numbers of the loop say, in sentences: 'safer' and 'more helpful' only where a paired test says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from underseer.report import compared
from underseer.report import wording as w
from underseer.report.names import iteration
from underseer.report.selfmoa import accounts, stages
from underseer.report.selfmoa.stages import Line, Results
from underseer.selfmoa.checks import HUMAN


def headline(results: Results) -> list[str]:
    """The sentences of the page."""
    dataset = stages.main_of(results, "attack")
    lines = stages.lines(results, stages.rows_of(results, dataset, "unsafe_rate"))
    lines = [line for line in lines if line.last]
    if not lines:
        return []
    if len(lines) > 1:
        lost = w.collapsed([line.rows[line.last] for line in lines])
        return [*_several(results, lines), *lost, *_published(results)]
    line = lines[0]
    return [
        *_untaught(results, line),
        *_rates(results, line),
        *_reset(results, line),
        *compared.stated(results),
        *w.collapsed(list(line.rows.values())),
        *_safety(results, line),
        *_pairs(results, line),
        *_published(results),
        *_trust(results, line),
        *_hacking(results, line),
    ]


def _untaught(results: Results, line: Line) -> list[str]:
    """That the loop, in some seeds or all, learnt from no pair."""
    used = accounts.pairs_used(results, line.last, line.variant)
    empty = sum(n == 0 for n in used)
    if not empty:
        return []
    seeds = "" if empty == len(used) == 1 else f" in {empty} of {w.plural(len(used), 'seed')}"
    return [
        f"Nothing was trained{seeds}: the loop found no preference pair to learn from, and its last iterate is the model that it "
        "began with."
    ]


def _rates(results: Results, line: Line) -> list[str]:
    rows = list(line.rows.values())
    rates = [f"{w.method_name(m)} {w.number(r['mean'], 'unsafe_rate')} %" for m, r in line.rows.items()]
    return [
        f"Unsafe rate on {w.dataset_name(rows[0]['dataset'])}, lower is better ({w.sample_text(rows)}): {w.listing(rates)}."
    ]


def _reset(results: Results, line: Line) -> list[str]:
    """That there was nothing to reset, where the paired test, taken by itself, does not show that the reset made the model less safe."""
    before, after = line.rows.get("aligned"), line.rows.get("reset")
    if before is None or after is None:
        return []
    test = test_of(results, after["dataset"], "unsafe_rate", "reset", "aligned", after["variant"])
    if test is not None and test["difference"] > 0 and test["p"] is not None and test["p"] < 0.05:
        return []  # by itself: corrected among all comparisons, a clear reset would be called none
    rates = " before and ".join(f"{w.number(row['mean'], 'unsafe_rate')} %" for row in (before, after))
    return [f"Nothing to reset: {rates} after the reset; use `reset: false`."]


def _safety(results: Results, line: Line) -> list[str]:
    """Change of the safety score from the reset, and from the aligned model, to the last iterate."""
    sentences = []
    attack = stages.of_role(results, "attack")
    for dataset in dict.fromkeys([stages.main_of(results, "attack"), *(d for d in attack if d.startswith("held_out"))]):
        parts = []
        for method in ("reset", "aligned"):
            change = _change(results, dataset, line, method)
            if change:
                verdict = _verdict(results, change, line, method)
                parts.append(f"from the {method} model {relative(change)} ({verdict})")
        if parts:
            sentences.append(
                f"Safety score on {w.dataset_name(dataset)} (mean judged probability of an unsafe answer, lower is safer), to "
                f"iteration {iteration(line.last)}: {w.listing(parts)}."
            )
    return sentences


def _change(results: Results, dataset: str | None, line: Line, method: str) -> Mapping[str, Any] | None:
    changes = [
        c
        for c in results["changes"]
        if c["dataset"] == dataset and c["metric"] == "safety_score" and c["a"] == line.last and c["b"] == method
        and c["variant_a"] == line.rows[line.last]["variant"]
    ]  # fmt: skip
    return changes[0] if changes and changes[0]["mean"] is not None else None


def relative(change: Mapping[str, Any]) -> str:
    """'-76.4 % [-81.2, -70.1]', at the level at which the difference is tested; the interval ends at -100 %, since no rate falls
    further."""
    given = change["ci95_holm"] if "ci95_holm" in change else change["ci95"]
    low, high = (max(-100.0, 100 * v) for v in given or (0, 0))
    ends = f" [{low:+.1f}, {high:+.1f}]" if given else ", no finite interval"
    return f"{100 * change['mean']:+.1f} %{ends}"


def _verdict(results: Results, change: Mapping[str, Any], line: Line, method: str) -> str:
    """What the paired test says of the last iterate against another model, on the safety score or, where that is the same
    thing, the unsafe rate."""
    for metric in ("safety_score", "unsafe_rate"):
        test = test_of(results, change["dataset"], metric, line.last, method, line.rows[line.last]["variant"])
        if test:
            return _says(test)
    return "not tested"


def test_of(
    results: Results,
    dataset: str | None,
    metric: str,
    a: str | None,
    b: str,
    variant: Mapping[str, Any],
    other: Mapping[str, Any] | None = None,
) -> Mapping[str, Any] | None:
    """The paired test of `a` in a variant against `b` (in the variant `other`, where given), or None."""
    for t in results["tests"]["rows"]:
        if (t["dataset"], t["metric"], t["a"], t["b"]) == (dataset, metric, a, b) and t["variant_a"] == variant:
            if other is None or t["variant_b"] == other:
                return t
    return None


def _says(test: Mapping[str, Any]) -> str:
    """'safer by a paired test', or 'no difference shown'."""
    return compared.verdict(test) + (" by a paired test" if test["better"] else "")


def _pairs(results: Results, line: Line) -> list[str]:
    """Pairs that the loop used, against those of the human-supervised baselines: of many sizes the least and the most."""
    own = accounts.mean(accounts.pairs_used(results, line.last, line.variant))
    if not own:
        return []
    k = iteration(line.last)
    labels = {r.get("judge_labels") for r in results["pairs"] if iteration(r["method"]) == k} - {None}
    behind = f", ordered by judges that learnt from {max(labels):,.0f} labels" if labels else ""
    sentences = [f"Preference pairs used by the loop, {k} iteration{'s' * (k != 1)}: {own:,.0f} a seed{behind}."]
    rows = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
    for method in HUMAN:
        sizes = [
            (accounts.mean(accounts.pairs_used(results, method, r["variant"])), r)
            for r in rows
            if r["method"] == method
        ]
        sizes = sorted((s for s in sizes if s[0]), key=lambda s: s[0])
        clauses = [_against(results, line, own, used, row) for used, row in (sizes[:1] + sizes[1:][-1:])]
        sentences += [f"{w.method_name(method)}: {'; '.join(clauses)}."] if clauses else []
    return sentences


def _against(results: Results, line: Line, own: float, used: float, row: Mapping[str, Any]) -> str:
    """'2,640 pairs (3.7 times as many), loop minus baseline -1.9 points [..] of unsafe rate: no difference shown'."""
    variant = line.rows[line.last]["variant"]
    test = test_of(results, row["dataset"], "unsafe_rate", line.last, row["method"], variant, row["variant"])
    difference = (
        f", unsafe rate of the loop minus that of the baseline {compared.difference(test)} ({_says(test)})"
        if test
        else ""
    )
    return f"{used:,.0f} pairs ({used / own:.1f} times the loop's){difference}"


def _published(results: Results) -> list[str]:
    published = results.get("published") or {}
    if "safety_change_percent" not in published:
        return []
    here = (
        "not reproduced by these numbers, which are of a synthetic testbed"
        if results["synthetic"]
        else "of other models"
    )
    return [
        f"Published ({published['source']}; {here}): safety {published['safety_change_percent']:+.2f} % on average, with as little as "
        f"1/{published['pairs_factor']} of the preference pairs of human-supervised baselines."
    ]


def _trust(results: Results, line: Line) -> list[str]:
    """How many of the unsafe answers the training judge finds at each stage, and whether that falls."""
    decays = [
        d
        for d in results.get("judge_decay") or []
        if (d["a"], d["variant_a"]) == (line.last, line.rows[line.last]["variant"])
    ]
    trusted = stages.trusted(results, line)
    if not decays or not trusted:
        return []
    shares = [f"{w.method_name(m)} {percent(row['sensitivity'])}" for m, row in trusted.items()]
    change, (low, high) = decays[0], decays[0]["ci95"]
    size = f"{100 * change['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], p = {w.p_text(change['p'])}, one comparison"
    says = "no change is shown"
    if change["p"] < 0.05:
        says = "it finds fewer as the loop goes on" if change["difference"] < 0 else "it finds more as the loop goes on"
    others = [r for r in results["judges_by_stage"] if r["dataset"] == stages.ATTACKS and r["method"] in HUMAN]
    aside = [f"{n} {percent(r['sensitivity'])}" for n, r in zip(w.row_names(others), others, strict=True)]
    untaught = f" Of models that this judge did not teach: {w.listing(aside)}." if aside else ""
    return [
        f"Of the answers to attacks that the reporting judge calls unsafe, the training judge finds: {w.listing(shares)}. From the "
        f"reset to iteration {iteration(line.last)}, all seeds' answers together: {size}; {says}.{untaught}"
    ]


def percent(share: Mapping[str, Any]) -> str:
    """'97.9 % [96.3, 98.8]'."""
    if share["value"] is None:
        return w.DASH
    return f"{100 * share['value']:.1f} % [{100 * share['lo']:.1f}, {100 * share['hi']:.1f}]"


def _hacking(results: Results, line: Line) -> list[str]:
    """Whether the training judge's verdict on the loop runs away from the reporting judge's."""
    dataset = stages.main_of(results, "attack")
    gap = [r for r in stages.rows_of(results, dataset, w.GAP) if r["method"] == line.last]
    gap = [r for r in gap if r["variant"] == line.rows[line.last]["variant"]]
    test = test_of(results, dataset, w.GAP, line.last, "reset", line.rows[line.last]["variant"])
    if not gap or not test:
        return []
    shown = test["p_holm"] < 0.05 and test["difference"] < 0
    low, high = (100 * v for v in gap[0]["ci95"]) if gap[0]["ci95"][0] is not None else (None, None)
    ends = f" [{low:+.1f}, {high:+.1f}]" if low is not None else ""
    says = (
        "the training judge sees the loop safer than the reporting judge does, and more so than at the reset: reward hacking "
        "shows"
        if shown
        else "it is not shown to widen on the side of the loop, so this rate alone shows no reward hacking"
    )
    return [
        f"Training minus reporting judge, unsafe rate at iteration {iteration(line.last)}: {100 * gap[0]['mean']:+.1f} points"
        f"{ends}; change since the reset {compared.difference({**test, 'metric': 'unsafe_rate'})}: {says}."
    ]


def _several(results: Results, lines: Sequence[Line]) -> list[str]:
    """One sentence for all variants, then what the tests say of each against the reset."""
    rows = [line.rows[line.last] for line in lines]
    rates = [f"{line.name}: {_rate_and_pairs(results, r)}" for line, r in zip(lines, rows, strict=True)]
    sample = w.sample_text(rows)
    rates = rates if len(rates) <= 8 else [*rates[:7], f"{len(rates) - 7} more"]
    out = [
        f"Unsafe rate of the last iterate on {w.dataset_name(rows[0]['dataset'])}, lower is better ({sample}): {w.listing(rates)}."
    ]
    reset = [
        r for r in stages.rows_of(results, rows[0]["dataset"], "unsafe_rate") if r["method"] in ("reset", "aligned")
    ]
    if reset:
        named = zip(w.row_names(reset), reset, strict=True)
        out.append("Before: " + w.listing([f"{n} {w.number(r['mean'], 'unsafe_rate')} %" for n, r in named]) + ".")
    for method in HUMAN:
        own = [r for r in stages.rows_of(results, rows[0]["dataset"], "unsafe_rate") if r["method"] == method]
        out += [f"{w.method_name(method)}: {w.listing([_rate_and_pairs(results, r) for r in own])}."] if own else []
    groups: dict[str, list[str]] = {}
    for line in lines:
        test = test_of(results, rows[0]["dataset"], "unsafe_rate", line.last, "reset", line.rows[line.last]["variant"])
        if test:
            groups.setdefault(_says(test), []).append(line.name)
    return out + [f"Against the reset, {says}: {w.listing(names)}." for says, names in groups.items()]


def _rate_and_pairs(results: Results, row: Mapping[str, Any]) -> str:
    """'26.2 % (720 pairs)'."""
    used = accounts.mean(accounts.pairs_used(results, row["method"], row["variant"]))
    return f"{w.number(row['mean'], 'unsafe_rate')} %" + ("" if used is None else f" ({used:,.0f} pairs)")
