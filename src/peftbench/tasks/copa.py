"""COPA: which of two sentences is the more likely cause or effect of a third."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("choice1", "choice2")


@task(
    source=Source(
        "aps/super_glue",
        "copa",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(400, 100),
    ),
    kind="multiple-choice",
    instruction="Which choice is the likelier cause or effect of the premise? The question says which.",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="Roemmele, Bejan and Gordon (2011), Choice of Plausible Alternatives, AAAI Spring Symposium",
    licence="BSD 2-Clause",
    suites=("paper", "superglue"),
)
def copa(row: Row) -> Example:
    """Choose an everyday cause or effect; the public validation split is the test."""
    fields = {name: row[name].strip() for name in ("premise", "question", "choice1", "choice2")}
    return Example(fields, label(LABELS, row["label"]))
