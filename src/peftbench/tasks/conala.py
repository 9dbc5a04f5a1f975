"""CoNaLa: one line of Python for a Stack Overflow question."""

from peftbench.tasks import Example, Row, Source, task


@task(
    source=Source("neulab/conala", "curated", sizes=(2379, 500)),
    kind="code",
    instruction="Write Python code that does what is asked. Answer with the code alone.",
    version=2,
    metrics=("python_codebleu", "exact_match", "bleu"),
    max_new_tokens=128,
    paper="arXiv:1805.08949",
    licence="MIT",
    suites=("paper", "code", "generation"),
)
def conala(row: Row) -> Example:
    """Write code for the hand-rewritten request, or for the question title if there is no rewritten one."""
    request = (row["rewritten_intent"] or "").strip() or row["intent"].strip()
    return Example({"request": request}, row["snippet"].strip())
