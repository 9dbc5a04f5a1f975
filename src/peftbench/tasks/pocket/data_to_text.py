import random

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

VALUES = {
    "train": {
        "trade": "carpenter fisherman soldier gardener clerk".split(),
        "town": "London Paris Rome Boston".split(),
        "drink": "tea coffee cider".split(),
        "ride": "horse cart wagon bicycle".split(),
    },
    "validation": {
        "trade": ["lawyer", "waiter"],
        "town": ["Vienna", "Dublin"],
        "drink": ["lemonade", "beer"],
        "ride": ["sledge", "train"],
    },
    "test": {
        "trade": "doctor captain shepherd merchant".split(),
        "town": "York Oxford Berlin Chicago".split(),
        "drink": "water wine chocolate".split(),
        "ride": "pony boat carriage mule".split(),
    },
}
CLAUSES = {"trade": "works as {v}", "town": "comes from {v}", "drink": "asks for {v}", "ride": "travels by {v}"}
COMBINATIONS = {
    "train": (("trade", "town"), ("town", "drink"), ("drink", "ride"), ("trade", "drink", "ride"), ("town", "ride")),
    "validation": (("trade", "town", "ride"),),
    "test": (("trade", "ride"), ("trade", "town", "drink"), ("town", "drink", "ride"), ("trade", "drink")),
}


def make(rng: random.Random, split: str) -> dict[str, str]:
    """A record of a person with two or three other fields, in any order."""
    keys = list(rng.choice(COMBINATIONS[split]))
    rng.shuffle(keys)
    record = {"name": rng.choice(NAMES[split])} | {key: rng.choice(VALUES[split][key]) for key in keys}
    return {"record": "; ".join(f"{key} [{value}]" for key, value in record.items())}


def sentence(record: str) -> str:
    """The one sentence that says all of a record, clauses in the order of its fields."""
    fields = dict(part.rstrip("]").split(" [") for part in record.split("; "))
    name = fields.pop("name")
    clauses = [CLAUSES[key].format(v=value) for key, value in fields.items()]
    return f"{name} {', '.join(clauses[:-1])} and {clauses[-1]}."


@task(
    source=source(make, "pocket-data-to-text-1"),
    kind="data-to-text",
    instruction="Turn the record into one sentence.",
    metrics=("rouge_l", "exact_match"),
    max_new_tokens=40,
    suites=("pocket",),
)
def pocket_data_to_text(row: Row) -> Example:
    """A sentence from a record whose combination of fields was not seen in training."""
    return Example({"record": row["record"]}, sentence(row["record"]))
