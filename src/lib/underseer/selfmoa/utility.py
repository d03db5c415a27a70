"""What alignment costs a model: held-out perplexity, and the benchmarks of lm-evaluation-harness.

The harness is an extra (``lm-eval``) and imported where it is used. Its benchmarks are data sets of the hub, downloaded on
first use; tasks of one's own need none.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines import Inference
from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from underseer.engines import Engine
    from underseer.models.chats import Chat
    from underseer.selfmoa.targets import Target

INSTALL = 'pip install "underseer[lm-eval]" (from the repository: pip install -e ".[lm-eval]")'

BENCHMARKS = {
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "lambada": "lambada_openai",
    "mmlu": "mmlu",
}
"""The utility benchmarks of the Self-MOA paper, and the harness's tasks of them. The paper names neither the version of
LAMBADA nor whether HellaSwag is scored by plain or length-normalised accuracy: both are reported where both exist."""

AS_PUBLISHED = Inference(precision="fp32", batch_size=8, max_length=None)
"""Full precision, and rows as long as the model has positions for."""


def perplexity(
    engine: Engine,
    texts: Sequence[str],
    *,
    contexts: Sequence[str | Chat] | None = None,
    adapter: Path | None = None,
) -> dict[str, float | int]:
    """{perplexity, n_tokens, n_texts} of a model on held-out texts: exp of the mean negative log-probability of a token.

    Each text stands alone, or with ``contexts`` follows its own (a chat: the text is what the assistant says), whose
    tokens are not counted. Every token counts alike, so that long texts weigh more. Perplexities compare between
    models of one tokenizer only. Raises UserError where no token is counted.
    """
    import numpy as np

    sums, counts = engine.score(list(texts), contexts=contexts, adapter=adapter)
    tokens = int(np.sum(counts))
    if not tokens:
        raise UserError(f"none of the {len(texts)} held-out texts has a token to predict; give longer texts")
    mean = -float(np.sum(sums)) / tokens
    # not a number that a float can hold: a broken model, which the table says
    return {"perplexity": math.exp(mean) if mean < 700 else math.inf, "n_tokens": tokens, "n_texts": len(texts)}


def harness(
    target: Target,
    tasks: Sequence[str] = tuple(BENCHMARKS),
    inference: Inference = AS_PUBLISHED,
    *,
    limit: int | None = None,
    chat: bool = False,
    task_folders: Sequence[Path | str] = (),
    seed: int = 0,
) -> dict[str, dict[str, float | int | None]]:
    """{task: {acc, stderr, n}} of a model by lm-evaluation-harness; acc_norm and acc_norm_stderr where a task has them.

    ``tasks``: names of ``BENCHMARKS``, or of the harness, or of YAML files in ``task_folders``. ``target``: its adapter is
    applied without merging; safetensors alone are read, remote code never. ``inference``: its precision, fp32 or bf16, is the
    weights'. ``limit``: examples of each task (of each subject of MMLU), the first ones; None: all, as published numbers need.
    ``chat``: ask through the chat template, which the published figures of base models do not. ``stderr`` is the harness's,
    over examples, not over seeds; None where it gives none.

    Raises UserError: the extra is not installed, an unknown task, a benchmark that cannot be downloaded, a model that
    cannot be loaded.
    """
    _check(tasks, limit, inference.precision)
    evaluate, wrapped = _harness()
    manager = _known_tasks(tuple(str(folder) for folder in task_folders))
    names = {task: BENCHMARKS.get(task, task) for task in tasks}
    _check_names(names, manager.all_tasks)
    lm = wrapped(**_loaded(target, inference, chat), batch_size=inference.batch_size, max_length=inference.max_length)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed)
    with _errors_of(tasks):
        evaluated = evaluate(
            lm,
            tasks=list(names.values()),
            task_manager=manager,
            limit=limit,
            apply_chat_template=chat,
            log_samples=False,
            **seeds,
        )
    return {task: _numbers(evaluated["results"][name]) for task, name in names.items()}


@contextlib.contextmanager
def _errors_of(tasks: Sequence[str]) -> Iterator[None]:
    """What the harness raises for tasks that cannot be read or that hold one another, as UserError."""
    try:
        yield
    except OSError as error:  # what ``datasets`` raises for a data set that cannot be reached or found
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"tasks = {', '.join(tasks)}: the data of a task cannot be read here ({first}); run once where the hub can be "
            "reached, or leave the benchmarks out"
        ) from error
    except ValueError as error:
        if "Duplicate task" not in str(error):
            raise
        raise UserError(f"tasks = {', '.join(tasks)}: one stands in another ({error}); name it once") from error


def _harness() -> tuple[Any, Any]:
    """The harness's own (simple_evaluate, HFLM)."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError(
            f"the utility benchmarks need lm-evaluation-harness, which cannot be imported ({error}); install it with "
            f"{INSTALL}"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return simple_evaluate, HFLM


@lru_cache(maxsize=4)
def _known_tasks(folders: tuple[str, ...]) -> Any:
    """The harness's list of tasks, with those of the folders. It reads some 14,000 files, so it is made once."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders) or None)


def _check(tasks: Sequence[str], limit: int | None, precision: str) -> None:
    problems = [] if tasks else ["tasks: none given; name at least one"]
    if limit is not None and limit < 1:
        problems.append(f"limit = {limit}: it must be at least 1, or none for all examples")
    if precision not in ("fp32", "bf16"):
        problems.append(f"precision = {precision!r}: allowed are fp32, bf16")
    if problems:
        raise UserError("\n".join(problems))


def _check_names(names: Mapping[str, str], known: Sequence[str]) -> None:
    unknown = [task for task, name in names.items() if name not in known]
    if unknown:
        alike = [name for name in known if name[:2] == unknown[0][:2]]  # comparing with all of them takes long
        raise UserError(
            f"tasks: {unknown[0]!r} is unknown{nearest(unknown[0], [*BENCHMARKS, *alike])}; allowed are "
            f"{', '.join(BENCHMARKS)}, any task of lm-evaluation-harness, and YAML files in task_folders"
        )


def _loaded(target: Target, inference: Inference, chat: bool) -> dict[str, PreTrainedModel | Any]:
    """The model, with its adapter, and its tokenizer, on the device."""
    import torch

    from underseer.models.chats import check_template
    from underseer.models.loading import load_language_model, resolve_device

    model, tokenizer = load_language_model(target.spec, base=target.folder)
    if chat:
        check_template(tokenizer, target.spec)
    if target.adapter is not None:
        model = _adapted(model, target.adapter)
    dtype = torch.bfloat16 if inference.precision == "bf16" else torch.float32
    return {"pretrained": model.to(resolve_device(inference.device), dtype).eval(), "tokenizer": tokenizer}


def _adapted(model: PreTrainedModel, folder: Path) -> Any:
    from peft import PeftModel

    from underseer.engines.adapters import check_adapter

    check_adapter(folder, model.config.name_or_path or None)
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"adapter folder {str(folder)!r} does not fit the model: {first}") from error


def _numbers(result: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The accuracies of one task or group, without the harness's filter names (``acc,none``)."""
    values = {key.partition(",")[0]: value for key, value in result.items()}
    names = {"acc": "acc", "stderr": "acc_stderr", "acc_norm": "acc_norm", "acc_norm_stderr": "acc_norm_stderr"}
    numbers = {ours: _number(values[theirs]) for ours, theirs in names.items() if theirs in values}
    return {"acc": None, "stderr": None, **numbers, "n": int(values["sample_len"])}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
