"""PIQA: which of two ways to reach an everyday goal works."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("solution1", "solution2")


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
    source=Source("ybisk/piqa", test="validation", revision="refs/convert/parquet", sizes=(16113, 1838)),
    kind="multiple-choice",
    instruction="Which solution reaches the goal?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1911.11641",
    licence="AFL-3.0",
    suites=("paper", "reasoning"),
)
def piqa(row: Row) -> Example:
    """Choose by physical common sense; the public validation split is the test."""
    fields = {"goal": row["goal"].strip(), "solution1": row["sol1"].strip(), "solution2": row["sol2"].strip()}
    return Example(fields, label(LABELS, row["label"]), group=fields["goal"])
