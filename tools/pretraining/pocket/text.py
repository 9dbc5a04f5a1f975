"""The text the pocket models are pretrained on, and the tokenizer that is fitted to it."""

import csv
import itertools
import lzma
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pretraining.world import END

DOCUMENT_END = "<|endoftext|>"
PAD = "<|pad|>"
SHINGLE_WORDS = 8
"""A paragraph that shares a run of this many words with a test row is left out of pretraining."""
HELD_OUT_EVERY = 50

Shingle = tuple[str, ...]


def shingles(text: str) -> Iterator[Shingle]:
    """Every run of `SHINGLE_WORDS` lower-case words of a text."""
    words = re.findall(r"[a-z']+", text.lower())
    return (tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


def test_shingles(mirror: Path) -> set[Shingle]:
    """The shingles of every text in the non-training splits of a local data mirror (its MANIFEST.csv lists them)."""
    import pandas as pd

    found: set[Shingle] = set()
    with (mirror / "MANIFEST.csv").open(newline="") as lines:
        splits = [row for row in csv.DictReader(lines) if "train" not in row["split"]]
    for row in splits:
        table = pd.read_parquet(mirror / row["hub_id"] / row["config"] / f"{row['split']}.parquet")
        for column in table.select_dtypes(include=["object", "string"]):
            found.update(itertools.chain.from_iterable(shingles(str(cell)) for cell in table[column]))
    return found


@dataclass
class Books:
    """Documents of a folder of `books-*.txt.xz`, less the paragraphs that overlap with test rows."""

    folder: Path
    forbidden: set[Shingle]
    dropped_paragraphs: int = 0

    def __iter__(self) -> Iterator[str]:
        """Every document but the held-out ones."""
        return (text for i, text in enumerate(self._all()) if i % HELD_OUT_EVERY)

    def held_out(self) -> Iterator[str]:
        """One document in `HELD_OUT_EVERY`, never trained on."""
        return (text for i, text in enumerate(self._all()) if i % HELD_OUT_EVERY == 0)

    def _all(self) -> Iterator[str]:
        shards = sorted(self.folder.glob("books-*.txt.xz"))
        if not shards:
            raise FileNotFoundError(f"no books-*.txt.xz in {self.folder}")
        for shard in shards:
            with lzma.open(shard, "rt", encoding="utf-8") as lines:
                yield from self._documents(lines)

    def _documents(self, lines: Iterator[str]) -> Iterator[str]:
        kept: list[str] = []
        for line in lines:
            if line.strip() == DOCUMENT_END:
                yield "".join(kept).strip() + END
                kept = []
            elif self.forbidden and not self.forbidden.isdisjoint(shingles(line)):
                self.dropped_paragraphs += 1
            else:
                kept.append(line)


def fit_tokenizer(texts: Iterator[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of `vocabulary` entries, the special ones first. Every digit is a token; a word is the
    same token at the start of a text or a turn as within it (a space is put before, and taken off again when decoding).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_stream(texts: Iterator[str], tokenizer: Tokenizer, batch: int = 512) -> Iterator[int]:
    """The tokens of texts, one after the other."""
    while chunk := list(itertools.islice(texts, batch)):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            yield from encoding.ids


def rows(stream: Callable[[], Iterator[int]], length: int) -> Iterator[list[int]]:
    """Rows of `length` tokens cut from a stream that starts again when it ends."""
    while True:
        tokens = stream()
        while len(row := list(itertools.islice(tokens, length))) == length:
            yield row


def repeats(seed: int, vocabulary: int, length: int) -> Iterator[list[int]]:
    """Rows in which a few random tokens come again and again: all but the first time can be looked up."""
    rng = random.Random(f"repeats-{seed}")
    while True:
        once = [rng.randrange(vocabulary) for _ in range(rng.randint(4, length // 3))]
        yield (once * (length // len(once) + 1))[:length]


def sample_for_tokenizer(books: Iterator[str], world: Iterator[str], characters: int) -> Iterator[str]:
    """Three quarters books and a quarter world, about `characters` in all."""
    for source, share in ((books, 0.75), (world, 0.25)):
        left = round(share * characters)
        for text in source:
            yield text[:left]
            left -= len(text)
            if left <= 0:
                break
