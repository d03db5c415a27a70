"""Rows with labels: those from which judges learn, and others on which they are measured.

RealToxicityPrompts stores Perspective's score of every prompt and continuation, so that a scorer can be trained, and
measured on rows it has not seen, without the service. The rows of the split ``judge`` are divided in two halves for
good: what selects continuations (role ``training``) and what reports (role ``reporting``) learn from different rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("training", "reporting")
APART = 250_000  # added to the seed of exchanges for judges that report
KEPT_SHARE = 1 / 3  # of the prompts of a public data set, by their hash: only judges that report may learn from them
VALIDATION_SHARE = 0.15  # of a half's rows: they choose the moment at which training stops
COLUMNS = {"text": "prompt_toxicity", "continuation": "toxicity"}
"""Text column -> column of its stored score."""


def scored_texts(rows: pd.DataFrame, role: str, replicate: int = 0, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train a scorer on and rows to stop it by: two frames ``id, text, p``, prompts and continuations alike.

    ``rows`` are the data stage's: ``id``, ``text`` (the prompt), ``continuation``, ``prompt_toxicity``, ``toxicity``;
    with a column ``split``, those of ``judge``. Half and validation are hashes of the row's id: they depend on no seed,
    and a prompt stays with its continuation. ``replicate`` >= 1 draws a bootstrap sample of the rows to train on with
    ``seed`` (validation rows stay). A text that is empty or has no score is left out. Raises UserError: an unknown
    role, a missing column, a score outside [0, 1], too few rows.
    """
    half = _half(rows, role)
    held = [_share("judge validation", name) < VALIDATION_SHARE for name in half["id"]]
    fit, validation = half[[not h for h in held]], half[held]
    for frame, what in ((fit, "training"), (validation, "validation")):
        if frame.empty:
            raise UserError(f"the judge {role!r} has {len(half)} rows and no {what} row among them; raise n_judge")
    if replicate:
        from underseer.maths.votes import bootstrap_sample

        fit = fit.iloc[bootstrap_sample(len(fit), replicate, seed)]
    return _scored_texts(fit), _scored_texts(validation)


