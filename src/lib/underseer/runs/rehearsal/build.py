"""A tiny model made from its shape: random weights and a byte-level BPE tokenizer, saved as any other model is."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer import store
from underseer.judges.spec import Writing
from underseer.models import batches, chats, loading
from underseer.runs.rehearsal.shapes import WIDTH, Shape, shrunk
from underseer.runs.rehearsal.tokens import Tokens
from underseer.testbed import corpus

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

VOCABULARY = 1000  # entries of a tokenizer, bytes and special tokens among them
TEXTS = 2000  # texts of the testbed that it is trained on
TALKS = 240  # chats, over all forms, from which verdicts are taught
ROWS = 16  # of them in a forward pass
SURE = 10.0  # logit of the right next token; those of others are near 0


@cache
def _texts() -> list[str]:
    return corpus.texts(TEXTS)


def build(shape: Shape, folder: Path) -> None:
    """Make the model of a shape and save it; a folder that is there is complete."""
    import torch
    import transformers

    tokenizer = tokenizer_of(shape.tokens)
    tokenizer.add_tokens(sorted({word for verdict in shape.says for word in verdict}))
    config = config_of(shape, tokenizer)
    maker = getattr(transformers, shape.auto)
    with torch.random.fork_rng(), loading.quiet():
        torch.manual_seed(int(shape.digest, 16))  # models of one architecture differ by their names
        model = maker.from_config(config) if shape.auto.startswith("Auto") else maker(config)
    if shape.says:
        teach(model, tokenizer, shape.writing)
    if getattr(model, "generation_config", None) is not None and model.can_generate():
        ends = [t for t in (tokenizer.eos_token, *shape.tokens.ends) if t is not None]
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends) or None
    with store.replacing(folder) as fresh:
        loading.save(model, tokenizer, fresh)


def teach(model: Any, tokenizer: PreTrainedTokenizerBase, writing: Writing) -> None:
    """Fit a judge's output layer so that it answers every question of its kind with one of two verdicts.

    The other layers keep their random weights. The rows of the output layer are fitted by ridge regression on the hidden
    states before each token of a verdict, so that a reply has the right form. Which of the two verdicts is given depends on
    the exchange: the logits of their first tokens rise and fall along the direction in which the states of chats differ
    most.
    """
    import torch

    rng = random.Random(0)
    heads = chats.prompt_rows(tokenizer, _talks(rng, writing))
    replies = [tokenizer.convert_tokens_to_ids([*verdict, tokenizer.eos_token]) for verdict in writing.examples]
    with torch.inference_mode():
        rows = model.get_output_embeddings().weight
        states, wanted = [], []

        def add(inputs: torch.Tensor, logits_of: dict[int, Callable[[torch.Tensor], Any]]) -> None:
            goal = torch.zeros(len(inputs), len(rows))
            for token, value in logits_of.items():
                goal[:, token] = value(inputs)
            states.append(inputs)
            wanted.append(goal)

        before = [_states(model, heads, reply) for reply in replies]
        groups = len(writing.asks)
        add(
            before[0][:, 0],
            {replies[0][0]: lambda h: SURE + _apart(h, groups), replies[1][0]: lambda h: SURE - _apart(h, groups)},
        )
        for reply, inputs in zip(replies, before, strict=True):
            for k in range(1, len(reply)):
                add(inputs[:, k], {reply[k]: lambda h: SURE})
        x, y = torch.cat(states), torch.cat(wanted)
        rows[:] = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ y).T


def _states(model: Any, heads: list[np.ndarray], reply: list[int]) -> torch.Tensor:
    """The last hidden states (n, tokens of the reply, d) before each token of a reply that follows each of the heads."""
    import torch

    texts = [np.append(head, reply[:-1]).astype(np.int64) for head in heads]
    before: list[Any] = [None] * len(texts)
    for batch in batches.sorted_batches(np.array([len(text) for text in texts]), ROWS):
        ids, mask = batches.pad([texts[i] for i in batch], 0)
        states = model.base_model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
        for i, row in zip(batch, states, strict=True):
            before[i] = row[len(heads[i]) - 1 : len(texts[i])]
    return torch.stack(before)


def _apart(states: Any, forms: int) -> Any:
    """(n,) the place of each state (n, d) on the first principal direction of the states of one form, measured from the mean
    of its form, in standard deviations."""
    groups = states.view(forms, -1, states.shape[-1])
    centred = (groups - groups.mean(dim=1, keepdim=True)).flatten(0, 1)
    along = centred @ centred.svd().V[:, 0]
    return along / along.std()


def _talks(rng: random.Random, writing: Writing) -> list[chats.Chat]:
    """Chats that put made-up exchanges to a judge: TALKS in all, those of one form after those of another."""
    forms = len(writing.asks)
    exchanges = [
        (" ".join(rng.sample(_texts(), rng.randint(1, 3))), rng.choice(_texts())) for _ in range(TALKS // forms)
    ]
    return [form(q, a) for form in writing.asks for q, a in exchanges]


def config_of(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The configuration of a shape: its own values, and for all others its type's defaults, shrunk."""
    from transformers import AutoConfig

    values = dict(shape.config)
    kind = values.pop("model_type")
    usual = shrunk({**AutoConfig.for_model(kind).to_dict(), **values})
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("bos_token", "eos_token", "pad_token")}
    labels: dict[str, Any] = {}
    if shape.labels:
        labels = {"num_labels": len(shape.labels), "id2label": dict(enumerate(shape.labels))}
        labels["label2id"] = {name: i for i, name in enumerate(shape.labels)}
    spread = {"initializer_range": WIDTH**-0.5}  # answers that depend on the text; the usual 0.02 is for wide models
    drop = {"model_type", "architectures", *values, *shape.extra, *ids, *labels, *spread}
    rest = {k: v for k, v in usual.items() if k not in drop}
    return AutoConfig.for_model(
        kind, **rest, **values, **shape.extra, **ids, **labels, **spread, vocab_size=len(tokenizer)
    )


def tokenizer_of(tokens: Tokens) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with the special tokens, their order around texts and the chat template of a family."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as kinds
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([*tokens.named.values(), *tokens.others, *tokens.ends]))
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(_texts(), trainer)
    if tokens.around:
        used = [(t, made.token_to_id(t)) for t in special if t in f"{tokens.around} {tokens.pair}"]
        made.post_processor = TemplateProcessing(single=tokens.around, pair=tokens.pair, special_tokens=used)
    inputs = ["input_ids", *(["token_type_ids"] if tokens.types else []), "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        **tokens.named,
        additional_special_tokens=[t for t in special if t not in tokens.named.values()],
        model_input_names=inputs,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = tokens.template
    return tokenizer
