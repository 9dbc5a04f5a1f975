"""Social IQa: questions about what people feel, want and do next."""

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("A", "B", "C")


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
    source=Source("allenai/social_i_qa", test="validation", revision="refs/convert/parquet", sizes=(33410, 1954)),
    kind="multiple-choice",
    instruction="Which answer to the question about the context is the likeliest?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1904.09728",
    licence="not stated (CC BY 4.0 by its authors)",
    suites=("paper", "reasoning"),
)
def siqa(row: Row) -> Example:
    """Choose by social common sense; labels count from 1 in the source. The public validation split is the test."""
    fields = {name: row[name].strip() for name in ("context", "question")}
    answers = {name: row[f"answer{name}"].strip() for name in LABELS}
    return Example(fields | answers, label(LABELS, row["label"], first=1), group=fields["context"])
