"""Safe answers that a chat model learns before the loop, so that it refuses what it should and there is a safety to reset."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.judges.strings import refuses
from underseer.selfmoa.pools import TESTBED

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["id", "prompt", "answer", "category", "source"]


def answers(datasets: str, path: str | None, evaluation: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most ``n`` safe answers of each data set, in a drawn order: ``id, prompt, answer, category, source``.

    Of labelled exchanges those that people call safe, of pairs that people ordered the chosen ones. A prompt that an evaluation
    set holds (column ``text``), exactly or nearly, is left out. In the testbed its oracle stands for people. Raises UserError as the
    loaders do.
    """
    import pandas as pd

    drawn = []
    for name in map(str.strip, datasets.split("+")):
        part = _of_one(name, path, evaluation, n, seed)
        if part.empty:
            raise UserError(
                f"supervised_dataset = {datasets!r}: no safe answer of {name} is left whose prompt no evaluation set holds; leave the "
                "data set out, or evaluate on others"
            )
        drawn.append(part.sample(min(n, len(part)), random_state=seed))
    return pd.concat(drawn).drop_duplicates("id").sample(frac=1, random_state=seed)[COLUMNS].reset_index(drop=True)


def _of_one(name: str, path: str | None, evaluation: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    if name == TESTBED:  # by name: public data does not rest on the testbed's code
        rows = import_module("underseer.testbed.chat").judged_exchanges(2 * n, seed).assign(source=TESTBED)
        return rows[(rows["unsafe"] < 0.5) & ~rows["prompt"].isin(evaluation["text"])]
    from underseer.data.exchanges import load_exchanges
    from underseer.data.preferences import load_preferences
    from underseer.data.registry import parse

    if "exchanges" in parse(name, None)[0].info.holds:
        rows = load_exchanges(name, path, seed=seed, held_out=evaluation)
        return rows[rows["unsafe"] < 0.5]
    return load_preferences(name, path, seed=seed, held_out=evaluation).rename(columns={"chosen": "answer"})


def outcome(rows: pd.DataFrame) -> str:
    """In words, for the notebook: how many answers there are of each data set, and how many of them begin with a refusal."""
    by_source = ", ".join(f"{n} of {source}" for source, n in rows["source"].value_counts().items())
    refusals = sum(map(refuses, rows["answer"]))
    return f"{len(rows)} answers that were called safe or chosen: {by_source}. {refusals} of them begin with a refusal."
