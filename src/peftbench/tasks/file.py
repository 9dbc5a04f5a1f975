"""A file of the user's own as a task. An entry of a grid with `data` and no name is one."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, Source, _user_file, task
from peftbench.tasks._file_formats import Format


@task(
    source=Source("a file of your own", files=Format(), test=None),
    kind="qa",
    instruction="Read this and answer.",
    metrics=("rouge_l", "exact_match"),
    max_new_tokens=128,
    specialise=_user_file.user_file_facts,
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
    """A file of your own: CSV, TSV, JSON, JSON lines or parquet.

    `data` is its path, `fields` are the columns that are read, `target` is the column that is learned. With `labels` it
    is a classification. A number in the target is then the label of that value, 1 and 1.0 alike; where no label is a
    number, it is a place in `labels`, from 0. `test` is the path of the test rows; without it a fifth of the rows is
    held out, by labels in proportion, the same for all methods and seeds. Rows of one text, and those with the same
    value in the column `group`, stay on one side. `encoding` is that of files that are not UTF-8, `quotes` says whether
    quotes enclose cells where a CSV or TSV leaves that open. `instruction` stands before the fields.
    `metrics` has the main one first (default: accuracy and macro_f1 with labels, rouge_l and exact_match without);
    `positive` is the label that f1 looks for. `max_new_tokens` is the longest answer (default: 32 with labels, 128
    without). `name` is what tables call it (default: the file's, without its ending).
    """
    return _user_file.user_example(row, (tuple(fields), target, tuple(labels), group), encoding)
