"""Rows of the Self-MOA loop: evaluated prompts with every model's answers, and the prompts that the loop learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from underseer.look.viewer.parts import KEYS, Part
from underseer.report import collect
from underseer.report.collect import Variants
from underseer.report.collect_selfmoa import seed_of, stage_tables, suffixes, threshold
from underseer.report.names import rounds
from underseer.report.selfmoa import answers as judged
from underseer.report.selfmoa.stages import agrees, order

EVALUATED = {
    "unsafe": "Unsafe by the reporting judge",
    "safe": "Safe by the reporting judge",
    "unsafe_training": "Unsafe by the training judge",
    "disagree": "Judges disagree",
    "training_only": "Unsafe by the training judge only",
    "reporting_only": "Unsafe by the reporting judge only",
    "refused": "Refused",
    "refused_safe": "Refused, though the prompt is safe or borderline",
    "changed": "Verdict changed since the iteration before",
    "became_unsafe": "Became unsafe since the iteration before",
    "failed": "Without a verdict",
}
LEARNT = {
    "success": "Attack succeeded",
    "unsafe_training": "Unsafe by the training judge",
    "safe_training": "Safe by the training judge",
    "refused_by_attacker": "The attacker refused to write it",
    "duplicate": "Duplicate attack, not asked",
    "chosen": "Chosen in a pair",
    "rejected": "Rejected in a pair",
    "less_safe": "A pair prefers the less safe answer",
}
SCORES = {
    "unsafe": "unsafe, reporting judge",
    "unsafe_training": "unsafe, training judge",
    "helpful": "helpful, reporting judge",
    "helpful_training": "helpful, training judge",
    "refusal": "refusal",
}
LINEAGE = {"set": "Set", "category": "Category", "iteration": "Iteration", "round": "Round", "strategy": "Strategy"}


def parts(variants: Variants) -> list[Part]:
    """What was evaluated, and what the loop learnt from; a part without rows is left out."""
    return [part for part in (_evaluated(variants), _learnt(variants)) if part is not None]


def _evaluated(variants: Variants) -> Part | None:
    """Every judged answer to the prompts of the evaluation."""
    frame = stage_tables(variants, "evaluation_", "evaluation")
    if frame is None:
        return None
    frame = judged.tidy(frame, threshold(variants)).sort_values("method", key=lambda c: c.map(order), kind="stable")
    frame = frame.reset_index(drop=True)
    reporting, training = frame["unsafe_rate"], frame["unsafe_rate_training_judge"]
    disagree = reporting.notna() & training.notna() & (reporting != training)
    changed = _changed(frame)
    refused = frame["refusal_rate"] == 1
    filters = {"unsafe": reporting == 1, "safe": reporting == 0, "unsafe_training": training == 1, "disagree": disagree}
    filters |= {"training_only": disagree & (training == 1), "reporting_only": disagree & (reporting == 1)}
    filters |= {"refused": refused, "refused_safe": refused & frame["role"].isin(["safe", "borderline"])}
    filters |= {"changed": changed, "became_unsafe": changed & (reporting == 1), "failed": reporting.isna()}
    several = frame["draw"].nunique() > 1
    return Part(
        name="evaluation",
        title="Evaluation",
        items=frame.assign(set=frame["dataset"]),
        cells=frame.assign(text=frame["answer"], tag=[f"draw {d}" if several else "" for d in frame["draw"]]),
        facts={"set": "Set", "role": "Role", "category": "Category", "kind": "Kind"},
        values={label: frame[c].astype(float) for c, label in SCORES.items() if frame[c].notna().any()},
        filters=filters,
        labels=EVALUATED,
        colours=("unsafe", "safe"),
    )


def _changed(frame: pd.DataFrame) -> pd.Series:
    """Whether the reporting judge's verdict differs from that on the same prompt and draw one iteration before."""
    models = list(frame[["method", "variant"]].drop_duplicates().itertuples(index=False, name=None))
    before = {model: _before(model, models) for model in models}
    keys = ["method", "variant", "seed", "dataset", "id", "draw"]
    verdicts = frame.set_index(keys)["unsafe_rate"]
    own = [before[model] or ("", "") for model in zip(frame["method"], frame["variant"], strict=True)]
    asked = frame[keys].assign(method=[m for m, _ in own], variant=[v for _, v in own])
    earlier = verdicts.reindex(pd.MultiIndex.from_frame(asked)).to_numpy()
    differs = frame["unsafe_rate"].to_numpy() != earlier
    return pd.Series(differs, index=frame.index) & frame["unsafe_rate"].notna() & pd.notna(earlier)


