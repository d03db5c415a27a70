"""Which engine answers is part of a stage's key, and the stage opens that one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT
from tiny import save_model
from underseer import engines
from underseer.cost import Ledger
from underseer.engines import gpus, on_vllm
from underseer.errors import UserError
from underseer.runs import by_hand, params, plan
from underseer.selfmoa import checks, targets

TEST = ROOT / "params/test/selfmoa.yaml"
GENERATING = {"selfmoa/2_red_team", "selfmoa/3_preferences", "selfmoa/5_evaluate", "selfmoa/human_pairs"}
RUNTIME = {
    "tensor_parallel": 4,
    "data_parallel": 2,
    "kv_cache_gb": 3.5,
    "server_concurrency": 7,
    "server_timeout": 9.0,
    "server_tries": 2,
}


@pytest.fixture(autouse=True)
def fresh():
    """Versions are looked up once a process; here they change."""
    engines.identity.cache_clear()
    yield
    engines.identity.cache_clear()


def make(*sets: str) -> plan.Plan:
    return plan.make(params.load(TEST, sets, "engines"))  # by one name: its report is one


def new(before: plan.Plan, after: plan.Plan) -> set[str]:
    return {i.stage for k, i in after.instances.items() if k not in before.instances}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and vLLM."""
    monkeypatch.setattr(gpus, "visible", lambda: ["0"])
    monkeypatch.setattr(engines, "find_spec", lambda name: object())


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """A small model in a folder."""
    return save_model(tmp_path / "chat")


# ---------------------------------------------------------------------------------------------------- keys


def test_another_engine_reruns_what_it_answers_and_no_trained_judge() -> None:
    ours, theirs, served = (make(f"engine={name}") for name in ("transformers", "vllm", "openai"))
    for other in (theirs, served):
        assert new(ours, other) >= GENERATING
        assert not new(ours, other) & {"selfmoa/0_data", "selfmoa/1_reset", "testbed/chat", "judges/evaluator"}
    assert not {k for k, i in theirs.instances.items() if i.stage in GENERATING} & set(served.instances)


def test_auto_is_the_engine_that_it_stands_for_in_key_and_stage() -> None:
    auto = make("engine=auto")
    assert set(auto.instances) == set(make("engine=transformers").instances)
    assert {i.parameters["engine"] for i in auto.instances.values() if i.stage in GENERATING} == {"transformers"}


def test_auto_takes_vllm_on_a_gpu_but_for_the_testbeds_models_or_off_the_gpu(gpu, chat_model) -> None:
    own = [f"target_model={chat_model}", f"red_team_model={chat_model}"]
    auto = make(*own)
    assert set(auto.instances) == set(make(*own, "engine=vllm").instances)
    assert set(make(*own, "device=cpu").instances) == set(make(*own, "engine=transformers").instances)
    assert set(make().instances) == set(make("engine=transformers").instances)
    assert all(
        i.hashes["engine"].startswith("vllm: vllm") for i in auto.instances.values() if i.stage == "selfmoa/5_evaluate"
    )


def test_a_judge_that_writes_its_verdicts_depends_on_the_engine_too(chat_model) -> None:
    guard = f"training_judge=guard:{chat_model}"
    changed = new(make(guard, "engine=transformers"), make(guard, "engine=vllm"))
    assert changed >= {"judges/evaluator", *GENERATING}


@pytest.mark.parametrize("package", ["transformers", "torch"])
def test_another_version_of_the_engine_reruns_what_it_answers(monkeypatch, package: str) -> None:
    from importlib import metadata

    before, version = make("engine=transformers"), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.1" if name == package else version(name))
    engines.identity.cache_clear()
    assert new(before, make("engine=transformers")) >= GENERATING


def test_the_build_of_torch_is_in_no_key(monkeypatch) -> None:
    from importlib import metadata

    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "2.13.0+cu130" if name == "torch" else version(name).partition("+")[0]
    )
    assert engines.identity("transformers", "bf16").endswith("torch 2.13.0, bf16")


def test_how_an_engine_runs_is_in_no_key_and_in_the_schema() -> None:
    sets = [f"{name}={value}" for name, value in RUNTIME.items()]
    for engine in ("vllm", "openai"):
        assert set(make(f"engine={engine}").instances) == set(make(f"engine={engine}", *sets).instances)
    assert set(engines.PARAMETERS) == set(RUNTIME) <= params.RUNTIME
    assert set(engines.PARAMETERS.values()) <= {name for names in engines.OPTIONS.values() for name in names}
    with pytest.raises(UserError, match="tensor_parallel = 0"):
        make("tensor_parallel=0")


