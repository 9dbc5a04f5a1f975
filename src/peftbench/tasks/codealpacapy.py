"""CodeAlpacaPython: instructions for small Python programs, and answers written by a model."""

from peftbench.tasks import Example, Row, Source, task


@task(
    source=Source("Abzu/CodeAlpacaPython"),
    kind="code",
    instruction="Answer the request about Python.",
    version=2,
    metrics=("python_codebleu", "syntax_valid"),
    max_new_tokens=256,
    paper="https://github.com/sahil280114/codealpaca",
    licence="CC BY-NC 4.0",
    suites=("paper", "code", "generation"),
)
def codealpacapy(row: Row) -> Example:
    """Letter case and indentation of the code are kept; some answers are prose and no program."""
    return Example({"request": row["prompt"].strip()}, row["response"].strip())
