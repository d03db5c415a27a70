"""Notebooks run by hand, in real kernels: whatever is done in them works, and no keyed result changes."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from conftest import NOTHING, ROOT, warmed
from underseer import store
from underseer.errors import StageError, UserError
from underseer.runs import by_hand, keys, params, plan
from underseer.runs.run import Run

EXPERIMENT = "params/test/alone.yaml"
ALONE = "extends: w2s_safety.yaml\nvariants:\n  seed: [0]\n  voting: [none]\n"
DATA, SUPERVISORS, LABELS = "w2s/1_data", "w2s/2_supervisors", "w2s/3_weak_labels"
STUDENT, REPORT = "w2s/4_student", "w2s/5_report"


class Place:
    """A copy of the repository that tests may edit, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "repository", folder / "home"
        for name in ("notebooks", "params", "src"):
            hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, self.root / name, ignore=hidden)
        shutil.copy(ROOT / "Snakefile", self.root)
        (self.root / EXPERIMENT).write_text(ALONE)
        kept = {k: v for k, v in os.environ.items() if k != "UNDERSEER_WORK"}
        self.env = {**kept, "UNDERSEER_HOME": str(self.home), "PYTHONPATH": str(self.root / "src" / "lib")}
        self.env |= {"NO_COLOR": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1", **warmed(self.root / "src" / "lib")}

    def underseer(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "underseer.runs.warm", "run", "underseer.runs.cli", *args]
        return subprocess.run(command, env=self.env, cwd=self.root, capture_output=True, text=True, timeout=600)

    def keyed(self) -> dict[str, str]:
        """Every file of the run store with its hash."""
        folders = (output.path for output in store.outputs(self.home / "runs"))
        files = (p for folder in folders for p in folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    def newest(self, stage: str) -> store.Output:
        return store.Output(
            max((self.home / "scratch" / stage).glob("*/manifest.json"), key=lambda f: f.stat().st_mtime_ns).parent
        )

    def cells(self, stage: str, **values: object) -> list[str]:
        """The notebook's cells, the first with the values of the test experiment and these over them."""
        first = next(params.load(self.root / EXPERIMENT).resolved())
        first |= {f"weak_{name}": first[f"weak_{name}"] or first[name] for name in ("epochs", "learning_rate")}
        notebook = json.loads((self.root / "notebooks" / f"{stage}.ipynb").read_text())
        head, *rest = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
        declared = {n: first[n] for n in keys.read_notebook(stage).defaults if n in first}
        declared |= {"name": "test/alone"} if stage == REPORT else {}
        told = {**declared, "experiment": EXPERIMENT, **values}
        return ["\n".join([head, *(f"{n} = {v!r}" for n, v in told.items())]), *rest]


class Kernel:
    """A kernel as JupyterLab has it, but for its start as a fork of a process that has imported other libraries."""

    def __init__(self, place: Place, folder: Path) -> None:
        specs = KernelSpecManager(kernel_dirs=[str(Path(place.env["JUPYTER_PATH"].split(os.pathsep)[0]) / "kernels")])
        self.manager = KernelManager(kernel_spec_manager=specs, transport="ipc", ip=str(folder / "k"))
        self.manager.start_kernel(env=place.env, cwd=str(place.root / "notebooks"))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, *cells: str) -> str:
        """What the cells print, to the first that fails; an error as its traceback shows it."""
        shown: list[str] = []

        def note(message: dict) -> None:
            content = message["content"]
            shown.append(content.get("text", "") if message["msg_type"] == "stream" else "")
            shown.append("\n".join(["ERROR", *content["traceback"]]) if message["msg_type"] == "error" else "")

        for cell in cells:
            if self.client.execute_interactive(cell, output_hook=note, timeout=120)["content"]["status"] == "error":
                break
        return "".join(shown)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def place(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a finished run, of which the report alone is not that of another experiment."""
    place = Place(tmp_path_factory.mktemp("scratch"))
    shutil.copytree(finished / "runs/w2s", place.home / "runs/w2s", ignore=shutil.ignore_patterns(REPORT[4:]))
    done = place.underseer("run", EXPERIMENT)
    assert done.returncode == 0 and " 1 to run" in done.stdout, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def shared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel that every test may leave as it likes."""
    kernel = Kernel(place, tmp_path_factory.mktemp("k"))
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A fresh kernel."""
    kernel = Kernel(place, tmp_path_factory.mktemp("k"))
    yield kernel
    kernel.close()


@pytest.fixture
def adds() -> None:
    """A test that uses it may add keyed results."""


@pytest.fixture(autouse=True)
def unchanged(place: Place, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every keyed file is after a test what it was before it; only some tests may add to them."""
    before = place.keyed()
    yield
    after = place.keyed()
    assert {k: after.get(k) for k in before} == before
    if "adds" not in request.fixturenames:
        assert set(after) == set(before)
    assert store.verify(place.home / "runs")[1] == []


VANDALISM = {
    "labels changed in an extra cell": ["{body}", "rows['label'] = 0", "{last}"],
    "a function of the library replaced": [
        "import underseer.data\nkept = underseer.data.split",
        "underseer.data.split = lambda rows, n, **_: kept(rows, n, **_).assign(label=1)",
        "{all}",
        "underseer.data.split = kept",
    ],
    "an input's table rewritten in place and saved": [
        "from underseer.runs import stage\nr = stage.begin('w2s/3_weak_labels', {**globals(), **labels})",
        "rows = r.input('data').table('rows')\nrows['label'] = 0\nr.save_table('rows', rows)\nr.finish()",
    ],
    "run.path and run.finish replaced": [
        "{body}",
        "import underseer.store, underseer.paths\nkeyed = next(underseer.store.outputs()).path",
        "run.path = lambda name: keyed / name\nrun.finish_ = run.finish\nrun.finish = lambda: run.finish_()",
        "{last}",
    ],
    "a path that leads into a keyed folder": [
        "{body}",
        "keyed = next(underseer.store.outputs()).path\nimport os",
        "try:\n    run.save_table(os.path.relpath(keyed / 'rows', run.path('x').parent), rows)\n"
        "except Exception as error:\n    print('refused:', error)",
        "{last}",
    ],
    "UNDERSEER_WORK set after begin, and kept": [
        "{body}",
        "os.environ['UNDERSEER_WORK'] = str(keyed)",
        "{last}",
        "{all}",
        "del os.environ['UNDERSEER_WORK']",
    ],
    "finished twice": ["{all}", "run.save_json('more', 1)\nrun.finish()"],
    "begun twice": ["{body}", "first = run", "{all}", "first.finish()"],
    "other folders in the middle": [
        "{body}",
        "home, here = os.environ['UNDERSEER_HOME'], os.getcwd()\nos.environ['UNDERSEER_HOME'] = '/nowhere'\nos.chdir('/')",
        "{last}",
        "os.environ['UNDERSEER_HOME'] = home\nos.chdir(here)",
    ],
    "the plan's own functions replaced": [
        "from underseer.runs import plan, by_hand, keys\nsaved = keys.sha\nkeys.sha = plan.sha = lambda text: '0' * 64",
        "{all}",
        "keys.sha = plan.sha = saved",
    ],
    "other parameters": ["n_test = 20\nseed = 5", "{begin}", "{all}"],
    "a record that claims another stage": [
        "{body}",
        "run.instance = run.instance.__class__(**{**vars(run.instance), 'stage': 'w2s/2_supervisors'})",
        "{last}",
    ],
}


@pytest.mark.parametrize("act", VANDALISM, ids=lambda act: act.replace(" ", "_"))
def test_vandalism_reaches_no_keyed_result(place: Place, shared: Kernel, act: str) -> None:
    """The fixture ``unchanged`` looks at every file; here: it works, and says where the result is."""
    whole = place.cells(DATA)
    marks = {"{all}": whole, "{body}": whole[:-1], "{last}": whole[-1:], "{begin}": whole[1:]}
    labels = place.cells(LABELS)[0]
    shared.run(f"labels = {{}}\nexec({labels!r}, labels)\nimport os, underseer.store")
    told = shared.run(*(cell for step in VANDALISM[act] for cell in marks.get(step, [step])))
    assert "ERROR" not in told, told
    assert "no keyed result changes" in told and "exploratory result in scratch/w2s/" in told, told
    if "leads into" in act:
        assert "refused:" in told and "leads out of the stage's output folder" in told


def test_finished_files_are_read_only(place: Place) -> None:
    files = [p for o in store.outputs(place.home / "runs") for p in o.path.rglob("*") if p.is_file()]
    assert files and not [p for p in files if p.stat().st_mode & 0o222]


def test_run_all_again_after_a_cell_that_failed_or_was_interrupted(place: Place, kernel: Kernel) -> None:
    whole = place.cells(DATA)
    assert "ZeroDivisionError" in kernel.run(*whole[:3], "1 / 0")
    kernel.client.execute("import time; print('asleep', flush=True); time.sleep(60)")
    while kernel.client.get_iopub_msg(timeout=30)["content"].get("text", "").strip() != "asleep":
        pass
    kernel.manager.interrupt_kernel()
    assert "exploratory result" in kernel.run(*whole)


def test_an_edited_notebook_is_read_again_in_the_same_kernel(place: Place, kernel: Kernel) -> None:
    """A look at its hash tells; its result lies beside the keyed one, and is promoted from a fresh kernel only."""
    kernel.run(*place.cells(DATA))
    before = place.newest(DATA).manifest["hashes"]["notebook"]
    file = place.root / "notebooks" / f"{DATA}.ipynb"
    text = file.read_text()
    file.write_text(text.replace("look.hygiene(hygiene)", "print('edited')"))
    try:
        assert "edited" in kernel.run(*place.cells(DATA))
        edited = place.newest(DATA)
        refused = place.underseer("promote", f"scratch/{DATA}/{edited.key}")
    finally:
        file.write_text(text)
    assert edited.manifest["hashes"]["notebook"] != before
    assert refused.returncode == 2 and "ran in the same kernel before it" in refused.stderr
    assert "    look.hygiene(hygiene)" in refused.stderr and "Traceback" not in refused.stderr


def test_a_parameter_of_its_own_needs_no_other_inputs(place: Place, shared: Kernel) -> None:
    told = shared.run(*place.cells(STUDENT, batch_size=32))
    assert "batch_size = 32, there 16" in told and "exploratory result" in told, told
    made = place.newest(STUDENT)
    assert made.manifest["differs"] == {"batch_size": [32, 16]} and made.manifest["marks"]["scratch"]


@pytest.mark.usefixtures("adds")
def test_a_missing_input_names_the_command_that_makes_exactly_it(place: Place, shared: Kernel) -> None:
    model = "scratch:gpt2?n_layer=1&n_embd=16&n_head=2"
    whole = place.cells(SUPERVISORS, seed=7, weak_model=model, weak_epochs=2)
    told = shared.run(*whole)
    assert told.count("\n") == 1, "one line"
    command = shlex.split(told.partition("Run: ")[2])
    sets = ["--set", "seed=7", "--set", f"weak_model={model}"]
    assert command == [".venv/bin/underseer", "run", EXPERIMENT, *sets, "--until", DATA]
    before = place.keyed()
    done = place.underseer(*command[1:])
    assert done.returncode == 0, done.stderr
    added = {f.rpartition("/")[0] for f in set(place.keyed()) - set(before)}
    assert len(added) == 1 and next(iter(added)).startswith(f"runs/{DATA}/")
    assert "exploratory result" in shared.run(*whole)


def test_mistakes_are_one_line(place: Place, shared: Kernel) -> None:
    for values, expected in [
        ({"batch_size": "many"}, "batch_size = 'many': expected a valid integer"),
        ({"supervision": "truth", "voting": "hard"}, "the nearest differs by voting = 'hard', not 'none'"),
        ({"scratch": "scratch/nowhere"}, "no finished result in scratch/nowhere"),
        ({"experiment": "params/test/selfmoa.yaml"}, "needs no such stage"),
    ]:
        told = shared.run(*place.cells(STUDENT, **values))
        assert expected in told and told.startswith("ERROR\n") and told.count("\n") == 1, told


def test_scratch_feeds_scratch_down_to_a_report(place: Place, shared: Kernel) -> None:
    """A vote that is turned around, a student of it, and the report that says that it is exploratory."""
    whole = place.cells(LABELS)
    turned = "weak_labels = weak_labels.assign(p=1 - weak_labels.p, weak_label=1 - weak_labels.weak_label)"
    assert "exploratory result" in shared.run(*whole[:-1], turned, whole[-1])
    labels = place.newest(LABELS)
    told = shared.run(*place.cells(STUDENT, scratch=labels.name))
    assert f"{labels.name} in place of {LABELS}/" in told, told
    student = place.newest(STUDENT)
    assert student.manifest["inputs"]["weak_labels"] == [labels.name]
    told = shared.run(*place.cells(REPORT, scratch=f"student={student.path}"))
    assert f"{student.name} in place of {STUDENT}/" in told, told
    report = place.newest(REPORT)
    results = report.json("results")
    assert results["provenance"]["exploratory"] is True and student.name in results["cost"]
    keyed = json.loads((place.home / "reports" / "test" / "alone" / "results.json").read_text())
    methods = {"w2s_naive": False, "weak": True, "strong_ceiling": True}
    for method, same in methods.items():
        rows, there = ([r["values"] for r in x["rows"] if r["method"] == method] for x in (results, keyed))
        assert (rows == there) is same, method
    refused = place.underseer("promote", student.name)
    assert refused.returncode == 2 and f"its input {labels.name} is exploratory; promote that first" in refused.stderr
    refused = place.underseer("promote", labels.name)
    assert refused.returncode == 2 and f"+{turned}" in refused.stderr


def test_a_result_that_fits_no_input_lists_the_roles(place: Place, shared: Kernel) -> None:
    shared.run(*place.cells(DATA))
    told = shared.run(*place.cells(LABELS, scratch=f"supervisors={place.newest(DATA).name}"))
    assert "fits none of its inputs supervisors: data (w2s/1_data), supervisors (w2s/2_supervisors)" in told


@pytest.mark.usefixtures("adds")
def test_promotion_executes_the_saved_notebook_under_its_key(place: Place, kernel: Kernel) -> None:
    """Two results, the second made of the first; each once, and each as it was explored."""
    assert "exploratory result" in kernel.run(*place.cells(SUPERVISORS, weak_epochs=2))
    supervisor = place.newest(SUPERVISORS)
    assert "exploratory result" in kernel.run("%reset -f in", *place.cells(LABELS, scratch=supervisor.name))
    labels = place.newest(LABELS)
    for explored in (supervisor, labels):
        done = place.underseer("promote", explored.name)
        told = done.stdout.splitlines()[-1]  # after what a warm kernel says of itself
        assert done.returncode == 0 and told.startswith("promoted: "), done.stdout + done.stderr
        keyed = store.Output(Path(place.root, told.removeprefix("promoted: ")))
        assert keyed.manifest["promoted_from"] == explored.name and keyed.has("notebook.ipynb")
        assert keyed.parameters == explored.parameters
        tables = [f for f in keyed.manifest["files"] if f.endswith(".parquet")]
        assert tables and all(keyed.manifest["files"][f] == explored.manifest["files"][f] for f in tables)
        again = place.underseer("promote", explored.name)
        assert again.returncode == 0 and again.stdout.startswith("already promoted: ")
    assert "scratch" not in json.dumps(keyed.manifest["inputs"])


def test_an_unchanged_exploration_is_there_already(place: Place, kernel: Kernel) -> None:
    kernel.run(*place.cells(DATA))
    done = place.underseer("promote", place.newest(DATA).name)
    assert done.returncode == 0 and "already promoted" in done.stdout
    assert place.underseer("promote", "scratch/w2s/nowhere").returncode == 2


EDITED = """
import sys
from pathlib import Path
from underseer.runs import execute, keys, params, plan
made = plan.make(params.load(sys.argv[1], ["seed=3"]))
instance = next(i for i in made.instances.values() if i.stage == "w2s/1_data")
file, old, new = Path(sys.argv[2]), *sys.argv[3:]
text = file.read_text()
file.write_text(text.replace(old, new))
try:
    sys.exit(execute.run(made, instance) if old != "#" else bool(execute._edited(made, instance)))
finally:
    file.write_text(text)
"""


@pytest.mark.usefixtures("adds")
@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (f"notebooks/{DATA}.ipynb", "look.hygiene(hygiene)", "hygiene", f"notebooks/{DATA}.ipynb was edited"),
        (
            "src/lib/underseer/data/split.py",
            "import annotations\n",
            "import annotations\nX = 1\n",
            "data.split was edited",
        ),
        ("src/lib/underseer/data/split.py", "#", "# a comment decides nothing:", ""),
    ],
)
def test_an_edit_after_planning_is_not_stored_under_the_old_key(place: Place, file, old, new, expected) -> None:
    before = place.keyed()
    command = [sys.executable, "-c", EDITED, EXPERIMENT, str(place.root / file), old, new]
    done = subprocess.run(command, env=place.env, cwd=place.root, capture_output=True, text=True, timeout=120)
    assert done.returncode == bool(expected) and expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and place.keyed() == before


