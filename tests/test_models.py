"""Model specifications, checks without torch, and each architecture family as a classifier."""

from __future__ import annotations

import json
import shutil

import pytest

from underseer.errors import UserError
from underseer.models import loading, specs

TEXTS = [f"the lantern number {i} hangs over the river; please describe it, item {i % 7}" for i in range(60)]
TINY = "n_layer=2&n_embd=32&n_head=2&n_positions=64&vocab_size=300"
DECODERS = ["gpt1", "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2"]


# -------------------------------------------------------------------------------------------------- specifications


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("testbed:gpt2-xs", "testbed", "gpt2-xs", None),
        ("scratch:gpt2", "scratch", "gpt2", None),
        ("/models/x", "folder", "/models/x", None),
        ("./x", "folder", "./x", None),
        ("openai-community/gpt2", "hub", "openai-community/gpt2", None),
        ("sentence-transformers/all-MiniLM-L6-v2@c9745ed", "hub", "sentence-transformers/all-MiniLM-L6-v2", "c9745ed"),
    ],
)
def test_parse(text, kind, name, revision):
    spec = loading.parse(text)
    assert (spec.kind, spec.name, spec.revision) == (kind, name, revision)
    assert str(spec) == text
    assert loading.parse(spec) is spec


def test_scratch_options_are_normalised():
    assert str(loading.parse("scratch:gpt2?n_embd=64&n_layer=2")) == "scratch:gpt2?n_embd=64&n_layer=2"
    assert loading.fingerprint("scratch:gpt2?n_layer=2&n_embd=64") == loading.fingerprint(
        "scratch:gpt2?n_embd=64&n_layer=2"
    )
    assert loading.parse("scratch:llama?hidden_size=64").options == {"n_embd": 64}  # the architecture's own name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scratch:gtp2", "did you mean 'gpt2'"),
        ("scratch:gpt2?n_layers=2", "did you mean 'n_layer'"),
        ("scratch:gpt2?n_layer=two", "whole number"),
        ("scratch:gpt2?n_layer=0", "at least 1"),
        ("scratch:gpt2?dropout=1.5", "from 0 to below 1"),
        ("scratch:gpt2?n_embd=65&n_head=2", "not divisible"),
        ("scratch:llama?n_layer=1&n_embd=6&n_head=2", "make heads of 3, and llama turns their numbers in pairs"),
        ("scratch:gemma2?n_embd=6&n_head=2", "make heads of 3, and gemma2"),
        ("scratch:qwen3?n_embd=6&n_head=2", "make heads of 3, and qwen3"),
        ("scratch:gpt2?n_positions=1", "give at least 2"),
        ("scrach:gpt2", "did you mean 'scratch'"),
        ("a b c", "allowed are testbed:NAME"),
        ("", "allowed are testbed:NAME"),
        ("one/two/three", "allowed are testbed:NAME"),
    ],
)
def test_parse_errors_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        loading.parse(text)
    assert "\n" not in str(error.value)


def test_hub_id_offline_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    for call in (loading.preflight, loading.fingerprint):
        with pytest.raises(UserError, match="hf download org/name --revision v1.*or give a folder"):
            call("org/name@v1")


def test_a_cached_hub_model_is_known_by_its_commit(monkeypatch, tmp_path, folder):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--org--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc123")
    (root / "snapshots").mkdir()
    (root / "snapshots" / "abc123").symlink_to(folder)
    loading.preflight("org/name")
    assert loading.fingerprint("org/name") == "hub:org/name@abc123"
    assert loading.fingerprint("org/name@abc123") == "hub:org/name@abc123"


# ---------------------------------------------------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny GPT-2 in Hugging Face format."""
    path = tmp_path_factory.mktemp("models") / "gpt2"
    loading.save(*loading.load_classifier(f"scratch:gpt2?{TINY}", labels=["safe", "unsafe"], texts=TEXTS), path)
    return path


def test_folder_identity_is_its_content(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    first = loading.fingerprint(str(folder))
    assert loading.fingerprint(str(copy)) == first
    (copy / "README.md").write_text("a note")
    assert loading.fingerprint(str(copy)) == first
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"attn_pdrop": 0.3}))
    assert loading.fingerprint(str(copy)) != first


def _shard_missing(path):
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter_alone(path):
    (path / "config.json").rename(path / "adapter_config.json")


