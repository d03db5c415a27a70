"""Judges: specifications, failures that are counted, classifiers, trained scorers, Perspective against a local stub,
calibration by hand."""

from __future__ import annotations

import datetime
import json
import math
import sqlite3
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stub_server import StubServer
from underseer import judges
from underseer.cost import Ledger
from underseer.engines import Inference
from underseer.engines.client import GARBAGE, Retries
from underseer.engines.kept import Kept
from underseer.errors import UserError
from underseer.judges import base, calibration, classifiers, labelled, opening, perspective, trained
from underseer.judges.classifier import MEANING
from underseer.judges.perspective import PerspectiveJudge
from underseer.models import loading
from underseer.training.settings import TrainSettings

TINY = "scratch:gpt2?n_layer=1&n_embd=16&n_head=2&n_positions=64&vocab_size=280"
KEY = "a-key-that-nobody-may-see"
SETTINGS = TrainSettings(
    epochs=8, batch_size=8, learning_rate=1e-2, eval_steps=10, max_length=24, device="cpu", precision="fp32", progress=False
)  # fmt: skip
HOW = {"inference": Inference("cpu", "fp32", 4, 24)}


def opened(spec, **how):
    """A judge of toxicity."""
    return judges.open_judge(spec, "toxicity", judges.Opening(**how))


def _rows(n, seed=0):
    """Prompts and continuations whose score is high where the word 'vile' stands in them."""
    rng = np.random.default_rng(seed)
    filler = ["river", "lamp", "bread", "stone", "song"]

    def text(bad):
        return " ".join([*rng.choice(filler, 3), *["vile"] * bad, *rng.choice(filler, 2)])

    bad = rng.integers(0, 2, (n, 2))
    return pd.DataFrame(
        {
            "id": [f"{i:04x}" for i in range(n)],
            "text": [text(b) for b in bad[:, 0]],
            "continuation": [f" {text(b)}" for b in bad[:, 1]],
            "prompt_toxicity": np.where(bad[:, 0], 0.9, 0.1),
            "toxicity": np.where(bad[:, 1], 0.9, 0.1),
            "split": "judge",
        }
    )


# ------------------------------------------------------------------------------------------------------- specifications


@pytest.mark.parametrize(
    "spec, kind, model, options",
    [
        ("trained:testbed:gpt2-xs", "trained", "testbed:gpt2-xs", {}),
        ("trained:scratch:gpt2?n_layer=2", "trained", "scratch:gpt2?n_layer=2", {}),
        ("trained:org/encoder", "trained", "org/encoder", {}),
        ("classifier:org/toxic@v1?label=toxic", "classifier", "org/toxic@v1", {"label": "toxic"}),
        ("classifier:./folder", "classifier", "./folder", {}),
        ("classifier:org/x?label=no&reads=answer", "classifier", "org/x", {"label": "no", "reads": "answer"}),
        ("classifier:org/x?output=probability", "classifier", "org/x", {"output": "probability"}),
        ("reward:org/rm", "reward", "org/rm", {}),
        ("rubric:testbed:chat", "rubric", "testbed:chat", {}),
        ("guard:meta-llama/Llama-Guard-3-1B", "guard", "meta-llama/Llama-Guard-3-1B", {}),
        ("perspective", "perspective", "None", {}),
        ("strings", "strings", "None", {}),
        (" oracle ", "oracle", "None", {}),
    ],
)
def test_parse(spec, kind, model, options):
    found = judges.parse(spec)
    assert (found.kind, str(found.model), dict(found.options)) == (kind, model, options)
    assert judges.parse(str(found)) == found


@pytest.mark.parametrize(
    "spec, says",
    [
        ("perspectiv", "perspectiv.*did you mean 'perspective'"),
        ("gard:x", "gard:x.*did you mean 'guard'"),
        ("", "allowed are classifier:.*trained:MODEL"),
        ("trained", "names no model"),
        ("guard", "names no model; write guard:MODEL"),
        ("trained:scratch:gtp2", "gtp2.*did you mean 'gpt2'"),
        ("classifier:org/name?labels=x", "unknown option 'labels=x'.*label=NAME"),
        ("classifier:org/x?reads=prompt", "unknown option 'reads=prompt'.*label=NAME.*reads=answer"),
        ("classifier:org/name?label=", "unknown option"),
        ("classifier:scratch:gpt2", "already trained.*trained:scratch:gpt2"),
        ("reward:scratch:gpt2", "already trained.*trained:scratch:gpt2"),
        ("rubric:scratch:llama", "already trained"),
        ("perspective:v2", "takes no model"),
        ("strings:x", "takes no model"),
    ],
)
def test_parse_names_what_is_wrong(spec, says):
    with pytest.raises(UserError, match=f"(?s){says}"):
        judges.parse(spec)


