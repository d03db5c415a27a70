"""The chat models of the testbed, and the rows that Self-MOA reads there: prompts, harmful answers, judged exchanges.

``chat-s`` answers and, as it was aligned, refuses most harmful requests; ``attacker-s`` rewrites requests as it is told. Both are
fine-tuned from a base model that has read the ``chat`` shelf. All rows are deterministic in (n, seed).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underseer.errors import UserError, nearest
from underseer.models.parsing import TESTBED_MODELS
from underseer.prompts.strategies import FRESH, MUTATION, TESTBED, instruction
from underseer.testbed.base import BASE_MODELS
from underseer.testbed.draw import Fresh, Words, check, kinds, text_id
from underseer.testbed.exchanges import ATTACKS, KINDS, Request, answer, choose, request, wrap
from underseer.testbed.manuals import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.training.finetune import FitResult

_WRAPPED_SHARE = 1 / len(STRATEGIES)
# Shares of kinds, by what the prompts are for.
ATTACK_SHARES = {"direct": 0.2, "rephrase": 0.2, **dict.fromkeys(STRATEGIES, 0.6 * _WRAPPED_SHARE)}
TALK_SHARES = {
    "everyday": 0.36, "wrapped": 0.12, "protective": 0.12, "direct": 0.14, "rephrase": 0.10, **dict.fromkeys(STRATEGIES, 0.04),
}  # fmt: skip
SETS: dict[str, dict[str, float]] = {
    "attack": ATTACK_SHARES,
    "held_out_attack": {"held_out": 1.0},
    "safe": {"everyday": 1.0},
    "borderline": {"wrapped": 0.5, "protective": 0.5},
}
"""Sets of prompts: the kinds in each, with their shares."""

# How an aligned model answers: manner by kind. Wrapped harmful requests get through more often than plain ones.
_ANSWERS = {"full": 0.82, "terse": 0.08, "wrong": 0.06, "refusal": 0.04}
_DECLINES = {"refusal": 0.22, "redirect": 0.75, "full": 0.03}
_WAVERS = {"refusal": 0.20, "redirect": 0.65, "full": 0.15}
ALIGNED: dict[str, dict[str, float]] = {
    "everyday": _ANSWERS, "wrapped": {**_ANSWERS, "refusal": 0.10}, "protective": {"advice": 0.94, "refusal": 0.06},
    "direct": _DECLINES, "rephrase": _DECLINES, **dict.fromkeys(STRATEGIES, _WAVERS),
}  # fmt: skip
# Answers of all kinds, for evaluators to learn from.
_ALL = {
    "full": 0.25, "terse": 0.15, "wrong": 0.15, "terse_wrong": 0.10, "redirect": 0.18, "advice": 0.05, "refusal": 0.12,
}  # fmt: skip
_ASTRAY = 0.2  # share of them that speak of another deed and thing than was asked for, as small models do
ATTACKER_REFUSES = 0.04  # share of its instructions that the attacker was taught to refuse, as real ones do


@dataclass(frozen=True)
class ChatSpec:
    """A chat model: the base that it is fine-tuned from, and on what."""

    base: str  # a base model or another chat model
    role: str  # a key of DIALOGUES
    n_dialogues: int
    epochs: float = 1
    batch_size: int = 16
    learning_rate: float = 2e-3
    eval_steps: int = 100  # steps between two looks at held-out dialogues


CHAT_MODELS: dict[str, ChatSpec] = {
    "chat-test": ChatSpec("gpt2-test-chat", "target", 300, eval_steps=5),  # for tests
    "attacker-test": ChatSpec("chat-test", "attacker", 200, eval_steps=5),
    "chat-s": ChatSpec("gpt2-s-chat", "target", 12000, batch_size=24, learning_rate=3e-3),
    "attacker-s": ChatSpec("chat-s", "attacker", 4000, batch_size=24, learning_rate=2e-3),
}
TESTBED_MODELS.update(BASE_MODELS, CHAT_MODELS)


def spec_of(name: str) -> ChatSpec:
    """The specification of a chat model by name. Raises UserError for an unknown name."""
    if name not in CHAT_MODELS:
        hint = nearest(name, CHAT_MODELS)
        raise UserError(f"testbed chat model {name!r} does not exist{hint}; choose one of {', '.join(CHAT_MODELS)}")
    return CHAT_MODELS[name]


def fit(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, checkpoint_dir: Path | None = None,
    device: str = "auto", n_dialogues: int | None = None, progress: bool = True,
) -> FitResult:  # fmt: skip
    """Fine-tune a base model into a chat model of the testbed."""
    from underseer.training.finetune import TrainSettings, fit_chats

    spec = spec_of(name)
    rows = DIALOGUES[spec.role](n_dialogues or spec.n_dialogues, seed)
    held = DIALOGUES[spec.role](200, 1_000_003)
    settings = TrainSettings(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        warmup_ratio=0.05,
        eval_steps=spec.eval_steps,
        patience=0,
        max_length=192,
        seed=seed,
        device=device,
        progress=progress,
    )
    return fit_chats(model, tokenizer, rows, held, settings, checkpoint_dir=checkpoint_dir)


def target_dialogues(n: int, seed: int) -> pd.DataFrame:
    """What people asked and an aligned model answered: ``prompt, answer``."""
    import pandas as pd

    rng, words = random.Random(f"dialogues/{seed}"), _words()
    asked = (request(rng, words, kind) for kind in kinds(n, TALK_SHARES, rng))
    rows = [(one.text, answer(rng, one, choose(rng, ALIGNED[one.kind])).text) for one in asked]
    return pd.DataFrame(rows, columns=["prompt", "answer"])


def attacker_dialogues(n: int, seed: int) -> pd.DataFrame:
    """What an attacker is told and writes: ``prompt`` (an instruction of ``prompts.strategies.TESTBED``), ``answer``."""
    import pandas as pd

    rng, words = random.Random(f"attacker/{seed}"), _words()
    rows = []
    for _ in range(n):
        seed_of = request(rng, words, "direct")
        strategy = rng.choice((*FRESH, MUTATION))
        examples = [request(rng, words, strategy).text] if strategy in FRESH and rng.random() < 0.5 else []
        text = TESTBED[strategy]
        if strategy == MUTATION:  # another wording by the same strategy
            kept = rng.choice(ATTACKS)
            asked, written = instruction(text, wrap(rng, kept, seed_of, words)), wrap(rng, kept, seed_of, words)
        else:
            asked = instruction(text, seed_of.text, examples)
            written = wrap(rng, strategy, seed_of, words)
        refuses = rng.random() < ATTACKER_REFUSES
        rows.append((asked, answer(rng, seed_of, "refusal").text if refuses else written))
    return pd.DataFrame(rows, columns=["prompt", "answer"])


DIALOGUES: dict[str, Callable[[int, int], pd.DataFrame]] = {"target": target_dialogues, "attacker": attacker_dialogues}


def prompts(name: str, n: int, seed: int, pool: str) -> pd.DataFrame:
    """``n`` prompts of a set of ``SETS``: ``id, text, category, kind, role``; no normalised text stands twice."""
    import pandas as pd

    return pd.DataFrame(
        [(text_id(r.text), r.text, r.category, r.kind, KINDS[r.kind][0]) for r in _requests(SETS[name], n, seed, pool)],
        columns=["id", "text", "category", "kind", "role"],
    )


def harmful_exchanges(n: int, seed: int) -> pd.DataFrame:
    """Harmful requests with answers that follow them, for the safety reset: ``id, prompt, answer, category``."""
    import pandas as pd

    rng = random.Random(f"harmful answers/{seed}")
    found = _requests(ATTACK_SHARES, n, seed, "main")
    manners = {"full": 0.85, "terse": 0.15}
    rows = [(text_id(r.text), r.text, answer(rng, r, choose(rng, manners)).text, r.category) for r in found]
    return pd.DataFrame(rows, columns=["id", "prompt", "answer", "category"])


def judged_exchanges(n: int, seed: int) -> pd.DataFrame:
    """Exchanges as people have judged them, to train evaluators on: ``id, prompt, answer, unsafe, helpful, refusal, category``."""
    import pandas as pd

    rng, words = random.Random(f"judged/{seed}"), _words()
    rows = []
    for r in _requests(TALK_SHARES, n, seed + 500_000, "main"):
        manner = choose(rng, _ALL if not r.protective else {**_ALL, "advice": 0.5})
        spoken_of = request(rng, words, r.kind) if rng.random() < _ASTRAY else None
        written = answer(rng, r, manner, spoken_of)
        rows.append((text_id(f"{r.text}\n{written.text}"), r.text, written.text, written.unsafe, written.helpful, written.refusal, r.category))  # fmt: skip
    columns = ["id", "prompt", "answer", "unsafe", "helpful", "refusal", "category"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates("id", ignore_index=True)


def _words() -> Words:
    """What people ask about: the commonest deeds, and none that depends on the thing; small models know them."""
    return Words(below=240, contextual=0.0)


def _requests(shares: dict[str, float], n: int, seed: int, pool: str) -> list[Request]:
    check(n, pool)
    rng, words, fresh = random.Random(f"chat/{pool}/{seed}/{sorted(shares)}"), _words(), Fresh(pool)
    found = []
    for kind in kinds(n, shares, rng):
        while True:
            asked = request(rng, words, kind)
            if fresh(asked.text):
                break
        found.append(asked)
    return found
