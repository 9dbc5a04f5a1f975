"""SVAMP: word problems with one or two arithmetic steps, varied so that key words mislead."""

import re

from peftbench.tasks import Example, Row, Source, task


@task(
    source=Source("ChilleD/SVAMP", revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef", sizes=(700, 300)),
    kind="math",
    instruction="Solve the problem. Answer with the equation and its value, as in ( 2 + 3 ) = 5.",
    metrics=("equation_value", "equation_consistent"),
    max_new_tokens=64,
    paper="arXiv:2103.07191",
    licence="MIT",
    suites=("paper", "math"),
)
def svamp(row: Row) -> Example:
    """Write the equation and its value; `details["gold"]` is the correct value."""
    equation = re.sub(r"\.0\b", "", row["Equation"]).strip()
    return Example(
        {"problem": row["question_concat"].strip()},
        f"{equation} = {row['Answer'].strip()}",
        details={"gold": row["Answer"].strip()},
    )
