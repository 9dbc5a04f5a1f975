"""Presentation of advice: the ranking with reasons, starting settings, evidence, and what is unknown."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from peftbench.advisor.recommend import PREFERENCES, Advice, Option
from peftbench.advisor.regret import ADVISOR, ORACLE, SEEDS, RegretReport
from peftbench.advisor.score_prediction import Guess
from peftbench.core.costs import COSTS, LIMITS
from peftbench.studies._pscp_weights import WeightSet
from peftbench.studies._text_format import (
    ABSENT,
    UNTOLD,
    count_text,
    duration_text,
    ends_text,
    interval_text,
    size_text,
)
from peftbench.studies.presentation_blocks import Section, Table

TEXTS: Mapping[str, Callable[[float], str]] = {
    "bytes": size_text,
    "s": duration_text,
    "ms": lambda ms: f"{ms:.3g} ms",
    "": count_text,
}
"""Formats of costs by unit."""
SHOWN = {
    "trainable_parameters": "Trainable",
    "peak_memory_bytes": "Peak",
    "train_seconds": "Training",
    "adapter_bytes": "Adapter",
    "latency_ms": "New token",
}
"""The costs that have a column, with its heading."""
LONG = 90
"""Maximum length of a reason in a table; the JSON output has the full text."""
MANY = 6
"""Maximum number of listed names; the rest is counted."""
Starts = Mapping[str, Mapping[str, Any]]
"""Grid entries to start from, by method."""


def advice_section(advice: Advice, starts: Starts, remarks: Sequence[str] = ()) -> Section:
    """Return advice as a section. `remarks`: further unknown facts, besides those of `unknowns`."""
    sheets = [_ranked(advice)] if advice.ranked else []
    left = [option for option in advice.options if not option.rank]
    if left:
        lines = tuple((o.method, o.verdict, shorten(_why(o), LONG, placeholder=" …"), _score(o.score)) for o in left)
        sheets.append(Table("Not recommended", ("Method", "Verdict", "Why", "Expected"), 3, lines))
    told = [
        f"{o.rank}. {o.method}: {reason(o, advice)}. Start from {entry_text(starts[o.method])}, {_rests(o)}"
        for o in advice.ranked
    ]
    told = told or [f"No method is known to fit. {_least(advice)}".strip()]
    unknown = [f"Not known: {line}" for line in [*unknowns(advice), *remarks]]
    return Section("advice", advice_title(advice), "", tuple(sheets), remarks=(*told, *unknown))


def _least(advice: Advice) -> str:
    """Return a sentence about the method that exceeds the limits least, and what it needs."""
    if (least := advice.least) is None:
        return ""
    needed = ", ".join(
        f"{LIMITS[cost]} of {_text(cost, value)}, not {_text(cost, advice.question.limits[cost])}"
        for cost, value in least.needed.items()
    )
    return f"Nearest to the limits is {least.method}: it needs {needed}."


def _text(cost: str, value: float) -> str:
    return TEXTS[COSTS[cost].unit](value)


def advice_title(advice: Advice) -> str:
    """Return a title: the question and the evidence for the answer."""
    question, place = advice.question, advice.question.place
    rows = f"{place.rows:,.0f}" if place.rows else place.size
    limits = [f"{LIMITS[cost]} at most {_text(cost, most)}" for cost, most in question.limits.items()]
    by = "published results" if advice.published else "measured results"
    tasks = len({one.task for one in advice.places})
    asked = ", ".join([f"{place.model}, {place.task}, {rows} training rows", f"ranked by {_first(advice)}", *limits])
    return f"{asked}. Based on {by}: {len(advice.places)} cells of {tasks} tasks"


def _first(advice: Advice) -> str:
    prefer = advice.question.prefer
    return f"PSCP by {prefer}" if isinstance(prefer, WeightSet) else prefer


def _ranked(advice: Advice) -> Table:
    costs = [cost for cost in SHOWN if any(cost in option.costs for option in advice.ranked)]
    pscp = isinstance(advice.question.prefer, WeightSet)
    lines = []
    for o in advice.ranked:
        line = [f"{o.rank}{UNTOLD if o.tied else ''}", o.method, _score(o.score), _signed(o.advantage)]
        line += [_points(o.behind)] + ([ABSENT if o.pscp is None else f"{o.pscp:.1f}"] if pscp else [])
        line += [_text(cost, o.costs[cost]) if cost in o.costs else ABSENT for cost in costs]
        lines.append((*line, f"{o.support.of_kind} of {o.support.cells}"))
    headings = ("#", "Method", "Expected", "Over mean", "Behind best", *(["PSCP"] if pscp else []))
    headings += (*(SHOWN[cost] for cost in costs), "Cells of kind")
    note = (
        "Expected: score with its 95 % interval. Over mean: minus the mean of the methods on the same task. Behind "
        "best: the highest expected score minus this one. “~”: not shown to differ from the best."
    )
    return Table("Ranked", headings, 2, tuple(lines), note)


def _score(guess: Guess) -> str:
    # Metrics such as Matthews' correlation can be below 0.
    return _ends(guess, (-100.0, 100.0))


def _signed(guess: Guess) -> str:
    return _ends(guess, (-200.0, 200.0), "+.1f")


def _points(guess: Guess) -> str:
    return _ends(guess, (0.0, 200.0)) if guess.sd else ABSENT


def _ends(guess: Guess, scale: tuple[float, float], form: str = ".1f") -> str:
    low, high = max(guess.mean - guess.half, scale[0]), min(guess.mean + guess.half, scale[1])
    return ends_text(guess.mean, low, high, form)


def _why(option: Option) -> str:
    words = option.why
    for cost in LIMITS:
        value = f" ({_text(cost, option.costs[cost])})" if cost in option.costs else ""
        words = words.replace(cost, LIMITS[cost] + value)
    return words


def reason(option: Option, advice: Advice) -> str:
    """Return the reason for a method's rank as a sentence without a full stop."""
    support, kind = option.support, advice.question.place.kind or "this"
    return f"{_placed(option, advice)}; " + (
        f"above the mean in {support.ahead} and best in {support.first} of {_count(support.of_kind, f'{kind} cell')}"
        if support.of_kind
        else f"no evidence on {kind} tasks, predicted from {_count(support.cells, 'cell')} of other kinds"
    )