def test_a_name_shows_no_folder_of_this_machine():
    assert judges.parse("classifier:/home/me/models/toxic?label=hate").name == "classifier:toxic?label=hate"
    assert judges.parse("trained:org/x").name == "trained:org/x"


# ------------------------------------------------------------------------------------------------------------ preflight


@pytest.mark.parametrize(
    "parameters, says",
    [
        ({"reporting_judge": "oracle", "dataset": "wts-safety"}, "the testbed's world alone, not wts-safety"),
        ({"reporting_judge": "oracle", "dataset": "testbed-safety+advbench"}, "not advbench"),
        ({"reporting_judge": "orakel"}, "reporting_judge = 'orakel': .*did you mean 'oracle'"),
    ],
)
def test_preflight_refuses(parameters, says):
    with pytest.raises(UserError, match=f"(?s){says}"):
        judges.preflight(parameters)


@pytest.mark.parametrize(
    "parameters, roles",
    [
        ({"training_judge": "oracle", "reporting_judge": "nobody"}, opening.OF_TEXTS),
        ({"training_judge": "oracle", "helpfulness_judge": "nobody"}, opening.OF_EXCHANGES),
        ({"training_judge": "strings", "refusal_judge": "guard:org/x"}, opening.OF_EXCHANGES),
    ],
)
def test_preflight_finds_every_mistake_at_once(parameters, roles):
    with pytest.raises(UserError) as caught:
        judges.preflight(parameters, roles)
    assert len(str(caught.value).split("\n")) == 2


def test_preflight_lets_pass_what_is_right():
    given = {"training_judge": "trained:scratch:gpt2", "reporting_judge": "oracle", "dataset": "testbed-safety"}
    assert judges.preflight({**given, "n_judge": 100}) == []
    assert judges.preflight({}) == judges.preflight({"training_judge": None}) == []
    # two trained judges of different models learn from different rows
    assert judges.preflight({**given, "reporting_judge": "trained:scratch:gpt2?n_layer=2"}) == []


def test_preflight_of_perspective(monkeypatch):
    given = {"reporting_judge": "perspective"}
    monkeypatch.setattr(perspective, "_today", lambda: datetime.date(2026, 12, 31))
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    with pytest.raises(UserError, match="PERSPECTIVE_API_KEY.*trained:MODEL"):
        judges.preflight(given)
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)
    (remark,) = judges.preflight(given)
    assert "31 December 2026" in remark
    monkeypatch.setattr(perspective, "_today", lambda: datetime.date(2027, 1, 1))
    with pytest.raises(UserError, match="ended on 31 December 2026.*trained:MODEL"):
        judges.preflight(given)


@pytest.mark.parametrize(
    "url", ["ftp://x", "https://", "https://me:secret@x/a", "https://x/a?key=secret", "no address", "https://[x"]
)
def test_an_unusable_address_is_refused_without_showing_it(monkeypatch, url):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", KEY)
    monkeypatch.setenv("PERSPECTIVE_API_URL", url)
    monkeypatch.setattr(perspective, "_today", lambda: datetime.date(2026, 1, 1))
    with pytest.raises(UserError, match="PERSPECTIVE_API_URL") as caught:
        judges.preflight({"reporting_judge": "perspective"})
    assert "secret" not in str(caught.value)


# ----------------------------------------------------------------------------------------------- failures are counted


def test_what_is_no_score_is_a_failure_with_a_reason():
    judge = types.SimpleNamespace(name="j", version="1")
    replies = [0.25, 1, "call failed: HTTP 429", None, math.nan, 1.01, -0.1, True, math.inf, [0.5], np.float32(0.5)]
    scores = base.collect(replies, judge)
    assert np.isnan(scores.values).tolist() == [False, False, *[True] * 8, False]
    assert scores.values[[0, 1, 10]].tolist() == [0.25, 1.0, 0.5]
    assert judges.failure_counts(scores) == {base.NOT_A_SCORE: 7, "call failed: HTTP 429": 1}


