"""Plans: keys change with what decides a result and with nothing else; shared stages are planned once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT
from underseer.runs import params, plan
from underseer.runs.keys import _files_hash, contents

DEMO = ROOT / "params/demo/w2s_safety.yaml"
TEST = ROOT / "params/test/w2s_safety.yaml"
VOTES = "voting=[none, hard, soft]"
SUPERVISORS = params.load(DEMO).parameters["bootstraps"]  # those that vote, in each seed


def make(*sets: str, file: Path = DEMO) -> plan.Plan:
    return plan.make(params.load(file, sets))


def count(made: plan.Plan) -> dict[str, int]:
    return dict(Counter(i.stage for i in made.instances.values()))


def new(before: plan.Plan, after: plan.Plan) -> dict[str, int]:
    return dict(Counter(i.stage for k, i in after.instances.items() if k not in before.instances))


def test_a_shared_stage_is_planned_once() -> None:
    assert count(make("n_seeds=3", VOTES)) == {
        "testbed/pretrain": 2,
        "w2s/1_data": 3,
        "w2s/2_supervisors": 3 * (1 + SUPERVISORS),
        "w2s/3_weak_labels": 9,
        "w2s/4_student": 9 + 3,
        "w2s/5_report": 1,
    }


def test_voting_and_seeds_cost_only_what_they_change() -> None:
    single = make("voting=none", "seed=0")
    assert new(single, make("voting=[none, soft]", "seed=0")) == {
        "w2s/2_supervisors": SUPERVISORS,
        "w2s/3_weak_labels": 1,
        "w2s/4_student": 1,
        "w2s/5_report": 1,
    }
    votes = make("voting=[hard, soft]", "seed=0")
    assert "w2s/2_supervisors" not in new(votes, make("voting=[none, hard, soft]", "seed=0"))
    assert "testbed/pretrain" not in new(single, make("voting=none", "seed=[0, 1]"))
    three = ("n_seeds=3", VOTES)
    assert new(make(*three, "bootstraps=3"), make(*three, "bootstraps=5"))["w2s/2_supervisors"] == 2 * 3
    assert count(make(*three, "bootstraps=[1, 3, 5, 9]"))["w2s/2_supervisors"] == 3 * (1 + 9), "few are part of many"


def test_runtime_settings_are_not_in_keys() -> None:
    assert set(make().instances) == set(make("device=cpu", "threads=4", "eval_batch_size=7").instances)


def test_a_parameter_changes_exactly_what_depends_on_it() -> None:
    assert set(new(make("seed=0"), make("seed=0", "n_test=1000"))) == set(count(make())) - {"testbed/pretrain"}
    assert set(new(make("seed=0"), make("seed=0", "student_loss=soft_ce"))) == {"w2s/4_student", "w2s/5_report"}
    changed = new(make("seed=0", VOTES), make("seed=0", VOTES, "student_loss=soft_ce"))
    assert changed["w2s/4_student"] == 3  # the ceiling stays


def test_inputs_come_before_what_reads_them() -> None:
    seen: set[str] = set()
    for key, instance in make().instances.items():
        assert all(k in seen for keys in instance.inputs.values() for k in keys)
        seen.add(key)


def test_a_plan_survives_json() -> None:
    """And is the same text in every process, so that it is stored once."""
    made = make()
    assert plan.Plan.from_json(made.as_json()) == made
    assert all(list(i.runtime) == sorted(i.runtime) for i in made.instances.values())


@pytest.fixture
def planned(copied) -> tuple[Path, Callable[[], dict[str, str]]]:
    """A copy of the library that a test may change, and the stages by key that are planned with it."""
    folder, printed = copied
    script = (
        "from underseer.runs import params, plan; import json;"
        f"p = plan.make(params.load(r'{folder}/params/test/w2s_safety.yaml'));"
        "print(json.dumps({k: i.stage for k, i in p.instances.items()}))"
    )
    return folder, lambda: json.loads(printed(script))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {stage for key, stage in after.items() if key not in before}


def test_code_that_changes_reruns_what_reaches_it(planned) -> None:
    folder, keys = planned
    library = folder / "src/lib/underseer"
    before = keys()

    def append(path: Path, text: str) -> set[str]:
        old = path.read_text()
        path.write_text(old + text)
        after = keys()
        path.write_text(old)
        return changed(before, after)

    assert append(library / "maths/votes.py", "\nX = 1\n") >= {"w2s/3_weak_labels", "w2s/4_student"}
    assert append(library / "report/page.py", "\nX = 1\n") == {"w2s/5_report"}
    assert append(library / "maths/stats.py", "\nX = 1\n") == {"w2s/5_report"}
    assert append(library / "runs/tracking.py", "\nX = 1\n") == set()  # moves results about, decides none
    assert append(library / "training/finetune.py", "\n# a comment decides nothing\n") == set()
    assert "w2s/1_data" not in append(library / "training/finetune.py", "\nX = 1\n")


def test_a_changed_cell_reruns_the_stage_and_what_follows(planned) -> None:
    folder, keys = planned
    before = keys()
    path = folder / "notebooks/w2s/3_weak_labels.ipynb"
    notebook = json.loads(path.read_text())
    next(c for c in reversed(notebook["cells"]) if c["cell_type"] == "code")["source"].insert(0, "print('x')\n")
    path.write_text(json.dumps(notebook))
    assert changed(before, keys()) == {"w2s/3_weak_labels", "w2s/4_student", "w2s/5_report"}
    next(c for c in notebook["cells"] if c["cell_type"] == "markdown")["source"].insert(0, "Words decide nothing.\n")
    path.write_text(json.dumps(notebook))
    again = keys()
    assert changed(keys(), again) == set()


def test_data_content_decides_not_its_place(tmp_path: Path) -> None:
    rows = "prompt,is_safe\n" + "".join(f"prompt number {i},{i % 2 == 0}\n" for i in range(400))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "safety.csv").write_text(rows)

    def keys(folder: str) -> set[str]:
        sets = ["dataset=wts-safety", f"dataset_path={tmp_path / folder / 'safety.csv'}"]
        return set(plan.make(params.load(TEST, sets, "mine")).instances)

    before = keys("a")
    assert before == keys("b")
    _files_hash.cache_clear()
    (tmp_path / "a" / "safety.csv").write_text(rows.replace("number 7,", "number seven,"))
    assert not before & keys("a")


def test_a_judge_on_a_server_needs_no_files_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name there stands for it; a judge that answers here keeps the hash of its model."""
    monkeypatch.setenv("UNDERSEER_OPENAI_URL", "http://127.0.0.1:9/v1")
    sets = ["engine=openai", "training_judge=rubric:gpt-4o-mini"]
    made = plan.make(params.load(ROOT / "params/test/selfmoa.yaml", sets))
    found = {i.hashes["training_judge"] for i in made.instances.values() if "training_judge" in i.hashes}
    assert found == {"rubric:served:gpt-4o-mini"}
    votes = contents({"judge": "vote:mean:rubric:m+trained:testbed:gpt2-xs", "engine": "openai", "precision": "fp32"})
    assert votes["judge"] == "vote:mean:rubric:served:m+trained:testbed:gpt2-xs"


def test_planning_is_light() -> None:
    code = "import sys, underseer.runs.plan, underseer.runs.cli; print('torch' in sys.modules, 'mlflow' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_plan_of_ten_thousand_instances_is_quick(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"extends: {TEST}\nvariants:\n  seed: {list(range(700))}\n  voting: [none, hard, soft]\n")
    started = time.perf_counter()
    made = plan.make(params.load(file))
    assert len(made.instances) > 7000
    assert time.perf_counter() - started < 10  # 5 s for 10,000 on a calm machine
