"""ReCoRD: which entity of a news article is missing in a statement about it."""

from peftbench.tasks import Example, Row, Source, task


@task(
    source=Source(
        "aps/super_glue",
        "record",
        test="validation",
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        sizes=(100730, 10000),
    ),
    kind="qa",
    instruction="Which of the entities stands at @placeholder in the query, judging by the passage? "
    "Answer with the entity alone.",
    metrics=("record_f1", "record_em"),
    max_new_tokens=32,
    paper="arXiv:1810.12885",
    licence="Apache-2.0 (texts: CNN and Daily Mail)",
    suites=("paper", "superglue"),
)
def record(row: Row) -> Example:
    """Name the missing entity; the target is the first correct answer. The public validation split is the test.

    The passage ends with summary points marked by `@highlight`, which becomes a full stop after an unfinished sentence.
    """
    parts = [part.strip() for part in row["passage"].split("@highlight")]
    passage = " ".join(part if part.endswith((".", "!", "?", '"', "'", ":")) else f"{part}." for part in parts if part)
    entities = tuple(dict.fromkeys(row["entities"]))
    fields = {"passage": passage, "entities": "; ".join(entities), "query": row["query"].strip()}
    answers = tuple(dict.fromkeys(row["answers"]))
    if not answers:
        raise ValueError("a query without answers (hidden?)")
    return Example(fields, answers[0], references=answers, choices=entities, group=passage)