def test_empty_texts_are_not_shown_and_equal_texts_are_shown_once():
    seen = []

    def reply(texts):
        seen.extend(texts)
        return [len(text) / 10 for text in texts]

    judge = types.SimpleNamespace(name="j", version="1")
    scores = base.judge_full(["", "abc", None, " \n", " abc\n", "b", "abc"], reply, judge)
    assert seen == ["abc", "b"]
    assert scores.values[[1, 4, 5, 6]].tolist() == [0.3, 0.3, 0.1, 0.3]
    assert judges.failure_counts(scores) == {"empty text": 3}
    assert base.judge_full([], reply, judge).values.shape == (0,)
    assert judges.failure_counts(base.judge_full([""], reply, judge)) == {"empty text": 1}


def test_scores_without_value_and_without_reason_cannot_be_made():
    for values, failures in (([0.5, np.nan], [None, None]), ([0.5], ["why"]), ([0.5], []), ([1.5], [None])):
        with pytest.raises(ValueError):
            judges.Scores(np.asarray(values), failures, "j", "1")


def test_the_oracle_is_a_judge_but_not_one_to_be_opened(monkeypatch):
    from underseer.judges.oracle import Oracle
    from underseer.testbed import oracle

    monkeypatch.setattr(oracle, "toxicity", lambda text: 0.75, raising=False)
    scores = Oracle().score(["a", ""])
    assert scores.values[0] == 0.75 and judges.failure_counts(scores) == {"empty text": 1}
    assert scores.judge == "oracle" and scores.version
    with pytest.raises(UserError, match="evaluation only"):
        opened("oracle")


# ---------------------------------------------------------------------------------------------------------- classifiers


