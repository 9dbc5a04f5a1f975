"""Short texts about a small closed world, made by rule, for pretraining the pocket models.

`documents(seed)` is an endless stream of them: plain sentences, questions with answers, and the same as chats. Each
skill the pocket suite builds on (judging, comparing facts, small sums, filling a sentence from a record, choosing,
one-line functions) is shown here in other words, with other names, other things and other answers.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pretraining.world import asking, code, facts, numbers, opinions, rewriting, subjects

Turn = tuple[str, str]
"""A question and its answer; an empty question is plain prose."""

Skill = Callable[[random.Random], Turn]


@dataclass(frozen=True)
class Mix:
    """What documents are about: the share that is a quiz (several questions on one text), and of the others, how many
    show each skill.
    """

    quiz: float
    skills: tuple[tuple[Skill, int], ...]


MEANING = Mix(
    0.22,
    (
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
    ),
)
"""What words mean, and what a text says. Lists of words, each with its side or subject, teach what words mean in far
fewer tokens than sentences do.
"""
ASKING = Mix(
    0.15,
    (
        (asking.side, 16),
        (asking.subject, 12),
        (opinions.judge, 6),
        (opinions.words, 4),
        (numbers.sums, 12),
        (numbers.problem, 20),
        (rewriting.describe, 5),
        (rewriting.compare, 2),
        (rewriting.echo, 3),
        (subjects.kinds, 3),
        (subjects.about, 4),
        (subjects.words, 5),
        (code.function, 3),
    ),
)
"""What is known by now, asked in many ways; and sums, which take longest to learn."""

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"


def turns(rng: random.Random, mix: Mix = MEANING) -> list[Turn]:
    """The turns of one document: a quiz, or one to three of one skill."""
    if rng.random() < mix.quiz:
        return facts.quiz(rng)
    skills, weights = zip(*mix.skills, strict=True)
    skill = rng.choices(skills, weights)[0]
    return [skill(rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def document(rng: random.Random, mix: Mix = MEANING) -> str:
    """One document as text: a chat, questions and answers, or prose."""
    style = rng.random()
    said = turns(rng, mix)
    if style < 0.65:
        return "".join(f"{USER}{q}{ASSISTANT}{a}{END}" if q else f"{a}{END}" for q, a in said)
    if style < 0.85:
        return "\n".join(f"Question: {q}\nAnswer: {a}" if q else a for q, a in said) + END
    return "\n".join(f"{q}\n{a}" if q else a for q, a in said) + END


def documents(seed: int, mix: Mix = MEANING) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = random.Random(f"world-{seed}")
    while True:
        yield document(rng, mix)
