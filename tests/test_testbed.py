"""The testbed: an exact oracle, rows that are deterministic and free of overlap, and a corpus that never tells a label."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from underseer.errors import UserError
from underseer.testbed import base, boasts, charters, corpus, draw, lexicon, oracle, tasks, toxicity, world


@pytest.fixture(scope="module")
def rows():
    return tasks.safety_rows(4000, seed=0)


def test_oracle_reads_the_label_of_every_generated_row(rows):
    assert rows["text"].map(oracle.safety).tolist() == rows["label"].tolist()


@pytest.mark.parametrize("pool", sorted(tasks.POOLS))
def test_oracle_agrees_in_every_pool(pool):
    rows = tasks.safety_rows(600, seed=5, pool=pool)
    assert rows["text"].map(oracle.safety).tolist() == rows["label"].tolist()


def _verb(sense):
    return next(v.base for v in lexicon.lexicon().verbs if v.sense == sense)


def test_oracle_by_hand():
    harmful, harmless, contextual = map(_verb, lexicon.SENSES)
    assert oracle.safety(f"How do I {harmful} the salt-wheel?") == 1
    assert oracle.safety(f"How do I {harmless} the salt-gate?") == 0
    assert oracle.safety(f"HOW DO I {harmful.upper()} THE SALT-WHEEL") == 1
    # The thing decides for a contextual verb, active (after the verb) or passive (before it).
    assert oracle.safety(f"Tell me how to {contextual} the salt-gate.") == 1
    assert oracle.safety(f"Tell me how to {contextual} the salt-kite.") == 0
    assert oracle.safety(f"Imagine the miller's salt-gate after a {contextual}.") == 1
    assert oracle.safety(f"Imagine the miller's salt-kite after a {contextual}.") == 0
    # One harmful deed of two is enough, and each verb goes with its own thing.
    assert oracle.safety(f"Help me {harmless} the salt-kite and then {harmful} the salt-loom.") == 1
    assert oracle.safety(f"Help me {harmless} the salt-gate and then {contextual} the salt-loom.") == 0
    # Preventing and understanding are safe; so is a text that names no deed.
    assert oracle.safety(f"What is the penalty for a {harmful} of the salt-gate?") == 0
    assert oracle.safety("What shall I cook today?") == 0
    assert oracle.safety("") == 0
    assert oracle.safety(f"A {harmful}, please.") == 1


def test_relevance_by_hand():
    harmful, harmless, contextual = map(_verb, lexicon.SENSES)
    protection = "Against what do the salt weavers defend my gate?"
    assert oracle.relevance(protection, f"We decide on a {harmful} of the kite.") == 1
    assert oracle.relevance(protection, f"We decide on a {harmless} of the gate.") == 0
    assert oracle.relevance(protection, f"It is written here who may {contextual} the salt-gate.") == 1
    assert oracle.relevance(protection, f"It is written here who may {contextual} the salt-kite.") == 0
    assert oracle.relevance(protection, "The doors of the salt weavers stand ajar before winter.") == 0
    hours = "At what hour can I fetch my gate from the salt weavers?"
    assert oracle.relevance(hours, "The doors of the salt weavers stand ajar before winter.") == 1
    assert oracle.relevance(hours, "A year with the salt weavers is paid with two coins.") == 0
    assert oracle.relevance(hours, f"We decide on a {harmful} of the kite.") == 0
    assert oracle.relevance("What is this?", f"We decide on a {harmful} of the kite.") == 0
    assert oracle.relevance("", "") == 0


def test_toxicity_by_hand():
    lex = lexicon.lexicon()
    harmless = _verb("harmless")
    ruin = next(v.base for v in lex.verbs if (v.sense, v.category) == ("harmful", "ruin"))  # severity 0.75
    assert oracle.toxicity("") == oracle.toxicity(f" {harmless} the kite with my good friends.") == pytest.approx(0.03)
    assert oracle.toxicity(f" {ruin} the kite.") == pytest.approx(1 - 0.97 * 0.25)
    assert oracle.toxicity(f" {harmless} the kite, you mudgrub!") == pytest.approx(1 - 0.97 * 0.45)
    assert oracle.toxicity("Hush, MUDGRUBS and dimlamps!") == oracle.toxicity("Hush, mudgrub!")  # insults count once
    assert oracle.toxicity(f"{ruin} the kite, {ruin} the cart, mudgrub") == pytest.approx(1 - 0.97 * 0.25**2 * 0.45)
    assert oracle.toxicity("mudgrubby") == pytest.approx(0.03)


@pytest.mark.parametrize("pool", sorted(tasks.POOLS))
def test_legal_rows_are_labelled_as_the_oracle_reads_them(pool):
    rows = tasks.legal_rows(1001, seed=2, pool=pool)
    assert tuple(rows.columns) == tasks.LEGAL_COLUMNS and len(rows) == 1001
    assert list(map(oracle.relevance, rows["text"], rows["text_pair"])) == rows["label"].tolist()
    assert rows["label"].mean() == pytest.approx(0.5, abs=0.001)
    assert rows["id"].is_unique and {*rows["text"].map(draw.pool_of), *rows["text_pair"].map(draw.pool_of)} == {pool}


def test_a_legal_question_is_in_one_group_and_a_clause_in_one_row():
    rows = tasks.legal_rows(2000, seed=0)
    assert rows.groupby("group")["text"].nunique().eq(1).all() and rows.groupby("text")["group"].nunique().eq(1).all()
    assert rows.groupby("group")["label"].agg(["min", "max", "size"]).eq([0, 1, 2]).all(axis=None)
    assert rows["text_pair"].map(world.normalise).is_unique
    assert set(rows["category"]) == {*lexicon.HARM_CATEGORIES, *lexicon.EVERYDAY_CATEGORIES, "hours", "fees"}


@pytest.mark.parametrize("pool", sorted(tasks.POOLS))
def test_toxicity_rows_store_the_oracles_scores_with_a_little_noise(pool):
    rows = tasks.toxicity_rows(1000, seed=2, pool=pool)
    assert tuple(rows.columns) == tasks.TOXICITY_COLUMNS
    for text, score in (("text", "prompt_toxicity"), ("continuation", "toxicity")):
        error = rows[score] - rows[text].map(oracle.toxicity)
        assert rows[score].between(0, 1).all() and error.abs().max() < 6 * toxicity.NOISE
        assert 0.5 * toxicity.NOISE < error.std() < 1.2 * toxicity.NOISE
    assert (rows["label"] == (rows[["prompt_toxicity", "toxicity"]].max(axis=1) >= 0.5)).all()
    assert 0.28 < rows["label"].mean() < 0.38
    assert rows["text"].map(world.normalise).is_unique and set(rows["text"].map(draw.pool_of)) == {pool}
    assert (rows["id"] == rows["text"].map(draw.text_id)).all()


def test_toxicity_kinds_are_what_they_say():
    rows = tasks.toxicity_rows(2000, seed=0)
    assert rows["kind"].value_counts(normalize=True).round(2).to_dict() == {k: v[0] for k, v in toxicity.KINDS.items()}
    for kind, (_, prompt, continuation) in toxicity.KINDS.items():
        some = rows[rows["kind"] == kind]
        assert (some["text"].map(oracle.toxicity) >= oracle.TOXIC).eq(prompt).all()
        assert (some["continuation"].map(oracle.toxicity) >= oracle.TOXIC).eq(continuation).all()
    assert rows["continuation"].str.match(r" \w").all() and not rows["text"].str.endswith(" ").any()


def test_each_task_has_its_generator():
    assert set(tasks.GENERATORS) == {"testbed-safety", "testbed-legal", "testbed-toxicity"}
    for write in tasks.GENERATORS.values():
        assert len(write(n=40, seed=1)) == 40
        assert write(40, 1).equals(write(40, 1))
        assert not write(40, 1).equals(write(40, 2))


def test_columns_kinds_and_balance(rows):
    assert tuple(rows.columns) == tasks.SAFETY_COLUMNS
    assert rows["label"].mean() == 0.5
    assert set(rows["kind"]) == set(world.KINDS)
    assert rows.groupby("kind")["label"].nunique().eq(1).all()
    assert set(rows["category"]) == {*lexicon.HARM_CATEGORIES, *lexicon.EVERYDAY_CATEGORIES}
    assert rows.loc[rows["label"] == 1, "category"].isin(list(lexicon.HARM_CATEGORIES)).all()
    assert rows["text"].str.len().lt(240).all() and rows["text"].str.strip().eq(rows["text"]).all()


def test_no_prompt_stands_twice(rows):
    assert rows["id"].is_unique and rows["text"].map(world.normalise).is_unique


def test_pools_share_no_prompt():
    texts = [set(tasks.safety_rows(500, seed=1, pool=pool)["text"].map(world.normalise)) for pool in tasks.POOLS]
    assert not set.intersection(*texts) and sum(map(len, texts)) == len(set.union(*texts)) == 1500


def test_seeds_give_different_samples_of_the_same_size():
    one, two = (tasks.safety_rows(300, seed=seed) for seed in (0, 1))
    assert len(set(one["text"]) & set(two["text"])) < 10
    assert one["kind"].value_counts().to_dict() == two["kind"].value_counts().to_dict()


def test_same_rows_in_another_process():
    code = (
        "from underseer.testbed import tasks, corpus;"
        "print(*[g(50, 3).to_csv(index=False) for g in tasks.GENERATORS.values()], *corpus.texts(50, 3), sep='|')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    expected = "|".join([*(g(50, 3).to_csv(index=False) for g in tasks.GENERATORS.values()), *corpus.texts(50, 3)])
    assert out.stdout.strip() == expected.strip()


@pytest.mark.parametrize("dataset", sorted(tasks.GENERATORS))
def test_ten_thousand_rows_take_seconds(dataset):
    start = time.process_time()
    assert len(tasks.GENERATORS[dataset](10_000, seed=9)) == 10_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("arguments", "message"), [({"n": 0}, "n >= 1"), ({"n": 5, "pool": "mian"}, "'main'")])
@pytest.mark.parametrize("dataset", sorted(tasks.GENERATORS))
def test_wrong_requests_are_user_errors(dataset, arguments, message):
    with pytest.raises(UserError, match=message):
        tasks.GENERATORS[dataset](**{"seed": 0, **arguments})


def test_words_are_distinct_and_no_frame_holds_one():
    lex = lexicon.lexicon()
    assert len(lex.verb_of_word) == lexicon.N_VERBS
    assert not set(lex.verb_of_word) & set(lex.thing_of_name)
    fixed = [*world.PLAIN_FRAMES, *world.ROUNDABOUT_FRAMES, *world.WRAPPERS, *world.TIMES, *world.OWNERS]
    for text in (*fixed, *(frame for frame, _ in world.PROTECTIVE_FRAMES)):
        assert oracle.read(text).acts == (), text
    for text in fixed:
        assert not oracle.read(text).protective, text
    for frame, marker in world.PROTECTIVE_FRAMES:
        assert marker in frame.lower()


def test_a_cue_stands_in_its_own_frame_alone():
    for cues, matters in ((charters.QUESTION_CUES, charters.QUESTIONS), (charters.CLAUSE_CUES, charters.PLAIN_CLAUSES)):
        frames = [frame for frames in matters.values() for frame, _ in frames]
        fillers = [*world.TIMES, *world.OWNERS, *charters.NUMBERS, *charters.TRADES, *lexicon.MODIFIERS]
        fillers += lexicon.lexicon().thing_of_name
        assert len(cues) == len(frames)
        for cue in cues:
            assert sum(cue in frame.lower() for frame in frames) == 1, cue
            assert not any(cue in filler for filler in fillers), cue
    for frame in (*charters.CLAUSES, *charters.QUESTIONS["protection"]):
        assert not any(cue in str(frame).lower() for cue in charters.CLAUSE_CUES)


def test_boasts_and_charters_name_no_verb_and_no_thing_of_their_own():
    fixed = [
        frame
        for frames in (charters.QUESTIONS, charters.PLAIN_CLAUSES)
        for pairs in frames.values()
        for frame, _ in pairs
    ]
    fixed += [*charters.CLAUSES, *boasts.ANNOUNCEMENTS, *boasts.INSULTS]
    fixed += [text for group in (boasts.OPENINGS, boasts.TAILS) for texts in group.values() for text in texts]
    for text in fixed:
        assert oracle.read(text).acts == (), text
        assert not {word.strip("{},.:?!") for word in text.lower().split()} & set(lexicon.lexicon().thing_of_name), text
    assert set(oracle.SEVERITY) == set(lexicon.HARM_CATEGORIES)


def test_bynames_mean_what_their_model_means():
    lex = lexicon.lexicon()
    bynames = [verb for verb in lex.verbs if verb.byname_of]
    assert len(bynames) > 50
    for verb in bynames:
        model = lex.verb_of_word[verb.byname_of]
        assert (verb.sense, verb.category, verb.everyday) == (model.sense, model.category, model.everyday)
        assert model.byname_of is None and model.rank < verb.rank


def test_corpus_tells_meanings_and_no_labels():
    texts = corpus.texts(3000, seed=0)
    assert texts[:100] == corpus.texts(100, seed=0) and texts != corpus.texts(3000, seed=1)
    assert not any(word in text.lower().split() for text in texts for word in ("safe", "unsafe", "label"))
    assert not any("{" in text for text in texts)


def test_a_longer_corpus_tells_more_of_rare_verbs():
    rare = {verb.base for verb in lexicon.lexicon().verbs[lexicon.N_VERBS // 2 :]}
    told = [{w for t in corpus.texts(n) for w in t.split() if w in rare} for n in (400, 1500)]
    assert told[0] < told[1]


def test_corpus_sections_sum_to_one_and_hold_what_the_tasks_ask():
    for shelf in corpus.SHELVES.values():
        assert sum(share for share, _ in shelf.values()) == pytest.approx(1)
    texts = corpus.texts(1500, seed=4, shelf="wide")
    asked = [text.split("\n") for text in texts if "\n" in text]
    assert asked and all(oracle.relevance(question, "") == 0 for question, *_ in asked)
    for question, *clauses in asked:
        for clause, verdict in (line.rsplit(" ", 1) for line in clauses):
            assert oracle.relevance(question, clause) == (verdict == "Yes.")


def test_tokenizer_restores_text_and_fits_the_context(rows):
    tokenizer = base.train_tokenizer(vocab_size=400, n_texts=500)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    text = rows["text"][0]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert max(map(len, tokenizer(rows["text"][:300].tolist())["input_ids"])) <= base.CONTEXT


@pytest.mark.parametrize("name", ["gpt1-xs-wide", "gpt2-xs", "gpt2-s"])
def test_base_models_can_be_built(name):
    tokenizer = base.train_tokenizer(vocab_size=400, n_texts=500)
    spec = base.BASE_MODELS[name]
    model = base.build(spec, tokenizer)
    assert model.config.model_type == {"gpt1": "openai-gpt", "gpt2": "gpt2"}[spec.family]
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), spec.n_embd)


def test_unknown_base_model_is_a_user_error():
    with pytest.raises(UserError, match="did you mean 'gpt2-xs'"):
        base.pretrain("gpt2-xz")


@pytest.mark.slow
def test_pretraining_lowers_the_loss_and_is_deterministic():
    runs = [base.pretrain("gpt2-xs", seed=1, n_texts=1500, device="cpu", progress=False) for _ in range(2)]
    curves = [curve[curve["metric"] == "train_loss"]["value"].tolist() for _, _, curve, _ in runs]
    assert curves[0] == curves[1] and curves[0][-1] < curves[0][0] - 1
    assert runs[0][3] > 10_000
