"""CodeBLEU for Python: n-grams, n-grams with keywords counted fivefold, syntax and data flow, a quarter each.

Letter case counts. Syntax is Python's own tree, where the authors' program has another parser's, so that its values are
not those of the published metric; hence the name.

The four parts are those of the paper (arXiv:2009.10297) and, like BLEU, are taken over all rows together: matches and
totals are summed, then divided. Of several references of a row, the one that gives the row alone the highest score
counts. Where the paper leaves room:

- tokens are Python's words and operators, as in the paper's data, whose tokens stand between blanks;
- the weighted n-grams are those of the reference that the answer has, without a penalty for brevity, as in the authors'
  program;
- the subtrees are those of Python's own syntax tree, without names, values and docstrings, each matched once at most;
- the data flow is a list of "value from" edges between variables, numbered in the order in which they take part;
- an order of n-grams of which no row has any, and a part of which the references have nothing (they do not parse, or
  have no variables), are left out, and the other parts share the weight; an answer that does not parse has no subtrees
  and no data flow, and so matches none.
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
"""Weight of a word that is no keyword."""
_TOKEN = re.compile(r"\w+|\*\*=?|//=?|>>=?|<<=?|[-+*/%&|^@=!<>:]=|->|\S")
Edge = tuple[str, str, tuple[str, ...]]


def code_tokens(code: str) -> list[str]:
    """Words, numbers, operators and other signs."""
    return _TOKEN.findall(code)


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of Python 3; `None` for text that is no Python, or is nested too deeply to be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in strings, say
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def subtrees(tree: ast.Module) -> "Counter[str]":
    """Every node that has others below it, as the kinds of nodes in it, counted."""
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
"""Where nodes that give variables a value hold the variables and the value."""


def data_flow(tree: ast.AST) -> "Counter[Edge]":
    """Edges (variable, relation, where its value is from), counted: of a variable that is used again, from itself; of
    one that is set, from the variables in its value. Variables are numbered in the order of the edges.
    """
    edges: list[tuple[str, str, list[str]]] = []
    _follow(tree, set(), edges)
    numbers: dict[str, str] = {}
    for name, _, sources in edges:
        for taking_part in (*sources, name):
            numbers.setdefault(taking_part, str(len(numbers)))
    return Counter((numbers[name], how, tuple(numbers[one] for one in sources)) for name, how, sources in edges)


def _follow(node: object, known: set[str], edges: list[tuple[str, str, list[str]]]) -> None:
    """Add the edges of a node in the order of evaluation; `known` are the variables met so far."""
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
        # The loops of a comprehension come before what is made of them.
        for part in (value, fields.pop("generators", None)):
            _follow(part, known, edges)
        sources = _names(node) if isinstance(node, ast.AugAssign) else _names(value)
        for name in _names(targets, ast.Store):
            edges += [(name, "computedFrom", sources)] if sources else []
            known.add(name)
        _follow(list(fields.values()), known, edges)


def _names(node: object, context: type[ast.expr_context] = ast.expr_context) -> list[str]:
    """The variables in a node or in several, in order, each once."""
    given = node if isinstance(node, list) else [node]
    below = [item for part in given if isinstance(part, ast.AST) for item in ast.walk(part)]
    return list(dict.fromkeys(n.id for n in below if isinstance(n, ast.Name) and isinstance(n.ctx, context)))


@dataclass(frozen=True)
class Code:
    """What is compared of a text: n-grams by order, subtrees, data flow; the last two `None` if it does not parse."""

    length: int
    ngrams: tuple["Counter[tuple[str, ...]]", ...]
    subtrees: "Counter[str] | None" = None
    flow: "Counter[Edge] | None" = None


@lru_cache(maxsize=2**14)
def analysed(code: str) -> Code:
    """The parts of a text."""
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
    """What is summed over rows: two lengths, then matches and totals of n-grams by order, of weighted n-grams by order,
    of subtrees and of data flow.
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
    """Number of n-grams; single words count by what they are."""
    return sum(
        count * (OTHER if len(words) == 1 and words[0] not in KEYWORDS else 1.0) for words, count in ngrams.items()
    )


def code_bleu_parts(total: npt.NDArray[np.float64]) -> list[float | None]:
    """N-gram, weighted n-gram, syntax and data-flow match, 0 to 1, of summed statistics; `None`: nothing to match."""
    given, asked, *counts = total.tolist()
    pairs = list(zip(counts[::2], counts[1::2], strict=True))
    brevity = min(1.0, math.exp(1 - asked / given)) if given else 0.0
    ratios = [matches / of if of else None for matches, of in pairs[2 * ORDERS :]]
    return [brevity * _mean(pairs[:ORDERS]), _mean(pairs[ORDERS : 2 * ORDERS]), *ratios]


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    """Geometric mean of shares by order. An order without a match counts as a tenth of one; without words in common
    there is nothing.
    """
    if not pairs[0][0]:
        return 0.0
    return math.exp(fmean(math.log((matches or 0.1) / of) for matches, of in pairs if of))


def combined(total: npt.NDArray[np.float64]) -> float:
    """The score of summed statistics, 0 to 100."""
    return 100.0 * fmean(part for part in code_bleu_parts(total) if part is not None)


@lru_cache(maxsize=2**14)
def _best(prediction: str, references: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The statistics with the reference that suits best. Kept, because a bootstrap asks for the same rows again."""
    return max((compare_code(prediction, reference) for reference in references), key=combined)


@metric(paper="arXiv:2009.10297")
def python_codebleu(answers: Answers) -> float:
    """CodeBLEU for Python, over all rows together, each with its best reference; a row without any does not count."""
    rows = zip(answers.predictions, answers.references, strict=True)
    found = [_best(prediction, tuple(references)) for prediction, references in rows if any(references)]
    if not found:
        raise UnavailableError("there is no row with a reference")
    return combined(np.sum(found, axis=0))
