"""Figures of the red team: success by iteration and strategy, and what became of its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from underseer.report import wording as w
from underseer.report.canvas import figure, foot
from underseer.report.names import iteration
from underseer.report.selfmoa import stages
from underseer.report.selfmoa.figures import MARKERS, inks
from underseer.report.selfmoa.stages import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FATES = {
    "successes": ("succeeded", "#D55E00", ""),
    "resisted": ("resisted", "#009E73", "//"),
    "duplicates": ("duplicate", "#BBBBBB", ".."),
    "refused_by_attacker": ("refused by the attacker", "#56B4E9", "xx"),
    "not_judged": ("not judged", "#FFFFFF", ""),
}
"""What becomes of a prompt: name, colour, hatch."""


def plot_attacks(results: Results) -> Figure | None:
    """Attack success by iteration, and by strategy."""
    found = results.get("attacks")
    if not found or not found["rows"]:
        return None
    variants = list({repr(r["variant"]): r["variant"] for r in found["rows"]}.values())
    fig, axes = figure(9.2, 3.9, 2, width_ratios=[1, 1.25])
    rates = stages.lines(results, stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate"))
    begun = {"reset" if "reset" in line.rows else "aligned model" for line in rates}
    first = begun.pop() if len(begun) == 1 else "first model"
    _by_iteration(axes[0, 0], found["rows"], variants, first)
    _by_strategy(axes[0, 1], [r for r in found["strategies"] if r["variant"] == variants[0]])
    axes[0, 1].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=8, borderaxespad=0.2,
                      columnspacing=1.2, handletextpad=0.2)  # fmt: skip
    if len(variants) > 1:
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    seeds = w.sample_text(found["rows"]).split(",")[0]
    told = "" if len(variants) == 1 else f"; right: {_variant_name(variants, 0)}"
    foot(fig, results, f"{seeds}; n: prompts asked, all seeds; 95 % intervals over {found['covers']}{told}")
    return fig


def _variant_name(variants: Sequence[Mapping], k: int) -> str:
    names = w.row_names([{"method": "selfmoa", "variant": v} for v in variants])
    return names[k].partition("(")[2].rstrip(")")


def _by_iteration(ax: Axes, rows: Sequence[Mapping], variants: Sequence[Mapping], first: str) -> None:
    methods = sorted({r["method"] for r in rows}, key=stages.order)
    for k, (variant, ink) in enumerate(zip(variants, inks(len(variants)), strict=True)):
        own = sorted((r for r in rows if r["variant"] == variant), key=lambda r: stages.order(r["method"]))
        shift = (k - (len(variants) - 1) / 2) * min(0.12, 0.6 / len(variants))
        x = [methods.index(r["method"]) + shift for r in own]
        ax.plot(x, [100 * r["mean"] for r in own], color=ink, lw=1.4, marker=MARKERS[k % len(MARKERS)], ms=6.5, mec="white",
                label=_variant_name(variants, k))  # fmt: skip
        for place, row in zip(x, own, strict=True):
            if row["ci95"][0] is not None:
                ax.plot([place] * 2, [100 * v for v in row["ci95"]], color=ink, lw=2, solid_capstyle="butt")
    sizes = [sum(r["n_items"] for r in rows if r["method"] == m) for m in methods]
    targets = [first, *(f"iterate {k}" for k in range(1, len(methods)))]
    ticks = [f"{iteration(m)}\nagainst\n{t}\nn = {n:,}" for m, t, n in zip(methods, targets, sizes, strict=True)]
    ax.set_xticks(range(len(methods)), ticks, fontsize=8)
    ax.set_xlim(-0.5, len(methods) - 0.5)
    ax.set_ylim(-2, 103)
    ax.set(ylabel="Attack success (%)", xlabel="Iteration")
    ax.grid(axis="y")


def _by_strategy(ax: Axes, rows: Sequence[Mapping]) -> None:
    whole = sorted((r for r in rows if r["method"] == "all"), key=lambda r: -(r["mean"] or 0))
    methods = sorted({r["method"] for r in rows if r["method"] != "all"}, key=stages.order)
    colours = dict(zip(methods, inks(max(2, len(methods))), strict=False))
    for k, row in enumerate(whole):
        if row["ci95"][0] is not None:
            ax.plot([100 * v for v in row["ci95"]], [k, k], color="#555555", lw=2.4, solid_capstyle="butt")
        ax.plot(100 * row["mean"], k, "d", ms=7.5, color="#222222", mec="white", zorder=3,
                label="all iterations" if not k else "_nolegend_")  # fmt: skip
        for j, method in enumerate(methods):
            own = [r for r in rows if r["method"] == method and r["strategy"] == row["strategy"]]
            if own and own[0]["mean"] is not None:
                ax.plot(100 * own[0]["mean"], k + 0.28, MARKERS[j % len(MARKERS)], ms=4.6, mfc="white", mec=colours[method],
                        mew=1.2, label="_nolegend_")  # fmt: skip
    for j, method in enumerate(methods):
        ax.plot([], [], MARKERS[j % len(MARKERS)], ms=4.6, mfc="white", mec=colours[method], mew=1.2, ls="",
                label=f"iteration {iteration(method)}")  # fmt: skip
    names = [f"{r['strategy'].replace('_', ' ')} (n = {r['n_items']:,})" for r in whole]
    ax.set_yticks(range(len(whole)), names)
    ax.set_ylim(len(whole) - 0.4, -0.6)
    ax.set_xlim(-2, 103)
    ax.set_xlabel("Attack success (%)")
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)


def plot_fate(results: Results) -> Figure | None:
    """Prompts by outcome, stacked, and the self-BLEU of the successful ones."""
    found = (results.get("attacks") or {}).get("fate")
    if not found:
        return None
    variants = list({repr(r["variant"]): r["variant"] for r in found}.values())
    bars = [f for f in found if f["variant"] == variants[0]]
    fig, axes = figure(8.6, 3.4, 2, width_ratios=[1.4, 1])
    ax, base = axes[0, 0], [0.0] * len(bars)
    for key, (name, ink, hatch) in FATES.items():
        heights = [(b["asked"] - b["successes"] if key == "resisted" else b[key]) / b["n_seeds"] for b in bars]
        if any(heights):
            ax.bar([b["iteration"] for b in bars], heights, 0.62, bottom=base, color=ink, hatch=hatch, label=name,
                   edgecolor="white" if name != "not judged" else "#555555", lw=0.7)  # fmt: skip
        base = [b + h for b, h in zip(base, heights, strict=True)]
    ax.set(xlabel="Iteration", ylabel="Prompts of one seed (mean)", xticks=[b["iteration"] for b in bars])
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8, borderaxespad=0.2)
    _diversity(axes[0, 1], found, variants)
    if len(variants) > 1:
        fig.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    told = "; hollow: single seeds" if len(variants) == 1 else f"; bars: {_variant_name(variants, 0)}"
    foot(
        fig,
        results,
        f"{bars[0]['n_seeds']} seed{'s' * (bars[0]['n_seeds'] != 1)}; no intervals; n: successes of all seeds{told}",
    )
    return fig


def _diversity(ax: Axes, found: Sequence[Mapping], variants: Sequence[Mapping]) -> None:
    for k, (variant, ink) in enumerate(zip(variants, inks(len(variants)), strict=True)):
        own = [f for f in found if f["variant"] == variant and f["self_bleu"] is not None]
        ax.plot([f["iteration"] for f in own], [f["self_bleu"] for f in own], color=ink, marker=MARKERS[k % len(MARKERS)],
                lw=1.4, ms=6.5, mec="white", label=_variant_name(variants, k))  # fmt: skip
        for f in own if len(variants) == 1 else ():
            values = f["self_bleu_values"]
            ax.plot([f["iteration"] + 0.12] * len(values), values, "o", ms=3.2, mfc="white", mec=ink, mew=0.8)
    every = sorted({f["iteration"] for f in found})
    sizes = [sum(f["successes"] for f in found if f["iteration"] == k) for k in every]
    ax.set_xticks(every, [f"{k}\nn = {n:,}" for k, n in zip(every, sizes, strict=True)])
    ax.set_xlim(every[0] - 0.5, every[-1] + 0.5)
    ax.set_ylim(-0.03, 1.03)
    ax.set(xlabel="Iteration", ylabel="Self-BLEU of the successes\n(0 to 1), lower is more varied")
    ax.grid(axis="y")
