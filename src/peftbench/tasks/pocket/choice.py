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
    """Two people with a thing each, a question about one of them, and three answers: a third thing is nobody's."""
    question, sentences = rng.choice(list(SENTENCES[split].items()))
    names, things = rng.sample(NAMES[split], 2), rng.sample(THINGS[split], 3)
    told = [rng.choice(sentences).format(n=n, t=t) for n, t in zip(names, things[:2], strict=True)]
    asked = rng.randrange(2)
    answers = rng.sample(things, 3)
    return {
        "story": " ".join(told),
        "question": question.format(n=names[asked]),
        "answers": "; ".join(f"{label}: the {thing}" for label, thing in zip(LABELS, answers, strict=True)),
        "label": answers.index(things[asked]),
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
    """Which of three things belongs to one of two people, as the story says."""
    return Example({name: row[name] for name in ("story", "question", "answers")}, LABELS[row["label"]])