def _placed(option: Option, advice: Advice) -> str:
    prefer = advice.question.prefer
    if isinstance(prefer, WeightSet):
        return "no PSCP" if option.pscp is None else f"PSCP {option.pscp:.1f} by {prefer.name}"
    best = option.behind.mean == 0 and not option.behind.sd
    if PREFERENCES[prefer] and option.behind.mean <= advice.question.within:
        named = LIMITS[PREFERENCES[prefer]]
        order = "lowest" if option.rank == 1 else "ranked by"
        return f"{order} {named} among the methods within {advice.question.within:g} points of the best expected score"
    if best and option.method == "none":
        return "no method is expected to score higher than the base model"
    if best:
        return "highest expected score"
    tied = ", not shown to differ from it" if option.tied else ""
    return f"{option.behind.mean:.1f} points behind the best expected score{tied}"


def _rests(option: Option) -> str:
    """Return the place and the id of the row from which settings are taken, and the number of other rows."""
    first, *others = option.support.ids
    more = f" and {len(others)} more" if others else ""
    return f"as on {option.support.nearest} (evidence: {first}{more})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def entry_text(settings: Mapping[str, Any]) -> str:
    """Format settings as a grid entry."""
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in settings.items()) + " }"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return entry_text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def unknowns(advice: Advice) -> Iterator[str]:
    """Yield a line for each fact about which the evidence says nothing."""
    place, places, ranked = advice.question.place, advice.places, advice.ranked
    models = sorted({one.model for one in places})
    if place.model not in models:
        yield f"scores on {place.model}: the evidence and its learning rates are from {_list(models)}"
    if not any(one.kin(place) for one in places):
        yield f"scores on {place.kind} tasks: the evidence has none"
    rows = [one.rows for one in places if one.rows]
    if place.rows and rows and not min(rows) <= place.rows <= max(rows):
        yield f"scores with {place.rows:,.0f} training rows: the evidence has {min(rows):,.0f} to {max(rows):,.0f}"
    tied = [option.method for option in ranked if option.tied]
    if len(tied) > 1:
        yield f"which of {_list(tied)} is best: they are not shown to differ"
    if any(option.support.seeds < 2 for option in ranked):
        yield "the spread over seeds of methods with only one seed in the evidence"
    if failed := [f"{option.method} ({option.support.failed})" for option in ranked if option.support.failed]:
        yield f"the score of failed runs: {_list(failed)}"
    if advice.published:
        yield "whether published results carry over: they are from other code, prompts, training and machines"
    if advice.unasked:
        yield f"the costs of {_list(list(advice.unasked))}: not forecast (see --top)"


