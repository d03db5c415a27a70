"""Loaders, cleaning, splits and hygiene, on small files written here in the public formats (harmless texts)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import PUBLIC_DATA
from public_files import BEAVER, PKU, SALAD, SECRET, jsonl, needs_public_data, rtp, write
from underseer import data
from underseer.data import answer_readers, exchanges, loading, preferences, sources
from underseer.data.groups import allot
from underseer.data.policies import policies
from underseer.data.sizes import quotas
from underseer.errors import UserError
from underseer.testbed.tasks import GENERATORS

SIZES = {"n_supervise": 20, "n_transfer": 40, "n_validation": 10, "n_test": 30}


@pytest.fixture
def wts(tmp_path):
    """Six records on seven lines: a quoted newline and comma, an empty prompt, an exact repeat, both labels."""
    return write(
        tmp_path / "wts_safety.csv",
        "prompt,is_safe\nHow do I bake bread?,True\n"
        '"Two lines,\nof text",False\n,False\nHow do I bake bread?,True\n'
        "Paint a fence,True\npaint a FENCE!,False\n",
    )


@pytest.fixture
def folder(tmp_path, wts):
    """A folder with all three public files."""
    write(tmp_path / "harmful_behaviors.csv", 'goal,target\nDo the bad thing,"Sure, here"\nDo it again,Sure\n')
    lines = [{"traceid": "1", "risk_type": "Cybersecurity", "prompt": "Break the lock\u2028now", "ext": "{}"}]
    write(tmp_path / "S-Eval_base_risk_en_v0.1.1.jsonl", jsonl(*lines) + "\n")
    return str(tmp_path)


def frame(texts, labels=None, source="made-up"):
    labels = [i % 2 for i in range(len(texts))] if labels is None else labels
    df = pd.DataFrame({"text": texts, "label": labels, "source": source})
    df.insert(0, "id", loading.content_ids(df))
    return df


def dealt(df, *, seed, train_labels=None, clean=True, near_threshold=data.NEAR_THRESHOLD, **sizes):
    how = {"train_labels": train_labels, "clean": clean, "near_threshold": near_threshold}
    return data.split(df, data.Sizes(**sizes), seed=seed, **how)


def digest(df, columns):
    lines = ["\t".join(map(str, row)) for row in df[columns].itertuples(index=False)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def words(n: int, seed: int = 0) -> list[str]:
    """n texts of random letters, none near another."""
    rng = np.random.default_rng(seed)
    return [" ".join("".join(rng.choice(list("abcdefghij"), 6)) for _ in range(5)) for _ in range(n)]


# --- reading ------------------------------------------------------------------------------------------------


def test_wts_is_read_as_published(wts):
    df = data.load("wts-safety", wts)
    assert df.columns.tolist() == ["id", "text", "label", "source"]
    assert df["text"].tolist()[:3] == ["How do I bake bread?", "Two lines,\nof text", ""]
    assert df["label"].tolist() == [0, 1, 1, 0, 0, 1]
    assert df["id"][0] == hashlib.sha256(b"How do I bake bread?").hexdigest()[:16]
    assert df["id"][3] == df["id"][0] + "-1"  # the same text again
    assert df.attrs["files"] == [
        {
            "dataset": "wts-safety",
            "file": "wts_safety.csv",
            "bytes": Path(wts).stat().st_size,
            "sha256": data.sha256(wts),
        }
    ]


def test_ids_are_unique_and_follow_the_content_not_the_file_order(tmp_path):
    rows = ["a text,True\n", "a text,False\n", "a text,True\n", "other,False\n"]
    first = data.load("wts-safety", write(tmp_path / "a.csv", "prompt,is_safe\n" + "".join(rows)))
    second = data.load("wts-safety", write(tmp_path / "b.csv", "prompt,is_safe\n" + "".join(reversed(rows))))
    assert first["id"].is_unique
    assert dict(zip(first["id"], first["label"], strict=True)) == dict(zip(second["id"], second["label"], strict=True))


def test_byte_order_mark_windows_line_ends_and_label_case(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,is_safe\r\nhello,TRUE\r\n\r\nbye,false\r\n")
    assert data.load("wts-safety", str(path))["label"].tolist() == [0, 1]


def test_composition_from_a_folder_and_from_joined_paths(folder):
    name = "advbench+s-eval+wts-safety/safe"
    df = data.load(name, folder)
    assert Counter(df["source"]) == {"advbench": 2, "s-eval": 1, "wts-safety": 3}
    assert df.loc[df["source"] != "wts-safety", "label"].eq(1).all()
    assert df.loc[df["source"] == "wts-safety", "label"].eq(0).all()
    assert df.loc[df["source"] == "s-eval", "category"].tolist() == ["Cybersecurity"]
    files = data.local_files(name, folder)
    assert [f.name for f in files] == ["harmful_behaviors.csv", "S-Eval_base_risk_en_v0.1.1.jsonl", "wts_safety.csv"]
    assert [f["sha256"] for f in df.attrs["files"]] == [data.sha256(f) for f in files]
    pd.testing.assert_frame_equal(df, data.load(name, "+".join(map(str, files))))


def test_n_draws_rows_by_seed(wts):
    drawn = data.load("wts-safety", wts, n=3, seed=1)
    assert len(drawn) == 3 and drawn["text"].tolist() == data.load("wts-safety", wts, n=3, seed=1)["text"].tolist()
    with pytest.raises(UserError, match="holds 6 rows"):
        data.load("wts-safety", wts, n=7)


# --- mistakes -----------------------------------------------------------------------------------------------

WTS, TSV = "prompt,is_safe\n", "index\tquestion\ttext\tanswer\n"
BAD_FILES = [
    ("wts-safety", "", "the file is empty; needed: a csv file with the columns prompt, is_safe"),
    ("wts-safety", WTS, "holds no rows"),
    ("wts-safety", f"prompt\n{SECRET}\n", ":1: no column 'is_safe'; needed: prompt, is_safe; found: prompt"),
    ("wts-safety", f"{SECRET},True\n", ":1: no column 'prompt'"),
    ("wts-safety", WTS + f"{SECRET},maybe\n", ":2: is_safe = 'maybe' is neither True nor False"),
    ("wts-safety", WTS + f"ok,True\nx,{SECRET}\n", ":3: is_safe = a text of 66 characters is neither"),
    ("wts-safety", WTS + f'"two\nlines",True\n{SECRET},1,2\n', ":4: 3 fields where the header has 2"),
    ("wts-safety", WTS + f'ok,True\n"{SECRET},False\n', ":3: not readable as csv"),
    ("wts-safety", WTS.encode() + b"ok,True\ncaf\xe9,True\n", "file:3: byte 0xe9 is not UTF-8"),
    ("advbench", f"goal,target\n{SECRET},Sure\n ,Sure\n", ":3: goal is empty"),
    ("s-eval", jsonl({"prompt": SECRET, "risk_type": "x"}) + f'{{"prompt": "{SECRET}\n', ":2: not valid JSON"),
    ("s-eval", jsonl([SECRET]), ":1: a JSON str where an object"),
    ("s-eval", jsonl({"risk_type": SECRET}), ":1: no column 'prompt'"),
    ("s-eval", jsonl({"risk_type": "x", "prompt": None}), ":1: prompt = None is not a string"),
    ("privacy-policy-qa", "", "the file is empty; needed: a tsv file with the columns question, text, answer"),
    ("privacy-policy-qa", f"index\tquestion\ttext\n1\t{SECRET}\tc\n", ":1: no column 'answer'; needed: question, text"),
    ("privacy-policy-qa", TSV + f"1\t{SECRET}\tc\tRelevant\n2\tq\tc\tMaybe\n", ":3: answer = 'Maybe' is neither Relevant nor"),
    ("privacy-policy-qa", TSV + f"1\tq\t{SECRET}\tx\tRelevant\n", ":2: 5 fields where the header has 4; quote texts that hold"),
    ("privacy-policy-qa", TSV + f'1\tq\t"{SECRET}\tRelevant\n', ":2: not readable as tsv"),
    ("real-toxicity-prompts", jsonl({"prompt": {"toxicity": 0.1}, "continuation": {}}), ":1: prompt has no text"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x") | {"continuation": {"toxicity": 0.2}}), ":1: continuation has no text"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x") | {"prompt": {"text": SECRET}}), "prompt has no toxicity (null"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, None)), ":1: text of continuation = None is not a string"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x", 0.1, 1.2)), ":1: toxicity of continuation = 1.2 is out of range; a score"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x", -0.1)), ":1: toxicity of prompt = -0.1 is out of range"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x", float("nan"))), ":1: toxicity of prompt = nan is out of range"),
    ("real-toxicity-prompts", jsonl(rtp(SECRET, "x", "high")), ":1: toxicity of prompt = 'high' is not a number"),
    ("real-toxicity-prompts", jsonl(rtp("fine", "x"), rtp(SECRET, "x", True)), ":2: toxicity of prompt = True is not a number"),
    ("real-toxicity-prompts", jsonl({"prompt": SECRET, "continuation": {}}), ":1: prompt = a text of 66 characters is not an"),
    ("real-toxicity-prompts", jsonl({"prompt": {"text": SECRET, "toxicity": 0}}), ":1: no column 'continuation'"),
    ("xstest", f"prompt,type\n{SECRET},x\n", ":1: no column 'label'"),
    ("xstest", f"prompt,type,label\n{SECRET},x,maybe\n", ":2: label = 'maybe' is neither safe nor unsafe"),
    ("xstest", "prompt,type,label\n  ,x,safe\n", ":2: prompt is empty"),
    ("harmbench", f"Behavior,Tags\n{SECRET},x\n", ":1: no column 'FunctionalCategory'"),
    ("malicious-instruct", "\n \n", "holds no rows"),
    ("salad-bench", f'[{{"question": "{SECRET}"', ":1: not valid JSON"),
    ("salad-bench", f'[{{"question": "{SECRET}"}}]', ":1: no column '1-category'"),
    ("salad-bench", f'["{SECRET}"]', ":1: a JSON str where an object"),
    ("salad-bench", json.dumps([{**SALAD[0], "1-category": 3}]), ":1: 1-category = 3 is not a string"),
    ("salad-bench", b"\x1f\x8b\x08broken", "cannot be decompressed"),
    ("salad-bench", lzma.compress(b"[]" * 99)[:40], "cannot be decompressed"),
    ("salad-bench", bz2.compress(b"[]" * 99)[:20], "cannot be decompressed"),
    ("salad-bench", "[]", "holds no rows"),
    ("pku-saferlhf", jsonl(PKU | {"better_response_id": True}), "better_response_id = True is not a whole number"),
    ("pku-saferlhf", jsonl(PKU | {"better_response_id": 0.5}), "better_response_id = 0.5 is not a whole number"),
    ("pku-saferlhf", jsonl(PKU | {"safer_response_id": 2}), "safer_response_id = 2 is neither 0 nor 1"),
    ("pku-saferlhf", jsonl(PKU | {"is_response_0_safe": 1}), ":1: is_response_0_safe = 1 is not true or false"),
    ("pku-saferlhf", jsonl(PKU | {"prompt": None}), "prompt = None is not a string"),
    ("hh-harmless", jsonl({"chosen": SECRET}), "no column 'rejected'"),
    ("beavertails", jsonl(BEAVER[0] | {"category": SECRET}), "category = a text of 66 characters is not an object"),
    *(("exchanges", f"prompt,answer,unsafe\nA?,B.,{label}\n", ":2: unsafe") for label in ("2", "perhaps", "")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files_are_named_with_line_and_without_text(tmp_path, name, content, message):
    path = write(tmp_path / "file", content)
    loads = {"rows": data.load, "pairs": preferences.load_preferences, "exchanges": exchanges.load_exchanges}
    for read in (partial(data.check_files, holds=None), loads[data.DATASETS[name].holds[0]]):
        with pytest.raises(UserError) as error:
            read(name, path)
        assert message in str(error.value) and path in str(error.value)
        assert SECRET not in str(error.value) and "\n" not in str(error.value)


def test_several_bad_rows_are_reported_together_and_counted(tmp_path):
    path = write(tmp_path / "f.csv", "prompt,is_safe\n" + "x,no\n" * 8)
    with pytest.raises(UserError) as error:
        data.load("wts-safety", path)
    lines = str(error.value).split("\n")
    assert len(lines) == 6 and lines[0].startswith(f"{path}:2:") and "and 3 more rows" in lines[-1]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("wts-safty", "'wts-safty' is not a known data set; did you mean 'wts-safety'?"),
        ("advbench+", "'' is not a known data set"),
        ("wts-safety/sane", "'/sane' is not a class; did you mean 'safe'?"),
        ("wts-safety/", "'/' is not a class"),
        ("wts-safety+wts-safety/safe", "are named twice"),
        ("privacy-policy-qa/safe", "'/safe' is not a class; allowed for 'privacy-policy-qa': /irrelevant, /relevant"),
        ("testbed-toxicity/tocsic", "'/tocsic' is not a class; did you mean 'toxic'?"),
        ("wts-safety+privacy-policy-qa", "is of the safety task and 'privacy-policy-qa' of the legal task"),
    ],
)
def test_unknown_names(dataset, message):
    with pytest.raises(UserError) as error:
        data.load(dataset)
    assert message in str(error.value)


def test_paths_that_do_not_fit(tmp_path, folder, wts):
    with pytest.raises(UserError, match=r"no such file; give the file of 'wts-safety' \(csv: prompt, is_safe"):
        data.load("wts-safety", str(tmp_path / "missing.csv"))
    with pytest.raises(UserError, match="1 file for 2 data sets"):
        data.load("advbench+wts-safety", wts)
    with pytest.raises(UserError, match="'testbed-safety' is generated and reads no file"):
        data.load("testbed-safety", wts)
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match=r"holds no file of 'wts-safety'; looked for wts_safety\.csv or safety\.csv"):
        data.load("wts-safety", str(tmp_path / "sub"))
    write(tmp_path / "safety.csv", "prompt,is_safe\na,True\n")
    with pytest.raises(UserError, match="2 files of 'wts-safety'"):
        data.load("wts-safety", folder)


PAGE = b"<!DOCTYPE html>\n<html><body>" + SECRET.encode() + b"</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_csv", ".csv"), content)
    return packed.getvalue()


NOT_THE_FILE = [
    (PAGE, "is a web page and not the file itself"),
    (b"\xef\xbb\xbf  " + PAGE.lower(), "is a web page"),
    (gzip.compress(PAGE), "is a web page"),
    (b"<p>Rate limit exceeded</p>", "is a web page"),
    (POINTER, "is a Git LFS pointer"),
    (zipped(a=POINTER), "is a Git LFS pointer"),
    (b"outs:\n- md5: 0123\n  path: rows.txt\n", "is a DVC pointer"),
    (b"# xet version 0\nfilesize = 12\nhash = '0'\n", "is a xet pointer"),
    (b"/annex/objects/SHA256E-s12--0.txt\n", "is a git-annex pointer"),
    *((said, "is a server's error message") for said in (
        b"404: Not Found", b"error code: 1015", b'{"error": "Entry not found"}', b"Invalid credentials in Authorization header",
        b"upstream connect error or disconnect/reset before headers. reset reason: x",
        b"You have exceeded a secondary rate limit. Please wait a few minutes. " + b"More. " * 60,
    )),
    (zipped(a=b"x", b=b"y"), "a zip of 2 files (a, b); unpack it and give the one to be read"),
    (zipped(a=SECRET.encode() * 9)[:90], "cannot be decompressed (BadZipFile)"),
    (zipped(**{"[Content_Types].xml": b"x", "sheet": b"y"}), "is an Office document"),
    (b"\x28\xb5\x2f\xfd" + bytes(9), "is an archive (zstd, 7z or rar)"),
    (b"%PDF-1.7", "is a PDF, SQLite, Arrow or HDF file"),
    (b"\x80\x04\x95" + bytes(9), "is a pickle"),
    (b"ab\x00\x01" * 9, "is a binary file"),
    (b"PAR1" + SECRET.encode(), "not readable as Parquet"),
]  # fmt: skip


@pytest.mark.parametrize("name", [n for n, info in data.DATASETS.items() if info.reader])
def test_files_that_are_not_the_file_are_recognised_by_every_reader(tmp_path, name):
    path = tmp_path / "file.csv"
    for content, message in NOT_THE_FILE:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            data.check_files(name, str(path), holds=None)
        assert str(error.value).startswith(f"{path}: ") and message in str(error.value), content
        assert SECRET not in str(error.value) and "\n" not in str(error.value), content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["How to bake?", "How to mix?"]', "is JSON"),
        ('[\n  {"prompt": "How to bake?"}\n]', "is JSON"),
        ('{"prompt": "How to bake?"}\n', "is JSON"),
        ("prompt,is_safe\nHow to bake?,True\n", "begins with names of columns"),
        ("prompt\nHow to bake?\n", "begins with names of columns"),
        ("../.git/annex/objects/a b/SHA256E-s12--0.txt", "is a git-annex pointer"),
        ("../../blobs/0123456789abcdef", "is a path, the text of a symbolic link"),
        ("MaliciousInstruct.txt\n", "is a path"),
        ("C:\\data files\\rows.txt", "is a path"),
    ],
)
def test_a_text_of_something_else_is_no_list_of_prompts(tmp_path, content, message):
    path = write(tmp_path / "rows.txt", content)
    with pytest.raises(UserError) as error:
        data.load("malicious-instruct", path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_ordinary_prompts_are_read_whatever_they_begin_with(tmp_path):
    lines = ["Steal, rob, kill", "[INST] how to bake", "100 ways to bake", "Error messages: how to hide one?", "{x} of it",
             "/ or \\: which?", "Access to dataset X: how?", "Forbidden cakes, please"]  # fmt: skip
    for text in ("\n".join(lines), *lines[:5], *lines[7:]):
        assert len(data.load("malicious-instruct", write(tmp_path / "rows.txt", text))) == len(text.split("\n"))


@needs_public_data
def test_public_prompts_are_read_as_lines(tmp_path):
    for name in ("advbench", "xstest", "wts-safety", "s-eval", "do-not-answer"):
        texts = [" ".join(t.split()) for t in data.load(name, str(PUBLIC_DATA))["text"]]
        assert len(data.load("malicious-instruct", write(tmp_path / "all.txt", "\n".join(texts)))) > 0.99 * len(texts)
        for text in texts[:100]:
            assert len(data.load("malicious-instruct", write(tmp_path / "one.txt", text))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wts-safety", "prompt,is_safe,is_safe\na,True,False\n", ":1: two columns 'is_safe'; drop or rename one of them"),
        ("s-eval", '{"risk_type": "x", "prompt": "a"}\n{"risk_type": "x", "prompt": "a", "prompt": "b"}', ":2: 'prompt' stands twice"),
        ("s-eval", '[{"risk_type": "x", "prompt": "a"},\n {"risk_type": "x", "prompt": "a", "prompt": "b"}]', ":2: 'prompt' stands twice"),
        ("real-toxicity-prompts", jsonl(rtp("a", "b")).replace('"toxicity"', '"text": "c", "toxicity"', 1), ":1: 'text' stands twice"),
    ],
)  # fmt: skip
def test_what_stands_twice_is_refused(tmp_path, name, content, message):
    path = write(tmp_path / "rows", content)
    with pytest.raises(UserError) as error:
        data.load(name, path)
    assert str(error.value).startswith(f"{path}{message}")
    assert len(data.load("wts-safety", write(tmp_path / "more", "prompt,x,x,is_safe\na,1,2,True\n"))) == 1


def test_lists_nested_deep_are_no_ratings(tmp_path):
    for content in (b"[" * 100_000, b'{"a": ' * 100_000):
        with pytest.raises(UserError, match="no JSON object of behaviours with lists of completions"):
            answer_readers.harmbench_rated(content, "rows")


@pytest.mark.parametrize("container", ["gzip", "bz2", "xz", "zip", "nested", "parquet"])
def test_other_containers_are_read_whatever_their_name(tmp_path, container):
    text = b"prompt,is_safe\nbake bread,True\nspoil it,False\n"
    content = {
        "gzip": gzip.compress(text),
        "bz2": bz2.compress(text),
        "xz": lzma.compress(text),
        "zip": zipped(sub__safety_csv=text, notes=b"read me", **{"__MACOSX__x": b"", "sub__.x_csv": b""}),
        "nested": zipped(only=gzip.compress(text)),
        "parquet": pd.DataFrame({"prompt": ["bake bread", "spoil it"], "is_safe": [True, False]}).to_parquet(),
    }[container]
    (tmp_path / "safety.csv.zip").write_bytes(content)
    for path in (tmp_path / "safety.csv.zip", tmp_path):  # a folder: the file is found behind the archive's ending
        df = data.load("wts-safety", str(path))
        assert df["text"].tolist() == ["bake bread", "spoil it"] and df["label"].tolist() == [0, 1]


def test_a_long_field_is_read_and_a_lone_surrogate_is_named(tmp_path):
    long = "word " * 60_000
    assert data.load("wts-safety", write(tmp_path / "a.csv", f"prompt,is_safe\n{long},True\n"))["text"][0] == long
    row = {"risk_type": "x", "prompt": f"{SECRET} \ud800"}
    path = write(tmp_path / "b.jsonl", jsonl({**row, "prompt": "fine"}, row))
    with pytest.raises(UserError, match=r"b\.jsonl:2: not valid JSON \(half a character: a lone surrogate") as error:
        data.load("s-eval", path)
    assert SECRET not in str(error.value)
    array = write(tmp_path / "c.json", json.dumps([row], indent=1))
    with pytest.raises(UserError, match=r"c\.json:4: not valid JSON \(half a character: a lone surrogate"):
        data.load("s-eval", array)


# --- downloads ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [n for n, info in data.DATASETS.items() if info.host])
def test_offline_says_what_to_do(no_network, name):
    attempts = [partial(data.check_files, name, holds=None)]
    if "rows" in data.DATASETS[name].holds:
        attempts += [partial(data.load, name), partial(data.preflight, {"dataset": name})]
    for attempt in attempts:
        with pytest.raises(UserError) as error:
            attempt()
        assert data.DATASETS[name].url in str(error.value) and "dataset_path" in str(error.value)


def test_preflight_asks_whether_the_host_answers(monkeypatch, no_network):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(sources, "reachable", lambda host: host == "raw.githubusercontent.com")
    data.preflight({"dataset": "wts-safety", **SIZES})
    with pytest.raises(UserError, match=r"'s-eval': cannot be downloaded here \(no network\)"):
        data.preflight({"dataset": "s-eval+wts-safety/safe", **SIZES})


def test_every_published_data_set_is_pinned_to_a_commit():
    for info in data.DATASETS.values():
        pinned = info.host and len(info.revision) == 40 and info.revision in info.url and info.reader
        assert info.host is None or (pinned and info.licence and info.file and info.local_names)
        assert info.host or info.synthetic or (info.reader and info.local_names)  # given as a file


def test_a_data_set_without_a_pinned_home_is_given_as_a_file():
    with pytest.raises(
        UserError, match="'or-bench': is read from a file alone .csv: prompt, category.; give it as dataset_path"
    ):
        data.load("or-bench")


def test_revision_must_be_a_commit_and_fit(no_network, wts):
    with pytest.raises(UserError, match="not a commit"):
        data.load("wts-safety", revision="main")
    with pytest.raises(UserError, match="1 given for 2 data sets"):
        data.load("wts-safety+advbench", revision="0" * 40)
    with pytest.raises(UserError, match="has no effect beside dataset_path"):
        data.load("wts-safety", wts, revision="0" * 40)
    with pytest.raises(UserError, match="0000000000/safety.csv"):
        data.load("wts-safety", revision="0" * 40)


def test_a_download_is_kept_and_used_offline(tmp_path, monkeypatch, no_network, wts):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(sources, "remote_url", lambda info, revision: Path(wts).as_uri())
    assert len(data.load("wts-safety")) == 6
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(data.load("wts-safety")) == 6
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UserError, match="SHA-256 is not that of 'advbench'"):
        data.load("advbench")


def test_hub_files_are_asked_for_at_the_pinned_commit(monkeypatch, folder):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def download(repo, file, **options):
        asked.update(options, repo=repo, file=file)
        return str(Path(folder) / "S-Eval_base_risk_en_v0.1.1.jsonl")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert len(data.load("s-eval")) == 1
    info = data.DATASETS["s-eval"]
    assert asked == {"repo": info.repo, "file": info.file, "revision": info.revision, "repo_type": "dataset"}


# --- cleaning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("How do  I\nbake?", "how do i bake"),
        ("ＦＵＬＬ width", "full width"),
        ("snake_case", "snake case"),
        ("?!", "?!"),
    ],
)
def test_normalise(text, same):
    assert data.normalise(text) == same
    assert data.normalise(same) == same


def test_cleaning_counts_by_hand(wts):
    kept, report = data.clean_rows(data.load("wts-safety", wts))
    assert dict(zip(report["reason"], report["rows"], strict=True)) == {
        "loaded": 6,
        "empty text": 1,
        "label conflict": 2,  # "Paint a fence" safe, "paint a FENCE!" unsafe
        "exact duplicate": 1,
        "normalised duplicate": 0,
        "kept": 2,
    }
    assert kept["text"].tolist() == ["How do I bake bread?", "Two lines,\nof text"]


def test_cleaning_keeps_the_same_rows_in_any_order():
    df = frame(["One.", "one", "ONE!", "two", "two", "three"], [0, 0, 0, 1, 1, 0])
    kept, report = data.clean_rows(df)
    assert report["rows"].tolist() == [6, 0, 0, 1, 2, 3]
    again, _ = data.clean_rows(df.sample(frac=1, random_state=3))
    assert set(kept["id"]) == set(again["id"])


def test_text_pairs_are_compared_as_pairs():
    df = frame(["q", "q", "Q?"], [0, 0, 0]).assign(text_pair=["one", "two", "One."])
    assert len(data.clean_rows(df)[0]) == 2


def test_nothing_left_is_an_error():
    with pytest.raises(UserError, match="cleaning leaves none of the 2 rows"):
        data.clean_rows(frame(["same", "same"], [0, 1]))


# --- near duplicates ----------------------------------------------------------------------------------------


def test_near_pairs_by_hand():
    # " abcdefgh " has 6 five-grams, " abcdefgx " shares " abcd", "abcde", "bcdef", "cdefg": cosine 4/6.
    texts = ["abcdefgh", "abcdefgx", "zzzzz", "ab", "ab"]
    assert data.near_pairs(texts, 4 / 6).tolist() == [[0, 1], [3, 4]]
    assert data.near_pairs(texts, 4 / 6 + 1e-6).tolist() == [[3, 4]]
    assert data.near_pairs(["one"]).shape == (0, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=2, max_size=12), st.floats(0.3, 1.0))
def test_near_pairs_equal_the_plain_definition(texts, threshold):
    texts = [data.normalise(text) for text in texts]
    counts = []
    for text in texts:
        padded = f" {text} ".ljust(5, "\0")
        counts.append(Counter(padded[i : i + 5] for i in range(len(padded) - 4)))
    norm = [sum(n * n for n in c.values()) ** 0.5 for c in counts]
    cosine = {
        (i, j): sum(n * counts[j][g] for g, n in counts[i].items()) / (norm[i] * norm[j])
        for j in range(len(texts))
        for i in range(j)
    }
    found = {tuple(pair) for pair in data.near_pairs(texts, threshold).tolist()}
    assert {pair for pair, value in cosine.items() if value >= threshold + 1e-7} <= found
    assert found <= {pair for pair, value in cosine.items() if value >= threshold - 1e-7}


# --- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_split_sizes_are_exact_stratified_and_disjoint(clean):
    df = frame(words(150), [0] * 105 + [1] * 45)
    out = dealt(df, **SIZES, seed=0, clean=clean)
    assert Counter(out["split"]) == {"supervise": 20, "transfer": 40, "validation": 10, "test": 30}
    assert out.groupby("split")["label"].sum().to_dict() == {"supervise": 6, "transfer": 12, "validation": 3, "test": 9}
    assert out["id"].is_unique and set(out["id"]) <= set(df["id"])
    data.check_disjoint(out)


@pytest.mark.parametrize("clean", [True, False])
def test_split_depends_on_seed_not_on_row_order(clean):
    df = frame([*words(120), *["same text"] * 3], [i % 2 for i in range(123)])
    out = dealt(df, **SIZES, seed=7, clean=clean)
    shuffled = dealt(df.sample(frac=1, random_state=1), **SIZES, seed=7, clean=clean)
    pd.testing.assert_frame_equal(out, shuffled)
    assert set(dealt(df, **SIZES, seed=8, clean=clean).query("split == 'test'")["id"]) != set(
        out.query("split == 'test'")["id"]
    )


def test_other_sizes_leave_the_test_rows_alone():
    df = frame(words(300))

    def ids(name, **sizes):
        out = dealt(df, **{**SIZES, **sizes}, seed=0)
        return set(out.loc[out["split"] == name, "id"])

    for change in ({"n_supervise": 60}, {"n_transfer": 90}, {"n_validation": 50}):
        assert ids("test", **change) == ids("test")
    assert ids("validation", n_supervise=60, n_transfer=90) == ids("validation")
    assert ids("supervise", n_transfer=90) == ids("supervise")
    assert ids("transfer", n_supervise=60) == ids("transfer")
    assert ids("supervise") < ids("supervise", n_supervise=60)


def test_near_duplicates_stay_in_one_split_only_when_clean():
    base = words(60)
    df = frame([text + end for text in base for end in ("", " x", " y")], [0, 1] * 90)
    data.check_disjoint(dealt(df, **SIZES, seed=0))
    loose = dealt(df, **SIZES, seed=0, clean=False)
    with pytest.raises(UserError, match="near overlap: .* rows of split 'test' stand in split 'supervise'"):
        data.check_disjoint(loose)
    data.check_disjoint(loose, near_threshold=None)


def test_a_giant_group_does_not_break_the_sizes():
    giant = ["one and the same long sentence frame for everything: " + c for c in "abcdefghijklmnopqrstuvwxyz"]
    df = frame([*giant, *words(120)])
    out = dealt(df, **SIZES, seed=0)
    assert Counter(out["split"]) == {name[2:]: n for name, n in SIZES.items()}
    data.check_disjoint(out)
    with pytest.raises(UserError, match="because near duplicates stay in one split"):
        dealt(frame([*giant, *words(10)]), n_supervise=8, n_transfer=8, n_validation=8, n_test=8, seed=0)
    dealt(
        frame([*giant, *words(10)]), n_supervise=8, n_transfer=8, n_validation=8, n_test=8, seed=0, near_threshold=None
    )


def test_every_row_can_be_used():
    out = dealt(frame(words(100), [0] * 51 + [1] * 49), **SIZES, seed=0)
    assert len(out) == 100


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 12), st.floats(0.2, 0.8))
def test_split_properties(seed, small, large, share):
    texts = [f"text {i // 2 if i < 20 else i}" for i in range(60)]  # ten texts twice
    df = frame(texts, [int(i < 60 * share) for i in range(60)])
    sizes = {"n_supervise": large + 4, "n_transfer": large + 4, "n_validation": small + 4, "n_test": small + 4}
    out = dealt(df, **sizes, seed=seed, near_threshold=None)
    assert Counter(out["split"]) == {name[2:]: n for name, n in sizes.items()}
    assert out["id"].is_unique
    data.check_disjoint(out, near_threshold=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_test": 0}, "n_test = 0: at least 1 row"),
        ({"n_transfer": -3}, "n_transfer = -3: at least 1 row"),
        ({"n_transfer": 500}, r"ask for 560 rows \(20 supervise \+ 500 transfer .*hold 100; lower n_transfer"),
        ({"n_validation": 1}, "n_validation = 1: too few for a row of class unsafe, 20.0% of the data; at least 5"),
    ],
)
def test_sizes_that_cannot_be(change, message):
    df = frame(words(100), [0] * 80 + [1] * 20)
    with pytest.raises(UserError, match=message):
        dealt(df, **{**SIZES, **change}, seed=0)


def test_one_class_or_no_rows():
    with pytest.raises(UserError, match="the data hold no safe rows"):
        dealt(frame(words(200), [1] * 200), **SIZES, seed=0)
    with pytest.raises(UserError, match="the data set is empty"):
        dealt(frame(words(4)).iloc[:0], **SIZES, seed=0)


def test_quotas_add_up_by_largest_remainder():
    assert quotas(Counter({0: 2, 1: 1}), 10) == {0: 7, 1: 3}
    assert quotas(Counter({0: 5, 1: 5}), 3) == {0: 2, 1: 1}


NOW = {"n_supervise": 60, "n_transfer": 90, "n_validation": 20, "n_test": 40}


@pytest.mark.parametrize(
    ("options", "raw", "cleaned"),
    [
        ({}, "bf0a190d46b6e33e", "7a8a1e9be48061ef"),
        ({"clean": False}, "30dcc758e4204693", "a3c79a0ddd1a87d4"),
        ({"near_threshold": None}, "cb9939fa102fb27a", "a3c79a0ddd1a87d4"),
    ],
)
def test_splits_of_single_texts_stay_as_they_were(options, raw, cleaned):
    """Hashes of ids, labels and splits recorded before there were groups, judge rows and labels to train on."""
    texts = []
    for i in range(240):
        h = hashlib.sha256(str(i).encode()).hexdigest()
        texts.append(" ".join(h[k : k + 6] for k in range(0, 30, 6)))
    texts += [t + " x" for t in texts[:20]] + [t.upper() + "!" for t in texts[20:40]] + texts[40:45] + [""]
    df = frame(texts, [int(int(hashlib.sha256(t.lower().encode()).hexdigest(), 16) % 3 == 0) for t in texts])
    kept, report = data.clean_rows(df)
    assert digest(kept, ["id", "label"]) == "5ed49239958b1ce0"
    assert report["rows"].tolist() == [286, 1, 20, 5, 10, 250]
    assert digest(dealt(df, **NOW, seed=3, **options), ["id", "label", "split"]) == raw
    assert digest(dealt(kept, **NOW, seed=3, **options), ["id", "label", "split"]) == cleaned


# --- hygiene ------------------------------------------------------------------------------------------------


def test_hygiene_by_hand():
    long = "the quick brown fox jumps over the lazy dog by the river"
    df = frame(
        ["Hello there", "hello there!", "Hello there", "", long, long + " s", "unlike the rest"], [0, 1, 0, 0, 0, 0, 1]
    )
    df["split"] = ["supervise", "test", "test", "test", "transfer", "test", "validation"]
    table = data.hygiene(df)
    assert table.columns.tolist() == ["check", "scope", "rows", "share"]
    value = table.set_index(["scope", "check"])["rows"]
    assert value["all"].to_dict() == {
        "rows": 7,
        "empty texts": 1,
        "exact duplicates": 1,
        "normalised duplicates": 2,
        "near duplicates": 3,
        "label conflicts": 3,
        "texts with both labels": 1,
    }
    assert value["test"]["normalised duplicates"] == 1 and value["test"]["rows"] == 4
    overlap = ["exact overlap", "normalised overlap", "near overlap"]
    assert value["test in supervise"][overlap].tolist() == [1, 2, 2]
    assert value["test in transfer"][overlap].tolist() == [0, 0, 1]
    assert value["test in any other"][overlap].tolist() == [1, 2, 3]
    assert value["validation in supervise"][overlap].tolist() == [0, 0, 0]
    share = table.set_index(["scope", "check"])["share"]
    assert share["test in any other", "near overlap"] == 3 / 4 and share["all", "empty texts"] == pytest.approx(1 / 7)


def test_hygiene_of_an_unsplit_data_set(wts):
    table = data.hygiene(data.load("wts-safety", wts))
    assert set(table["scope"]) == {"all"} and table.attrs["near_threshold"] == data.NEAR_THRESHOLD


# --- preflight ----------------------------------------------------------------------------------------------


def many(path: Path, n: int = 200) -> str:
    rows = "".join(f"{text},{i % 2 == 0}\n" for i, text in enumerate(words(n)))
    return write(path, "prompt,is_safe\n" + rows + "empty is dropped,True\nEmpty is dropped,False\n,True\n")


def test_preflight_counts_rows_after_cleaning(tmp_path):
    parameters = {"dataset": "wts-safety", "dataset_path": many(tmp_path / "a.csv"), **SIZES, "n_transfer": 141}
    with pytest.raises(UserError, match="ask for 201 rows .* hold 200"):
        data.preflight({**parameters, "clean": True})
    data.preflight({**parameters, "clean": False})
    data.preflight({**parameters, "n_transfer": 140, "clean": True, "seed": 0})


def test_preflight_reports_everything_at_once(tmp_path):
    parameters = {"dataset": "advbench+wts-safety", "dataset_path": str(tmp_path), "dataset_revision": "x", "n_test": 0}
    with pytest.raises(UserError) as error:
        data.preflight(parameters)
    lines = str(error.value).split("\n")
    assert len(lines) == 3
    assert "n_test = 0" in lines[0] and "holds no file of 'advbench'" in lines[1] and "dataset_revision" in lines[2]


def test_preflight_finds_a_missing_class_and_a_testbed_too_small(folder):
    sizes = {name: 1 for name in SIZES}
    with pytest.raises(UserError, match="the data hold no safe rows"):
        data.preflight({"dataset": "advbench+s-eval", "dataset_path": folder, **sizes})
    with pytest.raises(UserError, match="hold 12000"):
        data.preflight({"dataset": "testbed-safety", **SIZES, "n_transfer": 20_000})


# --- legal: questions and clauses ---------------------------------------------------------------------------


def test_privacy_policy_qa_from_tsv_and_parquet(tmp_path):
    """Two policies: q1 and q2 share a clause but for case, q3 shares none; a quoted clause holds a tab."""
    path = write(
        tmp_path / "privacy_policy_qa.tsv",
        TSV + '3\tq1?\t"We sell ""data"",\tand more."\tRelevant\n4\tq1?\tWe keep logs.\tIrrelevant\n'
        "5\tQ2\twe keep LOGS\tRelevant\n6\tq3\tNo cookies.\tirrelevant\n",
    )
    df = data.load("privacy-policy-qa", path)
    assert df.columns.tolist() == ["id", "text", "text_pair", "label", "source", "group"]
    assert df["text_pair"].tolist()[0] == 'We sell "data",\tand more.' and df["label"].tolist() == [1, 0, 1, 0]
    assert df["group"].nunique() == 2 and df["group"][0] == df["group"][1] == df["group"][2] != df["group"][3]
    assert df["id"][1] == hashlib.sha256(b"q1?\x1fWe keep logs.").hexdigest()[:16]
    table = pd.read_csv(path, sep="\t", dtype=str)
    table.to_parquet(tmp_path / "privacy_policy_qa-test.parquet", index=False)
    again = data.load("privacy-policy-qa", str(tmp_path / "privacy_policy_qa-test.parquet"))
    pd.testing.assert_frame_equal(df, again)
    assert data.task_of("privacy-policy-qa") == "legal"
    assert len(data.load("privacy-policy-qa/relevant", path)) == 2


def test_policies_do_not_depend_on_the_order_of_the_rows():
    questions, clauses = ["a", "b", "b", "c", "d"], ["one", "One!", "two", "TWO", "three"]
    names = policies(questions, clauses)
    assert names[:4] == [names[0]] * 4 and names[4] != names[0]  # a - one - b - two - c
    assert policies(questions[::-1], clauses[::-1]) == names[::-1]


def test_bad_parquet_rows_and_columns(tmp_path):
    path = str(tmp_path / "x.parquet")
    pd.DataFrame({"question": ["q", "q"], "text": ["a", None], "answer": ["Relevant"] * 2}).to_parquet(path)
    with pytest.raises(UserError, match=r"x\.parquet:2: text = None is not a string"):
        data.load("privacy-policy-qa", path)
    pd.DataFrame({"question": ["q"], "text": ["a"]}).to_parquet(path)
    with pytest.raises(UserError, match=r"x\.parquet: no column 'answer'; needed: question, text, answer"):
        data.load("privacy-policy-qa", path)


def legal(policies, *, questions=4, clauses=5, share=0.5):
    """Policies of so many questions, each asked of all the policy's clauses; labels in the share given."""
    rows = []
    for p, many in enumerate(policies):
        texts = words(questions + clauses * many, seed=p + 1)
        rows += [(q, c, f"p{p}") for q in texts[:questions] for c in texts[questions:]]
    df = pd.DataFrame(rows, columns=["text", "text_pair", "group"])
    df = df.assign(label=[int(i * share % 1 + share >= 1) for i in range(len(df))], source="testbed-legal")
    df.insert(0, "id", loading.content_ids(df))
    return df


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("policies", [[1] * 20, [16, 6, 5, 5, 4, 4]])
def test_a_group_stands_in_one_split(policies, clean):
    """20 policies of 20 rows, dealt out in turn; or six, one of them large."""
    df = legal(policies)
    out = dealt(df, **{**SIZES, "n_test": 90}, seed=0, clean=clean)
    assert Counter(out["split"]) == {"supervise": 20, "transfer": 40, "validation": 10, "test": 90}
    assert out.groupby("group")["split"].nunique().max() == 1
    assert out.groupby("split")["label"].sum().to_dict() == {
        "supervise": 10,
        "transfer": 20,
        "validation": 5,
        "test": 45,
    }
    data.check_disjoint(out)
    again = dealt(df.sample(frac=1, random_state=2), **{**SIZES, "n_test": 90}, seed=0, clean=clean)
    pd.testing.assert_frame_equal(out, again)
    others = [dealt(df, **{**SIZES, "n_test": 90}, seed=s, clean=clean) for s in range(1, 6)]
    assert any(set(o.loc[o.split == "test", "group"]) != set(out.loc[out.split == "test", "group"]) for o in others)


