"""Models by name: parse a specification, check it without torch, load it as a classifier or a language model.

Four kinds of specification, the same in every params file and notebook:

- ``testbed:gpt2-xs``: a base model of the embedded world, pre-trained by its own stage;
- ``scratch:gpt2?n_layer=2&n_embd=64``: random weights, with a byte-level BPE tokenizer trained on the given texts;
- a folder (``/path``, ``./path``, ``~/path``) in Hugging Face format with safetensors weights, or a gguf file (``gguf``);
- a hub id, ``org/name`` or ``org/name@revision``.

``parse``, ``preflight`` and ``fingerprint`` (from ``specs``) need neither torch nor transformers. Remote code is never
trusted and only safetensors weights are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError
from underseer.models.parsing import DROPOUT, FAMILIES, ModelSpec, parse, shape
from underseer.models.specs import check_folder, check_language, fingerprint, folder_of, preflight

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "FAMILIES", "ModelSpec", "fingerprint", "load_classifier", "load_language_model", "max_positions", "n_parameters",
    "parse", "preflight", "resolve_device", "save", "train_tokenizer",
]  # fmt: skip

END_TOKEN, PAD_TOKEN = "<|endoftext|>", "<|pad|>"


def load_classifier(
    spec: str | ModelSpec,
    *,
    labels: Sequence[str],
    texts: Sequence[str] | None = None,
    base: Path | None = None,
    seed: int = 0,
    max_length: int = 512,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier with one output per label, fp32, and its tokenizer.

    ``labels`` names the classes in order (index 1 is the positive one). ``texts`` train the tokenizer of a
    ``scratch`` model. ``base`` is the folder of the pre-trained model for ``testbed`` specifications. ``seed`` draws
    the new head (and all weights of a ``scratch`` model). The tokenizer pads on the right with a token that the
    configuration knows, so that the classifier reads the last real token. Raises UserError as ``preflight`` does.
    """
    names = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
    }
    model, tokenizer = _load(spec, "AutoModelForSequenceClassification", names, texts, base, seed, max_length)
    _set_padding(model, tokenizer, own_token=True)
    model.config.use_cache = False
    return model, tokenizer


