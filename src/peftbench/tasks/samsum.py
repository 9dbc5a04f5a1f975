"""SAMSum: chats of two or more people put into a summary."""

from peftbench.tasks import Example, Row, Source, task


@task(
    # `main` is a loading script, which `datasets` no longer runs; this branch is the Hub's own conversion of it.
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
    """A line of dialogue a line of text, whatever the line ends of the source."""
    dialogue = "\n".join(row["dialogue"].strip().splitlines())
    return Example({"dialogue": dialogue}, row["summary"].strip())
