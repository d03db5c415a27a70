"""Batches by hand, and training on tiny models: learning, early stopping, resuming, determinism, prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiny import cpu, killed_at
from underseer.errors import UserError
from underseer.maths import losses
from underseer.models import batches, loading
from underseer.training import finetune, objectives, precision
from underseer.training.settings import TrainSettings

TINY = "n_layer=1&n_embd=16&n_head=2&n_positions=64&vocab_size=280"
SETTINGS = TrainSettings(
    epochs=2, batch_size=8, learning_rate=5e-3, eval_steps=5, max_length=32, device="cpu", precision="fp32", progress=False
)  # fmt: skip
READ = {"max_length": 32, "device": "cpu", "precision": "fp32"}


def _rows(n, seed=0):
    """Prompts whose class is one word, in texts of very different length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    filler = ["river", "lamp", "bread", "stone", "song"]
    texts = [" ".join([("good", "bad")[label], *rng.choice(filler, rng.integers(1, 12))]) for label in labels]
    return pd.DataFrame({"text": texts, "label": labels, "p": np.where(labels == 1, 0.9, 0.2)})


TRAIN, VALIDATION = _rows(96), _rows(24, seed=1)


def _model(family="gpt2", seed=0, options=TINY):
    return loading.load_classifier(
        f"scratch:{family}?{options}", labels=["safe", "unsafe"], texts=TRAIN.text, seed=seed
    )


PLAIN = TINY + "&dropout=0"


def _fit(rows=TRAIN, validation=VALIDATION, options=TINY, loss=losses.hard_ce, target="label", place=None, **changes):
    """A classifier trained from the same weights. changes: of SETTINGS."""
    settings, given = replace(SETTINGS, **changes), {"loss": loss, "target": target, "checkpoint_dir": place}
    return finetune.fit_classifier(*_model(options=options), rows, validation, settings, **given)


def _losses(fit, metric="validation_loss"):
    return fit.curves[fit.curves.metric == metric].set_index("step").value


def _weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(first, second):
    import torch

    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------------------------------------------------- batches


def test_pad_by_hand():
    ids, mask = batches.pad([np.array([5, 0, 7]), np.array([0]), np.array([9, 9])], value=3)
    assert ids.tolist() == [
        [5, 0, 7],
        [0, 3, 3],  # token id 0 is a token, and the pad id is not 0
        [9, 9, 3],
    ]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    ids, mask = batches.pad([np.array([1, 2, 3])], value=0, multiple=8)  # a multiple of it
    assert ids.tolist() == [[1, 2, 3, 0, 0, 0, 0, 0]]
    assert mask.sum() == 3


def test_language_model_labels_skip_padding_and_nothing_else():
    rows = batches.TokenRows([np.array([1, 2, 3]), np.array([0, 3])], pad_id=3, language_model=True)
    batch = rows.__getitems__([0, 1])
    assert batch["labels"].tolist() == [[1, 2, 3], [0, 3, -100]]  # a real token with the pad id is learnt
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_packed_by_hand():
    blocks = batches.packed([np.array([1, 2, 3]), np.array([4]), np.array([5, 6])], end=9, length=4)
    assert [block.tolist() for block in blocks] == [
        [1, 2, 3, 9],
        [4, 9, 5, 6],
    ]  # the single token 9 left over predicts nothing


def test_length_grouped_batches_hold_each_row_once_and_like_lengths_together():
    lengths = np.random.default_rng(0).integers(1, 100, 333)
    sampler = batches.LengthGroupedBatches(lengths, 16, seed=4)
    first, second = sampler.batches(0), sampler.batches(1)
    for epoch in (first, second):
        assert sorted(sum(epoch, [])) == list(range(333))
        assert len(epoch) == len(sampler) == 21
        padded = sum(lengths[batch].max() * len(batch) for batch in epoch)
        assert padded < 1.1 * lengths.sum()
        assert lengths.max() in lengths[epoch[0]]
    assert first == sampler.batches(0) != second
    assert first != batches.LengthGroupedBatches(lengths, 16, seed=5).batches(0)
    assert sampler.tokens(42) == 2 * lengths.sum()
    assert sampler.tokens(1) == lengths[first[0]].sum()


