"""Generation and scoring on tiny models: the same answers in every batch, the right distribution, the right sums."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tiny import TINY, cpu, language_model
from underseer.cost import Ledger
from underseer.engines import Answer, Sampling, local
from underseer.engines import rows as token_rows
from underseer.errors import UserError
from underseer.models import chats

TEXTS = ["the river runs", "a lamp", "bread and stone and song are there for all of us", "", "who knows", "x " * 60]
FAMILIES = ["gpt1", "gpt2", "llama"]
SAMPLED = Sampling(max_new_tokens=10, temperature=0.7, top_p=0.95, top_k=50, no_repeat_ngram=2, n=3, seed=5)
CPU = cpu()


@cache
def _model(family="gpt2"):
    return language_model(f"scratch:{family}?{TINY}", TEXTS)


def _stock(model, tokenizer, prompt, **settings):
    """New tokens of Hugging Face generate for one prompt, up to the end token."""
    import torch

    ids = tokenizer(prompt or tokenizer.eos_token, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.eval().generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **settings)
    row = out[0, ids.shape[1] :].tolist()
    return row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row


# ------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ngram", [0, 2, 3])
def test_greedy_in_batches_is_greedy_one_by_one_and_stock(family, ngram):
    model, tokenizer = _model(family)
    sampling = Sampling(max_new_tokens=12, no_repeat_ngram=ngram)
    together = local.generate(model, tokenizer, TEXTS, sampling, **CPU)
    assert together == local.generate(model, tokenizer, TEXTS, sampling, **cpu(batch_size=1))
    assert len({token for (answer,) in together for token in answer.token_ids}) > 5  # not one token for ever
    for text, (answer,) in list(zip(TEXTS, together, strict=True))[:5]:  # the last prompt is cut
        assert answer.token_ids == _stock(model, tokenizer, text, max_new_tokens=12, no_repeat_ngram_size=ngram)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_the_same_in_any_order_and_batch_size(family):
    model, tokenizer = _model(family)
    found = local.generate(model, tokenizer, TEXTS, SAMPLED, **CPU)
    for size in (1, 7):
        backwards = local.generate(model, tokenizer, TEXTS[::-1], SAMPLED, **cpu(batch_size=size))
        assert backwards[::-1] == found
    fewer = local.generate(model, tokenizer, TEXTS[:2], replace(SAMPLED, n=2), **CPU)
    assert fewer == [answers[:2] for answers in found[:2]]  # a draw does not depend on how many there are
    other = local.generate(model, tokenizer, TEXTS, replace(SAMPLED, seed=6), **CPU)
    assert other != found
    for answers in found:
        assert len({tuple(answer.token_ids) for answer in answers}) == 3


def _first_tokens(sampling, n=4000):
    model, tokenizer = _model()
    answers = local.generate(
        model, tokenizer, ["a lamp"], replace(sampling, max_new_tokens=1, n=n), **cpu(batch_size=n)
    )[0]
    tokens = [a.token_ids[0] if a.token_ids else tokenizer.eos_token_id for a in answers]
    return np.bincount(tokens, minlength=len(tokenizer)) / n


def _next_probabilities(temperature):
    import torch

    model, tokenizer = _model()
    with torch.inference_mode():
        logits = model(tokenizer("a lamp", return_tensors="pt").input_ids).logits[0, -1]
    return (logits / temperature).softmax(-1).double().numpy()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0),
        Sampling(temperature=2.5, top_k=12),
        Sampling(temperature=3.0, top_p=0.8),
        Sampling(temperature=3.0, top_k=30, top_p=0.9),
    ],
)
def test_sampled_tokens_have_the_right_distribution(sampling):
    """Against a distribution made by hand; deviations of 4000 draws stay under five standard errors."""
    p = _next_probabilities(sampling.temperature)
    order = np.argsort(-p)
    if sampling.top_k:
        p[order[sampling.top_k :]] = 0
        p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= sampling.top_p]] = 0
    p /= p.sum()
    found = _first_tokens(sampling)
    assert found[p == 0].sum() == 0
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 1e-9).all()
    assert (p > 0.01).sum() > 5


def test_top_p_looks_further_where_the_first_candidates_do_not_reach_it(monkeypatch):
    import torch

    from underseer.engines import choice

    logits, uniform = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)), np.array([0.0, 0.3, 0.6, 0.999])
    sampling = Sampling(temperature=1.0, top_p=0.9)
    whole = choice.choose(logits, sampling, uniform)
    monkeypatch.setattr(choice, "NUCLEUS", 3)
    assert torch.equal(choice.choose(logits, sampling, uniform), whole)


def test_uniform_numbers():
    from underseer.engines import choice

    keys = np.array([Sampling(seed=1).noise_key(f"prompt {i}", 0) for i in range(500)], dtype=np.uint64)
    u = np.array([choice.uniforms(keys, step) for step in range(40)])
    assert u.min() >= 0 and u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * u.size))
    assert np.abs(np.histogram(u, 20, (0, 1))[0] / u.size - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / u.size)
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.04
    assert (
        len({Sampling(seed=s).noise_key(*key) for s, *key in ((0, "a", 0), (1, "a", 0), (0, "a", 1), (0, "b", 0))}) == 4
    )
    # splitmix64 started at 0 gives these (Vigna's reference implementation)
    first = choice.uniforms(np.array([0], dtype=np.uint64), 0)[0]
    assert first == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_banned_repeats_by_hand():
    import torch

    from underseer.engines import choice

    history = torch.tensor([[1, 2, 3, 1], [-1, -1, 4, 4], [-1, -1, -1, 0], [5, 6, 5, 6]])
    logits = torch.zeros(4, 8)
    choice.ban_repeats(logits, history, 2)
    assert [row.nonzero()[:, 0].tolist() for row in logits.isinf()] == [[2], [4], [], [5]]
    logits = torch.zeros(4, 8)
    choice.ban_repeats(logits, history, 3)
    assert [row.nonzero()[:, 0].tolist() for row in logits.isinf()] == [[], [], [], [5]]
    logits = torch.zeros(4, 8)
    choice.ban_repeats(logits, history, 1)
    assert [row.nonzero()[:, 0].tolist() for row in logits.isinf()] == [[1, 2, 3], [4], [0], [5, 6]]


def test_no_bigram_is_repeated():
    model, tokenizer = _model()
    sampling = Sampling(max_new_tokens=40, temperature=0.3, no_repeat_ngram=2, n=4)
    for text, answers in zip(TEXTS[:3], local.generate(model, tokenizer, TEXTS[:3], sampling, **CPU), strict=True):
        for answer in answers:
            row = [*tokenizer(text).input_ids, *answer.token_ids]
            new = len(answer.token_ids)
            pairs = list(zip(row, row[1:], strict=False))
            assert all(pair not in pairs[:-i] for i, pair in enumerate(reversed(pairs[-new:]), 1))


def test_an_answer_stops_at_the_end_token():
    """One token is made the end token of a model that would write it: answers end there, others go on."""
    model, tokenizer = _model()
    sampling = Sampling(max_new_tokens=12)
    free = [answer for (answer,) in local.generate(model, tokenizer, TEXTS, sampling, **CPU)]
    assert {answer.finish_reason for answer in free} == {"length"}
    end = free[0].token_ids[4]
    own, model.generation_config.eos_token_id = model.generation_config.eos_token_id, [end]
    ledger = Ledger()
    try:
        found = [answer for (answer,) in local.generate(model, tokenizer, TEXTS, sampling, cost=ledger, **CPU)]
    finally:
        model.generation_config.eos_token_id = own
    for before, after in zip(free, found, strict=True):
        cut = before.token_ids.index(end) if end in before.token_ids else None
        assert after.token_ids == before.token_ids[:cut]
        assert after.finish_reason == ("length" if cut is None else "stop")
    assert found[0].finish_reason == "stop" and found[0].n_tokens <= 4
    assert ledger.tokens_generated == sum(a.n_tokens + (a.finish_reason == "stop") for a in found)


def test_text_is_the_continuation_alone():
    model, tokenizer = _model()
    for text, (answer,) in zip(TEXTS[:5], local.generate(model, tokenizer, TEXTS[:5], Sampling(), **CPU), strict=True):
        assert tokenizer.decode(tokenizer(text).input_ids + answer.token_ids) == text + answer.text


def test_a_tokenizer_that_strips_spaces_keeps_the_one_after_the_prompt():
    """As SentencePiece does (Llama 2): decoded alone, a continuation would lose its first space."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"▁the": 0, "▁river": 1, "▁runs": 2, "</s>": 3}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="</s>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    prompts = [np.array([0]), np.array([3])]  # "the", and the end token for an empty prompt
    found = token_rows.answers(tokenizer, prompts, [[1, 2, 3, 0], [1, 2, 2, 2]], {3})
    assert found == [
        Answer(" river runs", [1, 2], "stop", None, 1),
        Answer("river runs runs runs", [1, 2, 2, 2], "length", None, 1),
    ]


