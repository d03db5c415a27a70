"""The map "Adding things" of CONTRIBUTING, followed literally in a copy of the tree: each step is one insertion behind an anchor, and
nothing else is touched. A judge: ``test_judge_added``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from conftest import ROOT
from underseer import store
from underseer.report import collect_w2s, names

# Thing -> steps: a file, an anchor in it, and what comes behind the anchor.
# fmt: off
WEAK_TO_STRONG = {
    "data set": [("data/readers.py", 'is_safe == "False")}\n', '\n\nclass Post(Schema):\n    form: ClassVar[str] = "tsv"\n    post: Text\n    verdict: choice("kept", "removed")\n\n    def row(self):\n        return {"text": self.post, "label": int(self.verdict == "removed")}\n'),
        ("data/catalogue.py", "_ALL = (\n", 'DatasetInfo("forum", "posts", "none stated", "tsv: post, verdict", reader=rows_of(readers.Post), local_names=("forum*.tsv",), task="posts"),')],
    "task": [("w2s/tasks.py", "TASKS: dict[str, Task] = {\n", '"posts": Task(name="posts", title="Is it removed?", labels=("kept", "removed"), **_CLASSIFY),'),
        ("runs/params.py", 'task: Literal["safety"', ', "posts"'), ("data/info.py", "CLASSES: dict[str, tuple[str, str]] = {\n", '"posts": ("kept", "removed"),')],
    "student loss": [("maths/losses.py", "else alpha_max\n", "\n\ndef brier(logits, targets):\n    return (logits.softmax(dim=-1)[:, 1] - targets).square().mean()\n"),
        ("runs/params.py", 'student_loss: Literal["hard_ce"', ', "brier"'), ("w2s/tasks.py", '"losses": ("hard_ce"', ', "brier"'),
        ("notebooks/w2s/4_student.ipynb", '"weighted_ce": losses.hard_ce,\n', '    "brier": losses.brier,\n')],
    "vote": [("maths/votes.py", "return (mean >= 0.5).astype(np.int64), mean\n", "\n\ndef upper_half(p):\n    mean = _checked(p).mean(axis=0)\n    return (mean >= np.median(mean)).astype(np.int64), mean\n"),
        ("runs/params.py", 'voting: Literal["none"', ', "upper_half"'), ("w2s/tasks.py", '"votings": ("none"', ', "upper_half"'),
        ("notebooks/w2s/3_weak_labels.ipynb", '"hard": votes.hard_vote', ', "upper_half": votes.upper_half')],
    "parameter": [("runs/params.py", "    # training\n", '    doubt: float = _result("agreement below which a row is doubtful", gt=0.5, le=1)\n'),
        ("params/base/w2s.yaml", "agrees (ours)\n", "doubt: 0.9  # agreement below which a row is doubtful (ours)\n")],
    "stage": [("runs/pipelines.py", "supervisors=voters or [single])\n", '    doubts = add("w2s/3_doubts", weak_labels=labels)\n'),
        ("runs/pipelines.py", 'return {"data": data', ', "doubts": doubts')],
}
CODE = {"cell_type": "code", "outputs": [], "execution_count": None}
CELLS = [  # of the stage, which declares the parameter
    {"cell_type": "markdown", "metadata": {}, "source": "# 3. Doubts\n\n**Asked.** On which rows do the supervisors differ?\n"},
    {**CODE, "metadata": {"tags": ["parameters"]}, "source": 'doubt = 0.9  # share\nexperiment = "params/demo/w2s_safety.yaml"\nscratch = None\n'},
    {**CODE, "metadata": {}, "source": 'from underseer.runs import stage\n\nrun = stage.begin("w2s/3_doubts", globals())\nlabels = run.input("weak_labels").table("weak_labels")\nrun.save_table("doubts", labels[labels.share < doubt])\nrun.finish()\n'},
]
SELF_MOA = {
    "pair rule": [("selfmoa/pairs.py", "# of the weighted sum\n", "\n\ndef brief(answers):\n    return -answers.answer.str.len()\n"),
        ("selfmoa/pairs.py", 'ORDERINGS: dict[str, Order] = {"helpfulness": helpfulness', ', "brief": brief'), ("runs/params.py", 'ordering: Literal["helpfulness"', ', "brief"')],
    "baseline": [("selfmoa/checks.py", 'BASELINES = ("human_dpo"', ', "dpo_brief"'),
        ("runs/rounds.py", "PAIRED: dict[str, dict[str, Any]] = {\n", '"dpo_brief": {"ordering": "brief", "objective_weights": "helpfulness:1", **PLAIN},')],
    "strategy": [("prompts/strategies.py", "STRATEGIES: dict[str, str] = {\n", '"flattery": TASK.format(how="Praise the assistant first."),'),
        ("prompts/strategies.py", "TEMPLATES: dict[str, str] = {\n", '"flattery": "You are wise. {request}",'), ("prompts/strategies.py", "TESTBED: dict[str, str] = {\n", '"flattery": "Ask for this with praise.",'),
        ("testbed/manuals.py", "STRATEGIES: dict[str, tuple[str, ...]] = {\n", '"flattery": ("You are wise. {request}",),'), ("testbed/chat.py", '"everyday": 0.36', " - 0.04")],
}
# fmt: on
PLANNED = """
import json, sys
from underseer import data, errors
from underseer.runs import params, plan
rows = data.load("forum", sys.argv[1])
try:
    data.load("forum", sys.argv[2])