def load_language_model(
    spec: str | ModelSpec,
    *,
    texts: Sequence[str] | None = None,
    base: Path | None = None,
    seed: int = 0,
    max_length: int = 512,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, fp32, and its tokenizer; arguments as in ``load_classifier``.

    Where the tokenizer has no pad token, an existing token stands in for it (masked from attention and loss): a new,
    untrained row in tied output embeddings would draw probability from every real token. Raises UserError also for a model that
    reads in both directions.
    """
    check_language(spec)
    model, tokenizer = _load(spec, "AutoModelForCausalLM", {}, texts, base, seed, max_length)
    _set_padding(model, tokenizer, own_token=False)
    return model, tokenizer


def source(spec: str | ModelSpec, base: Path | None = None) -> str | None:
    """What transformers loads a specification from: a folder or a hub id; None for a ``scratch`` model."""
    model_spec = parse(spec)
    if model_spec.kind == "testbed":
        if base is None:
            raise UserError(
                f"model {str(model_spec)!r} needs the folder of its pre-trained base; run testbed/pretrain first"
            )
        return str(base)
    if model_spec.kind == "folder":
        return str(folder_of(model_spec))
    return None if model_spec.kind == "scratch" else model_spec.name


def _load(
    spec: str | ModelSpec,
    auto: str,
    options: dict[str, Any],
    texts: Sequence[str] | None,
    base: Path | None,
    seed: int,
    max_length: int,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    import transformers

    model_spec = parse(spec)
    if model_spec.kind == "templates":
        raise UserError("'templates' is an attacker and no model: only red_team_model may be it; give a chat model")
    preflight(model_spec)
    auto_class = getattr(transformers, auto)
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        if model_spec.kind == "scratch":
            if texts is None:
                raise UserError(f"model {str(model_spec)!r} needs texts to train its tokenizer on; none were given")
            return _from_scratch(model_spec, auto_class, options, texts, max_length)
        place, revision = source(model_spec, base), model_spec.revision
        if model_spec.kind == "testbed":
            check_folder(Path(place))
        safely = {"revision": revision, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **safely)
            weights = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
            model, info = auto_class.from_pretrained(place, **weights, **safely, **options)
        except Exception as error:  # each kind of broken file fails in its own way
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"model {str(model_spec)!r} cannot be loaded as {auto}: {first}") from error
    _check_whole(model, model_spec, info["missing_keys"])
    return with_fused_gelu(model), tokenizer


def _check_whole(model: PreTrainedModel, spec: ModelSpec, missing: Iterable[str]) -> None:
    """Raise UserError where weights were not in the file and would be random: all but a classifier's head and its pooler."""
    of_body = f"{model.base_model_prefix}."
    new_head = "Classification" in type(model).__name__
    lost = sorted(k for k in missing if not new_head or (k.startswith(of_body) and ".pooler." not in k))
    if lost:
        raise UserError(f"model {str(spec)!r} lacks {len(lost)} of its weights, such as {lost[0]}; fetch it again")


def with_fused_gelu(model: PreTrainedModel) -> PreTrainedModel:
    """The model with GPT's GELU, which transformers spells out in eight operations, done by torch's one.

    Same function (0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))), equal to rounding; a training step of a small GPT-2
    takes a sixth less time on a CPU. Weights and configuration stay as they are.
    """
    from transformers.activations import GELUTanh, NewGELUActivation

    for module in list(model.modules()):
        if isinstance(getattr(module, "act", None), NewGELUActivation):
            module.act = GELUTanh()
    return model


def _from_scratch(
    spec: ModelSpec, auto_class: Any, options: dict[str, Any], texts: Iterable[str], max_length: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    import transformers

    sizes = shape(spec.options)
    if "n_positions" not in spec.options:
        sizes["n_positions"] = max(sizes["n_positions"], max_length)
    tokenizer = train_tokenizer(texts, vocab_size=sizes["vocab_size"], max_length=sizes["n_positions"])
    model_type, names = FAMILIES[spec.name]
    values = {names[key]: value for key, value in sizes.items() if key in names}
    if model_type not in ("openai-gpt", "gpt2"):
        values.setdefault("intermediate_size", 4 * sizes["n_embd"])
    if "n_kv_head" in names:
        values.setdefault("num_key_value_heads", sizes["n_head"])
        if model_type in ("gemma2", "qwen3"):
            values["head_dim"] = sizes["n_embd"] // sizes["n_head"]
    if "dropout" in sizes:
        values.update(dict.fromkeys(DROPOUT[spec.name], sizes["dropout"]))
    end, pad = tokenizer.convert_tokens_to_ids([END_TOKEN, PAD_TOKEN])
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, pad_token_id=pad, **values, **options
    )
    return with_fused_gelu(auto_class.from_config(config, dtype=torch.float32)), tokenizer


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 8192, max_length: int = 512, special: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer, GPT-2's scheme: no text is out of vocabulary and every text can be restored.

    ``vocab_size`` is an upper bound: merges seen once are not learnt, so small data give a smaller vocabulary. ``special``:
    further special tokens, such as those that mark the turns of a chat.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_TOKEN, PAD_TOKEN, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_TOKEN,
        eos_token=END_TOKEN,
        unk_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        padding_side="right",
        truncation_side="right",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=list(special),
    )


def _set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, own_token: bool) -> None:
    """Give tokenizer and configuration one pad token, padding on the right.

    A classifier on a decoder reads the last token whose id is not the pad id, so the pad id must never occur in a text:
    the end token serves (texts are tokenised without special tokens, so it cannot occur), else a new token is added.
    """
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
        elif own_token:
            tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
        else:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with quiet():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=not own_token)
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


class quiet:
    """Silence the loader: newly initialised heads are expected here, and its progress bars are noise."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._verbosity = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *error: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._verbosity)
        if self._bars:
            logging.enable_progress_bar()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Save model (safetensors) and tokenizer as one folder in Hugging Face format, quietly."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def n_parameters(model: PreTrainedModel) -> int:
    """Number of parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def max_positions(model: PreTrainedModel) -> int | None:
    """Longest input in tokens that the model's position embeddings allow, or None where it is unbounded."""
    config = model.config
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def resolve_device(name: str = "auto") -> torch.device:
    """Device by name; "auto" takes CUDA, then MPS, then the CPU. Raises UserError for a device that is absent."""
    import torch

    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown; allowed are auto, cpu, cuda, cuda:N, mps") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UserError(f"device {name!r} is not present on this machine; use auto or cpu")
    return device