def _classifier(folder, labels, problem_type=None, seed=0):
    model, tokenizer = loading.load_classifier(TINY, labels=labels, texts=_rows(20).text, seed=seed)
    model.config.problem_type = problem_type
    loading.save(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def toxic_folder(tmp_path_factory):
    return _classifier(tmp_path_factory.mktemp("single") / "model", ["neutral", "Toxic", "other"])


def _logits(folder, texts):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


TEXTS = ["river lamp vile", "song", "stone bread river lamp song vile vile"]


def test_classifier_gives_the_softmax_of_its_toxic_class(toxic_folder):
    cost = Ledger()
    judge = opened(f"classifier:{toxic_folder}", **HOW, cost=cost)
    scores = judge.score([*TEXTS, ""])
    logits = _logits(toxic_folder, TEXTS)
    expected = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    assert scores.values[:3] == pytest.approx(expected, abs=1e-5)
    assert scores.failures == [None, None, None, "empty text"]
    assert scores.version.startswith("folder:") and str(toxic_folder.parent) not in scores.judge + scores.version
    assert cost.judge_calls == 3 and cost.tokens_scored > 0
    assert scores.n_cut == 0 and judge.score(["vile " * 40, "song"]).n_cut == 1
    other = opened(f"classifier:{toxic_folder}?label=OTHER", **HOW).score(TEXTS)
    assert other.values == pytest.approx(np.exp(logits[:, 2]) / np.exp(logits).sum(axis=1), abs=1e-5)


@pytest.mark.parametrize(
    "labels, problem_type, column",
    [(["obscene", "toxicity", "threat"], "multi_label_classification", 1), (["score"], None, 0)],
)
def test_several_labels_or_a_single_output_take_the_sigmoid(tmp_path, labels, problem_type, column):
    folder = _classifier(tmp_path / "model", labels, problem_type)
    judge = opened(f"classifier:{folder}", **HOW)
    expected = 1 / (1 + np.exp(-_logits(folder, TEXTS)[:, column]))
    assert judge.score(TEXTS).values == pytest.approx(expected, abs=1e-5)
    assert judge.score(TEXTS[::-1]).values[::-1] == pytest.approx(expected, abs=1e-5)


def _output(config, options=""):
    return classifiers.output_of(config, judges.parse(f"classifier:org/x{options}"), MEANING["toxicity"])


MULTI, SINGLE = "multi_label_classification", "single_label_classification"
TWO = {"id2label": {"0": "neutral", "1": "Toxic"}}
ONE = {"id2label": {"0": "score"}}


@pytest.mark.parametrize(
    "config, options, column, form",
    [
        (TWO, "", 1, "softmax"),
        ({**TWO, "problem_type": SINGLE}, "?label=neutral", 0, "softmax"),
        ({**TWO, "problem_type": MULTI}, "", 1, "sigmoid"),
        (ONE, "", 0, "sigmoid"),
        ({**ONE, "problem_type": MULTI}, "", 0, "sigmoid"),
        (ONE, "?output=probability", 0, "probability"),
        ({**ONE, "problem_type": "regression"}, "?output=probability", 0, "probability"),
        ({**TWO, "problem_type": "regression"}, "?output=probability", 1, "probability"),
        ({"id2label": {"0": "hate", "1": "Hate_Speech", "2": "TOXIC"}}, "", 2, "softmax"),
        ({"id2label": {"0": "hate", "1": "Hate_Speech", "2": "TOXIC"}}, "?label=hate-speech", 1, "softmax"),
    ],
)
def test_outputs_are_read_by_their_problem_type(config, options, column, form):
    assert _output(config, options) == classifiers.Output(column, form)


@pytest.mark.parametrize(
    "config, options, says",
    [
        ({}, "", "classes LABEL_0, LABEL_1; none is known to mean toxic"),
        ({}, "?label=LABEL_2", "none is 'LABEL_2'; did you mean"),
        ({**ONE, "problem_type": "regression"}, "", "trained by regression.*output=probability"),
        ({**ONE, "problem_type": SINGLE}, "", "single class, whose probability is always 1"),
        ({**ONE, "problem_type": "ranking"}, "", "problem_type 'ranking' is unknown; allowed are single_label"),
        (TWO, "?output=probability", "logits of 2 classes; leave out output=probability"),
        ({**TWO, "num_labels": 3}, "", "num_labels = 3 and names 2 classes"),
    ],
)
def test_outputs_that_are_no_probability_are_refused(config, options, says):
    with pytest.raises(UserError, match=says):
        _output(config, options)


def test_a_number_that_is_declared_a_probability_is_read_as_it_is(tmp_path):
    folder = _classifier(tmp_path / "model", ["score"], "regression")
    raw = _logits(folder, TEXTS)[:, 0]
    scores = opened(f"classifier:{folder}?output=probability", **HOW).score(TEXTS)
    inside = (raw >= 0) & (raw <= 1)
    assert scores.values[inside] == pytest.approx(raw[inside], abs=1e-5)
    assert [reason is None for reason in scores.failures] == inside.tolist()


def test_what_is_no_trained_classifier_is_refused(tmp_path):
    loading.save(*loading.load_language_model(TINY, texts=TEXTS), tmp_path)
    with pytest.raises(UserError, match="no trained head"):
        classifiers.load(str(tmp_path))


def test_a_classifier_with_broken_weights_fails_and_is_counted(toxic_folder):
    judge = opened(f"classifier:{toxic_folder}", **HOW)
    for parameter in judge.classifier.loaded[0].parameters():
        parameter.data.fill_(float("nan"))
    assert judges.failure_counts(judge.score(TEXTS)) == {base.NOT_A_SCORE: 3}


# ------------------------------------------------------------------------------------------------------ trained scorers


def test_halves_and_validation_are_disjoint_and_a_prompt_keeps_its_continuation():
    rows = _rows(300)
    parts = [part for role in labelled.ROLES for part in labelled.scored_texts(rows, role)]
    ids = [{name.split(":")[0] for name in part.id} for part in parts]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 300
    for part, names in zip(parts, ids, strict=True):
        assert len(part) == 2 * len(names)
        texts = dict(zip(part.id, part.text, strict=True))
        for row in rows[rows.id.isin(names)].itertuples():
            assert texts[f"{row.id}:prompt"] == row.text
            assert texts[f"{row.id}:continuation"] == row.continuation.strip()
    assert 100 < len(ids[0] | ids[1]) < 200
    assert 0.05 < len(ids[1]) / len(ids[0] | ids[1]) < 0.25
    other = labelled.held_out(rows, "training")
    assert {name.split(":")[0] for name in other.id} == ids[2] | ids[3]


def test_halves_depend_on_the_ids_alone():
    rows = _rows(200)
    fit, validation = labelled.scored_texts(rows, "training", 0, 3)
    again, _ = labelled.scored_texts(rows.sample(frac=1, random_state=1), "training", 0, 4)
    assert sorted(fit.id) == sorted(again.id)
    fewer, _ = labelled.scored_texts(rows.iloc[:150], "training")
    assert set(fewer.id) <= set(fit.id)
    mixed = pd.concat([rows, _rows(50, seed=9).assign(split="test", id=lambda d: "t" + d.id)])
    assert labelled.scored_texts(mixed, "training")[0].equals(fit)  # only rows of the split "judge"


def test_a_replicate_is_a_bootstrap_sample_of_the_rows_to_train_on():
    rows = _rows(200)
    fit, validation = labelled.scored_texts(rows, "training", 0, 5)
    drawn = [labelled.scored_texts(rows, "training", replicate, 5) for replicate in (1, 2, 1)]
    assert all(part.equals(validation) for _, part in drawn)
    assert drawn[0][0].equals(drawn[2][0]) and not drawn[0][0].equals(drawn[1][0])
    assert set(drawn[0][0].id) < set(fit.id) and len(drawn[0][0]) == len(fit)
    assert labelled.scored_texts(rows, "training", 1, 6)[0].id.tolist() != drawn[0][0].id.tolist()


def test_texts_that_are_empty_or_have_no_score_are_left_out():
    rows = _rows(100)
    rows.loc[rows.index[::2], "toxicity"] = np.nan
    rows.loc[rows.index[1], "continuation"] = " \n"
    table = pd.concat([*labelled.scored_texts(rows, "training"), labelled.held_out(rows, "training")])
    assert len(table) == 100 + 49 and table.p.notna().all() and (table.text != "").all()


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda d: d.drop(columns="toxicity"), "lack toxicity"),
        (lambda d: d.assign(toxicity=1.5), "'toxicity'.*outside"),
        (lambda d: d.assign(split="test"), "raise n_judge"),
        (lambda d: d.iloc[:1], "raise n_judge"),
    ],
)
def test_rows_that_no_scorer_can_learn_from(change, says):
    with pytest.raises(UserError, match=says):
        for role in labelled.ROLES:
            labelled.scored_texts(change(_rows(40)), role)


