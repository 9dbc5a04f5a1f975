"""E2E NLG: restaurant descriptions from structured facts."""

from peftbench.tasks import Example, Row, Source, task


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
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
    """Describe a meaning representation; the target is one human description, test references are all of them."""
    return Example({"facts": row["meaning_representation"].strip()}, row["human_reference"].strip())
