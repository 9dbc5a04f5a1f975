"""Share of answers that are Python."""

import ast
import warnings

from peftbench.metrics import Answers, metric


def is_python(code: str) -> bool:
    """Whether a text is a program of the Python that runs this, and has any code. Nothing is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in strings, say
        try:
            return bool(ast.parse(code).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


@metric(rowwise=True)
def syntax_valid(answers: Answers) -> list[float]:
    """100 where the answer parses as Python 3 and is not empty, else 0; whether it is right does not matter."""
    return [100.0 * is_python(prediction) for prediction in answers.predictions]
