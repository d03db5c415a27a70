"""The judges of a stage: trained here or published, made weaker by ``judge_noise`` and ``judge_error``; and how right each is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import planned
from underseer.errors import StageError
from underseer.judges import card, rubric
from underseer.judges.base import Opening
from underseer.judges.calibration import rank_correlation
from underseer.judges.noisy import Noisy
from underseer.judges.opening import open_judge
from underseer.judges.spec import KINDS, parse
from underseer.judges.trained import train

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Inference
    from underseer.judges.base import Judge
    from underseer.runs.stage import Output, Run
    from underseer.training.settings import TrainSettings

INPUTS = {"unsafe": "training_judge", "helpful": "helpfulness_judge", "refusal": "refusal_judge"}
"""Measure: the role of the stage that trained or opened its judge."""

NUMBERS = ("accuracy", "sensitivity", "specificity", "kappa", "auroc")
MOST_UNJUDGED = 0.5
"""A judge without a verdict on more than this share of what it is measured on is not used."""


def opening(run: Run, inference: Inference, engine: str | None = None, trained: Output | None = None) -> Opening:
    """How a stage opens a judge: as it runs models, on the engine of its plan where the judge writes its verdicts, from the
    ``trained`` output of another stage where that has trained it, with the texts that it was measured with there."""
    made = Opening(inference=inference, cost=run.cost)
    if engine is not None:
        options = planned(run, engine)
        made = replace(made, engine=options.pop("engine"), options=options)
    if trained is not None and trained.has("model"):
        made = replace(made, folder=trained.file("model"), version=trained.key)
    if trained is not None and trained.has("texts.json"):
        made = replace(made, texts=rubric.Texts(**trained.json("texts")))
    return made


def open_one(
    run: Run, measure: str, spec: str, *, engine: str | None, inference: Inference,
    noise: float = 0.0, error: str | None = "flips", seed: int = 0,
) -> Judge:  # fmt: skip
    """The judge of a measure, from the folder of its stage where it was trained; with ``noise``, made to err by it (``Noisy``).
    ``engine`` is what a judge that writes its verdicts runs on."""
    one = open_judge(spec, measure, opening(run, inference, engine, run.input(INPUTS[measure])))
    return Noisy(one, noise, seed, error) if noise else one


def open_training(
    run: Run, *, unsafe: str, helpful: str, engine: str | None, inference: Inference,
    noise: float = 0.0, error: str | None = "flips", seed: int = 0,
) -> dict[str, Judge]:  # fmt: skip
    """The judges that steer the loop, by measure."""
    specs = {"unsafe": unsafe, "helpful": helpful}
    settings = {"engine": engine, "inference": inference, "noise": noise, "error": error, "seed": seed}
    return {measure: open_one(run, measure, spec, **settings) for measure, spec in specs.items()}


def train_or_open(
    run: Run,
    spec: str,
    measure: str,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    settings: TrainSettings,
    opening: Opening,
) -> tuple[Judge, pd.DataFrame]:
    """A judge, and the training curves of one that is trained here (else an empty table).

    ``rows``: (to learn from, to stop by or to measure on) as ``labelled`` gives them; ``opening.base``: the folder of a
    testbed model. A trained judge is saved as the stage's ``model``; one that ``opening`` has the folder of is opened.
    """
    import pandas as pd

    if parse(spec).kind != "trained" or opening.folder is not None:
        return open_judge(spec, measure, opening), pd.DataFrame(columns=["step", "metric", "value"])
    model, tokenizer, fit = train(spec, measure, *rows, settings, base=opening.base, checkpoint_dir=run.checkpoints)
    run.cost.add(tokens_trained=fit.tokens_trained, labels=len(rows[0]))
    run.save_model("model", model, tokenizer)
    made = replace(opening, model=model, tokenizer=tokenizer, version=run.instance.key)
    return open_judge(spec, measure, made), fit.curves


def writes(spec: str) -> bool:
    """Whether a judge writes its verdicts."""
    return KINDS[parse(spec).kind].writing is not None


def n_labels(spec: str, learnt: pd.DataFrame) -> int | None:
    """How many labelled exchanges are behind a judge that is trained here; None for one that exists already, of which
    nothing is known."""
    return len(learnt) if parse(spec).kind == "trained" else None


def measured(judge: Judge, held_out: pd.DataFrame, measure: str, *, threshold: float) -> dict[str, Any]:
    """The card of a judge on exchanges that it has not seen; of helpfulness, against labels of at least ``threshold``, with the
    rank correlation over what was judged.

    Raises:
        StageError: the judge gave no verdict on more than half of the exchanges; says why.
    """
    labels = held_out.assign(label=(held_out.p >= threshold).astype(int))
    scores = judge.score(held_out.answer.tolist(), held_out.prompt.tolist())
    written = {**card.of_scores(scores, labels, threshold=threshold), "measure": measure}
    n, failures = written["n"], written["failures"]
    if failures > MOST_UNJUDGED * (n + failures):
        reasons = ", ".join(f"{reason} ({count})" for reason, count in written["reasons"].items())
        raise StageError(
            f"judge {judge.name!r} gave no verdict on {failures} of {n + failures} exchanges: {reasons}; at most "
            f"{MOST_UNJUDGED:.0%} may lack one: give another judge"
        )
    there = ~np.isnan(scores.values)
    return written | {"spearman": rank_correlation(held_out.p.to_numpy()[there], scores.values[there])}


def numbers(card: dict[str, Any]) -> dict[str, float]:
    """The card's main numbers, flat; those that are not defined are left out."""
    flat = {name: card[name]["value"] for name in NUMBERS}
    flat |= {
        "failures": card["failures"],
        "cut": card["cut"],
        "spearman": card["spearman"],
        "n_labels": card.get("n_labels"),
    }
    return {name: float(value) for name, value in flat.items() if value is not None}


def summary(card: dict[str, Any]) -> str:
    """What the card says of the judge, in words."""
    n, failures = card["n"], card["failures"]
    judged = f"{n} exchanges judged, {failures} without a verdict, {card['cut']} read in part."
    sensitivity, specificity = card["sensitivity"], card["specificity"]
    if sensitivity["value"] is None or specificity["value"] is None:
        return f"{judged} All labels are alike, so that the judge cannot be told from a constant one."
    rates = ", ".join(
        f"{name} {part['value']:.2f} [{part['lo']:.2f}, {part['hi']:.2f}]"
        for name, part in (("sensitivity", sensitivity), ("specificity", specificity))
    )
    if sensitivity["lo"] + specificity["lo"] > 1:
        return f"{judged} It is better than chance ({rates}); rates that it reports can be corrected."
    if sensitivity["value"] + specificity["value"] > 1:
        return f"{judged} It may be no better than chance ({rates}): the intervals do not rule it out."
    return f"{judged} It is no better than chance ({rates}); rates that it reports say nothing."


def shown(card: dict[str, Any]) -> pd.DataFrame:
    """The card as a table: value and 95 % interval."""
    import pandas as pd

    return pd.DataFrame({name: card[name] for name in NUMBERS}).T.astype(float).round(3)
