"""What an OpenAI-compatible server replies, as answers and log-probabilities: pure functions of parsed JSON."""

from __future__ import annotations

import re
from typing import Any

from underseer.engines.client import Failed, Refused

FILTERED = re.compile(
    r"content_?(filter|policy)|policy_?violation|ResponsibleAI|moderation|safety|blocked", re.IGNORECASE
)
"""Names by which servers say that their content filter does not let a prompt or an answer through."""

_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
_BROKEN = ("abort", "error", "cancelled", "insufficient_system_resource")


def answer(reply: Any) -> dict[str, Any]:
    """An answer's fields from a reply; raises ``Refused`` where a filter withheld it, and ValueError or the like where the
    reply is none. Ids that a server gives hold the end token. What a model thought before its answer is left out."""
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    finish = _finish(choice.get("finish_reason"))
    text = choice["text"] if "text" in choice else _content(choice["message"])
    if not isinstance(text, str):
        raise ValueError("no text")
    given = choice.get("logprobs") or {}
    own = given.get("token_logprobs") or [token["logprob"] for token in given.get("content") or []]
    ids = choice.get("token_ids")
    counted = int(usage.get("completion_tokens") or len(own)) if ids is None else None
    ids = list(ids or [])
    ids = ids[:-1] if finish == "stop" else ids
    return {
        "text": text,
        "token_ids": ids,
        "finish_reason": finish,
        "log_probs": [float(p) for p in own][: len(ids) if counted is None else None] if given else None,
        "n_prompt_tokens": int(usage.get("prompt_tokens") or 0),
        "counted": counted,
    }


def _finish(reason: Any) -> str:
    """Why an answer ended: "length", or "stop" for all the names that servers have for it."""
    name = str(reason or "stop")
    if FILTERED.search(name):
        raise Refused(f"refused: finish_reason {name[:60]}")
    if name.lower() in _BROKEN:
        raise ValueError(name)
    return "length" if name.lower() in _CUT else "stop"


def _content(message: dict[str, Any]) -> Any:
    """A message's text: its content, or its refusal; nothing where a model only thought until its tokens ran out."""
    text = message.get("content")
    if text is None:
        text = message.get("refusal")
    if text is None and (message.get("reasoning_content") or message.get("reasoning")):
        return ""
    return text


def echo(reply: Any, n: int) -> list[float]:
    """Log-probabilities of a prompt's ``n`` tokens; 0 for the first, which nothing precedes. Raises ``Failed`` where the reply
    gives fewer, as that of a server without ``echo``."""
    own = reply["choices"][0]["logprobs"]["token_logprobs"]
    if len(own) < n or any(p is None for p in own[1:n]):
        given = sum(p is not None for p in own[1:n]) + bool(own)
        raise Failed(
            f"the server gave log-probabilities of {given} of {n} tokens; scoring needs one with echo, as vLLM"
        )
    return [0.0 if p is None else float(p) for p in own]
