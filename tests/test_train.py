"""Batches by hand, and training on tiny models: learning, early stopping, resuming, determinism, prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from underseer import batches, models, train
from underseer.errors import UserError
from underseer.train import TrainSettings

TINY = "n_layer=1&n_embd=16&n_head=2&n_positions=64&vocab_size=280"
SETTINGS = TrainSettings(
    epochs=2,
    batch_size=8,
    learning_rate=5e-3,
    eval_steps=5,
    max_length=32,
    device="cpu",
    precision="fp32",
    progress=False,
)


def _rows(n, seed=0):
    """Prompts whose class is one word, in texts of very different length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    filler = ["river", "lamp", "bread", "stone", "song"]
    texts = [" ".join([("good", "bad")[label], *rng.choice(filler, rng.integers(1, 12))]) for label in labels]
    return pd.DataFrame({"text": texts, "label": labels, "p": np.where(labels == 1, 0.9, 0.2)})


TRAIN, VALIDATION = _rows(96), _rows(24, seed=1)


def _model(family="gpt2", seed=0, options=TINY):
    return models.load_classifier(f"scratch:{family}?{options}", labels=["safe", "unsafe"], texts=TRAIN.text, seed=seed)


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


def test_pad_rounds_up_to_a_multiple():
    ids, mask = batches.pad([np.array([1, 2, 3])], value=0, multiple=8)
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


def test_special_tokens_in_a_text_are_plain_characters():
    _, tokenizer = _model()
    ids, _ = batches.tokenise(tokenizer, ["a <|pad|><|endoftext|>", ""], max_length=32)
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids[0].tolist())
    assert ids[1].tolist() == [tokenizer.eos_token_id]  # an empty text is not a fully masked row


def test_text_pairs():
    _, tokenizer = _model()
    ids, types = batches.tokenise(tokenizer, ["who"], ["the law"], max_length=32)
    assert types is None and tokenizer.decode(ids[0]) == "who\nthe law"


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("family", ["gpt1", "gpt2", "bert", "llama"])
def test_training_learns_and_changes_every_weight(family):
    # GPT-1 and GPT-2 attention biases on keys have no gradient of their own, but share a tensor with queries and values
    model, tokenizer = _model(family)
    before = _weights(model)
    fit = train.fit_classifier(model, tokenizer, TRAIN, VALIDATION, replace(SETTINGS, epochs=6))
    still = [name for name, value in _weights(fit.model).items() if (value == before[name]).all()]
    assert [name for name in still if "key.bias" not in name and "token_type" not in name] == []
    p = train.predict_proba(fit.model, tokenizer, VALIDATION, max_length=32, device="cpu", precision="fp32")
    assert ((p[:, 1] >= 0.5) == VALIDATION.label).mean() > 0.9
    assert p.shape == (24, 2) and p.dtype == np.float32
    assert p.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)


def test_fit_reports_curves_tokens_and_best_step(capfd):
    model, tokenizer = _model()
    fit = train.fit_classifier(model, tokenizer, TRAIN, VALIDATION, SETTINGS)
    ids, _ = batches.tokenise(tokenizer, TRAIN.text, max_length=32)
    assert fit.tokens_trained == 2 * sum(map(len, ids))
    assert set(fit.curves.metric) == {"train_loss", "learning_rate", "validation_loss", "validation_accuracy"}
    assert list(fit.curves.columns) == ["step", "metric", "value"]
    losses = fit.curves[fit.curves.metric == "validation_loss"]
    assert losses.step.tolist() == [5, 10, 15, 20, 24]  # every eval_steps, and the last step
    assert fit.best_step == losses.step.iloc[losses.value.argmin()]
    assert fit.seconds > 0 and not fit.model.training
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""


def test_the_best_state_is_restored_and_training_stops_early():
    """A learning rate that wrecks the model after a while: what is returned is the state with the lowest loss seen."""
    model, tokenizer = _model()
    wild = replace(SETTINGS, epochs=20, learning_rate=0.3, scheduler="constant", eval_steps=2, patience=2)
    fit = train.fit_classifier(model, tokenizer, TRAIN, VALIDATION, wild)
    losses = fit.curves[fit.curves.metric == "validation_loss"].set_index("step").value
    assert losses.index[-1] < 240  # stopped
    assert fit.best_step == losses.idxmin() == losses.index[-3]  # patience: two looks after the best
    p = train.predict_proba(fit.model, tokenizer, VALIDATION, max_length=32, device="cpu", precision="fp32")
    chosen = p[np.arange(24), VALIDATION.label]
    assert -np.log(chosen).mean() == pytest.approx(losses.min(), rel=1e-4)


def test_patience_zero_trains_to_the_end():
    model, tokenizer = _model()
    fit = train.fit_classifier(
        model, tokenizer, TRAIN, VALIDATION, replace(SETTINGS, learning_rate=0.3, eval_steps=1, patience=0)
    )
    assert fit.curves.step.max() == 24


