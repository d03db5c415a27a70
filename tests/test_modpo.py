"""MODPO: hand-worked values, and the actual DPOTrainer against the explicit formula and against TRL's own DPO."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tiny import TURNS, chat_model, killed_at
from underseer.errors import UserError
from underseer.maths import modpo
from underseer.models.adapters import LoraSettings
from underseer.training.align import AlignSettings, Origin, align, make_trainer
from underseer.training.pair_rows import pair_rows
from underseer.training.settings import TrainSettings

TRAIN = TrainSettings(
    epochs=3, batch_size=8, learning_rate=3e-3, warmup_ratio=0.1, eval_steps=8, max_length=64, device="cpu",
    precision="fp32", progress=False,
)  # fmt: skip
FULL = AlignSettings(TRAIN, temperature=0.2, beta=0.1, lora=None)  # MODPO at beta 0.1 and w 0.5
LORA = replace(FULL, train=replace(TRAIN, learning_rate=1e-2), lora=LoraSettings(rank=8))
DPO, DPO_LORA = replace(FULL, temperature=0.1), replace(LORA, temperature=0.1)
WEIGHTS = {
    1: "helpfulness=0.6,safety=0.4",
    2: "helpfulness=0.5,safety=0.3,brevity=0.2",
    3: "helpfulness=0.4,safety=0.3,brevity=0.2,tone=0.1",
}


def _pairs(n, seed=0):
    """Chosen answers begin with one word, rejected ones with another; all else and all scores are random."""
    rng = np.random.default_rng(seed)

    def text():
        return " ".join(rng.choice(["river", "lamp", "bread", "stone", "song"], rng.integers(1, 8)))

    frame = pd.DataFrame(
        {
            "id": [f"{seed}-{i}" for i in range(n)],
            "prompt": [text() for _ in range(n)],
            "chosen": ["good " + text() for _ in range(n)],
            "rejected": ["bad " + text() for _ in range(n)],
        }
    )
    for stem in ("helpful", "unsafe", "brevity", "tone"):
        for side in ("chosen", "rejected"):
            frame[f"{stem}_{side}"] = rng.random(n)
    return shifted(frame)


def shifted(pairs, weights="helpfulness:0.5,safety:0.5", beta=0.1, divide=True, scale=1.0):
    """Pairs with MODPO's shift of the reference, as ``4_align`` adds it."""
    goals = modpo.parse_weights(weights, "helpfulness")
    _, shift = modpo.dpo_equivalent(modpo.margins(pairs, goals.others, scale), beta, goals.weight, divide)
    return pairs.assign(shift=shift)


PAIRS, HELD_OUT = _pairs(64), _pairs(16, seed=1)
PLAIN = PAIRS.drop(columns="shift")


def _model(family="gpt2", seed=0):
    return chat_model([*PAIRS.prompt, *PAIRS.chosen, *PAIRS.rejected], family, seed)


def _trainer(model, tokenizer, settings, folder, pairs=PAIRS, **origin):
    """The trainer as ``align`` makes it, before the first step."""
    rows = {"training": pair_rows(tokenizer, pairs, "training", length=64)}
    trainer, _ = make_trainer(model, tokenizer, rows, settings, folder, Origin(**origin))
    trainer.model.train()
    return trainer


def _move(model, seed=3):
    """Move what is trainable at random, so that the policy is not its reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def _batch(trainer, indices):
    return trainer._collate(trainer.train_dataset.__getitems__(list(indices)))


def _log_probs(model, batch):
    """Sums of the answers' log-probabilities, by the shortest road there is."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    each = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (each * batch["completion_mask"][:, 1:]).sum(1).chunk(2)


def _gradients(loss, model):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.autograd.grad(loss, trained, retain_graph=True)


def _close(first, second, tolerance=1e-5):
    return all(torch.allclose(a, b, atol=tolerance, rtol=1e-5) for a, b in zip(first, second, strict=True))


# ------------------------------------------------------------------------------------------------------------ maths


