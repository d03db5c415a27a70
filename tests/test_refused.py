"""Malformed input of every kind: exit code 2, one line a mistake, nothing written, no traceback. One row of a table a case."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT
from underseer.runs import cli, preflight, workflow


@pytest.fixture
def refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls the command line in this process; gives the one line that it answers a mistake with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(workflow, "run", lambda *_, **__: pytest.fail("accepted: it would run"))
    before = signal.getsignal(signal.SIGTERM)

    def call(*args: object) -> str:
        there = written(tmp_path)
        monkeypatch.setattr(sys, "argv", ["underseer", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, told = capsys.readouterr()
        assert end.value.code == 2, (end.value.code, out, told)
        assert "Traceback" not in out + told and written(tmp_path) == there
        return told.strip()

    yield call
    signal.signal(signal.SIGTERM, before)


def written(folder: Path) -> dict[str, int]:
    return {str(p): p.lstat().st_mtime_ns for p in folder.rglob("*")}


def one_line(told: str, expected: str) -> None:
    assert re.search(expected, told), told
    assert len(told.splitlines()) == 1, told


# ------------------------------------------------------------------------------------------------------- parameters

SETS = {  # experiment of params/test -> (overrides parted by ' ; ', what the line says)
    "w2s_safety": (
        ("bootstrps=3", "did you mean 'bootstraps'"),
        ("epochs=long", "epochs = 'long': expected a valid number"),
        ("epochs=.inf", "epochs = inf: expected a number from 1e-37 to 3e.38"),
        ("epochs=.Inf", "epochs = '.Inf': expected a valid number"),
        ("epochs=1e9", "epochs = 1000000000.0: expected at most 10,000"),
        ("epochs=1e-300", "epochs = 1e-300: expected a number from"),
        ("learning_rate=.nan", "learning_rate = nan: expected greater than 0"),
        ("learning_rate=1e400", "learning_rate = inf: expected a number from"),
        ("weight_decay=-1", "weight_decay = -1: expected greater than or equal to 0"),
        ("seed=[]", r"seed = \[\]: empty grid"),
        ("seed=-1", "seed = -1: expected greater than or equal to 0"),
        ("seed=4294967296", "seed = 4294967296: expected at most 2,147,483,647"),
        ("pretrain_seed=99999999999999999999", "pretrain_seed = 9+: expected at most"),
        ("seed=" + "9" * 5000, r"the value is not YAML; quote it"),
        ("seed=[[0]]", r"seed = \[0\]: expected a valid integer"),
        ("seed={a: 1}", "seed = {'a': 1}: expected a valid integer"),
        ("seed=", "seed = None: expected a valid integer"),
        ("seed=[", "the value is not YAML"),
        ("seed=" + "[" * 400, "the value is not YAML"),
        ("seed=&a [*a]", r"seed = \[+\.\.\.\]+: expected a valid integer"),
        ("seed=!!python/object:os.system x", "the value is not YAML"),
        ("seed=!!timestamp x", "the value is not YAML"),
        ("seed=2026-01-01", "seed = '2026-01-01': expected a valid integer"),
        ("n_test=010", "n_test = '010': expected a valid integer"),
        ("n_test=0x20", "n_test = '0x20': expected a valid integer"),
        ("n_test=1:30", "n_test = '1:30': expected a valid integer"),
        ("n_test=100000", "n_test|ask for 100124 rows"),
        ("n_test=1000000000000", "n_test = 1000000000000: expected at most 1,000,000"),
        ("bootstraps=0", "bootstraps = 0: expected"),
        ("bootstraps=1000000000", "bootstraps = 1000000000: expected at most 1,000"),
        (f"bootstraps=900 ; seed={list(range(30))}", "more than 20,000 stages; lower bootstraps"),
        (f"seed={list(range(4000))}", "12,000 of them; at most 10,000"),
        ("batch_size=0", "batch_size = 0: expected greater than or equal to 1"),
        ("max_length=1000000000", "max_length = 1000000000: expected at most 1,048,576"),
        ("threads=1000000", "threads = 1000000: expected at most 1,000"),
        ("device=cuda", "device 'cuda' is not present on this machine; use auto or cpu"),
        ("device=cuda:3", "device 'cuda:3' is not present"),
        ("device=gpu", "device = 'gpu': String should match"),
        ("variants=3", "variants = 3: expected 'key: \\[values\\]' lines"),
        ("variants={seed: [1], seed: [2]}", "the value is not YAML"),
        ("variants=[{seed: [1]}, 3]", "variants = 3: expected"),
        ("variants={null: [b]}", "None: unknown parameter"),
        ("pipeline=[1]", r"pipeline = \[1\]: expected one, such as w2s"),
        ("pipeline=w3s", "pipeline = 'w3s': unknown; did you mean 'w2s'"),
        ("extends=other.yaml", "stands in experiment files alone"),
        ("description=[a]", r"description = \['a'\]: expected a text"),
        ('description="\\ud800"', "description = .*expected a text"),
        ("voting=best_of_b", "the safety task takes none, hard, soft"),
        ("training_judge=oracle", "the oracle serves evaluation only"),
        ("training_judge=jury", "judge 'jury' is unknown"),
        ("objective_weights=helpfulness:1", "no stage of pipeline w2s reads it"),
        ("weak_model=testbed:gpt2-xxs", "gpt2-xs"),
        ("weak_model=scratch:gtp2", "did you mean 'gpt2'"),
        ("weak_model=scratch:gpt2?n_layer=100000000", "about .* random weights; at most"),
        ("weak_model=https://example.com/x", "is not a model specification"),
        ('weak_model="\\ud800"', "weak_model = .*expected a valid string"),
        ("strong_model=./nowhere", "nowhere' does not exist"),
        ("strong_model=~nobodyatall/model", "'~nobodyatall/model': cannot be a path .no such user"),
        ('strong_model="./a\\0b"', "holds a NUL character"),
        ("strong_model=./" + "a" * 5000, "File name too long"),
        ("strong_model=/dev/null", "model folder '/dev/null' does not exist"),
        ("strong_model=no-one/nothing", "hf download no-one/nothing"),
        ("dataset=wts-safty", "did you mean 'wts-safety'"),
        ("dataset=+", "'' is not a known data set"),
        ("dataset=testbed-safety/safe", "hold no unsafe rows"),
        ("dataset_path=gone.csv", "is generated and reads no file"),
        ("dataset_revision=nothex", "has no revisions"),
        ("dataset=wts-safety ; dataset_path=gone.csv", "gone.csv: no such file"),
        ("dataset=wts-safety ; dataset_path=/", "holds no file of 'wts-safety'"),
        ("dataset=wts-safety ; dataset_path=/dev/zero", "no such file"),
        ("dataset=wts-safety ; dataset_path=/proc/self/mem", "Input/output error"),
        ("dataset=wts-safety ; dataset_path=~nobodyatall/x.csv", "cannot be a path .no such user"),
        ("dataset=wts-safety ; dataset_revision=main", "not a commit; give its 40 hex digits"),
    ),
    "w2s_toxicity": (
        ("training_judge=oracle", "training_judge = 'oracle': the oracle serves evaluation only"),
        ("n_judge=0", "n_judge = 0: training_judge is trained"),
        ("training_judge=perspective", "needs a key: set "),
        ("voting=hard", "the toxicity task takes none, best_of_b, least_toxic, mbr"),
        ("max_new_tokens=64", "max_new_tokens = 64 and max_length = 64: a continuation leaves no room for its prompt"),
        ("fluency_model=null", "fluency_model = null: the toxicity task needs it"),
    ),
    "selfmoa": (
        ("training_judge=oracle", "training_judge = 'oracle': the oracle serves evaluation only"),
        ("refusal_judge=oracle", "refusal_judge = 'oracle': the oracle serves evaluation only"),
        ("helpfulness_judge=strings", "measures refusal, not helpful"),
        ("iterations=100000", "iterations = 100000: expected at most 1,000"),
        ("objective_weights=helpfulness:nan,safety:1", "helpfulness = nan; it must be above 0"),
        ("objective_weights=safety:1", "not among the objective_weights"),
        (
            "objective_weights=helpfulness:0.5,safty:0.5",
            "'safty' is no objective; did you mean 'safety'.*helpfulness and safety",
        ),
        ("max_new_tokens=32 ; max_length=32", "an answer leaves no room for its prompt; give max_new_tokens below 32"),
        ("baseline_epochs=sft:999999999", "baseline_epochs = 'sft:999999999': expected at most 10,000"),
        ("baseline_learning_rate=sft:1e-300", "expected a number from"),
        ("baseline_epochs=sft:1,sft:2", "sft stands there twice; name each baseline once"),
        ("baselines=x", "baselines = 'x': 'x' is unknown"),
        ("baseline_beta=sft:1e999", "is not BASELINE:NUMBER"),
        ("attack_strategies=+", "'' is unknown; allowed are all"),
        ("evaluation_datasets=xstest", "stands for all data of an experiment"),
        ("target_model=scratch:llama?n_layer=2", "is no chat model; those of the testbed are"),
        ("red_team_model=testbed:gpt2-xs", "is no chat model; those of the testbed are"),
        ("safe_share=0.9", "together above 1"),
        ("temperature=1e-20", "temperature = 1e-20: expected greater than or equal to 0.001"),
        ("n_judged=9000000", "n_judged = 9000000: expected at most 1,000,000"),
        ("unsafe_threshold=1.5", "expected less than 1"),
        ("engine=openai", "needs the address of a server: set UNDERSEER_OPENAI_URL"),
    ),
}


@pytest.mark.parametrize(
    ("experiment", "sets", "expected"),
    [pytest.param(e, *row, id=f"{e} {row[0][:50]}") for e, rows in SETS.items() for row in rows],
)
def test_overrides(refused: Callable[..., str], experiment: str, sets: str, expected: str) -> None:
    given = [word for one in sets.split(" ; ") for word in ("--set", one)]
    one_line(refused("run", ROOT / f"params/test/{experiment}.yaml", *given), expected)


FILES = (  # what stands in an experiment file (of the first ones below a line with 'extends'), what the line says
    ("bootstrap: 3", r"x\.yaml:2: bootstrap: unknown parameter; did you mean 'bootstraps'\?"),
    ("clean: yes", r"x\.yaml:2: clean = 'yes': expected a valid boolean"),
    ("voting: sofft", r"voting = 'sofft': expected 'none', 'hard', .*did you mean 'soft'\?"),
    ("epochs: three", r"x\.yaml:2: epochs = 'three': expected a valid number"),
    ("n_test: 0", r"n_test = 0: expected greater than or equal to 1"),
    ("n_seeds: few", r"n_seeds = 'few': expected a whole number"),
    ("seed: 1.5", r"seed = 1\.5: expected a valid integer"),
    ("seed: true", r"seed = True: expected a valid integer"),
    ("n_test: 0o20", r"x\.yaml:2: n_test = '0o20': expected a valid integer"),
    ("n_test: 0_1", r"x\.yaml:2: n_test = '0_1': expected a valid integer"),
    ("epochs: 1:30.5", r"x\.yaml:2: epochs = '1:30.5': expected a valid number"),
    ("variants: []", r"variants = \[\]: empty"),
    ("variants: {seed: 3}", r"seed = 3: expected a list, for example seed: \[3\]"),
    ("variants: {sed: [1]}", r"sed: unknown parameter; did you mean 'seed'"),
    ("seed: 1\nseed: 2", r"x\.yaml:3: seed: written twice; keep one"),
    ("variants:\n  seed: [1]\n  seed: [2]", r"x\.yaml:4: seed: written twice; keep one"),
    ("seeds: secnd", r"x\.yaml:2: seeds = 'secnd': no such set in params/seeds\.yaml; did you mean 'second'"),
    ("seeds: [3, 4]", r"seeds = \[3, 4\]: no such set .*allowed: tuning, reporting, second"),
    ("n_seeds: 11", r"x\.yaml:2: n_seeds = 11: expected a whole number from 1 to 10"),
    ("seed: 3\nseeds: second", r"seeds = 'second': there is a 'seed' beside it"),
    ("dataset_path: nowhere.csv\ndataset: wts-safety", r"nowhere\.csv.*no such file"),
    ("strong_model: ~nobodyatall/x", r"x\.yaml:2: strong_model = .*no such user"),
    ("variants: {strong_model: [~nobodyatall/x]}", r"x\.yaml:2: strong_model = .*no such user"),
    ("? [a]\n: 1", r"x\.yaml:2: found unhashable key"),
    ("seed: !!python/name:os.system", r"x\.yaml:2: could not determine a constructor"),
    ("a: &a [1]\nb: &b [*a,*a,*a]\nseed: [*b,*b]", r"x\.yaml:2: a: unknown parameter"),
)
WHOLE = (
    ("a: [1", "x.yaml:1: not YAML"),
    ("- a\n- b", "expected 'key: value' lines, found a list"),
    ("", "expected 'key: value' lines, found nothing"),
    ("3", "expected 'key: value' lines, found a int"),
    ("a: \0", "x.yaml: not YAML"),
    ("a: " + "[" * 900, "x.yaml: nested too deep"),
    (b"a: \xff", "x.yaml: cannot be read as text"),
    ("a: !!timestamp x", "x.yaml: cannot be read as text"),
    ("extends: gone.yaml", "gone.yaml: no such file"),
    ("extends: x.yaml", "extends itself"),
    ("extends: [a]", r"extends = \['a'\]: expected the path"),
    ('extends: "a\\0b"', r"extends = 'a\\x00b': holds a NUL character; give the path"),
    ('extends: "\\ud800"', "extends = .*half a character: a lone surrogate; give the path"),
    ("extends: /dev/zero", "/dev/zero: no regular file; give an experiment file"),
    ("#" * 2_000_000, "x.yaml: 2,000,000 bytes, and an experiment file has at most 1,048,576"),
    ("pipeline: w2s\ndescription: a: b", "x.yaml:2: not YAML: mapping values are not allowed here"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [*((f"extends: {ROOT}/params/test/w2s_safety.yaml\n{text}", line) for text, line in FILES), *WHOLE],
    ids=[repr(text)[:50] for text, _ in (*FILES, *WHOLE)],
)
def test_experiment_files(refused: Callable[..., str], tmp_path: Path, text: str | bytes, expected: str) -> None:
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    told = refused("run", "x.yaml")
    one_line(told.splitlines()[0] if "&a" in str(text) else told, expected)


# ------------------------------------------------------------------------------------------------------------- data

ROWS = "prompt,is_safe\n" + "".join(f"please do task {i} of type {i * 7},{i % 2 == 0}\n" for i in range(300))


def _zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, ROWS)


DATA = {  # name -> (content or what writes it, data set, what the line says)
    "missing column": (ROWS.replace("is_safe", "safe", 1), "wts-safety", "rows:1: no column 'is_safe'"),
    "odd label": (ROWS.replace("True", "maybe", 1), "wts-safety", "rows:2: is_safe = 'maybe' is neither"),
    "no rows": ("prompt,is_safe\n", "wts-safety", "holds no rows"),
    "empty": ("", "wts-safety", "the file is empty"),
    "one class": (ROWS.replace("False", "True"), "wts-safety", "hold no unsafe rows"),
    "too few rows": ("\n".join(ROWS.splitlines()[:50]), "wts-safety", "ask for 164 rows .* the data hold"),
    "ragged": (ROWS + "a,b,c\n", "wts-safety", "3 fields where the header has 2"),
    "stray quote": (ROWS + '"a" b,True\n', "wts-safety", "rows:302: not readable as csv"),
    "not UTF-8": (ROWS.encode() + b"\xff,True\n", "wts-safety", "rows:302: byte 0xff is not UTF-8"),
    "a web page": ("<!DOCTYPE html><p>", "wts-safety", "is a web page"),
    "a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\n", "wts-safety", "is a Git LFS pointer"),
    "a server's error": ("Entry not found", "wts-safety", "is a server's error message"),
    "a pickle": (b"\x80\x04\x95\x00", "wts-safety", "is a pickle, which can run code"),
    "binary": (b"\x00\x01\x02" * 99, "wts-safety", "is a binary file that is not known here"),
    "truncated gzip": (gzip.compress(ROWS.encode())[:-20], "wts-safety", "cannot be decompressed .EOFError"),
    "truncated Parquet": (b"PAR1" + b"\x00" * 99, "wts-safety", "not readable as Parquet"),
    "zip of two": (lambda path: _zipped(path, "a.csv", "b.csv"), "wts-safety", r"a zip of 2 files \(a.csv, b.csv\)"),
    "lone surrogate": (
        '{"prompt": {"text": "\\ud800", "toxicity": 0.1}, "continuation": {"text": "b", "toxicity": 0.1}}\n',
        "real-toxicity-prompts",
        "rows:1: not valid JSON .half a character: a lone surrogate",
    ),
    "JSON nested deep": ("[" * 100_000, "real-toxicity-prompts", "rows:1: not valid JSON .*recursion limit"),
    "a score of 3": (
        '{"prompt": {"text": "a", "toxicity": 3}, "continuation": {"text": "b", "toxicity": 0.1}}\n',
        "real-toxicity-prompts",
        "toxicity of prompt = 3 is out of range",
    ),
    "oracle on public rows": (
        '{"prompt": {"text": "a", "toxicity": 0.3}, "continuation": {"text": "b", "toxicity": 0.1}}\n' * 200
        + '{"prompt": {"text": "a", "toxicity": 0.9}, "continuation": {"text": "b", "toxicity": 0.1}}\n' * 200,
        "real-toxicity-prompts",
        "reporting_judge = 'oracle': the oracle knows the testbed's world alone",
    ),
}


@pytest.mark.parametrize(("content", "dataset", "expected"), DATA.values(), ids=list(DATA))
def test_data(refused: Callable[..., str], tmp_path: Path, content, dataset: str, expected: str) -> None:
    path = tmp_path / "rows"
    content(path) if callable(content) else path.write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    experiment = "w2s_safety" if dataset == "wts-safety" else "w2s_toxicity"
    sets = [f"dataset={dataset}", f"dataset_path={path}", "clean=false"]
    sets += ["reporting_judge=oracle"] if "oracle" in expected else []
    told = refused("run", ROOT / f"params/test/{experiment}.yaml", *[a for s in sets for a in ("--set", s)])
    lines = [line for line in told.splitlines() if "oracle" in expected or "reporting_judge" not in line]
    assert len(lines) == 1 and re.search(expected, lines[0]), told
    assert "please do task" not in told, "texts are not printed"


# ----------------------------------------------------------------------------------------------------------- models


def save_safetensors(path: Path, tensors: dict[str, tuple[int, ...]], *, cut: int = 0) -> None:
    """A safetensors file of zeros in float32 (format: 8 bytes of length, a JSON header, the data)."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - cut))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with all that a model needs, as far as it is looked at without loading it."""
    from tokenizers import Tokenizer, models

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    save_safetensors(folder / "model.safetensors", {"wte.weight": (8, 4)})
    Tokenizer(models.BPE()).save(str(folder / "tokenizer.json"))
    return folder