def test_batches_have_the_class_shares_of_their_pool_where_length_tells_the_class():
    rng = np.random.default_rng(0)
    classes = rng.random(960) < 0.4
    lengths = np.where(classes, rng.integers(10, 20, 960), rng.integers(20, 60, 960))
    shares, padded = {}, {}
    for name, given in (("length alone", None), ("by class", classes)):
        made = batches.LengthGroupedBatches(lengths, 16, seed=4, classes=given).batches(0)
        assert sorted(sum(made, [])) == list(range(960))
        shares[name] = np.std([classes[batch].mean() for batch in made])
        padded[name] = sum(lengths[batch].max() * len(batch) for batch in made) / lengths.sum()
    shuffled = rng.permutation(960).reshape(60, 16)
    assert shares["length alone"] > 0.4 and shares["by class"] < 0.05 < classes[shuffled].mean(1).std()
    assert padded["by class"] < 1.5 < lengths[shuffled].max(1).sum() * 16 / lengths.sum()


def test_special_tokens_in_a_text_are_plain_characters():
    _, tokenizer = _model()
    ids, _ = batches.tokenise(tokenizer, ["a <|pad|><|endoftext|>", ""], max_length=32)
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids[0].tolist())
    assert ids[1].tolist() == [tokenizer.eos_token_id]  # an empty text is not a fully masked row


def test_text_pairs():
    _, tokenizer = _model()
    ids, types = batches.tokenise(tokenizer, ["who"], ["the law"], max_length=32)
    assert types is None and tokenizer.decode(ids[0]) == "who<|endoftext|>the law"
    assert ids[0].tolist().count(tokenizer.eos_token_id) == 1


def test_text_pairs_are_cut_at_the_longer_text():
    _, tokenizer = _model()
    end = tokenizer.eos_token_id
    long = " ".join(["river"] * 30)
    whole = [len(tokenizer(text).input_ids) for text in ("who", long)]
    (first, second), _ = batches.tokenise(tokenizer, ["who", long], [long, "who"], max_length=20)
    assert len(first) == len(second) == 20
    assert first.tolist().index(end) == whole[0]
    assert 19 - second.tolist().index(end) == whole[0]
    (both,), _ = batches.tokenise(tokenizer, [long], [long], max_length=20)
    assert both.tolist().index(end) == 10  # 10 tokens, the separator, 9 tokens
    (empty, none), _ = batches.tokenise(tokenizer, ["", ""], ["who", ""], max_length=20)
    assert empty[0] == end and none.tolist() == [end]
    assert batches.shares(3, 9, 10) == (3, 7) and batches.shares(9, 3, 10) == (7, 3)
    assert batches.shares(9, 9, 9) == (5, 4)


def test_bert_pairs_keep_the_tokenizers_own_template():
    from tokenizers.processors import TemplateProcessing

    _, tokenizer = _model("bert")
    tokenizer.sep_token = tokenizer.eos_token
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B:1 <|endoftext|>:1", special_tokens=[("<|endoftext|>", 0)]
    )
    (ids,), _ = batches.tokenise(tokenizer, ["who"], ["the law"], max_length=32)
    assert tokenizer.decode(ids) == "who<|endoftext|>the law<|endoftext|>"


