"""One-line Python functions from a short request."""

import random

NAMES = "f g h run work step turn make".split()
ARGUMENTS = "a b n value item".split()

ONE_NUMBER = (
    ("adds {k} to {x}", "{x} + {k}"),
    ("takes {k} from {x}", "{x} - {k}"),
    ("multiplies {x} by {k}", "{x} * {k}"),
    ("says if {x} is more than {k}", "{x} > {k}"),
    ("says if {x} is equal to {k}", "{x} == {k}"),
    ("gives the rest of {x} divided by {k}", "{x} % {k}"),
)
ONE_TEXT = (
    ("gives the length of {x}", "len({x})"),
    ("writes {x} in capitals", "{x}.upper()"),
    ("writes {x} in small letters", "{x}.lower()"),
    ("turns {x} round", "{x}[::-1]"),
    ("gives the first part of {x}", "{x}[0]"),
    ("gives the last part of {x}", "{x}[-1]"),
    ("writes {x} {k} times", "{x} * {k}"),
    ("puts {x} in order", "sorted({x})"),
    ("gives the largest of {x}", "max({x})"),
    ("gives the smallest of {x}", "min({x})"),
    ("sums up {x}", "sum({x})"),
)


def function(rng: random.Random) -> tuple[str, str]:
    """A request and the function, in one line."""
    name, x = rng.choice(NAMES), rng.choice(ARGUMENTS)
    told, body = rng.choice(rng.choice((ONE_NUMBER, ONE_TEXT)))
    k = rng.randint(2, 12)
    asked = rng.choice(("Make {f}, which {d}.", "Python: {f} {d}.", "A function {f} of {x} that {d}, please."))
    return asked.format(f=name, x=x, d=told.format(k=k, x=x)), f"def {name}({x}): return {body.format(k=k, x=x)}"