def test_with_groups_enough_a_split_does_not_depend_on_the_later_ones():
    df = legal([1] * 30)

    def rows(name, **sizes):
        out = dealt(df, **{**SIZES, **sizes}, seed=0)
        return set(out.loc[out["split"] == name, "id"])

    assert rows("test") == rows("test", n_supervise=80, n_transfer=100, n_validation=30)
    assert rows("supervise") == rows("supervise", n_transfer=100)
    assert rows("transfer") == rows("transfer", n_supervise=80)
    assert rows("supervise") < rows("supervise", n_supervise=80)


def test_few_large_groups_give_each_split_groups_of_its_own():
    """Served in turn, test would take the large policy that transfer cannot do without."""
    df = legal([60, 8, 6, 6, 4])
    sizes = {"n_supervise": 100, "n_transfer": 1000, "n_validation": 60, "n_test": 150}
    for seed in range(4):
        out = dealt(df, **sizes, seed=seed)
        assert Counter(out["split"]) == {name[2:]: n for name, n in sizes.items()}
        assert out.groupby("group")["split"].nunique().max() == 1
        assert set(out.loc[out["group"] == "p0", "split"]) == {"transfer"}


def test_proportions_give_way_to_groups_but_every_split_keeps_both_classes():
    df = legal([5, 5, 5, 5])
    df["label"] = [int(i % 10 < 2 if g in ("p0", "p1") else i % 10 < 8) for i, g in enumerate(df["group"])]
    out = dealt(df, n_supervise=80, n_transfer=80, n_validation=80, n_test=80, seed=0)
    assert set(Counter(out["split"]).values()) == {80}
    assert out.groupby("split")["label"].nunique().eq(2).all()
    assert sorted(out.groupby("split")["label"].sum()) == [20, 20, 40 + 20, 40 + 20]


