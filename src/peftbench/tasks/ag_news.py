"""AG News: topic classification of news items."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("World", "Sports", "Business", "Sci/Tech")


@task(
    source=Source("fancyzhx/ag_news", revision="eb185aade064a813bc0b7f42de02595523103ca4", sizes=(120_000, 7_600)),
    kind="classification",
    instruction="In which section of a newspaper does the text belong?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1509.01626",
    licence="not stated (AG corpus: non-commercial research use)",
    suites=("pu2023",),
)
def ag_news(row: Row) -> Example:
    """Classify a title and its first sentences by topic."""
    return Example({"text": row["text"].strip()}, label(LABELS, row["label"]))