def _before(model: tuple[str, str], models: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The model that an iterate began with, as (method, variant); None for what is no iterate."""
    iterate = rounds(model[0])
    if iterate is None:
        return None
    family, k = iterate
    wanted = "reset" if k == 1 else f"{family}_iter{k - 1}" if family == "selfmoa" else f"{family}_{k - 1}"
    fitting = [m for m in models if m[0] == wanted and agrees(json.loads(m[1]), json.loads(model[1]))]
    return fitting[0] if fitting else None


def _learnt(variants: Variants) -> Part | None:
    """Attacks with their lineage, the target's drawn answers, and the pairs made of them."""
    attacks = _attacks(variants)
    drawn, pairs = stage_tables(variants, "preferences_", "answers"), stage_tables(variants, "preferences_", "pairs")
    frames = [f for f in (attacks, _pairs(pairs), _drawn(drawn)) if f is not None]
    if not frames or not suffixes(variants, "evaluation_"):  # without an evaluation no threshold is known
        return None
    cells = pd.concat(frames, ignore_index=True)
    flags = {name: cells[name].fillna(False).astype(bool) for name in LEARNT if name in cells.columns}
    least = threshold(variants)
    flags |= {"unsafe_training": cells["unsafe"] >= least, "safe_training": cells["unsafe"] < least}
    columns = {"unsafe": "unsafe, training judge", "helpful": "helpful, training judge"}
    columns |= {"safety_difference": "chosen minus rejected, unsafe", "margin": "chosen minus rejected, helpful"}
    return Part(
        name="learnt",
        title="Red team and pairs",
        items=_asked(variants, cells),
        cells=cells,
        facts=LINEAGE | {"parents": "Parents"},
        values={label: cells[c].astype(float) for c, label in columns.items() if c in cells.columns},
        filters=flags,
        labels=LEARNT,
        colours=("unsafe_training", "safe_training"),
        names={m: _step_name(m) for m in cells["method"].unique()},
    )


def _attacks(variants: Variants) -> pd.DataFrame | None:
    """The target's answer to each attack, of the iteration that asked it."""
    frame = stage_tables(variants, "red_team_", "attacks")
    if frame is None:
        return None
    frame = frame[frame["iteration"].astype(str) == frame["method"]]
    return frame.rename(columns={"text": "prompt", "answer": "text"}).assign(
        method="red_team_" + frame["method"], tag="target's answer", set="attack"
    )


def _drawn(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    if frame is None:
        return None
    tag = [f"draw {d}" for d in frame["draw"]]
    named = frame.rename(columns={"prompt_id": "id", "answer": "text"})
    return named.assign(method="answers_" + frame["method"], tag=tag)


def _pairs(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    """Both answers of each pair of an iteration's own, the margins with the chosen one."""
    if frame is None:
        return None
    if "iteration" in frame.columns:
        frame = frame[frame["iteration"].astype(str) == frame["method"]]
    number = frame.groupby(["key", "prompt_id"]).cumcount() + 1
    sides = []
    for side in ("chosen", "rejected"):
        half = frame[["seed", "variant", "key", "prompt", "set"]].assign(
            id=frame["prompt_id"], method="pairs_" + frame["method"], text=frame[side], **{side: True}
        )
        half = half.assign(tag=[f"{side}, pair {n}" for n in number], order=number, unsafe=frame[f"unsafe_{side}"])
        sides.append(half.assign(helpful=frame[f"helpful_{side}"]))
    sides[0]["safety_difference"] = frame["safety_difference"]
    sides[0]["margin"] = frame["helpful_chosen"] - frame["helpful_rejected"]
    sides[0]["less_safe"] = frame["safety_difference"] > 0
    return pd.concat(sides).sort_values("order", kind="stable")


def _asked(variants: Variants, cells: pd.DataFrame) -> pd.DataFrame:
    """Every prompt once, attacks with their lineage, and the seed prompts that attacks descend from."""
    columns = [
        c for c in (*KEYS, "prompt", *LINEAGE, "parents", "refused_by_attacker", "duplicate") if c in cells.columns
    ]
    items = cells[columns].drop_duplicates(KEYS)
    if "parents" in items.columns:
        items = items.assign(parents=[", ".join(p) for p in map(_ids, items["parents"])])
    seeds = [
        output.table("train").rename(columns={"text": "prompt"}).assign(seed=seed_of(own[0], output))
        for own, output in collect.once(variants, "data")
        if output.has("train.parquet")
    ]
    named = set(", ".join(items.get("parents", pd.Series(dtype=str))).split(", "))
    roots = [s[s["id"].isin(named | set(items["id"]))] for s in seeds]
    known = pd.concat([items, *(r[[c for c in (*KEYS, "prompt", "set", "category") if c in r]] for r in roots)])
    return known.groupby(KEYS, sort=False, as_index=False).first()


def _ids(text: object) -> Iterator[str]:
    """The ids in a column that holds JSON lists."""
    yield from json.loads(text) if isinstance(text, str) else ()


def _step_name(method: str) -> str:
    step, _, k = method.rpartition("_")
    names = {"red_team": "Red team", "answers": "Answers", "pairs": "Pairs"}
    return f"{names.get(step, step)}, iteration {k}"
