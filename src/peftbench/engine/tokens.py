"""Examples to token ids: the prompt rendered for the model, over-long inputs shortened, the result kept on disk."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.cache import cache_directory
from peftbench.registry import UserError
from peftbench.tasks import Example, TaskFacts, prompt

CUE = "\nAnswer:"
"""Ends a prompt for a model without a chat template."""
FORMAT = 2
"""Raised when a change here alters what is made of an example, so that rows kept on disk before are not used."""
DAY = dt.date(2024, 7, 26)
"""The date of chat templates that show one: the same question must be the same text on every day."""
GAP = " ... "
"""Stands where the middle of an over-long field was left out."""


@dataclass(frozen=True)
class Encoded:
    """One row as token ids. `target` ends with the end-of-sequence token; `choices` are encoded like targets.

    `words` are the choices as text, as a tokenizer need not give back what it was given.
    """

    prompt: list[int]
    target: list[int]
    choices: tuple[list[int], ...] = ()
    truncated: bool = False
    words: tuple[str, ...] = ()


class Encoder:
    """Encodes the examples of a task for a tokenizer.

    A prompt has at most `max_length` tokens less the task's longest answer: training and test see the same text.
    """

    def __init__(self, tokenizer: Any, facts: TaskFacts, max_length: int) -> None:
        self.tokenizer, self.facts = tokenizer, facts
        self.answer_tokens = min(facts.max_new_tokens, max_length // 2)
        self.prompt_tokens = max_length - self.answer_tokens
        self._choices: dict[str, list[int]] = {}

    def __call__(self, example: Example) -> Encoded:
        fields, truncated = dict(example.fields), False
        ids = self.prompt(fields)
        for _ in range(8):
            if len(ids) <= self.prompt_tokens:
                break
            fields, truncated = self._shorten(fields, len(ids) - self.prompt_tokens), True
            ids = self.prompt(fields)
        else:
            ids = ids[-self.prompt_tokens :]
        target = self.answer(example.target)
        kept = target[: self.answer_tokens]
        return self.with_choices(Encoded(ids, kept, truncated=truncated or len(kept) < len(target)), example)

    def with_choices(self, row: Encoded, example: Example) -> Encoded:
        """The row with the choices of its example, as answers; the same few words are encoded once."""
        words = example.choices or self.facts.labels
        for word in words:
            self._choices.setdefault(word, self.answer(word))
        return replace(row, choices=tuple(self._choices[word] for word in words), words=words)

    def prompt(self, fields: Mapping[str, str]) -> list[int]:
        """A prompt's ids: the user turn of the chat template, or plain text that ends in a cue."""
        text = prompt(self.facts, fields)
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer(text + CUE)["input_ids"])
        turn = [{"role": "user", "content": text}]
        chat = self.tokenizer.apply_chat_template(
            turn,
            chat_template=_dated(self.tokenizer.chat_template),
            date_string=f"{DAY:%d %b %Y}",
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

    def answer(self, text: str) -> list[int]:
        """An answer's ids, with the end-of-sequence token."""
        lead = " " if self.tokenizer.chat_template is None else ""
        return [*self.tokenizer(lead + text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    @staticmethod
    def passage(tokenizer: Any, text: str, most: int) -> Encoded:
        """A text that is no question, as it is: after its first token all others are targets; at most so many."""
        ids = list(tokenizer(text)["input_ids"])[:most]
        return Encoded(ids[:1], ids[1:])

    @property
    def manner(self) -> list[Any]:
        """What the ids depend on beside texts, room and the tokenizer itself."""
        return [self.tokenizer.chat_template, self.tokenizer.eos_token_id]

    def _shorten(self, fields: dict[str, str], excess: int) -> dict[str, str]:
        """The longest field without `excess` tokens of its middle."""
        ids = {name: self.tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in fields.items()}
        name = max(ids, key=lambda field: len(ids[field]))
        keep = max(0, len(ids[name]) - excess - 4)
        head, tail = (
            # A cut may go through a character of several tokens, of which a replacement sign is left.
            self.tokenizer.decode(part).strip("\ufffd \n\t")
            for part in (ids[name][: (keep + 1) // 2], ids[name][len(ids[name]) - keep // 2 :])
        )
        return fields | {name: head + GAP + tail}


class SourceEncoder(Encoder):
    """Encodes for an encoder–decoder: prompts as its tokenizer encodes sources, answers as it encodes targets.

    There is no cue and no chat template: where a prompt ends is plain to an encoder. What special tokens its tokenizer
    adds, such as an end (T5) or a beginning and an end (BART), are part of prompt and answer.
    """

    def prompt(self, fields: Mapping[str, str]) -> list[int]:
        """A prompt's ids: plain text."""
        return list(self.tokenizer(prompt(self.facts, fields))["input_ids"])

    def answer(self, text: str) -> list[int]:
        """An answer's ids, with the end-of-sequence token."""
        ids, end = list(self.tokenizer(text_target=text)["input_ids"]), self.tokenizer.eos_token_id
        return ids if ids[-1:] == [end] else [*ids, end]

    @staticmethod
    def passage(tokenizer: Any, text: str, most: int) -> Encoded:
        """A text that is no question: half of its words are read, the rest written, each at most so many tokens."""
        words = re.findall(r"\S+\s*", text)
        first, second = "".join(words[: len(words) // 2]), "".join(words[len(words) // 2 :])
        target = tokenizer(text_target=second)["input_ids"] if second else []
        return Encoded(list(tokenizer(first)["input_ids"])[:most], list(target)[:most])

    @property
    def manner(self) -> list[Any]:
        """What the ids depend on beside texts, room and the tokenizer itself."""
        return ["source and target", self.tokenizer.eos_token_id]


def _dated(template: str) -> str:
    """A chat template that shows `DAY` where it would show today."""
    return re.sub(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda call: repr(DAY.strftime(call[2])), template)


def encode(encoder: Encoder, examples: Sequence[Example]) -> list[Encoded]:
    """Encode examples, once for each tokenizer, task and content: the ids are kept on disk under a hash of them all."""
    path = cache_directory() / "tokens" / f"{_key(encoder, examples)}.npz"
    rows = _read(path)
    if rows is None or len(rows) != len(examples):
        rows = [encoder(example) for example in examples]
        # A cache that cannot be written costs time and nothing else.
        with contextlib.suppress(OSError):
            _write(path, rows)
    return [encoder.with_choices(row, example) for row, example in zip(rows, examples, strict=True)]


def check_whole(encoder: Encoder, examples: Sequence[Example], rows: Sequence[Encoded]) -> None:
    """Raises `UserError` if an example was shortened and its task says that none may be."""
    cut = [example for example, row in zip(examples, rows, strict=True) if row.truncated]
    if not (encoder.facts.whole and cut):
        return
    longest = max(len(encoder.prompt(example.fields)) for example in cut) + encoder.facts.max_new_tokens
    raise UserError(
        f"{len(cut)} of {len(rows)} rows do not fit into max_length = {encoder.prompt_tokens + encoder.answer_tokens}, "
        f"and a row without its middle may lack what is asked: ask for fewer words, or raise max_length to {longest}"
    )


def _key(encoder: Encoder, examples: Sequence[Example]) -> str:
    content = [[dict(example.fields), example.target] for example in examples]
    asked = [encoder.facts.instruction, encoder.facts.labels, encoder.prompt_tokens, encoder.answer_tokens]
    digest = hashlib.sha256(json.dumps([content, asked, [FORMAT, *encoder.manner]]).encode())
    digest.update(encoder.tokenizer.backend_tokenizer.to_str().encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> list[Encoded] | None:
    """The kept rows; none if there are none, or if the file was cut short."""
    try:
        with np.load(path) as kept:
            ids, ends, truncated = kept["ids"].tolist(), kept["ends"].tolist(), kept["truncated"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    starts = [0, *ends[:-1]]
    parts = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
    return [Encoded(p, t, truncated=cut) for p, t, cut in zip(parts[::2], parts[1::2], truncated, strict=True)]


def _write(path: Path, rows: Sequence[Encoded]) -> None:
    parts = [part for row in rows for part in (row.prompt, row.target)]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        partial,
        ids=np.array([i for part in parts for i in part], dtype=np.int32),
        ends=np.cumsum([len(part) for part in parts], dtype=np.int64),
        truncated=np.array([row.truncated for row in rows]),
    )
    partial.replace(path)
