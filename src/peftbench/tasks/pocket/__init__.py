"""The pocket suite: tasks made by rule, which need no network, one file each.

Training, validation and test rows have different sentences and different words in them, and none of their sentences,
names, things or label words is in the pretraining world of the bundled model: remembering does not help.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from peftbench.tasks import Generator, Row, Source

NAMES: Mapping[str, Sequence[str]] = {
    "train": "Peter Mary Henry Alice George Jack Susan Robert Nancy Charles Tom Grace".split(),
    "validation": "James Ellen Richard Julia".split(),
    "test": "William Elizabeth Thomas Emily Edith Albert Sally Daniel".split(),
}


def source(
    make: Callable[[random.Random, str], dict[str, Any]], name: str, sizes: tuple[int, int] = (4000, 1000)
) -> Source:
    """A source of distinct rows of `make(rng, split)`, the same for ever under the same `name`.

    `sizes`: how many training and test rows there are when as many are asked for as runs ask for.
    """

    def rows(split: str, count: int) -> Iterable[Row]:
        rng, seen = random.Random(f"{name}-{split}"), set()
        for _ in range(50 * count):
            row = make(rng, split)
            if (key := tuple(row.values())) not in seen:
                seen.add(key)
                yield row
            if len(seen) == count:
                return

    generator: Generator = rows
    return Source(name, validation="validation", generator=generator, sizes=sizes)