def _config(**changes: object) -> Callable[[Path], object]:
    return lambda f: (f / "config.json").write_text(json.dumps({"model_type": "gpt2", **changes}))


def _file(name: str, text: str) -> Callable[[Path], object]:
    return lambda f: (f / name).write_text(text)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
HEAD = {"architectures": ["GPT2ForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}
MODELS = {  # name -> (what is done to the folder, what the line says)
    "no configuration": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "a web page for configuration": (_file("config.json", "<!DOCTYPE html>"), "config.json' is not JSON"),
    "configuration nested deep": (_file("config.json", "[" * 100_000), "config.json' is not JSON"),
    "a list for configuration": (_file("config.json", "[]"), "config.json' holds a JSON list"),
    "a data set's configuration": (_file("config.json", '{"features": 1}'), "it names no model_type"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "only pickled weights .pytorch_model.bin.*only safetensors are read",
    ),
    "truncated weights": (
        lambda f: save_safetensors(f / "model.safetensors", {"a": (8, 4)}, cut=60),
        "bytes and its header needs .*: a broken download; fetch it again",
    ),
    "a pointer for weights": (_file("model.safetensors", LFS), "is not a safetensors file"),
    "empty weights": (_file("model.safetensors", ""), "is not a safetensors file"),
    "a length beyond the file": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62)),
        "is not a safetensors file",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer; it needs one of"),
    "a newer tokenizer": (_file("tokenizer.json", '{"model": {"type": "BPE9"}}'), "cannot be read by tokenizers"),
    "a pointer for tokenizer": (_file("tokenizer.json", LFS), "cannot be read by tokenizers"),
    "adapter beside": (_file("adapter_config.json", "{}"), "holds an adapter beside the model"),
    "adapter instead": (lambda f: (f / "config.json").rename(f / "adapter_config.json"), "an adapter and no model"),
    "quantised": (_config(quantization_config={"quant_method": "fp8"}), r"is quantised \(fp8\)"),
    "a type that nobody knows": (_config(model_type="gpt9"), "of the type 'gpt9', which transformers .* does not know"),
    "a pointer for the tokenizer's settings": (
        _file("tokenizer_config.json", LFS),
        "tokenizer_config.json' is not JSON",
    ),
    "a list for the tokenizer's settings": (_file("tokenizer_config.json", "[]"), "json' holds a JSON list"),
    "settings nested deep": (_file("tokenizer_config.json", "[" * 100_000), "tokenizer_config.json' is not JSON"),
    "a pointer for special tokens": (_file("special_tokens_map.json", LFS), "special_tokens_map.json' is not JSON"),
    "a list for special tokens": (_file("special_tokens_map.json", "[]"), "special_tokens_map.json' holds a JSON list"),
    "a pointer for a vocabulary": (_file("vocab.txt", LFS), "vocab.txt' is a Git LFS pointer .*fetch it"),
    "a pointer for a chat template": (_file("chat_template.jinja", LFS), "chat_template.jinja' is a Git LFS pointer"),
    "weights nested deep": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 100_000) + b"[" * 100_000),
        "is not a safetensors file",
    ),
    "offsets with a fraction": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 33) + b'{"a": {"data_offsets": [0, 1.0]}}\0'),
        "is not a safetensors file",
    ),
    "a head of three classes": (_config(**HEAD), "is a classifier of 3 classes, and 2 are to be trained"),
    "a head of three unnamed classes": (
        _config(**HEAD | {"id2label": None, "num_labels": 3}),
        "is a classifier of 3 classes",
    ),
    "a head of two or three classes": (_config(**HEAD, num_labels=2), "is a classifier of 2 or 3 classes"),
    "architectures in one word": (
        _config(**HEAD | {"architectures": "GPT2"}),
        "architectures = 'GPT2'; allowed is a list",
    ),
    **{
        f"{name} {given}": (_config(**{name: given}), f"has {name} = {re.escape(repr(given))}; allowed is .*correct it")
        for name, odd in {
            "id2label": ([], ["a", "b"], 2, "ab", {"a": "b"}, {"0": None}),
            "num_labels": (None, "2", [2], 2.0, True, -1, 10**9),
        }.items()
        for given in odd
    },
}