def held_out(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    """Rows that the scorers of ``role`` have not seen, to measure them on: the other half, as ``id, text, p``."""
    _check_role(role)
    return _scored_texts(_half(rows, ROLES[1 - ROLES.index(role)]))


def passages(rows: pd.DataFrame, held_out: float = 0.15) -> tuple[list[str], list[str]]:
    """Passages of the judge split, prompt and continuation together, for a fluency model: (to learn, held out)."""
    part = rows[rows.split == "judge"].sort_values("id")
    texts = [f"{prompt}{continuation}" for prompt, continuation in zip(part.text, part.continuation, strict=True)]
    kept = max(1, round(held_out * len(texts)))  # ids are hashes: their order is as good as random
    if len(texts) < 2:
        raise UserError(f"the judge split has {len(texts)} rows; a fluency model needs at least 2: raise n_judge")
    return texts[kept:], texts[:kept]


def of_role(
    role: str, datasets: tuple[str, str | None], path: str | None, measure: str, *, n: int, seed: int
) -> pd.DataFrame:
    """At most ``n`` exchanges of a judge: ``id, prompt, answer, category`` and those of ``unsafe``, ``helpful`` and ``refusal`` that they
    are labelled by; with a label of ``measure``, where the data set knows it.

    ``datasets``: that of judges that steer (``role`` "training"), and that of judges that report (None: the same), who get no prompt
    from which the others may learn, of whatever measure: of public data a third of the prompts is never for judges that steer.
    Raises UserError for a data set without prompts for both.
    """
    _check_role(role)
    steers, dataset = role == ROLES[0], datasets[0] if role == ROLES[0] else datasets[1] or datasets[0]
    if dataset.startswith("testbed"):
        # By name: public data does not rest on the testbed's code.
        draw = import_module("underseer.testbed.chat").judged_exchanges
        rows = draw(n, seed)
        return rows if steers else _others(draw(n, seed + APART), rows)
    from underseer.data.exchanges import load_exchanges

    rows = load_exchanges(datasets[0], path, seed=seed)
    rows = rows[[_share("judges that report", name) >= KEPT_SHARE for name in rows["prompt_id"]]]
    if not steers:
        rows = _others(load_exchanges(dataset, path, seed=seed), rows)
    if rows.empty:
        raise UserError(
            f"{dataset!r} holds too few prompts for judges that steer and others for judges that report; give another judge_dataset, or "
            "another reporting_judge_dataset"
        )
    if measure in rows.columns:
        rows = rows[rows[measure].notna()]  # of several data sets not all may know it
    return rows.sample(min(n, len(rows)), random_state=seed).reset_index(drop=True)


def _others(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The exchanges whose prompts are not among the known ones."""
    return rows[~rows["prompt"].isin(set(known["prompt"]))].reset_index(drop=True)


def divided(
    rows: pd.DataFrame, measure: str, held_out: float = 0.2, *, unlabelled: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judged exchanges as ``prompt, answer, p`` to learn a measure from, and others to measure the judge on. With ``unlabelled``,
    exchanges that nobody has labelled so are all of the first kind, p being NaN. Answers to one prompt (``prompt_id``, where the rows
    have it) stand on one side, so that no prompt is known from training.

    Raises UserError for exchanges without such labels, or whose labels are all of one class.
    """
    if measure not in rows.columns:
        if unlabelled:
            rows = rows.assign(p=float("nan"))
            return rows, rows.head(0)
        raise UserError(
            f"judge_dataset says nothing of {measure}; a judge of it cannot be trained or measured here: give a published one "
            "(classifier:, reward:, rubric:, guard:)"
        )
    key = "prompt_id" if "prompt_id" in rows.columns else "id"
    known = rows[rows[measure].notna()].sort_values(
        list({key: None, "id": None})
    )  # ids are hashes: their order is as good as random
    known = known.assign(p=known[measure].astype(float))
    if known.p.nunique() < 2:
        value = f"{known.p.iloc[0]:g}" if len(known) else "missing"
        raise UserError(
            f"all {len(known)} labels of {measure} are {value}: a judge can neither learn nor be measured without both classes; "
            "give a judge_dataset that has them (without /unsafe or /safe)"
        )
    kept = max(1, round(held_out * len(known)))
    first = known[key] <= known[key].iloc[kept - 1]
    return known[~first], known[first]


# ---------------------------------------------------------------------------------------------------- parts


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UserError(f"judge role {role!r} is unknown; allowed are {', '.join(ROLES)}{nearest(role, ROLES)}")


def _half(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    _check_role(role)
    missing = [name for name in ("id", *COLUMNS, *COLUMNS.values()) if name not in rows.columns]
    if missing:
        raise UserError(
            f"a scorer cannot be trained on these rows: they lack {', '.join(missing)} (they have "
            f"{', '.join(map(str, rows.columns))}); give a toxicity data set, or a judge that is not trained here"
        )
    if "split" in rows.columns:
        rows = rows[rows["split"] == "judge"]
    for column in COLUMNS.values():
        score = rows[column].astype("float64")
        if not (score.isna() | ((score >= 0) & (score <= 1))).all():
            raise UserError(f"column {column!r} of the judge rows holds scores outside [0, 1]")
    first = [_share("judge half", name) < 0.5 for name in rows["id"]]
    half = rows[[inside == (role == ROLES[0]) for inside in first]]
    if half.empty:
        raise UserError(f"no row of the {len(rows)} in split 'judge' falls to the judge {role!r}; raise n_judge")
    return half


def _share(salt: str, name: str) -> float:
    """A number in [0, 1) that depends on salt and id alone; ids spread evenly."""
    return int(hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()[:13], 16) / 16**13


def _scored_texts(rows: pd.DataFrame) -> pd.DataFrame:
    """Prompts, then continuations: ``id, text, p``; whitespace around a text is not judged."""
    import pandas as pd

    parts = [
        pd.DataFrame({"id": rows["id"] + suffix, "text": _stripped(rows[column]), "p": rows[score].astype("float64")})
        for (column, score), suffix in zip(COLUMNS.items(), (":prompt", ":continuation"), strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[(table["text"] != "") & table["p"].notna()].reset_index(drop=True)


def _stripped(texts: Iterable[Any]) -> list[str]:
    return [text.strip() if isinstance(text, str) else "" for text in texts]
