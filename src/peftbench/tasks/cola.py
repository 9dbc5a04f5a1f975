"""CoLA: whether a sentence is grammatical English."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("unacceptable", "acceptable")


@task(
    source=Source(
        "nyu-mll/glue",
        "cola",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(8_551, 1_043),
    ),
    kind="classification",
    instruction="Would a native speaker of English accept the sentence as grammatical?",
    labels=LABELS,
    positive="acceptable",
    metrics=("matthews", "f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1805.12471",
    licence="not stated",
    suites=("paper", "glue", "pu2023"),
)
def cola(row: Row) -> Example:
    """Judge linguistic acceptability; the public validation split is the test."""
    return Example({"sentence": row["sentence"].strip()}, label(LABELS, row["label"]))
