"""HellaSwag: the most plausible continuation of an everyday scene."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("ending1", "ending2", "ending3", "ending4")


@task(
    source=Source(
        "Rowan/hellaswag", test="validation", revision="218ec52e09a7e7462a5400043bb9a69a41d06b76", sizes=(39905, 10042)
    ),
    kind="multiple-choice",
    instruction="Which ending goes on from the context?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1905.07830",
    licence="MIT",
    suites=("paper", "reasoning"),
)
def hellaswag(row: Row) -> Example:
    """Choose one of four endings for a context; the public validation split is the test."""
    endings = dict(zip(LABELS, map(str.strip, row["endings"]), strict=True))
    return Example({"context": row["ctx"].strip()} | endings, label(LABELS, row["label"]))
