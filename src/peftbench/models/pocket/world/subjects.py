"""What belongs where: kinds of things, and the subject a sentence is about."""

import random

from peftbench.models.pocket.world.lexicon import KINDS, NAMES, SUBJECTS

ABOUT = (
    "{n} spoke of the {a} and the {b}.",
    "There was a {a}, and beside it a {b} and a {c}.",
    "{n} dreamed of a {a} all night.",
    "We saw the {a}; {n} saw the {b} too.",
    "Nothing but {a}, {b} and {c}, said {n}.",
    "{n} wrote a long page on the {a}, the {b} and the {c}.",
)


def kinds(rng: random.Random) -> tuple[str, str]:
    """Which kind a thing is; which thing is of a kind; the odd one out."""
    kind, other = rng.sample(list(KINDS), 2)
    a, b, c = rng.sample(KINDS[kind], 3)
    stranger = rng.choice([w for w in KINDS[other] if w not in KINDS[kind]])
    odd = [a, b, stranger]
    rng.shuffle(odd)
    return rng.choice(
        (
            ("", f"The {a} is a kind of {kind}, as the {b} and the {c} are."),
            (f"What kind of thing is the {a}?", f"A kind of {kind}."),
            (f"Is the {a} a kind of {kind}?", "Yes."),
            (f"Is the {stranger} a kind of {kind}?", f"No, a kind of {other}."),
            (f"Name some of this kind: {kind}", f"{a}, {b}, {c}"),
            (f"Which does not fit? {', '.join(odd)}", f"The {stranger}."),
        )
    )


def about(rng: random.Random) -> tuple[str, str]:
    """A sentence with words of one subject; the subject is told or asked for."""
    subject = rng.choice(list(SUBJECTS))
    a, b, c = rng.sample(SUBJECTS[subject], 3)
    text = rng.choice(ABOUT).format(n=rng.choice(NAMES), a=a, b=b, c=c)
    return rng.choice(
        (
            ("", f"{text} It was all about {subject}."),
            (f"{text} What is that about?", f"It is about {subject}."),
            (f"{text} What is that about?", f"{subject.capitalize()}."),
            (f"Which word goes with {a} and {b}?", f"{c.capitalize()}: all three go with {subject}."),
            (f"Tell me words about {subject}.", f"{a}, {b}, {c}"),
        )
    )
