"""What belongs where: kinds of things, and the subject a sentence is about."""

import random

from pretraining.world.lexicon import KINDS, SUBJECTS, names

ABOUT = (
    "{n} spoke of the {a} and the {b}.",
    "There was a {a}, and beside it a {b} and a {c}.",
    "{n} dreamed of a {a} all night.",
    "We saw the {a}; {n} saw the {b} too.",
    "Nothing but {a}, {b} and {c}, said {n}.",
    "{b}: {n} and the {a}",
    "{a} and {b} in the news: {n} speaks of {c}",
    "{n} says the {a} will need a {b} before any {c}.",
    "After the {a}, {n} turned to the {b}; the {c} came last.",
    "{n} wrote a long page on the {a}, the {b} and the {c}.",
)


HEADS = (
    "{a}, {b} and {c}",
    "{a} after the {b}",
    "{n}: more {a} for the {b}",
    "{a} on the way to {b}",
    "{n} wants a {a}",
    "No {a} without {b}",
    "{n} and {m} meet over {a}",
    "A new {a} in {y}",
)
BODIES = (
    "{n} said on {d} that the {a} of the {b} would be back in {y}, after {k} days without a {c}.",
    "{y} - The {a} has made it plain that there is no {b} yet, a {c} said on {d}.",
    "{y} (news) - {n}, who has had {k} of them, will take the {a} and the {b} to {y} on {d}, as {m} did last year.",
    "{n} and {m} came close to a {a} on {d}, but the {b} was not ready and the {c} had to wait.",
    "More than {k} of those who know the {a} think that a {b} will come before the end of the year, {m} told us.",
    "It was the first {a} in {k} years; a {b} and a {c} were seen in {y} on {d}.",
    "In {y} the {a} gave way to the {b} as {n} went on with the {c}.",
    "The {a}, which {n} put at {k}, is still ahead of the {b}; nobody in {y} spoke of the {c}.",
)
CITIES = "Lisbon Madrid Sydney Toronto Houston Denver Seattle Warsaw Geneva Oslo Cairo Nairobi Lima Delhi Seoul".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ASK_NEWS = (
    ("What is the report about?", "It is about {s}."),
    ("Who will want to read this?", "All who care for {s}."),
    ("On which shelf do you put it?", "With {s}."),
    ("What is that about?", "{s}."),
)


def _subject(rng: random.Random) -> str:
    """A subject, one of more words more often."""
    return rng.choices(list(SUBJECTS), [len(words) ** 0.5 for words in SUBJECTS.values()])[0]


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
    text = rng.choice(ABOUT).format(n=names(rng, 1)[0], a=a, b=b, c=c)
    return rng.choice(
        (
            ("", f"{text} It was all about {subject}."),
            (f"{text} What is that about?", f"It is about {subject}."),
            (f"{text} What is that about?", f"{subject.capitalize()}."),
            (f"Which word goes with {a} and {b}?", f"{c.capitalize()}: all three go with {subject}."),
            (f"Tell me words about {subject}.", f"{a}, {b}, {c}"),
        )
    )


def words(rng: random.Random) -> tuple[str, str]:
    """Some words, each with the subject it goes with."""
    chosen = [(rng.choice(SUBJECTS[subject]), subject) for subject in (_subject(rng) for _ in range(rng.randint(2, 6)))]
    if rng.random() < 0.3:
        chosen = [(word.title(), subject) for word, subject in chosen]
    listed = ", ".join(word for word, _ in chosen)
    return rng.choice((f"Which subject? {listed}", "")), "; ".join(f"{word}: {subject}" for word, subject in chosen)


def item(rng: random.Random) -> tuple[str, str]:
    """A head and one or two sentences as of a newspaper, and the subject they are about."""
    subject = _subject(rng)

    def said(frames: tuple[str, ...]) -> str:
        (a, b, c), (n, m) = rng.sample(SUBJECTS[subject], 3), names(rng, 2)
        words = {"a": a, "b": b, "c": c, "n": n, "m": m, "y": rng.choice(CITIES), "d": rng.choice(DAYS)}
        return rng.choice(frames).format(**words, k=rng.randint(2, 99))

    head = said(HEADS)
    text = " ".join(
        [head.title() if rng.random() < 0.6 else head, *(said(BODIES) for _ in range(rng.choice((1, 1, 2))))]
    )
    return text, subject


def news(rng: random.Random) -> tuple[str, str]:
    """An item of news, a question about its subject, the answer."""
    text, subject = item(rng)
    question, answer = rng.choice(ASK_NEWS)
    answer = answer.format(s=subject)
    return rng.choice((f"{text} {question}", f"{question}\n{text}", f"{text}\n{question}")), answer[0].upper() + answer[
        1:
    ]