def _quantised(method):
    def damage(path):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))

    return damage


def _cut(name, keep):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:keep])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shard_missing, "lacks model-00002-of-00002.safetensors"),
        (_cut("model.safetensors", -5000), "bytes and its header needs [0-9,]+: a broken download; fetch it again"),
        (_cut("model.safetensors", 200), "is not a safetensors file"),
        (_cut("config.json", 100), "config.json' is not JSON"),
        (_adapter_alone, "holds an adapter and no model; merge it into its base"),
        (_quantised("gptq"), "is quantised \\(gptq\\), which only gptqmodel reads.*as it was before"),
    ],
)
def test_broken_folders_are_refused_before_anything_is_loaded(folder, tmp_path, monkeypatch, damage, message):
    """By all that read a folder; test_refused has more kinds of damage."""
    monkeypatch.setattr(specs, "find_spec", lambda name: None)  # no reader of quantised models, whatever is installed
    path = tmp_path / "model"
    shutil.copytree(folder, path)
    damage(path)
    for call in (loading.preflight, loading.fingerprint, lambda spec: loading.load_classifier(spec, labels=["a", "b"])):
        with pytest.raises(UserError, match=message) as error:
            call(str(path))
        assert "\n" not in str(error.value)


def test_weights_that_are_not_in_the_file_are_never_drawn_at_random(folder, tmp_path):
    """But for a classifier's new head."""
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model"
    shutil.copytree(folder, path)
    loading.load_classifier(str(path), labels=["a", "b"])
    weights = load_file(path / "model.safetensors")
    lost = next(name for name in weights if "mlp" in name)
    save_file({name: w for name, w in weights.items() if name != lost}, path / "model.safetensors", {"format": "pt"})
    for load in (
        lambda: loading.load_classifier(str(path), labels=["a", "b"]),
        lambda: loading.load_language_model(str(path)),
    ):
        with pytest.raises(UserError, match=f"lacks 1 of its weights, such as {lost}; fetch it again"):
            load()


def test_a_quantised_model_is_left_to_what_reads_it(folder, tmp_path, monkeypatch):
    path = tmp_path / "model"
    shutil.copytree(folder, path)
    _quantised("gptq")(path)
    monkeypatch.setattr(specs, "find_spec", lambda name: name if name == "gptqmodel" else None)
    loading.preflight(str(path))


def test_names_of_the_testbed_are_checked_where_it_is_loaded():
    from underseer.testbed import base, chat

    for name in (*base.BASE_MODELS, *chat.CHAT_MODELS):
        loading.preflight(f"testbed:{name}")
    with pytest.raises(UserError, match="'testbed:gpt2-xx' does not exist; allowed are .*did you mean 'gpt2-xs'"):
        loading.preflight("testbed:gpt2-xx")


# --------------------------------------------------------------------------------------------------------- loading


def _logits(model, tokenizer, texts):
    import torch

    from underseer.models.batches import TokenRows, tokenise

    ids, types = tokenise(tokenizer, texts, max_length=64)
    with torch.inference_mode():
        return model.eval()(**TokenRows(ids, tokenizer.pad_token_id, types=types).__getitems__(range(len(ids)))).logits


@pytest.mark.parametrize("family", [*DECODERS, "bert"])
def test_each_family_reads_the_last_real_token_whatever_the_padding(family, tmp_path):
    import torch

    model, tokenizer = loading.load_classifier(
        f"scratch:{family}?{TINY}", labels=["safe", "unsafe"], texts=TEXTS, seed=3
    )
    assert model.dtype == torch.float32
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.id2label == {0: "safe", 1: "unsafe"}
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
    # a long row, a short one, one that spells special tokens and one that is empty
    texts = [TEXTS[0], "the river", "river <|pad|> <|endoftext|>", ""]
    together = _logits(model, tokenizer, texts)
    alone = torch.cat([_logits(model, tokenizer, [text]) for text in texts])
    assert torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[1], together[2], atol=1e-5)

    loading.save(model, tokenizer, tmp_path / "m")
    again, same = loading.load_classifier(str(tmp_path / "m"), labels=["safe", "unsafe"])
    assert torch.equal(_logits(again, same, texts), together)


