"""The bundled encoder–decoder: its pairs are made right, and the recipe does what its card says."""

import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from conftest import SHARED
from peftbench.models import find
from peftbench.tasks import TASKS, suite
from peftbench.tasks.pocket import NAMES
from pretraining.pocket_t5 import __main__ as recipe
from pretraining.pocket_t5.network import new_model
from pretraining.pocket_t5.pairs import (
    END,
    PAD,
    SENTINELS,
    SOURCE,
    TARGET,
    Pair,
    PairMaker,
    mixed,
    noise_spans,
    packed,
    take_out,
    world,
)
from pretraining.trainer import Pairs, held_out_loss
from test_pocket import words_of

WEIGHTS = Path(find("pocket-t5").source)
needs_weights = pytest.mark.skipif(
    not (WEIGHTS / "model.safetensors").is_file(),
    reason="the weights are not there yet: python -m pretraining.pocket_t5 makes them",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = (" ".join(itertools.chain.from_iterable(document)) for document in world(7))
    return recipe.new_tokenizer(itertools.islice(texts, 300), 500)


def put_back(pair: Pair, sentinels: set[int]) -> list[int]:
    """The text that source and target were made of."""
    spans: dict[int, list[int]] = {}
    for token in pair[1]:
        if token in sentinels:
            spans[token] = []
            last = token
        else:
            spans[last].append(token)
    back = []
    for token in pair[0]:
        back += spans.pop(token) if token in sentinels else [token]
    assert not spans
    return back


@given(
    st.integers(4, 300), st.floats(0.05, 0.9), st.integers(1, 12), st.integers(0, 2**32), st.lists(st.integers(0, 9))
)
def test_what_is_taken_out_can_be_put_back(length: int, share: float, mean: int, seed: int, extra: list[int]) -> None:
    tokens = (list(range(length)) + extra)[-length:]
    spans = noise_spans(random.Random(seed), length, share, mean)
    lost = sum(map(len, spans))
    assert lost == min(max(1, round(share * length)), length - 1)
    assert len(spans) == min(max(1, round(lost / mean)), lost, length - lost + 1, len(SENTINELS))
    assert all(spans)
    assert all(one.stop < other.start for one, other in itertools.pairwise(spans))
    assert spans[0].start >= 0
    assert spans[-1].stop <= length
    sentinels = range(1000, 1000 + len(SENTINELS))
    pair = take_out(tokens, spans, sentinels)
    assert put_back(pair, set(sentinels)) == tokens
    assert len(pair[0]) == length - lost + len(spans)


def test_any_place_may_be_taken_out() -> None:
    rng = random.Random(0)
    gone = {place for _ in range(500) for span in noise_spans(rng, 20, 0.2, 3) for place in span}
    assert gone == set(range(20))


def test_prose_can_be_put_back(tokenizer: Tokenizer) -> None:
    """Everything of a text is read or written, once and in order, but for an end too short to make a pair of."""
    said = " ".join(itertools.chain.from_iterable(itertools.chain(*itertools.islice(world(3), 60))))
    maker = PairMaker(tokenizer, 0)
    pairs = list(maker.of_prose(iter([said])))
    sentinels = set(maker.sentinels)
    assert all(source.pop() == target.pop() == maker.end for source, target in pairs)
    back = [token for pair in pairs for token in put_back(pair, sentinels)]
    ids = tokenizer.encode(said, add_special_tokens=False).ids
    assert back == ids[: len(back)]
    assert len(ids) - len(back) < 4


def test_documents_become_questions_and_texts_without_answers(tokenizer: Tokenizer) -> None:
    document = [("Who sang?", "Rose."), ("Who slept?", "Nobody.")]
    maker = PairMaker(tokenizer, 0)
    made = {
        tuple(str(tokenizer.decode(ids, skip_special_tokens=False)) for ids in pair)
        for pair in maker.of_world(itertools.repeat(document, 200))
    }
    whole = {pair for pair in made if "<extra" not in pair[0]}
    assert whole == {
        (f"{asked}</s>", "Rose.</s>") for asked in ("Who sang?", "Who sang?\nAnswer:", "Question: Who sang?\nAnswer:")
    }
    cloze = ("Who sang?<extra_id_0> Who slept?<extra_id_1></s>", "<extra_id_0> Rose.<extra_id_1> Nobody.</s>")
    assert cloze in made
    assert len(made) > 20


def test_the_world_as_read_has_none_of_the_suites_names_and_labels() -> None:
    documents = itertools.islice(world(0), 20_000)
    words = set(re.findall(r"[a-z-]+", " ".join(words_of(list(documents))).lower()))
    assert not {name.lower() for name in words_of(NAMES)} & words
    for name in suite("pocket"):
        assert not {label.lower() for label in TASKS[name].facts.labels} & words


def test_streams_keep_their_shares() -> None:
    def stream(size: int, mark: int) -> Iterator[Pair]:
        return itertools.repeat(([mark] * size, [mark]))

    pairs = list(itertools.islice(mixed({stream(99, 1): 0.7, stream(9, 2): 0.3}), 2000))
    tokens = {mark: sum(len(s) + len(t) for s, t in pairs if t == [mark]) for mark in (1, 2)}
    assert tokens[1] / sum(tokens.values()) == pytest.approx(0.7, abs=0.01)


def test_packing_loses_nothing_and_fills_rows(tokenizer: Tokenizer) -> None:
    pairs = list(itertools.islice(PairMaker(tokenizer, 0).of_world(world(0)), 3000))
    batches = list(itertools.islice(packed(iter(pairs), 4), 8))
    rows = list(itertools.chain.from_iterable(batches))
    for row in rows:
        assert sum(len(source) for source, _ in row) <= SOURCE
        assert sum(len(target) for _, target in row) <= TARGET
    found = [pair for row in rows for pair in row]
    # Those that waited at the end are the only ones of the stream so far that are in no row.
    seen = max(pairs.index(pair) for pair in found) + 1
    missing = [pair for pair in pairs[:seen] if pair not in found]
    assert len(missing) <= 4
    assert len(found) >= seen - 4
    filled = sum(len(source) for source, _ in found) / (len(rows) * SOURCE)
    assert filled > 0.6


def test_pairs_of_a_row_do_not_see_one_another(tokenizer: Tokenizer) -> None:
    """The loss of packed rows is what the model gives for each pair alone."""
    (rows,) = itertools.islice(packed(PairMaker(tokenizer, 0).of_world(world(0)), 2), 1)
    model = new_model(0, tokenizer.get_vocab_size()).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.06)
    batch = Pairs.packed(rows, (SOURCE, TARGET), start=0)
    total = 0.0
    with torch.no_grad():
        for source, target in (pair for row in rows for pair in row):
            alone = model(input_ids=torch.tensor([source]), labels=torch.tensor([target]))
            total += alone.loss.item() * len(target)
        assert batch.scored == sum(len(target) for row in rows for _, target in row)
        assert batch.loss(model).item() == pytest.approx(total / batch.scored, rel=0.01)


