import random
from collections.abc import Sequence

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

LABELS = ("door", "window", "wall")
"""Names of the answers, where the pretraining world has letters."""
THINGS = {
    "train": "coin pipe desk pin saddle lantern wheel shovel fan bench comb razor cushion tin".split(),
    "validation": "purse thimble tray vase quilt".split(),
    "test": "oar whip cane drawer pearl jar carpet stool medal shield".split(),
}
SENTENCES: dict[str, dict[str, Sequence[str]]] = {
    "train": {
        "What does {n} carry?": ("{n} carries the {t}.", "The {t} is carried by {n}."),
        "What did {n} hide?": ("{n} hid the {t}.", "The {t} was hidden by {n}."),
        "What will {n} sell?": ("{n} will sell the {t}.", "The {t} will be sold by {n}."),
    },
    "validation": {"What has {n} lost?": ("{n} lost the {t}.", "The {t} got lost while {n} slept.")},
    "test": {
        "What must {n} mend?": ("{n} must mend the {t}.", "The {t} must be mended by {n}."),
        "What did {n} borrow?": ("{n} borrowed the {t}.", "The {t} was lent to {n}."),
    },
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """Somebody has a thing, in one way of three; a question about it and three answers, two of them wrong."""
    question, sentences = rng.choice(list(SENTENCES[split].items()))
    name, answers = rng.choice(NAMES[split]), rng.sample(THINGS[split], 3)
    right = rng.randrange(3)
    return {
        "story": rng.choice(sentences).format(n=name, t=answers[right]),
        "question": question.format(n=name),
        "answers": "; ".join(f"{label}: the {thing}" for label, thing in zip(LABELS, answers, strict=True)),
        "label": right,
    }


@task(
    source=source(make, "pocket-choice-1"),
    kind="multiple-choice",
    instruction="Choose the answer that the story gives.",
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=6,
    labels=LABELS,
    suites=("pocket",),
)
def pocket_choice(row: Row) -> Example:
    """Which of three things a story of one sentence is about."""
    return Example({name: row[name] for name in ("story", "question", "answers")}, LABELS[row["label"]])
