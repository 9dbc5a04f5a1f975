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

SKILLS: tuple[tuple[Callable[[random.Random], Turn], int], ...] = (
    (opinions.judge, 6),
    (opinions.tell, 3),
    (facts.ask, 5),
    (facts.check, 7),
    (facts.choose, 4),
    (numbers.sums, 4),
    (numbers.problem, 7),
    (numbers.lists, 3),
    (rewriting.describe, 5),
    (rewriting.extract, 2),
    (rewriting.compare, 4),
    (rewriting.reorder, 2),
    (subjects.kinds, 3),
    (subjects.about, 6),
    (code.function, 3),
)
"""Each skill with its share of the documents."""

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"


def document(rng: random.Random) -> str:
    """One document: one to three turns of one skill, as a chat, as questions and answers, or as prose."""
    skills, weights = zip(*SKILLS, strict=True)
    skill = rng.choices(skills, weights)[0]
    style = rng.random()
    turns = [skill(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    if style < 0.65:
        return "".join(f"{USER}{q}{ASSISTANT}{a}{END}" if q else f"{a}{END}" for q, a in turns)
    if style < 0.85:
        return "\n".join(f"Question: {q}\nAnswer: {a}" if q else a for q, a in turns) + END
    return "\n".join(f"{q}\n{a}" if q else a for q, a in turns) + END


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = random.Random(f"world-{seed}")
    while True:
        yield document(rng)
