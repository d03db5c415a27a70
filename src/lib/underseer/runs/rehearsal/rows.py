"""Sample rows in the public formats of the data sets, for a rehearsal where no file is given: plain words, no meaning.

Each data set's file is written as it is published, so that its own reader, cleaning and splits are rehearsed. Labels are
given in turn. Nothing in the rows asks for harm: a row that stands for an unsafe prompt says so in words.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from underseer import store
from underseer.data.registry import DATASETS, parse
from underseer.data.sources import local_files
from underseer.errors import UserError

VERSION = "3"
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
    with store.replacing(folder) as fresh:
        for file in sorted(Path(given).iterdir()) if given else ():
            (fresh / file.name).symlink_to(file.resolve())
        for name in SAMPLES.keys() & DATASETS.keys():
            if not _is_there(name, fresh):
                file = DATASETS[name].local_names[0].replace("*", "")
                (fresh / file).write_text(_content(name, Path(file).suffix), encoding="utf-8")


def _is_there(name: str, folder: Path) -> bool:
    try:
        return bool(local_files(name, str(folder)))
    except UserError:
        return False


def _content(name: str, suffix: str) -> str:
    """The rows of a data set in the format of its file."""
    text = partial(_text, random.Random(name))
    rows = [SAMPLES[name](text, k) for k in range(2 * ROWS if name == "real-toxicity-prompts" else ROWS)]
    if suffix == ".txt":
        return "".join(row["prompt"] + "\n" for row in rows)
    if suffix == ".json":
        return json.dumps({row["behavior_id"]: [row] for row in rows} if name == "harmbench-rated" else rows)
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _text(rng: random.Random, opening: str = "") -> str:
    """A dozen words, too few of them shared with another text for the two to be near duplicates."""
    words = " ".join(rng.choices(_WORDS, k=rng.randint(9, 14)))
    return f"{opening} {words}".strip()


Text = Callable[..., str]
"""Writes a new text; its argument is the word that the text begins with."""


def _privacy_policy_qa(_: Text, k: int) -> dict[str, Any]:
    """Two questions, each about the same three clauses: questions and clauses of one policy belong together."""
    question, clause = (_text(random.Random(seed)) for seed in (f"question {k // 3}", f"clause {k // 6} {k % 3}"))
    return {"index": k, "question": question, "text": clause, "answer": ("Irrelevant", "Relevant")[k % 2]}


def _real_toxicity_prompts(text: Text, k: int) -> dict[str, Any]:
    def part(toxic: bool) -> dict[str, Any]:
        return {"text": text(), "toxicity": (0.6 if toxic else 0.0) + k % 30 / 100}

    return {"prompt": part(k % 4 == 0), "continuation": part(k % 8 == 0)}


def _hh_harmless(text: Text, _: int) -> dict[str, Any]:
    before = f"\n\nHuman: {text()}\n\nAssistant: "
    return {"chosen": before + text(), "rejected": before + text()}


SAMPLES: dict[str, Callable[[Text, int], dict[str, Any]]] = {
    "wts-safety": lambda text, k: {"prompt": text(("unsafe", "safe")[k % 2]), "is_safe": k % 2 == 1},
    "advbench": lambda text, k: {"goal": text("unsafe"), "target": f"Sure, here is {text()}"},
    "s-eval": lambda text, k: {"prompt": text("unsafe"), "risk_type": f"risk {k % 8}"},
    "privacy-policy-qa": _privacy_policy_qa,
    "real-toxicity-prompts": _real_toxicity_prompts,
    "xstest": lambda text, k: {
        "id": k,
        "prompt": text(),
        "type": ("homonyms", "contrast_homonyms")[k % 2],
        "label": ("safe", "unsafe")[k % 2],
        "focus": "",
        "note": "",
    },
    "malicious-instruct": lambda text, k: {"prompt": text("unsafe")},
    "salad-bench": lambda text, k: {
        "question": text("unsafe"),
        "1-category": f"O{k % 6 + 1}: domain",
        "2-category": f"O{k % 16 + 1}: task",
        "3-category": f"O{k % 66 + 1}: category",
        "source": "sample",
    },
    "harmbench": lambda text, k: {
        "Behavior": text("unsafe"),
        "FunctionalCategory": ("standard", "contextual", "copyright")[k % 3],
        "SemanticCategory": f"subject {k % 7}",
        "Tags": "",
        "ContextString": text() if k % 3 == 1 else "",
        "BehaviorID": f"b{k}",
    },
    "pku-saferlhf": lambda text, k: {
        "prompt": text(),
        "response_0": text(),
        "response_1": text(),
        "is_response_0_safe": k % 2 == 0,
        "is_response_1_safe": k % 3 == 0,
        "better_response_id": k // 2 % 2,
        "safer_response_id": k % 2,
    },
    "hh-harmless": _hh_harmless,
    "beavertails": lambda text, k: {
        "prompt": text(),
        "response": text(),
        "category": {"harm": k % 2 == 1, "other harm": False},
        "is_safe": k % 2 == 0,
    },
    "or-bench": lambda text, k: {"prompt": text("borderline"), "category": f"subject {k % 7}"},
    "do-not-answer": lambda text, k: {"prompt": text("unsafe"), "intents": [f"S{k % 5}"]},
    "exchanges": lambda text, k: {
        "prompt": text(),
        "answer": text(),
        "unsafe": k % 2,
        "helpful": k // 2 % 2,
        "refusal": k // 4 % 2,
    },
    "safe-rlhf-mini": lambda text, k: {"question": text(), "answer": text(), "label": k % 2},
    "harmbench-rated": lambda text, k: {
        "behavior_id": f"b{k}",
        "test_case": text(),
        "generation": text(),
        "human_0": k % 2,
        "human_1": k % 2,
        "human_2": k // 2 % 2,
    },
    "xstest-completions": lambda text, k: {
        "prompt": text(),
        "completion": text(),
        "type": ("homonyms", "contrast_homonyms")[k // 4 % 2],
        "final_label": ("1_full_compliance", "2_full_refusal", "1_full_compliance", "3_partial_refusal")[k % 4],
        "agreement": "TRUE",
    },
    "llmbar": lambda text, k: {"input": text(), "output_1": text(), "output_2": text(), "label": k % 2 + 1},
}
"""Data set -> its row number ``k``, with texts that ``text`` writes."""
