"""Share of answers that are valid Python."""

import ast
import warnings

from peftbench.metrics import Answers, metric


def is_python(code: str) -> bool:
    """Return True if a text is a non-empty program for the running Python version. Nothing is executed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes in strings
        try:
            return bool(ast.parse(code).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


@metric(rowwise=True)
def syntax_valid(answers: Answers) -> list[float]:
    """100 if the answer parses as Python 3 and is not empty, else 0, whether or not it is correct."""
    return [100.0 * is_python(prediction) for prediction in answers.predictions]
