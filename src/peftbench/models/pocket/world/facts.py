"""Stated facts and questions about them: who has what, who is where, does a claim follow."""

import random
from dataclasses import dataclass

from peftbench.models.pocket.world.lexicon import COLOURS, FOODS, JOBS, NAMES, PLACES, THINGS


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


def _facts(rng: random.Random, people: int) -> tuple[Relation, dict[str, str], str]:
    relation = rng.choice(RELATIONS)
    names = rng.sample(NAMES, people)
    pairs = dict(zip(names, rng.sample(relation.values, people), strict=True))
    text = " ".join(rng.choice(relation.sayings).format(n=n, v=v) for n, v in pairs.items())
    return relation, pairs, text


def ask(rng: random.Random) -> tuple[str, str]:
    """Some facts, then a question about one of them."""
    relation, pairs, text = _facts(rng, rng.choice((1, 2, 2, 3, 4)))
    name = rng.choice(list(pairs))
    if rng.random() < 0.3:
        return f"{text} Who goes with the {pairs[name]}?", f"{name}."
    return f"{text} {relation.question.format(n=name)}", f"The {pairs[name]}."


def check(rng: random.Random) -> tuple[str, str]:
    """Some facts and a claim: does it follow? With the reason, or without; a stranger leaves it open."""
    relation, pairs, text = _facts(rng, rng.choice((1, 1, 2, 2, 3)))
    name = rng.choice(list(pairs))
    claim_of, value = name, pairs[name]
    kind = rng.choices(("true", "false", "unknown"), (4, 4, 2))[0]
    if kind == "false":
        others = [v for n, v in pairs.items() if n != name]
        value = (
            rng.choice(others)
            if others and rng.random() < 0.6
            else rng.choice([v for v in relation.values if v != pairs[name]])
        )
    elif kind == "unknown":
        claim_of = rng.choice([n for n in NAMES if n not in pairs])
    claim = rng.choice(relation.sayings).format(n=claim_of, v=value)
    if kind == "unknown":
        answer = rng.choice(("Nothing is said of {n}.", "One cannot know.")).format(n=claim_of)
    else:
        answer = rng.choice(VERDICTS)[0 if kind == "true" else 1]
        if rng.random() < 0.4:
            answer += " " + rng.choice(relation.sayings).format(n=name, v=pairs[name])
    ask_it = rng.choice(
        ("{t} Is it so that this holds: {c}", "{t}\nSomebody says: {c} Is that right?", "{c} Is it true if {t}")
    )
    return ask_it.format(t=text, c=claim), answer


def choose(rng: random.Random) -> tuple[str, str]:
    """Facts, a question and lettered answers: the letter, or the letter with the answer."""
    relation, pairs, text = _facts(rng, rng.choice((1, 2, 3)))
    name = rng.choice(list(pairs))
    wrong = [v for v in pairs.values() if v != pairs[name]]
    while len(wrong) < 3:
        value = rng.choice(relation.values)
        if value not in wrong and value != pairs[name]:
            wrong.append(value)
    options = [pairs[name], *wrong[: rng.choice((1, 2, 3))]]
    rng.shuffle(options)
    right = options.index(pairs[name])
    listed = rng.choice((" ", "\n")).join(f"({'ABCD'[i]}) the {v}" for i, v in enumerate(options))
    letter = f"({'ABCD'[right]})"
    answer = rng.choice((letter, f"{letter} the {pairs[name]}"))
    return f"{text} {relation.question.format(n=name)} {listed}", answer
