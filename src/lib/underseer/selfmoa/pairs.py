"""The pair rules: from judged answers to preference pairs, as pure functions of tables.

Source: Self-MOA (arXiv 2603.07017). Pairs are ordered by one objective, helpfulness; the signed difference of the safety scores
is kept with the pair, so that the chosen answer may be less safe than the rejected one:

    chosen, rejected = a, b    where helpful(a) >= helpful(b)
    safety_difference = unsafe(chosen) - unsafe(rejected)    in [-1, 1], lower is safer

Which pairs of a prompt are dropped or preferred is ours: the paper does not say. Scores are in [0, 1]; an answer without a
score makes no pair.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    Order = Callable[[pd.DataFrame], pd.Series]  # answers -> score (n,), higher is better
    Drop = Callable[[pd.DataFrame], pd.Series]  # candidate pairs -> bool (n,), which to leave out

COLUMNS = (
    "id", "prompt_id", "prompt", "set", "chosen", "rejected", "helpful_chosen", "helpful_rejected", "unsafe_chosen", "unsafe_rejected",
    "safety_difference", "chosen_cut", "rejected_cut", "judges", "iteration",
)  # fmt: skip
SAFETY_WEIGHT = 0.5  # of the weighted sum
ROUNDING = 1e-9  # differences of scores that equal min_margin are kept


def helpfulness(answers: pd.DataFrame) -> pd.Series:
    """Order by helpfulness, as published."""
    return answers.helpful


def safety(answers: pd.DataFrame) -> pd.Series:
    """Order by safety: 1 - unsafe."""
    return 1 - answers.unsafe


def weighted_sum(answers: pd.DataFrame) -> pd.Series:
    """Order by the mean of helpfulness and safety: one objective made of two."""
    return (1 - SAFETY_WEIGHT) * answers.helpful + SAFETY_WEIGHT * (1 - answers.unsafe)


ORDERINGS: dict[str, Order] = {"helpfulness": helpfulness, "safety": safety, "weighted_sum": weighted_sum}
"""The orders that an experiment may name."""


def near_tie(candidates: pd.DataFrame, min_margin: float) -> pd.Series:
    """Pairs (n,) whose ordering scores differ by less than ``min_margin``: the judge may have them the wrong way round."""
    return candidates.order_chosen - candidates.order_rejected < min_margin - ROUNDING


def both_unsafe(candidates: pd.DataFrame, threshold: float) -> pd.Series:
    """Pairs (n,) of two unsafe answers: they would teach which harmful answer is the better one."""
    return candidates[["unsafe_chosen", "unsafe_rejected"]].min(axis=1) >= threshold


def less_safe(candidates: pd.DataFrame, threshold: float) -> pd.Series:
    """Pairs (n,) whose chosen answer is judged unsafe and the rejected one safe: plain DPO would teach the unsafe one."""
    return (candidates.unsafe_chosen >= threshold) & (candidates.unsafe_rejected < threshold)


def drops(min_margin: float, unsafe_threshold: float = math.inf) -> dict[str, Drop]:
    """The shipped rules that leave pairs out, by the name under which they are counted. With a threshold of infinity pairs
    of two unsafe answers stay."""
    return {
        "near_ties": partial(near_tie, min_margin=min_margin),
        "both_unsafe": partial(both_unsafe, threshold=unsafe_threshold),
    }


def agreement(candidates: pd.DataFrame) -> pd.Series:
    """How far apart a pair (n,) is in the weighted sum: widest where both scores prefer the same answer, where judges err least."""
    return candidates.agreed_chosen - candidates.agreed_rejected


def judged(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers that have both scores."""
    return answers[answers.unsafe.notna() & answers.helpful.notna()]


def candidates(answers: pd.DataFrame, order: Order) -> pd.DataFrame:
    """All pairs of different judged answers to one prompt, the better one by ``order`` as ``chosen`` (earlier drawn, where they
    tie): a column NAME_chosen and NAME_rejected for each column of the answers, and ``order_*`` and ``agreed_*``."""
    import pandas as pd

    distinct = judged(answers).drop_duplicates(["prompt_id", "answer"])
    distinct = distinct.assign(order=order(distinct), agreed=weighted_sum(distinct)).reset_index(drop=True)
    places: list[tuple[int, int]] = []
    for _, own in distinct.groupby("prompt_id", sort=False):
        places += itertools.combinations(own.sort_values("order", ascending=False, kind="stable").index, 2)
    chosen, rejected = ([pair[side] for pair in places] for side in (0, 1))
    sides = {"chosen": distinct.loc[chosen], "rejected": distinct.loc[rejected]}
    return pd.concat([rows.reset_index(drop=True).add_suffix(f"_{side}") for side, rows in sides.items()], axis=1)


def widest(candidates: pd.DataFrame, score: pd.Series, n: int, seed: int) -> pd.DataFrame:
    """At most ``n`` pairs of each prompt, those with the highest ``score``; equal ones are drawn by ``seed``."""
    kept: list[int] = []
    for name, own in score.groupby(candidates.prompt_id_chosen, sort=False):
        places = own.index.tolist()
        random.Random(f"pairs/{seed}/{name}").shuffle(places)
        kept += sorted(places, key=lambda place: -own[place])[:n]
    return candidates.loc[kept]


def separable(answers: pd.DataFrame, order: Order, min_margin: float, iteration: int) -> tuple[bool, str]:
    """Whether any two judged answers to one prompt lie at least ``min_margin`` apart in the first iteration, and in words what
    must hold and what does. Later the answers may have grown alike."""
    known = judged(answers)
    scores = order(known).groupby(known.prompt_id)
    widest = (scores.max() - scores.min()).max() if len(known) else 0.0
    text = (
        f"the judges tell some answers to one prompt apart by min_margin = {min_margin:g}; the widest difference in the score that "
        f"orders pairs is {widest:.3g}: give another judge, or a smaller min_margin"
    )
    return iteration > 1 or bool(widest >= min_margin - ROUNDING), text


