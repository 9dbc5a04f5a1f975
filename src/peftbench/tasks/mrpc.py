"""MRPC: whether two news sentences have the same meaning."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("not_equivalent", "equivalent")


@task(
    source=Source(
        "nyu-mll/glue",
        "mrpc",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(3668, 408),
    ),
    kind="classification",
    instruction="Do the two sentences mean the same?",
    labels=LABELS,
    positive="equivalent",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="Dolan and Brockett (2005), https://aclanthology.org/I05-5002",
    licence="not stated (Microsoft Research terms)",
    suites=("paper", "glue"),
)
def mrpc(row: Row) -> Example:
    """Detect paraphrases; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("sentence1", "sentence2")}
    return Example(fields, label(LABELS, row["label"]))
