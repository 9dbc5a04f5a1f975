"""QNLI: whether a sentence contains the answer to a question."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("entailment", "not_entailment")


@task(
    source=Source(
        "nyu-mll/glue",
        "qnli",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(104743, 5463),
    ),
    kind="classification",
    instruction="Does the sentence contain the answer to the question? If it does, that is entailment.",
    labels=LABELS,
    positive="entailment",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1804.07461",
    licence="CC BY-SA 4.0",
    suites=("paper", "glue"),
)
def qnli(row: Row) -> Example:
    """Match a SQuAD question with a sentence of its paragraph; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("question", "sentence")}
    return Example(fields, label(LABELS, row["label"]), group=fields["sentence"])
