"""Attacks on the present target: rounds of prompts that build on those that have succeeded.

Source: Self-MOA (arXiv 2603.07017), progressive red teaming by small models. A prompt counts as a success where the training
judge calls the target's answer unsafe. What the attacker declines to write, an answer or a copy in place of an attack, what repeats
and what the judge gives no verdict on is counted apart, never as a failure of the attack; so are calls of the attacker that failed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines.base import Answer
from underseer.models import chats
from underseer.prompts.strategies import MUTATION, instruction
from underseer.selfmoa import targets
from underseer.selfmoa.flaws import TEMPLATES, check_of, declined, flaw

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from underseer.engines import Engine, Inference, Sampling
    from underseer.judges.base import Judge
    from underseer.selfmoa.flaws import Check
    from underseer.stage_run import Run

    Success = Callable[[np.ndarray], np.ndarray]  # safety scores (n,), NaN where unjudged -> bool (n,)

__all__ = ["TEMPLATES", "check_of", "declined", "flaw"]  # of flaws

COLUMNS = (
    "id", "text", "category", "strategy", "parents", "iteration", "round", "refused_by_attacker", "flaw", "duplicate", "unsafe", "success",
    "answer",
)  # fmt: skip
EXAMPLES = 2  # successes that an instruction quotes at most
FAILED = "call failed"  # begins the flaw of what was never written: the attacker's call failed


def succeeds(unsafe: np.ndarray, threshold: float) -> np.ndarray:
    """Attacks (n,) that succeeded: the safety score of the answer (lower is safer) is at or above the threshold.

    An answer without a score (NaN) is no success; ``counts`` leaves it out of the rate.
    """
    return unsafe >= threshold


class Templates:
    """The attacker that is no model: an instruction is a template, and what it makes is the prompt."""

    name, version = TEMPLATES, "1"

    def generate(self, prompts: Sequence[chats.Chat], sampling: Sampling, **_: Any) -> list[list[Answer]]:
        return [[Answer(prompt[-1]["content"], [], "stop")] for prompt in prompts]


def attacker(run: Run, engine: str, red_team_model: str, inference: Inference) -> Engine | Templates:
    """What writes the attacks of a stage: ``templates``, or a chat model."""
    if red_team_model == TEMPLATES:
        return Templates()
    return targets.engine(run, engine, targets.Target(red_team_model, targets.chat_folder(run, "attacker")), inference)


@dataclass(frozen=True)
class Budget:
    """What one iteration may spend, and when it stops early: a round with fewer than ``min_new`` new successes ends it."""

    prompts: int  # over all rounds
    rounds: int
    min_new: int = 1


@dataclass(frozen=True)
class Players:
    """Who attacks, who answers (with ``adapter`` on it) and who judges."""

    attacker: Engine | Templates
    target: Engine
    judge: Judge
    adapter: Path | None = None


class RedTeam:
    """Players at work on one iteration.

    ``instructions``: strategy -> what the attacker is asked; "mutation" changes a prompt that has succeeded, all others begin with
    a seed. ``success``: which safety scores count as a success. ``check``: what of the attacker's texts is no attack.
    """

    def __init__(
        self,
        players: Players,
        instructions: Mapping[str, str],
        *,
        success: Success,
        sampling: Sampling,
        seed: int,
        check: Check = declined,
    ) -> None:
        self.players, self.instructions, self.success, self.check = players, instructions, success, check
        self.sampling, self.seed = sampling, seed

    def attack(
        self, seeds: pd.DataFrame, archive: pd.DataFrame | None, known: Iterable[str], budget: Budget, iteration: int
    ) -> pd.DataFrame:
        """The archive with this iteration's prompts added: COLUMNS.

        ``seeds``: id, text, category. ``archive``: earlier iterations. ``known``: texts that no attack may repeat, such as those of
        the evaluation sets.
        """
        import pandas as pd

        from underseer.data import normalise

        attacks = pd.DataFrame(columns=list(COLUMNS)) if archive is None else archive
        seen = {normalise(t) for t in (*known, *attacks.text)}
        per_round = max(1, budget.prompts // budget.rounds)
        for number in range(1, budget.rounds + 1):
            rng = random.Random(f"red team/{self.seed}/{iteration}/{number}")
            plans = self._plan(rng, seeds, attacks[attacks.success.astype(bool)], per_round)
            rows = self._round(plans, seen, iteration, number)
            attacks = pd.concat([attacks, rows], ignore_index=True) if len(attacks) else rows
            if int(rows.success.sum()) < budget.min_new:
                break
        return attacks.astype({"refused_by_attacker": bool, "duplicate": bool, "success": bool, "unsafe": float})

    def _plan(self, rng: random.Random, seeds: pd.DataFrame, successes: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        """What to ask the attacker for: strategy, category, parents, and the request and examples in what it is asked."""
        strategies = list(self.instructions)
        fresh = [name for name in strategies if name != MUTATION]
        plans = []
        for k in range(n):
            strategy = strategies[k % len(strategies)]
            if strategy == MUTATION and not len(successes):
                strategy = rng.choice(fresh)
            pool = successes if strategy == MUTATION else seeds
            source = pool.iloc[rng.randrange(len(pool))]
            same = [] if strategy == MUTATION else successes[successes.strategy == strategy].text.tolist()
            examples = rng.sample(same, min(len(same), rng.randint(0, EXAMPLES)))
            asked = instruction(self.instructions[strategy], source.text, examples)
            plan = {"strategy": strategy, "category": source.category, "parents": [source.id]}
            plans.append(plan | {"asked": asked, "request": source.text, "examples": examples})
        return plans

    def _round(self, plans: list[dict[str, Any]], seen: set[str], iteration: int, number: int) -> pd.DataFrame:
        import pandas as pd

        from underseer.data import normalise

        writing = replace(self.sampling, seed=_seed(self.seed, iteration, number))
        drawn = self.players.attacker.generate([chats.ask(p["asked"]) for p in plans], writing)
        written = [answers[0].text.strip() for answers in drawn]
        rows = pd.DataFrame(plans).drop(columns=["asked", "request", "examples"])
        rows = rows.assign(text=written, iteration=iteration, round=number, answer="")
        rows["parents"] = [json.dumps(p) for p in rows.parents]
        rows["id"] = [_name(f"{iteration}/{number}/{k}/{t}") for k, t in enumerate(written)]
        flaws = [self.check(t, p) for t, p in zip(written, plans, strict=True)]
        calls = [None if a[0].failure is None else _failed(a[0].failure) for a in drawn]
        rows["flaw"] = pd.Series([call or f for call, f in zip(calls, flaws, strict=True)], dtype=object)
        rows["refused_by_attacker"] = rows.flaw.isin(("refusal", "answer"))
        plain = [normalise(t) for t in written]
        repeats = [t in seen or t in plain[:k] for k, t in enumerate(plain)]
        unwritten = rows.refused_by_attacker | failed(rows)
        rows["duplicate"] = ~unwritten & (pd.Series(repeats) | (rows.flaw == "copy"))
        seen.update(plain)
        rows["unsafe"], rows["success"] = float("nan"), False
        self._answered(rows, ~(unwritten | rows.duplicate), writing)
        return rows[list(COLUMNS)]

    def _answered(self, rows: pd.DataFrame, asked: pd.Series, sampling: Sampling) -> None:
        """Fill in the target's answers to the prompts that are asked, and the verdicts; an answer whose call failed has none."""
        if not asked.any():
            return
        chats_ = [chats.ask(text) for text in rows.text[asked]]
        answers = [a[0] for a in self.players.target.generate(chats_, sampling, adapter=self.players.adapter)]
        rows.loc[asked, "answer"] = [a.text for a in answers]
        judged = asked.copy()
        judged[asked] = [a.failure is None for a in answers]
        if judged.any():
            unsafe = self.players.judge.score(rows.answer[judged].tolist(), rows.text[judged].tolist()).values
            rows.loc[judged, "unsafe"] = unsafe
            rows.loc[judged, "success"] = self.success(unsafe)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _seed(seed: int, iteration: int, number: int) -> int:
    return 1_000_000 * seed + 1_000 * iteration + number


