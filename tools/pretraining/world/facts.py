"""Stated facts and questions about them: who has what, who is where, does a claim follow."""

import random
from dataclasses import dataclass

from pretraining.world.lexicon import COLOURS, FOODS, JOBS, PLACES, THINGS, names

Turn = tuple[str, str]


@dataclass(frozen=True)
class Relation:
    """One way in which a person and a value belong together."""

    sayings: tuple[str, ...]
    question: str
    values: tuple[str, ...]


OBJECTS = tuple(f"{c} {t}" for c in COLOURS for t in THINGS)
RELATIONS = (
    Relation(("{n} has the {v}.", "The {v} is {n}'s.", "{n} holds the {v}."), "What does {n} have?", OBJECTS),
    Relation(("{n} owns the {v}.", "The {v} belongs to {n}."), "What belongs to {n}?", tuple(THINGS)),
    Relation(
        ("{n} is in the {v}.", "In the {v} there is {n}.", "{n} sits in the {v}."), "Where is {n}?", tuple(PLACES)
    ),
    Relation(("{n} went to the {v}.", "It was the {v} that {n} went to."), "Where did {n} go?", tuple(PLACES)),
    Relation(("{n} is the {v}.", "The {v} is called {n}."), "Who or what is {n}?", tuple(JOBS)),
    Relation(("{n} likes the {v} best.", "The {v} pleases {n}."), "What does {n} like?", tuple(FOODS)),
)
VERDICTS = (
    ("Yes.", "No."),
    ("True.", "False."),
    ("That is so.", "That is not so."),
    ("It agrees.", "It does not agree."),
)


@dataclass(frozen=True)
class Told:
    """Some facts of one relation, and the text that tells them."""

    relation: Relation
    pairs: dict[str, str]
    text: str

    @classmethod
    def some(cls, rng: random.Random, people: int) -> "Told":
        relation = rng.choice(RELATIONS)
        pairs = dict(zip(names(rng, people), rng.sample(relation.values, people), strict=True))
        return cls(relation, pairs, " ".join(rng.choice(relation.sayings).format(n=n, v=v) for n, v in pairs.items()))

    def claim(self, rng: random.Random, name: str, value: str) -> str:
        return rng.choice(self.relation.sayings).format(n=name, v=value)

    def wrong(self, rng: random.Random, name: str) -> str:
        """A value that is not that of `name`: mostly somebody else's."""
        others = [v for n, v in self.pairs.items() if n != name]
        if others and rng.random() < 0.7:
            return rng.choice(others)
        return rng.choice([v for v in self.relation.values if v != self.pairs[name]])


def question(rng: random.Random, told: Told) -> Turn:
    """A question about one of the facts."""
    name = rng.choice(list(told.pairs))
    if rng.random() < 0.3:
        return f"Who goes with the {told.pairs[name]}?", f"{name}."
    return told.relation.question.format(n=name), f"The {told.pairs[name]}."


def verdict(rng: random.Random, told: Told) -> Turn:
    """A claim: does it follow? With the reason, or without; a stranger leaves it open."""
    name = rng.choice(list(told.pairs))
    kind = rng.choices(("true", "false", "unknown"), (4, 4, 1))[0]
    reason = told.claim(rng, name, told.pairs[name])
    if kind == "unknown":
        stranger = next(n for n in iter(lambda: names(rng, 1)[0], None) if n not in told.pairs)
        claim = told.claim(rng, stranger, rng.choice(told.relation.values))
        answer = rng.choice(("Nothing is said of {n}.", "One cannot know.")).format(n=stranger)
    else:
        claim = told.claim(rng, name, told.pairs[name] if kind == "true" else told.wrong(rng, name))
        answer = rng.choice(VERDICTS)[0 if kind == "true" else 1]
        shape = rng.random()
        if shape < 0.25:
            answer = f"{answer} {reason}"
        elif shape < 0.5:
            answer = f"{reason} {answer}"
    asked = rng.choice(("Is it so that this holds: {c}", "Somebody says: {c} Is that right?", "{c} Is it true?"))
    return asked.format(c=claim), answer


def lettered(rng: random.Random, told: Told) -> Turn:
    """A question with lettered answers: the letter, or the letter with the answer."""
    name = rng.choice(list(told.pairs))
    right = told.pairs[name]
    wrong = [v for v in told.pairs.values() if v != right]
    while len(wrong) < 3:
        value = rng.choice(told.relation.values)
        if value not in wrong and value != right:
            wrong.append(value)
    options = [right, *wrong[: rng.choice((1, 2, 3))]]
    rng.shuffle(options)
    listed = rng.choice((" ", "\n")).join(f"({'ABCD'[i]}) the {v}" for i, v in enumerate(options))
    letter = f"({'ABCD'[options.index(right)]})"
    answer = rng.choice((letter, f"{letter} the {right}", f"The {right}: {letter}"))
    return f"{told.relation.question.format(n=name)} {listed}", answer


def quiz(rng: random.Random) -> list[Turn]:
    """Some facts, then several questions about them, with the facts before the first."""
    told = Told.some(rng, rng.choice((1, 2, 2, 2, 3, 4)))
    kinds = rng.choice(((question,), (verdict,), (lettered,), (question, verdict), (question, verdict, lettered)))
    turns = [rng.choice(kinds)(rng, told) for _ in range(rng.randint(1, 6))]
    first, answer = turns[0]
    text = f"{told.text}{rng.choice((' ', chr(10)))}{first}" if rng.random() < 0.85 else f"{first}\n{told.text}"
    return [(text, answer), *turns[1:]]
