"""Judges of exchanges: answers judged per second, of ours with and without kept verdicts, and of bare transformers.

    python benchmarks/judges.py --dataset-path xstest_v2_completions_mistralinstruct.csv
    python benchmarks/judges.py          # that file in ../shared/data if it is there, else made-up exchanges

Two judges, both with random weights (they set the speed, whatever they say):

- an evaluator, a GPT-2 classifier of prompt and answer. ``bare``: the ``text-classification`` pipeline on pairs, in
  batches as large as ours; ``cold``: ``open_judge("trained:...")`` and ``score`` on a new file of verdicts, the
  model loaded from its folder; ``warm``: the same once more. Probabilities of ours must be those of the pipeline.
- a rubric on a small Llama, through the engine ``transformers``; one reply of 32 tokens an exchange. It writes no verdict,
  which costs what a verdict costs. ``bare``: Hugging Face ``generate``, one exchange at a time.

Runs alternate, so that a busy moment of the machine hits all; medians, least and most over the repeats are shown.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xstest
from shared import in_turns, medians, parser, public, spread, table, write

from underseer.engines import Inference
from underseer.judges import Opening, open_judge, rubric, trained
from underseer.models import chats, loading

EVALUATOR = "scratch:gpt2?n_layer=4&n_embd=256&n_head=4&n_positions=512&vocab_size=8192"
LLAMA = "scratch:llama?n_layer=4&n_embd=256&n_head=4&n_positions=1536&vocab_size=8192"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LENGTH, BATCH, NEW = 512, 32, 32
HOW = {"inference": Inference("cpu", "fp32", BATCH, LENGTH), "progress": False}
TEXTS = replace(rubric.texts_of("unsafe"), max_replies=1, max_new_tokens=NEW)


def exchanges_of(path: Path | None, n: int) -> tuple[list[str], list[str]]:
    """Prompts and answers: XSTest's, or made up of as many words."""
    if path is not None:
        rows = xstest.read_completions(path).head(n)
        return rows.prompt.str.strip().tolist(), rows.answer.str.strip().tolist()  # as judges read them
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(400)]
    lengths = rng.integers(10, 200, n)
    return (
        [f"{i} " + " ".join(rng.choice(words, 10)) for i in range(n)],
        [" ".join(rng.choice(words, length)) for length in lengths],
    )


def evaluator_ways(prompts: list[str], answers: list[str], root: Path) -> dict[str, Callable[[], np.ndarray]]:
    import transformers

    model, tokenizer = loading.load_classifier(
        EVALUATOR, labels=trained.LABELS["unsafe"], texts=prompts + answers, max_length=512
    )
    loading.save(
        model.eval(), tokenizer, root / "evaluator"
    )  # a new model has dropout on, and the pipeline leaves it so
    separator = tokenizer.eos_token  # ours joins a pair by it where the tokenizer has no template for pairs
    piped = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, top_k=None, device="cpu", batch_size=BATCH
    )

    def bare() -> np.ndarray:
        texts = [f"{p}{separator}{a}" for p, a in zip(prompts, answers, strict=True)]
        scored = piped(texts, truncation=True, max_length=LENGTH)
        return np.array([next(row["score"] for row in rows if row["label"] == "unsafe") for rows in scored])

    def ours(cache: Path) -> np.ndarray:
        opening = Opening(folder=root / "evaluator", cache=cache, **HOW)
        judge = open_judge("trained:org/evaluator", "unsafe", opening)
        return judge.score(answers, prompts).values

    return _with_cache(bare, ours, root / "evaluator.sqlite")


def rubric_ways(prompts: list[str], answers: list[str], root: Path) -> dict[str, Callable[[], np.ndarray]]:
    asked = [TEXTS.question(p, a) for p, a in zip(prompts, answers, strict=True)]
    model, tokenizer = loading.load_language_model(LLAMA, texts=asked, max_length=1536)
    tokenizer.chat_template = TEMPLATE
    model.generation_config.eos_token_id = None  # else a random model may stop early: all replies are of one length
    loading.save(model.eval(), tokenizer, root / "rubric")
    length = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}

    def bare() -> np.ndarray:
        said = []
        for text in asked:
            inputs = tokenizer(
                chats.render(tokenizer, chats.ask(text)), return_tensors="pt", return_token_type_ids=False
            )
            tokens = model.generate(**inputs, **length)[0, inputs["input_ids"].shape[1] :]
            said.append(rubric.grade(tokenizer.decode(tokens, skip_special_tokens=True)))
        return np.array([np.nan if isinstance(grade, str) else (grade - 1) / 4 for grade in said])

    def ours(cache: Path) -> np.ndarray:
        opening = Opening(cache=cache, engine="transformers", texts=TEXTS, **HOW)
        judge = open_judge(f"rubric:{root / 'rubric'}", "unsafe", opening)
        return judge.score(answers, prompts).values

    return _with_cache(bare, ours, root / "rubric.sqlite")


def _with_cache(bare: Callable, ours: Callable, cache: Path) -> dict[str, Callable[[], np.ndarray]]:
    def cold() -> np.ndarray:
        cache.unlink(missing_ok=True)
        return ours(cache)

    return {"bare": bare, "cold": cold, "warm": lambda: ours(cache)}


def measure(ways: dict[str, Callable[[], np.ndarray]], n: int, repeats: int) -> dict:
    """Answers judged per second of each way, and the largest difference of ours from bare."""
    said = {name: way() for name, way in ways.items()}  # first calls

    def rate(name: str) -> float:
        start = time.perf_counter()
        said[name] = ways[name]()
        return n / (time.perf_counter() - start)

    rates = in_turns({name: partial(rate, name) for name in ways}, repeats)
    middle = medians(rates)
    apart = np.abs(said["cold"] - said["bare"])
    return {
        "values": rates,
        "median": middle,
        "times_bare": {name: value / middle["bare"] for name, value in middle.items()},
        "largest_difference": None if np.isnan(apart).all() else float(np.nanmax(apart)),
        "without_verdict": int(np.isnan(said["cold"]).sum()),
        "same_when_warm": bool(np.array_equal(said["cold"], said["warm"], equal_nan=True)),
    }


def show(name: str, measured: dict) -> None:
    print(f"\n{name}: warm as cold {measured['same_when_warm']}, without verdict {measured['without_verdict']}, "
          f"largest difference {measured['largest_difference']}")  # fmt: skip
    rows = [
        [way, *spread(values, ".1f"), f"{measured['times_bare'][way]:.1f}"]
        for way, values in measured["values"].items()
    ]
    table(["", "answers/s", "least", "most", "x bare"], rows)


def main() -> None:
    made = parser(__doc__, "judges")
    made.add_argument("--dataset-path", type=Path, default=public("xstest_v2_completions_mistralinstruct.csv"))
    made.add_argument("--answers", type=int, default=200, help="judged by the evaluator")
    made.add_argument("--rubric-answers", type=int, default=16)
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    prompts, answers = exchanges_of(args.dataset_path, args.answers)
    few = min(args.rubric_answers, len(answers))
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, n, ways in (("evaluator", len(answers), evaluator_ways), ("rubric", few, rubric_ways)):
            results[name] = measure(ways(prompts[:n], answers[:n], Path(folder)), n, args.repeats) | {"answers": n}
            show(name, results[name])
    source = "file" if args.dataset_path else "made up"
    write(args, "judges", unit="answers judged per second", data=source, results=results)


if __name__ == "__main__":
    main()