def test_loss_by_hand():
    one = torch.tensor
    parts = one([-10.0]), one([-12.0]), one([-11.0]), one([-11.5])  # delta = (1) - (-0.5) = 1.5
    loss = modpo.modpo_loss(*parts, one([0.05]), beta=0.1, weight=0.5)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-(0.15 - 0.05) / 0.5))))
    loss = modpo.modpo_loss(*parts, one([0.05]), beta=0.1, weight=0.5, divide_by_weight=False)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-(0.15 - 0.05)))))


@pytest.mark.parametrize("divide", [True, False], ids=["modpo", "published"])
def test_loss_is_dpo_with_a_shifted_reference(divide):
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, ref_chosen, ref_rejected, m = (
        torch.randn(100, generator=generator, dtype=torch.float64) * 5 for _ in range(5)
    )
    explicit = modpo.modpo_loss(
        chosen, rejected, ref_chosen, ref_rejected, m, beta=0.2, weight=0.3, divide_by_weight=divide
    )
    beta, shift = modpo.dpo_equivalent(m, 0.2, 0.3, divide)
    dpo = -torch.nn.functional.logsigmoid(beta * ((chosen - ref_chosen - shift) - (rejected - ref_rejected)))
    assert torch.allclose(explicit, dpo, atol=1e-12)


def test_margins_count_higher_as_better_and_unsafe_negated():
    pairs = pd.DataFrame(
        {"unsafe_chosen": [0.9, 0.1], "unsafe_rejected": [0.2, 0.1], "tone_chosen": [1.0, 0.0], "tone_rejected": 0.5}
    )
    assert modpo.margins(pairs, {"safety": 0.5}).tolist() == pytest.approx([-0.35, 0.0])
    assert modpo.margins(pairs, {"safety": 0.5, "tone": 0.2}, scale=2).tolist() == pytest.approx([-0.5, -0.2])
    assert modpo.margins(pairs, {}).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop(columns="unsafe_rejected"), "'safety' needs the column 'unsafe_rejected'"),
        (lambda p: p.assign(unsafe_chosen=np.nan), "'unsafe_chosen' has no score in 64 of 64 pairs"),
    ],
)
def test_margins_that_cannot_be_had(change, message):
    with pytest.raises(UserError, match=message):
        modpo.margins(change(PAIRS), {"safety": 0.5})


def test_weights():
    goals = modpo.parse_weights(" helpfulness = 0.5, safety=0.25,tone=0", "helpfulness")
    assert (goals.weight, goals.others) == (0.5, {"safety": 0.25})
    assert modpo.parse_weights("safety=1", "safety").others == {}
    for weights, ordering, message in (
        ("safety=1", "helpfulness", "'helpfulness' is not among the objective_weights; they name safety"),
        ("helpfulness=0,safety=1", "helpfulness", "helpfulness = 0; it must be above 0"),
        ("helpfulness=1,safety=-1", "helpfulness", "safety = -1; it must be at least 0"),
        ("helpfulness=1,safety", "helpfulness", "'safety'.*is not NAME:NUMBER"),
        ("helpfulness=1,helpfulness=2", "helpfulness", "each name once"),
        ("helpfulness=x", "helpfulness", "NAME:NUMBER"),
        ("helpfulness=nan", "helpfulness", "helpfulness = nan"),
        ("", "helpfulness", "they name none"),
    ):
        with pytest.raises(UserError, match=message):
            modpo.parse_weights(weights, ordering)


def test_nll_skips_what_is_not_counted_and_a_fully_masked_row():
    log_probs = torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    nll = modpo.length_normalised_nll(log_probs, mask, [True, False, True])
    assert nll.tolist() == [1.5, 0.0, 0.0]
    nll.sum().backward()
    assert log_probs.grad[1].tolist() == [0, 0, 0] and torch.isfinite(log_probs.grad).all()


# ---------------------------------------------------------------------------------------------- the actual trainer