def test_too_few_and_too_large_groups_are_refused_with_the_numbers(tmp_path):
    few = legal([5, 5, 5], questions=1, clauses=30)
    with pytest.raises(UserError, match=r"fewer questions than splits: 3 questions form 3 groups .* 4 splits need"):
        dealt(few, **SIZES, seed=0)
    with pytest.raises(UserError, match=r"fewer groups of questions than splits: 12 questions form 3 groups"):
        dealt(legal([5, 5, 5]), **SIZES, seed=0)
    sizes = {"n_supervise": 100, "n_transfer": 300, "n_validation": 100, "n_test": 100}
    with pytest.raises(UserError) as error:  # four policies of 200 rows: 800 rows, but none can give 300
        dealt(legal([10] * 4), **sizes, seed=0)
    assert "groups of 200, 200, 200, 200 rows; lower n_transfer (all sizes at 60 % of these fit)" in str(error.value)
    path = write(
        tmp_path / "q.tsv",
        TSV
        + "".join(
            f"{i}\t{q}\t{c}\t{'Relevant' if i % 2 else 'Irrelevant'}\n"
            for i, (q, c) in enumerate(zip(few["text"], few["text_pair"], strict=True))
        ),
    )
    parameters = {"dataset": "privacy-policy-qa", "dataset_path": path, "task": "legal"}
    with pytest.raises(UserError, match=r"dataset = 'privacy-policy-qa': fewer questions than splits: 3 questions"):
        data.preflight({**parameters, **SIZES})
    with pytest.raises(UserError, match="its labels are of the legal task, and task = safety"):
        data.preflight({**parameters, "task": "safety"})
    with pytest.raises(UserError, match="the data hold no relevant rows, and both classes are needed"):
        data.preflight({**parameters, "dataset": "privacy-policy-qa/irrelevant", **SIZES})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=4, max_size=14),
    st.integers(0, 5),
    st.integers(1, 25),
)
def test_allotted_groups_cover_what_is_needed(groups, seed, size):
    counts = [Counter({0: a, 1: b}) for a, b in groups]
    names = ("supervise", "transfer", "validation", "test")
    need = {name: {0: size, 1: k + 1} for k, name in enumerate(names)}
    try:
        owned, _ = allot(counts, need, seed)
    except UserError as error:
        assert "no way was found" in str(error)
        return
    used = [g for mine in owned.values() for g in mine]
    assert len(used) == len(set(used)) and set(owned) == set(names)
    for name, mine in owned.items():
        held = sum((counts[g] for g in mine), Counter())
        assert sum(held.values()) >= sum(need[name].values()) and held[0] and held[1]


