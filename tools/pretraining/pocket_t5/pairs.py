"""What the pocket encoder–decoder reads and what it writes: texts with spans taken out (Raffel et al. 2020), questions
and their answers; and how these pairs are packed into rows.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from pretraining.world import Turn, turns

Ids = list[int]
Pair = tuple[Ids, Ids]
"""Token ids of a source and of its target, both with the end token."""

PAD, END = "<pad>", "</s>"
SENTINELS = tuple(f"<extra_id_{i}>" for i in range(64))
SOURCE, TARGET = 256, 128
"""Tokens of a row that the encoder reads, and that the decoder writes."""
WINDOW = 120
"""Tokens of prose from which one pair is made."""
NOISE = ((0.2, 3), (0.5, 6))
"""Share of the tokens taken out, and mean length of a span: a little (T5's own way), and a lot (UL2's)."""
ASKED = ("{q}", "{q}", "{q}", "{q}\nAnswer:", "Question: {q}\nAnswer:")
FORMS = {"answer": 0.5, "answers": 0.25, "noise": 0.25}
"""Of the documents of the world, those that become a question with its answer; a text without its answers; a text
without some of its tokens.
"""


def noise_spans(rng: random.Random, length: int, share: float, mean: float) -> list[range]:
    """Places of about `share` of `length` tokens, in spans of `mean` tokens on average, none beside another."""
    lost = min(max(1, round(share * length)), length - 1)
    count = min(max(1, round(lost / mean)), lost, length - lost + 1, len(SENTINELS))
    kept = _parts(rng, length - lost + 2, count + 1)
    spans, place = [], -1
    for before, gone in zip(kept, _parts(rng, lost, count), strict=False):
        spans.append(range(place + before, place + before + gone))
        place += before + gone
    return spans


def _parts(rng: random.Random, total: int, count: int) -> list[int]:
    """`total` as a sum of `count` numbers above zero."""
    cuts = sorted(rng.sample(range(1, total), count - 1))
    return [b - a for a, b in itertools.pairwise([0, *cuts, total])]


def take_out(tokens: Ids, spans: Sequence[range], sentinels: Sequence[int]) -> Pair:
    """The tokens with a sentinel in place of each span, and the spans, each after its sentinel."""
    source: Ids = []
    target: Ids = []
    place = 0
    for span, sentinel in zip(spans, sentinels, strict=False):
        source += [*tokens[place : span.start], sentinel]
        target += [sentinel, *tokens[span.start : span.stop]]
        place = span.stop
    return [*source, *tokens[place:]], target


class PairMaker:
    """Makes pairs of documents, by chance of a seed; sources and targets that fit no row are left out."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer, self.rng = tokenizer, random.Random(f"pairs-{seed}")
        vocabulary = tokenizer.get_vocab()
        self.end = vocabulary[END]
        self.sentinels = [vocabulary[sentinel] for sentinel in SENTINELS]

    def of_world(self, documents: Iterator[list[Turn]]) -> Iterator[Pair]:
        """A pair of each document of turns."""
        for document in documents:
            form = self.rng.choices(list(FORMS), list(FORMS.values()))[0]
            if form == "answer" and document[0][0]:
                question, answer = document[0]
                yield from self._fitting(self._ids(self.rng.choice(ASKED).format(q=question)), self._ids(answer))
                continue
            tokens: Ids = []
            spans = []
            for question, answer in document:
                tokens += self._ids(question) if question else []
                start = len(tokens)
                tokens += self._ids(answer)
                spans += [range(start, len(tokens))] if question else []
            if form == "noise" or not spans:
                yield from self._without_some(tokens)
            else:
                yield from self._fitting(*take_out(tokens, spans, self.sentinels))

    def of_prose(self, texts: Iterator[str]) -> Iterator[Pair]:
        """A pair of every `WINDOW` tokens of texts."""
        for text in texts:
            tokens = self._ids(text)
            for start in range(0, len(tokens), WINDOW):
                yield from self._without_some(tokens[start : start + WINDOW])

    def _without_some(self, tokens: Ids) -> Iterator[Pair]:
        """Tokens without spans of noise, or without all that follows a place."""
        length = len(tokens)
        if length < 4:
            return
        kind = self.rng.randrange(len(NOISE) + 1)
        if kind < len(NOISE):
            spans = noise_spans(self.rng, length, *NOISE[kind])
        else:
            spans = [range(self.rng.randint(max(1, length - TARGET + 2), length - 1), length)]
        yield from self._fitting(*take_out(tokens, spans, self.sentinels))

    def _ids(self, text: str) -> Ids:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _fitting(self, source: Ids, target: Ids) -> Iterator[Pair]:
        if len(source) < SOURCE and len(target) < TARGET:
            yield [*source, self.end], [*target, self.end]


def world(seed: int) -> Iterator[list[Turn]]:
    """An endless stream of documents of the closed world, as turns."""
    rng = random.Random(f"world-{seed}")
    while True:
        yield turns(rng)


def again(texts: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Texts that start again when they end."""
    while True:
        yield from texts()


def mixed(streams: Mapping[Iterator[Pair], float]) -> Iterator[Pair]:
    """Pairs of several streams, so that of all tokens each has its share."""
    spent = dict.fromkeys(streams, 0)
    while True:
        stream = min(streams, key=lambda each: spent[each] / streams[each])
        source, target = next(stream)
        spent[stream] += len(source) + len(target)
        yield source, target


def packed(pairs: Iterator[Pair], rows: int) -> Iterator[list[list[Pair]]]:
    """Batches of `rows` rows of pairs. A pair goes to the first row with room, or waits for the next batch if there is
    none; as many wait as there are rows before a batch is done.
    """
    waiting: list[Pair] = []
    while True:
        batch: list[list[Pair]] = [[] for _ in range(rows)]
        room = [(SOURCE, TARGET)] * rows
        left: list[Pair] = []
        for source, target in itertools.chain(waiting, pairs):
            row = next((i for i, (s, t) in enumerate(room) if s >= len(source) and t >= len(target)), None)
            if row is None:
                left.append((source, target))
                if len(left) == rows:
                    break
                continue
            batch[row].append((source, target))
            room[row] = room[row][0] - len(source), room[row][1] - len(target)
        yield batch
        waiting = left
