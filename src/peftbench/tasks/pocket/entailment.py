import random
from collections.abc import Sequence

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

LABELS = ("supported", "refuted")
VALUES: dict[str, dict[str, Sequence[str]]] = {
    "train": {
        "instrument": "violin piano trumpet flute".split(),
        "animal": "dog cat horse sheep goat rabbit".split(),
        "colour": "red blue green white black".split(),
    },
    "validation": {
        "instrument": ["organ", "harp"],
        "animal": "cow pig donkey".split(),
        "colour": "brown purple pink".split(),
    },
    "test": {
        "instrument": "guitar bell horn whistle".split(),
        "animal": "fox bear wolf lion mouse hen".split(),
        "colour": "yellow grey golden silver orange".split(),
    },
}
SENTENCES: dict[str, dict[str, Sequence[str]]] = {
    "train": {
        "instrument": ("{n} plays the {v}.", "The {v} is played by {n}."),
        "animal": ("{n} keeps a {v}.", "A {v} lives with {n}."),
        "colour": ("{n} wears something {v}.", "Something {v} is worn by {n}."),
    },
    "validation": {
        "instrument": ("{n} learns the {v}.",),
        "animal": ("{n} looks after a {v}.",),
        "colour": ("{n} paints the wall {v}.",),
    },
    "test": {
        "instrument": ("{n} practises on the {v}.", "The {v} is what {n} practises on."),
        "animal": ("{n} feeds a {v}.", "A {v} is fed by {n}."),
        "colour": ("{n} chooses {v} paint.", "The {v} paint is chosen by {n}."),
    },
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """Two facts of different sorts about a person, and a claim that takes up one of them, with its value or another."""
    name = rng.choice(NAMES[split])
    sorts = rng.sample(sorted(VALUES[split]), 2)
    values = {sort: rng.sample(VALUES[split][sort], 2) for sort in sorts}
    told = " ".join(rng.choice(SENTENCES[split][sort]).format(n=name, v=values[sort][0]) for sort in sorts)
    label, sort = rng.randrange(2), rng.choice(sorts)
    claim = rng.choice(SENTENCES[split][sort]).format(n=name, v=values[sort][label])
    return {"premise": told, "hypothesis": claim, "label": label}


@task(
    source=source(make, "pocket-entailment-2"),
    kind="classification",
    instruction="Hold the hypothesis against the premise.",
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=6,
    labels=LABELS,
    version=2,
    suites=("pocket",),
)
def pocket_entailment(row: Row) -> Example:
    """Does a claim follow from what is said of a person?"""
    return Example({"premise": row["premise"], "hypothesis": row["hypothesis"]}, LABELS[row["label"]])