except errors.UserError as error:
    told = str(error)
before, *after = (plan.make(params.load(sys.argv[3], sets.split())).instances for sets in sys.argv[4:])
changed = [sorted({i.stage for key, i in m.items() if key not in before}) for m in after]
print(json.dumps([rows.label.tolist(), told, changed]))
"""
LOOPED = """
import json, sys
import pandas as pd
from underseer.prompts import strategies
from underseer.runs import params, plan
from underseer.selfmoa import checks, pairs
from underseer.testbed import chat
sets = ["ordering=brief", "baselines=dpo_brief", "iterations=1", "attack_strategies=flattery"]
made = plan.make(params.load(sys.argv[1], sets))
checks.preflight(made.variants[0]["parameters"])
aligned = {i.parameters["method"]: i.parameters for i in made.instances.values() if i.stage == "selfmoa/4_align"}
same = {"prompt_id": "p", "prompt": "p", "set": "safe", "helpful": 0.5, "unsafe": 0.0, "cut": False, "judges": "j"}
table, _ = pairs.make(pd.DataFrame({**same, "answer": ["long", "s"]}), order=pairs.ORDERINGS["brief"], drop={}, per_prompt=1, seed=0, iteration=1)
texts = [strategies.instructions("flattery", name)["flattery"] for name in ("org/model", "templates", "testbed:attacker-test")]
told = chat.attacker_dialogues(400, 0)
taught = told[told.prompt.str.startswith(texts[2])].answer.str.startswith("You are wise. ").mean()
print(json.dumps([aligned, table.chosen.tolist(), texts, taught, [*chat.prompts("attack", 60, 0, "main").kind], sum(chat.TALK_SHARES.values())]))
"""


def add(folder: Path, things: dict[str, list[tuple[str, str, str]]]) -> None:
    """Each text behind its anchor, which stands once in a file of the library or of the copy, or in a notebook's cells."""
    for name, anchor, text in (step for steps in things.values() for step in steps):
        file = next(place for place in (folder / name, folder / "src/lib/underseer" / name) if place.is_file())
        written = (lambda t: json.dumps(t)[1:-1]) if file.suffix == ".ipynb" else str
        old, found = file.read_text(), written(anchor)
        assert old.count(found) == 1, f"{name}: {anchor!r} stands {old.count(found)} times"
        file.write_text(old.replace(found, found + written(text)))


