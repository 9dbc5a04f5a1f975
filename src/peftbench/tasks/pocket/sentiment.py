import random

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import NAMES, source

LABELS = ("anger", "joy")
THINGS = {
    "train": "film hotel museum bridge jacket novel garden play soup shop".split(),
    "validation": "boat statue window cottage".split(),
    "test": "painting hospital carriage magazine theatre meal road tale".split(),
}
WORDS = {
    "train": (
        "bad awful dull terrible horrible boring nasty stupid sad cold harsh cruel clumsy dreary miserable".split(),
        "good lovely fine splendid pleasant charming great funny bright warm gentle kind tidy lively smooth".split(),
    ),
    "validation": (
        "unpleasant ugly rude bitter shabby gloomy".split(),
        "wonderful delightful clever friendly graceful honest".split(),
    ),
    "test": (
        "poor dreadful stale tiresome dirty rough uncomfortable wretched disgusting noisy hopeless".split(),
        "excellent brilliant superb perfect beautiful exciting sweet comfortable marvellous cheerful fresh".split(),
    ),
}
SENTENCES = {
    "train": (
        "We had a {a} time at the {t}.",
        "To my mind this {t} is {a}.",
        "{n} told me of a {a} {t}.",
        "So {a} a {t} is rare, {n} writes.",
        "This {t} is anything but {o}.",
        "I would never say that the {t} is {o}.",
        "Some say {o}, but I say the {t} is {a}.",
        "{n} feared a {o} {t}, and got a {a} one.",
    ),
    "validation": (
        "Such a {t}, and so {a}, writes {n}.",
        "The {t} is far from {o}.",
        "Not {o} at all, this {t}, but {a}.",
    ),
    "test": (
        "My friend {n} keeps talking of this {a} {t}.",
        "I find that {t} really {a}.",
        "As for the {t}, it is {a}, and that is all.",
        "One can hardly call that {t} {o}.",
        "{n} expected something {o}; instead the {t} is {a}.",
        "People think the {t} is {o}, but they are wrong: it is {a}.",
    ),
}


def make(rng: random.Random, split: str) -> dict[str, str | int]:
    """An opinion about a thing, plain, negated or against another one."""
    label = rng.randrange(2)
    words = {"n": rng.choice(NAMES[split]), "t": rng.choice(THINGS[split])}
    words |= {"a": rng.choice(WORDS[split][label]), "o": rng.choice(WORDS[split][1 - label])}
    return {"text": rng.choice(SENTENCES[split]).format(**words), "label": label}


@task(
    source=source(make, "pocket-sentiment-1"),
    kind="classification",
    instruction="Which feeling speaks?",
    metrics=("accuracy", "f1"),
    max_new_tokens=6,
    labels=LABELS,
    positive="joy",
    suites=("pocket",),
)
def pocket_sentiment(row: Row) -> Example:
    """Joy or anger about a thing, in one sentence."""
    return Example({"text": row["text"]}, LABELS[row["label"]])
