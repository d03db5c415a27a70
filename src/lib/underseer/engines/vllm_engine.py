"""A model in vLLM, adapters served beside one base. Prompts are rendered, tokenised and cut as for every engine, and each
answer has a seed of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import adapters, vllm_start
from underseer.engines.base import Answer, Inference, Prompt, Sampling
from underseer.engines.lifelines import Lifeline, watched
from underseer.engines.vllm_start import AS_IT_COMES, Settings
from underseer.errors import EngineEnded, UserError

if TYPE_CHECKING:
    from underseer.cost import Ledger


class VllmEngine:
    """A model in vLLM."""

    name = "vllm"

    def __init__(
        self,
        model: str,
        inference: Inference,
        settings: Settings = AS_IT_COMES,
        *,
        base: Path | None = None,
        cost: Ledger | None = None,
        progress: bool = True,
    ) -> None:
        from underseer.models import loading

        self._source, revision = loading.source(model, base), loading.parse(model).revision
        if self._source is None:
            raise UserError(
                f"engine 'vllm' reads saved models only, not {model!r}; save it, or take engine transformers"
            )
        loading.preflight(str(self._source) if revision is None else model)
        self.tokenizer, self._config, self._stops, positions = vllm_start.about(self._source, revision)
        self.positions = min(inference.max_length, positions or inference.max_length)
        self._cost, self._progress, self._lora_rank = cost, progress, settings.lora_rank
        self._adapters: dict[tuple[str, int, int], Any] = {}
        on_cpu = vllm_start.prepare()
        precision = vllm_start.precision(inference.precision, on_cpu, self._config)
        if settings.lora_rank > 0:
            vllm_start.check_adaptable(self._config)
        parallel = settings.tensor_parallel
        self.version = vllm_start.version(precision) + (f", tensor_parallel {parallel}" if parallel > 1 else "")
        others = {process.pid for process in multiprocessing.active_children()}
        self._llm = vllm_start.start(
            model=self._source,
            revision=revision,
            dtype={"fp32": "float32", "bf16": "bfloat16"}[precision],
            max_model_len=min(self.positions + 1, positions or self.positions + 1),
            max_num_seqs=inference.batch_size,
            use_tqdm_on_load=False,
            **settings.arguments(on_cpu),
            **vllm_start.lora_settings(settings.lora_rank, self._linear()),
        )
        self._lifeline = Lifeline({process.pid for process in multiprocessing.active_children()} - others)

    # ------------------------------------------------------------------------------------------------ the interface

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        from underseer.engines import rows as token_rows

        new = sampling.max_new_tokens
        texts, rows = token_rows.prepared(self.tokenizer, prompts, self.positions, new, self._source)
        settings = [self._settings(sampling, seed, log_probs) for text in texts for seed in sampling.seeds(text)]
        repeated = [row for row in rows for _ in range(sampling.n)]
        outputs = [done.outputs[0] for done in self._run(repeated, settings, adapter)]
        drawn = [list(output.token_ids) for output in outputs]
        given = None
        if log_probs:
            given = [
                [step[token].logprob for step, token in zip(output.logprobs, row, strict=True)]
                for output, row in zip(outputs, drawn, strict=True)
            ]
        answers = token_rows.answers(self.tokenizer, repeated, drawn, self._stops, given)
        return token_rows.by_prompt(answers, sampling.n, self._cost)

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every engine; a row that fills all of the model's positions is read without its last token."""
        from vllm import SamplingParams

        from underseer.engines.rows import scored_rows

        length = min(self.positions, self._llm.model_config.max_model_len - 1)
        rows, begins = scored_rows(self.tokenizer, list(texts), contexts, length, self._source)
        counted = [i for i, row in enumerate(rows) if len(row) > begins[i]]
        settings = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        sums = np.zeros(len(rows))
        done = self._run([rows[i] for i in counted], [settings] * len(counted), adapter)
        for i, output in zip(counted, done, strict=True):
            tokens = rows[i].tolist()
            sums[i] = sum(output.prompt_logprobs[k][tokens[k]].logprob for k in range(begins[i], len(tokens)))
        if self._cost is not None:
            self._cost.add(tokens_scored=sum(len(row) for row in rows))
        return sums, np.array([max(len(row) - begin, 0) for row, begin in zip(rows, begins, strict=True)], np.int64)

    def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            self._lifeline.cut()

    # ------------------------------------------------------------------------------------------------ vLLM

    def _settings(self, sampling: Sampling, seed: int | None, log_probs: bool) -> Any:
        from vllm import SamplingParams

        bans = {"no_repeat_ngram": sampling.no_repeat_ngram} if sampling.no_repeat_ngram else None
        return SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed,
            stop_token_ids=sorted(self._stops),
            logprobs=0 if log_probs else None,
            detokenize=False,
            extra_args=bans,
        )

    def _run(self, rows: Sequence[np.ndarray], settings: Sequence[Any], adapter: Path | None) -> list[Any]:
        from tqdm.auto import tqdm

        if self._llm is None:
            raise RuntimeError("this engine is closed")
        if not rows:
            return []
        lora = None if adapter is None else self._adapter(Path(adapter))
        shown = self._progress and not os.environ.get("TQDM_DISABLE")  # vLLM 0.32 divides by the time of a hidden bar
        bar = (lambda *args, **kwargs: tqdm(*args, **{**kwargs, "leave": False})) if shown else False
        prompts = [{"prompt_token_ids": row.tolist()} for row in rows]
        try:
            with watched(self._llm.llm_engine.engine_core):
                return self._llm.generate(prompts, list(settings), use_tqdm=bar, lora_request=lora)
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":
                raise EngineEnded("vLLM's process ended while it generated (its log says why); run again") from error
            raise

    def _linear(self) -> list[str]:
        """Names of the layers that adapters may change: the linear ones, but for the one that gives logits.

        With that one among them vLLM 0.32 applies it to a prompt's log-probabilities in a wrong shape, and dies.
        """
        from underseer.models.adapters import linear_modules, skeleton

        return linear_modules(skeleton(self._config))

    def _adapter(self, folder: Path) -> Any:
        from vllm.lora.request import LoRARequest

        from underseer.models.adapters import skeleton

        config = adapters.check_adapter(folder, self._source)
        key = adapters.identity(folder)
        if key not in self._adapters:
            if config["r"] > self._lora_rank:
                raise UserError(
                    f"adapter folder {str(folder)!r} has rank {config['r']}, and this engine was opened for rank "
                    f"{self._lora_rank} (0 = no adapters); open it with lora_rank = {config['r']}"
                )
            if not adapters.fits(folder, skeleton(self._config)):
                raise adapters.misfit(folder, self._source, config.get("base_model_name_or_path"))
            if strange := {path.rpartition(".")[2] for path in adapters.shapes(folder)} - set(self._linear()):
                raise UserError(
                    f"adapter folder {str(folder)!r} changes {', '.join(sorted(strange))}, which engine 'vllm' leaves as "
                    "it is; take engine transformers for it"
                )
            number = len(self._adapters) + 1
            self._adapters[key] = LoRARequest(f"adapter{number}", number, str(folder.resolve()))
        return self._adapters[key]