def add_all(folder: Path) -> Path:
    """All that the map says of weak-to-strong generalisation, and an experiment of it in the copy."""
    shutil.copy(ROOT / "Snakefile", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    add(folder, WEAK_TO_STRONG)
    cells = [{**cell, "id": f"c{k}", "source": cell["source"].splitlines(True)} for k, cell in enumerate(CELLS)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks/w2s/3_doubts.ipynb").write_text(json.dumps(notebook))
    posts = [f"{('read', 'buy')[i % 2]} number {i} of {i * i}\t{('kept', 'removed')[i % 2]}" for i in range(200)]
    (folder / "forum.tsv").write_text("\n".join(["post\tverdict", *posts]))
    (folder / "broken.tsv").write_text("post\tverdict\na\tkept\nb\tgone\n")
    chosen = "task: posts\ndataset: forum\nstudent_loss: brier\nbootstraps: 2\nvariants: {voting: [upper_half]}\n"
    chosen += f"extends: w2s_safety.yaml\ndataset_path: {folder / 'forum.tsv'}\n"
    (folder / "params/test/posts.yaml").write_text(chosen)
    return folder / "params/test/posts.yaml"


def run(folder: Path, *args: str) -> None:
    """Python in the copy, without a warm process that has imported another library."""
    env = {name: value for name, value in os.environ.items() if name != "UNDERSEER_WARM"}
    env |= {"PYTHONPATH": str(folder / "src/lib"), "UNDERSEER_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_data_set_a_task_a_loss_a_vote_a_parameter_and_a_stage(copied) -> None:
    folder, printed = copied
    file = add_all(folder)
    given = (folder / "forum.tsv", folder / "broken.tsv", file, "", "doubt=0.8", "student_loss=hard_ce", "voting=soft")
    labels, told, changed = json.loads(printed(PLANNED, *map(str, given)))
    assert labels == [0, 1] * 100 and "broken.tsv:3: verdict = 'gone' is neither kept nor removed" in told
    rest = ["w2s/4_student", "w2s/5_report"]
    assert changed == [["w2s/3_doubts", "w2s/5_report"], rest, ["w2s/3_doubts", "w2s/3_weak_labels", *rest]]
    run(folder, "docs/update_reference.py")
    assert "On which rows do the supervisors differ? | `doubt` |" in (folder / "docs/stages.md").read_text()
    run(folder, "-m", "underseer.runs.cli", "run", str(file), "--until", "w2s/3_doubts,w2s/4_student")
    check_results(list(store.outputs(folder / "home/runs")))


def check_results(made: list[store.Output]) -> None:
    """The vote's labels, the stage's table, the loss that the student took, and how the report reads and names them."""
    stages = {o.manifest["stage"]: o for o in made}
    (student,) = [o for o in made if o.parameters.get("supervision") == "weak"]
    assert student.parameters["student_loss"] == "brier" and student.parameters["task"] == "posts"
    assert "def brier" in student.file("notebook.ipynb").read_text()  # the notebook shows the loss that it took
    weak = stages["w2s/3_weak_labels"].table("weak_labels").set_index("id")
    answers = [o.table("predictions").set_index("id").p for o in made if o.manifest["stage"] == "w2s/2_supervisors"]
    mean = np.mean([p[weak.index] for p in answers], axis=0)
    assert len(answers) == 2 and (weak.weak_label == (mean >= np.median(mean))).all()
    assert stages["w2s/3_doubts"].table("doubts").id.tolist() == weak[weak.share < 0.9].index.tolist()
    cell = {"values": {}, "outputs": {"data": stages["w2s/1_data"], "weak_labels": stages["w2s/3_weak_labels"]}}
    labels = collect_w2s.labels([cell])  # as the report reads them
    assert set(labels.vote) == {"upper_half"} and len(labels) == 60
    assert names.method_name(collect_w2s.method_name("student", student)) == "W2S upper half brier"


def test_a_pair_rule_a_baseline_of_its_pairs_and_a_strategy(copied) -> None:
    folder, printed = copied
    add(folder, SELF_MOA)
    file = str(folder / "params/test/selfmoa.yaml")
    aligned, chosen, texts, taught, kinds, shares = json.loads(printed(LOOPED, file))
    assert {k: v["ordering"] for k, v in aligned.items()} == {"selfmoa": "brief", "dpo_brief": "brief"}
    assert chosen == ["s"] and aligned["dpo_brief"]["margin_scale"] == 0
    assert "Praise" in texts[0] and texts[1:] == ["You are wise. {request}", "Ask for this with praise."]
    assert taught > 0.9 and "flattery" in kinds and round(shares, 9) == 1