def test_scratch_never_feeds_a_keyed_run(place: Place, shared: Kernel, tmp_path: Path) -> None:
    shared.run(*place.cells(DATA))
    instance = plan.Instance(LABELS, "0" * 16, {}, {}, {"data": ["x"]}, {})
    with pytest.raises(StageError, match="exploratory and feeds no keyed result"):
        Run(instance, {"data": [place.newest(DATA)]}, tmp_path)


def test_a_result_is_named_where_it_was_made(home: Path) -> None:
    made = home / "scratch" / DATA / "20260101-120000"
    (made / "sub").mkdir(parents=True)
    (made / "manifest.json").write_text(json.dumps(NOTHING | {"stage": DATA, "marks": {"scratch": True}}))
    name = f"scratch/{DATA}/{made.name}"
    for text in (name, f"data={made}", f"{name}/sub/.."):
        ((_, output),) = by_hand._given(text)
        assert output.name == name
    shutil.copytree(made, home / "moved")
    with pytest.raises(UserError, match=f"moved is not scratch/{DATA}/moved of this store"):
        by_hand._given("moved")


def test_of_instances_that_differ_in_an_input_alone_the_first_is_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scorings of one seed have the same parameters, and differ in whose answers they score."""
    file = "params/test/w2s_toxicity.yaml"
    first = next(params.load(ROOT / file).resolved())
    own = {n: first[n] for n in keys.read_notebook("judges/score").defaults}
    monkeypatch.setattr(by_hand, "_check_made", lambda choice: None)
    choice = by_hand.choose("judges/score", own, file, None)
    scorings = [i for i in choice.plan.instances.values() if i.stage == "judges/score"]
    assert choice.planned is scorings[0] and len(scorings) > 1
    assert "differ in 'answers'; name one" in choice.others and 'scratch = "answers=PATH"' in choice.others


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("w2s_safety", "bootstraps dataset n_judge seed strong_model student_loss task voting weak_model"),
        (
            "selfmoa",
            "baseline_pairs baselines helpfulness_judge human_dataset iterations judge_noise red_team_model refusal_judge "
            "reporting_helpfulness_judge reporting_judge reset seed supervised_dataset target_model training_judge",
        ),
    ],
)
def test_parameters_that_select_inputs_of_a_notebook_run_by_hand(file: str, expected: str) -> None:
    """A pipeline that reads another one adds it here, or to ``pipelines.HANDED_ON``: else by hand it asks for new inputs."""
    assert plan.make(params.load(ROOT / f"params/test/{file}.yaml")).selecting == expected.split()