@pytest.mark.parametrize("family", ["gpt1", "gpt2", "llama"])
def test_a_separator_that_is_also_the_pad_token_does_not_disturb_the_classifier(family):
    """As GPT-2 as released: the end token pads, and parts question and clause."""
    import torch

    model, tokenizer = _model(family)
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.eos_token_id
    texts, pairs = ["who", "the river runs", "a"], ["the law", "x", "stone and song " * 5]
    ids, _ = batches.tokenise(tokenizer, texts, pairs, max_length=32)
    rows = batches.TokenRows(ids, tokenizer.pad_token_id)
    together = model.eval()(**rows.__getitems__([0, 1, 2])).logits
    alone = torch.cat([model(**rows[i]).logits for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    changed = rows.__getitems__([0, 1, 2])
    changed["input_ids"][0, 0] += 1  # what stands before the separator is read
    assert not torch.allclose(model(**changed).logits[0], together[0], atol=1e-6)


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("family", ["gpt1", "gpt2", "bert", "llama"])
def test_training_learns_and_changes_every_weight(family):
    # GPT-1 and GPT-2 attention biases on keys have no gradient of their own, but share a tensor with queries and values
    model, tokenizer = _model(family)
    before = _weights(model)
    fit = finetune.fit_classifier(model, tokenizer, TRAIN, VALIDATION, replace(SETTINGS, epochs=6))
    still = [name for name, value in _weights(fit.model).items() if (value == before[name]).all()]
    assert [name for name in still if "key.bias" not in name and "token_type" not in name] == []
    p = finetune.predict_proba(fit.model, tokenizer, VALIDATION, **READ)
    assert ((p[:, 1] >= 0.5) == VALIDATION.label).mean() > 0.9
    assert p.shape == (24, 2) and p.dtype == np.float32
    assert p.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)


def test_fit_reports_curves_tokens_and_best_step(capfd):
    fit = _fit()
    ids, _ = batches.tokenise(_model()[1], TRAIN.text, max_length=32)
    assert fit.tokens_trained == 2 * sum(map(len, ids))
    assert set(fit.curves.metric) == {"train_loss", "learning_rate", "validation_loss", "validation_accuracy"}
    assert list(fit.curves.columns) == ["step", "metric", "value"]
    losses = _losses(fit)
    assert losses.index.tolist() == [5, 10, 15, 20, 24]  # every eval_steps, and the last step
    assert fit.best_step == losses.idxmin()
    assert fit.seconds > 0 and not fit.model.training
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""


def test_the_best_state_is_restored_and_training_stops_early():
    """A learning rate that wrecks the model after a while: what is returned is the state with the lowest loss seen."""
    model, tokenizer = _model()
    wild = replace(SETTINGS, epochs=20, learning_rate=0.3, scheduler="constant", eval_steps=2, patience=2)
    fit = finetune.fit_classifier(model, tokenizer, TRAIN, VALIDATION, wild)
    losses = _losses(fit)
    assert losses.index[-1] < 240  # stopped
    assert fit.best_step == losses.idxmin() == losses.index[-3]  # patience: two looks after the best
    p = finetune.predict_proba(fit.model, tokenizer, VALIDATION, **READ)
    chosen = p[np.arange(24), VALIDATION.label]
    assert -np.log(chosen).mean() == pytest.approx(losses.min(), rel=1e-4)


def test_patience_zero_trains_to_the_end():
    assert _fit(learning_rate=0.3, eval_steps=1, patience=0).curves.step.max() == 24


def test_without_validation_rows_the_last_state_is_kept():
    fit = _fit(validation=None)
    assert fit.best_step == 24
    assert set(fit.curves.metric) == {"train_loss", "learning_rate"}


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    first, same, other = (_weights(_fit(validation=None, seed=seed).model) for seed in (0, 0, 1))
    assert _equal(first, same) and not _equal(first, other)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch, accumulation):
    rows = TRAIN[:40]  # 5 steps an epoch, or 3 (of 2, 2 and 1 batches)
    settings = {"epochs": 3, "patience": 0, "gradient_accumulation": accumulation, "warmup_steps": 3, "eval_steps": 2}
    whole = None
    for stop_at in (4, 5, 6):  # last checkpoint within an epoch and at its end
        place = tmp_path / str(stop_at)
        with killed_at(stop_at, monkeypatch):
            _fit(rows, place=place, **settings)
        whole = whole or _fit(rows, **settings)  # which logs as often as one that is killed
        assert sorted(path.name for path in place.iterdir()) == sorted(f"checkpoint-{stop_at - i}" for i in (1, 2))
        (place / f"checkpoint-{stop_at}").mkdir()  # cut short while it was written
        resumed = _fit(rows, place=place, **settings)
        assert _equal(_weights(resumed.model), _weights(whole.model)), stop_at
        pd.testing.assert_frame_equal(resumed.curves, whole.curves)
        assert (resumed.best_step, resumed.tokens_trained) == (whole.best_step, whole.tokens_trained)


def test_checkpoints_hold_nothing_that_needs_unpickling(tmp_path, monkeypatch, capfd):
    import torch
    from transformers.trainer_pt_utils import safe_globals

    from underseer.training import steering

    monkeypatch.setattr(steering, "SAVE_SECONDS", 0.0)
    _fit(TRAIN[:40], place=tmp_path)
    assert capfd.readouterr() == ("", "")  # saving has a progress bar of its own, which the hook on it silences
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert files
    for path in files:
        with safe_globals():
            torch.load(path, weights_only=True)


