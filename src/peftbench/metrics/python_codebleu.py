"""CodeBLEU for Python: the mean of n-gram, weighted n-gram, syntax and data-flow match.

Case-sensitive. Syntax trees come from Python's `ast`, not from the parser of the authors' program. The values therefore
differ from the published metric, and the name does too.

The four parts follow the paper (arXiv:2009.10297). As in BLEU, matches and totals are summed over all rows and then
divided. Of several references, the one with the highest score for the row alone is used. Where the paper leaves a
choice:

- tokens are Python's words and operators, as in the paper's data, whose tokens are separated by blanks;
- the weighted n-gram match is the recall of the reference's n-grams, with keyword unigrams weighted five times and
  without a brevity penalty, as in the authors' program;
- subtrees are taken from the `ast` tree without names, values and docstrings, and each is matched at most once;
- the data flow is a list of "value from" edges between variables, numbered in order of occurrence;
- n-gram orders that no row has are left out, as are parts that the references lack (they do not parse, or have no
  variables); the other parts share the weight. An answer that does not parse matches no subtree and no data flow.
"""

import ast
import keyword
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, UnavailableError, metric

ORDERS = 4
KEYWORDS = {*keyword.kwlist, *keyword.softkwlist} - {"_"}
OTHER = 0.2
"""Weight of a token that is not a keyword."""
_TOKEN = re.compile(r"\w+|\*\*=?|//=?|>>=?|<<=?|[-+*/%&|^@=!<>:]=|->|\S")
Edge = tuple[str, str, tuple[str, ...]]


def code_tokens(code: str) -> list[str]:
    """Split code into words, numbers, operators and other characters."""
    return _TOKEN.findall(code)


