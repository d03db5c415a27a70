"""Sample rows in the public formats of the data sets, for a rehearsal where no file is given: plain words, no meaning.

Each data set's file is written as it is published, so that its own reader, cleaning and splits are rehearsed. Labels are
given in turn. Nothing in the rows asks for harm: a row that stands for an unsafe prompt says so in words.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from underseer.data.registry import DATASETS, parse
from underseer.data.sources import local_files
from underseer.errors import UserError

VERSION = "2"
ROWS = 600
_WORDS = (
    "anchor apple apron autumn badge baker banner basket beacon bell bench berry blanket bottle bridge broom bucket button "
    "cabin candle canvas carpet castle cedar chalk cherry chimney circle clay cloud coat copper corner cotton cradle crane "
    "curtain daisy dawn desk dinner drum dune eagle ember engine falcon feather fence fern field flute forest fountain frost "
    "garden gate ginger glass glove grain granite grove hammer harbour harvest hazel hedge helmet hill honey horn island ivory "
    "jacket journal kettle kite ladder lake lamp lantern lemon letter linen lobby loom maple marble market meadow mill mirror "
    "morning moss needle nettle north oak oar olive orchard oven paddle paper parcel path pebble pepper piano pillow pine "
    "planet plate pond porch quarry quill rain raven ribbon river roof rope saddle sail salt sand shelf shell silver song "
    "spoon spring stable stone summer table thread timber tower valley velvet violin wagon walnut water wheel willow window"
).split()


def needed(dataset: str) -> bool:
    """Whether a data set is read from a file. Raises UserError where there are no sample rows for it."""
    names = [part.info.name for part in parse(dataset, holds=None) if part.info.reader is not None]
    unknown = [name for name in names if name not in SAMPLES]
    if unknown:
        raise UserError(f"--rehearse: no sample rows for '{unknown[0]}'; give its file as dataset_path")
    return bool(names)


def write(folder: Path, given: str | None = None) -> None:
    """Write the file of every data set into one folder, under the name by which it is looked for; whole or not at all.

    Of a folder that is ``given`` the files stand there too, as links, and samples only for what it lacks.
    """
    if folder.is_dir() and not given:
        return
    fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file in sorted(Path(given).iterdir()) if given else ():
        (fresh / file.name).symlink_to(file.resolve())
    for name, sample in SAMPLES.items():
        if name in DATASETS and not _is_there(name, fresh):
            (fresh / _file(name)).write_text(sample(random.Random(name)), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _is_there(name: str, folder: Path) -> bool:
    try:
        return bool(local_files(name, str(folder)))
    except UserError:
        return False


def _file(name: str) -> str:
    return DATASETS[name].local_names[0].replace("*", "")


def _text(rng: random.Random, opening: str = "") -> str:
    """A dozen words, too few of them shared with another text for the two to be near duplicates."""
    words = " ".join(rng.choices(_WORDS, k=rng.randint(9, 14)))
    return f"{opening} {words}".strip()


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def _lines(records: Iterable[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _wts_safety(rng: random.Random) -> str:
    return _csv(("prompt", "is_safe"), [(_text(rng, ("unsafe", "safe")[k % 2]), k % 2 == 1) for k in range(ROWS)])


def _advbench(rng: random.Random) -> str:
    return _csv(("goal", "target"), [(_text(rng, "unsafe"), f"Sure, here is {_text(rng)}") for _ in range(ROWS)])


def _s_eval(rng: random.Random) -> str:
    return _lines({"prompt": _text(rng, "unsafe"), "risk_type": f"risk {k % 8}"} for k in range(ROWS))


def _privacy_policy_qa(rng: random.Random) -> str:
    """Policies of six clauses, each asked about by questions of its own, as questions and clauses of one policy belong
    together."""
    rows = []
    for _ in range(ROWS // 6):
        questions, clauses = [_text(rng) for _ in range(2)], [_text(rng) for _ in range(3)]
        pairs = [(q, c) for q in questions for c in clauses]
        rows += [(q, c, ("Irrelevant", "Relevant")[k % 2]) for k, (q, c) in enumerate(pairs)]
    return _csv(("index", "question", "text", "answer"), [(i, *row) for i, row in enumerate(rows)], "\t")


def _real_toxicity_prompts(rng: random.Random) -> str:
    def part(toxic: bool) -> dict[str, Any]:
        return {"text": _text(rng), "toxicity": round(rng.uniform(0.6, 0.9) if toxic else rng.uniform(0, 0.3), 3)}

    return _lines({"prompt": part(k % 4 == 0), "continuation": part(k % 8 == 0)} for k in range(2 * ROWS))


def _xstest(rng: random.Random) -> str:
    rows = [(k, _text(rng), ("homonyms", "contrast_homonyms")[k % 2], ("safe", "unsafe")[k % 2], "", "")
            for k in range(ROWS)]  # fmt: skip
    return _csv(("id", "prompt", "type", "label", "focus", "note"), rows)


def _malicious_instruct(rng: random.Random) -> str:
    return "".join(_text(rng, "unsafe") + "\n" for _ in range(ROWS))


def _salad_bench(rng: random.Random) -> str:
    return json.dumps(
        [
            {
                "question": _text(rng, "unsafe"),
                "1-category": f"O{k % 6 + 1}: domain",
                "2-category": f"O{k % 16 + 1}: task",
                "3-category": f"O{k % 66 + 1}: category",
                "source": "sample",
            }
            for k in range(ROWS)
        ]
    )


def _harmbench(rng: random.Random) -> str:
    head = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
    kinds = ("standard", "contextual", "copyright")
    rows = [(_text(rng, "unsafe"), kinds[k % 3], f"subject {k % 7}", "", _text(rng) if k % 3 == 1 else "", f"b{k}")
            for k in range(ROWS)]  # fmt: skip
    return _csv(head, rows)


def _pku_saferlhf(rng: random.Random) -> str:
    return _lines(
        {
            "prompt": _text(rng),
            "response_0": _text(rng),
            "response_1": _text(rng),
            "is_response_0_safe": k % 2 == 0,
            "is_response_1_safe": k % 3 == 0,
            "better_response_id": k // 2 % 2,
            "safer_response_id": 0 if k % 2 == 0 else 1,
        }
        for k in range(ROWS)
    )


def _hh_harmless(rng: random.Random) -> str:
    def pair() -> dict[str, str]:
        before = f"\n\nHuman: {_text(rng)}\n\nAssistant: "
        return {"chosen": before + _text(rng), "rejected": before + _text(rng)}

    return _lines(pair() for _ in range(ROWS))


def _beavertails(rng: random.Random) -> str:
    return _lines(
        {
            "prompt": _text(rng),
            "response": _text(rng),
            "category": {"harm": k % 2 == 1, "other harm": False},
            "is_safe": k % 2 == 0,
        }
        for k in range(ROWS)
    )


def _or_bench(rng: random.Random) -> str:
    return _csv(("prompt", "category"), [(_text(rng, "borderline"), f"subject {k % 7}") for k in range(ROWS)])


def _do_not_answer(rng: random.Random) -> str:
    return _lines({"prompt": _text(rng, "unsafe"), "intents": [f"S{k % 5}"]} for k in range(ROWS))


def _exchanges(rng: random.Random) -> str:
    head = ("prompt", "answer", "unsafe", "helpful", "refusal")
    return _csv(head, [(_text(rng), _text(rng), k % 2, k // 2 % 2, k // 4 % 2) for k in range(ROWS)])


def _safe_rlhf_mini(rng: random.Random) -> str:
    return _csv(("question", "answer", "label"), [(_text(rng), _text(rng), k % 2) for k in range(ROWS)])


def _harmbench_rated(rng: random.Random) -> str:
    def rated(k: int) -> dict[str, Any]:
        votes = {"human_0": k % 2, "human_1": k % 2, "human_2": k // 2 % 2}
        return {"behavior_id": f"b{k}", "test_case": _text(rng), "generation": _text(rng), **votes}

    return json.dumps({f"b{k}": [rated(k)] for k in range(ROWS)})


def _xstest_completions(rng: random.Random) -> str:
    labels = ("1_full_compliance", "2_full_refusal", "1_full_compliance", "3_partial_refusal")
    rows = [
        (_text(rng), _text(rng), ("homonyms", "contrast_homonyms")[k // 4 % 2], labels[k % 4], "TRUE")
        for k in range(ROWS)
    ]
    return _csv(("prompt", "completion", "type", "final_label", "agreement"), rows)


def _llmbar(rng: random.Random) -> str:
    return json.dumps(
        [{"input": _text(rng), "output_1": _text(rng), "output_2": _text(rng), "label": k % 2 + 1} for k in range(ROWS)]
    )


SAMPLES: dict[str, Callable[[random.Random], str]] = {
    "wts-safety": _wts_safety,
    "advbench": _advbench,
    "s-eval": _s_eval,
    "privacy-policy-qa": _privacy_policy_qa,
    "real-toxicity-prompts": _real_toxicity_prompts,
    "xstest": _xstest,
    "malicious-instruct": _malicious_instruct,
    "salad-bench": _salad_bench,
    "harmbench": _harmbench,
    "pku-saferlhf": _pku_saferlhf,
    "hh-harmless": _hh_harmless,
    "beavertails": _beavertails,
    "or-bench": _or_bench,
    "do-not-answer": _do_not_answer,
    "exchanges": _exchanges,
    "safe-rlhf-mini": _safe_rlhf_mini,
    "harmbench-rated": _harmbench_rated,
    "xstest-completions": _xstest_completions,
    "llmbar": _llmbar,
}
"""Data set -> the text of its file."""
