"""CodeAlpacaPython: instructions for small Python programs, with model-written answers."""

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
    """Write Python code for a request; case and indentation are kept, and some answers are prose."""
    return Example({"request": row["prompt"].strip()}, row["response"].strip())
