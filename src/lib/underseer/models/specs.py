"""Model specifications: parse, check and identify a model without torch, transformers or its weights in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from underseer.errors import UserError, nearest

# Family -> (model type in transformers, name of each shape option in its configuration).
_GPT = {"n_layer": "n_layer", "n_embd": "n_embd", "n_head": "n_head", "n_positions": "n_positions"}
_MODERN = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
_BERT = {key: name for key, name in _MODERN.items() if key != "n_kv_head"}
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "gpt1": ("openai-gpt", _GPT),
    "gpt2": ("gpt2", {**_GPT, "n_inner": "n_inner"}),
    "bert": ("bert", _BERT),
    "llama": ("llama", _MODERN),
    "mistral": ("mistral", _MODERN),
    "qwen2": ("qwen2", _MODERN),
    "qwen3": ("qwen3", _MODERN),
    "gemma2": ("gemma2", _MODERN),
}
DROPOUT = {
    "gpt1": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}
DEFAULT_SHAPE = {"n_layer": 4, "n_embd": 256, "n_positions": 512, "vocab_size": 8192}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSpec:
    """A parsed model specification. ``options`` holds the shape of a ``scratch`` model, by its short names."""

    kind: str  # testbed | scratch | folder | hub
    name: str  # base-model name, family, folder path or hub id
    options: dict[str, float | int] = field(default_factory=dict)
    revision: str | None = None

    def __str__(self) -> str:
        if self.kind == "testbed":
            return f"testbed:{self.name}"
        if self.kind == "scratch":
            query = "&".join(f"{key}={value:g}" for key, value in sorted(self.options.items()))
            return f"scratch:{self.name}" + (f"?{query}" if query else "")
        return self.name + (f"@{self.revision}" if self.revision else "")


# ---------------------------------------------------------------------------------------------------- parsing


def parse(spec: str | ModelSpec) -> ModelSpec:
    """Parse a model specification. Raises UserError for a form, family or option that does not exist."""
    if isinstance(spec, ModelSpec):
        return spec
    text = str(spec).strip()
    prefix, colon, rest = text.partition(":")
    if colon and prefix == "testbed":
        return ModelSpec("testbed", rest)
    if colon and prefix == "scratch":
        family, _, query = rest.partition("?")
        return ModelSpec("scratch", family, _scratch_options(text, family, query))
    if text.startswith(("/", "./", "../", "~")) or (text and Path(text).is_dir()):
        return ModelSpec("folder", os.path.expanduser(text))
    name, _, revision = text.partition("@")
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"model {text!r} is not a model specification; allowed are testbed:NAME, "
            "scratch:FAMILY?n_layer=2&n_embd=64, a folder (/path or ./path) or a hub id (org/name or org/name@revision)"
            + (nearest(prefix, ("testbed", "scratch")) if colon else "")
        )
    return ModelSpec("hub", name, revision=revision or None)


def _scratch_options(text: str, family: str, query: str) -> dict[str, float | int]:
    if family not in FAMILIES:
        raise UserError(
            f"model {text!r}: unknown family {family!r}; allowed are {', '.join(FAMILIES)}{nearest(family, FAMILIES)}"
        )
    allowed = [*FAMILIES[family][1], "vocab_size"] + (["dropout"] if family in DROPOUT else [])
    native = {long: short for short, long in FAMILIES[family][1].items()}
    options: dict[str, float | int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        key = native.get(key, key)
        if key not in allowed:
            raise UserError(
                f"model {text!r}: unknown option {key!r}; allowed are {', '.join(allowed)}{nearest(key, allowed)}"
            )
        try:
            number = float(value) if key == "dropout" else int(value)
        except ValueError:
            number = -1
        if number < (0 if key == "dropout" else 1) or (key == "dropout" and number >= 1):
            kind = "a number from 0 to below 1" if key == "dropout" else "a whole number of at least 1"
            raise UserError(f"model {text!r}: option {key}={value!r} must be {kind}")
        options[key] = number
    sizes = shape(options)
    if sizes["n_embd"] % sizes["n_head"]:
        raise UserError(
            f"model {text!r}: n_embd={sizes['n_embd']} is not divisible by n_head={sizes['n_head']}; choose a multiple"
        )
    if sizes["n_head"] % sizes.get("n_kv_head", 1):
        raise UserError(f"model {text!r}: n_head={sizes['n_head']} is not divisible by n_kv_head={sizes['n_kv_head']}")
    return options


def shape(options: dict[str, float | int]) -> dict[str, Any]:
    """All sizes of a scratch model, by their short names: the defaults, and the options given over them."""
    sizes = {**DEFAULT_SHAPE, **options}
    sizes.setdefault("n_head", max(1, int(sizes["n_embd"]) // 64))
    return sizes


# ---------------------------------------------------------------------------------- checks without torch, identity


def preflight(spec: str | ModelSpec) -> None:
    """Check that a model can be loaded, without torch and without reading its weights.

    Raises UserError: unknown testbed name, family or option; a folder that is missing, without configuration, tokenizer
    or weights, or with only pickled weights; a hub id that is neither cached nor reachable.
    """
    model = parse(spec)
    if model.kind == "testbed":
        # By name: a check that a model exists is nothing that a result rests on.
        rooms = (("base", "BASE_MODELS"), ("chat", "CHAT_MODELS"))
        known = {n for room, names in rooms for n in getattr(import_module(f"underseer.testbed.{room}"), names)}
        if model.name not in known:
            raise UserError(
                f"model 'testbed:{model.name}' does not exist; allowed are "
                f"{', '.join(f'testbed:{name}' for name in sorted(known))}{nearest(model.name, known)}"
            )
    elif model.kind == "folder":
        check_folder(Path(model.name))
    elif model.kind == "hub":
        snapshot = _cached_snapshot(model)
        if snapshot is not None:
            check_folder(snapshot)
        else:
            _hub_commit(model)


def check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"model folder {str(folder)!r} does not exist; give a folder in Hugging Face format or a hub id"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"model folder {str(folder)!r} has no config.json; give a folder in Hugging Face format")
    weights = _weight_files(folder)
    if not weights:
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
        if pickled:
            raise UserError(
                f"model folder {str(folder)!r} has only pickled weights ({', '.join(pickled[:3])}), which can run "
                "code when read; only safetensors are read: convert it where you trust it, by "
                "AutoModel.from_pretrained(folder)"
                ".save_pretrained(new_folder), and give the new folder"
            )
        raise UserError(f"model folder {str(folder)!r} has no weights; it needs model.safetensors")
    for file in weights:
        if not file.is_file():
            raise UserError(f"model folder {str(folder)!r} lacks {file.name}, which its index names; fetch it again")
        if not _is_safetensors(file):
            raise UserError(
                f"model file {str(file)!r} is not a safetensors file (a Git LFS pointer or a broken download?); "
                "fetch it again"
            )
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"model folder {str(folder)!r} has no tokenizer; it needs one of {', '.join(_TOKENIZER_FILES)}: "
            "save it there with tokenizer.save_pretrained(folder)"
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        try:
            return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"model file {str(index)!r} is not a weight index; fetch it again") from error
    return []


def _is_safetensors(file: Path) -> bool:
    """True where the header (8-byte little-endian length, then a JSON object) fits into the file."""
    with file.open("rb") as stream:
        head = stream.read(9)
    if len(head) < 9 or head[8:] != b"{":
        return False
    return struct.unpack("<Q", head[:8])[0] + 8 <= file.stat().st_size


def local_folder(spec: str | ModelSpec) -> Path | None:
    """Where the files of a model are on this machine; None where they are not, or not yet."""
    model = parse(spec)
    return Path(model.name) if model.kind == "folder" else _cached_snapshot(model) if model.kind == "hub" else None


def configuration(spec: str | ModelSpec) -> dict[str, Any] | None:
    """What the config.json of a model holds; None where its files are not on this machine. Raises UserError."""
    folder = local_folder(spec)
    if folder is None:
        return None
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {str(parse(spec))!r}: {str(folder / 'config.json')!r} is not JSON; fetch it again"
        ) from error


def has_chat_template(folder: Path) -> bool:
    """Whether a model's folder says how its chats are written."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False


