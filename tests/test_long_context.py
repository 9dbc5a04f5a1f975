"""The long-context suite: what is asked is in the text, once, at any place; rows that do not fit are refused."""

import itertools
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.core.registry import UserError
from peftbench.grid.expand import expand
from peftbench.single_run import Worker, run
from peftbench.tasks import TASKS, Example, suite
from peftbench.tasks import long_context as filling
from peftbench.tasks._splits import RowLimits, Splits, split
from peftbench.tasks.long_context import aggregation, hide, multi_key, needle

MODULES = (filling, aggregation, multi_key, needle)
SPLITS = ("train", "validation", "test")


def splits(name: str, size: int = 60, seed: int = 0, **arguments: Any) -> Splits:
    return split(TASKS[name], arguments, size, seed, RowLimits(40, 60), root=None)


def examples(name: str, **arguments: Any) -> list[Example]:
    found = splits(name, **arguments)
    return [*found.train, *found.validation, *found.test]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts(part)


def test_the_suite() -> None:
    assert suite("long-context") == ["long_aggregation", "long_multi_key", "long_needle"]
    for name in suite("long-context"):
        facts = TASKS[name].facts
        assert facts.whole
        assert facts.metrics[0] == "exact_match"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.__name__.rpartition(".")[2]))
def test_splits_share_neither_sentences_nor_words(module: types.ModuleType) -> None:
    tables = [v for v in vars(module).values() if isinstance(v, dict) and set(v) == set(SPLITS)]
    assert len(tables) >= 2
    for table, (one, other) in itertools.product(tables, itertools.combinations(SPLITS, 2)):
        assert not set(texts(table[one])) & set(texts(table[other]))


@pytest.mark.parametrize("name", suite("long-context"))
def test_rows_are_the_same_for_ever_nested_and_disjoint(name: str) -> None:
    small, large, other = splits(name, 20), splits(name, 60), splits(name, 20, seed=1)
    assert splits(name, 20) == small
    assert large.train[:20] == small.train
    assert (other.test, other.validation) == (small.test, small.validation)
    assert other.train != small.train
    sentences = [
        {s for example in part for s in re.split(r"(?<=\.) ", example.fields["text"])}
        for part in (large.train, large.validation, large.test)
    ]
    for one, two in itertools.combinations(sentences, 2):
        assert not one & two


@given(st.integers(1, 600), st.integers(0, 5), st.sampled_from(SPLITS), st.integers())
@settings(deadline=None)
def test_hidden_sentences_are_all_there_in_order(words: int, count: int, split: str, seed: int) -> None:
    needles = [f"Needle {i} here." for i in range(count)]
    text = hide({"filler": str(seed), "split": split, "needles": "\n".join(needles)}, words)
    assert re.findall(r"Needle \d here\.", text) == needles
    long = len(text.split())
    parts = (filling.SUBJECTS, filling.DOINGS, filling.WHERE, filling.WHEN)
    longest = sum(max(len(words.split()) for words in part[split]) for part in parts)
    assert max(words, 3 * count) <= long < max(words, 3 * count) + longest


@pytest.mark.parametrize("name", suite("long-context"))
@pytest.mark.parametrize("words", [50, 1000])
def test_the_length_is_an_argument(name: str, words: int) -> None:
    for example in examples(name, words=words):
        assert words <= len(example.fields["text"].split()) < max(words, 60) + 20


def test_the_needle_stands_once_and_anywhere() -> None:
    places = []
    for example in examples("long_needle"):
        text = example.fields["text"]
        assert len(re.findall(r"\d+", text)) == 1
        assert text.count(example.target) == 1
        (sentence,) = [s for s in re.split(r"(?<=\.) ", text) if example.target in s]
        thing = next(t for t in texts(needle.THINGS) if t in example.fields["question"])
        assert thing in sentence
        places.append(text.index(example.target) / len(text))
    assert min(places) < 0.1
    assert max(places) > 0.9
    assert 0.4 < sum(places) / len(places) < 0.6


def test_the_right_two_of_four_numbers() -> None:
    for example in examples("long_multi_key"):
        lines = [s for s in re.split(r"(?<=\.) ", example.fields["text"]) if re.search(r"\d", s)]
        assert len(lines) == multi_key.KEYS
        names = [n for n in re.findall(r"[A-Z]\w+", example.fields["question"]) if any(n in line for line in lines)]
        expected = [re.findall(r"\d+", line)[0] for n in names for line in lines if re.search(rf"\b{n}\b", line)]
        assert example.target == " and ".join(expected)
        assert len(expected) == 2


def test_the_count_is_that_of_the_text() -> None:
    counts: Counter[str] = Counter()
    for example in examples("long_aggregation"):
        words = set(re.findall(r"[A-Z]\w+", example.fields["question"])) - {"How"}
        (name,) = words
        found = len(re.findall(rf"\b{name}\b", example.fields["text"]))
        assert example.target == ("never", "once", "twice", "thrice")[found]
        counts[example.target] += 1
    assert min(counts.values()) > 0.15 * sum(counts.values())


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="argument 'words': must be above 0"):
        expand({"methods": ["none"], "tasks": [{"use": "long_needle", "words": 0}]})


def grid(model: Path, words: int, **train: Any) -> dict[str, Any]:
    return {
        "models": [str(model)],
        "methods": ["none"],
        "tasks": [{"use": "long_needle", "words": words}],
        "sizes": [12],
        "train": {"validation_rows": 4} | train,
        "eval": {"test_rows": 6},
    }


def test_rows_that_do_not_fit_are_refused_not_shortened(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Refused with the length that is enough, from the cache of encoded rows as well; with that length they run."""

    def do(words: int, **train: Any) -> tuple[str, str]:
        (spec,) = expand(grid(tiny_models["llama"], words, **train))
        result, _ = run(spec, Worker(), tmp_path, lambda _event: None)
        if result.status == "ok":
            assert result.data is not None
            assert result.data.truncated_rows == 0
        return result.status, result.error or ""

    assert do(100) == ("ok", "")
    for _ in range(2):
        status, error = do(500)
        assert status == "refused"
        asked = re.fullmatch(
            r"(\d+) of (\d+) rows do not fit into max_length = 512, and a row without its middle may lack what is "
            r"asked: ask for fewer words, or raise max_length to (\d+)",
            error,
        )
        assert asked, error
        cut, count, enough = map(int, asked.groups())
    assert cut == count == 12 + 4 + 6
    assert do(500, max_length=enough - 1)[0] == "refused"
    assert do(500, max_length=enough) == ("ok", "")


def test_other_tasks_are_shortened_as_before(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    asked = grid(tiny_models["llama"], 1, max_length=32) | {"tasks": ["pocket_sentiment"]}
    (spec,) = expand(asked)
    result, _ = run(spec, Worker(), tmp_path, lambda _event: None)
    assert result.status == "ok"
    assert result.data is not None
    assert result.data.truncated_rows > 0