def test_a_long_prompt_keeps_its_end():
    model, tokenizer = _model()
    long = "song " * 80 + "the river runs"
    ids = tokenizer(long).input_ids
    (answer,), (short,) = local.generate(
        model, tokenizer, [long, tokenizer.decode(ids[-54:])], Sampling(max_new_tokens=10), **CPU
    )
    assert answer == short  # 64 positions
    with pytest.raises(UserError, match="max_new_tokens = 64 leaves no room.*at most 63"):
        local.generate(model, tokenizer, ["a"], Sampling(max_new_tokens=64), **CPU)


def test_no_prompts_no_answers_and_nothing_printed(capfd):
    model, tokenizer = _model()
    assert local.generate(model, tokenizer, [], SAMPLED, **CPU) == []
    local.generate(model, tokenizer, TEXTS, SAMPLED, **CPU)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    ],
)
def test_a_batch_too_large_for_memory_is_halved_and_the_rest_goes_on(monkeypatch, error):
    from underseer.engines import decoding

    model, tokenizer = _model()
    expected = local.generate(model, tokenizer, TEXTS, SAMPLED, **CPU)
    run, sizes = decoding.Decoder.run, []

    def small(self, prompts, which, keys):
        sizes.append(len(which))
        if len(which) > 5:
            raise error
        return run(self, prompts, which, keys)

    monkeypatch.setattr(decoding.Decoder, "run", small)
    assert local.generate(model, tokenizer, TEXTS, SAMPLED, **CPU) == expected
    assert sizes == [18, 9, 5, 5, 5, 3]


