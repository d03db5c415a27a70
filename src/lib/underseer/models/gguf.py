"""Models in gguf files, llama.cpp's format: dequantised once into the run store, and read from there as any other folder.

The weights become fp32 safetensors: the values that the file stands for, exactly. The tokenizer is held against the file's own
table of tokens, and the begin, end, unknown and pad tokens are the file's: transformers takes the begin token of some files for
the end token. The result lies in ``runs/models/gguf/<key>`` under a manifest, so that ``underseer verify`` reads it too; its key is
a hash of the file and of the versions that read it.
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stderr
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import paths, store
from underseer.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUFFIX = ".gguf"
STAGE = "models/gguf"
"""Where the dequantised models lie below ``runs/``."""
TYPE = "gguf_type"
"""The entry of config.json that names the file's quantisation."""
INSTALL = "pip install 'underseer[gguf]'"


def file_of(place: Path) -> Path | None:
    """The gguf file that a path names: itself, or the only one in a folder without a config.json; None where there is none.

    Raises UserError for a folder with several.
    """
    if place.suffix == SUFFIX and not place.is_dir():
        return place
    files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() and not (place / "config.json").is_file() else []
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"model folder {str(place)!r} holds {len(files)} gguf files ({names}); give one of them")
    return files[0] if files else None


def dequantised(file: Path) -> Path:
    """The folder with the dequantised model of a gguf file, made where there is none yet (of 135 M parameters: half a minute).

    Raises UserError: the file is missing or no gguf, the package is not installed, transformers does not read the architecture or a
    quantisation, the tokenizer is not the file's.
    """
    if not file.is_file():
        raise UserError(
            f"model file {str(file)!r} does not exist; give a gguf file, a folder in Hugging Face format or a hub id"
        )
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UserError(
                f"model file {str(file)!r} is no gguf (a Git LFS pointer or a broken download?); fetch it again"
            )
    if find_spec("gguf") is None:
        raise UserError(f"model file {str(file)!r} needs the package gguf, which is not installed: {INSTALL}")
    facts = file.stat()
    return _made(file, _key(file, facts.st_size, facts.st_mtime_ns))


@cache
def _key(file: Path, size: int, modified: int) -> str:
    """Kept as long as size and time of the file stay as they are."""
    readers = "".join(f"\n{name} {version(name)}" for name in ("transformers", "gguf"))
    return hashlib.sha256(f"{store.sha256(file)}{readers}".encode()).hexdigest()[:16]


def _made(file: Path, key: str) -> Path:
    if store.read(STAGE, key) is None:
        with store.working(STAGE, key) as work:
            if store.read(STAGE, key) is None:  # else another process made it meanwhile
                kind = _convert(file, work / "model")
                record = {"stage": STAGE, "parameters": {"file": file.name, TYPE: kind}, "metrics": {}}
                marks = {"synthetic": False, "rehearsal": False}
                store.seal(
                    work, paths.place(STAGE, key), record | {"marks": marks, "inputs": {}, "hashes": {}, "cost": {}}
                )
    return paths.place(STAGE, key) / "model"


def type_of(folder: Path) -> str | None:
    """The quantisation of the file that a model's folder was made of, such as Q4_1; None for a folder of another origin."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get(TYPE)
    except (OSError, ValueError):
        return None


def _convert(file: Path, folder: Path) -> str:
    """Write a gguf file's model and tokenizer as a folder in Hugging Face's format; returns the file's quantisation."""
    import torch
    import transformers

    fields, kind = _fields(file)
    options = {"gguf_file": file.name, "trust_remote_code": False}
    with redirect_stderr(io.StringIO()):  # the reader's progress bar heeds nothing else
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
        except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"model file {str(file)!r} ({fields.get('general.architecture')}, {kind}) cannot be read: {first}; give a file "
                "that transformers reads, or the model as it was before it was quantised"
            ) from error
    _settle_tokens(tokenizer, fields, file)
    del model.hf_quantizer, model.config.quantization_config  # plain weights from here on
    model.is_quantized = False
    setattr(model.config, TYPE, kind)
    model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return kind


def _fields(file: Path) -> tuple[dict[str, Any], str]:
    """What the file says of itself: its fields, and the quantisation of most of its weights. Raises UserError for a broken file."""
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise UserError(
            f"model file {str(file)!r} cannot be read as gguf (a broken download?); fetch it again"
        ) from error
    sizes: dict[str, int] = {}
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return fields, max(sizes, key=sizes.__getitem__)


def _settle_tokens(tokenizer: PreTrainedTokenizerBase, fields: dict[str, Any], file: Path) -> None:
    """Hold the tokenizer against the file's table, and give it the file's special tokens. Raises UserError where tokens differ."""
    table = fields["tokenizer.ggml.tokens"]
    own = tokenizer.convert_ids_to_tokens(range(len(table)))
    wrong = [i for i, (one, other) in enumerate(zip(own, table, strict=True)) if one != other]
    if wrong:
        raise UserError(
            f"model file {str(file)!r}: {len(wrong)} of {len(table)} tokens of its tokenizer are read as others, the first with "
            f"id {wrong[0]}; give the model as a folder in Hugging Face format"
        )
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    for role, name in roles.items():
        token = fields.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None:
            setattr(tokenizer, role, table[token])
