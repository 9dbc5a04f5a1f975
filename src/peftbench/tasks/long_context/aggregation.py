import random

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, task
from peftbench.tasks.long_context import hide
from peftbench.tasks.pocket import NAMES, source

LABELS = ("once", "twice", "thrice", "never")
SENTENCES = {
    "train": ("Then {n} rang the bell.", "The bell was rung by {n}.", "A bell rang, and it was {n}."),
    "validation": ("It was {n} who struck the gong.", "{n} struck the gong."),
    "test": ("{n} blew the horn again.", "The horn sounded: {n} had blown it.", "Again it was {n} who blew the horn."),
}
QUESTIONS = {
    "train": "How often did {n} ring the bell?",
    "validation": "How many times was it {n} who struck the gong?",
    "test": "How often did {n} blow the horn?",
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """How often somebody did a thing, between others who did it too."""
    asked, *others = rng.sample(NAMES[split], 3)
    count = rng.randrange(len(LABELS))
    doers = [asked] * count + [rng.choice(others) for _ in range(rng.randint(2, 4))]
    rng.shuffle(doers)
    return {
        "split": split,
        "filler": str(rng.getrandbits(32)),
        "needles": "\n".join(rng.choice(SENTENCES[split]).format(n=name) for name in doers),
        "question": QUESTIONS[split].format(n=asked),
        "label": (count - 1) % len(LABELS),
    }


@task(
    source=source(make, "long-aggregation-1"),
    kind="classification",
    instruction="Count in the text.",
    metrics=("exact_match", "macro_f1"),
    max_new_tokens=8,
    labels=LABELS,
    suites=("long-context",),
    whole=True,
)
def long_aggregation(row: Row, *, words: PositiveInt = 200) -> Example:
    """How often somebody did a thing, from never to three times, spread over a text of about `words` words."""
    return Example({"text": hide(row, words), "question": row["question"]}, LABELS[row["label"]])
