"""CommitmentBank: whether a writer is committed to an embedded clause."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("entailment", "contradiction", "neutral")


@task(
    source=Source(
        "aps/super_glue", "cb", test="validation", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", sizes=(250, 56)
    ),
    kind="classification",
    instruction="Judging by the premise, is the hypothesis true (entailment), false (contradiction) or open (neutral)?",
    labels=LABELS,
    metrics=("macro_f1", "accuracy"),
    max_new_tokens=8,
    paper="de Marneffe et al. (2019), doi:10.18148/sub/2019.v23i2.601",
    licence="not stated",
    suites=("paper", "superglue"),
)
def cb(row: Row) -> Example:
    """Classify textual entailment in three classes; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("premise", "hypothesis")}
    return Example(fields, label(LABELS, row["label"]))