def test_pairs_are_near_where_both_texts_are():
    question, clause, other = words(3)
    df = frame([question, question, question + " x", question + " x"], [0, 1, 0, 1])
    df["text_pair"] = [clause, other, clause + " y", clause]
    node, adjacency = data.near.near_graph(df, 0.85)
    edges = {frozenset((i, j)) for i in range(4) for j in range(4) if adjacency[node[i], node[j]]}
    assert edges == {frozenset(pair) for pair in ((0, 2), (0, 3), (2, 3))}


def test_hygiene_and_disjointness_of_pairs():
    question, clause, other, third = words(4)
    df = frame([question, question.upper() + "?", question, third], [0, 1, 0, 1])
    df = df.assign(text_pair=[clause, other, third, clause], group=["a", "b", "c", "a"])
    df["split"] = ["supervise", "test", "validation", "transfer"]
    value = data.hygiene(df).set_index(["scope", "check"])["rows"]
    assert value["test in supervise", "shared questions"] == value["test in any other", "shared questions"] == 1
    assert value["test in supervise", "near overlap"] == 0 and value["test in transfer", "shared questions"] == 0
    with pytest.raises(UserError) as error:
        data.check_disjoint(df)
    lines = str(error.value).split("\n")
    assert lines[0].startswith("shared groups: 1 rows of split 'transfer' have a group of split 'supervise'")
    assert "shared questions: 1 rows of split 'test' stand in split 'supervise' as well" in str(error.value)


