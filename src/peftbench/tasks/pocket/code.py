import random
from collections.abc import Callable, Sequence
from typing import Any

from peftbench.tasks import Example, Row, task
from peftbench.tasks.pocket import source

NUMBERS, TEXTS, LISTS = (0, 3, 8, 40), ("Old Tom", "ab", "Rain"), ([4, 1, 9], [7], [2, 8, 8, 5])
# What is asked for: the body of the answer, what it has to give, what it is tried on.
OPERATIONS: dict[str, tuple[str, Callable[[Any, int], Any], Sequence[Any]]] = {
    "add": ("{x} + {k}", lambda x, k: x + k, NUMBERS),
    "take": ("{x} - {k}", lambda x, k: x - k, NUMBERS),
    "multiply": ("{x} * {k}", lambda x, k: x * k, NUMBERS),
    "more": ("{x} > {k}", lambda x, k: x > k, NUMBERS),
    "equal": ("{x} == {k}", lambda x, k: x == k, NUMBERS),
    "rest": ("{x} % {k}", lambda x, k: x % k, NUMBERS),
    "length": ("len({x})", lambda x, _: len(x), TEXTS),
    "capitals": ("{x}.upper()", lambda x, _: x.upper(), TEXTS),
    "small": ("{x}.lower()", lambda x, _: x.lower(), TEXTS),
    "round": ("{x}[::-1]", lambda x, _: x[::-1], TEXTS),
    "first": ("{x}[0]", lambda x, _: x[0], TEXTS),
    "last": ("{x}[-1]", lambda x, _: x[-1], TEXTS),
    "times": ("{x} * {k}", lambda x, k: x * k, TEXTS),
    "order": ("sorted({x})", lambda x, _: sorted(x), LISTS),
    "largest": ("max({x})", lambda x, _: max(x), LISTS),
    "smallest": ("min({x})", lambda x, _: min(x), LISTS),
    "sum": ("sum({x})", lambda x, _: sum(x), LISTS),
}
ARGUMENTS = {"train": list("xyzsrcde"), "validation": list("pqij"), "test": list("tuvwm")}
CONSTANTS = {
    "train": "2 3 5 7 9 11 14 16 18 20 21 23 25 26 27 28 29".split(),
    "validation": "4 8 13 19".split(),
    "test": "6 10 12 15 17 22".split(),
}
REQUESTS = {
    "train": ("{x} is given, return {d}.", "Define it for {x}: {d}.", "Argument {x}: we need {d}.", "Of {x} make {d}."),
    "validation": ("Let it be, for {x}, {d}.", "With {x} to begin from, return {d}.", "What is wanted of {x}: {d}."),
    "test": ("In one line: from {x} to {d}.", "Please return {d} ({x}).", "For {x}, {d}.", "{x} comes in, {d} is out."),
}


def _listed(text: str) -> dict[str, str]:
    return dict(part.strip().split(": ") for line in text.splitlines() for part in line.split(";"))


DEEDS = {
    "train": _listed("""add: {x} with {k} added; take: {x} with {k} taken off; multiply: {x} multiplied with {k}
        more: whether {x} comes to more than {k}; equal: whether {x} and {k} are equal; rest: the rest of {x} over {k}
        length: the length that {x} has; capitals: {x} all in capitals; small: {x} all in small letters
        round: {x} turned round; first: the first part in {x}; last: the last part in {x}
        times: {x} written {k} times; order: {x} put in order; largest: the largest in {x}
        smallest: the smallest in {x}; sum: the sum over {x}"""),
    "validation": _listed("""add: what adding {k} to {x} makes; take: what taking {k} from {x} leaves
        multiply: what multiplying {x} by {k} makes; more: true where {x} has more than {k}
        equal: true where {x} is the equal of {k}; rest: what rest dividing {x} by {k} leaves; length: how long {x} is
        capitals: the capitals of {x}; small: the small letters of {x}; round: the way round of {x}
        first: what stands first in {x}; last: what stands last in {x}; times: {k} times the same {x}
        order: what is in {x}, in order; largest: what is largest in {x}; smallest: what is smallest in {x}
        sum: what {x} sums up to"""),
    "test": _listed("""add: {k} added to {x}; take: {x} after {k} is taken; multiply: {x} when multiplied by {k}
        more: if more than {k} is {x}; equal: if {k} and {x} be equal; rest: the rest, {x} being divided by {k}
        length: {x} in its length; capitals: capitals for all of {x}; small: small letters for all of {x}
        round: {x} the other way round; first: just the first of {x}; last: just the last of {x}
        times: {x} to stand there {k} times; order: the parts of {x} in order; largest: of {x} the largest
        smallest: of {x} the smallest; sum: all of {x} summed up"""),
}


def make(rng: random.Random, split: str) -> dict[str, str]:
    """A request for a function of one argument."""
    deed, x, k = (rng.choice(list(given)) for given in (OPERATIONS, ARGUMENTS[split], CONSTANTS[split]))
    asked = rng.choice(REQUESTS[split]).format(x=x, d=DEEDS[split][deed].format(x=x, k=k))
    return {"request": asked, "deed": deed, "argument": x, "constant": k if "{k}" in OPERATIONS[deed][0] else ""}


@task(
    source=source(make, "pocket-code-1"),
    kind="code",
    instruction="Write the function answer in one line of Python.",
    metrics=("pass_at_1", "exact_match"),
    max_new_tokens=24,
    suites=("pocket",),
)
def pocket_code(row: Row) -> Example:
    """A function of one line; it is right if it does on some values what was asked, whatever it looks like."""
    body, right, values = OPERATIONS[row["deed"]]
    x, k = row["argument"], int(row["constant"] or 0)
    tried = [*values, k, k + 1] if values is NUMBERS else values
    return Example(
        {"request": row["request"]},
        f"def answer({x}): return {body.format(x=x, k=k)}",
        details={"tests": [f"assert answer({value!r}) == {right(value, k)!r}" for value in tried]},
    )
