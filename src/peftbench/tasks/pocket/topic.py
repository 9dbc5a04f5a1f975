import random
from collections.abc import Sequence

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

LABELS = ("water", "table", "war", "country")
WORDS: dict[str, dict[str, Sequence[str]]] = {
    "train": {
        "water": "ship wave sailor harbour fish".split(),
        "table": "pan spoon oven soup bread".split(),
        "war": "soldier general battle sword enemy".split(),
        "country": "cow field plough barn hay".split(),
    },
    "validation": {
        "water": "tide captain sail".split(),
        "table": "butter cook sugar".split(),
        "war": "march victory tent".split(),
        "country": "harvest farmer fence".split(),
    },
    "test": {
        "water": "boat net anchor shore island".split(),
        "table": "pot flour plate stove kettle".split(),
        "war": "gun camp fort flag drum".split(),
        "country": "wheat pig hen sheep corn".split(),
    },
}
SENTENCES = {
    "train": (
        "{n} told a tale of some {a} and of a {b}.",
        "First came the {a}, then the {b}, and {n} was glad.",
        "Have you seen my {a}, {n}? It is by the {b}.",
        "The news is all {a} and {b} today.",
    ),
    "validation": ("Old {n} wants to sell a {a} for a {b}.", "In the book of {n} there is a {a} near a {b}."),
    "test": (
        "{n} painted the {a} next to the {b}.",
        "No {a} without a {b}, as {n} used to say.",
        "A letter to {n} mentions the {a} as well as the {b}.",
    ),
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """A sentence with two words that go with one subject."""
    label = rng.randrange(len(LABELS))
    a, b = rng.sample(WORDS[split][LABELS[label]], 2)
    return {"text": rng.choice(SENTENCES[split]).format(n=rng.choice(NAMES[split]), a=a, b=b), "label": label}


@task(
    source=source(make, "pocket-topic-1", sizes=(2960, 1000)),
    kind="classification",
    instruction="What does the text belong to?",
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=6,
    labels=LABELS,
    suites=("pocket",),
)
def pocket_topic(row: Row) -> Example:
    """Which of four subjects a sentence is about, by two of its words."""
    return Example({"text": row["text"]}, LABELS[row["label"]])
