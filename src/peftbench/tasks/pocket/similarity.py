import random
from collections.abc import Sequence

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

VALUES: dict[str, dict[str, Sequence[str]]] = {
    "train": {
        "trade": "carpenter fisherman gardener clerk lawyer porter".split(),
        "drink": "tea coffee cider lemonade".split(),
    },
    "validation": {"trade": "waiter barber tinker".split(), "drink": "beer cream".split()},
    "test": {
        "trade": "shepherd merchant weaver coachman butler".split(),
        "drink": "water wine chocolate brandy".split(),
    },
}
SENTENCES = {
    "train": (
        "{n} the {j} asks for {d}.",
        "The {j} {n} would like some {d}.",
        "Some {d} is brought to {n}, a {j}.",
        "Being a {j}, {n} is fond of {d}.",
    ),
    "validation": ("For {n}, a {j}, there is {d}.", "A {j} by the name of {n} pours {d}."),
    "test": (
        "The {j}, whose name is {n}, drinks {d}.",
        "A glass of {d} stands before {n} the {j}.",
        "With {d} in hand comes {n}, a {j}.",
    ),
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """Two sentences, each with a name, a trade and a drink, of which from none to all three are the same in both."""
    pools = {"n": NAMES[split], "j": VALUES[split]["trade"], "d": VALUES[split]["drink"]}
    shared = set(rng.sample(sorted(pools), rng.randint(0, len(pools))))
    pairs = {key: rng.sample(pool, 2) for key, pool in pools.items()}
    first = {key: pair[0] for key, pair in pairs.items()}
    second = {key: pair[0 if key in shared else 1] for key, pair in pairs.items()}
    one, other = rng.sample(SENTENCES[split], 2)
    return {"first": one.format(**first), "second": other.format(**second), "shared": len(shared)}


@task(
    source=source(make, "pocket-similarity-1"),
    kind="regression",
    instruction="Count what the two sentences share.",
    metrics=("pearson", "spearman"),
    scale=(0.0, 3.0),
    max_new_tokens=6,
    suites=("pocket",),
)
def pocket_similarity(row: Row) -> Example:
    """In how many of name, trade and drink two sentences agree, from 0 to 3."""
    return Example({"first": row["first"], "second": row["second"]}, str(row["shared"]))