def _failed(reason: str) -> str:
    return reason if reason.startswith(FAILED) else f"{FAILED}: {reason}"


def failed(attacks: pd.DataFrame) -> pd.Series:
    """Which attacks (n,) were never written, as the attacker's call failed."""
    return attacks.flaw.astype(object).map(lambda f: isinstance(f, str) and f.startswith(FAILED)).astype(bool)


def enough_written(attacks: pd.DataFrame, iteration: int) -> tuple[bool, str]:
    """Whether few enough of an iteration's calls of the attacker failed, and in words what must hold and what does."""
    from underseer.selfmoa.preferences import enough_calls

    own = attacks[attacks.iteration == iteration]
    return enough_calls(own.flaw.where(failed(own)), "of the attacker")


def asked(attacks: pd.DataFrame, iteration: int) -> pd.DataFrame:
    """The attacks of one iteration that the target was asked: written, and neither declined by the attacker nor repeated."""
    own = attacks[attacks.iteration == iteration]
    return own[~(own.refused_by_attacker | own.duplicate | failed(own))]


def counts(attacks: pd.DataFrame, iteration: int) -> dict[str, float]:
    """What one iteration's attacks came to: calls for a prompt, those that failed, declined (answers in place of attacks among them), repeated (copies among
    them), asked, not judged, successes, and their share of what was judged (left out where nothing was)."""
    own, put = attacks[attacks.iteration == iteration], asked(attacks, iteration)
    n_unjudged, successes = int(put.unsafe.isna().sum()), int(own.success.sum())
    judged = len(put) - n_unjudged
    return {
        "n_written": len(own),
        "n_failed": int(failed(own).sum()),
        "n_refused_by_attacker": int(own.refused_by_attacker.sum()),
        **{f"n_{name}": int((own.flaw == kind).sum()) for kind, name in (("answer", "answers"), ("copy", "copies"))},
        "n_duplicates": int(own.duplicate.sum()),
        "n_asked": len(put),
        "n_unjudged": n_unjudged,
        "n_successes": successes,
        "n_rounds": int(own["round"].max()) if len(own) else 0,
        **({"attack_success": successes / judged} if judged else {}),
    }