def test_gradient_accumulation_equals_one_larger_batch(monkeypatch):
    """Micro-batches of 8 rows accumulated to 16 take the same steps as batches of 16, dropout aside."""
    import torch

    from underseer.training import loop

    class InOrder(batches.LengthGroupedBatches):
        def batches(self, epoch):
            return [list(range(i, min(i + self.batch_size, 40))) for i in range(0, 40, self.batch_size)]

    monkeypatch.setattr(loop, "LengthGroupedBatches", InOrder)
    short = TRAIN.assign(text=TRAIN.text.str.split().str[:2].str.join(" "))
    rows = short.iloc[:40]  # 40 = 2 x 16 + 8: a short last step
    first, second = (
        _weights(_fit(rows, None, PLAIN, losses.soft_ce, "p", batch_size=n, gradient_accumulation=k).model)
        for n, k in ((8, 2), (16, 1))
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_loss_is_given_its_targets_and_the_progress():
    seen = []

    def spy(logits, targets, progress):
        seen.append((targets.tolist(), progress))
        return losses.soft_ce(logits, targets)

    for target, values in (("label", {0.0, 1.0}), ("p", {0.2, 0.9})):
        seen.clear()
        _fit(validation=None, loss=spy, target=target)
        assert {round(value, 3) for targets, _ in seen for value in targets} == values
        assert [progress for _, progress in seen] == pytest.approx([i / 24 for i in range(24)])


def test_a_loss_of_ones_own_trains():
    """Any function of logits and targets: torch's own cross-entropy ends where hard_ce does, a focal loss elsewhere."""
    import torch

    def focal(logits, targets):
        p = (logits.log_softmax(dim=-1) * torch.stack([1 - targets, targets], dim=1)).sum(dim=1).exp()
        return -((1 - p) ** 2 * p.log()).mean()

    def torchs(logits, targets):
        return torch.nn.functional.cross_entropy(logits, targets.long())

    p = []
    for loss in (losses.hard_ce, torchs, focal):
        model, tokenizer = _fit(loss=loss).model, _model()[1]
        p.append(finetune.predict_proba(model, tokenizer, VALIDATION, max_length=32, device="cpu"))
    assert p[1] == pytest.approx(p[0], abs=1e-4) and np.abs(p[2] - p[0]).max() > 0.01
    assert np.log(p[2])[np.arange(24), VALIDATION.label].mean() > -0.69  # it has learnt


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (TRAIN, {"loss": "hard_ce"}, "loss = 'hard_ce'; expected a function"),
        (TRAIN, {"loss": lambda logits, targets: targets}, r"gave a tensor of shape \(8,\); expected a mean over rows"),
        (TRAIN.drop(columns=["label"]), {}, "no column 'label'"),
        (TRAIN.drop(columns=["text"]), {}, "no column 'text'"),
        (TRAIN.iloc[:0], {}, "no training rows"),
        (TRAIN.assign(label=2), {}, r"outside \[0, 1\]"),
        (TRAIN.assign(p=np.nan), {"target": "p"}, r"outside \[0, 1\]"),
        (
            TRAIN.assign(weight=range(96)),
            {"loss": losses.aux_conf},
            "loss 'aux_conf' takes no weights.*hard_ce or soft_ce",
        ),
        (TRAIN.assign(weight=np.nan), {}, "column 'weight'.*negative, infinite or missing"),
    ],
)
def test_fit_errors_are_one_line(rows, changes, message):
    model, tokenizer = _model()
    with pytest.raises(UserError, match=message) as error:
        finetune.fit_classifier(model, tokenizer, rows, VALIDATION, SETTINGS, **changes)
    assert "\n" not in str(error.value)


def test_the_trainer_still_collects_garbage_at_each_start(monkeypatch):
    """Why ``loop.run`` freezes what is imported. Where this fails, the Trainer has stopped, and the freezing can go."""
    import gc

    frozen, collect = [], gc.collect
    monkeypatch.setattr(gc, "collect", lambda *args: frozen.append(gc.get_freeze_count()) or collect(*args))
    finetune.fit_classifier(*_model(), TRAIN[:8], None, replace(SETTINGS, epochs=1))
    assert any(count > 100_000 for count in frozen) and gc.get_freeze_count() == 0