def test_the_first_heads_look_up_what_follows_a_token() -> None:
    """Before any training, the likeliest next token beside the present one is what follows it in the source."""
    model = new_model(0, 1000).eval()
    source = random.Random(0).sample(range(10, 1000), 60)
    given = torch.tensor([source[:-1]])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=given).logits[0]
    logits.scatter_(1, given.T, -torch.inf)
    right = logits.argmax(1) == torch.tensor(source[1:])
    assert right.float().mean() > 0.8


def test_matrices_learn_by_muon_and_queries_slowly() -> None:
    from pretraining.trainer import Schedule, _optimizers

    model = new_model(0, 600)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, adam = _optimizers(model, Schedule(1))
    others, queries = ({names[id(p)] for p in group["params"]} for group in muon.param_groups)
    assert len(queries) == 4 + 2 * 2
    assert all(name.endswith(".q.weight") for name in queries)
    assert len(others) == 4 * 6 + 2 * 9
    (group,) = adam.param_groups
    rest = {names[id(p)] for p in group["params"]}
    assert {name for name in rest if "norm" not in name} == {
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    }
    assert muon.param_groups[1]["rate"] < muon.param_groups[0]["rate"]


def check_tokenizer(tokenizer: Any) -> None:
    for sample in ("Peter has 12 apples, and 7 more.", "def f(x): return x + 3", "Is it so?\nNo."):
        ids = tokenizer(sample)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == sample
    assert (tokenizer.pad_token, tokenizer.eos_token) == (PAD, END)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    sentinels = tokenizer.convert_tokens_to_ids(list(SENTINELS))
    assert sentinels == list(range(len(tokenizer) - len(SENTINELS), len(tokenizer)))
    masked = tokenizer("The <extra_id_0> sat on <extra_id_1>.")["input_ids"]
    assert [token for token in masked if token in sentinels] == sentinels[:2]
    assert tokenizer("so<extra_id_0> joy")["input_ids"] == tokenizer("so <extra_id_0>joy")["input_ids"]