@pytest.mark.parametrize("divide", [True, False], ids=["modpo", "published"])
@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("extra", [1, 2, 3])
def test_the_trainer_equals_the_explicit_formula(settings, extra, divide, tmp_path):
    goals = modpo.parse_weights(WEIGHTS[extra], "helpfulness")
    settings = replace(settings, temperature=0.3 / goals.weight if divide else 0.3, beta=0.3)
    model, tokenizer = _model()
    reference = copy.deepcopy(model).eval()
    trainer = _trainer(model, tokenizer, settings, tmp_path, shifted(PAIRS, WEIGHTS[extra], 0.3, divide, 2.0))
    _move(trainer.model)
    batch = _batch(trainer, range(5, 17))
    assert len(goals.others) == extra
    with torch.no_grad():
        ref_chosen, ref_rejected = _log_probs(reference, batch)
    explicit = modpo.modpo_loss(
        *_log_probs(trainer.model, batch), ref_chosen, ref_rejected,
        torch.tensor(modpo.margins(PAIRS[5:17], goals.others, 2.0), dtype=torch.float32),
        beta=0.3, weight=goals.weight, divide_by_weight=divide,
    ).mean()  # fmt: skip
    actual = trainer.compute_loss(trainer.model, dict(batch))
    assert abs(explicit.item() - math.log(2)) > 0.01
    assert actual.item() == pytest.approx(explicit.item(), abs=1e-5)
    assert _close(_gradients(actual, trainer.model), _gradients(explicit, trainer.model))


