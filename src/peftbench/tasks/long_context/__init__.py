"""The long-context suite: what is asked for stands somewhere in a text of filler whose length is an argument.

Made by rule, and so without a network. Training, validation and test rows have different sentences, different filler
and different words in both. Every sentence is of our own. A row that does not fit `max_length` is refused and not
shortened: its middle may hold the answer.
"""

import random
from collections.abc import Mapping, Sequence

from peftbench.tasks import Row

Places = Mapping[str, Sequence[str]]

SUBJECTS: Places = {
    "train": "The miller;A tired horse;The younger aunt;Two pupils;The night train;The postman;One old oak".split(";"),
    "validation": "The organist;A stray cat;The second cousin".split(";"),
    "test": "The beekeeper;A pair of swans;The elder nephew;A row of lanterns;The ferry;The schoolmaster".split(";"),
}
DOINGS: Places = {
    "train": "waited;stayed;rested;stood still;was seen;arrived;grew quiet".split(";"),
    "validation": "paused;turned round;kept silent".split(";"),
    "test": "lingered;passed by;was heard;came to a halt;fell asleep;went unnoticed".split(";"),
}
WHERE: Places = {
    "train": "by the river;behind the mill;at the gate;near the bakery;under the bridge;on the hill".split(";"),
    "validation": "in the valley;beside the well;along the fence".split(";"),
    "test": "at the crossing;below the tower;close to the orchard;outside the inn;on the pier".split(";"),
}
WHEN: Places = {
    "train": "until noon;for an hour;in the rain;before supper;all through May;as usual".split(";"),
    "validation": "since dawn;during the fair;in the fog".split(";"),
    "test": "after sunset;on market day;without a word;in the first snow;for most of the week".split(";"),
}


def filler(rng: random.Random, split: str, words: int) -> list[str]:
    """Sentences of at least so many words in all, about nothing that is asked for."""
    found: list[str] = []
    while words > 0:
        found.append(" ".join(rng.choice(part[split]) for part in (SUBJECTS, DOINGS, WHERE, WHEN)) + ".")
        words -= len(found[-1].split())
    return found


def hide(row: Row, words: int) -> str:
    """A text of about so many words with the row's needles in it, a line each, in their order, each at any place.

    The row's `split` says which words the filler has, its `filler` starts the random numbers of the text.
    """
    rng, split, sentences = random.Random(row["filler"]), row["split"], row["needles"].splitlines()
    lines = filler(rng, split, words - sum(len(sentence.split()) for sentence in sentences))
    for place, sentence in zip(
        sorted((rng.randint(0, len(lines)) for _ in sentences), reverse=True), reversed(sentences), strict=True
    ):
        lines.insert(place, sentence)
    return " ".join(lines)
