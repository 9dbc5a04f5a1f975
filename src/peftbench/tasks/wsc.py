"""WSC: whether a pronoun stands for a noun of the same text."""

import re

from peftbench.tasks import Example, Row, Source, label, task

LABELS = ("false", "true")


@task(
    source=Source(
        "aps/super_glue",
        "wsc.fixed",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(554, 104),
    ),
    kind="classification",
    instruction="Does the pronoun, which stands between # marks, refer to the noun, which stands between * marks?",
    labels=LABELS,
    positive="true",
    metrics=("f1", "accuracy"),
    max_new_tokens=8,
    paper="Levesque, Davis and Morgenstern (2012), The Winograd Schema Challenge, KR 2012",
    licence="CC BY 4.0",
    suites=("paper", "superglue"),
)
def wsc(row: Row) -> Example:
    """The text with noun (span1) and pronoun (span2) marked; the public validation split is the test."""
    text = row["text"]
    noun, pronoun = (_span(text, row[f"{name}_index"], row[f"{name}_text"]) for name in ("span1", "span2"))
    marks = [(place, "#") for place in pronoun] + [(place, "*") for place in noun]
    # From the end, so that places stay right; the noun's mark comes outside where both begin in one place.
    for place, mark in sorted(marks, key=lambda each: -each[0]):
        text = text[:place] + mark + text[place:]
    # The two texts of a pair begin alike and differ in a word; several rows ask about one text.
    return Example({"text": text.strip()}, label(LABELS, row["label"]), group=" ".join(row["text"].split()[:4]))


def _span(text: str, index: int, words: str) -> tuple[int, int]:
    """Start and end of `words` in the text, where they come nearest to its word number `index`.

    Some words of the source carry a quotation mark or a comma, and an index or two are wrong by one.
    """
    start = [word.start() for word in re.finditer(r"\S+", text)][index]
    found = [found.span() for found in re.finditer(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text)]
    if not found:
        raise ValueError(f"'{words}' is not in the text")
    return min(found, key=lambda span: abs(span[0] - start))
