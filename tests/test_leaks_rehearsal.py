"""Nothing of a data set's texts leaves the fence: rehearsals on files in the public formats, and a scan of what they made.

The files are made here, of plain words; checks on published files run where those are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml

from conftest import PUBLIC_DATA, ROOT, underseer
from leaks import SHORTEST, find_leaks, tracked_files
from test_rehearse import is_marked
from underseer import store
from underseer.data import normalise

LOOP = {"iterations": 1, "baselines": False, "variants": {"seed": [0]}}
"""One iteration of the loop: data, reset, attacks, pairs, alignment, evaluations, report."""
EXPERIMENTS = {
    "selfmoa_qwen2.5-1.5b": LOOP,
    "w2s_safety": {"variants": {"seed": [0], "voting": ["none"]}},
    "w2s_toxicity": {"variants": {"seed": [0], "voting": ["none"]}, "judge_members": 1},
}
CLASSES = re.compile("category|type|label|annotation|note|source|filename|^ext$|trace", re.IGNORECASE)
"""Names of columns that hold names of classes or files, which reports may show."""
TEXTS = ("prompt", "text", "text_pair", "answer", "chosen", "rejected", "continuation", "reference")


class Done(NamedTuple):
    """A finished rehearsal: its store, its report's name, and what of its data must not be seen."""

    home: Path
    name: str
    texts: list[str]


def given(folder: Path) -> list[str]:
    """All texts that the files of a folder hold, in public formats; names of classes (``CLASSES``) are none."""
    found: list[object] = []
    for file in sorted(folder.iterdir()):
        content = file.read_text(encoding="utf-8")
        if file.suffix in (".csv", ".tsv"):
            table = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
            found += [cell for name in table.columns if not CLASSES.search(name) for cell in table[name]]
        elif file.suffix == ".json":
            found += strings(json.loads(content))
        elif file.suffix == ".jsonl":
            found += [text for line in content.splitlines() for text in strings(json.loads(line))]
        elif file.suffix == ".txt":
            found += content.splitlines()
    return long_ones(found)


def strings(value: object) -> Iterable[str]:
    """The texts in what a JSON file holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        kept = [v for k, v in value.items() if not CLASSES.search(k)] if isinstance(value, dict) else value
        for one in kept:
            yield from strings(one)


def stored(home: Path) -> list[str]:
    """All texts of the tables that stages stored: prompts, attacks, answers, pairs, continuations."""
    files = [(output, file.stem) for output in store.outputs(home / "runs") for file in output.path.glob("*.parquet")]
    tables = [output.table(name) for output, name in files]
    return long_ones(text for table in tables for name in TEXTS if name in table.columns for text in table[name])


def long_ones(texts: Iterable[object]) -> list[str]:
    """Those that the scanner looks for, each once."""
    return list(dict.fromkeys(t for t in texts if isinstance(t, str) and len(normalise(t)) >= SHORTEST))


def seen(home: Path) -> list[Path]:
    """What may be seen or sent on: reports, MLflow's database and artifacts, the executed notebooks of the store."""
    notebooks = sorted(home.glob("runs/*/*/*/notebook.ipynb"))
    assert notebooks and (home / "mlflow.db").is_file() and (home / "mlartifacts").is_dir()
    return [home / "reports", *home.glob("mlflow.db*"), home / "mlartifacts", *notebooks]


def rehearse(home: Path, stem: str, data: Path | None = None) -> Done:
    """A rehearsal on the files of a folder, or on the sample rows that rehearsals make."""
    file = home / "paper" / f"{stem}.yaml"
    file.parent.mkdir(parents=True)
    small = {"extends": str(ROOT / "params" / "paper" / f"{stem}.yaml"), **EXPERIMENTS[stem]}
    file.write_text(yaml.safe_dump(small | ({"dataset_path": str(data)} if data else {})))
    done = underseer(home, "run", file, "--rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    (read,) = [data] if data else (home / "rehearsal/data").iterdir()
    return Done(home, f"rehearsal/paper_{stem}", [*given(read), *stored(home)])


SLOW = [pytest.param(stem, marks=pytest.mark.slow) for stem in EXPERIMENTS if stem != "w2s_safety"]


@pytest.fixture(scope="module", params=["w2s_safety", *SLOW])
def rehearsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return rehearse(tmp_path_factory.mktemp("leaks"), request.param)


def test_a_rehearsal_is_marked_everywhere(rehearsed: Done) -> None:
    is_marked(rehearsed.home, rehearsed.name)


def test_no_text_of_the_data_or_of_a_model_is_seen(rehearsed: Done) -> None:
    assert len(rehearsed.texts) > 5000
    assert find_leaks(rehearsed.texts, *seen(rehearsed.home), *tracked_files(ROOT)) == []


def test_texts_are_shown_on_request_with_a_warning_and_go_again(rehearsed: Done) -> None:
    home, name, texts = rehearsed
    shown = underseer(home, "report", name, "--show-unsafe")
    assert shown.returncode == 0 and "warning: the report will show unsafe texts; do not publish it" in shown.stderr
    page = home / "reports" / name / "index.html"
    (leak,) = find_leaks(texts, *seen(home))
    assert leak.file == str(page) and "Do not publish" in page.read_text()
    assert underseer(home, "report", name).returncode == 0
    assert find_leaks(texts, *seen(home)) == [] and "Do not publish" not in page.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not (PUBLIC_DATA / "wts_safety.csv").exists(), reason="public data are not here")
@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_no_text_of_published_data_is_seen(tmp_path: Path, stem: str) -> None:
    done = rehearse(tmp_path / "home", stem, PUBLIC_DATA)
    assert find_leaks(done.texts, *seen(done.home)) == []