def test_the_trainers_number_of_gpus_is_what_we_set(tmp_path):
    """``arguments_for`` sets a private field so that the Trainer never splits a batch over GPUs by itself."""
    import torch

    from underseer.training import loop

    arguments = loop.arguments_for(SETTINGS, tmp_path, torch.device("cpu"), 96)
    assert arguments.n_gpu == arguments._n_gpu <= 1
    arguments._n_gpu = 4
    assert arguments.n_gpu == 4


def test_warm_up_and_schedule():
    fit = _fit(validation=None, warmup_ratio=0.25, eval_steps=1)
    rate = _losses(fit, "learning_rate") / SETTINGS.learning_rate
    # the rate used in step 1; 6 of 24 steps warm up
    assert rate[[1, 4, 7, 16]].tolist() == pytest.approx([0, 3 / 6, 1, 9 / 18])


def test_bf16_autocast_keeps_weights_in_fp32_and_stays_close():
    import torch

    fits = [_fit(validation=None, options=PLAIN, precision=arithmetic) for arithmetic in ("fp32", "bf16")]
    assert {value.dtype for fit in fits for value in fit.model.parameters()} == {torch.float32}
    full, half = (finetune.predict_proba(fit.model, _model()[1], VALIDATION, **READ) for fit in fits)
    assert np.abs(full - half).max() < 0.1


def test_precision_rule():
    import torch

    model, _ = _model()
    cpu = torch.device("cpu")
    assert not precision.use_bf16(model, cpu, "fp32")
    assert precision.use_bf16(model, cpu, "bf16")
    assert not precision.use_bf16(model, cpu, "auto")  # too narrow to gain
    with pytest.raises(UserError, match="allowed are auto"):
        precision.use_bf16(model, cpu, "fp16")


# ------------------------------------------------------------------------------------------------------- prediction


def test_prediction_keeps_the_order_of_rows_whatever_the_batches():
    model, tokenizer = _model()
    rows = _rows(37, seed=2)
    one = finetune.predict_proba(model, tokenizer, rows, max_length=32, batch_size=1, device="cpu")
    many = finetune.predict_proba(model, tokenizer, rows, max_length=32, batch_size=16, device="cpu")
    assert np.allclose(one, many, atol=1e-6)
    backwards = finetune.predict_proba(model, tokenizer, rows[::-1], max_length=32, batch_size=16, device="cpu")
    assert np.allclose(backwards[::-1], many, atol=1e-6)
    assert finetune.predict_proba(model, tokenizer, rows[:0], max_length=32, device="cpu").shape == (0, 2)


def test_texts_longer_than_the_model_are_cut():
    model, tokenizer = _model()
    rows = pd.DataFrame({"text": ["river " * 500, "lamp"]})
    assert np.isfinite(finetune.predict_proba(model, tokenizer, rows, max_length=512, device="cpu")).all()


# -------------------------------------------------------------------------------------------------- language models


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("family", ["gpt1", "gpt2"])
def test_a_language_model_learns(family, pack):
    model, tokenizer = loading.load_language_model(f"scratch:{family}?{TINY}", texts=TRAIN.text)
    settings = replace(SETTINGS, epochs=12, learning_rate=1e-2)
    fit = finetune.fit_language_model(model, tokenizer, list(TRAIN.text), list(VALIDATION.text), settings, pack=pack)
    losses = fit.curves[fit.curves.metric == "validation_loss"].value
    assert losses.iloc[0] > 3.5 and losses.min() < 2.6  # from about ln 280 = 5.6; five words of filler cost ln 5 each
    ids, _ = batches.tokenise(tokenizer, TRAIN.text, max_length=64)
    per_epoch = sum(len(row) + 1 for row in ids)  # each text and its end token
    assert fit.tokens_trained == pytest.approx(12 * per_epoch, rel=0.01)