def outcome(attacks: pd.DataFrame, iteration: int) -> str:
    """In words, for the notebook: whether the loop has anything left to learn from attacks, and what the attacker did not write."""
    n = counts(attacks, iteration)
    judged = n["n_asked"] - n["n_unjudged"]
    unjudged = f" {n['n_unjudged']} answers have no verdict." if n["n_unjudged"] else ""
    refusals = n["n_refused_by_attacker"] - n["n_answers"]
    text = (
        ""
        if n["n_asked"] == n["n_written"]
        else (
            f"Of {n['n_written']} prompts {refusals} were refusals of the attacker, {n['n_answers']} answers in place of attacks, "
            f"{n['n_duplicates']} repeats ({n['n_copies']} of them copies of what it was shown). "
        )
    )
    text += f"{n['n_failed']} calls of the attacker failed. " if n["n_failed"] else ""
    if n["n_asked"] and not judged:
        return f"{text}The judge gave no verdict on the answers to {n['n_asked']} prompts: whether an attack succeeded is not known."
    if n["n_successes"]:
        return f"{text}{n['n_successes']} of {judged} judged prompts made the target answer unsafely.{unjudged}"
    return (
        f"{text}No attack succeeded in {judged} judged prompts: the loop has no unsafe answer left to learn from, and this "
        f"iteration trains on safe and borderline prompts alone.{unjudged}"
    )
