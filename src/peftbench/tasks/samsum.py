"""SAMSum: summaries of chats between two or more people."""

from peftbench.tasks import Example, Row, Source, task


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
    source=Source("Samsung/samsum", revision="refs/convert/parquet", sizes=(14732, 819)),
    kind="summarization",
    instruction="Write a short summary of the dialogue, in the third person.",
    metrics=("rouge_l", "rouge_1", "rouge_2"),
    max_new_tokens=128,
    paper="arXiv:1911.12237",
    licence="CC BY-NC-ND 4.0",
    suites=("pu2023", "generation"),
)
def samsum(row: Row) -> Example:
    """Summarise a dialogue; all line endings become line feeds."""
    dialogue = "\n".join(row["dialogue"].strip().splitlines())
    return Example({"dialogue": dialogue}, row["summary"].strip())
