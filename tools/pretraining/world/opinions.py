"""Likes and dislikes: adjectives of one polarity, negation, a change of mind."""

import random

from pretraining.world.lexicon import BAD, BLAME, GOOD, OPINION_THINGS, PRAISE, SHOWN, names

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
    words = {"n": names(rng, 1)[0], "t": rng.choice(OPINION_THINGS), "a": a, "b": b, "o": rng.choice(other)}
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


REVIEWS = (
    "{w}",
    "a {a}, {b} {t}",
    "{a} and {b}",
    "a {t} that is {a} and {b}",
    "the {t} is {a}, the {s} {b}",
    "it 's {w}, with a {a} {s}",
    "an evening with this {a} {t} is {w}",
    "as a {t}, it is {w}",
    "not {o} at all, but {a}",
    "the {t} is {w}, and the {s} is {a}",
    "you may fear a {o} {t}, but this one is {a}",
    "there is nothing {o} in this {t}",
    "the {s} makes the {t} {a}",
    "{a} {s}, {b} {t}: {w}",
)
ASK_REVIEW = (
    ("What does the writer think?", ("He likes it.", "He does not like it.")),
    ("For or against?", ("For.", "Against.")),
    ("Is it praised or blamed?", ("Praised.", "Blamed.")),
    ("How many stars?", ("Five stars.", "One star.")),
    ("Go or stay away?", ("Go.", "Stay away.")),
)


def scraps(rng: random.Random) -> tuple[str, bool]:
    """Scraps of a review of something shown, and whether the writer liked it."""
    good = rng.random() < 0.5
    same, other, whole = (GOOD, BAD, PRAISE) if good else (BAD, GOOD, BLAME)
    (a, b), (t, s) = rng.sample(same, 2), rng.sample(SHOWN, 2)
    text = rng.choice(REVIEWS).format(a=a, b=b, o=rng.choice(other), w=rng.choice(whole), t=t, s=s)
    if rng.random() < 0.3:
        s, t = rng.sample(SHOWN, 2)
        text += " . " + rng.choice(REVIEWS).format(
            a=rng.choice(same), b=a, o=rng.choice(other), w=rng.choice(whole), t=t, s=s
        )
    return text, good


def review(rng: random.Random) -> tuple[str, str]:
    """Scraps of a review, a question about the writer's opinion, a short answer."""
    text, good = scraps(rng)
    question, answers = rng.choice(ASK_REVIEW)
    return rng.choice((f"{text} {question}", f"{question}\n{text}", f"{text}\n{question}")), answers[0 if good else 1]


def words(rng: random.Random) -> tuple[str, str]:
    """Some words, each with the side it is on."""
    answers = rng.choice((("praise", "blame"), ("kind", "hard"), ("good", "bad")))
    chosen = [
        (rng.choice(GOOD if side == 0 else BAD), answers[side]) for side in rng.choices((0, 1), k=rng.randint(2, 8))
    ]
    listed = ", ".join(word for word, _ in chosen)
    sorted_out = "; ".join(f"{word}: {side}" for word, side in chosen)
    return rng.choice((f"{answers[0].capitalize()} or {answers[1]}? {listed}", "")), sorted_out
