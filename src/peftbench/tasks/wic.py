"""WiC: whether a word has the same meaning in two sentences."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("false", "true")


@task(
    source=Source(
        "aps/super_glue",
        "wic",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(5428, 638),
    ),
    kind="classification",
    instruction="Does the word have the same meaning in both sentences?",
    labels=LABELS,
    positive="true",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1808.09121",
    licence="CC BY-NC 4.0",
    suites=("paper", "superglue"),
)
def wic(row: Row) -> Example:
    """Compare the meanings of a word; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("sentence1", "sentence2", "word")}
    # Sentences repeat only in rows about the same word.
    return Example(fields, label(LABELS, row["label"]), group=fields["word"])
