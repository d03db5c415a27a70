"""What every engine has in common: prompts, how they are continued, and the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from underseer.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

Prompt = str | list[dict[str, Any]]
"""What is continued: a text that reads on, or a chat (``chats.Chat``) that the assistant answers."""


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. Raises UserError for values out of range."""

    max_new_tokens: int = 20
    temperature: float = 0.0  # 0 = greedy: always the likeliest token
    top_p: float = 1.0  # only the likeliest tokens that together reach this probability; 1 = all
    top_k: int = 0  # only this many likeliest tokens; 0 = all
    no_repeat_ngram: int = 0  # no n-gram of this many tokens twice in prompt and answer; 0 = allowed
    n: int = 1  # answers per prompt
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature >= 0, "at least 0 (0 = greedy)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (1 = off)"),
            "top_k": (self.top_k >= 0, "at least 0 (0 = off)"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, "at least 0 (0 = off)"),
            "n": (self.n >= 1, "at least 1"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                raise UserError(f"sampling: {name} = {getattr(self, name)!r}; it must be {allowed}")
        if self.temperature == 0 and self.n > 1:
            raise UserError(f"sampling: n = {self.n} greedy answers would all be the same; set a temperature, or n = 1")

    def noise_key(self, prompt: str, draw: int) -> int:
        """The 64-bit key of one answer's random numbers. It depends on seed, prompt and draw alone, so that an answer does
        not depend on its neighbours."""
        content = f"{self.seed}\0{draw}\0".encode() + prompt.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")

    def seeds(self, prompt: str) -> list[int | None]:
        """A 63-bit seed for each answer to a prompt, for engines that take one a request; None where nothing is drawn."""
        if self.temperature == 0:
            return [None]
        return [self.noise_key(prompt, draw) >> 1 for draw in range(self.n)]


@dataclass(frozen=True)
class Inference:
    """How a model runs where it is not trained. ``batch_size`` counts rows; ``max_length`` is the most tokens of a prompt with
    its answer, or of a text that is judged; None: as many as the model has positions for."""

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 64
    max_length: int | None = 512


USUAL = Inference()


@dataclass(frozen=True)
class Answer:
    """One continuation, without its prompt. ``token_ids`` leave out the end token that closed it, if one did."""

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length", "failed"]  # the model ended its text, max_new_tokens did, or see failure
    log_probs: list[float] | None = (
        None  # of token_ids, nats, by the model alone: before temperature, top-k, top-p, bans
    )
    n_prompt_tokens: int = 0  # that the model read before it, after cutting
    failure: str | None = None  # why there is no answer (then text is empty): only engines that call a server fail so
    counted: int | None = None  # tokens by a server's count, where it does not give their ids

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids) if self.counted is None else self.counted

    @property
    def n_generated(self) -> int:
        """Tokens that the model generated, the end token included."""
        return self.n_tokens + (self.finish_reason == "stop")


class Engine(Protocol):
    """A model that is ready. ``version`` holds what, beside the model, decides its answers; it goes into results.

    Where they are known it has ``tokenizer``, the model's own, and ``positions``, the most tokens of a prompt with its answer.
    """

    name: str
    version: str

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        """For each prompt, in the order given, its ``sampling.n`` answers."""
        ...

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed log-probability of each text's tokens in nats (n,) float64, and how many tokens were counted (n,)."""
        ...

    def close(self) -> None:
        """Give back memory and processes. An engine is not used afterwards."""
        ...