@pytest.mark.parametrize(("damage", "expected"), MODELS.values(), ids=list(MODELS))
def test_models(refused: Callable[..., str], model: Path, damage: Callable[[Path], object], expected: str) -> None:
    damage(model)
    one_line(refused("run", ROOT / "params/test/w2s_safety.yaml", "--set", f"strong_model={model}"), expected)


@pytest.mark.parametrize("given", [{}, {"id2label": None}, {"id2label": {}}, {"num_labels": 2}])
def test_a_head_whose_classes_are_not_named_has_two(model: Path, given: dict) -> None:
    _config(**{"architectures": HEAD["architectures"], **given})(model)
    preflight._check_head(str(model))


ENCODER = "scratch:bert?n_embd=32&n_layer=1&n_head=2"
NO_WRITERS = (  # experiment, parameter, a model or the configuration of one, what the line says
    (
        "w2s_toxicity",
        "strong_model",
        ENCODER,
        "reads a text in both directions.*give scratch: with one of gpt1, gpt2, llama",
    ),
    ("w2s_toxicity", "fluency_model", f"trained:{ENCODER}", "reads a text in both directions"),
    ("w2s_toxicity", "strong_model", {"model_type": "t5", "is_encoder_decoder": True}, "has an encoder and a decoder"),
    ("w2s_toxicity", "strong_model", {"model_type": "t5"}, "is none that writes"),
    ("w2s_toxicity", "weak_model", {"model_type": "roberta"}, "reads a text in both directions"),
)


