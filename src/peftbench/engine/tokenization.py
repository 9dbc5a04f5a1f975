"""Tokenization of examples: prompts are rendered for the model, long inputs shortened, results cached on disk."""

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.core.cache_folder import cache_directory
from peftbench.core.files import replacing
from peftbench.core.registry import UserError
from peftbench.engine.chat_template import DAY, chat_of
from peftbench.tasks import Example, TaskFacts
from peftbench.tasks._prompt import prompt

CUE = "\nAnswer:"
"""Ends a prompt for a model without a chat template."""
FORMAT = 3
"""Increase it when a change alters the ids of an example, so that older cached rows are not used."""
GAP = " ... "
"""Replaces the omitted middle of a long field."""
SHOWN = 60
"""Maximum characters of a text in a message."""


@dataclass(frozen=True)
class Encoded:
    """One row as token ids. `target` ends with the end-of-sequence token; `choices` are encoded like targets.

    `words` are the choices as text, as a tokenizer need not give back what it was given. `unwritable`: it does not give
    back the target, so no answer of the model can equal it. `number` is the row's place among those that were encoded
    together, from 1.
    """

    prompt: list[int]
    target: list[int]
    choices: tuple[list[int], ...] = ()
    truncated: bool = False
    words: tuple[str, ...] = ()
    unwritable: bool = False
    number: int = 0


