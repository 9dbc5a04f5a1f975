"""Short texts about a small closed world, made by rule, for pretraining the pocket models.

`documents(seed)` is an endless stream of them: plain sentences, questions with answers, and the same as chats. Each
skill the pocket suite builds on (judging, comparing facts, small sums, filling a sentence from a record, choosing,
one-line functions) is shown here in other words, with other names, other things and other answers.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from peftbench.models.pocket.world import code, facts, numbers, opinions, rewriting, subjects

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


FINDING = Mix(
    0.35,
    (
        (opinions.judge, 5),
        (opinions.tell, 2),
        (opinions.review, 7),
        (numbers.sums, 4),
        (numbers.problem, 8),
        (numbers.lists, 3),
        (rewriting.describe, 6),
        (rewriting.extract, 2),
        (rewriting.compare, 5),
        (rewriting.reorder, 2),
        (rewriting.echo, 6),
        (subjects.kinds, 3),
        (subjects.about, 8),
        (code.function, 4),
    ),
)
"""Mostly finding and copying what a text says."""
MEANING = Mix(
    0.12,
    (
        (opinions.words, 16),
        (opinions.judge, 10),
        (opinions.tell, 4),
        (opinions.review, 12),
        (numbers.sums, 8),
        (numbers.problem, 12),
        (numbers.lists, 2),
        (rewriting.describe, 4),
        (rewriting.extract, 1),
        (rewriting.compare, 3),
        (rewriting.reorder, 1),
        (rewriting.echo, 2),
        (subjects.words, 10),
        (subjects.kinds, 4),
        (subjects.about, 10),
        (code.function, 3),
    ),
)
"""Mostly what words mean: good or bad, how many, which subject."""

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"


def document(rng: random.Random, mix: Mix = FINDING) -> str:
    """One document: a quiz, or one to three turns of one skill; as a chat, as questions and answers, or as prose."""
    style = rng.random()
    if rng.random() < mix.quiz:
        turns = facts.quiz(rng)
    else:
        skills, weights = zip(*mix.skills, strict=True)
        skill = rng.choices(skills, weights)[0]
        turns = [skill(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    if style < 0.65:
        return "".join(f"{USER}{q}{ASSISTANT}{a}{END}" if q else f"{a}{END}" for q, a in turns)
    if style < 0.85:
        return "\n".join(f"Question: {q}\nAnswer: {a}" if q else a for q, a in turns) + END
    return "\n".join(f"{q}\n{a}" if q else a for q, a in turns) + END


def documents(seed: int, mix: Mix = FINDING) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = random.Random(f"world-{seed}")
    while True:
        yield document(rng, mix)