def test_an_unknown_role():
    with pytest.raises(UserError, match="reportin.*did you mean 'reporting'"):
        labelled.scored_texts(_rows(40), "reportin")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    rows, validation = labelled.scored_texts(_rows(160), "training")
    model, tokenizer, fit = trained.train(f"trained:{TINY}", "toxicity", rows, validation, SETTINGS)
    folder = tmp_path_factory.mktemp("scorer") / "model"
    loading.save(model, tokenizer, folder)
    return model, tokenizer, fit, folder


def test_a_trained_scorer_learns_the_score_and_is_the_same_from_its_folder(scorer):
    model, tokenizer, fit, folder = scorer
    unseen = labelled.held_out(_rows(160), "training")
    judge = opened(f"trained:{TINY}", folder=folder, **HOW)
    scores = judge.score(unseen.text)
    found = calibration.calibration(unseen.p, scores.values)
    assert found["spearman"] > 0.8 and found["agreement"] > 0.95 and found["mae"] < 0.15
    assert 0.02 < np.median(scores.values[unseen.p < 0.5]) < 0.3  # near the score 0.1, not at 0
    assert fit.best_step > 0 and judge.version.startswith("folder:") and judge.name.startswith("trained:scratch:gpt2")
    memory = opened(f"trained:{TINY}", model=model, tokenizer=tokenizer, version="7", **HOW)
    assert memory.score(unseen.text).values == pytest.approx(scores.values, abs=1e-6)
    assert memory.version == "7"
    published = opened(f"classifier:{folder}", **HOW)
    assert published.score(unseen.text).values.tolist() == scores.values.tolist()
    padded = opened(f"trained:{TINY}", folder=folder, inference=Inference("cpu", "fp32", 1, 24)).score(unseen.text)
    assert padded.values == pytest.approx(scores.values, abs=1e-5)


def test_trained_judges_that_cannot_be_opened_or_trained(scorer, toxic_folder):
    with pytest.raises(UserError, match="run judges/scorer"):
        opened(f"trained:{TINY}")
    with pytest.raises(UserError, match="classes are neutral, Toxic, other"):
        opened(f"trained:{TINY}", folder=toxic_folder)
    with pytest.raises(UserError, match="not trained here"):
        trained.train("perspective", "toxicity", None, None, SETTINGS)
    rows, validation = labelled.scored_texts(_rows(40), "training")
    with pytest.raises(UserError, match="outside"):
        trained.train(f"trained:{TINY}", "toxicity", rows.assign(p=2.0), None, replace(SETTINGS, epochs=1))


