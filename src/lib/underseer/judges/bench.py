"""The judges of a stage: trained here or published, made weaker by ``judge_noise`` and ``judge_error``; and how right each is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import planned
from underseer.judges import card, reward, rubric, words
from underseer.judges.base import Opening, release
from underseer.judges.calibration import rank_correlation
from underseer.judges.noisy import Noisy
from underseer.judges.opening import open_judge
from underseer.judges.spec import KINDS, JudgeSpec, learns, parse, scales
from underseer.judges.trained import train

if TYPE_CHECKING:
    import pandas as pd

    from underseer.engines import Inference
    from underseer.judges.base import Judge
    from underseer.stage_run import Run
    from underseer.store import Output
    from underseer.training.settings import TrainSettings

INPUTS = {"unsafe": "training_judge", "helpful": "helpfulness_judge", "refusal": "refusal_judge"}
"""Measure: the role of the stage that trained or opened the judge that steers, or that judges refusals."""
REPORTERS = {"unsafe": "reporting_judge", "helpful": "reporting_helpfulness_judge", "refusal": "refusal_judge"}
"""The same of the judges that report."""

NUMBERS = ("accuracy", "sensitivity", "specificity", "kappa", "auroc")
LEARNT, MEMBERS = ("model", words.TABLE, reward.SCALE), "members"
"""What the stage of a judge keeps of what it has learnt, and where that of a vote keeps what its members have."""
MOST_UNJUDGED = 0.2
"""A judge without a verdict on more than this share of what it is given is not used: those it fails on are seldom like the others."""


def opening(run: Run, inference: Inference, engine: str | None = None, trained: Output | None = None) -> Opening:
    """How a stage opens a judge: as it runs models, on the engine of its plan where the judge writes its verdicts, from the
    ``trained`` output of another stage where that has trained it, with the texts that it was measured with there."""
    made = Opening(inference=inference, cost=run.cost)
    if engine is not None:
        options = planned(run, engine)
        made = replace(made, engine=options.pop("engine"), options=options)
    for name in (*LEARNT, MEMBERS):
        if trained is not None and trained.has(name):
            made = replace(made, folder=trained.file(name), version=trained.key)
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

    kind, none = KINDS[parse(spec).kind], pd.DataFrame(columns=["step", "metric", "value"])
    if kind.votes and opening.folder is None:
        opening = replace(opening, folder=_kept_members(run, parse(spec)), version=run.instance.key)
    if kind.scales and measure == reward.STANDARDISED and opening.folder is None:
        judge = open_judge(spec, measure, opening)
        run.save_json(Path(reward.SCALE).stem, reward.fitted(judge, rows[0]))
        release(judge)
        opening = replace(opening, folder=run.path(reward.SCALE))
    if not kind.learns or opening.folder is not None:
        return open_judge(spec, measure, opening), none
    if kind.name == words.NAME:
        learnt = words.train(rows[0])
        run.cost.add(labels=len(rows[0]))
        run.save_table(words.NAME, learnt)
        return open_judge(spec, measure, replace(opening, model=learnt, version=run.instance.key)), none
    model, tokenizer, fit = train(spec, measure, *rows, settings, base=opening.base, checkpoint_dir=run.checkpoints)
    run.cost.add(tokens_trained=fit.tokens_trained, labels=len(rows[0]))
    run.save_model("model", model, tokenizer)
    made = replace(opening, model=model, tokenizer=tokenizer, version=run.instance.key)
    return open_judge(spec, measure, made), fit.curves


def _kept_members(run: Run, judge: JudgeSpec) -> Path:
    """The folder of what the members of a vote have learnt in their own stages, copied, so that one stage holds the whole."""
    place = run.path(MEMBERS)
    learnt = {str(parse(output.parameters["judge"])): output for output in run.inputs("members")}
    for k, member in enumerate(judge.members):
        for name in LEARNT:
            if str(member) in learnt and learnt[str(member)].has(name):
                source, target = learnt[str(member)].file(name), place / str(k)
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    return place


def needs_no_labels(spec: str) -> bool:
    """Whether the stage of a judge has something to fit where nobody has labelled the exchanges: a scale, and nothing to learn."""
    return scales(spec) and not learns(spec)


def n_labels(spec: str, learnt: pd.DataFrame) -> int | None:
    """How many labelled exchanges are behind a judge that is trained here; None for one that exists already, of which
    nothing is known."""
    judge = parse(spec)
    return len(learnt) if all(KINDS[one.kind].learns for one in judge.members or (judge,)) else None


def measured(judge: Judge, held_out: pd.DataFrame, measure: str, *, threshold: float) -> dict[str, Any]:
    """The card of a judge on exchanges that it has not seen; of helpfulness, against labels of at least ``threshold``, with the
    rank correlation over what was judged."""
    labels = held_out.assign(label=(held_out.p >= threshold).astype(int))
    scores = judge.score(held_out.answer.tolist(), held_out.prompt.tolist())
    written = {**card.of_scores(scores, labels, threshold=threshold), "measure": measure}
    there = ~np.isnan(scores.values)
    return written | {"spearman": rank_correlation(held_out.p.to_numpy()[there], scores.values[there])}


def judges_enough(card: dict[str, Any]) -> tuple[bool, str]:
    """Whether a judge gave a verdict on all but MOST_UNJUDGED of the exchanges that measure it, and in words what must hold and
    what does."""
    n, failures = card["n"], card["failures"]
    reasons = ", ".join(f"{reason} ({count})" for reason, count in card["reasons"].items())
    text = (
        f"at most {MOST_UNJUDGED:.0%} of the exchanges that measure a judge lack its verdict; judge {card['judge']!r} gave none on "
        f"{failures} of {n + failures}" + (f": {reasons}; give another judge" if reasons else "")
    )
    return n + failures == 0 or n > 0 and failures <= MOST_UNJUDGED * (n + failures), text


def tells_apart(card: dict[str, Any], least: float) -> tuple[bool, str]:
    """Whether a judge may tell the classes apart by an AUROC of ``least``, by the upper end of its interval, so that few labels
    alone refuse none; and in words what must hold and what does."""
    area = card["auroc"]
    shown = "has none: the labels that measure it are of one class"
    if area["value"] is not None:
        shown = f"has {area['value']:.2f} [{area['lo']:.2f}, {area['hi']:.2f}]"
    text = (
        f"a judge that steers may have an AUROC of {least:g} (min_auroc); judge {card['judge']!r} {shown}: give another judge, or "
        "more labels of both classes (judge_dataset, n_judged)"
    )
    return not least or (area["value"] is not None and area["hi"] >= least), text


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
    if not n + failures:
        return "Nothing was measured: people have not labelled these exchanges so."
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