def test_without_validation_rows_the_last_state_is_kept():
    model, tokenizer = _model()
    fit = train.fit_classifier(model, tokenizer, TRAIN, None, SETTINGS)
    assert fit.best_step == 24
    assert set(fit.curves.metric) == {"train_loss", "learning_rate"}


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    results = []
    for seed in (0, 0, 1):
        model, tokenizer = _model()
        results.append(
            _weights(train.fit_classifier(model, tokenizer, TRAIN, None, replace(SETTINGS, seed=seed)).model)
        )
    assert _equal(results[0], results[1])
    assert not _equal(results[0], results[2])


@pytest.mark.parametrize("stop_at", [4, 5, 6])  # last checkpoint within an epoch and at its end
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch, stop_at, accumulation):
    from underseer import trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "LOG_STEPS", 1)
    settings = replace(SETTINGS, epochs=3, patience=0, gradient_accumulation=accumulation, warmup_steps=3, eval_steps=2)
    rows = TRAIN[:40]  # 5 steps an epoch, or 3 (of 2, 2 and 1 batches)

    model, tokenizer = _model()
    whole = train.fit_classifier(model, tokenizer, rows, VALIDATION, settings)

    class Killed(BaseException):
        pass

    step_end = trainer.Steering.on_step_end

    def dying(self, args, state, control, **kwargs):
        if state.global_step == stop_at:
            raise Killed
        step_end(self, args, state, control, **kwargs)

    model, tokenizer = _model()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Steering, "on_step_end", dying)
        train.fit_classifier(model, tokenizer, rows, VALIDATION, settings, checkpoint_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"checkpoint-{stop_at - i}" for i in (1, 2))
    (tmp_path / f"checkpoint-{stop_at}").mkdir()  # cut short while it was written

    model, tokenizer = _model()
    resumed = train.fit_classifier(model, tokenizer, rows, VALIDATION, settings, checkpoint_dir=tmp_path)
    assert _equal(_weights(resumed.model), _weights(whole.model))
    pd.testing.assert_frame_equal(resumed.curves, whole.curves)
    assert (resumed.best_step, resumed.tokens_trained) == (whole.best_step, whole.tokens_trained)