def signed_safety_difference(pairs: pd.DataFrame) -> pd.Series:
    """unsafe(chosen) - unsafe(rejected) (n,), in [-1, 1]: above 0 where the chosen answer is the less safe one."""
    return pairs.unsafe_chosen - pairs.unsafe_rejected


def make(
    answers: pd.DataFrame, *, order: Order, drop: Mapping[str, Drop], prefer: Callable[[pd.DataFrame], pd.Series] = agreement,
    per_prompt: int, seed: int, iteration: int,
) -> tuple[pd.DataFrame, dict[str, int]]:  # fmt: skip
    """Preference pairs of judged answers (COLUMNS), and how many candidates were dropped by which rule.

    ``drop``: rules in turn; a pair is counted under the first that leaves it out. Of what stays, each prompt keeps the
    ``per_prompt`` pairs with the highest ``prefer``.
    """
    known = judged(answers)
    counts = {
        "n_prompts": answers.prompt_id.nunique(),
        "n_answers": len(answers),
        "n_unjudged": len(answers) - len(known),
    }
    counts["dropped_duplicates"] = int(known.duplicated(["prompt_id", "answer"]).sum())
    left = candidates(answers, order)
    counts["n_candidates"] = len(left)
    for name, rule in drop.items():
        dropped = rule(left)
        counts[f"dropped_{name}"] = int(dropped.sum())
        left = left[~dropped]
    left = widest(left, prefer(left), per_prompt, seed)
    pairs = left.rename(columns={"answer_chosen": "chosen", "answer_rejected": "rejected", "judges_chosen": "judges"})
    pairs = pairs.rename(columns={f"{name}_chosen": name for name in ("prompt_id", "prompt", "set")})
    pairs = pairs.rename(columns={f"cut_{side}": f"{side}_cut" for side in ("chosen", "rejected")})
    pairs = pairs.assign(safety_difference=signed_safety_difference(pairs), iteration=iteration)
    pairs["id"] = [_name(row) for row in pairs.itertuples()]
    return pairs[list(COLUMNS)].reset_index(drop=True), {**counts, "n_pairs": len(pairs)}


def _name(pair: Any) -> str:
    text = f"{pair.prompt_id}\n{pair.chosen}\n{pair.rejected}\n{pair.iteration}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def best(answers: pd.DataFrame, order: Order, threshold: float) -> pd.DataFrame:
    """The best safe answer of each prompt (``prompt, answer, cut``), for fine-tuning on it. Safe: judged, and below ``threshold``."""
    known = judged(answers)
    safe = known[known.unsafe < threshold]
    ordered = safe.assign(order=order(safe)).sort_values("order", ascending=False, kind="stable")
    return ordered.drop_duplicates("prompt_id")[["prompt", "answer", "cut"]]


def prompt_mix(
    train: pd.DataFrame, archive: pd.DataFrame | None, iteration: int, *, n: int, safe_share: float, borderline_share: float,
    replay_attacks: bool = True, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """``n`` prompts to answer, ``id, text, set``: this iteration's successful attacks, and safe and borderline ones.

    Where these attacks are fewer than their share, ``replay_attacks`` adds successes of earlier iterations, the newest
    first; what is still missing is not made up by others. Without an ``archive`` there is no red team: the prompts of
    attacks are seeds, whether or not the target answers them unsafely. Iterations draw different safe and borderline
    prompts, and different seeds.
    """
    import pandas as pd

    safe = round(n * safe_share)
    wanted = {"safe": safe, "borderline": min(round(n * borderline_share), n - safe)}  # two halves may both round up
    attacks = n - sum(wanted.values())
    if archive is None:
        parts, wanted = [], {"attack": attacks, **wanted}
    else:
        wins = archive[archive.success & archive.iteration.between(1 if replay_attacks else iteration, iteration)]
        wins = wins.sort_values("iteration", ascending=False, kind="stable")
        parts = [wins.head(attacks).assign(set="attack")]
    for name, size in wanted.items():
        pool = train[train.set == name].sample(frac=1, random_state=seed)
        start = (iteration - 1) * size % max(len(pool), 1)
        parts.append(pd.concat([pool, pool]).iloc[start : start + min(size, len(pool))])
    return pd.concat(parts, ignore_index=True)[["id", "text", "set"]]


def at_most(pairs: pd.DataFrame, sources: Sequence[pd.DataFrame], seed: int) -> pd.DataFrame:
    """``pairs``, or where ``sources`` are fewer altogether, as many of them, drawn by ``seed`` and kept in order; without any
    source all."""
    n = sum(len(source) for source in sources) if sources else len(pairs)
    return pairs if len(pairs) <= n else pairs.sample(n, random_state=seed).sort_index()


def outcome(counts: Mapping[str, int]) -> str:
    """In words, for the notebook."""
    rules = {name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")}
    ruled_out = sum(rules.values()) - rules["duplicates"]  # those are answers
    if surplus := counts["n_candidates"] - ruled_out - counts["n_pairs"]:
        rules["beyond pairs_per_prompt"] = surplus
    dropped = ", ".join(f"{n} {name if ' ' in name else name.replace('_', ' ')}" for name, n in rules.items())
    text = f"{counts['n_pairs']} pairs of {counts['n_candidates']} candidates over {counts['n_prompts']} prompts (left out: {dropped})."
    if counts["n_pairs"]:
        return text
    return (
        f"No pairs: {text} There is nothing to learn from, and the target stays as it is: lower min_margin, raise "
        "answers_per_prompt or temperature to go on."
    )
