"""The judges that a stage of the loop listens to: trained here or published, made weaker by ``judge_noise``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underseer.engines import planned
from underseer.judges import card
from underseer.judges.calibration import _correlation
from underseer.judges.evaluator import train_evaluator
from underseer.judges.exchange import open_exchange_judge, parse_exchange
from underseer.judges.noisy import Noisy

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from underseer.judges.base import Judge
    from underseer.training.settings import TrainSettings

INPUTS = {"unsafe": "training_judge", "helpful": "helpfulness_judge", "refusal": "refusal_judge"}
"""Measure: the role that the judge's stage fills."""


def open_one(
    run: Any, measure: str, spec: str, *, engine: str | None, noise: float = 0.0, seed: int = 0, **how: Any
) -> Judge:
    """The judge of a measure: from the folder of its stage where it was trained; with ``noise`` its share of turned verdicts.
    ``engine`` is what a judge that writes its verdicts runs on."""
    how |= {"cost": run.cost, **planned(run, engine), **_kept(run.input(INPUTS[measure]))}
    one = open_exchange_judge(spec, measure, **how)
    return Noisy(one, noise, seed) if noise else one


def open_training(
    run: Any, *, unsafe: str, helpful: str, engine: str | None, noise: float = 0.0, seed: int = 0, **how: Any
) -> dict[str, Judge]:
    """The judges that steer, by measure."""
    specs = {"unsafe": unsafe, "helpful": helpful}
    return {m: open_one(run, m, spec, engine=engine, noise=noise, seed=seed, **how) for m, spec in specs.items()}


def _kept(output: Any) -> dict[str, Any]:
    """Where the judge stands that a stage has trained, and its version; nothing where no stage has trained one."""
    return {} if output is None or not output.has("model") else {"folder": output.file("model"), "version": output.key}


def train_or_open(
    run: Any, spec: str, rows: tuple[pd.DataFrame, pd.DataFrame], settings: TrainSettings, measure: str, *, folder: Path | None,
    engine: str | None, noise: float = 0.0, **how: Any,
) -> tuple[Judge, pd.DataFrame]:  # fmt: skip
    """A judge of exchanges, and the training curves of one that is trained here (else an empty table).

    ``rows``: (to learn from, held out) as ``labelled`` gives them; ``folder``: the base of a testbed model. A trained judge is
    saved as the stage's ``model``; one that the stage's input ``trained`` holds is opened: only its noise differs.
    """
    import pandas as pd

    how |= {"cost": run.cost, **planned(run, engine), **_kept(run.input("trained"))}
    if parse_exchange(spec).kind != "trained" or "folder" in how:
        one, curves = open_exchange_judge(spec, measure, **how), pd.DataFrame(columns=["step", "metric", "value"])
    else:
        model, tokenizer, fit = train_evaluator(
            spec,
            *rows,
            measure=measure,
            settings=settings,
            base=folder,
            seed=settings.seed,
            checkpoint_dir=run.checkpoints,
        )
        run.cost.add(tokens_trained=fit.tokens_trained)
        run.save_model("model", model, tokenizer)
        version = run.instance.key
        one = open_exchange_judge(
            spec, measure, model=model, tokenizer=tokenizer, version=version, cache=":memory:", **how
        )
        curves = fit.curves
    return (Noisy(one, noise, settings.seed) if noise else one), curves


def measured(judge: Judge, held_out: pd.DataFrame, measure: str, *, threshold: float) -> dict[str, Any]:
    """The card of a judge on exchanges that it has not seen; of helpfulness, against labels of at least ``threshold``, with the
    rank correlation."""
    labels = held_out.assign(label=(held_out.p >= threshold).astype(int))
    found = {**card.measure(judge, labels, threshold=threshold), "measure": measure}
    scores = judge.score(held_out.answer.tolist(), held_out.prompt.tolist()).values
    return found | {"spearman": _correlation("spearmanr", held_out.p.to_numpy(), scores)}


def numbers(found: dict[str, Any]) -> dict[str, float]:
    """The card's main numbers, flat; those that are not defined are left out."""
    flat = {k: found[k]["value"] for k in ("accuracy", "sensitivity", "specificity", "kappa", "auroc")}
    flat |= {"failures": found["failures"], "spearman": found["spearman"]}
    return {k: float(v) for k, v in flat.items() if v is not None}


def shown(found: dict[str, Any]) -> pd.DataFrame:
    """The card as a table: value and 95 % interval."""
    import pandas as pd

    names = ("accuracy", "sensitivity", "specificity", "kappa", "auroc")
    return pd.DataFrame({k: found[k] for k in names}).T.astype(float).round(3)


def labelled(rows: pd.DataFrame, measure: str, held_out: float = 0.2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judged exchanges as ``prompt, answer, p`` to learn a measure from, and others to measure the judge on."""
    known = rows[rows[measure].notna()].sort_values("id")
    known = known.assign(p=known[measure].astype(float))
    kept = max(1, round(held_out * len(known)))  # ids are hashes: their order is as good as random
    return known.iloc[kept:], known.iloc[:kept]
