"""LoRA adapters on language models: put a new one on, load one to go on training, say what can carry one.

Imports peft (four seconds) inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

ALL_LINEAR = "all-linear"  # every linear layer but the output head


@dataclass(frozen=True)
class LoraSettings:
    """Size and place of an adapter. ``targets``: "all-linear", or module names parted by commas ("q_proj,v_proj")."""

    rank: int = 16
    alpha: float = 32.0  # the update is scaled by alpha / rank
    dropout: float = 0.0
    targets: str = ALL_LINEAR

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora_rank = {self.rank}; it must be at least 1")
        if not self.alpha > 0:
            raise UserError(f"lora_alpha = {self.alpha}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora_dropout = {self.dropout}; it must be at least 0 and below 1")


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers but the output head, sorted: what ``targets`` may name."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    names = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, kinds) and m is not head}
    return sorted(names)


def add_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int = 0, name: str = "default") -> PeftModel:
    """Put a new adapter on ``model``, which then computes what it did before: the update starts at zero.

    Only the adapter is trainable afterwards. ``seed`` draws its weights. Raises UserError for a model that has an
    adapter already and for targets that match no linear layer.
    """
    import torch
    from peft import get_peft_model

    if hasattr(model, "peft_config"):
        raise UserError("the model has an adapter already; merge it first, or go on training it")
    config = lora_config(model, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config, adapter_name=name)


def lora_config(model: PreTrainedModel, settings: LoraSettings) -> LoraConfig:
    """peft's configuration of an adapter, its targets checked against the model."""
    from peft import LoraConfig, TaskType
    from transformers.pytorch_utils import Conv1D

    present = linear_modules(model)
    targets = [part.strip() for part in settings.targets.split(",") if part.strip()]
    unknown = [target for target in targets if target not in present]
    if settings.targets != ALL_LINEAR and (unknown or not targets):
        shown = ", ".join(unknown) or settings.targets
        raise UserError(
            f"lora_targets: {shown!r} matches no linear layer of the model; allowed are {ALL_LINEAR} or some of "
            f"{', '.join(present)}{nearest(unknown[0] if unknown else '', present)}"
        )
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=ALL_LINEAR if settings.targets == ALL_LINEAR else targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers are transposed
        task_type=TaskType.CAUSAL_LM,
    )


def load_lora(model: PreTrainedModel, folder: Path | str, *, trainable: bool, name: str = "default") -> PeftModel:
    """Put an adapter from a folder (peft's format, safetensors) on ``model``; frozen unless ``trainable``."""
    from peft import PeftModel

    folder = Path(folder)
    missing = [file for file in ("adapter_config.json", "adapter_model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"adapter folder {str(folder)!r} has no {' and no '.join(missing)}; give a folder that peft saved"
        )
    return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)


def lora(rank: int, alpha: float, targets: str) -> LoraSettings | None:
    """Settings of a new adapter; None at rank 0: the whole model is trained."""
    return LoraSettings(rank=rank, alpha=alpha, targets=targets) if rank else None


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model with its adapter folded in; a model without one as it is."""
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The causal language model of a configuration without its weights: layers and shapes, on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
