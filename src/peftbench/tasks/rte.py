"""RTE: whether a sentence follows from a text."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("entailment", "not_entailment")


@task(
    source=Source(
        "nyu-mll/glue",
        "rte",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(2_490, 277),
    ),
    kind="classification",
    instruction="Is sentence2 true if sentence1 is? If it is, that is entailment.",
    labels=LABELS,
    positive="entailment",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1804.07461",
    licence="not stated",
    suites=("paper", "glue", "superglue"),
)
def rte(row: Row) -> Example:
    """Classify textual entailment; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("sentence1", "sentence2")}
    return Example(fields, label(LABELS, row["label"]), group=fields["sentence1"])