def test_token_id_0_is_a_token_like_any_other():
    """openai/weak-to-strong finds the last token by counting non-zero ids, so a closing id 0 is read as padding."""
    import torch

    model, tokenizer = loading.load_classifier(f"scratch:gpt2?{TINY}", labels=["a", "b"], texts=TEXTS)
    ids = torch.tensor([[5, 6, 0], [5, 6, tokenizer.pad_token_id]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.inference_mode():
        logits = model.eval()(input_ids=ids, attention_mask=mask).logits
        closing, without = model(input_ids=ids[:1]).logits, model(input_ids=ids[1:, :2]).logits
    assert torch.allclose(logits[0], closing[0], atol=1e-6)
    assert torch.allclose(logits[1], without[0], atol=1e-6)
    assert not torch.allclose(logits[0], logits[1], atol=1e-6)


def test_a_tokenizer_without_a_pad_token_gets_one(folder, tmp_path):
    """As GPT-2 is published (an end token, no pad token) and as GPT-1 is (neither)."""
    from transformers import PreTrainedTokenizerFast

    def without(name, **special):
        path = tmp_path / name
        shutil.copytree(folder, path)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), **special)
        tokenizer.save_pretrained(path)
        return str(path)

    gpt2, gpt1 = without("gpt2", eos_token="<|endoftext|>", unk_token="<|endoftext|>"), without("gpt1")
    model, tokenizer = loading.load_classifier(gpt2, labels=["a", "b"])
    assert tokenizer.pad_token == "<|endoftext|>" and model.config.pad_token_id == tokenizer.eos_token_id
    before = model.get_input_embeddings().num_embeddings
    model, tokenizer = loading.load_classifier(gpt1, labels=["a", "b"])
    assert tokenizer.pad_token == loading.PAD_TOKEN and model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer) >= before
    model, tokenizer = loading.load_language_model(gpt1)
    assert tokenizer.pad_token_id is not None and model.get_input_embeddings().num_embeddings == before


def test_seed_draws_the_weights():
    import torch

    first, second, third = (
        loading.load_classifier(f"scratch:gpt2?{TINY}", labels=["a", "b"], texts=TEXTS, seed=seed)[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.score.weight, second.score.weight)
    assert not torch.equal(first.score.weight, third.score.weight)


def test_loading_leaves_the_global_generator_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loading.load_classifier(f"scratch:gpt2?{TINY}", labels=["a", "b"], texts=TEXTS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", DECODERS)
def test_language_models_load_and_give_a_classifier_their_body(family, tmp_path, capfd):
    import torch

    model, tokenizer = loading.load_language_model(f"scratch:{family}?{TINY}", texts=TEXTS)
    loading.save(model, tokenizer, tmp_path / "lm")
    classifier, _ = loading.load_classifier(str(tmp_path / "lm"), labels=["safe", "unsafe"])
    assert torch.equal(classifier.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert classifier.config.num_labels == 2
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""  # a new head is expected here: nothing is said about it


def test_a_language_model_writes_from_left_to_right():
    with pytest.raises(UserError, match="reads a text in both directions"):
        loading.load_language_model(f"scratch:bert?{TINY}", texts=TEXTS)


def test_scratch_needs_texts_and_testbed_needs_its_base():
    with pytest.raises(UserError, match="needs texts"):
        loading.load_classifier("scratch:gpt2", labels=["a", "b"])


def test_scratch_vocabulary_is_bounded_by_the_option_and_by_the_data():
    assert len(loading.train_tokenizer(TEXTS, vocab_size=270)) == 270
    small = loading.train_tokenizer(TEXTS[:2])
    assert 258 <= len(small) < 400
    assert small.decode(small("Grüße, 世界! 🙂").input_ids) == "Grüße, 世界! 🙂"


def test_n_parameters_counts_shared_ones_once():
    model, tokenizer = loading.load_language_model(f"scratch:gpt2?{TINY}", texts=TEXTS)
    embedding, width = len(tokenizer) * 32, 32
    layer = 4 * width + (3 * width + 1) * 0 + width * 3 * width + 3 * width + width * width + width
    layer += width * 4 * width + 4 * width + 4 * width * width + width
    assert loading.n_parameters(model) == embedding + 64 * width + 2 * layer + 2 * width


def test_devices():
    assert loading.resolve_device("cpu").type == "cpu"
    assert loading.resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match="allowed are auto"):
        loading.resolve_device("gpu")
    with pytest.raises(UserError, match="not present"):
        loading.resolve_device("cuda:99")