def _stock(model, tokenizer, pairs, folder, lora, online, **more):
    """TRL's DPOTrainer as its users write it: texts in, online or precomputed reference."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    message = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    dataset = Dataset.from_list(
        [
            {
                "prompt": message("user", row.prompt),
                "chosen": message("assistant", row.chosen),
                "rejected": message("assistant", row.rejected),
            }
            for row in pairs.itertuples()
        ]
    )
    values = dict(
        output_dir=str(folder), beta=0.1, max_length=64, bf16=False, use_cpu=True, gradient_checkpointing=False,
        report_to="none", disable_tqdm=True, per_device_train_batch_size=8, seed=0, precompute_ref_log_probs=not online,
    )  # fmt: skip
    config = None
    if lora:
        config = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM")
    return DPOTrainer(
        model=model, ref_model=None if lora or not online else copy.deepcopy(model), args=DPOConfig(**{**values, **more}),
        train_dataset=dataset, processing_class=tokenizer, peft_config=config,
    )  # fmt: skip


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
@pytest.mark.parametrize("settings", [DPO, DPO_LORA], ids=["full", "lora"])
def test_without_margins_and_with_weight_one_it_is_trls_dpo_with_an_online_reference(settings, fast, tmp_path):
    """Its own data preparation, collator, head and loss; the template ends turns without a newline, as ours reads them."""
    settings = replace(settings, fast=fast)
    model, tokenizer = _model()
    tokenizer.chat_template = TURNS.replace("\n", "")
    stock = _stock(copy.deepcopy(model), tokenizer, PAIRS, tmp_path, settings.lora, online=True)
    ours = _trainer(model, tokenizer, settings, tmp_path, PLAIN)
    _move(stock.model)
    _move(ours.model)
    for start in (0, 24):
        batch = stock.data_collator([stock.train_dataset[i] for i in range(start, start + 8)])
        mine = ours.data_collator(ours.train_dataset.__getitems__(list(range(start, start + 8))))
        for name in ("input_ids", "attention_mask", "completion_mask"):
            assert torch.equal(batch[name], mine[name])
        theirs = stock.compute_loss(stock.model, batch)
        loss = ours.compute_loss(ours.model, _batch(ours, range(start, start + 8)) if fast else mine)
        assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
        trained = [name for name, parameter in ours.model.named_parameters() if parameter.requires_grad]
        assert trained == [name for name, parameter in stock.model.named_parameters() if parameter.requires_grad]
        assert _close(_gradients(loss, ours.model), _gradients(theirs, stock.model))


def test_token_rows_are_trls_without_what_follows_the_end_of_the_turn(tmp_path):
    model, tokenizer = _model()
    theirs = _stock(model, tokenizer, PAIRS, tmp_path, None, online=False).train_dataset
    ours = pair_rows(tokenizer, PAIRS, "training", length=64)
    newline = tokenizer("\n").input_ids
    for i, row in enumerate(theirs):
        assert ours.prompts[i].tolist() == row["prompt_ids"]
        for name, rows in (("chosen_ids", ours.chosen), ("rejected_ids", ours.rejected)):
            assert [*rows[i].tolist(), *newline] == row[name]


def test_a_fully_masked_row_and_token_id_zero(tmp_path):
    """A row without answer tokens adds nothing, and id 0 is a token like others."""
    model, tokenizer = _model()
    reference = copy.deepcopy(model).eval()
    trainer = _trainer(model, tokenizer, FULL, tmp_path)
    _move(trainer.model)
    batch = _batch(trainer, range(4))
    begin = int(batch["completion_mask"][1].argmax())
    batch["input_ids"][1, begin] = 0
    batch["completion_mask"][2] = 0
    with torch.no_grad():
        ref_chosen, ref_rejected = _log_probs(reference, batch)
        assert ref_chosen[2] == 0
    batch["ref_chosen_logps"], batch["ref_rejected_logps"] = ref_chosen + batch["shift"], ref_rejected
    goals = modpo.parse_weights("helpfulness:0.5,safety:0.5", "helpfulness")
    explicit = modpo.modpo_loss(
        *_log_probs(trainer.model, batch), ref_chosen, ref_rejected,
        torch.tensor(modpo.margins(PAIRS[:4], goals.others), dtype=torch.float32), beta=0.1, weight=0.5,
    ).mean()  # fmt: skip
    loss = trainer.compute_loss(trainer.model, dict(batch))
    assert loss.item() == pytest.approx(explicit.item(), abs=1e-5)
    assert _close(_gradients(loss, trainer.model), _gradients(explicit, trainer.model))
    batch["completion_mask"][:] = 0
    empty = trainer.compute_loss(trainer.model, dict(batch))
    assert math.isfinite(empty.item())
    assert all(torch.isfinite(gradient).all() and not gradient.any() for gradient in _gradients(empty, trainer.model))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_the_head_gives_the_models_own_log_probabilities(family, tmp_path, monkeypatch):
    from underseer.training import head

    model, tokenizer = _model(family)
    trainer = _trainer(model, tokenizer, DPO, tmp_path, PLAIN)
    batch = _batch(trainer, range(8))
    if family == "gemma2":
        assert model.config.final_logit_softcapping
    expected = torch.cat(_log_probs(model, batch))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)

    def scored():
        return model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True)

    whole = scored().log_probs.sum(1)
    monkeypatch.setattr(head, "CHUNK", 300 * 7)  # in parts of seven tokens
    parts = scored().log_probs.sum(1)
    assert torch.allclose(whole, expected, atol=1e-4) and torch.allclose(parts, expected, atol=1e-4)
    assert _close(_gradients(parts.sum(), model), _gradients(expected.sum(), model), tolerance=1e-3)
    trainer.release()
    assert "forward" not in model.__dict__


def test_nll_term_learns_from_safe_chosen_answers_only(tmp_path):
    model, tokenizer = _model()
    pairs = PAIRS.assign(counted=PAIRS.unsafe_chosen < 0.4)
    trainer = _trainer(model, tokenizer, replace(FULL, nll_weight=0.7), tmp_path, pairs)
    plain = _trainer(*_model(), FULL, tmp_path)
    batch = _batch(trainer, range(8))
    safe = (PAIRS.unsafe_chosen[:8] < 0.4).to_numpy()
    assert 0 < safe.sum() < 8
    assert batch["counted"].tolist() == safe.tolist()
    chosen, _ = _log_probs(model, batch)
    tokens = batch["completion_mask"][:8, 1:].sum(1)
    expected = 0.7 * (-(chosen / tokens) * torch.tensor(safe)).mean()
    loss = trainer.compute_loss(model, dict(batch))
    assert loss.item() == pytest.approx(
        (expected + plain.compute_loss(plain.model, _batch(plain, range(8)))).item(), abs=1e-5
    )


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_it_learns_to_prefer(settings):
    model, tokenizer = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = align(model, tokenizer, PAIRS, settings, validation=HELD_OUT)
    curves = found.curves.pivot(index="step", columns="metric", values="value")
    assert curves.train_loss.iloc[-1] < curves.train_loss.iloc[0] - 0.05
    assert curves.reward_margin.iloc[-1] > curves.reward_margin.iloc[0] + 0.05
    assert curves.validation_reward_accuracy.iloc[-1] > 0.8
    assert {"chosen_logp", "rejected_logp", "learning_rate"} <= set(curves.columns)
    assert found.pairs_trained == 64
    assert found.tokens_trained == 3 * pair_rows(tokenizer, PAIRS, "training", length=64).tokens.sum()
    below = found.model.get_base_model() if settings.lora else found.model
    after = {
        name.replace(".base_layer", ""): value for name, value in below.state_dict().items() if "lora_" not in name
    }
    assert all(torch.equal(before[name], after[name]) for name in before) == (settings.lora is not None)
    assert "forward" not in below.__dict__ and not found.model.training


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_trls_trainer_as_it_is_ends_in_the_same_weights(settings):
    """All pairs in one batch, so that the order of batches is no difference: loss, optimizer and schedule are."""
    settings = replace(settings, train=replace(settings.train, batch_size=64, epochs=6))
    ours, theirs = (align(*_model(), PAIRS, replace(settings, fast=fast)) for fast in (True, False))
    first, second = ours.model.state_dict(), theirs.model.state_dict()
    assert first.keys() == second.keys() and all(torch.allclose(first[n], second[n], atol=1e-4) for n in first)
    assert (ours.tokens_trained, ours.tokens_scored > 0) == (theirs.tokens_trained, theirs.tokens_scored > 0)
    curves = [frame.curves.pivot(index="step", columns="metric", values="value") for frame in (ours, theirs)]
    shared = ["train_loss", "chosen_logp", "rejected_logp"]
    pd.testing.assert_frame_equal(curves[0][shared], curves[1][shared], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
def test_what_was_trained_is_the_formula(fast):
    from underseer.selfmoa import aligning

    aligned = align(*_model(), PAIRS, replace(LORA, fast=fast), validation=HELD_OUT)
    margins = modpo.margins(PAIRS, {"safety": 0.5})

    def formula(*parts):
        return modpo.modpo_loss(*parts, beta=0.1, weight=0.5)

    assert len(aligned.trained.rows) == 8 and (aligned.trained.loss - math.log(2)).abs().max() > 0.01
    assert aligning.largest_difference(aligned, formula, margins) < 1e-5
    assert aligning.largest_difference(aligned, formula, margins + 0.5) > 0.01
    assert aligning.largest_difference(None, formula, margins) == 0


def test_an_answer_that_was_cut_gets_no_end_of_turn():
    _, tokenizer = _model()
    whole = pair_rows(tokenizer, PAIRS[:2], "training", length=64)
    cut = pair_rows(tokenizer, PAIRS[:2].assign(chosen_cut=[True, False], rejected_cut=False), "training", length=64)
    assert cut.chosen[0].tolist() == whole.chosen[0][:-1].tolist() and whole.chosen[0][-1] == tokenizer.eos_token_id
    assert cut.chosen[1].tolist() == whole.chosen[1].tolist() and cut.rejected[0].tolist() == whole.rejected[0].tolist()


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_changes_memory_not_weights(settings):
    plain = align(*_model(), PAIRS, settings).model
    saved = align(*_model(), PAIRS, replace(settings, gradient_checkpointing=True)).model
    assert not saved.is_gradient_checkpointing
    first, second = plain.state_dict(), saved.state_dict()
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_bf16_has_log_probabilities_of_its_own_in_the_cache(tmp_path):
    half = replace(FULL, train=replace(TRAIN, precision="bf16"))
    curves = [align(*_model(), PAIRS, settings, origin=Origin(cache=tmp_path)).curves for settings in (FULL, half)]
    first, second = (frame.query("metric == 'train_loss'").value.to_numpy() for frame in curves)
    assert np.isfinite(second).all() and not np.array_equal(first, second)
    np.testing.assert_allclose(first, second, atol=0.05)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_chat_can_be_aligned_after_it_was_fine_tuned(tmp_path):
    """The safety reset's adapter is merged; the adapter of the alignment goes on top."""
    from underseer.training import finetune as train_module

    model, tokenizer = _model()
    answers = PAIRS.rename(columns={"rejected": "answer"})[["prompt", "answer"]]
    reset = train_module.fit_chats(model, tokenizer, answers, None, TRAIN, lora=LoraSettings(rank=4)).model
    with pytest.raises(UserError, match="adapter already"):
        align(reset, tokenizer, PAIRS, LORA)
    found = align(reset.merge_and_unload(), tokenizer, PAIRS, LORA)
    assert found.curves.query("metric == 'reward_accuracy'").value.iloc[-1] > 0.8


