"""BoolQ: yes-no questions about a Wikipedia passage."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("false", "true")


@task(
    source=Source(
        "aps/super_glue",
        "boolq",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(9_427, 3_270),
    ),
    kind="classification",
    instruction="Judging by the passage, is the answer to the question yes (true) or no (false)?",
    labels=LABELS,
    positive="true",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1905.10044",
    licence="CC BY-SA 3.0",
    suites=("paper", "superglue"),
)
def boolq(row: Row) -> Example:
    """Answer a yes-no question about a passage; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("passage", "question")}
    return Example(fields, label(LABELS, row["label"]), group=fields["passage"])
