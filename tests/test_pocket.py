"""The bundled model and its suite: what they may share, and that the recipe does what its card says."""

import itertools
import json
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SHARED
from peftbench.models import find
from peftbench.tasks import TASKS, Example, suite
from peftbench.tasks._splits import RowLimits, split
from peftbench.tasks.pocket import (
    NAMES,
    arithmetic,
    choice,
    code,
    data_to_text,
    entailment,
    sentiment,
    similarity,
    topic,
)
from pretraining.pocket import text
from pretraining.world import ASKING, MEANING, documents, lexicon

MODULES = (arithmetic, choice, code, data_to_text, entailment, sentiment, similarity, topic)
WEIGHTS = Path(find("pocket").source)


def words_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from itertools.chain.from_iterable(map(words_of, value.values()))
    else:
        yield from itertools.chain.from_iterable(map(words_of, value))


def by_split(module: types.ModuleType) -> list[Mapping[str, Any]]:
    """The tables of a pocket task that have a part for each split."""
    return [v for v in vars(module).values() if isinstance(v, dict) and set(v) == {"train", "validation", "test"}]


def read() -> str:
    """Some of the documents of both stages."""
    return " ".join(text for mix in (MEANING, ASKING) for text in itertools.islice(documents(0, mix), 12_000))


@pytest.fixture(scope="module")
def world() -> set[str]:
    return set(re.findall(r"[a-z-]+", read().lower()))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.__name__.rpartition(".")[2]))
def test_splits_share_neither_sentences_nor_words(module: types.ModuleType) -> None:
    tables = by_split(module)
    assert len(tables) >= 2
    for table in tables:
        parts = {name: set(words_of(part)) for name, part in table.items() if table is not data_to_text.COMBINATIONS}
        for one, other in itertools.combinations(parts.values(), 2):
            assert not one & other
    assert not set(data_to_text.COMBINATIONS["train"]) & set(data_to_text.COMBINATIONS["test"])


def test_the_suite_has_names_and_labels_of_its_own(world: set[str]) -> None:
    assert not {name.lower() for name in words_of(NAMES)} & world
    for name in suite("pocket"):
        assert not {label.lower() for label in TASKS[name].facts.labels} & world


@pytest.mark.slow
def test_the_suite_has_sentences_of_its_own() -> None:
    """No sentence of the suite, names and words blanked, is one of the world's."""
    blank = re.compile(r"\{\w\}")
    frames = {
        blank.sub("_", sentence)
        for module in MODULES
        for table in by_split(module)
        for sentence in words_of(table)
        if blank.search(sentence)
    }
    seen = read()
    assert len(frames) > 40
    for frame in frames:
        assert not re.search(r"\w+".join(map(re.escape, frame.split("_"))), seen), frame


def test_the_words_the_suite_asks_about_are_known_to_the_world() -> None:
    bad, good = zip(*sentiment.WORDS.values(), strict=True)
    assert set(words_of(bad)) <= set(lexicon.BAD)
    assert set(words_of(good)) <= set(lexicon.GOOD)
    assert arithmetic.LARGEST <= 24


@pytest.mark.parametrize("name", suite("pocket"))
def test_rows_are_the_same_for_ever_nested_and_disjoint(name: str) -> None:
    task = TASKS[name]
    small, large = (split(task, {}, size, 3, RowLimits(32, 100), root=None) for size in (50, 200))
    assert large.train[:50] == small.train
    assert large.test == small.test
    assert large.validation == small.validation
    other = split(task, {}, 50, 4, RowLimits(32, 100), root=None)
    assert other.train != small.train
    assert other.test == small.test
    seen = {tuple(example.fields.values()) for example in large.train}
    assert not seen & {tuple(example.fields.values()) for example in [*large.test, *large.validation]}


def test_labels_are_balanced() -> None:
    for name in ("pocket_choice", "pocket_sentiment", "pocket_entailment", "pocket_topic"):
        targets = [example.target for example in split(TASKS[name], {}, "all", 0, RowLimits(), root=None).test]
        for label in TASKS[name].facts.labels:
            assert targets.count(label) / len(targets) == pytest.approx(1 / len(TASKS[name].facts.labels), abs=0.05)


def all_of(name: str) -> list[Example]:
    found = split(TASKS[name], {}, "all", 0, RowLimits(), root=None)
    return [*found.train, *found.validation, *found.test]


