"""XSum: one-sentence summaries of BBC articles."""

from peftbench.tasks import Example, Row, Source, task


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
    source=Source("EdinburghNLP/xsum", revision="refs/convert/parquet", sizes=(204045, 11334)),
    kind="summarization",
    instruction="Say in one sentence what the article is about.",
    metrics=("rouge_l", "rouge_1", "rouge_2"),
    max_new_tokens=64,
    paper="arXiv:1808.08745",
    licence="not stated (BBC texts: research use)",
    suites=("generation",),
)
def xsum(row: Row) -> Example:
    """Summarise an article without its first sentence, which is the summary."""
    return Example({"document": row["document"].strip()}, row["summary"].strip())
