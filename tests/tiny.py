"""Tiny models and adapters with random weights, and trainings that are killed."""

from __future__ import annotations

import contextlib

from underseer.engines import Inference
from underseer.models import loading

TINY = "n_layer=2&n_embd=16&n_head=2&n_positions=64&vocab_size=280"
TEXTS = ["the river runs", "a lamp", "bread and stone and song", "who knows"]
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A chat template whose turns end with the end token and a newline."""


def cpu(**changed):
    """How an engine runs in a test: on a CPU, in fp32, in silence."""
    return {"inference": Inference(**{"device": "cpu", "precision": "fp32", **changed}), "progress": False}


def language_model(spec=f"scratch:llama?{TINY}", texts=TEXTS, seed=0):
    """A model with weights wide enough that its next token depends on where and after what it stands; its tokenizer."""
    import torch

    model, tokenizer = loading.load_language_model(spec, texts=texts)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(std=0.5 if "embed" in name or "wte" in name or "wpe" in name else 0.3)
    return model.eval(), tokenizer


def save_model(folder, spec=f"scratch:llama?{TINY}", seed=0):
    """Such a model saved as a folder."""
    loading.save(*language_model(spec, seed=seed), folder)
    return folder


def chat_model(texts, family="gpt2", seed=0):
    """A freshly drawn language model with the chat template ``TURNS``; its tokenizer."""
    spec = f"scratch:{family}?n_layer=2&n_embd=32&n_head=2&n_positions=96&vocab_size=300"
    model, tokenizer = loading.load_language_model(spec, texts=[*texts, "<|user|> <|assistant|>"], seed=seed)
    tokenizer.chat_template = TURNS
    return model, tokenizer


def save_adapter(folder, base, seed=1, **changes):
    """A LoRA with random weights for a saved model. Returns what transformers and peft say with it merged."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = loading.load_language_model(str(base))
    targets = changes.pop("target_modules", ["q_proj", "v_proj"])
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM", **changes})
    adapted = get_peft_model(model, config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload(), tokenizer


class Killed(BaseException):
    """Ends a training as a signal would."""


@contextlib.contextmanager
def killed_at(step, monkeypatch):
    """Trainings store a checkpoint after every step, from here on; the one inside ends at a step, before its checkpoint."""
    from underseer.training import steering

    monkeypatch.setattr(steering, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(steering, "LOG_STEPS", 1)
    step_end = steering.Steering.on_step_end

    def dying(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed
        step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(steering.Steering, "on_step_end", dying)
        try:
            yield
        except Killed:
            return
    raise AssertionError("the training was not killed")
