"""Model specifications: check and identify a model without torch, transformers or its weights in memory."""

from __future__ import annotations

import hashlib
import json
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from underseer.errors import UserError, nearest
from underseer.models import architectures, gguf
from underseer.models.parsing import TESTBED_MODELS, ModelSpec, parse
from underseer.models.tokenizer_files import check_tokenizer, json_object
from underseer.models.tokenizer_files import has_chat_template as has_chat_template

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def preflight(spec: str | ModelSpec) -> None:
    """Check that a model can be loaded, without torch and without reading its weights.

    Raises UserError: unknown testbed name, family or option; a folder that ``check_folder`` refuses; a hub id that is
    neither cached nor reachable.
    """
    model = parse(spec)
    if model.kind == "testbed":
        if TESTBED_MODELS and model.name not in TESTBED_MODELS:
            raise UserError(
                f"model 'testbed:{model.name}' does not exist; allowed are "
                f"{', '.join(f'testbed:{name}' for name in sorted(TESTBED_MODELS))}{nearest(model.name, TESTBED_MODELS)}"
            )
    elif model.kind == "folder":
        check_folder(folder_of(model))
    elif model.kind == "hub":
        snapshot = _cached_snapshot(model)
        if snapshot is not None:
            check_folder(snapshot)
        else:
            _hub_commit(model)


def folder_of(model: ModelSpec) -> Path:
    """The folder in Hugging Face format of a model that is named by a path; a gguf file is dequantised first, once."""
    place = Path(model.name)
    file = gguf.file_of(place)
    return place if file is None else gguf.dequantised(file)


def check_folder(folder: Path) -> None:
    """Check a model's folder. Raises UserError, in one line: it is missing; holds an adapter, or one beside the model; its
    configuration is none, of a type that nothing here knows, or that of a quantised model that nothing here reads; weights are missing, pickled, truncated or
    no safetensors; no tokenizer, or one that cannot be read; a chat template that is not there."""
    if not folder.is_dir():
        raise UserError(
            f"model folder {str(folder)!r} does not exist; give a folder in Hugging Face format or a hub id"
        )
    _check_adapters(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"model folder {str(folder)!r} has no config.json; give a folder in Hugging Face format")
    _check_configuration(folder / "config.json")
    _check_weights(folder)
    check_tokenizer(folder)


def _check_adapters(folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        return
    merge = "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(new_folder)"
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model folder {str(folder)!r} holds an adapter and no model; merge it into its base where you have both, by "
            f"{merge}, and give the new folder"
        )
    raise UserError(
        f"model folder {str(folder)!r} holds an adapter beside the model, and which of the two is meant is not clear; merge "
        f"them by {merge}, or take adapter_config.json away"
    )


_QUANTISERS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed_tensors",
}
"""Method of quantisation -> the package with which transformers reads it; vLLM reads others too."""


def _check_configuration(file: Path) -> None:
    config = json_object(file)
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f"model file {str(file)!r} is not a model's configuration: it names no model_type; fetch it again"
        )
    architectures.check_type(f"model folder {str(file.parent)!r}", config)
    quantised = config.get("quantization_config")
    if not quantised:
        return
    method = str(quantised.get("quant_method", "unknown")) if isinstance(quantised, dict) else "unknown"
    package = _QUANTISERS.get(method)
    if find_spec("vllm") is None and (package is None or find_spec(package) is None):
        raise UserError(
            f"model folder {str(file.parent)!r} is quantised ({method}), which only {package or 'vllm'} reads, and that is "
            "not installed; give the model as it was before it was quantised"
        )


def _check_weights(folder: Path) -> None:
    weights = _weight_files(folder)
    if not weights:
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
        if pickled:
            raise UserError(
                f"model folder {str(folder)!r} has only pickled weights ({', '.join(pickled[:3])}), which can run "
                "code when read; only safetensors are read: convert it where you trust it, by "
                "AutoModel.from_pretrained(folder).save_pretrained(new_folder), and give the new folder"
            )
        raise UserError(f"model folder {str(folder)!r} has no weights; it needs model.safetensors")
    for file in weights:
        if not file.is_file():
            raise UserError(f"model folder {str(folder)!r} lacks {file.name}, which its index names; fetch it again")
        _check_safetensors(file)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        try:
            return [folder / name for name in sorted(set(json_object(index)["weight_map"].values()))]
        except (KeyError, AttributeError, TypeError) as error:
            raise UserError(f"model file {str(index)!r} is not a weight index; fetch it again") from error
    return []


def _check_safetensors(file: Path) -> None:
    """A safetensors file is an 8-byte little-endian length n, a JSON object of n bytes (name -> dtype, shape, data_offsets),
    and data up to the largest offset: nothing of the data is read here."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        header = stream.read(length) if 0 < length <= size - 8 else b""
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        if any(type(end) is not int for end in ends):
            raise ValueError("offsets are whole numbers")
        needed = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(
            f"model file {str(file)!r} is not a safetensors file (a Git LFS pointer or a broken download?); fetch it again"
        ) from error
    if size != needed:
        raise UserError(
            f"model file {str(file)!r} has {size:,} bytes and its header needs {needed:,}: a broken download; fetch it again"
        )


def check_language(spec: str | ModelSpec) -> None:
    """Raise UserError for a model that does not write from left to right, as far as can be seen on this machine."""
    model = parse(spec)
    if model.kind == "scratch":
        architectures.check_family(f"model {str(model)!r}", model.name)
    folder = local_folder(model)
    if folder is None or not (folder / "config.json").is_file():
        return
    config = json_object(folder / "config.json")
    if isinstance(config.get("model_type"), str):
        architectures.check_writes(f"model {str(model)!r}", config)


def local_folder(spec: str | ModelSpec) -> Path | None:
    """Where the files of a model are on this machine; None where they are not, or not yet."""
    model = parse(spec)
    return folder_of(model) if model.kind == "folder" else _cached_snapshot(model) if model.kind == "hub" else None


def configuration(spec: str | ModelSpec) -> dict[str, Any] | None:
    """What the config.json of a model holds; None where its files are not on this machine. Raises UserError."""
    folder = local_folder(spec)
    if folder is None:
        return None
    return json_object(folder / "config.json")


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

    A folder: SHA-256 over the names and contents of its configuration, tokenizer, chat template and safetensors files; of a
    gguf file the same of what it was dequantised to, after its quantisation. A hub id: the id and the commit that it resolves to. A testbed or scratch model: its specification, normalised.
    """
    model = parse(spec)
    if model.kind == "folder":
        folder = folder_of(model)
        check_folder(folder)
        origin = gguf.type_of(folder)
        return (f"gguf:{origin}:" if origin else "folder:") + _folder_digest(folder)
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
