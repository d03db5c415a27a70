"""Rehearsals: what becomes of an experiment, tiny models and sample rows, marks, and that real results stay apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import NOTHING, ROOT, underseer
from underseer import data
from underseer.data.registry import DATASETS
from underseer.errors import StageError, UserError
from underseer.models import specs
from underseer.runs import files, params, plan, rehearsal
from underseer.runs.rehearsal import rows, shapes, tokens
from underseer.runs.stage import Run
from underseer.store import Output

PAPER = sorted((ROOT / "params" / "paper").glob("*.yaml"))


def rehearsed(name: str) -> rehearsal.Rehearsal:
    return rehearsal.rehearse(params.load(ROOT / "params" / f"{name}.yaml"))


# ---------------------------------------------------------------------------------------------------- transformation


@pytest.mark.parametrize("file", PAPER, ids=lambda f: f.stem)
def test_every_paper_file_has_a_rehearsal_that_keeps_all_but_sizes_models_and_device(home: Path, file: Path) -> None:
    real = params.load(file)
    found = rehearsal.rehearse(real).experiment
    assert found.name == f"rehearsal/paper_{file.stem}" and found.rehearsal and not real.rehearsal
    changed = {k for k, v in real.parameters.items() if found.parameters[k] != v}
    sizes = {k for k in changed if isinstance(real.parameters[k], int | float)}
    assert changed - sizes <= files.MODELS | files.JUDGES | {"device", "dataset_path"}
    assert all(found.parameters[k] < real.parameters[k] for k in sizes)
    assert found.parameters["device"] == "cpu"
    assert not home.exists(), "the transformation writes nothing"


def test_one_seed_is_left_and_every_other_axis_kept(home: Path) -> None:
    assert rehearsed("paper/w2s_safety").experiment.variants == (
        {"seed": 10, "voting": "none"},
        {"seed": 10, "voting": "hard"},
        {"seed": 10, "voting": "soft"},
    )


def test_variants_that_are_alike_when_small_are_one(home: Path) -> None:
    real = params.load(ROOT / "params" / "paper" / "w2s_safety.yaml", ["n_transfer=[500,1000,20]", "voting=[none]"])
    found = rehearsal.rehearse(real).experiment
    assert [v["n_transfer"] for v in found.variants] == [60, 20]


def test_models_become_folders_by_architecture_and_head(home: Path) -> None:
    found = rehearsed("paper/w2s_toxicity")
    by_name = {folder.name: shape for folder, shape in found.models.items()}
    assert by_name["tiny-openai-gpt"].config["model_type"] == "openai-gpt"
    assert by_name["tiny-gpt2-medium"].config["model_type"] == "gpt2"
    assert by_name["tiny-distilroberta-base"].auto == "RobertaForMaskedLM"
    assert by_name["tiny-toxic-bert"].labels[0] == "toxic"
    assert found.experiment.parameters["reporting_judge"].startswith("classifier:/")
    assert found.experiment.parameters["training_judge"].startswith("trained:/")


def test_an_unknown_architecture_says_what_to_fetch() -> None:
    with pytest.raises(UserError, match="its architecture is not known here; fetch .*hf download nobody/thing"):
        shapes.shape_of("nobody/thing")
    with pytest.raises(UserError, match="its classes are not known here; name the one looked for"):
        shapes.shape_of("nobody/roberta-thing", "classifier")
    assert shapes.shape_of("nobody/roberta-thing", "classifier", "harm").labels == ("other", "harm")


def test_a_model_whose_files_are_here_gives_its_own_configuration_and_template(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 1536, "num_hidden_layers": 28,
              "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936,
              "max_position_embeddings": 131072, "rope_theta": 1e6, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("mine {{ messages[0]['content'] }}<|im_end|>")
    told = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    shape = shapes.shape_of(str(tmp_path))
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    assert small.items() <= shape.config.items() and shape.config["rope_theta"] == 1e6
    assert shape.config["max_position_embeddings"] == shapes.POSITIONS
    assert shape.tokens.template.startswith("mine") and shape.tokens.named["pad_token"] == "<|endoftext|>"


@pytest.mark.parametrize(
    ("name", "family", "special"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2", "<|im_start|>user\nhi<|im_end|>"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama", "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"),
        ("google/gemma-2-2b-it", "gemma2", "<start_of_turn>user\nhi<end_of_turn>"),
        ("testbed:chat-s", "gpt2", "<|user|>hi"),
    ],
)
def test_a_tiny_chat_model_keeps_architecture_and_template(
    tmp_path: Path, name: str, family: str, special: str
) -> None:
    from underseer.models import chats, loading
    from underseer.runs.rehearsal import build

    build.build(shapes.shape_of(name), tmp_path / "model")
    specs.preflight(str(tmp_path / "model"))
    model, tokenizer = loading.load_language_model(str(tmp_path / "model"))
    assert model.config.model_type == family and loading.n_parameters(model) < 400_000
    assert special in chats.render(tokenizer, chats.ask("hi"))
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings


def test_gemma_refuses_a_system_message_as_it_does_in_full_size(tmp_path: Path) -> None:
    from jinja2 import TemplateError

    from underseer.models import chats
    from underseer.runs.rehearsal import build

    tokenizer = build.tokenizer_of(tokens.FAMILIES["gemma"])
    with pytest.raises(TemplateError, match="System role not supported"):
        chats.render(tokenizer, chats.ask("hi", "be brief"))


@pytest.mark.parametrize(
    "spec, kind",
    [
        ("Qwen/Qwen2.5-7B-Instruct", "rubric"),
        ("meta-llama/Llama-Guard-3-1B", "guard"),
        ("Qwen/Qwen3Guard-Gen-0.6B", "guard"),
        ("google/shieldgemma-2b", "guard"),
        ("ibm-granite/granite-guardian-3.3-8b", "guard"),
        ("allenai/wildguard", "guard"),
        ("OpenSafetyLab/MD-Judge-v0.1", "guard"),
        ("cais/HarmBench-Llama-2-13b-cls", "guard"),
    ],
)
def test_judges_that_write_reply_in_form_and_not_always_alike(spec: str, kind: str, tmp_path: Path) -> None:
    """As a stage opens them: from a folder whose name still tells the format."""
    from underseer.engines import Inference
    from underseer.judges import Opening, open_judge
    from underseer.runs.rehearsal import build
    from underseer.testbed import corpus

    texts = corpus.texts(24, seed=5)
    shape = shapes.shape_of(spec, kind)
    build.build(shape, tmp_path / f"tiny-{shape.name}")
    how = Opening(Inference("cpu", "fp32", 24, 128), ":memory:", progress=False, engine="transformers")
    judge = open_judge(f"{kind}:{tmp_path}/tiny-{shape.name}", "helpful" if kind == "rubric" else "unsafe", how)
    scores = judge.score(list(reversed(texts)), texts)
    there = scores.values[~np.isnan(scores.values)]
    assert len(there) > 0.8 * len(texts) and len(set(there >= 0.5)) == 2, scores.failures


# ---------------------------------------------------------------------------------------------------- rows


def test_every_public_data_set_has_sample_rows_that_its_reader_takes(tmp_path: Path) -> None:
    rows.write(tmp_path / "rows")
    for name, info in DATASETS.items():
        if info.reader is None:
            assert not rows.needed(name)
            continue
        assert rows.needed(name)
        (file,) = data.local_files(name, str(tmp_path / "rows"))
        assert len(info.reader(file.read_bytes(), file.name)) >= rows.ROWS


def test_files_that_are_given_are_read_and_samples_stand_in_for_the_others(tmp_path: Path, home: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "safety.csv").write_text("prompt,is_safe\nmine,True\n")
    real = params.load(ROOT / "params" / "paper" / "w2s_safety.yaml", [f"dataset_path={given}"])
    found = rehearsal.rehearse(real)
    ((folder, source),) = found.samples.items()
    rows.write(folder, source)
    (file,) = data.local_files("wts-safety", str(folder))
    assert file.resolve() == given / "safety.csv"
    assert data.local_files("advbench", str(folder))


def test_a_single_file_is_read_as_it_is(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "safety.csv"
    file.write_text("prompt,is_safe\nmine,True\n")
    found = rehearsal.rehearse(params.load(ROOT / "params" / "paper" / "w2s_safety.yaml", [f"dataset_path={file}"]))
    assert found.experiment.parameters["dataset_path"] == str(file) and not found.samples


# ---------------------------------------------------------------------------------------------------- apart


def test_no_stage_of_a_rehearsal_has_the_key_of_a_real_one(home: Path) -> None:
    real = params.load(ROOT / "params" / "test" / "w2s_safety.yaml")
    from dataclasses import replace

    keys = set(plan.make(real).instances)
    assert keys and not keys & set(plan.make(replace(real, rehearsal=True)).instances)


def _run(tmp_path: Path, mine: bool, inputs: dict[str, bool]) -> Run:
    found = {}
    for role, marked in inputs.items():
        (tmp_path / role).mkdir()
        marks = {"synthetic": True, "unsafe": False, **({"rehearsal": True} if marked else {})}
        manifest = NOTHING | {"stage": "w2s/1_data", "marks": marks}
        (tmp_path / role / "manifest.json").write_text(json.dumps(manifest))
        found[role] = [Output(tmp_path / role)]
    return Run(plan.Instance("w2s/4_student", "0" * 16, {}, {}, {}, {}, [], mine), found, tmp_path)


def test_a_real_stage_takes_nothing_that_a_rehearsal_made(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="of a rehearsal"):
        _run(tmp_path, mine=False, inputs={"data": True})


def test_what_does_not_hold_is_noted_in_a_rehearsal_and_stops_a_real_stage(tmp_path: Path) -> None:
    run = _run(tmp_path, mine=True, inputs={"data": True})
    run.check(False, "both classes occur")
    assert run._record()["unmet"] == ["both classes occur"] and run._record()["marks"]["rehearsal"]
    with pytest.raises(StageError, match="both classes occur"):
        _run(tmp_path / "real", mine=False, inputs={}).check(False, "both classes occur")


@pytest.mark.slow
@pytest.mark.parametrize("file", PAPER, ids=lambda f: f.stem)
def test_every_paper_file_rehearses(tmp_path: Path, file: Path) -> None:
    done = underseer(tmp_path, "run", file, "--rehearse", "--jobs", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    is_marked(tmp_path, f"rehearsal/paper_{file.stem}")


def is_marked(home: Path, name: str) -> None:
    import mlflow

    manifests = [json.loads(f.read_text()) for f in home.glob("runs/*/*/*/manifest.json")]
    assert manifests and all(m["marks"]["rehearsal"] for m in manifests)
    results = json.loads((home / "reports" / name / "results.json").read_text())
    assert results["name"] == name and results["provenance"]["rehearsal"] is True
    for page in (home / "reports" / name / "index.html", home / "reports" / "rehearsal" / "index.html"):
        assert "These numbers mean nothing" in page.read_text()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    assert runs and all(r.data.tags["rehearsal"] == "True" for r in runs)
