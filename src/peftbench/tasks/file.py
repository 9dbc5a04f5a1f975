"""User file as a task. A grid entry with `data` and no name uses this task."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, Source, _user_file_metadata, task
from peftbench.tasks._file_formats import Format


@task(
    source=Source("a file of your own", files=Format(), test=None),
    kind="qa",
    instruction="Read this and answer.",
    metrics=("rouge_l", "exact_match"),
    max_new_tokens=128,
    specialise=_user_file_metadata.user_file_facts,
    files=("data", "test"),
)
def file(
    row: Row,
    *,
    data: Path,
    fields: Sequence[str],
    target: str,
    labels: Sequence[str] = (),
    test: Path | None = None,
    group: str = "",
    encoding: str = "",
    quotes: bool | None = None,
    instruction: str = "",
    metrics: Sequence[str] = (),
    positive: str | None = None,
    max_new_tokens: PositiveInt | None = None,
    name: str = "",
) -> Example:
    """Use your own file as a task: CSV, TSV, JSON, JSON Lines or Parquet.

    `data` is its path, `fields` are the input columns, `target` is the target column. With `labels` the task is a
    classification. A number in the target then means the label with that value (1 and 1.0 are equal); if no label is a
    number, it is an index into `labels`, from 0. `test` is the path of the test rows; by default, a fifth of the rows
    is held out, stratified by label, the same for all methods and seeds. Rows with the same text, or the same value in
    the column `group`, stay in one part. `encoding` applies to files that are not UTF-8.
    `quotes` says whether quotes enclose cells if a CSV or TSV file is ambiguous. `instruction` precedes the fields.
    The first of `metrics` is the main one (default: accuracy and macro_f1 with labels, rouge_l and exact_match
    without); `positive` is the positive class of f1. `max_new_tokens` is the maximum answer length (default: 32 with
    labels, 128 without). `name` is the name in tables (default: the file name without its extension).
    """
    return _user_file_metadata.user_example(row, (tuple(fields), target, tuple(labels), group), encoding)
