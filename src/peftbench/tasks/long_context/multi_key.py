import random

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, task
from peftbench.tasks.long_context import hide
from peftbench.tasks.pocket import NAMES, source

KEYS = 4
SENTENCES = {
    "train": ("{n} keeps the key number {v}.", "Key number {v} was given to {n}.", "On the key of {n} stands {v}."),
    "validation": ("The key that {n} wears has the number {v}.",),
    "test": ("{n} signed for the key with the number {v}.", "Number {v} hangs from the belt of {n}."),
}
QUESTIONS = {
    "train": "Which numbers are on the keys of {a} and {b}?",
    "validation": "{a} and {b}: which are their numbers?",
    "test": "What numbers have {a} and {b}, in this order?",
}


def make(rng: random.Random, split: str) -> dict[str, str]:
    """Four people with a number each, two of whom are asked for."""
    names = rng.sample(NAMES[split], KEYS)
    numbers = [str(number) for number in rng.sample(range(100, 1000), KEYS)]
    told = [rng.choice(SENTENCES[split]).format(n=n, v=v) for n, v in zip(names, numbers, strict=True)]
    one, other = rng.sample(range(KEYS), 2)
    return {
        "split": split,
        "filler": str(rng.getrandbits(32)),
        "needles": "\n".join(told),
        "question": QUESTIONS[split].format(a=names[one], b=names[other]),
        "answer": f"{numbers[one]} and {numbers[other]}",
    }


@task(
    source=source(make, "long-multi-key-1"),
    kind="qa",
    instruction="Find both numbers in the text.",
    metrics=("exact_match",),
    max_new_tokens=16,
    suites=("long-context",),
    whole=True,
)
def long_multi_key(row: Row, *, words: PositiveInt = 200) -> Example:
    """Two numbers out of four, all alike, in a text of about `words` words."""
    return Example({"text": hide(row, words), "question": row["question"]}, row["answer"])
