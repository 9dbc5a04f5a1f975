"""MMLU: examination questions from 57 subjects."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("A", "B", "C", "D")


@task(
    source=Source(
        "cais/mmlu",
        "all",
        train="auxiliary_train",
        revision="c30699e8356da336a370243923dbaf21066bb9fe",
        sizes=(99842, 14042),
    ),
    kind="multiple-choice",
    instruction="Which answer to the question is right?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1", "subject_accuracy"),
    max_new_tokens=8,
    paper="arXiv:2009.03300",
    licence="MIT",
    suites=("paper", "reasoning"),
)
def mmlu(row: Row) -> Example:
    """Choose one of four answers; training rows come from other examinations and have no subject."""
    choices = dict(zip(LABELS, map(str.strip, row["choices"]), strict=True))
    return Example(
        {"question": row["question"].strip()} | choices,
        label(LABELS, row["answer"]),
        details={"subject": row["subject"]},
    )