def test_logged_rewards_are_without_the_shift(tmp_path):
    """Before the first step the policy is the reference: rewards are 0, whatever the margins."""
    trainer = _trainer(*_model(), FULL, tmp_path, shifted(PAIRS, scale=5.0))
    trainer.compute_loss(trainer.model, _batch(trainer, range(16)))
    means = trainer._means("train", gather=False)
    for name in ("chosen_reward", "rejected_reward", "reward_margin"):
        assert means[name] == pytest.approx(0, abs=1e-4)
    assert means["chosen_logp"] < 0 and not trainer._metrics["train"]


def test_same_seed_same_weights_and_another_seed_others():
    first, second = (align(*_model(), PAIRS, LORA).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = align(*_model(), PAIRS, replace(LORA, train=replace(LORA.train, seed=5))).model.state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_an_interrupted_call_ends_in_the_same_weights(settings, tmp_path, monkeypatch):
    with killed_at(12, monkeypatch):
        align(*_model(), PAIRS, settings, checkpoint_dir=tmp_path)
    whole = align(*_model(), PAIRS, settings)
    assert list(tmp_path.glob("checkpoint-*"))
    resumed = align(*_model(), PAIRS, settings, checkpoint_dir=tmp_path)
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.tokens_trained == whole.tokens_trained


def test_the_next_iteration_goes_on_from_the_adapter_with_the_chosen_reference(tmp_path):
    align(*_model(), PAIRS, LORA).model.save_pretrained(tmp_path / "one")
    model, tokenizer = _model()
    reset = copy.deepcopy(model).eval()
    batches, references = {}, {}
    for reference in ("reset", "previous"):
        settings = replace(DPO_LORA, reference=reference)
        trainer = _trainer(copy.deepcopy(model), tokenizer, settings, tmp_path, PLAIN, adapter_in=tmp_path / "one")
        assert list(trainer.model.peft_config) == ["default"]
        assert all(parameter.requires_grad for name, parameter in trainer.model.named_parameters() if "lora_" in name)
        batches[reference] = _batch(trainer, range(8))
        with torch.no_grad():
            references[reference] = _log_probs(reset if reference == "reset" else trainer.model, batches[reference])
        loss = trainer.compute_loss(trainer.model, dict(batches[reference])).item()
        assert (loss == pytest.approx(math.log(2), abs=1e-4)) == (reference == "previous")
        trainer.release()
    for reference, (chosen, rejected) in references.items():
        assert torch.allclose(batches[reference]["ref_chosen_logps"], chosen, atol=1e-4)
        assert torch.allclose(batches[reference]["ref_rejected_logps"], rejected, atol=1e-4)
    two = align(model, tokenizer, PAIRS, LORA, origin=Origin(tmp_path / "one"))
    two.model.save_pretrained(tmp_path / "two")
    assert (tmp_path / "two" / "adapter_model.safetensors").is_file()


def test_a_whole_model_may_have_a_reference_of_its_own(tmp_path):
    model, tokenizer = _model()
    reset, _ = _model(seed=7)
    trainer = _trainer(model, tokenizer, FULL, tmp_path, reference_model=reset)
    batch = _batch(trainer, range(8))
    with torch.no_grad():
        chosen, rejected = _log_probs(reset, batch)
    assert torch.allclose(batch["ref_chosen_logps"] - batch["shift"], chosen, atol=1e-4)
    assert torch.allclose(batch["ref_rejected_logps"], rejected, atol=1e-4)
    trainer.release()
    assert "forward" not in reset.__dict__ and "forward" not in model.__dict__


# ------------------------------------------------------------------------------------------------------------ cache


def _count(monkeypatch):
    """Count the rows that pass through the reference, and the training steps."""
    from underseer.training import pair_trainer

    seen = {"reference": 0, "steps": 0}
    score, step = pair_trainer.answer_log_probs, pair_trainer.PairTrainer.training_step

    def scored(model, prompts, *args, **kwargs):
        seen["reference"] += len(prompts)
        return score(model, prompts, *args, **kwargs)

    def stepped(self, *args, **kwargs):
        seen["steps"] += 1
        return step(self, *args, **kwargs)

    monkeypatch.setattr(pair_trainer, "answer_log_probs", scored)
    monkeypatch.setattr(pair_trainer.PairTrainer, "training_step", stepped)
    return seen


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_a_sweep_of_three_weights_is_three_trainings_and_one_reference_pass(settings, tmp_path, monkeypatch):
    seen = _count(monkeypatch)
    scored = []
    for i, weight in enumerate((0.1, 0.4, 0.8)):
        beta, weights = 0.1 * (1 + i % 2), {"helpfulness": weight, "safety": 1 - weight}
        swept = replace(settings, temperature=beta / weight, train=replace(settings.train, epochs=1, seed=i))
        scored.append(
            align(*_model(), shifted(PAIRS, weights, beta), swept, origin=Origin(cache=tmp_path)).tokens_scored
        )
    answers = sum(len(set(zip(PAIRS.prompt, PAIRS[side], strict=True))) for side in ("chosen", "rejected"))
    assert seen == {"reference": answers, "steps": 3 * 8}
    assert scored[0] > 0 and scored[1:] == [0] * 2
    align(*_model(), pd.concat([PAIRS[:9], HELD_OUT]), settings, origin=Origin(cache=tmp_path))
    assert seen["reference"] == answers + 2 * (9 + 16)  # another set of answers, all of them


def test_the_cache_knows_the_model_by_its_content(tmp_path, monkeypatch):
    seen = _count(monkeypatch)
    once = replace(LORA, train=replace(LORA.train, epochs=1))
    align(*_model(), PAIRS, once, origin=Origin(cache=tmp_path)).model.save_pretrained(tmp_path / "adapter")
    first = seen["reference"]
    align(*_model(), PAIRS, once, origin=Origin(tmp_path / "adapter", cache=tmp_path))  # reset: the same model
    assert seen["reference"] == first
    align(*_model(), PAIRS, replace(once, reference="previous"), origin=Origin(tmp_path / "adapter", cache=tmp_path))
    assert seen["reference"] == 2 * first
    align(*_model(seed=1), PAIRS, once, origin=Origin(cache=tmp_path))
    assert seen["reference"] == 3 * first
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]


