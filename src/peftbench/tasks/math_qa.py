"""MathQA: multiple-choice examination word problems with five answers."""

import re

from peftbench.tasks import Example, Row, Source, task

LABELS = ("a", "b", "c", "d", "e")
# Some options repeat their letter.
_LETTER = re.compile(r"\b([a-e]) \) (?:\1 \) )?")


@task(
    # `datasets` cannot run the loading script in `main`; this branch is the Hub's Parquet conversion.
    source=Source("allenai/math_qa", revision="refs/convert/parquet", sizes=(29837, 2985)),
    kind="multiple-choice",
    instruction="Which answer to the problem is right?",
    labels=LABELS,
    metrics=("accuracy", "macro_f1"),
    max_new_tokens=8,
    paper="arXiv:1905.13319",
    licence="Apache-2.0",
    suites=("paper", "math"),
)
def math_qa(row: Row) -> Example:
    """Choose an option; each option has its own line, and the target is its letter."""
    return Example({"problem": row["Problem"].strip()} | _options(row["options"]), row["correct"])


def _options(text: str) -> dict[str, str]:
    """Parse options, `a ) 1 , b ) 2 , ...` or the same as a list, by letter. Raises `ValueError` if there are none."""
    if text.startswith("['"):
        text = text.removeprefix("['").removesuffix("']").replace("', '", " , ")
    marks: list[re.Match[str]] = []
    for mark in _LETTER.finditer(text):
        if mark[1] in LABELS[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if not marks:
        raise ValueError(f"no options in '{text}'")
    stops = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: text[mark.end() : stop].strip(" ,") for mark, stop in zip(marks, stops, strict=True)}
