"""WSC: whether a pronoun refers to a given noun of the same text."""

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
    """Resolve a marked pronoun (span2) to a marked noun (span1); the public validation split is the test."""
    text = row["text"]
    noun, pronoun = (_span(text, row[f"{name}_index"], row[f"{name}_text"]) for name in ("span1", "span2"))
    marks = [(place, "#") for place in pronoun] + [(place, "*") for place in noun]
    # From the end, so that offsets stay valid; the noun's mark is the outer one if both start at one offset.
    for place, mark in sorted(marks, key=lambda each: -each[0]):
        text = text[:place] + mark + text[place:]
    # The two texts of a pair have the same first words; several rows have the same text.
    return Example({"text": text.strip()}, label(LABELS, row["label"]), group=" ".join(row["text"].split()[:4]))


def _span(text: str, index: int, words: str) -> tuple[int, int]:
    """Return start and end of the occurrence of `words` nearest to word number `index`.

    Some words of the source include a quotation mark or a comma, and some indices are off by one.
    """
    start = [word.start() for word in re.finditer(r"\S+", text)][index]
    found = [found.span() for found in re.finditer(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text)]
    if not found:
        raise ValueError(f"'{words}' is not in the text")
    return min(found, key=lambda span: abs(span[0] - start))