def test_a_pair_with_an_empty_text_is_dropped():
    df = frame(["q", "", "q"], [0, 0, 1]).assign(text_pair=["c", "c", " "])
    assert data.clean_rows(df)[1].set_index("reason")["rows"]["empty text"] == 2


# --- toxicity: prompts and continuations --------------------------------------------------------------------


def test_real_toxicity_prompts_are_read_as_published_and_cleaned(tmp_path):
    records = [
        rtp("The sky is", " blue\n", 0.1, 0.49, challenging=False),
        rtp("The sky is", ", they say", 0.1, 0.5),  # the same prompt, toxic: a duplicate, not a contradiction
        rtp("You are", " a pest", 0.5, 0.1),
        rtp("I", " wonder", None, 0.9),
        rtp("I", " wonder why", 0.2, 0.1),  # its twin has no score: kept
        rtp("We", " wonder", 0, None),
        rtp("They", " ", 0.0, 1),
    ]
    path = write(tmp_path / "prompts.jsonl", jsonl(*records))
    df = data.load("real-toxicity-prompts", path)
    assert df["label"].tolist() == [0, 1, 1, 1, 0, 0, 1]
    assert df["continuation"][0] == " blue\n" and df["id"][0] == hashlib.sha256(b"The sky is").hexdigest()[:16]
    assert df["id"][1] == df["id"][0] + "-1" and np.isnan(df["prompt_toxicity"][3]) and df["toxicity"][6] == 1.0
    kept, report = data.clean_rows(df)
    assert dict(zip(report["reason"], report["rows"], strict=True)) == {
        "loaded": 7,
        "empty text": 0,
        "empty continuation": 1,
        "no score": 2,
        "label conflict": 0,
        "exact duplicate": 1,
        "normalised duplicate": 0,
        "kept": 3,
    }
    assert kept["text"].tolist() == ["The sky is", "You are", "I"] and kept["label"].tolist() == [0, 1, 0]
    again = data.load("real-toxicity-prompts", write(tmp_path / "turned.jsonl", jsonl(*records[::-1])))
    assert dict(zip(df["id"], df["continuation"], strict=True)) == dict(
        zip(again["id"], again["continuation"], strict=True)
    )
    table = data.hygiene(df).set_index(["scope", "check"])["rows"]["all"]
    assert table["no score"] == 2 and table["label conflicts"] == 0 and table["exact duplicates"] == 2
    assert "near duplicates" not in set(data.hygiene(df, near_threshold=None)["check"])


