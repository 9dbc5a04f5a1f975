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
    """Two facts of one sort and a claim that takes up one of them, with its own value or with another."""
    sort = rng.choice(sorted(VALUES[split]))
    names = rng.sample(NAMES[split], 2)
    values = rng.sample(VALUES[split][sort], 2)
    sentences = SENTENCES[split][sort]
    told = " ".join(rng.choice(sentences).format(n=n, v=v) for n, v in zip(names, values, strict=True))
    label, i = rng.randrange(2), rng.randrange(2)
    claimed = values[i] if label == 0 else values[1 - i]
    return {"premise": told, "hypothesis": rng.choice(sentences).format(n=names[i], v=claimed), "label": label}


@task(
    source=source(make, "pocket-entailment-1"),
    kind="classification",
    instruction="Hold the hypothesis against the premise.",
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=6,
    labels=LABELS,
    suites=("pocket",),
)
def pocket_entailment(row: Row) -> Example:
    """Does a claim about one of two people follow from what is said of both?"""
    return Example({"premise": row["premise"], "hypothesis": row["hypothesis"]}, LABELS[row["label"]])