def test_log_probabilities_do_not_hang_on_which_stage_came_first(tmp_path):
    """An answer's value is rounded otherwise in other batches: here each pass adds a little of its own size and order."""
    from underseer.training.pair_rows import PairRows
    from underseer.training.reference import ReferenceCache

    def rows(numbers):
        one, n = [np.asarray([number]) for number in numbers], len(numbers)
        answers = [row + 100 for row in one], [row + 200 for row in one]
        return PairRows(
            list(map(str, numbers)), one, *answers, np.arange(n), np.ones(n, dtype=bool), np.zeros(n), {}, 0
        )

    def score(prompts, answers):
        place = np.arange(len(answers)) / 100 + len(answers)
        return np.asarray([answer[0] for answer in answers], dtype=np.float32) + place.astype(np.float32)

    whole, part = [5, 3, 8, 1], [3, 8, 9]
    alone = ReferenceCache().pairs(rows(whole), score)
    ReferenceCache(tmp_path).pairs(rows(part), score)
    for numbers in (whole, whole[::-1]):
        after = ReferenceCache(tmp_path).pairs(rows(numbers), score)
        order = [numbers.index(number) for number in whole]
        assert all(np.array_equal(side, other[order]) for side, other in zip(alone, after, strict=True))


# ---------------------------------------------------------------------------------------------------------- refusals


