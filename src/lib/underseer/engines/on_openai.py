"""The ``openai`` engine: any server that speaks the OpenAI protocol, such as a ``vllm serve`` elsewhere.

Where the model's tokenizer is at hand (its folder, or the option ``tokenizer``), prompts are rendered and cut here and
travel as token ids, so that no content can open a turn of a chat, and scoring is possible; else as text and messages.
Every answer is kept as soon as it comes. One that the server does not give is an answer with a ``failure``. Texts are
the server's: vLLM's leaves out bytes at an answer's end that are no whole character yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import Answer, Prompt, Sampling, adapters, replies
from underseer.engines.client import Client, Failed, away, server_key, server_url
from underseer.engines.kept import Kept, adapter_digest
from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from underseer.cost import Ledger

API = "openai 1"  # raised where what is sent changes


def version(precision: str = "") -> str:
    """What is known before a server is asked."""
    return API


def check() -> None:
    """Raise UserError where no server is named, or its key cannot be one."""
    server_url(None), server_key()


def open_(
    model: str,
    *,
    base: Path | None,
    max_length: int,
    cost: Ledger | None,
    progress: bool,
    url: str | None = None,
    tokenizer: str | None = None,
    concurrency: int = 16,
    timeout: float = 120.0,
    tries: int = 5,
    backoff: float = 1.0,
    cache: Path | str | None = None,
) -> ServerEngine:
    """The engine for the model served by this name. ``cache`` is the file of kept answers (default: in the run store).

    Raises UserError: no address, a key that is refused, a model that is not served.
    """
    from underseer import paths

    if concurrency < 1 or tries < 1 or timeout <= 0:
        raise UserError("engine 'openai': concurrency and tries must be at least 1, timeout above 0 seconds")
    client = Client(
        server_url(url), server_key(), tries=tries, backoff=backoff, timeout=timeout, connections=concurrency
    )
    place = tokenizer or (str(base) if base is not None else model if Path(model).is_dir() else None)
    kept = Kept(paths.runs() / ".cache" / "answers.sqlite" if cache is None else cache)
    return ServerEngine(
        client, model, _tokenizer(place), kept,
        max_length=max_length, concurrency=concurrency, cost=cost, progress=progress,
    )  # fmt: skip


class ServerEngine:
    """A model on a server; ``tokenizer`` is the model's own, None where it is not at hand."""

    name = "openai"

    def __init__(
        self,
        client: Client,
        model: str,
        tokenizer: PreTrainedTokenizerBase | None,
        kept: Kept,
        *,
        max_length: int = 512,
        concurrency: int = 16,
        cost: Ledger | None = None,
        progress: bool = True,
    ) -> None:
        self._client, self._model, self._tokenizer, self._kept = client, model, tokenizer, kept
        self._max_length, self._concurrency, self._cost, self._progress = max_length, concurrency, cost, progress
        self._served = self._models()
        if model not in self._served:
            raise UserError(
                f"the server at {client.url} serves no model {model!r}; it serves {', '.join(sorted(self._served))}"
                f"{nearest(model, self._served)}"
            )
        self._vllm = self._served[model].get("owned_by") == "vllm"
        self.version = f"{API}, {'vllm' if self._vllm else 'server'} {self._server_version()}, max_length {max_length}"

    # ------------------------------------------------------------------------------------------------ the interface

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        """As every engine; an answer that the server does not give has a ``failure`` and no text.

        Raises StageError where the server answers nothing any more; what it gave before is kept.
        """
        if sampling.no_repeat_ngram:
            raise UserError("engine 'openai' cannot ban repeated n-grams; set no_repeat_ngram = 0, or another engine")
        name, content = self._adapter(adapter), adapter_digest(adapter)
        requests = [
            self._request(prompt, name, sampling, seed, log_probs)
            for prompt, seeds in self._read(list(prompts), sampling)
            for seed in seeds
        ]
        found = self._ask(requests, content, replies.answer, "generate")
        answers = [_failed(r) if isinstance(r, Failed) else Answer(**r) for r in found]
        return [answers[i : i + sampling.n] for i in range(0, len(answers), sampling.n)]

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every engine, by echoed prompts. Raises StageError where a text gets no score: a sum has no gaps."""
        from underseer.engines.rows import scored_rows
        from underseer.errors import StageError

        if self._tokenizer is None:
            raise UserError("engine 'openai': scoring needs the model's tokenizer; give the option tokenizer: FOLDER")
        name, content = self._adapter(adapter), adapter_digest(adapter)
        rows, begins = scored_rows(self._tokenizer, list(texts), contexts, self._max_length, self._model)
        counted = [i for i, row in enumerate(rows) if len(row) > begins[i]]
        requests = [
            ("/completions", {"model": name, "prompt": rows[i].tolist(), "max_tokens": 1, "temperature": 0.0,
                              "echo": True, "logprobs": 0})
            for i in counted
        ]  # fmt: skip
        found = self._ask(requests, content, replies.echo, "score")
        failures = [r for r in found if isinstance(r, Failed)]
        if failures:
            raise StageError(
                f"{len(failures)} of {len(texts)} texts got no score from the server ({failures[0]}); run again"
            )
        sums = np.zeros(len(rows))
        for i, row in zip(counted, found, strict=True):
            sums[i] = np.sum(row[begins[i] : len(rows[i])])
        return sums, np.array([max(len(row) - begin, 0) for row, begin in zip(rows, begins, strict=True)], np.int64)

    def close(self) -> None:
        self._client.close()
        self._kept.close()

    # ------------------------------------------------------------------------------------------------ what is asked

    def _read(self, prompts: list[Prompt], sampling: Sampling) -> Iterable[tuple[Any, list[int | None]]]:
        """Each prompt as it travels (token ids, a string, messages), and the seeds of its answers."""
        import json

        from underseer.engines import rows
        from underseer.engines.seeds import seeds_of

        if self._tokenizer is None:
            texts = [p if isinstance(p, str) else json.dumps(p, sort_keys=True) for p in prompts]
            travelling: list[Any] = prompts
        else:
            texts = rows.rendered(self._tokenizer, prompts, self._model)
            room = rows.room_for_prompts(self._max_length, sampling.max_new_tokens)
            travelling = [row.tolist() for row in rows.prompt_rows(self._tokenizer, prompts, texts, room)]
        return [(p, seeds_of(text, sampling)) for p, text in zip(travelling, texts, strict=True)]

    def _request(
        self, prompt: Any, name: str, sampling: Sampling, seed: int | None, log_probs: bool
    ) -> tuple[str, dict[str, Any]]:
        chat = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)
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
        return ("/chat/completions" if chat else "/completions"), body

    # ------------------------------------------------------------------------------------------------ the server

    def _ask(
        self,
        requests: Sequence[tuple[str, dict[str, Any]]],
        adapter: str | None,
        read: Callable[[Any], Any],
        name: str,
    ) -> list[Any]:
        """A value or a ``Failed`` for each request; what was kept is not asked again."""
        from tqdm.auto import tqdm

        identity = [self.version, self._client.url, adapter]
        found = [self._kept.get([*identity, *request]) for request in requests]
        missing = [i for i, reply in enumerate(found) if reply is None]
        in_a_row, done, limit, silence = 0, 0, self._concurrency + 4, None
        shown = {} if self._progress else {"disable": True}
        calls = self._client.calls(missing, lambda i: self._client.call(*requests[i], read), self._concurrency)
        with contextlib.closing(calls), tqdm(total=len(missing), desc=name, unit="call", leave=False, **shown) as bar:
            for i, result in calls:
                found[i] = result
                bar.update()
                if not isinstance(result, Failed):
                    self._kept.put([([*identity, *requests[i]], result)])
                    self._spend(result, name)
                    in_a_row, done = 0, done + 1
                    continue
                in_a_row += 1
                if in_a_row == limit and silence is None:
                    silence = str(result)
                    self._client.stopped.set()  # calls under way may still bring answers
        if silence is not None:
            raise away(self._client.url, limit, silence, len(requests) - len(missing) + done)
        return found

    def _spend(self, result: Any, name: str) -> None:
        if self._cost is None:
            return
        if name == "score":
            self._cost.add(tokens_scored=len(result) - 1)
        else:
            self._cost.add(tokens_generated=Answer(**result).n_tokens + (result["finish_reason"] == "stop"))

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
        probe = Client(root, tries=1, timeout=10.0)
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
        how = "serve it: vllm serve BASE --enable-lora --lora-modules NAME=FOLDER, and give NAME as the adapter"
        if not Path(adapter).is_dir():
            raise UserError(
                f"the server at {self._client.url} serves no adapter {str(adapter)!r}; it serves "
                f"{', '.join(sorted(self._served))}; {how}"
            )
        adapters.check_adapter(adapter, None)
        name = f"underseer-{adapter_digest(adapter)[:16]}"
        if name not in self._served:
            body = {"lora_name": name, "lora_path": str(Path(adapter).resolve())}
            try:
                self._client.call("/load_lora_adapter", body)
            except (Failed, UserError) as error:
                raise UserError(
                    f"the server at {self._client.url} does not take the adapter folder {str(adapter)!r} while it runs; "
                    f"set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it starts and let it see the folder, or {how}"
                ) from error
            self._served[name] = {}
        return name


def _failed(reason: Failed) -> Answer:
    return Answer("", [], "failed", failure=str(reason))


def _tokenizer(place: str | None) -> PreTrainedTokenizerBase | None:
    if place is None:
        return None
    import transformers

    from underseer.models.loading import quiet

    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"the tokenizer of {place!r} cannot be loaded: {first}; correct the option tokenizer"
            ) from error