@pytest.mark.parametrize(("experiment", "name", "given", "expected"), NO_WRITERS)
def test_a_language_model_writes_from_left_to_right(refused, model: Path, experiment, name, given, expected) -> None:
    if isinstance(given, dict):
        (model / "config.json").write_text(json.dumps(given))
        given = model
    one_line(refused("run", ROOT / f"params/test/{experiment}.yaml", "--set", f"{name}={given}"), expected)


def test_a_chat_model_has_a_chat_template(refused: Callable[..., str], model: Path) -> None:
    told = refused("run", ROOT / "params/test/selfmoa.yaml", "--set", f"target_model={model}")
    one_line(told, "has no chat template, so it is no chat model")


# ------------------------------------------------------------------------------------- servers, stores, command lines

URL, KEY = "UNDERSEER_OPENAI_URL", "OPENAI_API_KEY"
SERVERS = (
    ({}, "needs the address of a server: set UNDERSEER_OPENAI_URL"),
    ({URL: "127.0.0.1:8000/v1"}, "the address is not as http://host:port/v1"),
    ({URL: "ftp://host/v1"}, "the address is not as"),
    ({URL: "http://host:99999/v1"}, "the address is not as"),
    ({URL: "http://"}, "the address is not as"),
    ({URL: "http://user:secret@host/v1"}, "without user, key or query; correct or unset UNDERSEER_OPENAI_URL"),
    ({URL: "http://host/v1?key=secret"}, "without user, key or query"),
    ({URL: "http://host/v1", KEY: "sec ret"}, "OPENAI_API_KEY holds characters that no key has"),
    ({URL: "http://host/v1", KEY: "secreté"}, "OPENAI_API_KEY holds characters that no key has"),
)