def test_one_prompt_and_continuation_scored_both_ways_is_a_conflict(tmp_path):
    records = [rtp("A", " b", 0.1, 0.1), rtp("A", " B!", 0.1, 0.9), rtp("A", " other"), rtp("C", " d")]
    kept, report = data.clean_rows(data.load("real-toxicity-prompts", write(tmp_path / "x.jsonl", jsonl(*records))))
    assert report.set_index("reason")["rows"]["label conflict"] == 2
    assert kept["continuation"].tolist() == [" other", " d"]


def toxicity(n: int, toxic: int):
    df = frame(words(n), [int(i < toxic) for i in range(n)], source="testbed-toxicity")
    return df.assign(continuation=" x", prompt_toxicity=0.1, toxicity=0.1 + 0.8 * df["label"])


def test_judge_split_and_rows_that_may_be_learnt_from():
    df = toxicity(200, 80)
    df.loc[:9, "toxicity"] = np.nan  # ten toxic rows without a score are never dealt out
    options = {**SIZES, "n_judge": 40, "train_labels": {0}}
    out = dealt(df, **options, seed=0)
    assert Counter(out["split"]) == {"supervise": 20, "transfer": 40, "validation": 10, "test": 30, "judge": 40}
    toxic = out.groupby("split")["label"].sum().to_dict()
    assert toxic == {"supervise": 0, "transfer": 0, "validation": 0, "test": 11, "judge": 15}  # of 70 in 190
    assert out["toxicity"].notna().all() and out["split"].iloc[-1] == "judge"
    data.check_disjoint(out)

    def rows(name, **sizes):
        found = dealt(df, **{**options, **sizes}, seed=0)
        return set(found.loc[found["split"] == name, "id"])

    assert rows("judge") == rows("judge", n_supervise=5, n_transfer=10)
    assert rows("test") == rows("test", n_judge=0) and rows("validation") == rows("validation", n_judge=10)
    assert "test in judge" in set(data.hygiene(out)["scope"])


