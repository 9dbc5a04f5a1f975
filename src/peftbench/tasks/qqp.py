"""QQP: whether two forum questions have the same meaning."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("not_duplicate", "duplicate")


@task(
    source=Source(
        "nyu-mll/glue",
        "qqp",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(363846, 40430),
    ),
    kind="classification",
    instruction="Do the two questions ask the same thing, so that an answer to one answers the other?",
    labels=LABELS,
    positive="duplicate",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1804.07461",
    licence="not stated (Quora terms)",
    suites=("paper", "glue"),
)
def qqp(row: Row) -> Example:
    """Detect duplicate questions; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("question1", "question2")}
    return Example(fields, label(LABELS, row["label"]))
