"""E2E NLG: facts about a restaurant put into a sentence."""

from peftbench.tasks import Example, Row, Source, task


@task(
    # `main` is a loading script, which `datasets` no longer runs; this branch is the Hub's own conversion of it.
    source=Source("tuetschek/e2e_nlg", revision="refs/convert/parquet", sizes=(42_061, 4_693)),
    kind="data-to-text",
    instruction="Write a short description of the restaurant that says all of these facts and no others.",
    metrics=("rouge_l", "bleu"),
    max_new_tokens=128,
    merge_references=True,
    paper="arXiv:1706.09254",
    licence="CC BY-SA 4.0",
    suites=("pu2023", "generation"),
)
def e2e_nlg(row: Row) -> Example:
    """One human description of each meaning representation is learned; in the test all of them are references."""
    return Example({"facts": row["meaning_representation"].strip()}, row["human_reference"].strip())
