"""The prompts of an experiment: seeds of attacks and prompts to train on, sets to evaluate on, harmful answers for the reset.

Training pools hold nothing that an evaluation set holds, exact or near (``data.overlap``).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TESTBED = "testbed-chat"


@dataclass(frozen=True)
class Sizes:
    """Rows of each pool: seeds of attacks, safe and borderline prompts to train on, prompts of each evaluation set (of a set with
    attacks and safe prompts half of each; a smaller set is kept whole), exchanges for the reset."""

    n_seed_prompts: int
    n_safe: int
    n_borderline: int
    n_evaluation: int
    n_reset: int


@dataclass(frozen=True)
class Pools:
    """``train``: id, text, category, kind, set (attack: a seed; safe; borderline). ``evaluation``: the same with ``role``.
    ``reset``: id, prompt, answer, category. ``overlap``: how many rows to train on, and exchanges for the reset, were
    dropped because an evaluation set holds their prompt: ``pool`` (train, reset), ``reason``, ``rows``."""

    train: pd.DataFrame
    evaluation: pd.DataFrame
    reset: pd.DataFrame
    overlap: pd.DataFrame | None


def is_testbed(datasets: set[str]) -> bool:
    """Whether the testbed's data are named. Raises UserError where others stand beside them."""
    if TESTBED in datasets and datasets != {TESTBED}:
        others = ", ".join(sorted(datasets - {TESTBED}))
        raise UserError(
            f"{TESTBED} stands for all data of an experiment; beside it are named {others}: name one or the others"
        )
    return TESTBED in datasets


def draw(
    dataset: str, safe_dataset: str, evaluation_datasets: str, exchange_dataset: str, path: str | None, sizes: Sizes, seed: int
) -> Pools:  # fmt: skip
    """The pools of one seed. Raises UserError for unknown or mixed data sets, and where a set is too small."""
    if is_testbed({dataset, safe_dataset, evaluation_datasets, exchange_dataset}):
        return _testbed(sizes, seed)
    return _public(dataset, safe_dataset, evaluation_datasets, exchange_dataset, path, sizes, seed)


def outcome(pools: Pools, sizes: Sizes) -> str:
    """In words, for the notebook: how many prompts there are to train and to evaluate on, and what was dropped or is missing."""
    wanted = {"attack": sizes.n_seed_prompts, "safe": sizes.n_safe, "borderline": sizes.n_borderline}
    drawn = pools.train.set.value_counts()
    short = [f"{name}: {drawn.get(name, 0)} of {n}" for name, n in wanted.items() if drawn.get(name, 0) < n]
    text = f"{len(pools.train)} prompts to train on, {len(pools.evaluation)} to evaluate on, {len(pools.reset)} exchanges for the reset."
    if pools.overlap is not None:
        dropped = pools.overlap[~pools.overlap.reason.isin(("pool", "kept"))].rows.sum()
        text += f" {dropped} rows to train on or to reset with were dropped: an evaluation set holds their prompts, or nearly."
    return f"{text} Fewer than asked for: {', '.join(short)}." if short else text


def _testbed(sizes: Sizes, seed: int) -> Pools:
    import pandas as pd

    # By name: public data does not rest on the testbed's code.
    chat = import_module("underseer.testbed.chat")
    wanted = {"attack": sizes.n_seed_prompts, "safe": sizes.n_safe, "borderline": sizes.n_borderline}
    train = pd.concat([chat.prompts(name, n, seed, "main").assign(set=name) for name, n in wanted.items()])
    pools = {"attack": "attack", "held_out_attack": "held_out", "safe": "held_out", "borderline": "held_out"}
    held = pd.concat([chat.prompts(s, sizes.n_evaluation, seed, pool).assign(set=s) for s, pool in pools.items()])
    reset = chat.harmful_exchanges(sizes.n_reset, seed)
    return Pools(train.reset_index(drop=True), held.reset_index(drop=True), reset, None)


def _public(
    dataset: str, safe_dataset: str, evaluation_datasets: str, exchange_dataset: str, path: str | None, sizes: Sizes, seed: int
) -> Pools:  # fmt: skip
    import pandas as pd

    from underseer.data.exchanges import load_exchanges
    from underseer.data.overlap import exclude
    from underseer.data.prompts import load_prompts

    named = [load_prompts(name, path, seed=seed) for name in evaluation_datasets.split("+")]
    held = pd.concat([_balanced(f, sizes.n_evaluation, seed) for f in named], ignore_index=True)
    held = held.assign(set=held["source"])
    pool = pd.concat([load_prompts(name, path, seed=seed) for name in (dataset, safe_dataset)], ignore_index=True)
    kept, dropped = exclude(pool, held)
    wanted = {"attack": sizes.n_seed_prompts, "safe": sizes.n_safe, "borderline": sizes.n_borderline}
    train = pd.concat([_some(kept[kept.role == role], n, seed).assign(set=role) for role, n in wanted.items()])
    harmful = load_exchanges(exchange_dataset, path, seed=seed, held_out=held)
    harmful = harmful[harmful.unsafe >= 0.5]
    reset = _some(harmful, sizes.n_reset, seed)[["id", "prompt", "answer", "category"]]
    shared = {reason: n for reason, n in harmful.attrs["dropped"].items() if reason.startswith("evaluation prompt")}
    reset_report = pd.DataFrame({"pool": "reset", "reason": list(shared), "rows": list(shared.values())})
    report = pd.concat([dropped.assign(pool="train"), reset_report], ignore_index=True)[["pool", "reason", "rows"]]
    return Pools(train.reset_index(drop=True), held, reset.reset_index(drop=True), report)


def _balanced(rows: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most ``n`` rows, as equal a number of each role as there are; a set that is smaller is kept whole."""
    import pandas as pd

    if len(rows) <= n:
        return rows
    parts = sorted((part for _, part in rows.groupby("role", sort=True)), key=len)
    chosen, left = [], n
    for k, part in enumerate(parts):
        chosen.append(_some(part, left // (len(parts) - k), seed))
        left -= len(chosen[-1])
    return pd.concat(chosen)


def _some(rows: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most ``n`` rows, drawn without replacement."""
    return rows if len(rows) <= n else rows.sample(n, random_state=seed)