@pytest.mark.parametrize(("env", "expected"), SERVERS)
def test_servers(refused: Callable[..., str], monkeypatch, env: dict[str, str], expected: str) -> None:
    for name in (URL, KEY):
        monkeypatch.setenv(name, env.get(name, ""))
    told = refused("run", ROOT / "params/test/selfmoa.yaml", "--set", "engine=openai")
    one_line(told, expected)
    assert "secret" not in told


@pytest.mark.parametrize(
    ("home", "args", "expected"),
    [
        ("~nobodyatall/store", ["status"], "UNDERSEER_HOME=.~nobodyatall/store.: cannot be a folder"),
        ("x" * 5000, ["sync"], "UNDERSEER_HOME=.*cannot be a folder .File name too long"),
        ("store/a-file", ["status"], "UNDERSEER_HOME=.store/a-file.: cannot be a folder .a file"),
        ("store", ["sync"], "store/runs/.plans/test/w2s_safety/0.json: not a plan; remove it"),
        ("store", ["report", "test/w2s_safety"], "no finished report of that name; none has run yet"),
        ("store", ["verify", "gone"], "gone: no such folder"),
        ("store", ["verify", "store/a-file"], "a-file: no folder; give a folder of store/runs, or none"),
        ("store", ["verify", "/etc"], "/etc: holds no finished result, nothing to verify; give a folder of"),
        ("store", ["gc"], "reports/x/y/results.json: not the results of a report; make it anew .*, or remove"),
        ("store", ["logs", "abc"], "failed/abc.ipynb: not a notebook, or cut short; remove it, and run its experiment"),
        ("store", ["promote", "store"], "no exploratory result"),
    ],
)
def test_stores(refused: Callable[..., str], tmp_path: Path, monkeypatch, home: str, args: list, expected: str) -> None:
    plans = tmp_path / "store/runs/.plans/test/w2s_safety"
    plans.mkdir(parents=True)
    (tmp_path / "store/a-file").touch()
    if args != ["gc"]:
        (plans / "0.json").write_text('{"name": ')
    for file, text in {"reports/x/y/results.json": "{}", "runs/w2s/4_student/failed/abc.ipynb": '{"cells": ['}.items():
        (tmp_path / "store" / file).parent.mkdir(parents=True)
        (tmp_path / "store" / file).write_text(text)
    monkeypatch.setenv("UNDERSEER_HOME", home)
    one_line(refused(*args), expected)


