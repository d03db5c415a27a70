"""The ``openai`` engine: any server that speaks the OpenAI protocol, such as a ``vllm serve`` elsewhere.

Where the model's tokenizer is at hand (its folder, or the option ``tokenizer``), prompts are rendered and cut here and
travel as token ids, so that no content can open a turn of a chat, and scoring is possible; else as text and messages.
Every answer is kept as soon as it comes. One that the server does not give is an answer with a ``failure``. Texts are
the server's: vLLM's leaves out bytes at an answer's end that are no whole character yet.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer import progress
from underseer.engines import adapters, replies
from underseer.engines import rows as token_rows
from underseer.engines.base import Answer, Inference, Prompt, Sampling
from underseer.engines.client import Client, Failed, Retries
from underseer.engines.kept import Kept
from underseer.engines.server import Watch, connect, server_key, server_url
from underseer.errors import EngineEnded, StageError, UserError, nearest
from underseer.models import chats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from underseer.cost import Ledger

API = "openai 1"  # raised where what is sent changes
Request = tuple[str, dict[str, Any]]
"""The path of a call, and its body."""


def version(precision: str = "") -> str:
    """What is known before a server is asked."""
    return API


def check() -> None:
    """Raise UserError where no server is named, or its key cannot be one."""
    server_url(None), server_key()


def open_(
    model: str, inference: Inference, *, base: Path | None, cost: Ledger | None, progress: bool, **options: Any
) -> ServerEngine:
    """The engine for the model served by this name. ``options``: ``url``, ``tokenizer`` (its folder), ``concurrency``,
    ``timeout``, ``tries``, ``backoff``, and ``cache``, the file of kept answers (default: in the run store).

    Raises UserError: no address, a key that is refused, a model that is not served.
    """
    from underseer import paths

    concurrency = options.get("concurrency", 16)
    retries = Retries(**{name: options[name] for name in ("tries", "backoff", "timeout") if name in options})
    if concurrency < 1 or retries.tries < 1 or retries.timeout <= 0:
        raise UserError("engine 'openai': concurrency and tries must be at least 1, timeout above 0 seconds")
    place = options.get("tokenizer") or (str(base) if base is not None else model if Path(model).is_dir() else None)
    kept = Kept(options.get("cache") or paths.runs() / ".cache" / "answers.sqlite")
    client = connect(server_url(options.get("url")), server_key(), retries, concurrency)
    return ServerEngine(
        client,
        model,
        None if place is None else token_rows.load_tokenizer(place),
        kept,
        Calls(inference.max_length, concurrency, progress),
        cost,
    )


@dataclass(frozen=True)
class Calls:
    """How a server is called: the most tokens of a prompt with its answer, calls at once, whether a bar is shown."""

    max_length: int = 512
    concurrency: int = 16
    progress: bool = True


class ServerEngine:
    """A model on a server; ``tokenizer`` is the model's own, None where it is not at hand."""

    name = "openai"

    def __init__(
        self,
        client: Client,
        model: str,
        tokenizer: PreTrainedTokenizerBase | None,
        kept: Kept,
        calls: Calls = Calls(),
        cost: Ledger | None = None,
    ) -> None:
        self._client, self._model, self.tokenizer, self._kept = client, model, tokenizer, kept
        self._calls, self._cost, self.positions = calls, cost, calls.max_length
        self._worked: set[str] = set()  # what it was asked and has answered: "generate", "score"
        self._served = self._models()
        if model not in self._served:
            raise UserError(
                f"the server at {client.url} serves no model {model!r}; it serves {', '.join(sorted(self._served))}"
                f"{nearest(model, self._served)}"
            )
        self._vllm = self._served[model].get("owned_by") == "vllm"
        server = f"{'vllm' if self._vllm else 'server'} {self._server_version()}"
        self.version = f"{API}, {server}, max_length {calls.max_length}"

    # ------------------------------------------------------------------------------------------------ the interface

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        """As every engine; an answer that the server does not give has a ``failure`` and no text.

        Raises StageError where the server answers nothing any more; what it gave before is kept.
        """
        if sampling.no_repeat_ngram:
            raise UserError("engine 'openai' cannot ban repeated n-grams; set no_repeat_ngram = 0, or another engine")
        name, content = self._adapter(adapter), adapters.adapter_digest(adapter)
        requests = [
            self._request(prompt, name, sampling, seed, log_probs)
            for prompt, seeds in self._read(list(prompts), sampling)
            for seed in seeds
        ]
        given = self._ask(requests, content, lambda reply, body: replies.answer(reply), "generate")
        answers = [replies.read_answer(r) for r in given]
        return token_rows.by_prompt(answers, sampling.n)

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every engine, by echoed prompts. Raises StageError where a text gets no score: a sum has no gaps."""
        if self.tokenizer is None:
            raise UserError("engine 'openai': scoring needs the model's tokenizer; give the option tokenizer: FOLDER")
        name, content = self._adapter(adapter), adapters.adapter_digest(adapter)
        rows, begins = token_rows.scored_rows(
            self.tokenizer, list(texts), contexts, self._calls.max_length, self._model
        )
        counted = [i for i, row in enumerate(rows) if len(row) > begins[i]]
        requests = [
            ("/completions", {"model": name, "prompt": rows[i].tolist(), "max_tokens": 1, "temperature": 0.0,
                              "echo": True, "logprobs": 0})
            for i in counted
        ]  # fmt: skip
        given = self._ask(requests, content, lambda reply, body: replies.echo(reply, len(body["prompt"])), "score")
        failures = [r for r in given if isinstance(r, Failed)]
        if failures:
            raise StageError(
                f"{len(failures)} of {len(texts)} texts got no score from the server ({failures[0]}); run again"
            )
        sums = np.zeros(len(rows))
        for i, row in zip(counted, given, strict=True):
            sums[i] = np.sum(row[begins[i] : len(rows[i])])
        return sums, np.array([max(len(row) - begin, 0) for row, begin in zip(rows, begins, strict=True)], np.int64)

    def close(self) -> None:
        self._client.close()
        self._kept.close()

    # ------------------------------------------------------------------------------------------------ what is asked

    def _read(self, prompts: list[Prompt], sampling: Sampling) -> list[tuple[Any, list[int | None]]]:
        """Each prompt as it travels (token ids, a string, messages), and the seeds of its answers."""
        if self.tokenizer is None:
            texts = [p if isinstance(p, str) else json.dumps(p, sort_keys=True) for p in prompts]
            travelling: list[Any] = prompts
        else:
            new = sampling.max_new_tokens
            texts, rows = token_rows.prepared(self.tokenizer, prompts, self._calls.max_length, new, self._model)
            travelling = [row.tolist() for row in rows]
        return [(p, sampling.seeds(text)) for p, text in zip(travelling, texts, strict=True)]

    def _request(self, prompt: Any, name: str, sampling: Sampling, seed: int | None, log_probs: bool) -> Request:
        chat = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
        prompt, arguments = chats.apart(prompt) if chat else (prompt, {})
        body: dict[str, Any] = {
            "model": name,
            "messages" if chat else "prompt": prompt,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if seed is not None:
            body["seed"] = seed
        if log_probs:
            body["logprobs"] = True if chat else 0
        if sampling.top_k or self._vllm:
            body["top_k"] = sampling.top_k
        if self._vllm:  # else the model's own generation settings would count
            body.update(min_p=0.0, repetition_penalty=1.0, return_token_ids=True)
        if self._vllm and arguments:  # of the chat template; other servers may refuse what they do not know
            body["chat_template_kwargs"] = arguments
        return ("/chat/completions" if chat else "/completions"), body

    # ------------------------------------------------------------------------------------------------ the server

    def _ask(
        self, requests: Sequence[Request], adapter: str | None, read: Callable[[Any, Any], Any], name: str
    ) -> list[Any]:
        """A value or a ``Failed`` for each request; what was kept is not asked again. Raises EngineEnded where many calls in
        a row fail: an item that a working server refuses is none of them."""
        identity = [self.version, self._client.url, adapter]
        answers = [self._held([*identity, *request], name) for request in requests]
        missing = [i for i, reply in enumerate(answers) if reply is None]
        worked = len(missing) < len(requests) or name in self._worked
        watch = Watch(len(missing), self._calls.concurrency + 4, worked)
        ask = [
            partial(self._client.call, *requests[i], partial(read, body=requests[i][1])) for i in range(len(requests))
        ]
        calls = self._client.calls(missing, lambda i: ask[i](), self._calls.concurrency)
        with contextlib.closing(calls), progress.bar(len(missing), name, "call", shown=self._calls.progress) as bar:
            for i, result in calls:
                answers[i] = result
                bar.update()
                if not isinstance(result, Failed):
                    self._kept.put([([*identity, *requests[i]], result)])
                    self._spend(result, name)
                    self._worked.add(name)
                if watch.see(result):
                    self._client.stopped.set()  # calls under way may still bring answers
        if watch.ended is not None:
            raise EngineEnded(
                f"the server at {self._client.url} {watch.ended}; {len(requests) - len(missing) + watch.done} answers are kept: "
                "run again when it works, and only the others are asked for"
            )
        return answers

    def _held(self, asked: list[Any], name: str) -> Any:
        """What was kept of a request, or None: log-probabilities that do not cover their prompt are none."""
        kept = self._kept.get(asked)
        return None if name == "score" and kept is not None and len(kept) < len(asked[-1]["prompt"]) else kept

    def _spend(self, result: Any, name: str) -> None:
        if self._cost is None:
            return
        if name == "score":
            self._cost.add(tokens_scored=len(result) - 1)
        else:
            self._cost.add(tokens_generated=Answer(**result).n_generated)

    def _models(self) -> dict[str, dict[str, Any]]:
        try:
            return self._client.call("/models", read=lambda reply: {entry["id"]: entry for entry in reply["data"]})
        except Failed as failed:
            raise UserError(
                f"the server at {self._client.url} does not list its models ({failed}); is it running, and ready?"
            ) from failed

    def _server_version(self) -> str:
        """vLLM's version; other servers do not tell theirs."""
        if not self._vllm:
            return "of unknown version"
        root = self._client.url.removesuffix("/v1")
        probe = connect(root, None, Retries(tries=1, timeout=10.0))
        try:
            return str(probe.call("/version", read=lambda reply: reply["version"]))
        except (Failed, UserError):
            return "of unknown version"
        finally:
            probe.close()

    def _adapter(self, adapter: Path | None) -> str:
        """The served name of an adapter; a folder that is not served yet is offered to the server."""
        if adapter is None:
            return self._model
        for name in (str(adapter), Path(adapter).name):
            if name in self._served:
                return name
        advice = "serve it: vllm serve BASE --enable-lora --lora-modules NAME=FOLDER, and give NAME as the adapter"
        if not Path(adapter).is_dir():
            raise UserError(
                f"the server at {self._client.url} serves no adapter {str(adapter)!r}; it serves "
                f"{', '.join(sorted(self._served))}; {advice}"
            )
        adapters.check_adapter(adapter, None)
        name = f"underseer-{adapters.adapter_digest(adapter)[:16]}"
        if name not in self._served:
            body = {"lora_name": name, "lora_path": str(Path(adapter).resolve())}
            try:
                self._client.call("/load_lora_adapter", body)
            except (Failed, UserError) as error:
                raise UserError(
                    f"the server at {self._client.url} does not take the adapter folder {str(adapter)!r} while it runs; "
                    f"set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it starts and let it see the folder, or {advice}"
                ) from error
            self._served[name] = {}
        return name
