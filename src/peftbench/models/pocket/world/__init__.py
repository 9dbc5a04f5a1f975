"""Short texts about a small closed world, made by rule, for pretraining the pocket models.

`documents(seed)` is an endless stream of them: plain sentences, questions with answers, and the same as chats. Each
skill the pocket suite builds on (judging, comparing facts, small sums, filling a sentence from a record, choosing,
one-line functions) is shown here in other words, with other names, other things and other answers.
"""

import random
from collections.abc import Callable, Iterator

from peftbench.models.pocket.world import code, facts, numbers, opinions, rewriting, subjects

Turn = tuple[str, str]
"""A question and its answer; an empty question is plain prose."""

Skill = Callable[[random.Random], Turn]


QUIZ = 0.22
"""Share of documents that are a quiz: several questions on one text."""
SKILLS: tuple[tuple[Skill, int], ...] = (
    (opinions.judge, 8),
    (opinions.tell, 3),
    (opinions.review, 12),
    (opinions.words, 12),
    (numbers.sums, 7),
    (numbers.problem, 11),
    (numbers.lists, 2),
    (rewriting.describe, 6),
    (rewriting.extract, 2),
    (rewriting.compare, 3),
    (rewriting.reorder, 2),
    (rewriting.echo, 4),
    (subjects.kinds, 3),
    (subjects.about, 6),
    (subjects.words, 8),
    (subjects.news, 10),
    (code.function, 4),
)
"""How many of the other documents show each skill. Lists of words, each with its side or subject, teach what words mean
in far fewer tokens than sentences do.
"""

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"


def turns(rng: random.Random) -> list[Turn]:
    """The turns of one document: a quiz, or one to three of one skill."""
    if rng.random() < QUIZ:
        return facts.quiz(rng)
    skills, weights = zip(*SKILLS, strict=True)
    skill = rng.choices(skills, weights)[0]
    return [skill(rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def document(rng: random.Random) -> str:
    """One document as text: a chat, questions and answers, or prose."""
    style = rng.random()
    said = turns(rng)
    if style < 0.65:
        return "".join(f"{USER}{q}{ASSISTANT}{a}{END}" if q else f"{a}{END}" for q, a in said)
    if style < 0.85:
        return "\n".join(f"Question: {q}\nAnswer: {a}" if q else a for q, a in said) + END
    return "\n".join(f"{q}\n{a}" if q else a for q, a in said) + END


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = random.Random(f"world-{seed}")
    while True:
        yield document(rng)
