"""Chats as training rows, adapters, and supervised fine-tuning on chats: what is learnt, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tiny import TURNS, chat_model, killed_at
from underseer.errors import UserError
from underseer.models import adapters, chats
from underseer.models.adapters import LoraSettings
from underseer.training import finetune
from underseer.training.finetune import TrainSettings
from underseer.training.rows import chat_rows

SETTINGS = TrainSettings(
    epochs=6, batch_size=4, learning_rate=1e-2, eval_steps=12, max_length=64, device="cpu", precision="fp32",
    progress=False,
)  # fmt: skip
TRAIN = pd.DataFrame({"prompt": ["what is red", "what is blue"] * 12, "answer": ["a rose", "the sea"] * 12})


def _model(seed=0, family="gpt2"):
    return chat_model([*TRAIN.prompt, *TRAIN.answer], family, seed)


def test_only_the_answer_and_the_end_of_its_turn_are_learnt():
    _, tokenizer = _model()
    rows = chat_rows(tokenizer, TRAIN[:2], "training", length=64, multiple=1)
    batch = rows.__getitems__([0, 1])
    for i, answer in enumerate(TRAIN.answer[:2]):
        learnt = batch["labels"][i][batch["labels"][i] != -100]
        assert tokenizer.decode(learnt) == f"{answer}<|endoftext|>"  # without the newline after the turn
        read = batch["input_ids"][i][batch["labels"][i] == -100]
        assert tokenizer.decode(read[: rows.begins[i]]) == f"<|user|>{TRAIN.prompt[i]}<|endoftext|>\n<|assistant|>"


def test_no_answer_can_end_its_turn():
    _, tokenizer = _model()
    row = chats.answer_rows(tokenizer, ["a<|endoftext|>b"])[0]
    assert row.tolist().count(tokenizer.eos_token_id) == 1 and row[-1] == tokenizer.eos_token_id


def test_answers_are_tokenised_where_they_stand():
    """A sentence-piece tokenizer writes a space before the first word of a text, but none inside one."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"</s>": 0, "▁": 1, "▁x": 2, "x": 3, "[A]": 4, "▁[A]": 5, "yes": 6, "▁yes": 7, "x[A]yes": 8, "?": 9}
    raw = Tokenizer(WordLevel(words, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split("[A]", "isolated")]
    )
    raw.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="?")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}[A]{% else %}</s>{% endif %}{% endfor %}"
    )
    assert tokenizer("yes").input_ids == [7]
    assert chats.prompt_rows(tokenizer, [chats.ask("x")])[0].tolist() == [2, 4]
    assert chats.answer_rows(tokenizer, ["yes"])[0].tolist() == [6, 0]


def test_white_space_tokens_in_a_text_stay():
    _, tokenizer = _model()
    tokenizer.add_tokens(["\n\n", "<|turn|>"])
    assert chats.render(tokenizer, chats.ask("a\n\nb <|turn|>")).startswith("<|user|>a\n\nb < |turn|>")


def test_an_answer_that_would_merge_with_the_prompt_leaves_the_prompt_as_it_is():
    _, tokenizer = _model()
    tokenizer.chat_template = TURNS.replace("<|assistant|>{%", "<|assistant|>re{%").replace(
        "|>{{ m.content", "|>{{ 're' if m.role == 'assistant' else '' }}{{ m.content"
    )
    prompt = chats.prompt_rows(tokenizer, [chats.ask("x")])[0].tolist()
    together = tokenizer(chats.render(tokenizer, chats.ask("x")) + "d", add_special_tokens=False).input_ids
    assert together[: len(prompt)] != prompt  # "red" is one token here, "re" and "d" are two
    assert tokenizer.decode(chats.answer_rows(tokenizer, ["d"])[0]) == "d<|endoftext|>"


def test_an_empty_answer_is_the_end_of_the_turn_alone():
    _, tokenizer = _model()
    assert [row.tolist() for row in chats.answer_rows(tokenizer, [""])] == [[tokenizer.eos_token_id]]
    assert chats.answer_rows(tokenizer, []) == []


def test_what_the_template_puts_before_an_answer_is_kept_and_a_missing_end_is_the_end_token():
    _, tokenizer = _model()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[Q]' if m.role == 'user' else '[A] ' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[A]{% endif %}"
    )
    assert tokenizer.decode(chats.answer_rows(tokenizer, ["yes"])[0]) == " yes<|endoftext|>"


def test_a_template_that_rewrites_the_prompt_is_refused():
    _, tokenizer = _model()
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="chat_template.jinja"):
        chats.answer_rows(tokenizer, ["yes"])


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["full", "lora"])
def test_fit_chats_learns_the_answers(lora):
    model, tokenizer = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = finetune.fit_chats(model, tokenizer, TRAIN, TRAIN[:4], SETTINGS, lora=lora)
    losses = fitted.curves.query("metric == 'validation_loss'").value.to_list()
    assert losses[-1] < (0.7 if lora is None else 1) * losses[0]  # an adapter on random weights can do little
    after = {name.replace(".base_layer", "").removeprefix("base_model.model."): value for name, value in
             fitted.model.state_dict().items() if "lora_" not in name}  # fmt: skip
    same = all(np.array_equal(before[name].numpy(), after[name].numpy()) for name in before)
    assert same == (lora is not None)


def test_fit_chats_with_an_adapter_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    def fit(place=None):
        return finetune.fit_chats(
            *_model(), TRAIN, TRAIN[:4], SETTINGS, lora=LoraSettings(rank=4), checkpoint_dir=place
        ).model.state_dict()

    with killed_at(6, monkeypatch):
        fit(tmp_path)
    assert list(tmp_path.glob("checkpoint-*"))
    whole, resumed = fit(), fit(tmp_path)
    assert all(np.array_equal(whole[name].numpy(), resumed[name].numpy()) for name in whole)


def test_an_adapter_comes_back_from_its_folder(tmp_path):
    import torch

    fitted = finetune.fit_chats(*_model(), TRAIN, None, SETTINGS, lora=LoraSettings(rank=4))
    fitted.model.save_pretrained(tmp_path)
    model, tokenizer = _model()
    loaded = adapters.load_lora(model, tmp_path, trainable=False)
    ids = torch.tensor([tokenizer("what is red").input_ids])
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(ids).logits, fitted.model(ids).logits)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(UserError, match="no adapter_config.json"):
        adapters.load_lora(_model()[0], tmp_path / "elsewhere", trainable=True)


def test_what_is_refused():
    model, tokenizer = _model()
    with pytest.raises(UserError, match="'c_atn' matches no linear layer.*c_attn.*did you mean 'c_attn'"):
        adapters.add_lora(model, LoraSettings(targets="c_atn,c_proj"))
    with pytest.raises(UserError, match="matches no linear layer"):
        adapters.add_lora(model, LoraSettings(targets=" , "))
    with pytest.raises(UserError, match="lora_rank = 0"):
        LoraSettings(rank=0)
    with pytest.raises(UserError, match="no prompt or no answer"):
        finetune.fit_chats(model, tokenizer, TRAIN.assign(answer=None), None, SETTINGS)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        finetune.fit_chats(model, tokenizer, TRAIN, None, SETTINGS)
    with_adapter = adapters.add_lora(_model()[0], LoraSettings())
    with pytest.raises(UserError, match="adapter already"):
        adapters.add_lora(with_adapter, LoraSettings())
