"""Likes and dislikes: adjectives of one polarity, negation, a change of mind."""

import random

from peftbench.models.pocket.world.lexicon import BAD, GOOD, NAMES, OPINION_THINGS

PLAIN = (
    "The {t} was {a}.",
    "{n} thought the {t} {a}.",
    "It was a {a} {t}, and so {n} said.",
    "{n} called the {t} {a} and {b}.",
    "What a {a} {t}!",
    "{n} wrote that the {t} seemed {a}, even {b}.",
    "Everyone agreed that the {t} had been {a} and {b}.",
)
NEGATED = (
    "The {t} was not {o}.",
    "{n} did not find the {t} {o}.",
    "There was nothing {o} about the {t}, said {n}.",
    "Nobody could call the {t} {o}.",
)
TURNED = (
    "At first the {t} was {o}, but in the end it was {a}.",
    "{n} had heard that the {t} was {o}, yet it was {a}.",
    "The {t} looked {o}. It proved {a}.",
    "Though the {t} began {o}, {n} found it {a} at last.",
)
ASK = (
    ("Did {n} like the {t}?", ("Yes.", "No.")),
    ("Was {n} pleased or displeased?", ("Pleased.", "Displeased.")),
    ("How did it go, well or badly?", ("Well.", "Badly.")),
    ("Is this a kind word or a hard word?", ("A kind word.", "A hard word.")),
    ("Would {n} want the {t} again?", ("Surely, yes.", "No, never.")),
)
FEELINGS = (
    ("{n} smiled.", "{n} frowned."),
    ("{n} was happy.", "{n} was unhappy."),
    ("{n} liked it.", "{n} disliked it."),
    ("{n} was glad to have come.", "{n} was sorry to have come."),
    ("{n} asked for more.", "{n} went away."),
)


def _opinion(rng: random.Random) -> tuple[str, dict[str, str], bool]:
    """A sentence with an opinion, the words in it, and whether the opinion is good."""
    good = rng.random() < 0.5
    same, other = (GOOD, BAD) if good else (BAD, GOOD)
    a, b = rng.sample(same, 2)
    words = {"n": rng.choice(NAMES), "t": rng.choice(OPINION_THINGS), "a": a, "b": b, "o": rng.choice(other)}
    shape = rng.choices((PLAIN, NEGATED, TURNED), (5, 2, 3))[0]
    return rng.choice(shape).format(**words), words, good


def judge(rng: random.Random) -> tuple[str, str]:
    """An opinion, a question about it, a short answer."""
    text, words, good = _opinion(rng)
    question, answers = rng.choice(ASK)
    question = question.format(**words)
    return rng.choice((f"{text} {question}", f"{question}\n{text}")), answers[0 if good else 1]


def tell(rng: random.Random) -> tuple[str, str]:
    """An opinion and what followed from it, as prose; or two words that are alike or opposed."""
    if rng.random() < 0.3:
        side, other = rng.sample((GOOD, BAD), 2)
        a, b = rng.sample(side, 2)
        return "", rng.choice(
            (
                f"What is {a} is not {rng.choice(other)} but {b}.",
                f"{a.capitalize()} and {b} are {'good' if side is GOOD else 'bad'} words.",
                f"{a.capitalize()} is much like {b}, and the opposite of {rng.choice(other)}.",
            )
        )
    text, words, good = _opinion(rng)
    return "", f"{text} {rng.choice(FEELINGS)[0 if good else 1].format(**words)}"
