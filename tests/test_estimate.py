"""What a plan will cost, by what ran before: hand-worked sums over a store of finished stages; and what jobs ask for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import ROOT, TEST_PARAMS, underseer
from underseer import store
from underseer.errors import UserError
from underseer.runs import estimate, params, plan, preflight, resources
from underseer.runs.plan import Instance, Plan

DATA, SUPERVISORS, STUDENT = "w2s/1_data", "w2s/2_supervisors", "w2s/4_student"


def planned(*sets: str, file: Path = TEST_PARAMS) -> Plan:
    return plan.make(params.load(file, sets))


def finish(made: Plan, instance: Instance, seconds: float, tokens: int = 0) -> None:
    """Seal outputs of 1,000 bytes for a planned instance, as its executor does."""
    with store.working(instance.stage, instance.key) as folder:
        (folder / "x").write_bytes(b"x" * 1000)
        cost = {"seconds": seconds, "tokens_trained": tokens, "tokens_scored": 1, "judge_calls": 5}
        inputs = {role: [f"{made.instances[k].stage}/{k}" for k in keys] for role, keys in instance.inputs.items()}
        moment = datetime.now(UTC).isoformat()
        record = {
            **vars(instance),
            "inputs": inputs,
            "cost": cost,
            "marks": {},
            "metrics": {},
            "started": moment,
            "finished": moment,
        }
        store.seal(folder, instance.place, record)


@pytest.fixture
def ran(home: Path) -> Plan:
    """A store in which the data and the supervisors of an experiment have finished, in 1 s, and in 10, 20, 40 and 50 s."""
    made = planned()
    finish(made, next(i for i in made.instances.values() if i.stage == DATA), 1)
    supervisors = [i for i in made.instances.values() if i.stage == SUPERVISORS]
    for instance, seconds in zip(supervisors, (10, 20, 40, 50), strict=True):
        finish(made, instance, seconds, tokens=100)
    return made


def of(made: Plan, stage: str) -> estimate.Estimate:
    return next(one for one in estimate.estimate(made) if one.stage == stage)


def test_other_seeds_cost_what_the_first_one_did(ran: Plan) -> None:
    supervisors = of(planned("seed=[1, 2]"), SUPERVISORS)
    assert (supervisors.left, supervisors.known, supervisors.runs) == (8, 8, 4) and not supervisors.differing
    bounds = {"seconds": 8 * 30, "tokens": 8 * 101, "bytes": 8 * 1000, "gpu_hours": 0}
    assert supervisors.bounds == {name: [value, value] for name, value in bounds.items()}


def test_what_has_finished_costs_nothing_and_of_what_never_ran_nothing_is_known(ran: Plan) -> None:
    student = of(ran, STUDENT)
    assert (student.left, student.known, student.bounds) == (4, 0, {})
    assert DATA not in {one.stage for one in estimate.estimate(ran)}


def test_a_larger_count_gives_bounds(ran: Plan) -> None:
    """n_supervise stands in the data's parameters alone, and the supervisors rest on the data."""
    more = of(planned("seed=1", "n_supervise=80", "learning_rate=0.1"), SUPERVISORS)
    assert more.bounds["seconds"] == [4 * 30, 4 * 60] and more.differing == {"n_supervise"}
    fewer = of(planned("n_supervise=20"), DATA)
    assert fewer.bounds["seconds"] == [0.5, 1] and fewer.bounds["bytes"] == [500, 1000]


@pytest.mark.parametrize(
    "other", ["device=cuda", "weak_model=scratch:gpt2?n_layer=3&n_embd=32&n_head=2", "precision=bf16"]
)
def test_another_device_model_or_precision_is_not_like_it(ran: Plan, other: str) -> None:
    assert of(planned("seed=1", other), SUPERVISORS).known == 0


def test_gpus_of_a_job_count(ran: Plan) -> None:
    supervisors = of(planned("seed=1", f"job_gpus={SUPERVISORS}:2"), SUPERVISORS)
    assert supervisors.bounds["gpu_hours"] == pytest.approx([4 * 30 * 2 / 3600] * 2)


def test_the_command_shows_it(ran: Plan, home: Path) -> None:
    done = underseer(home, "plan", TEST_PARAMS, "--estimate", "--set", "seed=[0, 1]")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 0 and "nothing like it has run in this store" in rows[STUDENT]
    assert rows[SUPERVISORS].split()[1:6] == ["4", "2.0", "0.00", "404", "0.0"] and "4 like runs" in rows[SUPERVISORS]
    assert "nothing is known" in rows["all"]


CUDA = "device=cuda"


@pytest.mark.parametrize(
    ("sets", "stage", "expected"),
    [
        ([], STUDENT, {}),
        ([CUDA], STUDENT, {"gpu": 1}),
        ([CUDA], DATA, {}),
        ([CUDA, f"job_gpus={STUDENT}:0"], STUDENT, {}),
        (["job_gpus=2"], DATA, {"gpu": 2}),
        (["job_minutes=30"], DATA, {"runtime": 30}),
        ([f"job_minutes=30,{STUDENT}:90.5"], STUDENT, {"runtime": 91}),
        ([f"job_memory_gb={STUDENT}:2.5"], STUDENT, {"mem_mb": 2500}),
        ([f"job_memory_gb={STUDENT}:2.5"], DATA, {}),
    ],
)
def test_what_a_job_asks_for(sets: list[str], stage: str, expected: dict[str, int]) -> None:
    made = planned(*sets)
    assert {tuple(resources.asked(i).items()) for i in made.instances.values() if i.stage == stage} == {
        tuple(expected.items())
    }
    assert set(made.instances) == set(planned().instances), "what a job asks for decides no result"


@pytest.mark.parametrize(("engine", "expected"), [("vllm", 6), ("transformers", 1)])
def test_gpus_that_share_a_model_and_copies_of_it(engine: str, expected: int) -> None:
    runtime = {"device": "cuda", "tensor_parallel": 2, "data_parallel": 3}
    assert resources.asked(Instance("selfmoa/2_red_team", "0", {"engine": engine}, runtime, {}, {})) == {
        "gpu": expected
    }
    rehearsal = Instance("selfmoa/2_red_team", "0", {"engine": engine}, runtime, {}, {}, rehearsal=True)
    assert resources.asked(rehearsal) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("soon", "'soon': expected NUMBER, or STAGE:NUMBER"),
        ("30,40", "each stage once"),
        (f"{STUDENT}:-1", "expected NUMBER"),
        ("w2s/4_studnt:90", f"did you mean '{STUDENT}'"),
    ],
)
def test_a_mistake_in_what_a_job_asks_for(value: str, expected: str, home: Path) -> None:
    made = planned(f"job_minutes={value}")
    with pytest.raises(UserError, match="job_minutes = ") as error:
        preflight.preflight(made, made.missing())
    assert expected in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_rule_asks_for_what_its_instances_ask_for() -> None:
    made = planned("job_minutes=w2s/4_student:90", CUDA)
    assert resources.of_rule(made, DATA) == {}
    rule = resources.of_rule(made, STUDENT)
    key = next(i.key for i in made.instances.values() if i.stage == STUDENT)
    wildcards = type("Wildcards", (), {"key": key})
    assert {name: value(wildcards) for name, value in rule.items()} == {"runtime": 90, "gpu": 1}


def test_parameters_of_jobs_stand_in_the_base_files() -> None:
    for name in ("w2s", "selfmoa"):
        text = (ROOT / f"params/base/{name}.yaml").read_text()
        assert all(f"\n{unit}: null" in text for unit in resources.UNITS)
