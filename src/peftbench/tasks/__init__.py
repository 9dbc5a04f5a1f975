"""Task registry: data sources, conversion of rows to examples, and task metadata.

A task is one decorated function in its own file. It takes a raw row of its source and returns an `Example`. The
arguments of the decorator are the metadata (`TaskFacts`). All tasks share one prompt format (`_prompt.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from peftbench.core.registry import Registry, Unit, did_you_mean
from peftbench.tasks._file_formats import Format, content_digest

Kind = Literal["classification", "multiple-choice", "regression", "qa", "math", "code", "summarization", "data-to-text"]
SPLITS = 2
"""Increased when the splits of published datasets change, so that old results are not reused."""
Row = Mapping[str, Any]
Generator = Callable[[str, int], Iterable[Row]]
"""Generates rows from a split name and a number of rows, without network access or files."""


@dataclass(frozen=True)
class Example:
    """One row as question and answer.

    `fields` are the named parts of the input, in order. `target` is the training target; `references` are all correct
    answers (default: the target). `details` is additional input for metrics: the question the row belongs to, its
    subject, the tests of a program. Rows with the same `group`, such as the passage they ask about, are never split
    between training and held-out rows. By default, rows with the same text form a group.
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
    """Data source: a dataset on the Hugging Face Hub, a generator, or files.

    `name` is the Hub id; for a generator or files, a display name. `revision` is the pinned commit on the Hub. With
    `files`, the splits are file paths and `files` is their format. Without a `validation` split, validation rows are
    held out of the training rows; without a `test` split, so are test rows. `sizes` has the published row counts of
    `train` and `test`; for a generator, the numbers of rows to generate.
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
        """True for a dataset on the Hub, which a mirror can contain."""
        return self.generator is None and self.files is None


@dataclass(frozen=True)
class TaskFacts:
    """Metadata of a task.

    The first of `metrics` is the main metric. `positive` is the positive class of binary F1. `scale` is the minimum and
    maximum of a numeric answer. `merge_references`: test rows with the same fields become one example with the
    references of all. `max_new_tokens` is the maximum answer length. `whole`: inputs that do not fit are rejected, not
    truncated. `specialise` returns the metadata for given arguments; `title` is then the name in tables. `files` names
    the arguments that are file paths: a run is identified by their content, not their path. `remarks` are notes on the
    rows for the report.
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
    """Register a task; the keywords are the fields of `TaskFacts`."""

    def register(function: Make) -> Make:
        TASKS.add(function, TaskFacts(**facts))
        return function

    return register


def resolve(name: str, arguments: Mapping[str, Any]) -> Task:
    """Return a task with its metadata for these arguments.

    The version of a Hub task includes `SPLITS`; the version of a file task includes digests of the files. Raises
    `UnknownNameError` for an unknown task and `UserError` for invalid arguments or files.
    """
    unit = TASKS[name]
    facts = unit.facts if unit.facts.specialise is None else unit.facts.specialise(**arguments)
    more = [f"splits{SPLITS}"] if facts.source.published else []
    more += [content_digest(Path(arguments[key])) for key in facts.files if arguments.get(key)]
    version = "-".join([str(facts.version), *more]) if more else facts.version
    return replace(unit, facts=replace(facts, version=version))


def label(labels: Sequence[str], index: int | str, first: int = 0) -> str:
    """Return the label of a class index, an integer or decimal digits, counted from `first`.

    Raises `IndexError` for an index without a label, such as -1 or the empty string, which mark hidden labels.
    """
    place = int(index) - first if str(index).isascii() and str(index).isdecimal() else -1
    if not 0 <= place < len(labels):
        raise IndexError(f"label {index!r} has no name (is it hidden?)")
    return labels[place]


def members(name: str) -> list[str]:
    """Return the task names of a task or suite. Raises `UnknownNameError`."""
    found = [name] if name in TASKS else suite(name)
    if not found:
        raise did_you_mean("task", name, [one for unit in TASKS for one in (unit.name, *unit.facts.suites)])
    return found


def suite(name: str) -> list[str]:
    """Return the task names of a suite; empty for an unknown suite."""
    return [unit.name for unit in TASKS if name in unit.facts.suites]
