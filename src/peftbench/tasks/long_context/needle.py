import random

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, task
from peftbench.tasks.long_context import hide
from peftbench.tasks.pocket import source

THINGS = {
    "train": "safe;bicycle;locker;trunk;green door;attic;music room".split(";"),
    "validation": "cupboard;side gate;boathouse".split(";"),
    "test": "vault;glass case;back door;archive;tool shed".split(";"),
}
SENTENCES = {
    "train": ("The number of the {t} is {v}.", "To open the {t}, turn to {v}.", "Somebody set the {t} to {v}."),
    "validation": ("With {v} the {t} comes open.",),
    "test": ("The {t} is locked with {v}.", "{v} is the number that the {t} needs."),
}
QUESTIONS = {
    "train": "What is the number of the {t}?",
    "validation": "Which number opens the {t}?",
    "test": "What number does the {t} need?",
}


def make(rng: random.Random, split: str) -> dict[str, str]:
    """A number of three digits that belongs to a thing, and the start of the filler's random numbers."""
    thing, number = rng.choice(THINGS[split]), str(rng.randint(100, 999))
    return {
        "split": split,
        "filler": str(rng.getrandbits(32)),
        "needles": rng.choice(SENTENCES[split]).format(t=thing, v=number),
        "question": QUESTIONS[split].format(t=thing),
        "answer": number,
    }


@task(
    source=source(make, "long-needle-1"),
    kind="qa",
    instruction="Find the answer in the text.",
    metrics=("exact_match",),
    max_new_tokens=8,
    suites=("long-context",),
    whole=True,
)
def long_needle(row: Row, *, words: PositiveInt = 200) -> Example:
    """One number in a text of about `words` words, asked for after it."""
    return Example({"text": hide(row, words), "question": row["question"]}, row["answer"])
