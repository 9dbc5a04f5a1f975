"""MNLI: whether a sentence follows from another, contradicts it, or does neither."""

from dataclasses import replace

from peftbench.tasks import TASKS, Example, Row, Source, TaskFacts, label, task

LABELS = ("entailment", "neutral", "contradiction")


def _facts(matched: bool = True) -> TaskFacts:
    facts = TASKS["mnli"].facts
    return (
        facts
        if matched
        else replace(facts, source=replace(facts.source, test="validation_mismatched", sizes=(392702, 9832)))
    )


@task(
    source=Source(
        "nyu-mll/glue",
        "mnli",
        test="validation_matched",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(392702, 9815),
    ),
    kind="classification",
    instruction="If the premise is true, is the hypothesis true (entailment), false (contradiction) or open (neutral)?",
    labels=LABELS,
    metrics=("macro_f1", "accuracy"),
    max_new_tokens=8,
    paper="arXiv:1704.05426",
    licence="not stated (OANC and others)",
    suites=("paper", "glue"),
    specialise=_facts,
)
def mnli(row: Row, *, matched: bool = True) -> Example:  # noqa: ARG001 - selects the test split
    """Classify entailment; the test is the validation split of the training genres, or of others if not `matched`."""
    fields = {name: row[name].strip() for name in ("premise", "hypothesis")}
    return Example(fields, label(LABELS, row["label"]), group=fields["premise"])
