"""Tiny saved models and adapters with random weights, for the tests of engines."""

from __future__ import annotations

from underseer.engines import Inference
from underseer.models import loading

TINY = "n_layer=2&n_embd=16&n_head=2&n_positions=64&vocab_size=280"
TEXTS = ["the river runs", "a lamp", "bread and stone and song", "who knows"]


def cpu(**changed):
    """How an engine runs in a test: on a CPU, in fp32, in silence."""
    return {"inference": Inference(**{"device": "cpu", "precision": "fp32", **changed}), "progress": False}


def save_model(folder, spec=f"scratch:llama?{TINY}", seed=0):
    """A model with weights wide enough that its next token depends on the prompt, saved as a folder."""
    import torch

    model, tokenizer = loading.load_language_model(spec, texts=TEXTS)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(std=0.5 if "embed" in name or "wte" in name or "wpe" in name else 0.3)
    loading.save(model, tokenizer, folder)
    return folder


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