def parsed(code: str) -> ast.Module | None:
    """Return the syntax tree; `None` if the text is not valid Python 3 or is nested too deeply."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes in strings
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def subtrees(tree: ast.Module) -> "Counter[str]":
    """Count the subtrees with at least one child, by the node types in them."""
    kinds: dict[ast.AST, str] = {}
    found: Counter[str] = Counter()
    # The breadth-first order has parents before children.
    for node in reversed([node for node in ast.walk(tree) if not isinstance(node, ast.expr_context)]):
        below = []
        for name, value in ast.iter_fields(node):
            kept = [kinds[item] for item in (value if isinstance(value, list) else [value]) if item in kinds]
            below += [f"{name}={'; '.join(kept)}"] if kept else []
        kinds[node] = f"{type(node).__name__}({', '.join(below)})"
        found[kinds[node]] += 1 if below else 0
    return +found


SETTING = {
    ast.Assign: ("targets", "value"),
    ast.AnnAssign: ("target", "value"),
    ast.AugAssign: ("target", "value"),
    ast.NamedExpr: ("target", "value"),
    ast.For: ("target", "iter"),
    ast.AsyncFor: ("target", "iter"),
    ast.comprehension: ("target", "iter"),
    ast.withitem: ("optional_vars", "context_expr"),
}
"""Fields with the variables and the value, by type of assigning node."""


def data_flow(tree: ast.AST) -> "Counter[Edge]":
    """Count the edges (variable, relation, sources). A variable that is used again has itself as source; one that is
    assigned has the variables in its value. Variables are numbered in the order of the edges.
    """
    edges: list[tuple[str, str, list[str]]] = []
    _follow(tree, set(), edges)
    numbers: dict[str, str] = {}
    for name, _, sources in edges:
        for taking_part in (*sources, name):
            numbers.setdefault(taking_part, str(len(numbers)))
    return Counter((numbers[name], how, tuple(numbers[one] for one in sources)) for name, how, sources in edges)


def _follow(node: object, known: set[str], edges: list[tuple[str, str, list[str]]]) -> None:
    """Add the edges of a node in evaluation order; `known` contains the variables that occurred before."""
    if isinstance(node, list):
        for item in node:
            _follow(item, known, edges)
    elif isinstance(node, ast.arg):
        known.add(node.arg)
    elif isinstance(node, ast.Name):
        if node.id in known:
            edges.append((node.id, "comesFrom", [node.id]))
        known.add(node.id)
    elif isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        targets, value = (fields.pop(name, None) for name in SETTING.get(type(node), ("", "")))
        # The loops of a comprehension are evaluated before its element.
        for part in (value, fields.pop("generators", None)):
            _follow(part, known, edges)
        sources = _names(node) if isinstance(node, ast.AugAssign) else _names(value)
        for name in _names(targets, ast.Store):
            edges += [(name, "computedFrom", sources)] if sources else []
            known.add(name)
        _follow(list(fields.values()), known, edges)


def _names(node: object, context: type[ast.expr_context] = ast.expr_context) -> list[str]:
    """Return the distinct variables in one or several nodes, in order."""
    given = node if isinstance(node, list) else [node]
    below = [item for part in given if isinstance(part, ast.AST) for item in ast.walk(part)]
    return list(dict.fromkeys(n.id for n in below if isinstance(n, ast.Name) and isinstance(n.ctx, context)))


@dataclass(frozen=True)
class Code:
    """Compared parts of a text: n-grams by order, subtrees, data flow; the last two `None` if it does not parse."""

    length: int
    ngrams: tuple["Counter[tuple[str, ...]]", ...]
    subtrees: "Counter[str] | None" = None
    flow: "Counter[Edge] | None" = None


@lru_cache(maxsize=2**14)
def analysed(code: str) -> Code:
    """Compute the parts of a text."""
    words = code_tokens(code)
    ngrams = tuple(Counter(zip(*(words[i:] for i in range(order)), strict=False)) for order in range(1, ORDERS + 1))
    tree = parsed(code)
    if tree is None:
        return Code(len(words), ngrams)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node, False):
            del node.body[0]
    try:
        return Code(len(words), ngrams, subtrees(tree), data_flow(tree))
    except RecursionError:
        return Code(len(words), ngrams)


def compare_code(prediction: str, reference: str) -> npt.NDArray[np.float64]:
    """Return the statistics that are summed over rows: two lengths, then matches and totals of n-grams by order, of
    weighted n-grams by order, of subtrees and of data flow.
    """
    given, asked = analysed(prediction), analysed(reference)
    found: list[float] = [given.length, asked.length]
    for mine, theirs in zip(given.ngrams, asked.ngrams, strict=True):
        found += [(mine & theirs).total(), mine.total()]
    for mine, theirs in zip(given.ngrams, asked.ngrams, strict=True):
        found += [_weight(mine & theirs), _weight(theirs)]
    found += [(given.subtrees & asked.subtrees).total() if given.subtrees and asked.subtrees else 0]
    found += [asked.subtrees.total() if asked.subtrees else 0]
    found += [(given.flow & asked.flow).total() if given.flow and asked.flow else 0]
    found += [asked.flow.total() if asked.flow else 0]
    return np.array(found, dtype=np.float64)


def _weight(ngrams: "Counter[tuple[str, ...]]") -> float:
    """Return the number of n-grams; unigrams that are not keywords count `OTHER`."""
    return sum(
        count * (OTHER if len(words) == 1 and words[0] not in KEYWORDS else 1.0) for words, count in ngrams.items()
    )


def code_bleu_parts(total: npt.NDArray[np.float64]) -> list[float | None]:
    """Return n-gram, weighted n-gram, syntax and data-flow match (0 to 1) of summed statistics; `None`: no total."""
    given, asked, *counts = total.tolist()
    pairs = list(zip(counts[::2], counts[1::2], strict=True))
    brevity = min(1.0, math.exp(1 - asked / given)) if given else 0.0
    ratios = [matches / of if of else None for matches, of in pairs[2 * ORDERS :]]
    return [brevity * _mean(pairs[:ORDERS]), _mean(pairs[ORDERS : 2 * ORDERS]), *ratios]


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the geometric mean of the shares by order; 0 without a common unigram.

    An order without a match counts as 0.1 matches.
    """
    if not pairs[0][0]:
        return 0.0
    return math.exp(fmean(math.log((matches or 0.1) / of) for matches, of in pairs if of))


def combined(total: npt.NDArray[np.float64]) -> float:
    """Return the score of summed statistics, 0 to 100."""
    return 100.0 * fmean(part for part in code_bleu_parts(total) if part is not None)


@lru_cache(maxsize=2**14)
def _best(prediction: str, references: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return the statistics with the best reference; cached because a bootstrap repeats the same rows."""
    return max((compare_code(prediction, reference) for reference in references), key=combined)


@metric(paper="arXiv:2009.10297")
def python_codebleu(answers: Answers) -> float:
    """CodeBLEU for Python, over all rows together, each with its best reference; a row without any does not count."""
    rows = zip(answers.predictions, answers.references, strict=True)
    found = [_best(prediction, tuple(references)) for prediction, references in rows if any(references)]
    if not found:
        raise UnavailableError("there is no row with a reference")
    return combined(np.sum(found, axis=0))