def test_language_model_loss_is_the_models_own():
    import torch

    model, tokenizer = loading.load_language_model(f"scratch:gpt2?{TINY}", texts=TRAIN.text)
    rows = batches.TokenRows([np.array([1, 2, 3, 4]), np.array([0, 3])], tokenizer.pad_token_id, language_model=True)
    batch = rows.__getitems__([0, 1])
    with torch.inference_mode():
        output = model.eval()(**batch)
    values, count = objectives.language_metrics(output.logits, batch["labels"])
    assert count == 4  # three predictions in the first row, one in the second
    assert values["loss"] == pytest.approx(output.loss.item(), rel=1e-5)


def test_no_texts_are_refused():
    model, tokenizer = loading.load_language_model(f"scratch:gpt2?{TINY}", texts=TRAIN.text)
    with pytest.raises(UserError, match="no training texts"):
        finetune.fit_language_model(model, tokenizer, [], None, SETTINGS)


# ---------------------------------------------------------------------------------------------------- continuations

PROMPTS = pd.DataFrame(
    {
        "text": ["who", "the river runs", "", "a lamp and a stone " * 8],
        "continuation": [" knows the song", "", " bread", " falls " * 20],
    }
)


def _language_model(family="gpt2", options=PLAIN):
    return loading.load_language_model(f"scratch:{family}?{options}", texts=TRAIN.text)


def test_continuation_rows_by_hand():
    from underseer.training.rows import continuation_rows

    _, tokenizer = _language_model()
    end = tokenizer.eos_token_id
    rows = continuation_rows(tokenizer, PROMPTS, "training", length=32, multiple=1)
    batch = rows.__getitems__([0, 1, 2, 3])
    learnt = [row[row != -100].tolist() for row in batch["labels"]]
    whole = [[*tokenizer(text).input_ids, end] for text in PROMPTS.continuation]
    assert learnt[:3] == whole[:3]
    assert learnt[3] == whole[3][:16]  # both longer than half of the room
    heads = [row[: len(row) - len(labels)].tolist() for row, labels in zip(rows.ids, learnt, strict=True)]
    prompts = [tokenizer(text).input_ids for text in PROMPTS.text]
    assert heads == [prompts[0], prompts[1], [end], prompts[3][-16:]]
    short = continuation_rows(tokenizer, PROMPTS, "training", length=2, multiple=1)
    assert {len(row) for row in short.ids} == {2} and set(short.begins) == {1}


def test_no_end_is_learnt_after_a_continuation_that_was_cut():
    from underseer.training.rows import continuation_rows

    _, tokenizer = _language_model()
    end = tokenizer.eos_token_id
    rows = continuation_rows(tokenizer, PROMPTS[:3].assign(cut=[True, True, False]), "training", length=32, multiple=1)
    learnt = [row[begin:].tolist() for row, begin in zip(rows.ids, rows.begins, strict=True)]
    texts = [tokenizer(text).input_ids for text in PROMPTS.continuation[:3]]
    assert learnt == [texts[0], [end], [*texts[2], end]]  # of an empty one the end alone is there to learn
    weighed = PROMPTS[:3].assign(cut=[False, False, True], weight=[0, 1, 1])
    assert continuation_rows(tokenizer, weighed, "training", length=32, multiple=1).ids[1][-1] == texts[2][-1]


