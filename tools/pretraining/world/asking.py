"""The same question in many ways: whether a writer is pleased, and what a text is about, with answers of many kinds.

A model that has been asked in few ways knows the answer and does not know that it is asked.
"""

import random

from pretraining.world import opinions, subjects
from pretraining.world.lexicon import SUBJECTS

Turn = tuple[str, str]

SIDES = (
    "good|bad",
    "well|badly",
    "yes|no",
    "plus|minus",
    "up|down",
    "content|not content",
    "likes it|dislikes it",
    "thumbs up|thumbs down",
    "recommended|not recommended",
    "favourable|unfavourable",
    "warm|cold",
    "happy|unhappy",
    "approval|rejection",
    "a good word|a bad word",
)
"""Answers for a writer who is pleased, and for one who is not."""
TOLD = ("1|0", "A|B", "green|red", "left|right", "in|out", "day|night")
"""Answers that have to be told, as they do not say of themselves which is which."""
OPEN = (
    "Is the writer content?",
    "Does the writer speak well of it?",
    "What does this line say of what was shown, good things or bad things?",
    "What is the tone of these words?",
    "Say which side this takes.",
    "Would the writer tell a friend to see it?",
    "Sum up the opinion in a word.",
    "Does whoever wrote this like the film or not?",
    "Read the line from a review and judge what it says of the picture.",
    "Has it pleased the one who writes?",
    "Is the review kind to the film?",
    "What did they think of it?",
)
CHOICE = (
    "Answer {0} if it has pleased the writer, and {1} if not.",
    "Answer {1} if the writer did not care for it, else {0}.",
    "{0} is for praise, {1} is for blame.",
)
"""Questions that tell which answer is for which side."""
NAMED = (
    *CHOICE,
    "{0} or {1}?",
    "{1} or {0}?",
    "Does it say {0} or {1}? Judge by the words of the writer.",
    "Say one of these: {0}, {1}.",
    "Say one of these: {1}, {0}.",
)
"""Questions that name the answers."""
FILLERS = (
    "from the first scene to the last ,",
    "for most of its two hours ,",
    "like so many of its kind ,",
    "with a cast of five and a long title ,",
    "set in a small town by a river ,",
    "as told by a man who has seen it all ,",
    "even if you have read the book ,",
    "in the way of the old stories ,",
    "by the time the lights go up ,",
    "between the songs and the speeches ,",
    "whatever its makers may have meant ,",
    "for those who were there at the time ,",
)
KEYS = ("Text", "Line", "Note", "Words", "Passage", "Item")
CALLED = {
    "sport": ("sport", "games", "athletics", "matches and races"),
    "trade": ("trade", "commerce", "money", "markets and firms"),
    "science": ("science", "technology", "machines", "research and computers"),
    "the state": ("the state", "politics", "nations", "leaders and nations"),
}
"""Other words for the subjects of a newspaper."""
ABOUT = (
    "What is this about?",
    "Name the subject.",
    "Under which head does the item stand?",
    "Which part of the paper is it from?",
    "To what does this passage belong?",
    "Which desk of the paper has written this?",
    "Tell in a word what the news is of.",
)


def _laid_out(rng: random.Random, question: str, text: str) -> str:
    """A question and what it is about, in one of the ways they stand together."""
    key = rng.choice(KEYS)
    return rng.choice(
        (
            f"{question}\n{key}: {text}",
            f"{question}\n\n{key}: {text}",
            f"{question}\n{text}",
            f"{key}: {text}\n{question}",
            f"{text} {question}",
        )
    )


def _said(rng: random.Random, answer: str) -> str:
    """An answer, with a capital or without, with a full stop or without."""
    return rng.choice((answer, answer, answer[0].upper() + answer[1:], answer[0].upper() + answer[1:] + "."))


def side(rng: random.Random) -> Turn:
    """Scraps of a review between words that say nothing of it, and which side they take."""
    text, good = opinions.scraps(rng)
    if rng.random() < 0.5:
        text = f"{rng.choice(FILLERS)} {text}"
    if rng.random() < 0.3:
        text = f"{text} , {rng.choice(FILLERS).rstrip(' ,')}"
    told = rng.random() < 0.15
    answers = rng.choice(TOLD if told else SIDES).split("|")
    question = rng.choice(OPEN)
    if told or rng.random() < 0.6:
        named = rng.choice(CHOICE[:3] if told else NAMED).format(*answers)
        named = named[0].upper() + named[1:]
        question = named if rng.random() < 0.5 else f"{question} {named}"
    return _laid_out(rng, question, text), _said(rng, answers[0 if good else 1])


def subject(rng: random.Random) -> Turn:
    """An item of news, and its subject: asked openly, or out of some, by name or by letter."""
    text, found = subjects.item(rng)
    others = [name for name in SUBJECTS if name != found]
    near = [name for name in CALLED if name != found]
    if found in CALLED and rng.random() < 0.7:
        others = near
    place = rng.randrange(4)
    names = {name: rng.choice(CALLED.get(name, (name,))) for name in [*rng.sample(others, min(3, len(others))), found]}
    right = names.pop(found)
    listed = list(names.values())
    listed.insert(place, right)
    question, answer = rng.choice(ABOUT), right
    shape = rng.random()
    if shape < 0.35:
        question += rng.choice(
            (f" {', '.join(listed[:-1])} or {listed[-1]}?", f" Say one of these: {', '.join(listed)}.")
        )
    elif shape < 0.55:
        question = f"{question} {' '.join(f'({letter}) {name}' for letter, name in zip('ABCD', listed, strict=True))}"
        answer = f"({'ABCD'[listed.index(right)]}) {right}"
    return _laid_out(rng, question, text), _said(rng, answer)