def test_the_choice_is_what_the_story_says() -> None:
    for example in all_of("pocket_choice"):
        answers = dict(part.split(": the ") for part in example.fields["answers"].split("; "))
        (name,) = {w.strip("?.") for w in example.fields["question"].split()} & set(words_of(NAMES))
        (told,) = [s for s in example.fields["story"].split(".") if name in s.split()]
        said = set(told.split()) & set(answers.values())
        assert said == {answers[example.target]}
        assert len(set(answers.values())) == 3


def test_the_similarity_is_what_the_sentences_share() -> None:
    words = set(words_of(NAMES)) | set(words_of(similarity.VALUES))
    counts = [0, 0, 0, 0]
    for example in all_of("pocket_similarity"):
        first, second = (set(re.findall(r"\w+", text)) & words for text in example.fields.values())
        assert len(first) == len(second) == 3
        assert example.target == str(len(first & second))
        counts[len(first & second)] += 1
    assert min(counts) > 0.2 * sum(counts)


def test_the_tokenizer_splits_digits_and_keeps_words() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    for sample in ("Peter has 12 apples, and 7 more.", "def f(x): return x + 3", "Is it so?\nNo."):
        assert tokenizer.decode(tokenizer(sample)["input_ids"]) == sample
    assert tokenizer.tokenize("17") == ["Ġ1", "7"]
    assert tokenizer("joy")["input_ids"] == tokenizer("so joy")["input_ids"][1:]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|user|>x<|assistant|>"


def test_the_card_tells_what_was_measured() -> None:
    card = (WEIGHTS / "README.md").read_text()
    report = json.loads((WEIGHTS / "pretraining.json").read_text())
    last = json.loads((WEIGHTS / "pretraining.jsonl").read_text().splitlines()[-1])
    assert f"| training tokens | {int(report['tokens']):,} |" in card
    assert report["held_out_world_loss"] == pytest.approx(last["held_out_world_loss"], abs=1e-3)
    for name in ("held_out_world_loss", "held_out_books_loss"):
        assert f"{report[name]:.3f} nats per token" in card
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 16e6


def test_overlap_with_test_rows_is_found(tmp_path: Path) -> None:
    import lzma

    secret = "the quick brown fox jumps over the lazy dog at noon"
    with lzma.open(tmp_path / "books-00.txt.xz", "wt") as out:
        for i in range(60):
            out.write(f"Line {i}.\nHe wrote that The Quick brown fox jumps over the lazy dog.\n<|endoftext|>\n")
    books = text.Books(tmp_path, set(text.shingles(secret)))
    kept = list(books)
    assert books.dropped_paragraphs == 60
    assert not any("fox" in book for book in kept)
    assert {*kept, *books.held_out()} == {f"Line {i}.<|end|>" for i in range(60)}
    assert not set(kept) & set(books.held_out())


def test_two_heads_start_as_a_pair_that_looks_up() -> None:
    """Before any training, what followed a random token the first time is mostly foretold the second time."""
    from pretraining.pocket.network import new_model

    once = torch.randint(300, 3000, (8, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = new_model(0)(torch.cat([once, once], 1)).logits.argmax(-1)
    assert (said[:, 60:-1] == once[:, 1:]).float().mean() > 0.8


def test_the_model_looks_up_what_followed_a_token() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    once = torch.randint(300, 3000, (8, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = model(torch.cat([once, once], 1)).logits.argmax(-1)
    assert (said[:, 40:-1] == once[:, 1:]).float().mean() > 0.9


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="needs the corpus beside the repository")
def test_the_recipe_makes_the_loss_fall_as_the_card_says(tmp_path: Path) -> None:
    """The first hundredth of the shipped training, by the same recipe, falls as far as that did."""
    from pretraining.pocket.__main__ import STAGES, make

    first = json.loads((WEIGHTS / "pretraining.jsonl").read_text().splitlines()[0])
    tokens = round(4096 * int(first["step"]) / STAGES[0].tokens)
    report = make(SHARED / "corpus", tmp_path / "model", tokens)
    found = [json.loads(line) for line in (tmp_path / "model" / "pretraining.jsonl").read_text().splitlines()]
    # A short run lets its rate fall earlier, so it is a little below the long one's curve at the same step.
    (same,) = [point for point in found if point["step"] == first["step"]]
    assert same["held_out_world_loss"] < first["held_out_world_loss"] + 0.1
    assert report["tokens"] == sum(round(tokens * stage.tokens) // 4096 * 4096 for stage in STAGES)
    assert find(str(tmp_path / "model")).name == "model"