def test_checkpoints_hold_nothing_that_needs_unpickling(tmp_path, monkeypatch):
    import torch
    from transformers.trainer_pt_utils import safe_globals

    from underseer import trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    model, tokenizer = _model()
    train.fit_classifier(model, tokenizer, TRAIN[:40], VALIDATION, SETTINGS, checkpoint_dir=tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert files
    for path in files:
        with safe_globals():
            torch.load(path, weights_only=True)


def test_gradient_accumulation_equals_one_larger_batch():
    """Micro-batches of 8 rows accumulated to 16 take the same steps as batches of 16, dropout aside."""
    import torch

    options = TINY + "&dropout=0"
    rows = TRAIN.assign(text=TRAIN.text.str.split().str[:2].str.join(" ")).iloc[
        :40
    ]  # 40 = 2 x 16 + 8: a short last step
    found = []
    for size, accumulation in ((8, 2), (16, 1)):
        model, tokenizer = _model(options=options)

        class InOrder(batches.LengthGroupedBatches):
            def batches(self, epoch):
                return [list(range(i, min(i + self.batch_size, 40))) for i in range(0, 40, self.batch_size)]

        from underseer import trainer

        original, trainer.LengthGroupedBatches = trainer.LengthGroupedBatches, InOrder
        try:
            settings = replace(SETTINGS, batch_size=size, gradient_accumulation=accumulation)
            found.append(_weights(train.fit_classifier(model, tokenizer, rows, None, settings, loss="soft_ce").model))
        finally:
            trainer.LengthGroupedBatches = original
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_losses_take_their_own_target_column(monkeypatch):
    """hard_ce learns from label, soft losses from p, where rows have both."""
    from underseer.w2s import losses

    seen = {}

    def spy(name):
        def loss(logits, targets, progress):
            seen.setdefault(name, []).append((targets.tolist(), progress))
            return losses.soft_ce(logits, targets, progress)

        return loss

    for name in ("hard_ce", "aux_conf"):
        monkeypatch.setitem(losses.LOSSES, name, spy(name))
        model, tokenizer = _model()
        train.fit_classifier(model, tokenizer, TRAIN, None, SETTINGS, loss=name)
    assert {value for targets, _ in seen["hard_ce"] for value in targets} == {0.0, 1.0}
    assert {round(value, 3) for targets, _ in seen["aux_conf"] for value in targets} == {0.2, 0.9}
    assert [progress for _, progress in seen["aux_conf"]] == pytest.approx([i / 24 for i in range(24)])


@pytest.mark.parametrize(
    ("rows", "loss", "message"),
    [
        (TRAIN, "hard", "loss 'hard' is unknown.*did you mean 'hard_ce'"),
        (TRAIN.drop(columns=["label", "p"]), "hard_ce", "no column 'label'"),
        (TRAIN.drop(columns=["text"]), "hard_ce", "no column 'text'"),
        (TRAIN.iloc[:0], "hard_ce", "no training rows"),
        (TRAIN.assign(label=2), "hard_ce", r"outside \[0, 1\]"),
        (TRAIN.assign(p=np.nan), "soft_ce", r"outside \[0, 1\]"),
    ],
)
def test_fit_errors_are_one_line(rows, loss, message):
    model, tokenizer = _model()
    with pytest.raises(UserError, match=message) as error:
        train.fit_classifier(model, tokenizer, rows, VALIDATION, SETTINGS, loss=loss)
    assert "\n" not in str(error.value)


def test_warm_up_and_schedule():
    model, tokenizer = _model()
    fit = train.fit_classifier(model, tokenizer, TRAIN, None, replace(SETTINGS, warmup_ratio=0.25, eval_steps=1))
    rate = fit.curves[fit.curves.metric == "learning_rate"].set_index("step").value / SETTINGS.learning_rate
    assert rate[1] == pytest.approx(0)  # the rate used in step 1; 6 of 24 steps warm up
    assert rate[4] == pytest.approx(3 / 6)
    assert rate[7] == pytest.approx(1)
    assert rate[16] == pytest.approx(9 / 18)


def test_bf16_autocast_keeps_weights_in_fp32_and_stays_close():
    import torch

    found = []
    for precision in ("fp32", "bf16"):
        model, tokenizer = _model(options=TINY + "&dropout=0")
        fit = train.fit_classifier(model, tokenizer, TRAIN, None, replace(SETTINGS, precision=precision))
        assert {value.dtype for value in fit.model.parameters()} == {torch.float32}
        found.append(
            train.predict_proba(fit.model, tokenizer, VALIDATION, max_length=32, device="cpu", precision="fp32")
        )
    assert np.abs(found[0] - found[1]).max() < 0.1


def test_precision_rule():
    import torch

    model, _ = _model()
    cpu = torch.device("cpu")
    assert not train.use_bf16(model, cpu, "fp32")
    assert train.use_bf16(model, cpu, "bf16")
    assert not train.use_bf16(model, cpu, "auto")  # too narrow to gain
    with pytest.raises(UserError, match="allowed are auto"):
        train.use_bf16(model, cpu, "fp16")


# ------------------------------------------------------------------------------------------------------- prediction


def test_prediction_keeps_the_order_of_rows_whatever_the_batches():
    model, tokenizer = _model()
    rows = _rows(37, seed=2)
    one = train.predict_proba(model, tokenizer, rows, max_length=32, batch_size=1, device="cpu")
    many = train.predict_proba(model, tokenizer, rows, max_length=32, batch_size=16, device="cpu")
    assert np.allclose(one, many, atol=1e-6)
    backwards = train.predict_proba(model, tokenizer, rows[::-1], max_length=32, batch_size=16, device="cpu")
    assert np.allclose(backwards[::-1], many, atol=1e-6)
    assert train.predict_proba(model, tokenizer, rows[:0], max_length=32, device="cpu").shape == (0, 2)


def test_texts_longer_than_the_model_are_cut():
    model, tokenizer = _model()
    rows = pd.DataFrame({"text": ["river " * 500, "lamp"]})
    assert np.isfinite(train.predict_proba(model, tokenizer, rows, max_length=512, device="cpu")).all()


# -------------------------------------------------------------------------------------------------- language models


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("family", ["gpt1", "gpt2"])
def test_a_language_model_learns(family, pack):
    model, tokenizer = models.load_language_model(f"scratch:{family}?{TINY}", texts=TRAIN.text)
    settings = replace(SETTINGS, epochs=12, learning_rate=1e-2)
    fit = train.fit_language_model(model, tokenizer, list(TRAIN.text), list(VALIDATION.text), settings, pack=pack)
    losses = fit.curves[fit.curves.metric == "validation_loss"].value
    assert losses.iloc[0] > 3.5 and losses.min() < 2.6  # from about ln 280 = 5.6; five words of filler cost ln 5 each
    ids, _ = batches.tokenise(tokenizer, TRAIN.text, max_length=64)
    per_epoch = sum(len(row) + 1 for row in ids)  # each text and its end token
    assert fit.tokens_trained == pytest.approx(12 * per_epoch, rel=0.01)


def test_language_model_loss_is_the_models_own():
    import torch

    model, tokenizer = models.load_language_model(f"scratch:gpt2?{TINY}", texts=TRAIN.text)
    rows = batches.TokenRows([np.array([1, 2, 3, 4]), np.array([0, 3])], tokenizer.pad_token_id, language_model=True)
    batch = rows.__getitems__([0, 1])
    with torch.inference_mode():
        output = model.eval()(**batch)
    values, count = train._language_metrics(output.logits, batch["labels"])
    assert count == 4  # three predictions in the first row, one in the second
    assert values["loss"] == pytest.approx(output.loss.item(), rel=1e-5)


def test_no_texts_are_refused():
    model, tokenizer = models.load_language_model(f"scratch:gpt2?{TINY}", texts=TRAIN.text)
    with pytest.raises(UserError, match="no training texts"):
        train.fit_language_model(model, tokenizer, [], None, SETTINGS)