def _list(names: Sequence[str]) -> str:
    more = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {more} more" if more > 0 else "")


def data(advice: Advice, starts: Starts, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """Return advice as JSON values."""
    question, place = advice.question, advice.question.place
    return {
        "evidence": "published" if advice.published else "measured",
        "question": {
            "model": place.model,
            "task": place.task,
            "kind": place.kind,
            "rows": place.rows or None,
            "limits": dict(question.limits),
            "prefer": str(question.prefer),
            "within": question.within,
        },
        "recommended": advice.ranked[0].method if advice.ranked else None,
        "least": {"method": least.method, "needed": dict(least.needed)} if (least := advice.least) else None,
        "methods": [_option(option, advice, starts) for option in advice.options],
        "unknown": [*unknowns(advice), *remarks],
        "cells": len(advice.places),
    }


def _option(option: Option, advice: Advice, starts: Starts) -> dict[str, Any]:
    return {
        "method": option.method,
        "rank": option.rank,
        "tied": option.tied if option.rank else None,
        "verdict": option.verdict,
        "why": option.why,
        "reason": reason(option, advice) if option.rank else None,
        "score": _interval(option.score),
        "advantage": _interval(option.advantage),
        "behind_best": _interval(option.behind) if option.rank else None,
        "pscp": option.pscp,
        "costs": dict(option.costs),
        "start": dict(starts[option.method]),
        "settings_of": str(option.support.nearest),
        "evidence": list(option.support.ids),
        "cells": option.support.cells,
        "cells_of_kind": option.support.of_kind,
        "seeds": option.support.seeds,
        "failed_runs": option.support.failed,
    }


def _interval(guess: Guess) -> dict[str, float]:
    return {"mean": guess.mean, "low": guess.mean - guess.half, "high": guess.mean + guess.half}


def evaluation_section(found: RegretReport, published: bool) -> Section:
    """Return the regret of each rule as a section."""
    lines = tuple(
        (
            policy.name,
            interval_text(policy.regret),
            ABSENT if policy.name == ADVISOR else interval_text(policy.over_advisor),
            str(policy.tasks),
        )
        for policy in found.policies
    )
    by = "published figures" if published else "measured runs"
    sheet = Table("", ("Rule", "Points lost", "More than the advisor", "Tasks"), 1, lines)
    covered = "" if found.covered is None else f" {100 * found.covered:.0f} % of the scores lay in their 95 % interval."
    remarks = (
        f"Each task was left out in turn: {_count(found.cells, 'cell')}. Points lost are relative to the method with "
        f"the best score in the cell itself ({ORACLE}), with a 95 % interval over tasks.{covered}",
        f"If methods are close, the oracle's choice is partly luck; “{SEEDS}” uses the same task and shows how many "
        "points are lost to the spread over seeds alone.",
    )
    return Section("regret", f"Leave-one-task-out regret, {by}", "", (sheet,), remarks=remarks)
