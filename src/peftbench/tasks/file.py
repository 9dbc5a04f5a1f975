"""A file of the user's own as a task. An entry of a grid with `data` and no name is one."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from peftbench.tasks import Example, Row, Source, own, task


@task(
    source=Source("a file of your own", files=True, test=None),
    kind="qa",
    instruction="Read this and answer.",
    metrics=("rouge_l", "exact_match"),
    max_new_tokens=128,
    specialise=own.facts,
)
def file(
    row: Row,
    *,
    data: Path,
    fields: Sequence[str],
    target: str,
    labels: Sequence[str] = (),
    test: Path | None = None,
    instruction: str = "",
    metrics: Sequence[str] = (),
    positive: str | None = None,
    max_new_tokens: PositiveInt | None = None,
    name: str = "",
) -> Example:
    """A file of your own: CSV, TSV, JSON, JSON lines or parquet.

    `data` is its path, `fields` are the columns that are read, `target` is the column that is learned. With `labels` it
    is a classification; numbers in the target are then places in `labels`. `test` is the path of the test rows; without
    it a fifth of the rows is held out, the same for all methods and seeds. `instruction` stands before the fields.
    `metrics` has the main one first (default: accuracy and macro_f1 with labels, rouge_l and exact_match without);
    `positive` is the label that f1 looks for. `max_new_tokens` is the longest answer (default: 32 with labels, 128
    without). `name` is what tables call it (default: the file's, without its ending).
    """
    return own.example(row, fields, target, labels)