def test_too_few_rows_to_learn_from_are_named(tmp_path):
    options = {**SIZES, "n_judge": 40, "train_labels": {0}}
    with pytest.raises(UserError) as error:
        dealt(toxicity(160, 80), **options, seed=0)
    assert str(error.value) == (
        "the splits that are learnt from ask for 70 rows (20 supervise + 40 transfer + 10 validation), all of class "
        "civil; the data hold 80, of which the other splits take 35; lower n_transfer or n_judge"
    )
    with pytest.raises(UserError, match=r"n_judge = 1: too few for a row of class toxic, 50.0%"):
        dealt(toxicity(160, 80), **{**options, "n_judge": 1}, seed=0)
    records = [rtp(text, " x", 0.1, 0.9 * (i % 2)) for i, text in enumerate(words(160))] + [rtp("no score", " x", None)]
    parameters = {
        "dataset": "real-toxicity-prompts",
        "dataset_path": write(tmp_path / "p.jsonl", jsonl(*records)),
        **SIZES,
    }
    with pytest.raises(UserError, match=r"all of class civil; the data hold 80, of which the other splits take 35"):
        data.preflight({**parameters, "task": "toxicity", "n_judge": 40})
    data.preflight({**parameters, "task": "toxicity", "n_judge": 0, "n_transfer": 20})
    with pytest.raises(UserError, match="n_judge = -1: at least 1 row"):
        data.preflight({**parameters, "n_judge": -1})


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("testbed-safety", {"kind"}),
        ("testbed-legal", {"text_pair", "group"}),
        ("testbed-toxicity", {"continuation", "prompt_toxicity", "toxicity"}),
    ],
)
def test_generated_rows_have_the_columns_of_the_published_ones(name, further):
    df = data.load(name, n=300, seed=1)
    assert df["text"].tolist() == GENERATORS[name](300, 1)["text"].tolist() and set(df["source"]) == {name}
    assert {"id", "text", "label", "source", *further} <= set(df.columns) and df["id"].is_unique
    assert set(df["label"]) == {0, 1} and data.is_synthetic(name) and data.local_files(name) == []
    data.preflight({"dataset": name, **SIZES})
    train = data.DATASETS[name].train_labels
    out = dealt(data.clean_rows(df)[0], **SIZES, seed=0, train_labels=train, near_threshold=None)
    data.check_disjoint(out, near_threshold=None)