def test_code_of_an_engine_reruns_what_it_answers_alone(copied) -> None:
    folder, printed = copied
    script = (
        "import sys; from underseer.runs import params, plan\n"
        "for engine in ('vllm', 'transformers'):\n"
        f"    made = plan.make(params.load(r'{folder}/params/test/selfmoa.yaml', ['engine=' + engine]))\n"
        "    print(*(f'{i.stage}:{k}' for k, i in made.instances.items()))\n"
        "assert not {'torch', 'transformers', 'vllm', 'pandas'} & set(sys.modules)"  # planning stays light
    )

    def keys() -> dict[str, set[str]]:
        vllm, transformers = printed(script).splitlines()
        return {"vllm": set(vllm.split()), "transformers": set(transformers.split())}

    def changed(module: str) -> dict[str, set[str]]:
        file = folder / "src/lib/underseer/engines" / module
        old = file.read_text()
        file.write_text(f"{old}\nX = 1\n")
        after = keys()
        file.write_text(old)
        return after

    before = keys()
    for module in ("on_vllm.py", "bans.py"):  # vLLM's workers load the second by name
        after = changed(module)
        assert after["transformers"] == before["transformers"]
        assert {k.partition(":")[0] for k in after["vllm"] - before["vllm"]} >= GENERATING


# ---------------------------------------------------------------------------------------------------- stages


def test_a_notebook_that_runs_on_its_own_is_the_stage_that_its_plan_has() -> None:
    """Its parameters cell says ``auto``; what that is is decided as for the plan."""
    made = make()
    for instance in made.instances.values():
        if "engine" in instance.parameters:
            assert by_hand.settled(made, instance, {"engine": "auto"}) == {"engine": instance.parameters["engine"]}
            assert plan.varied(instance, {}, {}) == instance


def stage(tmp_path: Path, engine: str, **runtime: object) -> SimpleNamespace:
    instance = SimpleNamespace(parameters={"engine": engine}, runtime={"device": "cpu", "threads": 1, **runtime})
    run = SimpleNamespace(instance=instance, cost=Ledger(), checkpoints=tmp_path / "checkpoints", opened=[])
    run.used = run.opened.append
    return run


def test_a_stage_opens_the_engine_of_its_plan_with_the_experiments_options(monkeypatch, tmp_path: Path) -> None:
    seen = {}
    monkeypatch.setattr(engines, "open_engine", lambda engine, **how: seen.update(engine=engine, **how) or "opened")
    run = stage(tmp_path, "vllm", **RUNTIME)
    inference = engines.Inference("cuda", "bf16", 4, 96)
    assert targets.engine(run, "auto", targets.Target("m"), inference) == "opened"
    assert run.opened == ["opened"]
    assert seen.items() >= {"engine": "vllm", "model": "m", "lora_rank": 0, "inference": inference}.items()
    assert seen["keep"] == run.checkpoints / "answers.sqlite"
    assert {name: seen[option] for name, option in engines.PARAMETERS.items()} == RUNTIME
    engines._options(
        "transformers", {o: 1 for o in engines.PARAMETERS.values()}
    )  # every engine leaves aside the others'


def test_vllm_is_started_with_what_the_experiment_says(monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(on_vllm, "check", lambda: None)
    monkeypatch.setattr(
        on_vllm,
        "VllmEngine",
        lambda model, inference, settings, **how: seen.update(model=model, **vars(settings), **how),
    )
    engines.open_engine("vllm", "m", lora_rank=8, tensor_parallel=2, kv_cache_gb=1.5, concurrency=3)
    assert seen.items() >= {"model": "m", "lora_rank": 8, "tensor_parallel": 2, "kv_cache_gb": 1.5}.items()
    assert "concurrency" not in seen


def test_an_engine_that_cannot_be_opened_stops_before_anything_runs(monkeypatch) -> None:
    def resolved(engine: str) -> dict:
        return next(params.load(TEST, [f"engine={engine}"]).resolved())

    monkeypatch.setattr(on_vllm, "find_spec", lambda name: None)
    monkeypatch.delenv("UNDERSEER_OPENAI_URL", raising=False)
    with pytest.raises(UserError, match="engine 'vllm' is not installed here"):
        checks.preflight(resolved("vllm"))
    with pytest.raises(UserError, match="set UNDERSEER_OPENAI_URL"):
        checks.preflight(resolved("openai"))
    checks.preflight(resolved("transformers"))


def test_verdicts_of_one_engine_are_not_taken_for_anothers(chat_model) -> None:
    """Verdicts are kept by what decides them; ``auto`` alone would say nothing of it."""
    from underseer.judges import Opening, open_judge

    (chat_model / "chat_template.jinja").write_text("x")
    how = engines.Inference(precision="fp32")
    ours, theirs, auto = (
        open_judge(f"rubric:{chat_model}", "helpful", Opening(how, engine=engine, cache=":memory:"))._identity
        for engine in ("transformers", "vllm", "auto")
    )
    assert ours != theirs and auto == ours
