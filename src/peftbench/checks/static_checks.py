"""Check a task without training: rows, splits, answers, labels, leaks and lengths."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.core.spec import Training
from peftbench.tasks import Example, Task
from peftbench.tasks._loading import DataError, example_of, read_rows
from peftbench.tasks._split_checks import alike, exact, repeated
from peftbench.tasks._splits import GENERATED, Splits

LEAK = 0.01
"""Maximum share of evaluation rows that are also training rows; a few short texts repeat by chance."""
LOOKED_AT = 2000
"""Rows per split whose tokens are counted."""


@dataclass(frozen=True)
class Finding:
    """Result of one check, as a sentence and as numbers."""

    about: str
    said: str
    problem: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_rows(task: Task, arguments: Mapping[str, Any], data: Path | None) -> Finding:
    """Check that every row can be converted and that a second read gives the same examples."""
    source, count, bad = task.facts.source, 0, []
    for name in filter(None, (source.train, source.validation, source.test)):
        one, two = (read_rows(source, name, data, GENERATED.get(name)) for _ in range(2))
        if one.fingerprint != two.fingerprint:
            return Finding("rows", f"split '{name}' has other rows when it is read again", True)
        for number, row in enumerate(one.rows, 1):
            count += 1
            try:
                if example_of(task, row, **arguments) != example_of(task, row, **arguments):
                    return Finding("rows", f"split '{name}', row {number} is another example the second time", True)
            except DataError as error:
                bad.append(f"split '{name}', row {number}: {error}")
    facts = {"rows": count, "unusable": len(bad)}
    if bad:
        return Finding("rows", f"{len(bad)} of {count} cannot be used; the first is {bad[0]}", True, facts)
    return Finding("rows", f"{count} read, all of use, and the same when read again", facts=facts)


def split_sizes(splits: Splits) -> Finding:
    sizes = {name: len(part) for name, part in label_parts(splits).items()}
    error = 50 / np.sqrt(sizes["test"])
    said = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return Finding("splits", f"{said}; a score near 50 is known to ± {1.96 * error:.1f} by the test rows", facts=sizes)


def check_tokens(task: Task, splits: Splits) -> tuple[Finding, Finding, float]:
    """Check answer and prompt lengths in pocket tokens; also return their mean total length."""
    from transformers import AutoTokenizer

    from peftbench.engine.tokenization import Encoder
    from peftbench.models import find

    room = Training().max_length
    encoder = Encoder(AutoTokenizer.from_pretrained(find("pocket").source), task.facts, room)
    rows = [one for part in label_parts(splits).values() for one in part[:LOOKED_AT]]
    answers = np.array([len(encoder.answer(one.target)) for one in rows])
    prompts = np.array([len(encoder.prompt(one.fields)) for one in rows])
    empty = sum(not one.target.strip() for one in rows)
    most, long = task.facts.max_new_tokens, int((answers > task.facts.max_new_tokens).sum())
    told = {"rows": len(rows), "empty": empty, "longest": int(answers.max()), "max_new_tokens": most, "too_long": long}
    said = f"at most {answers.max()} tokens with the end, {most} are allowed"
    said += f"; {long} of {len(rows)} are too long and would be cut" if long else ""
    said += f"; {empty} of {len(rows)} are empty" if empty else ""
    cut = float((prompts > encoder.prompt_tokens).mean())
    median, high = np.percentile(prompts, [50, 95])
    numbers = {"median": float(median), "p95": float(high), "longest": int(prompts.max()), "cut": cut}
    lengths = f"median {median:.0f} tokens, 95 % up to {high:.0f}, longest {prompts.max()}"
    lengths += f"; {100 * cut:.1f} % do not fit into max_length = {room}" if cut else f"; all fit into {room}"
    lengths += ", and may not be shortened" if cut and task.facts.whole else ""
    return (
        Finding("answers", said, bool(long or empty), told),
        Finding("prompts", lengths, bool(cut and task.facts.whole), numbers),
        float((answers + np.minimum(prompts, encoder.prompt_tokens)).mean()),
    )


def balance(task: Task, splits: Splits) -> Finding:
    """Report the share of each label; every label must occur in the training rows."""
    shares = {}
    for name, part in label_parts(splits).items():
        counts = Counter(one.target for one in part)
        shares[name] = {label: counts[label] / len(part) for label in task.facts.labels}
    missing = [label for label in task.facts.labels if not shares["train"][label]]
    said = ", ".join(f"{label} {100 * share:.0f} %" for label, share in shares["train"].items())
    said += f"; the largest alone scores {100 * max(shares['test'].values()):.0f} in accuracy on the test rows"
    said += f"; never in training: {', '.join(missing)}" if missing else ""
    untested = [label for label in task.facts.labels if not shares["test"][label]]
    said += f"; never in the test: {', '.join(untested)}" if untested else ""
    return Finding("labels", said, bool(missing), shares)


def leaks(splits: Splits) -> Finding:
    """Count evaluation rows whose exact or normalised fields are those of a training row."""
    facts: dict[str, Any] = {}
    for name in ("validation", "test"):
        part = label_parts(splits)[name]
        for how, key in (("exact", exact), ("normalised", alike)):
            count = repeated(part, splits.train, key)
            facts[f"{name}_{how}"] = {"rows": count, "share": count / len(part)}
    said = "; ".join(
        f"{name}: {facts[f'{name}_exact']['rows']} rows are training rows too, {facts[f'{name}_normalised']['rows']} "
        f"but for case and signs ({100 * facts[f'{name}_normalised']['share']:.1f} %)"
        for name in ("validation", "test")
    )
    return Finding("leaks", said, any(fact["share"] > LEAK for fact in facts.values()), facts)


def label_parts(splits: Splits) -> dict[str, list[Example]]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