def test_what_can_not_be_learnt_from_is_left_out_and_counted():
    _, tokenizer = _model()
    pairs = PAIRS[:5].copy()
    pairs.loc[0, "prompt"] = "river " * 200
    pairs.loc[1, "rejected"] = pairs.loc[1, "chosen"]
    pairs.loc[2, "rejected"] = ""
    pairs.loc[3, "chosen"] = "song " * 200
    rows = pair_rows(tokenizer, pairs, "training", length=64)
    assert rows.dropped == {"long_prompt": 1, "same_answer": 1} and rows.cut == 1
    assert rows.ids == pairs.id[2:].tolist() and rows.index.tolist() == [2, 3, 4]
    assert rows.rejected[0].tolist() == [tokenizer.eos_token_id]  # an empty answer is the end of the turn
    assert rows.longest.max() == 64
    found = align(*_model(), pairs, FULL)
    assert found.pairs_trained == 3 and found.dropped == rows.dropped and found.cut == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:0], "there are no training pairs"),
        (lambda p: p.drop(columns="chosen"), "no column 'chosen'"),
        (lambda p: p.assign(id="same"), "63 of the 64 training pairs repeat the id"),
        (lambda p: p.assign(rejected=p.chosen), "none of the 64 training pairs.*64 have two equal answers"),
        (lambda p: p.assign(rejected=None), "64 of the 64 training pairs lack a prompt or an answer"),
    ],
)
def test_pairs_that_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        align(*_model(), change(PAIRS), FULL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": ["ipo"]}, "loss_type = .'ipo'.: MODPO is DPO's sigmoid loss"),
        ({"loss_type": ["sigmoid_norm"]}, "loss_type"),
        ({"loss_type": ["sigmoid", "sft"]}, "loss_type"),
        ({"loss_weights": [2.0]}, "loss_weights"),
        ({"ld_alpha": 0.5}, "ld_alpha = 0.5"),
        ({"use_weighting": True}, "use_weighting = True.*no WPO weighting"),
        ({"use_liger_kernel": True}, "use_liger_kernel = True"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type"),
        ({"truncation_mode": "keep_end"}, "truncation_mode"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"sync_ref_model": True}, "sync_ref_model"),
        ({"beta": 0.5}, "'beta' follows from the other settings"),
        ({"gradient_checkpoint": True}, "no field 'gradient_checkpoint'; did you mean 'gradient_checkpointing'"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trl_options_that_would_not_be_modpo_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        align(*_model(), PAIRS, replace(FULL, trl_options=options))


def test_other_refusals(tmp_path):
    for wrong, message in (
        ({"beta": 0.0}, "beta = 0; it must be above 0"),
        ({"temperature": 0.0}, "temperature = 0; it must be above 0"),
        (
            {"nll_weight": 0.1, "fast": False},
            "nll_weight = 0.1: TRL's trainer has no such term; take fast = True, or 0",
        ),
        ({"reference": "base"}, "reference = 'base'; allowed are reset, previous"),
        ({"nll_weight": -1.0}, "nll_weight = -1"),
    ):
        with pytest.raises(UserError, match=message):
            AlignSettings(TRAIN, **wrong)
    with pytest.raises(UserError, match="'q_proj' matches no linear layer.*c_attn"):
        align(*_model(), PAIRS, replace(LORA, lora=LoraSettings(targets="q_proj")))
    with pytest.raises(UserError, match="no adapter_config.json"):
        align(*_model(), PAIRS, LORA, origin=Origin(tmp_path))
    with pytest.raises(UserError, match="merge the adapter first"):
        align(*_model(), PAIRS, FULL, origin=Origin(tmp_path))
    model, tokenizer = _model()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        align(model, tokenizer, PAIRS, FULL)
