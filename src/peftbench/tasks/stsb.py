"""STS-B: semantic similarity of two sentences."""

from peftbench.tasks import Example, Row, Source, task


@task(
    source=Source(
        "nyu-mll/glue",
        "stsb",
        test="validation",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        sizes=(5749, 1500),
    ),
    kind="regression",
    instruction="How alike are the two sentences in meaning? Answer with a number from 0.0 (nothing in common) to 5.0 "
    "(the same), with one decimal.",
    metrics=("pearson", "spearman"),
    max_new_tokens=8,
    scale=(0.0, 5.0),
    paper="arXiv:1708.00055",
    licence="CC BY-SA 4.0 (parts have their own terms)",
    suites=("paper", "glue"),
)
def stsb(row: Row) -> Example:
    """Rate similarity from 0 to 5: the target has one decimal, the reference is the unrounded mean of the annotators.

    The public validation split is the test. Raises `ValueError` for a hidden score (-1).
    """
    score = row["label"]
    if not 0 <= score <= 5:
        raise ValueError(f"score {score} is not between 0 and 5")
    fields = {name: row[name].strip() for name in ("sentence1", "sentence2")}
    # The source has 32-bit floats, whose further digits are noise.
    return Example(fields, f"{score:.1f}", references=(f"{score:.3f}",))
