"""Answers of the form `equation = value`. Arithmetic is parsed as a syntax tree and evaluated in exact fractions."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from peftbench.metrics import Answers, metric
from peftbench.metrics._numerals import GAPS, plain_numbers

LONGEST = 200  # maximum number of characters
_SIGNS = str.maketrans({"\u00d7": "*", "\u00f7": "/"})
_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def value_of(text: str) -> Fraction | None:
    """Evaluate arithmetic (`+ - * /`, brackets), ignoring units and thousands separators; `None` if invalid."""
    plain = re.sub(rf"(?<=\d)[,'_{GAPS}](?=\d{{3}}(?!\d))", "", plain_numbers(text).translate(_SIGNS))
    plain = re.sub(r"[^\d.()+\-*/]+", " ", plain, flags=re.ASCII).rstrip(" .")
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain).strip()  # `05` is invalid in Python
    if len(plain) > LONGEST:
        return None
    try:
        return _calculate(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def _calculate(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return Fraction(_OPERATIONS[type(node.op)](_calculate(node.left), _calculate(node.right)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        return Fraction(_OPERATIONS[type(node.op)](_calculate(node.operand)))
    raise ValueError("not arithmetic")


@metric(rowwise=True, needs=("gold",), version=2, paper="arXiv:2103.07191")
def equation_value(answers: Answers) -> list[float]:
    """100 if the text after the last `=` has the value `details["gold"]`, else 0."""
    rows = zip(answers.predictions, answers.details, strict=True)
    return [100.0 * (value_of(given.rpartition("=")[2]) == Fraction(details["gold"])) for given, details in rows]


@metric(rowwise=True, version=2)
def equation_consistent(answers: Answers) -> list[float]:
    """100 if all sides of an equation have the same value, correct or not, else 0."""
    sides = [[value_of(side) for side in given.split("=")] for given in answers.predictions]
    return [100.0 * (len(values) > 1 and None not in values and len(set(values)) == 1) for values in sides]