class Encoder:
    """Encodes the examples of a task for a tokenizer.

    A prompt has at most `max_length` tokens less the task's longest answer: training and test see the same text.
    Raises `UserError` for a chat template that cannot be used.
    """

    def __init__(self, tokenizer: Any, facts: TaskFacts, max_length: int) -> None:
        self.tokenizer, self.facts = tokenizer, facts
        self.answer_tokens = min(facts.max_new_tokens, max_length // 2)
        self.prompt_tokens = max_length - self.answer_tokens
        self._choices: dict[str, list[int]] = {}
        self._prepare()

    def _prepare(self) -> None:
        self.chat = chat_of(self.tokenizer)
        self.before = before(self.tokenizer)

    def __call__(self, example: Example) -> Encoded:
        ids = self.prompt(example.fields)
        truncated = len(ids) > self.prompt_tokens
        if truncated:
            ids = self._shortened(example.fields)
        target = self.answer(example.target)
        kept = target[: self.answer_tokens]
        unwritable = answer_text(self.tokenizer, target) != example.target.strip()
        row = Encoded(ids, kept, truncated=truncated or len(kept) < len(target), unwritable=unwritable)
        return self.with_choices(row, example)

    def with_choices(self, row: Encoded, example: Example) -> Encoded:
        """Return the row with the encoded choices of its example; equal texts are encoded once."""
        words = example.choices or self.facts.labels
        for word in words:
            if word not in self._choices:
                self._choices[word] = self.answer(word)
        return replace(row, choices=tuple(self._choices[word] for word in words), words=words)

    def prompt(self, fields: Mapping[str, str]) -> list[int]:
        """Return the ids of a prompt: the user turn of the chat template, or plain text that ends in a cue."""
        text = prompt(self.facts, fields)
        # A template writes what comes before a text itself.
        return bare(self.tokenizer, self.chat(text)) if self.chat else [*self.before, *bare(self.tokenizer, text + CUE)]

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer, with the end-of-sequence token."""
        lead = "" if self.chat else " "
        return [*bare(self.tokenizer, lead + text), self.tokenizer.eos_token_id]

    @staticmethod
    def passage(tokenizer: Any, text: str, most: int) -> Encoded:
        """Return plain text as a row: all tokens after the first are targets; at most `most`."""
        ids = [*before(tokenizer), *bare(tokenizer, text)][:most]
        return Encoded(ids[:1], ids[1:])

    @property
    def manner(self) -> list[Any]:
        """Return what the ids depend on besides texts, maximum length and tokenizer."""
        chat = [self.chat.template, self.chat.facts, DAY.isoformat()] if self.chat else []
        return [*chat, self.before, self.tokenizer.eos_token_id]

    @property
    def form(self) -> dict[str, Any]:
        """Return the form of prompts, for the result of a run."""
        return self.chat.facts if self.chat else {}

    def _shortened(self, fields: Mapping[str, str]) -> list[int]:
        """The prompt of fields of which the longest have lost their middle, down to a length common to these.

        Nothing else of a prompt is ever cut. Raises `UserError` if that leaves no room.
        """
        tokens = {name: bare(self.tokenizer, text) for name, text in fields.items()}
        sizes = [len(ids) for ids in tokens.values()]
        room = self.prompt_tokens - len(self.prompt(dict.fromkeys(fields, "")))
        length, found, ids = common_length(sizes, max(0, room)), list[int](), list[int]()
        # In its line, and where it was cut, a field takes other tokens than alone, so the length is found by trying.
        fitting, too_long = -1, max(sizes, default=0) + 1
        while fitting + 1 < too_long:
            ids = self.prompt({name: self._without_middle(text, tokens[name], length) for name, text in fields.items()})
            spare = (self.prompt_tokens - len(ids)) // max(1, sum(size > length for size in sizes))
            if spare >= 0:
                found, fitting = ids, length
            else:
                too_long = length
            if spare == 0:
                break
            length = min(max(length + spare, fitting + 1), too_long - 1)
        if not found:
            raise UserError(
                f"max_length = {self.prompt_tokens + self.answer_tokens} leaves {self.prompt_tokens} tokens for a "
                f"prompt, and one with no more of its fields than their names takes {len(ids)}: "
                f"raise max_length over {len(ids) + self.facts.max_new_tokens}"
            )
        return found

    def _without_middle(self, text: str, ids: list[int], most: int) -> str:
        if len(ids) <= most:
            return text
        keep = max(0, most - len(bare(self.tokenizer, GAP)))
        # A cut may go through a character of several tokens, of which a replacement sign is left.
        ends = (ids[: (keep + 1) // 2], ids[len(ids) - keep // 2 :])
        texts = [str(self.tokenizer.decode(part, clean_up_tokenization_spaces=False)) for part in ends]
        return GAP.join(text.strip("\ufffd \n\t") for text in texts)


class SourceEncoder(Encoder):
    """Encodes for an encoder–decoder: prompts as its tokenizer encodes sources, answers as it encodes targets.

    There is no cue and no chat template: where a prompt ends is plain to an encoder. What special tokens its tokenizer
    adds, such as an end (T5) or a beginning and an end (BART), are part of prompt and answer.
    """

    def _prepare(self) -> None:
        self.chat, self.before = None, []

    def prompt(self, fields: Mapping[str, str]) -> list[int]:
        """Return the ids of a prompt as plain text."""
        return list(self.tokenizer(prompt(self.facts, fields))["input_ids"])

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer with the end-of-sequence token, and nothing after it."""
        ids, end = list(self.tokenizer(text_target=text)["input_ids"]), self.tokenizer.eos_token_id
        while ids and ids[-1] != end and ids[-1] in self.tokenizer.all_special_ids:
            ids.pop()
        return ids if ids[-1:] == [end] else [*ids, end]

    @staticmethod
    def passage(tokenizer: Any, text: str, most: int) -> Encoded:
        """Return plain text as a row: half its words are input, half target, each at most `most` tokens."""
        words = re.findall(r"\S+\s*", text)
        first, second = "".join(words[: len(words) // 2]), "".join(words[len(words) // 2 :])
        target = tokenizer(text_target=second)["input_ids"] if second else []
        return Encoded(list(tokenizer(first)["input_ids"])[:most], list(target)[:most])


def bare(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text without special tokens before or after it."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def before(tokenizer: Any) -> list[int]:
    """Return the special tokens before a text. Those after a text are left out, because they would end a prompt."""
    text = "The answer is"
    whole, alone = list(tokenizer(text)["input_ids"]), bare(tokenizer, text)
    starts = (i for i in range(len(whole) - len(alone) + 1) if whole[i : i + len(alone)] == alone)
    return whole[: next(starts, 0)]


def answer_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Decode the ids of an answer without special tokens, outer white space and unknown ids."""
    # Tokenizers in Rust leave those out themselves; others may raise an error.
    known = len(tokenizer) if getattr(tokenizer, "backend_tokenizer", None) is None else None
    held = [token for token in ids if known is None or token < known]
    return str(tokenizer.decode(held, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def common_length(lengths: Sequence[int], room: int) -> int:
    """Return the common length to which longer texts are cut so that all together have the given length."""
    for shorter, length in enumerate(sorted(lengths)):
        if (left := len(lengths) - shorter) * length > room:
            return room // left
        room -= length
    return max(lengths, default=0)


def encode_examples(encoder: Encoder, examples: Sequence[Example]) -> list[Encoded]:
    """Encode examples, once for each tokenizer, task and content: the ids are kept on disk under a hash of them all.

    Raises `UserError` for an example that leaves no room for its fields.
    """
    key = _key(encoder, examples)
    path = cache_directory() / "tokens" / f"{key}.npz"
    rows = _read(path) if key else None
    if rows is None or len(rows) != len(examples):
        rows = [encoder(example) for example in examples]
        # A cache that cannot be written costs time and nothing else.
        with contextlib.suppress(OSError):
            if key:
                _write(path, rows)
    return [
        replace(encoder.with_choices(row, example), number=number)
        for number, (row, example) in enumerate(zip(rows, examples, strict=True), start=1)
    ]


def check_whole(encoder: Encoder, examples: Sequence[Example], rows: Sequence[Encoded]) -> None:
    """Raises `UserError` if an example was shortened and its task does not allow that."""
    cut = [example for example, row in zip(examples, rows, strict=True) if row.truncated]
    if not (encoder.facts.whole and cut):
        return
    longest = max(len(encoder.prompt(example.fields)) for example in cut) + encoder.facts.max_new_tokens
    raise UserError(
        f"{len(cut)} of {len(rows)} rows do not fit into max_length = {encoder.prompt_tokens + encoder.answer_tokens}, "
        f"and a row without its middle may lack what is asked: ask for fewer words, or raise max_length to {longest}"
    )


def check_choices(encoder: Encoder, rows: Sequence[Encoded]) -> None:
    """Raises `UserError` for a choice without tokens, or with the same tokens as another choice of its row."""
    nothing, seen = encoder.answer(""), set[tuple[str, ...]]()
    for row in rows:
        if row.words in seen:
            continue
        seen.add(row.words)
        known: dict[tuple[int, ...], str] = {}
        for word, ids in zip(row.words, row.choices, strict=True):
            if ids == nothing:
                raise UserError(f"the model's tokenizer makes nothing of the choice {word[:SHOWN]!r}")
            if (other := known.setdefault(tuple(ids), word)) != word:
                raise UserError(
                    f"the model's tokenizer does not tell the choices {other[:SHOWN]!r} and {word[:SHOWN]!r} apart"
                )


def check_vocabulary(encoder: Encoder, rows: Sequence[Encoded], size: int) -> None:
    """Raises `UserError` for a token without an embedding."""
    highest = max((max(part) for row in rows for part in (row.prompt, row.target, *row.choices) if part), default=0)
    if highest >= size:
        token = encoder.tokenizer.convert_ids_to_tokens(highest)
        raise UserError(
            f"the model has {size} embeddings, and its tokenizer writes token {highest} ({token!r}): "
            "they do not belong together, or the embeddings have to be resized"
        )


def unwritable(encoder: Encoder, examples: Sequence[Example], rows: Sequence[Encoded]) -> str:
    """Return a note about targets that do not survive encoding and decoding, with an example; empty if all do."""
    lost = [example.target for example, row in zip(examples, rows, strict=True) if row.unwritable]
    if not lost:
        return ""
    back = answer_text(encoder.tokenizer, encoder.answer(lost[0]))
    return (
        f"{len(lost)} of {len(rows)} targets cannot be written with the model's tokenizer, which makes "
        f"{back[:SHOWN]!r} of {lost[0].strip()[:SHOWN]!r}: no generated answer can equal them"
    )


def _key(encoder: Encoder, examples: Sequence[Example]) -> str | None:
    """Return the cache key of ids; none for tokenizers in Python, whose behaviour has no digest."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = [[dict(example.fields), example.target] for example in examples]
    asked = [encoder.facts.instruction, encoder.facts.labels, encoder.prompt_tokens, encoder.answer_tokens]
    digest = hashlib.sha256(json.dumps([content, asked, [FORMAT, *encoder.manner]]).encode())
    digest.update(backend.to_str().encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> list[Encoded] | None:
    """Return the cached rows; none if there are none or the file is truncated."""
    try:
        with np.load(path) as kept:
            ids, ends, truncated, lost = (kept[name].tolist() for name in ("ids", "ends", "truncated", "unwritable"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    starts = [0, *ends[:-1]]
    parts = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
    return [
        Encoded(prompt, target, truncated=cut, unwritable=unwritable)
        for prompt, target, cut, unwritable in zip(parts[::2], parts[1::2], truncated, lost, strict=True)
    ]


def _write(path: Path, rows: Sequence[Encoded]) -> None:
    parts = [part for row in rows for part in (row.prompt, row.target)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        np.savez(
            partial,
            ids=np.array([i for part in parts for i in part], dtype=np.int32),
            ends=np.cumsum([len(part) for part in parts], dtype=np.int64),
            truncated=np.array([row.truncated for row in rows]),
            unwritable=np.array([row.unwritable for row in rows]),
        )
