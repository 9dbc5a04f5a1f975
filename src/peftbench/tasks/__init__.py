"""Tasks: where rows come from, how a row becomes a question and an answer, how answers are scored.

A task is one decorated function in one file: it takes a raw row of its source and returns an `Example`. The decorator
holds the light facts. The prompt is made here, once for all tasks: the instruction, the label words where there are
labels, and the fields, one per line.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from peftbench.core.registry import Registry, Unit, did_you_mean
from peftbench.tasks._file_formats import Format, content_digest

Kind = Literal["classification", "multiple-choice", "regression", "qa", "math", "code", "summarization", "data-to-text"]
SPLITS = 2
"""Raised when other rows of published data sets are held out or trained on, so that old results do not pass for new."""
Row = Mapping[str, Any]
Generator = Callable[[str, int], Iterable[Row]]
"""Split name and number of rows to rows: a source made by rule, which needs no network and no files."""


@dataclass(frozen=True)
class Example:
    """One row as question and answer.

    `fields` are the named parts of the input, in order. `target` is the text to be learned; `references` are all right
    answers (the target alone where none are given). `details` is what a metric needs to know of the row beside its
    answers: the question it belongs to, its subject, the tests a program has to pass. `group` is what rows share that
    must not stand on two sides of a split, as the passage they ask about; by default, rows of the same text are one.
    """

    fields: Mapping[str, str]
    target: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        return self.references or (self.target,)


@dataclass(frozen=True)
class Source:
    """Where rows come from: a data set of the Hugging Face Hub, a generator of the project's own, or files.

    `name` is the Hub id or, with a generator or with files, a name of ours. `revision` is the pinned commit of the Hub.
    `files`: the splits are paths of files, written in this form. Without a `validation` split, validation rows are held
    out of the training rows, and so are test rows without a `test` split. `sizes` has the published numbers of rows of
    `train` and `test`; of a generator, how many rows are made of each.
    """

    name: str
    config: str | None = None
    train: str = "train"
    test: str | None = "test"
    validation: str | None = None
    revision: str | None = None
    generator: Generator | None = None
    files: Format | None = None
    sizes: tuple[int, int] | None = None

    @property
    def published(self) -> bool:
        """Whether it is a data set of the Hub, which a mirror can hold."""
        return self.generator is None and self.files is None


@dataclass(frozen=True)
class TaskFacts:
    """The light facts of a task.

    `metrics` has the main one first. `positive` is the label that binary F1 looks for. `scale` has the least and the
    greatest value of a number that is asked for. `merge_references`: test rows with the same fields are one question
    with the references of all. `max_new_tokens` is the longest answer, in tokens. `whole`: inputs that do not fit are
    refused, not shortened. `specialise` gives the facts of a task whose facts depend on its arguments, and `title` is
    what tables call a task whose arguments tell more than its name. `files` names the arguments that are paths of
    files: a run is known by their content, not by where they are. `remarks` are what a report should say of the rows.
    """

    source: Source
    kind: Kind
    instruction: str
    metrics: tuple[str, ...]
    max_new_tokens: int
    labels: tuple[str, ...] = ()
    positive: str | None = None
    scale: tuple[float, float] | None = None
    version: int | str = 1
    paper: str = ""
    licence: str = ""
    suites: tuple[str, ...] = ()
    merge_references: bool = False
    whole: bool = False
    title: str = ""
    files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    specialise: "Callable[..., TaskFacts] | None" = None


TASKS: Registry[TaskFacts] = Registry("task", "peftbench.tasks")
Task = Unit[TaskFacts]
Make = Callable[..., Example]


def task(**facts: Any) -> Callable[[Make], Make]:
    """Register a task; the keywords are those of `TaskFacts`."""

    def register(function: Make) -> Make:
        TASKS.add(function, TaskFacts(**facts))
        return function

    return register


def resolve(name: str, arguments: Mapping[str, Any]) -> Task:
    """The task of a name with the facts that it has under these arguments.

    The version of a published task has that of the way in which rows are held out, the version of one with files has
    their content. Raises `UnknownNameError`, and `UserError` for arguments or files that are wrong.
    """
    unit = TASKS[name]
    facts = unit.facts if unit.facts.specialise is None else unit.facts.specialise(**arguments)
    more = [f"splits{SPLITS}"] if facts.source.published else []
    more += [content_digest(Path(arguments[key])) for key in facts.files if arguments.get(key)]
    version = "-".join([str(facts.version), *more]) if more else facts.version
    return replace(unit, facts=replace(facts, version=version))


def label(labels: Sequence[str], index: int | str, first: int = 0) -> str:
    """The name of a class label held as a number, or a number in digits, that is counted from `first`.

    Raises `IndexError` for one without a name, as -1 and the empty text, which stand for a hidden label.
    """
    place = int(index) - first if str(index).isascii() and str(index).isdecimal() else -1
    if not 0 <= place < len(labels):
        raise IndexError(f"label {index!r} has no name (is it hidden?)")
    return labels[place]


def members(name: str) -> list[str]:
    """The names of the tasks that the name of a task or a suite stands for. Raises `UnknownNameError`."""
    found = [name] if name in TASKS else suite(name)
    if not found:
        raise did_you_mean("task", name, [one for unit in TASKS for one in (unit.name, *unit.facts.suites)])
    return found


def suite(name: str) -> list[str]:
    """The names of the tasks of a suite; empty if there is none of that name."""
    return [unit.name for unit in TASKS if name in unit.facts.suites]