# ---------------------------------------------------------------------------------------------------------- Perspective


def _value(value):
    return 200, {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value, "type": "PROBABILITY"}}}}, {}


def _error(status, name, key="errorType", headers=None):
    details = [{"@type": "type.googleapis.com/error", key: name}]
    said = {"code": status, "message": f"prose that repeats {KEY}", "status": "INVALID_ARGUMENT", "details": details}
    return status, {"error": said}, headers or {}


@pytest.fixture
def stub():
    """Perspective's side: answers by a list of replies, the last one for ever."""

    def answer(n, path, body):
        reply = made.replies.pop(0) if len(made.replies) > 1 else made.replies[0]
        return reply(body) if callable(reply) else reply

    made = StubServer(answer)
    made.replies = [_value(0.5)]
    with made.running() as address:
        made.url = f"{address}/v1alpha1/comments:analyze"
        yield made


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self):
        self.now, self.slept = 1_000_000.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def _judge(stub, clock=None, cache=":memory:", cost=None, rate=1.0, **retries):
    clock = clock or Clock()
    retries = Retries(**{"timeout": 20.0, "sleep": clock.sleep, "clock": lambda: clock.now, **retries})
    return PerspectiveJudge(KEY, stub.url, cache, rate=rate, retries=retries, cost=cost)


def test_perspective_asks_as_the_service_wants_and_reads_the_score(stub):
    cost = Ledger()
    stub.replies = [_value(0.125), _value(1)]
    scores = _judge(stub, cost=cost).score(["one text", "", "an\udc80other"])
    assert scores.values[[0, 2]].tolist() == [0.125, 1.0]
    assert judges.failure_counts(scores) == {"empty text": 1}
    path, headers, body = stub.asked[0]
    assert body == {
        "comment": {"text": "one text", "type": "PLAIN_TEXT"},
        "languages": ["en"],
        "requestedAttributes": {"TOXICITY": {}},
        "doNotStore": True,
    }
    assert KEY not in path and headers["x-goog-api-key"] == KEY
    assert cost.judge_calls == 2 and (scores.judge, scores.version) == ("perspective", "v1alpha1 TOXICITY")


def test_requests_keep_their_distance(stub):
    clock = Clock()
    _judge(stub, clock, rate=4).score(["a", "b", "c"])
    assert clock.slept == pytest.approx([0, 0.25, 0.25])


def test_two_processes_share_the_rate_by_their_cache(stub, tmp_path):
    clock = Clock()
    for text in "ab":
        _judge(stub, clock, cache=tmp_path / "c.sqlite").score([text])
    assert clock.slept == pytest.approx([0, 1])


@pytest.mark.parametrize(
    "header, wait", [("3", 3), ("Mon, 12 Jan 1970 13:46:50 GMT", 10), ("soon", 1), ("999999", 120), ("-5", 1), ("", 1)]
)
def test_retry_after_is_seconds_or_a_date_within_reason(stub, header, wait):
    clock = Clock()
    stub.replies = [_error(503, "X", headers={"Retry-After": header}), _value(0.5)]
    assert _judge(stub, clock).score(["a"]).values.tolist() == [0.5]
    assert wait <= max(clock.slept) <= wait * 1.25 + 1e-6


def test_500_for_ever_fails_and_the_rest_is_not_asked(stub):
    clock = Clock()
    stub.replies = [(500, b"oops", {})]
    scores = _judge(stub, clock, tries=3).score([f"text {i}" for i in range(9)])
    assert np.isnan(scores.values).all()
    assert judges.failure_counts(scores) == {"call failed: HTTP 500": 5, "not asked: 5 calls in a row had failed": 4}
    assert len(stub.asked) == 5 * 3
    waits = [s for s in clock.slept if s]
    assert 1 <= waits[0] <= 1.25 and 2 <= waits[1] <= 2.5


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"<html>not json</html>", {}),
        (200, b"", {}),
        (200, b"[" * 100_000, {}),
        (200, {"attributeScores": {}}, {}),
        (200, ["a list"], {}),
        (200, b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": NaN}}}}', {}),
        _value(1.5),
        _value("0.5"),
        _value(None),
        _value(True),
    ],
)
def test_a_reply_that_is_no_score_fails_and_is_asked_anew_another_time(stub, tmp_path, reply):
    stub.replies = [reply, reply, _value(0.25)]
    first = _judge(stub, cache=tmp_path / "c.sqlite", tries=2).score(["a"])
    assert judges.failure_counts(first) == {f"call failed: {GARBAGE}": 1}
    assert _judge(stub, cache=tmp_path / "c.sqlite").score(["a"]).values.tolist() == [0.25]


