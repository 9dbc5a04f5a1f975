"""APPS: programming problems with tests."""

import json

from peftbench.tasks import Example, Row, Source, task

DIGITS = 4000
"""Longer numbers in tests stay text, because Python refuses to parse them."""


@task(
    source=Source("codeparrot/apps", sizes=(5000, 5000)),  # its default configuration is `all`
    kind="code",
    instruction="Write a Python program that solves the problem. Answer with the program alone.",
    metrics=("pass_at_1", "python_codebleu"),
    version=3,
    max_new_tokens=512,
    paper="arXiv:2105.09938",
    licence="MIT",
    suites=("paper", "code"),
)
def apps(row: Row) -> Example:
    """Write a program; the target is the first solution, and the problem's tests are run.

    Solutions and tests are JSON or empty. Outputs are compared as in the APPS reference code (`run_program_tests`).
    """
    fields = {"question": row["question"].strip()}
    if row["starter_code"].strip():
        fields["starter_code"] = row["starter_code"].strip()
    solutions = [text.strip() for text in json.loads(row["solutions"] or "[]") if text.strip()]
    tests = json.loads(row["input_output"] or "{}", parse_int=lambda n: int(n) if len(n) < DIGITS else n)
    tests |= {"comparison": "apps"} if tests else {}
    return Example(fields, (solutions or [""])[0], tuple(solutions), details={"tests": tests})