TEST = str(ROOT / "params/test/w2s_safety.yaml")
COMMANDS = (  # the words of a command line, what is said
    (["run"], "Missing argument"),
    (["rnu"], "No such command"),
    (["run", TEST, "--jobs", "0"], "greater than or equal to"),
    (["run", TEST, "--jobs", "two"], "valid integer"),
    (["run", TEST, "--job"], "No such option"),
    (["run", TEST, "--profile", "slrum"], "--profile slrum: no such Snakemake profile; there are slurm"),
    (["run", TEST, "--until", "w2s/9_end"], "--until w2s/9_end: .* needs no such stage"),
    (["run", TEST, "--name", "../x"], r"--name \.\./x: expected up to 60 letters"),
    (["run", TEST, "--set", "epochs"], "--set epochs: expected KEY=VALUE"),
    (["run", TEST, "--set", "=3"], "--set =3: expected KEY=VALUE"),
    (["run", "gone.yaml"], "gone.yaml: no such file"),
    (["run", "/dev/zero"], "/dev/zero: no regular file; give an experiment file"),
    (["show", "**"], "no finished result; give a key, its first characters, or a folder of scratch/"),
    (["open", "*"], "no finished result; give a key"),
    (["run", "/"], "holds no experiment file"),
    (["run", "a" * 5000], "File name too long"),
    (["run", os.fsdecode(b"\xff.yaml")], "no such file|reports cannot have this name"),
    (["plan", "gone.yaml", "--json"], "gone.yaml: no such file"),
    (["--cpu", "sse", "status"], "'sse' is not one of 'avx2'"),
    (["report"], "Missing argument"),
    (["report", "../../etc"], "no finished report of that name"),
    (["promote", "/dev/null"], "no exploratory result"),
    (["verify", "/nowhere/at/all"], "/nowhere/at/all: no such folder"),
)


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=[" ".join(w)[-40:] for w, _ in COMMANDS])
def test_command_lines(refused: Callable[..., str], words: list[str], expected: str) -> None:
    told = refused(*words)
    assert re.search(expected, " ".join(told.split())), told