def test_a_service_that_is_away_or_hangs_up(stub):
    away = types.SimpleNamespace(url="http://127.0.0.1:9/v1alpha1/comments:analyze")
    assert judges.failure_counts(_judge(away, tries=2).score(["a"])) == {"call failed: no connection": 1}
    stub.replies = [(200, b"{}", {"Transfer-Encoding": "chunked", "Connection": "close"})]
    assert list(judges.failure_counts(_judge(stub, tries=1, timeout=1).score(["a"])))[0].startswith("call failed: ")


def test_a_text_that_the_service_refuses_is_a_failure_and_is_not_asked_again(stub, tmp_path):
    refused = _error(400, "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE")
    stub.replies = [refused, _value(0.5)]
    for _ in range(2):
        scores = _judge(stub, cache=tmp_path / "c.sqlite").score(["a", "b"])
        assert scores.failures == ["refused: LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE (HTTP 400)", None]
    assert len(stub.asked) == 2


@pytest.mark.parametrize(
    "reply, says",
    [
        (_error(400, "API_KEY_INVALID", key="reason"), "refuses the key .*API_KEY_INVALID.*PERSPECTIVE_API_KEY"),
        (_error(403, "SERVICE_DISABLED", key="reason"), "refuses the key .*SERVICE_DISABLED"),
        ((401, b"", {}), "refuses the key"),
        ((404, b"gone", {}), "no Perspective API at the address.*trained:MODEL"),
    ],
)
def test_a_key_or_address_that_is_refused_ends_the_work_at_once(stub, reply, says):
    stub.replies = [reply]
    with pytest.raises(UserError, match=says) as caught:
        _judge(stub).score(["a", "b"])
    assert len(stub.asked) == 1 and KEY not in str(caught.value)


def test_the_key_is_not_carried_to_another_place(stub):
    stub.replies = [(302, b"", {"Location": stub.url + "/elsewhere"})]
    assert judges.failure_counts(_judge(stub).score(["a"])) == {"call failed: HTTP 302": 1}
    assert len(stub.asked) == 1


def test_an_answer_is_kept_and_the_file_holds_neither_key_nor_text(stub, tmp_path):
    file = tmp_path / "deep" / "c.sqlite"
    stub.replies = [_value(0.1), _value(0.9)]
    judge = _judge(stub, cache=file)
    assert judge.score(["a text to hide", "a text to hide", "b"]).values.tolist() == [0.1, 0.1, 0.9]
    assert _judge(stub, cache=file).score(["b", " a text to hide "]).values.tolist() == [0.9, 0.1]
    assert len(stub.asked) == 2
    content = b"".join(f.read_bytes() for f in file.parent.iterdir())
    assert KEY.encode() not in content and b"to hide" not in content
    assert KEY not in repr(judge)


def test_work_that_dies_half_way_goes_on_without_asking_twice(stub, tmp_path):
    texts = [f"text {i}" for i in range(6)]
    stub.replies = [lambda body: _value(int(body["comment"]["text"][-1]) / 10)]
    clock = Clock()

    def killed(seconds):
        if len(stub.asked) == 3:
            raise KeyboardInterrupt
        clock.sleep(seconds)

    with pytest.raises(KeyboardInterrupt):
        _judge(stub, cache=tmp_path / "c.sqlite", sleep=killed).score(texts)
    scores = _judge(stub, cache=tmp_path / "c.sqlite").score(texts)
    assert scores.values == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert sorted(body["comment"]["text"] for _, _, body in stub.asked) == texts  # each once


