"""OpenBookQA: elementary science questions that apply a known fact to a new case."""

from peftbench.tasks import Example, Row, Source, task

LABELS = ("A", "B", "C", "D")


@task(
    source=Source("allenai/openbookqa", "main", revision="388097ea7776314e93a529163e0fea805b8a6454", sizes=(4957, 500)),
    kind="multiple-choice",
    instruction="Which choice completes or answers the question?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1809.02789",
    licence="Apache-2.0 (not stated on the Hub)",
    suites=("paper", "reasoning"),
)
def openbookqa(row: Row) -> Example:
    """Choose one of four answers, without the book of facts."""
    choices = dict(zip(row["choices"]["label"], map(str.strip, row["choices"]["text"]), strict=True))
    return Example({"question": row["question_stem"].strip()} | choices, row["answerKey"])
