"""User file as a task: metadata from the arguments of a grid entry, rows as examples."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.tasks import Example, Row, Source, TaskFacts
from peftbench.tasks._file_formats import DataError, Format, need, read_table, stamp
from peftbench.tasks._table_cell_parsing import exact_number as numeric
from peftbench.tasks._table_cell_parsing import label_of, same_numbers, text

FORMAT = 2
"""Increased when the same file yields different examples, so that old results are not reused."""
ALONE, BESIDE_A_TEST = 12, 10
"""Minimum rows without and with a test file. A fifth is held out for the test, then a tenth for validation."""
TOKENS = {True: 32, False: 128}
"""Default maximum answer length in tokens, with and without labels."""
NOTHINGS = ("nan", "none", "null", "<na>", "nat", "n/a", "undefined")
"""Texts that programs write for missing values; reported if they are targets."""
Columns = tuple[tuple[str, ...], str, tuple[str, ...], str]
"""Field columns, target column, labels, group column."""


def user_example(row: Row, columns: Columns, encoding: str = "") -> Example:
    """Convert a row to an example. Raises `ValueError` if all fields or the target are empty."""
    fields, target, labels, group = columns
    made = {name: text(row, name, encoding) for name in fields}
    if not any(made.values()):
        raise ValueError(f"nothing in {', '.join(fields)}")
    found = _target(row, target, encoding)
    return Example(made, target_of(found, target, labels), group=text(row, group, encoding) if group else "")


def target_of(found: str, target: str, labels: Sequence[str]) -> str:
    """Return the target text of a cell: its label, or itself without labels. Raises `ValueError`."""
    return label_of(found, labels, target) if labels else found


def _target(row: Row, target: str, encoding: str) -> str:
    if found := text(row, target, encoding):
        return found
    raise ValueError(f"nothing in {target}")


def user_file_facts(
    *,
    data: str | Path,
    fields: Sequence[str],
    target: str,
    labels: Sequence[str] = (),
    test: str | Path | None = None,
    **asked: Any,
) -> TaskFacts:
    """Return the metadata of a file task after checking all rows. `asked` has the other arguments of the task `file`.

    Raises `UserError` for an invalid file, column, row or argument.
    """
    paths = [Path(data), *([Path(test)] if test else [])]
    form = Format(asked.get("encoding") or "", asked.get("quotes"))
    columns = (tuple(fields), target, tuple(labels), asked.get("group") or "")
    metrics = tuple(asked.get("metrics") or (("accuracy", "macro_f1") if labels else ("rouge_l", "exact_match")))
    positive = asked.get("positive")
    _check_arguments(paths, columns, form)
    if ("f1" in metrics or positive is not None) and positive not in labels:
        raise UserError(f"positive must be the label that f1 looks for: {', '.join(labels) or 'there are no labels'}")
    remarks: list[str] = []
    for path, fewest in zip(paths, (BESIDE_A_TEST, 1) if test else (ALONE,), strict=True):
        remarks += _look(path, stamp(path), form, columns, fewest)
    return TaskFacts(
        source=Source(paths[0].name, train=str(data), test=str(test) if test else None, files=form),
        kind="classification" if labels else "qa",
        instruction=asked.get("instruction") or f"Read this and give the {target}.",
        metrics=metrics,
        max_new_tokens=asked.get("max_new_tokens") or TOKENS[bool(labels)],
        labels=tuple(labels),
        positive=positive,
        version=FORMAT,
        title=asked.get("name") or paths[0].stem,
        files=("data", "test"),
        remarks=tuple(remarks),
    )


def _check_arguments(paths: Sequence[Path], columns: Columns, form: Format) -> None:
    fields, target, labels, group = columns
    if not fields:
        raise UserError("fields: name at least one column to read")
    if target in fields:
        raise UserError(f"the target '{target}' is among the fields: it would be read off")
    if group == target:
        raise UserError(f"group: it is the target '{target}'; name a column that says which rows belong together")
    _check_labels(labels)
    if any(path.absolute() == paths[0].absolute() for path in paths[1:]):
        raise UserError(f"test is the same file as data: {paths[0]}")
    try:
        "".encode(form.encoding or "utf-8")
    except (LookupError, UnicodeError):
        raise UserError(f"encoding '{form.encoding}' is not known: use a name of Python's, as cp1252") from None
    if form.quotes is not None and not any(path.suffix.lower() in (".csv", ".tsv") for path in paths):
        raise UserError(f"quotes is about CSV and TSV: leave it out for {paths[0].name}")


def _check_labels(labels: Sequence[str]) -> None:
    if not labels:
        return
    if len({label.casefold() for label in labels}) < max(2, len(labels)):
        raise UserError("labels: at least two are needed, and no two may differ in case alone")
    for label in labels:
        if not label.strip() or label != label.strip():
            raise UserError(f"labels: '{label}' begins or ends with a blank, or is one; cells are read without")
    if twice := same_numbers(labels):
        raise UserError(f"labels: {twice[0]} and {twice[1]} are the same number")


@lru_cache(maxsize=64)
def _look(path: Path, _stamp: tuple[int, int], form: Format, columns: Columns, fewest: int) -> tuple[str, ...]:
    """Check that every row can be converted; return remarks. Raises `DataError` with the first invalid row."""
    fields, target, labels, group = columns
    need(path, form, [name for name in (*fields, target, group) if name], fewest)
    cased: Counter[tuple[str, str]] = Counter()
    nothings: Counter[str] = Counter()
    by_place = by_name = 0
    names_only = bool(labels) and all(numeric(label) is None for label in labels)
    for number, row in enumerate(read_table(path, form), 1):
        try:
            learned = user_example(row, columns, form.encoding).target
        except ValueError as error:
            raise DataError(f"data file {path}, row {number}: {error}") from None
        found = text(row, target, form.encoding)
        if names_only and found not in labels:
            if numeric(found) is not None:
                by_place = by_place or number
            else:
                by_name = by_name or number
        elif names_only:
            by_name = by_name or number
        if labels and found != learned and found.casefold() == learned.casefold():
            cased[found, learned] += 1
        elif not labels and found.casefold() in NOTHINGS:
            nothings[found] += 1
    if by_place and by_name:
        raise DataError(
            f"data file {path}, row {by_place}: '{target}' is a number, and in row {by_name} a name: write all alike"
        )
    return (
        *(f"{path.name}: {target} is '{one}' in {n} of the rows, read as '{it}'" for (one, it), n in cased.items()),
        *(f"{path.name}: {target} is '{one}' in {n} of the rows: is a value missing?" for one, n in nothings.items()),
    )
