"""What an OpenAI-compatible server replies, as answers and log-probabilities: pure functions of parsed JSON."""

from __future__ import annotations

import re
from typing import Any

from underseer.engines.base import Answer
from underseer.engines.client import Failed, Refused, Withheld, names_in

FILTERED = re.compile(
    r"content_?(filter|policy)|policy_?violation|ResponsibleAI|moderation|safety|blocked|data_?inspection|invalid_prompt"
    r"|context_length_exceeded|prohibited|recitation|^spii$|blocklist|^sensitive$|guardrail|^1301$",
    re.IGNORECASE,
)
"""Names by which servers say that they do not let a prompt or an answer through: their content filter, or its length."""

_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
_BROKEN = ("abort", "error", "cancelled", "insufficient_system_resource")
_HALF = re.compile("[\ud800-\udfff]")  # of a character


def answer(reply: Any) -> dict[str, Any]:
    """An answer's fields from a reply; raises ``Refused`` where a filter withheld it, and ValueError or the like where the
    reply is none. Ids that a server gives hold the end token. What a model thought before its answer is left out."""
    choice, usage = _choice(reply), reply.get("usage") or {}
    finish = _finish(choice.get("finish_reason"))
    text = choice["text"] if "text" in choice else _content(choice["message"] or {})
    if not isinstance(text, str):
        raise Withheld("no text")
    given = choice.get("logprobs") or {}
    own = given.get("token_logprobs") or [token["logprob"] for token in given.get("content") or []]
    ids = choice.get("token_ids")
    counted = (_count(usage.get("completion_tokens")) or len(own)) if ids is None else None
    ids = list(ids or [])
    ids = ids[:-1] if finish == "stop" else ids
    return {
        "text": whole(text),
        "token_ids": ids,
        "finish_reason": finish,
        "log_probs": [float(p) for p in own][: len(ids) if counted is None else None] if given else None,
        "n_prompt_tokens": _count(usage.get("prompt_tokens")),
        "counted": counted,
    }


def read_answer(result: dict[str, Any] | Failed) -> Answer:
    """The outcome of a call as an answer, also one that was kept by an earlier version."""
    if isinstance(result, Failed):
        return Answer("", [], "failed", failure=str(result))
    return Answer(**result | {"text": whole(result["text"])})


def whole(text: str) -> str:
    """A text in which halves of characters, which no file can hold, are replaced."""
    return _HALF.sub("\ufffd", text)


def _choice(reply: Any) -> dict[str, Any]:
    """The answer of a reply. Raises ``Refused`` where there is an error of a filter in its place, whatever the status."""
    if reply.get("choices"):
        return reply["choices"][0]
    filtered = next((name for name in names_in(reply) if FILTERED.search(name)), None) if "error" in reply else None
    if filtered:
        raise Refused(f"refused: {filtered}")
    if "choices" in reply and not reply.get("error"):
        raise Withheld("no choices")
    raise ValueError("an error")


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    try:
        return max(0, int(value or 0))
    except (ValueError, TypeError, OverflowError):
        return 0


def _finish(reason: Any) -> str:
    """Why an answer ended: "length", or "stop" for all the names that servers have for it."""
    name = str(reason or "stop")
    if FILTERED.search(name) or name.lower() == "refusal":
        raise Refused(f"refused: finish_reason {name[:60]}")
    if name.lower() in _BROKEN:
        raise ValueError(name)
    return "length" if name.lower() in _CUT else "stop"


def _content(message: dict[str, Any]) -> Any:
    """A message's text: its content, or its refusal; nothing where a model only thought until its tokens ran out."""
    text = message.get("content")
    if isinstance(text, list):
        text = _joined(text)
    if text is None:
        text = message.get("refusal")
    if text is None and (message.get("reasoning_content") or message.get("reasoning")):
        return ""
    return text


def _joined(parts: list[Any]) -> str | None:
    """The text of a content in parts, without what was thought; None where no part says anything."""
    thought = [isinstance(p, dict) and p.get("type") in ("thinking", "reasoning") for p in parts]
    rest = [p for p, skipped in zip(parts, thought, strict=True) if not skipped]
    texts = [p if isinstance(p, str) else p.get("text") or p.get("refusal") for p in rest]
    said = [text for text in texts if isinstance(text, str)]
    return "".join(said) if said or any(thought) else None


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
