"""SST-2: sentiment of sentences from film reviews."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("negative", "positive")


@task(
    source=Source(
        "nyu-mll/glue",
        "sst2",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(67_349, 872),
    ),
    kind="classification",
    instruction="Does the sentence from a film review speak well or badly of the film?",
    labels=LABELS,
    positive="positive",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="Socher et al. (2013), https://aclanthology.org/D13-1170",
    licence="not stated",
    suites=("paper", "glue"),
)
def sst2(row: Row) -> Example:
    """Classify binary sentiment; the public validation split is the test."""
    return Example({"sentence": row["sentence"].strip()}, label(LABELS, row["label"]))