def test_what_is_saved_works_as_any_t5(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = new_model(0, tokenizer.get_vocab_size())
    recipe.save(model, tokenizer, tmp_path)
    check_tokenizer(AutoTokenizer.from_pretrained(tmp_path))
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert all(
        torch.equal(one, other.float()) for one, other in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    assert loaded.generate(torch.tensor([[5, 6, 1]]), max_new_tokens=3)[0, 0] == loaded.config.pad_token_id


@needs_weights
def test_the_card_tells_what_was_measured() -> None:
    card = (WEIGHTS / "README.md").read_text()
    report = json.loads((WEIGHTS / "pretraining.json").read_text())
    last = json.loads((WEIGHTS / "pretraining.jsonl").read_text().splitlines()[-1])
    assert f"| training tokens | {int(report['tokens']):,} |" in card
    assert f"| tokens scored | {int(report['scored']):,} |" in card
    for name in ("held_out_world_loss", "held_out_books_loss"):
        assert report[name] == pytest.approx(last[name], abs=1e-3)
        assert f"{report[name]:.3f} nats per token" in card


@needs_weights
def test_the_bundled_model_loads_and_fits_as_its_report_says() -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    assert (WEIGHTS / "model.safetensors").stat().st_size <= 16e6
    loaded = AutoTokenizer.from_pretrained(WEIGHTS)
    check_tokenizer(loaded)
    model = AutoModelForSeq2SeqLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    assert 4e6 <= model.num_parameters() <= 8e6
    report = json.loads((WEIGHTS / "pretraining.json").read_text())
    seed = int(report["seed"]) + 1
    unseen = PairMaker(loaded.backend_tokenizer, seed).of_world(world(seed))
    batches = list(itertools.islice(recipe.batches(unseen, 16), recipe.HELD_OUT_BATCHES))
    assert held_out_loss(model, batches) == pytest.approx(report["held_out_world_loss"], abs=0.02)


@needs_weights
@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="needs the corpus beside the repository")
def test_the_recipe_makes_the_loss_fall_as_the_card_says(tmp_path: Path) -> None:
    """The first hundredth of the shipped training, by the same recipe, falls as far as that did."""
    first = json.loads((WEIGHTS / "pretraining.jsonl").read_text().splitlines()[0])
    tokens = 16 * (SOURCE + TARGET) * int(first["step"])
    report = recipe.make(SHARED / "corpus", tmp_path / "model", tokens)
    # A short run warms up at once and lets its rate fall earlier, so it is below the long one's curve at the same step.
    assert report["tokens"] == tokens
    assert report["held_out_world_loss"] < first["held_out_world_loss"] + 0.1
    assert report["held_out_books_loss"] < first["held_out_books_loss"] + 0.1
    assert find(str(tmp_path / "model")).name == "model"
