"""The openai engine against a server on 127.0.0.1 that speaks the protocol, and misbehaves in every way we know.

The server is a stand-in for the protocol and its faults alone: what it answers is a hash of what it was asked.
``tests/test_engines_vllm.py`` asks a real ``vllm serve``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time

import numpy as np
import pytest
from transformers import AutoTokenizer

from stub_server import StubServer
from underseer.cost import Ledger
from underseer.engines import Answer, Inference, Sampling, client, on_openai, open_engine, replies
from underseer.errors import EngineEnded, StageError, UserError
from underseer.judges import Opening, open_judge
from underseer.models import chats, loading
from underseer.selfmoa import utility

SAMPLED = Sampling(max_new_tokens=6, temperature=0.7, n=2, seed=4)
QUICK = {"timeout": 0.5, "tries": 3, "backoff": 0.0, "progress": False, "concurrency": 4}


class Server(StubServer):
    """Answers on /v1; ``faults(n, path, body)`` may give another answer to the n-th call than the protocol's."""

    def __init__(self):
        super().__init__(self.of_protocol)
        self.faults = lambda n, path, body: None
        self.models = [{"id": "m", "owned_by": "someone"}, {"id": "safer", "owned_by": "someone"}]

    def of_protocol(self, n, path, body):
        return (self.faults(n, path, body) if body is not None else None) or self.reply(path, body)

    def reply(self, path, body):
        if path == "/v1/models":
            return 200, {"data": self.models}
        if path == "/v1/completions" and body.get("echo"):
            own = [None, *(-0.25 * token for token in body["prompt"][1:]), -9.0]
            return 200, {"choices": [{"text": "", "finish_reason": "length", "logprobs": {"token_logprobs": own}}]}
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return 404, {"error": {"code": "not_found"}}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        choice = {"finish_reason": "length", "index": 0}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": f"chat {digest[:8]}"}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5}] * 2}
        else:
            choice["text"] = f" text {digest[:8]}"
            if "logprobs" in body:
                choice["logprobs"] = {"tokens": ["x"] * 2, "token_logprobs": [-0.5, -1.0]}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


@pytest.fixture
def server(monkeypatch, home):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    with made.running() as address:
        made.url = f"{address}/v1"
        monkeypatch.setenv("UNDERSEER_OPENAI_URL", made.url)
        yield made


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """The path of a tokenizer with a chat template."""
    tokenizer = loading.train_tokenizer(["a lamp and a river"], vocab_size=280, max_length=64)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}"
    tokenizer.save_pretrained(folder := tmp_path_factory.mktemp("tokenizer"))
    return str(folder)


def calls(server):
    return [body for _, _, body in server.asked if body is not None]


# ------------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("owner, sent", [("vllm", {"enable_thinking": False}), ("someone", None)])
def test_arguments_of_a_chat_template_travel_beside_the_messages_to_vllm_alone(server, owner, sent):
    server.models = [{"id": "m", "owned_by": owner}]
    engine = open_engine("openai", "m", **QUICK)
    engine.generate(
        [chats.with_arguments(chats.ask("who knows"), {"enable_thinking": False})], Sampling(max_new_tokens=6)
    )
    (body,) = calls(server)
    assert body["messages"] == [{"role": "user", "content": "who knows"}] and body.get("chat_template_kwargs") == sent
    engine.close()


def test_answers_come_in_order_and_each_draw_has_a_seed_of_its_own(server):
    ledger = Ledger()
    engine = open_engine("openai", "m", cost=ledger, **QUICK)
    prompts = ["a lamp", chats.ask("who knows", system="be brief"), "the river"]
    found = engine.generate(prompts, SAMPLED)
    assert [len(row) for row in found] == [2, 2, 2]
    assert len({answer.text for row in found for answer in row}) == 6
    assert found[1][0].text.startswith("chat ") and found[0][0].text.startswith(" text ")
    answer = found[0][0]
    assert (answer.n_tokens, answer.n_prompt_tokens, answer.failure) == (2, 3, None)
    assert (answer.finish_reason, answer.log_probs) == ("length", None)
    assert len({body["seed"] for body in calls(server)}) == 6
    assert all(body["temperature"] == 0.7 and body["max_tokens"] == 6 and body["top_p"] == 1 for body in calls(server))
    assert not any("top_k" in body or "return_token_ids" in body for body in calls(server))  # not in the protocol
    assert ledger.tokens_generated == 12
    with_probs = engine.generate(prompts[:2], SAMPLED, log_probs=True)
    assert with_probs[0][0].log_probs == [-0.5, -1.0] and with_probs[1][0].log_probs == [-0.5, -0.5]
    engine.close()


