import random

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

LARGEST = 20
THINGS = {
    "train": "coins letters flowers marbles sheep stamps boats".split(),
    "validation": "horses songs windows".split(),
    "test": "trees ships shells roses leaves nails".split(),
}
SUMS = {
    "train": (
        "{n} owns {a} {t}, finds {b} others and keeps them all.",
        "At dawn {n} sees {a} {t}, at noon {b} further ones.",
        "{n} buys {a} {t} on Monday and {b} on Tuesday.",
    ),
    "validation": ("With {a} {t} in one hand and {b} in the other stands {n}.",),
    "test": (
        "To a heap of {a} {t} come {b} which {n} adds.",
        "{n} had {a} {t} and now receives {b} as a present.",
    ),
}
DIFFERENCES = {
    "train": (
        "{n} owns {a} {t} and sells {b} of them.",
        "From {a} {t} the wind carries {b} off, to the grief of {n}.",
        "{n} buys {a} {t} but drops {b} on the way.",
    ),
    "validation": ("{n} starts with {a} {t}; {b} are stolen.",),
    "test": (
        "Out of {a} {t}, {n} throws {b} into the river.",
        "{n} had {a} {t} and now hands over {b} as a present.",
    ),
}


def make(rng: random.Random, split: str) -> dict[str, str]:
    """A story of one step: something is added, or taken away."""
    if adds := rng.random() < 0.5:
        total = rng.randint(2, LARGEST)
        a = rng.randint(1, total - 1)
        b = total - a
    else:
        a = rng.randint(2, LARGEST)
        b = rng.randint(1, a - 1)
    story = rng.choice((SUMS if adds else DIFFERENCES)[split])
    text = story.format(n=rng.choice(NAMES[split]), t=rng.choice(THINGS[split]), a=a, b=b)
    return {"story": text, "answer": f"{a} + {b} = {a + b}" if adds else f"{a} - {b} = {a - b}"}


@task(
    source=source(make, "pocket-arithmetic-1"),
    kind="math",
    instruction="Write the sum.",
    metrics=("final_number",),
    max_new_tokens=12,
    suites=("pocket",),
)
def pocket_arithmetic(row: Row) -> Example:
    """A word problem of one step with numbers up to 20; the answer is the sum and its result, which alone is scored."""
    return Example({"story": row["story"]}, row["answer"])