def test_one_row_too_large_for_memory_is_one_clear_line_and_other_errors_pass(monkeypatch):
    from underseer.engines import decoding

    model, tokenizer = _model()

    def fail(error):
        def run(*args):
            raise error

        monkeypatch.setattr(decoding.Decoder, "run", run)
        local.generate(model, tokenizer, TEXTS[:2], Sampling(), **CPU)

    with pytest.raises(UserError, match="out of memory with a single row of [0-9]+ tokens") as caught:
        fail(MemoryError())
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0; it must be at least 1"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"top_p": 0.0}, "top_p = 0.0; it must be above 0"),
        ({"top_k": -1}, "top_k = -1"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram = -2"),
        ({"n": 0}, "n = 0"),
        ({"n": 2}, "n = 2 greedy answers would all be the same"),
    ],
)
def test_sampling_out_of_range(setting, message):
    with pytest.raises(UserError, match=message):
        Sampling(**setting)


def test_bf16_runs_and_mostly_agrees():
    model, tokenizer = _model()
    wide, narrow = (
        local.generate(model, tokenizer, TEXTS, Sampling(max_new_tokens=4), **cpu(precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert np.mean([a == b for a, b in zip(wide, narrow, strict=True)]) >= 0.5


TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def _chat_model():
    import copy

    model, tokenizer = _model()
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    return model, tokenizer


def test_chats_and_strings_are_continued_together_as_apart():
    model, tokenizer = _chat_model()
    chat = chats.ask("who knows", system="a lamp")
    prompts = ["the river runs", chat, "a lamp", chats.ask("bread and <|endoftext|> stone")]
    together = local.generate(model, tokenizer, prompts, SAMPLED, **CPU)
    for prompt, answers in zip(prompts, together, strict=True):
        assert local.generate(model, tokenizer, [prompt], SAMPLED, **CPU) == [answers]
    (answer,) = local.generate(model, tokenizer, [chat], Sampling(max_new_tokens=8), **CPU)[0]
    ids = tokenizer(chats.render(tokenizer, chat)).input_ids
    assert ids.count(tokenizer.eos_token_id) == 2  # the template's own turns, read as such
    assert answer.n_prompt_tokens == len(ids)
    assert answer.token_ids == _continued(model, ids, 8)
    (broken,) = token_rows.prompt_rows(tokenizer, prompts[3:], token_rows.rendered(tokenizer, prompts[3:], ""), None)
    assert broken.tolist().count(tokenizer.eos_token_id) == 1  # a content cannot open a turn


def _continued(model, ids, new):
    import torch

    with torch.inference_mode():
        row = torch.tensor([ids])
        for _ in range(new):
            row = torch.cat([row, model.eval()(row).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return row[0, len(ids) :].tolist()


def test_a_chat_needs_a_template():
    model, tokenizer = _model()
    with pytest.raises(UserError, match="no chat template.*instruct model"):
        local.generate(model, tokenizer, ["a", chats.ask("a")], Sampling(), **CPU)
    with pytest.raises(UserError, match="no chat template"):
        local.log_probs(model, tokenizer, ["a"], contexts=[chats.ask("a")], **CPU)


def test_prompts_are_cut_to_max_length():
    model, tokenizer = _model()
    ids = tokenizer(TEXTS[2]).input_ids
    kept = tokenizer.decode(ids[-12:])
    cut, short = (
        local.generate(model, tokenizer, [text], Sampling(max_new_tokens=4), **cpu(max_length=length))
        for text, length in ((TEXTS[2], 16), (kept, None))
    )
    assert cut == short and cut[0][0].n_prompt_tokens == 12


def test_log_probs_of_an_answer_are_the_models_own():
    """Not of the distribution drawn from: temperature, top-p and bans leave them as they are."""
    model, tokenizer = _model()
    found = local.generate(model, tokenizer, TEXTS[:3], SAMPLED, log_probs=True, **CPU)
    assert local.generate(model, tokenizer, TEXTS[:3], SAMPLED, **CPU)[0][0].log_probs is None
    for text, answers in zip(TEXTS, found, strict=False):
        ids = tokenizer(text).input_ids
        for answer in answers:
            assert len(answer.log_probs) == answer.n_tokens
            total = _by_hand(model, ids + answer.token_ids, len(ids))
            assert sum(answer.log_probs) == pytest.approx(total, rel=1e-5)
    scored, counts = local.log_probs(model, tokenizer, [found[0][0].text], contexts=TEXTS[:1], **CPU)
    if counts[0] == found[0][0].n_tokens:  # the text is tokenised as it was drawn
        assert scored[0] == pytest.approx(sum(found[0][0].log_probs), rel=1e-5)


# ---------------------------------------------------------------------------------------------------------- scoring


def _by_hand(model, row, begin):
    import torch

    with torch.inference_mode():
        log_p = model.eval()(torch.tensor([row])).logits[0].log_softmax(-1)
    return sum(log_p[i - 1, row[i]].item() for i in range(begin, len(row)))


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_by_hand(family):
    model, tokenizer = _model(family)
    ledger = Ledger()
    sums, counts = local.log_probs(model, tokenizer, TEXTS[:5], cost=ledger, **cpu(max_length=64, batch_size=3))
    end = tokenizer.eos_token_id
    for text, total, count in zip(TEXTS, sums, counts, strict=False):
        ids = tokenizer(text).input_ids
        assert count == len(ids)
        assert total == pytest.approx(_by_hand(model, [end, *ids], 1), rel=1e-5)
    assert (sums[3], counts[3]) == (0, 0)
    assert ledger.tokens_scored == counts.sum() + 5


def test_log_probs_given_a_context():
    model, tokenizer = _model()
    contexts, texts = ["who", "", "the river", "a " * 40], [" knows", " a lamp", "", " stone" * 3]
    sums, counts = local.log_probs(model, tokenizer, texts, contexts=contexts, **cpu(max_length=32))
    for context, text, total, count in zip(contexts, texts, sums, counts, strict=True):
        head, ids = tokenizer(context).input_ids or [tokenizer.eos_token_id], tokenizer(text).input_ids
        head = head[-(32 - len(ids)) :]
        assert count == len(ids)
        assert total == pytest.approx(_by_hand(model, head + ids, len(head)), rel=1e-5, abs=1e-9)
    with pytest.raises(UserError, match="2 texts and 1 contexts"):
        local.log_probs(model, tokenizer, ["a", "b"], contexts=["c"], **cpu(max_length=8))


def test_log_probs_hold_few_logits_at_once(monkeypatch):
    model, tokenizer = _model()
    expected = local.log_probs(model, tokenizer, TEXTS, **CPU)
    widths, forward = [], model.forward

    def spy(**inputs):
        widths.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(local, "LOGITS", len(tokenizer) * 70)
    monkeypatch.setattr(model, "forward", spy)
    monkeypatch.setattr("underseer.engines.decoding.taken", lambda model: set())
    found = local.log_probs(model, tokenizer, TEXTS, **CPU)
    assert np.allclose(found[0], expected[0]) and max(widths) <= 70 and len(widths) > 1


def test_log_probs_of_a_tokenizer_without_begin_and_end():
    """As GPT-1's: the first token is not predicted from anything, so it is not counted."""
    model, tokenizer = _model("gpt1")
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = None
    sums, counts = local.log_probs(model, bare, ["who knows", ""], **CPU)
    ids = tokenizer("who knows").input_ids
    assert counts.tolist() == [len(ids) - 1, 0]
    assert sums[0] == pytest.approx(_by_hand(model, ids, 1), rel=1e-5)
    assert local.generate(model, bare, ["", "who"], Sampling(max_new_tokens=3), **CPU)
