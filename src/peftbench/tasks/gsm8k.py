"""GSM8K: grade-school mathematics word problems."""

import re

from peftbench.tasks import Example, Row, Source, task

_CALCULATION = re.compile(r"<<.*?>>")


@task(
    source=Source("openai/gsm8k", "main", revision="740312add88f781978c0658806c59bc2815b9866", sizes=(7_473, 1_319)),
    kind="math",
    instruction="Solve the problem step by step. End with a line of #### and the answer as a number.",
    metrics=("final_number",),
    max_new_tokens=400,
    paper="arXiv:2110.14168",
    licence="MIT",
    suites=("paper", "math"),
)
def gsm8k(row: Row) -> Example:
    """Solve step by step; the target has no calculator annotations, and its final number is scored."""
    return Example({"question": row["question"].strip()}, _CALCULATION.sub("", row["answer"]).strip())