def test_the_same_seed_gives_the_same_answers_whatever_the_order(server, tmp_path):
    prompts = [f"prompt {i}" for i in range(12)]
    first = open_engine("openai", "m", cache=tmp_path / "a", **QUICK).generate(prompts, SAMPLED)
    again = open_engine("openai", "m", cache=tmp_path / "b", **QUICK).generate(prompts[::-1], SAMPLED)
    assert again[::-1] == first
    more = Sampling(max_new_tokens=6, temperature=0.7, n=3, seed=4)
    third = open_engine("openai", "m", cache=tmp_path / "c", **QUICK).generate(prompts, more)
    assert [row[:2] for row in third] == first


def test_adapters_by_served_name(server, tmp_path):
    engine = open_engine("openai", "m", **QUICK)
    plain, adapted = engine.generate(["a"], Sampling()), engine.generate(["a"], Sampling(), adapter="safer")
    assert [body["model"] for body in calls(server)] == ["m", "safer"] and plain != adapted
    with pytest.raises(UserError, match="serves no adapter 'bolder'; it serves m, safer; serve it: vllm serve"):
        engine.generate(["a"], Sampling(), adapter="bolder")


def test_at_most_so_many_calls_at_once(server):
    server.faults = lambda n, path, body: time.sleep(0.01)  # gives None: the answer of the protocol
    open_engine("openai", "m", **QUICK).generate([f"{i}" for i in range(40)], Sampling())
    assert 2 <= server.most_busy <= 4


