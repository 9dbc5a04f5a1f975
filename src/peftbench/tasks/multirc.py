"""MultiRC: whether an answer to a question about a paragraph is correct; several answers may be correct."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("false", "true")


@task(
    source=Source(
        "aps/super_glue",
        "multirc",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(27243, 4848),
    ),
    kind="classification",
    instruction="Judging by the paragraph, is the answer to the question right (true) or wrong (false)?",
    labels=LABELS,
    positive="true",
    metrics=("multirc_f1a", "multirc_em"),
    max_new_tokens=8,
    paper="Khashabi et al. (2018), https://aclanthology.org/N18-1023",
    licence="not stated (research use)",
    suites=("paper", "superglue"),
)
def multirc(row: Row) -> Example:
    """Judge one candidate answer; `details["group"]` is its question. Questions on a paragraph stay together.

    The public validation split is the test.
    """
    fields = {name: row[name].strip() for name in ("paragraph", "question", "answer")}
    group = (fields["paragraph"], fields["question"])
    return Example(fields, label(LABELS, row["label"]), details={"group": group}, group=fields["paragraph"])
