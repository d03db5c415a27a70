"""A model in a gguf file: dequantised once into the store, its tokenizer the file's own, and then a model like any other."""

from __future__ import annotations

import numpy as np
import pytest

from underseer import store
from underseer.engines.rows import stops
from underseer.errors import UserError
from underseer.models import chats, loading, specs
from underseer.report import wording

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAYERS, WIDTH, HEADS = 1, 32, 2
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def name_of(name: str) -> str:
    """A tensor's name in gguf."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def write(file, *, tokens=None):
    """A tiny Llama as a Q4_1 gguf with a ChatML template, its begin token another than its end token; gives the true weights."""
    tokenizer = loading.train_tokenizer(
        ["some words of a text", "and some more"] * 9, special=("<|im_start|>", "<|im_end|>")
    )
    spec = f"scratch:llama?n_layer={LAYERS}&n_embd={WIDTH}&n_head={HEADS}&n_inner=64&n_positions=64&vocab_size={len(tokenizer)}"
    model, _ = loading.load_language_model(spec, texts=["some words of a text", "and some more"] * 9)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    start, end = (vocabulary.index(token) for token in ("<|im_start|>", "<|im_end|>"))
    writer = gguf.GGUFWriter(file, "llama")
    for add, value in (
        (writer.add_context_length, 64), (writer.add_embedding_length, WIDTH), (writer.add_block_count, LAYERS),
        (writer.add_feed_forward_length, 64), (writer.add_head_count, HEADS), (writer.add_head_count_kv, HEADS),
        (writer.add_layer_norm_rms_eps, 1e-6), (writer.add_rope_freq_base, 10000.0), (writer.add_vocab_size, len(vocabulary)),
        (writer.add_tokenizer_model, "gpt2"), (writer.add_token_list, tokens or vocabulary), (writer.add_bos_token_id, start),
        (writer.add_token_types, [3 if token.startswith("<|") else 1 for token in vocabulary]), (writer.add_eos_token_id, end),
        (writer.add_pad_token_id, end), (writer.add_chat_template, CHATML), (writer.add_token_merges, merges(tokenizer)),
    ):  # fmt: skip
        add(value)
    true = {}
    for name, value in model.state_dict().items():
        weight = value.numpy()
        kind = gguf.GGMLQuantizationType.Q4_1 if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        stored = permuted(weight) if name.endswith(("q_proj.weight", "k_proj.weight")) else weight
        packed = gguf.quantize(np.ascontiguousarray(stored, dtype=np.float32), kind)
        writer.add_tensor(name_of(name), packed, raw_dtype=kind)
        back = gguf.dequantize(packed, kind).reshape(weight.shape)
        true[name] = permuted(back, back=True) if name.endswith(("q_proj.weight", "k_proj.weight")) else back
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return true


def merges(tokenizer) -> list[str]:
    import json

    listed = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [one if isinstance(one, str) else " ".join(one) for one in listed]


def permuted(weight, back: bool = False):
    """Rows of a query or key matrix as llama.cpp orders them for its rotary embedding, or back."""
    halves = (2, WIDTH // HEADS // 2) if not back else (WIDTH // HEADS // 2, 2)
    return weight.reshape(HEADS, *halves, WIDTH).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    return file, write(file)


def test_a_file_is_dequantised_once_and_is_then_a_model_like_any_other(tiny, home, tmp_path):
    file, true = tiny
    model, tokenizer = loading.load_language_model(str(file))
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), true[name], atol=1e-6)
    (made,) = store.outputs()
    assert made.manifest["stage"] == "models/gguf" and made.parameters == {"file": file.name, "gguf_type": "Q4_1"}
    when = (made.path / store.MANIFEST).stat().st_mtime_ns
    assert loading.fingerprint(str(file.parent)) == loading.fingerprint(str(file))  # the only one in its folder
    assert (made.path / store.MANIFEST).stat().st_mtime_ns == when and store.verify() == (1, [])
    loading.save(model, tokenizer, tmp_path / "saved")
    again, _ = loading.load_language_model(str(tmp_path / "saved"))
    assert all((again.state_dict()[name] == value).all() for name, value in model.state_dict().items())


def test_special_tokens_are_the_files_and_a_turn_ends_as_the_template_ends_it(tiny, home):
    file, _ = tiny
    model, tokenizer = loading.load_language_model(str(file))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == end and specs.has_chat_template(specs.local_folder(str(file)))
    assert chats.answer_rows(tokenizer, ["some words"])[0][-1] == end and end in stops(tokenizer, None)


def test_reports_name_the_quantisation(tiny, home):
    file, _ = tiny
    hashes = {"target_model": loading.fingerprint(str(file)), "training_judge": "trained:folder:abc"}
    results = {"provenance": {"inputs": {"evaluation_aligned": {"selfmoa/5_evaluate/k": hashes}}}}
    assert wording.quantised(results) == ["target model: Q4_1 dequantised"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.unlink(), "does not exist"),
        (lambda file: file.write_text("version https://git-lfs"), "is no gguf"),
        (lambda file: file.with_name("other.gguf").write_bytes(b"GGUF"), "holds 2 gguf files"),
        (lambda file: file.write_bytes(file.read_bytes()[:3000]), "cannot be read"),
    ],
    ids=["missing", "pointer", "two", "cut"],
)
def test_what_is_refused(tiny, home, tmp_path, damage, told):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny[0].read_bytes())
    damage(file)
    with pytest.raises(UserError, match=told):
        specs.preflight(str(tmp_path if told.startswith("holds") else file))


def test_the_package_is_named_where_it_is_missing(tiny, home, monkeypatch):
    monkeypatch.setattr("underseer.models.gguf.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'underseer\[gguf\]'"):
        specs.preflight(str(tiny[0]))