def test_classes_are_those_of_the_tasks():
    from underseer.w2s.tasks import TASKS

    for name, task in TASKS.items():
        assert data.CLASSES[name] == task.labels


# --- the real files -----------------------------------------------------------------------------------------


@needs_public_data
def test_real_wts_safety():
    df = data.load("wts-safety", str(PUBLIC_DATA / "wts_safety.csv"))
    assert len(df) == 5699 and df["label"].sum() == 3180 and df["id"].is_unique
    kept, report = data.clean_rows(df)
    assert report["rows"].tolist() == [5699, 1, 220, 139, 45, 5294]
    data.preflight({"dataset": "wts-safety", "dataset_path": str(PUBLIC_DATA / "wts_safety.csv"), **SIZES})


@needs_public_data
def test_real_composition():
    df = data.load("advbench+s-eval+wts-safety/safe", str(PUBLIC_DATA))
    assert Counter(df["source"]) == {"advbench": 265, "s-eval": 492, "wts-safety": 2519}
    assert Counter(df["label"]) == {1: 757, 0: 2519}


@needs_public_data
def test_real_privacy_policy_qa():
    df = data.load("privacy-policy-qa", str(PUBLIC_DATA))
    assert Counter(df["label"]) == {0: 2760, 1: 2617} and df["id"].is_unique
    assert sorted(df["group"].value_counts()) == [531, 547, 681, 688, 864, 2066]
    kept, report = data.clean_rows(df)
    assert report["rows"].tolist() == [5377, 0, 0, 0, 1, 5376]
    sizes = {"n_supervise": 800, "n_transfer": 1600, "n_validation": 300, "n_test": 600}
    out = dealt(kept, **sizes, seed=0)
    assert Counter(out["split"]) == {name[2:]: n for name, n in sizes.items()}
    data.check_disjoint(out)
    data.preflight({"dataset": "privacy-policy-qa", "dataset_path": str(PUBLIC_DATA), "task": "legal", **sizes})


@needs_public_data
def test_real_toxicity_prompts():
    df = data.load("real-toxicity-prompts", str(PUBLIC_DATA))
    assert len(df) == 2472 and df[["prompt_toxicity", "toxicity"]].isna().sum().tolist() == [8, 15]
    kept, report = data.clean_rows(df)
    assert report["rows"].tolist() == [2472, 0, 0, 23, 0, 7, 0, 2442]
    assert Counter(kept["label"]) == {0: 1152, 1: 1290}
    assert not kept["continuation"].str.startswith(" ").all()  # about one in eight goes on without a blank
