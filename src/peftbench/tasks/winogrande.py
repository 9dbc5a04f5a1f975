"""WinoGrande: which of two nouns fills a gap."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("option1", "option2")


@task(
    source=Source(
        "allenai/winogrande",
        "winogrande_xl",
        test="validation",
        revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        sizes=(40398, 1267),
    ),
    kind="multiple-choice",
    instruction="Which option belongs in the place of _ in the sentence?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1907.10641",
    licence="not stated (CC BY 4.0 by its authors)",
    suites=("paper", "reasoning"),
)
def winogrande(row: Row) -> Example:
    """Choose the noun for a gap; labels count from 1 in the source. The public validation split is the test."""
    fields = {name: row[name].strip() for name in ("sentence", *LABELS)}
    # The two rows of a pair have the same options and first words, and differ in one word.
    pair = (*sorted(fields[name].casefold() for name in LABELS), *fields["sentence"].split()[:2])
    return Example(fields, label(LABELS, row["answer"], first=1), group=" ".join(pair))
