"""Small numbers: sums and differences in digits and words, stories with a count, lists."""

import random

from pretraining.world.lexicon import FOODS, NUMBER_WORDS, PLACES, THINGS, names

LARGEST = 24
"""The largest number met in a sum, so that a few million tokens are enough to learn them all."""

COUNTED = [f"{t}s" for t in THINGS if t[-1] not in "xyh" and t != "knife"] + "apples eggs plums nuts pears".split()

GAINS = (
    "{n} has {a} {t}. {m} gives {n} {b} more.",
    "There are {a} {t} in the {p}. {n} brings {b} more.",
    "{n} counted {a} {t} and then another {b}.",
    "{a} {t} lay in the {p}, and {n} put {b} to them.",
)
LOSSES = (
    "{n} has {a} {t}. {n} gives {b} of them to {m}.",
    "There are {a} {t} in the {p}. {n} takes {b} away.",
    "{n} had {a} {t} but lost {b}.",
    "Of {a} {t} in the {p}, {b} were broken by {n}.",
)
DIFFERENCES = ("{n} has {a} {t} and {m} has {b}.", "{n} saw {a} {t}; {m} saw {b}.")


def _operands(rng: random.Random) -> tuple[int, int, str, int]:
    """Two numbers, their sign and the result, all within 0 to LARGEST."""
    if rng.random() < 0.5:
        total = rng.randint(2, LARGEST)
        a = rng.randint(1, total - 1)
        return a, total - a, "+", total
    a = rng.randint(2, LARGEST)
    b = rng.randint(1, a - 1)
    return a, b, "-", a - b


def sums(rng: random.Random) -> tuple[str, str]:
    """A bare sum, in digits or in words, or a number in both."""
    a, b, sign, c = _operands(rng)
    w = NUMBER_WORDS
    spoken = "plus" if sign == "+" else "minus"
    pick = rng.random()
    if pick < 0.35:
        return "", f"{a} {sign} {b} = {c}"
    if pick < 0.5:
        return f"{a} {sign} {b}", str(c)
    if pick < 0.65:
        return f"What is {w[a]} {spoken} {w[b]}?", f"{w[c].capitalize()}."
    if pick < 0.8:
        return "", f"{w[a].capitalize()} {spoken} {w[b]} is {w[c]}: {a} {sign} {b} = {c}"
    if pick < 0.9:
        return f"Write {w[a]} in figures.", str(a)
    big, small = max(a, b), min(a, b)
    return f"Which is more, {a} or {b}?", f"{big}." if big != small else "They are equal."


def problem(rng: random.Random) -> tuple[str, str]:
    """A short story with a count; the answer is a sentence with the number in words, or the sum as well."""
    a, b, sign, c = _operands(rng)
    n, m = names(rng, 2)
    thing = rng.choice(COUNTED)
    place = rng.choice(PLACES)
    w = NUMBER_WORDS
    words = rng.random() < 0.3
    shown = {"a": w[a] if words else str(a), "b": w[b] if words else str(b)}
    if sign == "-" and rng.random() < 0.3:
        story, asked = rng.choice(DIFFERENCES), f"How many more has {n}?"
        said = f"{n} has {w[c]} more."
    else:
        story, asked = rng.choice(GAINS if sign == "+" else LOSSES), f"How many {thing} are there now?"
        said = f"There are {w[c]} {thing}."
    text = story.format(n=n, m=m, t=thing, p=place, **shown)
    text = text[0].upper() + text[1:]
    pick = rng.random()
    if pick < 0.4:
        said += f" {a} {sign} {b} = {c}"
    elif pick < 0.8:
        said = f"{a} {sign} {b} = {c}. {said}"
    return f"{text} {asked}", said


def lists(rng: random.Random) -> tuple[str, str]:
    """A list: how many, which is first, last, next, or turned round."""
    items = rng.sample(THINGS + FOODS, rng.randint(2, 7))
    listed = ", ".join(items)
    i = rng.randrange(len(items) - 1)
    return rng.choice(
        (
            (f"How many are these? {listed}", f"{NUMBER_WORDS[len(items)].capitalize()}: {len(items)}."),
            (f"Which comes first? {listed}", f"The {items[0]}."),
            (f"Which comes last? {listed}", f"The {items[-1]}."),
            (f"What comes after {items[i]}? {listed}", f"The {items[i + 1]}."),
            (f"Say it again: {listed}", listed),
            (f"Turn it round: {listed}", ", ".join(reversed(items))),
        )
    )