def test_an_opening_token_stays_when_a_prompt_is_cut():
    row = np.array([7, 1, 2, 3, 4])
    assert batches.cut_left(row, 3, start=7).tolist() == [7, 3, 4]
    assert batches.cut_left(row, 3, start=None).tolist() == [2, 3, 4]
    assert batches.cut_left(row, 5, start=7).tolist() == row.tolist()


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5, 3.0]])
def test_continuation_loss_is_the_mean_over_continuation_tokens(weight):
    """The first training loss and the validation loss before a step, against an explicit sum over tokens."""
    import torch

    model, tokenizer = _language_model()
    rows = PROMPTS if weight is None else PROMPTS.assign(weight=weight)
    total = count = 0.0
    for i, (text, continuation) in enumerate(zip(rows.text, rows.continuation, strict=True)):
        head = tokenizer(text).input_ids or [tokenizer.eos_token_id]
        tail = [*tokenizer(continuation).input_ids, tokenizer.eos_token_id]
        if i == 3:
            head, tail = head[-16:], tail[:16]
        with torch.inference_mode():
            log_p = model.eval()(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        w = 1.0 if weight is None else weight[i]
        total -= w * sum(log_p[len(head) - 1 + k, token].item() for k, token in enumerate(tail))
        count += w * len(tail)
    settings = replace(SETTINGS, epochs=1, batch_size=2, gradient_accumulation=2, learning_rate=1e-12, eval_steps=1)
    fit = finetune.fit_continuations(model, tokenizer, rows, rows, settings)
    values = fit.curves.set_index("metric").value
    assert values["train_loss"] == pytest.approx(total / count, rel=1e-5)
    assert values["validation_loss"] == pytest.approx(total / count, rel=1e-5)


def test_a_language_model_learns_to_continue():
    model, tokenizer = _language_model()
    rows = pd.DataFrame({"text": ["good", "bad"] * 8, "continuation": [" river", " stone lamp"] * 8})
    settings = replace(SETTINGS, epochs=40, learning_rate=3e-2)
    fit = finetune.fit_continuations(model, tokenizer, rows, rows[:4], settings)
    assert fit.curves[fit.curves.metric == "validation_loss"].value.min() < 0.1
    from underseer.engines import Sampling, local

    answers = local.generate(fit.model, tokenizer, ["bad", "good"], Sampling(), **cpu())
    assert [(a.text, a.finish_reason) for (a,) in answers] == [(" stone lamp", "stop"), (" river", "stop")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (PROMPTS.drop(columns="continuation"), "no column 'continuation'"),
        (PROMPTS.iloc[:0], "no training rows"),
        (PROMPTS.assign(continuation=[None, *"abc"]), "1 of the 4 training rows have no text or no continuation"),
        (PROMPTS.assign(weight=[1.0, -1.0, 1.0, 1.0]), "'weight' of the training rows holds negative"),
        (PROMPTS.assign(weight=0.0), "all 4 training rows have weight 0"),
    ],
)
def test_continuation_errors_are_one_line(rows, message):
    model, tokenizer = _language_model()
    with pytest.raises(UserError, match=message) as error:
        finetune.fit_continuations(model, tokenizer, rows, None, SETTINGS)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------- weights


def _trained(rows, loss=losses.hard_ce, **changes):
    return _fit(rows, rows, PLAIN, loss, "p" if loss is losses.soft_ce else "label", **changes)


def test_equal_weights_are_no_weights_and_weight_zero_is_no_row():
    plain = _trained(TRAIN)
    weighed = _trained(TRAIN.assign(weight=0.3))
    assert _equal(_weights(plain.model), _weights(weighed.model))
    pd.testing.assert_frame_equal(plain.curves, weighed.curves)
    rng = np.random.default_rng(0)
    weights = rng.random(96).astype(np.float32)
    weights[::3] = 0
    rows = TRAIN.assign(weight=weights)
    assert _equal(_weights(_trained(rows).model), _weights(_trained(rows[rows.weight > 0]).model))


@pytest.mark.parametrize("loss", [losses.hard_ce, losses.soft_ce])
def test_a_row_of_weight_two_is_that_row_twice(loss):
    """One step on weighted rows is the step on rows repeated so often; the curves agree too."""
    import torch

    rows = TRAIN[:12].assign(weight=[1, 2, 3] * 4)
    repeated = rows.loc[rows.index.repeat(rows.weight)].drop(columns="weight")
    first = _trained(rows, loss, epochs=1, batch_size=6, gradient_accumulation=2)
    second = _trained(repeated, loss, epochs=1, batch_size=24)
    tensors = _weights(second.model)
    assert all(torch.allclose(value, tensors[name], atol=2e-5) for name, value in _weights(first.model).items())
    assert first.curves.value.to_numpy() == pytest.approx(second.curves.value.to_numpy(), rel=1e-5)


def test_continuations_take_weights():
    import torch

    rows = PROMPTS.assign(weight=[1, 3, 2, 1])
    repeated = rows.loc[rows.index.repeat(rows.weight)].drop(columns="weight")
    found = []
    for part, size, accumulation in ((rows, 2, 2), (repeated, 7, 1)):
        model, tokenizer = _language_model()
        settings = replace(SETTINGS, epochs=1, batch_size=size, gradient_accumulation=accumulation)
        found.append(_weights(finetune.fit_continuations(model, tokenizer, part, None, settings).model))
    assert all(torch.allclose(value, found[1][name], atol=2e-5) for name, value in found[0].items())