def test_a_turn_from_a_clock_far_ahead_does_not_count(tmp_path):
    with sqlite3.connect(tmp_path / "d.sqlite") as db:
        db.execute("CREATE TABLE turns (service TEXT PRIMARY KEY, next REAL NOT NULL)")
        db.execute("INSERT INTO turns VALUES ('s', 1e12)")  # written by a clock far ahead
    assert Kept(tmp_path / "d.sqlite").wait("s", 1.0, 5.0) == 0


def test_perspective_is_opened_from_the_environment(stub, home, monkeypatch):
    monkeypatch.setenv("PERSPECTIVE_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("PERSPECTIVE_API_URL", stub.url)
    monkeypatch.setattr(perspective, "_today", lambda: datetime.date(2026, 12, 1))
    assert opened("perspective").score(["a"]).values.tolist() == [0.5]
    assert (home / "runs" / ".cache" / "perspective.sqlite").is_file()
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "two\nlines")
    with pytest.raises(UserError, match="PERSPECTIVE_API_KEY") as caught:
        opened("perspective")
    assert "two" not in str(caught.value)


def test_a_rate_of_nothing():
    with pytest.raises(UserError, match="rate = 0"):
        PerspectiveJudge(KEY, rate=0)


# ---------------------------------------------------------------------------------------------------------- calibration


def test_calibration_by_hand():
    truth = [0.1, 0.4, 0.6, 0.9, 0.3]
    predicted = [0.2, 0.55, 0.5, 0.8, np.nan]
    found = calibration.calibration(truth, predicted)
    assert (found["n"], found["failures"]) == (4, 1)
    # ranks of the truth 1 2 3 4, of the predictions 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert found["spearman"] == pytest.approx(0.8)
    # deviations (-.4 -.1 .1 .4) and (-.3125 .0375 -.0125 .2875): 0.235 / sqrt(0.34 * 0.181875)
    assert found["pearson"] == pytest.approx(0.235 / math.sqrt(0.34 * 0.181875))
    assert found["mae"] == pytest.approx((0.1 + 0.15 + 0.1 + 0.1) / 4)
    assert found["agreement"] == 0.75  # 0.4 against 0.55 is on two sides; 0.5 counts as toxic
    assert found["kappa"] == pytest.approx((0.75 - 0.5) / (1 - 0.5))  # by chance .5 * .75 + .5 * .25
    assert (found["share_toxic_truth"], found["share_toxic_predicted"]) == (0.5, 0.75)
    bins = found["reliability"]
    assert bins["n"] == [0, 0, 1, 0, 0, 2, 0, 0, 1, 0]
    assert bins["mean_predicted"][5] == pytest.approx(0.525) and bins["mean_truth"][5] == pytest.approx(0.5)
    assert bins["mean_truth"][2] == 0.1 and bins["mean_truth"][0] is None
    assert bins["low"] == [k / 10 for k in range(10)] and bins["high"][-1] == 1
    json.dumps(found, allow_nan=False)


def test_the_ends_of_the_bins():
    bins = calibration.calibration([0.0, 1.0, 0.5, 0.5], [0.0, 1.0, 0.1, 0.3])["reliability"]
    assert bins["n"] == [1, 1, 0, 1, 0, 0, 0, 0, 0, 1]


def test_a_perfect_judge_and_a_contrary_one():
    truth = np.linspace(0, 1, 21)
    assert [calibration.calibration(truth, truth)[k] for k in ("agreement", "kappa", "mae")] == [1, 1, 0]
    contrary = calibration.calibration(truth, 1 - truth)
    assert contrary["spearman"] == pytest.approx(-1) and contrary["kappa"] < -0.9


@pytest.mark.parametrize("predicted", [[np.nan] * 3, [0.2] * 3])
def test_what_is_not_defined_is_none(predicted):
    found = calibration.calibration([0.1, 0.2, 0.3], predicted)
    assert found["spearman"] is found["pearson"] is found["kappa"] is None
    assert (found["n"], found["failures"]) == ((0, 3) if np.isnan(predicted[0]) else (3, 0))
    assert (found["mae"] is None) == (found["n"] == 0)
    json.dumps(found, allow_nan=False)


def test_calibration_of_what_is_no_score():
    for truth, predicted in (([0.1], [1.2]), ([np.nan], [0.5]), ([2.0], [0.5]), ([0.5, 0.5], [0.5])):
        with pytest.raises(ValueError, match="calibration takes"):
            calibration.calibration(truth, predicted)