def _cached_snapshot(model: ModelSpec) -> Path | None:
    """Folder of a hub model in the local cache, or None. A revision is a branch, a tag or a commit."""
    from huggingface_hub.constants import HF_HUB_CACHE

    root = Path(HF_HUB_CACHE) / f"models--{model.name.replace('/', '--')}"
    reference = root / "refs" / (model.revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else (model.revision or "")
    snapshot = root / "snapshots" / commit
    return snapshot if commit and (snapshot / "config.json").is_file() else None


def _hub_commit(model: ModelSpec) -> str:
    """Commit that a hub id resolves to, asked over the network. Raises UserError when offline or unknown."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    fetch = f"hf download {model.name}" + (f" --revision {model.revision}" if model.revision else "")
    try:
        info = HfApi().model_info(model.name, revision=model.revision, timeout=10)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"model {str(model)!r} is not on the hub (or is gated and needs a token: run `hf auth login`); "
            "give org/name@revision, or a folder as /path or ./path"
        ) from error
    except Exception as error:  # every transport fails in its own way: all mean that the hub did not answer
        raise UserError(
            f"model {str(model)!r} is not in the local hub cache and the hub cannot be reached "
            f"({type(error).__name__}); run `{fetch}` where there is a network, or give a folder as /path or ./path"
        ) from error
    names = [sibling.rfilename for sibling in info.siblings or []]
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"model {str(model)!r} has no safetensors weights on the hub; only safetensors are read")
    return str(info.sha)


def fingerprint(spec: str | ModelSpec) -> str:
    """Identity of a model for the cache key, without torch.

    A folder: SHA-256 over the names and contents of its configuration, tokenizer, chat template and safetensors files.
    A hub id: the id and the commit that it resolves to. A testbed or scratch model: its specification, normalised.
    """
    model = parse(spec)
    if model.kind == "folder":
        check_folder(Path(model.name))
        return "folder:" + _folder_digest(Path(model.name))
    if model.kind == "hub":
        snapshot = _cached_snapshot(model)
        return f"hub:{model.name}@{snapshot.name if snapshot else _hub_commit(model)}"
    return str(model)


_DIGESTS: dict[tuple[str, int, int], str] = {}


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's safetensors files: one for all folders of the same weights."""
    return _folder_digest(folder, (".safetensors",))


def _folder_digest(
    folder: Path, suffixes: tuple[str, ...] = (".json", ".safetensors", ".txt", ".model", ".jinja")
) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in suffixes:
            stat = file.stat()
            key = (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
            if key not in _DIGESTS:
                with file.open("rb") as stream:
                    _DIGESTS[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{file.name} {_DIGESTS[key]}\n".encode())
    return total.hexdigest()