def test_token_ids_travel_where_the_tokenizer_is_at_hand(server, tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    engine = open_engine("openai", "m", tokenizer=tokenizer_folder, inference=Inference(max_length=16), **QUICK)
    engine.generate(["a lamp " * 20, chats.ask("a <|endoftext|>")], Sampling(max_new_tokens=6))
    sent = [body["prompt"] for body in calls(server)]
    assert max(len(ids) for ids in sent) == 10  # cut to leave room for the answer
    assert sorted(ids.count(tokenizer.eos_token_id) for ids in sent) == [0, 1]  # the content opened no turn
    sums, counts = engine.score(["a lamp", ""], contexts=["a river", ""])
    ids = tokenizer("a lamp").input_ids
    assert sums == pytest.approx([-0.25 * sum(ids), 0]) and counts.tolist() == [len(ids), 0]
    with pytest.raises(UserError, match="needs the model's tokenizer"):
        open_engine("openai", "m", **QUICK).score(["a"])


# -------------------------------------------------------------------------------------------------------------- faults

GARBAGE = [
    b"",
    b"<html>busy</html>",
    b"{",
    b"[]",
    b"null",
    b'{"choices": []}',
    b'{"choices": [{"text": null}]}',
    b"\xff" * 9,
]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_tried_again_and_never_taken_for_an_answer(server, content):
    server.faults = lambda n, path, body: (200, content, {}) if n <= 2 else None
    (row,) = open_engine("openai", "m", **QUICK).generate(["a"], Sampling())
    assert row[0].failure is None and row[0].text.startswith(" text") and len(calls(server)) == 3
    server.faults = lambda n, path, body: (200, content, {})
    (row,) = open_engine("openai", "m", **QUICK).generate(["b"], Sampling())
    assert (row[0].text, row[0].token_ids, row[0].finish_reason) == ("", [], "failed")
    assert row[0].failure == "call failed: the reply is not what was asked for"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_or_broken_server_is_asked_again_as_it_wishes(server, status):
    waits = []
    server.faults = lambda n, path, body: (status, b"busy", {"Retry-After": "7"}) if n == 1 else None
    made = on_openai.connect(server.url, None, client.Retries(tries=3, backoff=2.0, sleep=waits.append))
    assert made.call("/completions", {"prompt": "a"}, lambda reply: reply["choices"][0]["text"]).startswith(" text")
    assert waits == [7.0]
    server.faults = lambda n, path, body: (status, b"busy", {})
    waits.clear()
    with pytest.raises(client.Failed, match=f"call failed: HTTP {status}"):
        made.call("/completions", {"prompt": "a"})
    assert len(waits) == 2 and 2 <= waits[0] <= 2.5 and 4 <= waits[1] <= 5
    server.faults = lambda n, path, body: (status, b"busy", {"Retry-After": "99999"})
    waits.clear()
    with pytest.raises(client.Failed):
        made.call("/completions", {"prompt": "a"})
    assert waits == [client.LONGEST_WAIT] * 2


def test_a_server_that_hangs_or_trickles_is_given_up_in_bounded_time(server):
    server.faults = lambda n, path, body: 1.5 if n <= 2 else None
    start = time.monotonic()
    (row,) = open_engine("openai", "m", **QUICK).generate(["a"], Sampling())
    assert row[0].failure == "call failed: time-out" and time.monotonic() - start < 3
    made = on_openai.connect(server.url, None, client.Retries(tries=1, timeout=0.3))
    made._http.stream = _trickling  # a byte at a time, for ever: no single read runs into its time-out
    with pytest.raises(client.Failed, match="time-out"):
        made.call("/completions", {"prompt": "a"})


@contextlib.contextmanager
def _trickling(*args, **kwargs):
    class Reply:
        status_code, headers = 200, {}

        def iter_bytes(self):
            while True:
                time.sleep(0.05)
                yield b" "

    yield Reply()


def test_no_connection_while_it_works_ends_in_one_line(server):
    engine = open_engine("openai", "m", **QUICK)
    engine._client.url = "http://127.0.0.1:9/v1"  # nothing listens there
    with pytest.raises(
        StageError, match="gave no answer 8 times in a row .call failed: no connection.; 0 answers"
    ) as e:
        engine.generate([f"{i}" for i in range(30)], Sampling())
    assert "\n" not in str(e.value)


def test_an_item_that_the_server_refuses_is_a_failure_and_the_others_are_answered(server):
    error = {"error": {"type": "BadRequestError", "message": "the prompt 'secret' is too long"}}
    server.faults = lambda n, path, body: (400, error, {}) if body["prompt"] == "b" else None
    a, b, c = open_engine("openai", "m", **QUICK).generate(["a", "b", "c"], Sampling())
    assert a[0].failure is None and c[0].failure is None
    assert b[0].failure == "refused: HTTP 400, BadRequestError" and b[0].text == ""  # the server's prose stays out
    assert sum(body["prompt"] == "b" for body in calls(server)) == 1


AZURE = {
    "error": {"code": "content_filter", "message": "prose", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
}
WITHHELD = {
    "choices": [{"finish_reason": "content_filter", "message": {"content": None}}],
    "usage": {"completion_tokens": 0},
}


@pytest.mark.parametrize(
    "status, body, reason",
    [
        (400, {"error": {"code": "content_filter"}}, "refused: HTTP 400, content_filter"),
        (400, AZURE, "refused: HTTP 400, ResponsibleAIPolicyViolation"),
        (403, {"error": {"type": "content_policy_violation"}}, "refused: HTTP 403, content_policy_violation"),
        (200, WITHHELD, "refused: finish_reason content_filter"),
    ],
)
def test_a_server_whose_filter_refuses_many_items_in_a_row_is_at_work(server, status, body, reason):
    def filtered(n, path, asked):
        return (status, body, {}) if "attack" in asked["messages"][0]["content"] else None

    server.faults = filtered
    chats_ = [chats.ask(f"{'attack' if i >= 30 else 'question'} {i}") for i in range(60)]
    answers = open_engine("openai", "m", **QUICK).generate(chats_, Sampling())
    failures = [answer.failure for (answer,) in answers]
    assert failures == [None] * 30 + [reason] * 30 and len(calls(server)) == 60


def _choice(**fields):
    return {"choices": [{"finish_reason": "stop", "message": {"content": "fine"}, **fields}]}


@pytest.mark.parametrize(
    "reply, text, finish, n_tokens",
    [
        (_choice(), "fine", "stop", 0),  # without usage
        ({**_choice(), "usage": None}, "fine", "stop", 0),
        ({**_choice(finish_reason="eos"), "usage": {"completion_tokens": 3}}, "fine", "stop", 3),
        (_choice(finish_reason=None), "fine", "stop", 0),
        (_choice(finish_reason="max_tokens"), "fine", "length", 0),
        (_choice(message={"content": "fine", "reasoning_content": "hm"}), "fine", "stop", 0),
        (_choice(message={"content": None, "reasoning_content": "hm"}, finish_reason="length"), "", "length", 0),
        (_choice(message={"content": None, "refusal": "I cannot"}), "I cannot", "stop", 0),
        (_choice(logprobs={"content": [{"logprob": -0.5}, {"logprob": -1.0}]}), "fine", "stop", 2),
    ],
)
def test_replies_of_other_servers_are_read(reply, text, finish, n_tokens):
    answer = Answer(**replies.answer(reply))
    assert (answer.text, answer.finish_reason, answer.n_tokens, answer.failure) == (text, finish, n_tokens, None)


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_an_answer_that_broke_off_is_none(finish):
    with pytest.raises(ValueError, match=finish):
        replies.answer(_choice(finish_reason=finish))


def test_a_run_killed_half_way_repeats_nothing(server, tmp_path):
    prompts = [f"prompt {i}" for i in range(40)]
    expected = open_engine("openai", "m", cache=tmp_path / "whole", **QUICK).generate(prompts, Sampling())
    server.asked.clear()
    server.faults = lambda n, path, body: (500, b"", {}) if n > 15 else None
    engine = open_engine("openai", "m", cache=tmp_path / "kept", **QUICK)
    with pytest.raises(StageError, match="[0-9]+ answers are kept: run again when it works"):
        engine.generate(prompts, Sampling())
    engine.close()
    done = {body["prompt"] for body in calls(server)[:15]}
    server.asked.clear()
    server.faults = lambda n, path, body: None
    ledger = Ledger()
    again = open_engine("openai", "m", cache=tmp_path / "kept", cost=ledger, **QUICK)
    assert again.generate(prompts, Sampling()) == expected
    assert not done & {body["prompt"] for body in calls(server)} and len(calls(server)) == 25
    assert ledger.tokens_generated == 50  # what was kept costs nothing
    assert again.generate(prompts, Sampling()) == expected and len(calls(server)) == 25


def test_an_answer_under_way_when_the_server_is_given_up_is_kept(server, tmp_path):
    def fault(n, path, body):
        if body["prompt"] != "slow":
            return 500, b"", {}
        time.sleep(0.2)  # the others have failed meanwhile
        return None

    server.faults = fault
    prompts = ["slow", *(f"prompt {i}" for i in range(40))]
    with pytest.raises(StageError, match="; 1 answers are kept"):
        open_engine("openai", "m", cache=tmp_path / "kept", **QUICK).generate(prompts, Sampling())
    assert len({body["prompt"] for body in calls(server)}) < 30, "what had not begun is not asked"
    server.asked.clear()
    server.faults = lambda n, path, body: None
    open_engine("openai", "m", cache=tmp_path / "kept", **QUICK).generate(prompts, Sampling())
    assert "slow" not in {body["prompt"] for body in calls(server)} and len(calls(server)) == 40


def test_failures_are_asked_again_and_a_text_without_a_score_stops(server, tokenizer_folder):
    server.faults = lambda n, path, body: (400, {}, {}) if n <= 1 else None
    engine = open_engine("openai", "m", **QUICK)
    assert engine.generate(["a"], Sampling())[0][0].failure == "refused: HTTP 400"
    assert engine.generate(["a"], Sampling())[0][0].failure is None
    engine = open_engine("openai", "m", tokenizer=tokenizer_folder, **QUICK)
    server.faults = lambda n, path, body: (500, b"", {})
    with pytest.raises(
        StageError, match="1 of 1 texts got no score from the server .call failed: HTTP 500.; run again"
    ):
        engine.score(["a lamp"])


# --------------------------------------------------------------------------------------------------- address, key, name


def test_the_key_travels_in_a_header_and_nowhere_else(server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    cache = tmp_path / "kept"
    engine = open_engine("openai", "m", cache=cache, **QUICK)
    engine.generate(["a"], Sampling())
    assert all(headers["authorization"] == "Bearer sk-hidden" for _, headers, _ in server.asked)
    assert b"sk-hidden" not in cache.read_bytes() and "sk-hidden" not in engine.version
    server.faults = lambda n, path, body: (401, {"error": {"code": "invalid_api_key"}}, {})
    with pytest.raises(UserError, match="refuses the key .HTTP 401.; check OPENAI_API_KEY") as caught:
        engine.generate(["b"], Sampling())
    assert "sk-hidden" not in str(caught.value)


def test_mistakes_in_opening(server, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="serves no model 'n'; it serves m, safer"):
        open_engine("openai", "n", **QUICK)
    with pytest.raises(UserError, match="is it running, and ready"):
        open_engine("openai", "m", url="http://127.0.0.1:9/v1", **QUICK)
    with pytest.raises(UserError, match="at least 1"):
        open_engine("openai", "m", **{**QUICK, "concurrency": 0})
    with pytest.raises(UserError, match="no_repeat_ngram = 0"):
        open_engine("openai", "m", **QUICK).generate(["a"], Sampling(no_repeat_ngram=2))
    (tmp_path / "broken").write_text("not a data base")
    with pytest.raises(UserError, match="move the file away"):
        open_engine("openai", "m", cache=tmp_path / "broken", **QUICK)
    monkeypatch.delenv("UNDERSEER_OPENAI_URL")
    with pytest.raises(UserError, match="set UNDERSEER_OPENAI_URL, as http://127.0.0.1:8000/v1"):
        open_engine("openai", "m", **QUICK)


def test_scores_are_kept_too(server, tokenizer_folder):
    engine = open_engine("openai", "m", tokenizer=tokenizer_folder, **QUICK)
    first, again = engine.score(["a lamp", "a river"]), engine.score(["a river", "a lamp"])
    assert np.array_equal(first[0], again[0][::-1]) and len(calls(server)) == 2


@pytest.mark.parametrize("own", [[-0.01], [], [None] * 40])
def test_a_server_that_does_not_echo_gives_no_score(server, tokenizer_folder, tmp_path, own):
    reply = {"choices": [{"text": "safe", "finish_reason": "stop", "logprobs": {"token_logprobs": own}}]}
    server.faults = lambda n, path, body: (200, reply, {})
    engine = open_engine("openai", "m", tokenizer=tokenizer_folder, **QUICK)
    reason = r"2 of 2 texts got no score from the server \(the server gave log-probabilities of [01] of \d+ tokens"
    with pytest.raises(StageError, match=reason):
        engine.score(["a lamp", "a river"])
    assert len(calls(server)) == 2  # asking again would not help
    with pytest.raises(StageError, match="log-probabilities of [01] of"):
        utility.perplexity(engine, ["a lamp and a river", "a river"])
    opening = Opening(engine=engine, cache=":memory:", progress=False)
    found = open_judge("guard:meta-llama/Llama-Guard-3-8B", "unsafe", opening).score(["yes"], ["who knows"])
    assert np.isnan(found.values).all() and found.failures[0].startswith("call failed")
    engine.close()


def test_log_probabilities_kept_without_their_prompt_are_asked_for_anew(server, tokenizer_folder):
    engine = open_engine("openai", "m", tokenizer=tokenizer_folder, **QUICK)
    expected = engine.score(["a lamp"])[0]
    engine._kept._db.execute("UPDATE kept SET value = '[-0.01]'")
    assert engine.score(["a lamp"])[0] == expected and len(calls(server)) == 2
    engine.close()


def _error(**fields):
    return {"error": {"message": "prose", **fields}}


OF_ONE_ITEM = [
    (400, _error(code="invalid_prompt"), "refused: HTTP 400, invalid_prompt"),
    (400, _error(code="context_length_exceeded"), "refused: HTTP 400, context_length_exceeded"),
    (400, _error(code="data_inspection_failed"), "refused: HTTP 400, data_inspection_failed"),
    (400, {"code": "DataInspectionFailed", "message": "prose"}, "refused: HTTP 400, DataInspectionFailed"),
    (400, _error(code="1301"), "refused: HTTP 400, 1301"),
    (400, b"prose", "refused: HTTP 400"),
    (413, b"", "refused: HTTP 413"),
    (422, {"detail": ["prose"]}, "refused: HTTP 422"),
    (451, b"", "refused: HTTP 451"),
    (403, _error(code=403, metadata={"reasons": ["violence"]}), "refused: HTTP 403, moderation"),
    (200, _error(code="content_policy_violation"), "refused: content_policy_violation"),
    *(
        (200, _choice(finish_reason=reason, message={"content": None}), f"refused: finish_reason {reason}")
        for reason in ("PROHIBITED_CONTENT", "RECITATION", "SPII", "BLOCKLIST")
    ),
    (200, {"choices": None}, f"call failed: {client.GARBAGE}"),
    (200, {"choices": []}, f"call failed: {client.GARBAGE}"),
    (200, _choice(message={"content": None}), f"call failed: {client.GARBAGE}"),
    (200, _choice(finish_reason="tool_calls", message={"content": None}), f"call failed: {client.GARBAGE}"),
]


@pytest.mark.parametrize("status, body, reason", OF_ONE_ITEM)
def test_a_refusal_of_one_item_is_counted_and_ends_no_stage(server, status, body, reason):
    server.faults = lambda n, path, asked: (status, body, {}) if "attack" in asked["messages"][0]["content"] else None
    chats_ = [chats.ask(f"{'question' if i >= 30 else 'attack'} {i}") for i in range(34)]
    answers = open_engine("openai", "m", **QUICK | {"tries": 1}).generate(chats_, Sampling())
    assert [answer.failure for (answer,) in answers] == [reason] * 30 + [None] * 4


@pytest.mark.parametrize("status, body", [(400, b""), (422, b""), (200, {"choices": []})])
def test_a_request_that_is_wrong_for_every_item_ends_in_one_line(server, status, body):
    server.faults = lambda n, path, asked: (status, body, {})
    engine = open_engine("openai", "m", **QUICK | {"tries": 1})
    with pytest.raises(EngineEnded, match="answered none of 12 requests .*: its log says what it does not take; 0 ans"):
        engine.generate([f"{i}" for i in range(12)], Sampling())
    server.asked.clear()
    with pytest.raises(EngineEnded, match="answered none of 40 requests"):
        engine.generate([f"{i}" for i in range(200)], Sampling())
    assert len(calls(server)) < 60
    server.faults = lambda n, path, asked: None
    engine.generate(["a"], Sampling())
    server.faults = lambda n, path, asked: (status, body, {})  # it takes such requests: these are refusals
    assert all(a.failure for (a,) in engine.generate([f"{i}" for i in range(12)], Sampling()))


def test_refusals_that_are_no_items_end_a_stage_as_before(server):
    engine = open_engine("openai", "m", **QUICK)
    server.faults = lambda n, path, asked: (403, b"", {})
    with pytest.raises(UserError, match="refuses the key"):
        engine.generate(["a"], Sampling())
    for status, body in ((402, b""), (400, _error(code="insufficient_quota"))):
        server.faults = lambda n, path, asked, status=status, body=body: (status, body, {})
        with pytest.raises(EngineEnded, match="gave no answer 8 times in a row"):
            engine.generate([f"{i}" for i in range(30)], Sampling())


@pytest.mark.parametrize(
    "content, text",
    [
        (["a ", {"type": "text", "text": "lamp"}], "a lamp"),
        ([{"type": "thinking", "thinking": []}, {"type": "output_text", "text": "lamp"}], "lamp"),
        ([{"type": "reasoning", "text": "hm"}], ""),
        ("half \ud83d of one", "half \ufffd of one"),
    ],
)
def test_contents_in_parts_and_halves_of_characters_are_read(content, text):
    assert replies.answer(_choice(message={"content": content}))["text"] == text
    assert replies.read_answer(replies.answer(_choice()) | {"text": "\udc00"}).text == "\ufffd"  # kept before


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -3, "many", [1]])
def test_a_count_of_tokens_that_is_none_spoils_no_answer(server, count):
    server.faults = lambda n, path, asked: (200, {**_choice(text="fine"), "usage": {"completion_tokens": count}}, {})
    (row,) = open_engine("openai", "m", **QUICK).generate(["a"], Sampling())
    assert (row[0].text, row[0].n_tokens, row[0].failure) == ("fine", 0, None)


@pytest.mark.parametrize("cut", ['\'{"text": "fi\'', "''", "x'ff'"])
def test_a_kept_answer_that_is_cut_is_asked_for_anew(server, cut):
    engine = open_engine("openai", "m", **QUICK)
    expected = engine.generate(["a"], Sampling())
    engine._kept._db.execute(f"UPDATE kept SET value = {cut}")
    assert engine.generate(["a"], Sampling()) == expected and len(calls(server)) == 2
    engine.close()
