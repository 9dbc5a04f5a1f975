"""What a file of the user's own is as a task: its facts under the arguments of a grid entry, its rows as examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftbench.registry import UserError
from peftbench.tasks import Example, Row, Source, TaskFacts
from peftbench.tasks.files import DataError, digest, need, table, text

FORMAT = 1
"""Raised when a change here makes other examples of the same file, so that old results do not pass for new ones."""
ALONE, BESIDE_A_TEST = 12, 10
"""The fewest rows of a file: a tenth validates, after a fifth is held out for the test if there is no file for it."""
TOKENS = {True: 32, False: 128}
"""The longest answer with labels and without, unless it is given."""


def example(row: Row, fields: Sequence[str], target: str, labels: Sequence[str]) -> Example:
    """The columns `fields` as they are, and the target. Raises `ValueError` for a row without one or the other."""
    made = {name: text(row, name) for name in fields}
    if not any(made.values()):
        raise ValueError(f"nothing in {', '.join(fields)}")
    return Example(made, answer(row, target, labels))


def answer(row: Row, target: str, labels: Sequence[str]) -> str:
    """The target of a row; a number that is no label's name is a label's place, from 0. Raises `ValueError`."""
    found = text(row, target)
    if not found:
        raise ValueError(f"nothing in {target}")
    if not labels or found in labels:
        return found
    place = found.removesuffix(".0")
    if place.isdecimal() and int(place) < len(labels):
        return labels[int(place)]
    raise ValueError(f"'{found}' in {target} is none of the labels {', '.join(labels)}")


def facts(
    *,
    data: str | Path,
    fields: Sequence[str],
    target: str,
    labels: Sequence[str] = (),
    test: str | Path | None = None,
    **asked: Any,
) -> TaskFacts:
    """The facts of a file; every row is looked at first. `asked`: the other arguments of the task `file`.

    Raises `UserError` for whatever would stop a run: a file, a column, a row or an argument.
    """
    paths = [Path(data), *([Path(test)] if test else [])]
    metrics = tuple(asked.get("metrics") or (("accuracy", "macro_f1") if labels else ("rouge_l", "exact_match")))
    positive = asked.get("positive")
    _check_arguments(paths, fields, target, labels)
    if ("f1" in metrics or positive is not None) and positive not in labels:
        raise UserError(f"positive must be the label that f1 looks for: {', '.join(labels) or 'there are no labels'}")
    for path, fewest in zip(paths, (BESIDE_A_TEST, 1) if test else (ALONE,), strict=True):
        need(path, [*fields, target], fewest)
        _check_rows(path, fields, target, labels)
    return TaskFacts(
        source=Source(paths[0].name, train=str(data), test=str(test) if test else None, files=True),
        kind="classification" if labels else "qa",
        instruction=asked.get("instruction") or f"Read this and give the {target}.",
        metrics=metrics,
        max_new_tokens=asked.get("max_new_tokens") or TOKENS[bool(labels)],
        labels=tuple(labels),
        positive=positive,
        version="-".join([str(FORMAT), *map(digest, paths)]),
        title=asked.get("name") or paths[0].stem,
    )


def _check_arguments(paths: Sequence[Path], fields: Sequence[str], target: str, labels: Sequence[str]) -> None:
    if not fields:
        raise UserError("fields: name at least one column to read")
    if target in fields:
        raise UserError(f"the target '{target}' is among the fields: it would be read off")
    if labels and len({label.casefold() for label in labels}) < max(2, len(labels)):
        raise UserError("labels: at least two are needed, and no two may differ in case alone")
    if len(set(paths)) < len(paths):
        raise UserError(f"test is the same file as data: {paths[0]}")


def _check_rows(path: Path, fields: Sequence[str], target: str, labels: Sequence[str]) -> None:
    for number, row in enumerate(table(path), 1):
        try:
            example(row, fields, target, labels)
        except ValueError as error:
            raise DataError(f"data file {path}, row {number}: {error}") from None
