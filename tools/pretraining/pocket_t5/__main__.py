"""Make the bundled encoder–decoder from text: `python -m pretraining.pocket_t5 --corpus DIR --out DIR`.

Deterministic by seed on one machine and thread count. `--budget small` is what one CPU core does in half an hour,
`--budget large` a GPU in minutes; `--tokens` sets any other length.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from peftbench.core import device
from pretraining.pocket import recipe, text
from pretraining.pocket.card import About
from pretraining.pocket.network import VOCABULARY
from pretraining.pocket_t5.network import new_model
from pretraining.pocket_t5.pairs import (
    END,
    PAD,
    SENTINELS,
    SOURCE,
    TARGET,
    Pair,
    PairMaker,
    again,
    mixed,
    packed,
    world,
)
from pretraining.trainer import Pairs, Schedule, pretrain
from pretraining.world import END as BOOK_END

ABOUT = About(
    title="peftbench pocket encoder–decoder",
    module="pretraining.pocket_t5",
    what="""\
An encoder–decoder of the T5 architecture (v1.1: gated GELU; tied head, no dropout) of {parameters:,} parameters, with
its own byte-level BPE tokenizer and {sentinels} sentinels. It is bundled with peftbench beside the decoder `pocket`,
and like it a measuring instrument, not an assistant.""",
    mix="""\

Of the tokens, {books:.0%} are of books and {world:.0%} of the world. Books are read with spans taken out, which are to
be written (a little of the text, a lot, or all that follows a place). So are some of the texts of the world; of most
others the answers are to be written, of a question alone or of all in a text.""",
    start="random, but for two heads that look up what follows a token in the source (`network.py`)",
)
BUDGETS = {"small": 6_000_000, "large": 1_000_000_000}
"""Training tokens of each budget, padding included."""
SHARES = {"world": 0.7, "books": 0.3}
"""Of the tokens, those that are of the world and of books."""
HELD_OUT_BATCHES = 2


def new_tokenizer(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """Fit a tokenizer that works as T5's: sentinels after the vocabulary, the end token put after every text."""
    tokenizer = text.fit_tokenizer(texts, vocabulary, [PAD, END])
    # A sentinel takes the spaces beside it: the word after it begins with one in any case.
    tokenizer.add_special_tokens([AddedToken(each, lstrip=True, rstrip=True, special=True) for each in SENTINELS])
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def sample_for_tokenizer(books: text.Books, seed: int) -> Iterator[str]:
    """Books and documents of the world, as they are read."""
    documents = (" ".join(itertools.chain.from_iterable(document)) for document in world(seed))
    return text.sample_for_tokenizer(_plain(iter(books)), documents, 12_000_000)


def held_out(tokenizer: Tokenizer, books: text.Books, seed: int) -> dict[str, list[Pairs]]:
    """The first batches of the world of another seed, and of books that are not trained on."""
    maker, rows = PairMaker(tokenizer, seed + 1), Schedule.rows_per_step
    pairs = {"world": maker.of_world(world(seed + 1)), "books": maker.of_prose(_plain(books.held_out()))}
    return {f"held_out_{k}_loss": list(itertools.islice(batches(v, rows), HELD_OUT_BATCHES)) for k, v in pairs.items()}


def _plain(books: Iterator[str]) -> Iterator[str]:
    return (book.removesuffix(BOOK_END) for book in books)


def batches(pairs: Iterator[Pair], rows: int) -> Iterator[Pairs]:
    """Pairs packed into batches."""
    return (Pairs.packed(batch, (SOURCE, TARGET), start=0) for batch in packed(pairs, rows))


def save(model: Any, tokenizer: Tokenizer, out: Path) -> None:
    """Write model (bfloat16) and tokenizer in Hugging Face format."""
    model.bfloat16().save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=list(SENTINELS),
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    ).save_pretrained(out)


def make(corpus: Path, out: Path, tokens: int, seed: int = 0, mirror: Path | None = None) -> dict[str, float]:
    """Fit the tokenizer, pretrain, save model and card to `out`; returns the report that the card shows."""
    out.mkdir(parents=True, exist_ok=True)
    books = text.Books(corpus, text.test_shingles(mirror) if mirror else set())
    tokenizer = new_tokenizer(sample_for_tokenizer(books, seed), VOCABULARY)
    model = new_model(seed, tokenizer.get_vocab_size()).to(device.current_device())
    maker = PairMaker(tokenizer, seed)
    # The embeddings start larger than the decoder's and count less in the head, so they need longer steps. After 20
    # steps at 0.02 the held-out loss (world) was 4.9, at 0.003 (and 0.008 for matrices) it was 7.1.
    schedule = Schedule(tokens, SOURCE + TARGET, matrix_rate=0.012, query_rate=0.0015, other_rate=0.02)
    prose = maker.of_prose(again(lambda: _plain(iter(books))))
    pairs = mixed({maker.of_world(world(seed)): SHARES["world"], prose: SHARES["books"]})
    trained = batches(pairs, schedule.rows_per_step)
    unseen = held_out(tokenizer, books, seed)
    report = pretrain(model, trained, schedule, unseen, out / "pretraining.jsonl")
    report |= {"seed": seed, "dropped_paragraphs": books.dropped_paragraphs}
    save(model, tokenizer, out)
    facts = {"asked": tokens, "parameters": model.num_parameters(), "sentinels": len(SENTINELS), **SHARES}
    return recipe.tell(out, ABOUT, report, facts)


if __name__ == "__main__":
    recipe.command(ABOUT, __doc__, BUDGETS, make)
