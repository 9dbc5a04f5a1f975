"""Advice in words and tables: what is ranked, why, what to start from, what it rests on, and what is not known."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from peftbench.advisor.recommend import PREFERENCES, Advice, Option
from peftbench.advisor.regret import ADVISOR, ORACLE, SEEDS, RegretReport
from peftbench.advisor.score_model import Guess
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
"""How a cost is written, by its unit."""
SHOWN = {
    "trainable_parameters": "Trainable",
    "peak_memory_bytes": "Peak",
    "train_seconds": "Training",
    "adapter_bytes": "Adapter",
    "latency_ms": "New token",
}
"""The costs that have a column, and its heading."""
LONG = 90
"""Characters of a reason in a table; the whole of it is in the JSON."""
MANY = 6
"""Names that are listed before the rest is counted."""
Starts = Mapping[str, Mapping[str, Any]]
"""By method, the entry of a grid to start from."""


def advice_section(advice: Advice, starts: Starts, remarks: Sequence[str] = ()) -> Section:
    """Advice to be printed. `remarks`: what else is not known, beside what the advice itself says."""
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
    """The method that comes nearest to the limits, and what it needs."""
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
    """What was asked, and by which evidence it is answered."""
    question, place = advice.question, advice.question.place
    rows = f"{place.rows:,.0f}" if place.rows else place.size
    limits = [f"{LIMITS[cost]} at most {_text(cost, most)}" for cost, most in question.limits.items()]
    by = "what others published" if advice.published else "what was measured"
    tasks = len({one.task for one in advice.places})
    asked = ", ".join([f"{place.model}, {place.task}, {rows} training rows", f"{_first(advice)} first", *limits])
    return f"{asked}. By {by}: {len(advice.places)} cells of {tasks} tasks"


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
        "Expected: score with its 95 % interval. Over mean: against the mean of the methods on the same task. Behind "
        "best: the highest expected score less this one. “~”: not shown to differ from that."
    )
    return Table("Ranked", headings, 2, tuple(lines), note)


def _score(guess: Guess) -> str:
    # Below 0 there are some scores, of metrics such as Matthews' correlation.
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
    """Why a method is where it is, in a sentence without its full stop."""
    support, kind = option.support, advice.question.place.kind or "this"
    return f"{_placed(option, advice)}; " + (
        f"above the mean in {support.ahead} and best in {support.first} of {_count(support.of_kind, f'{kind} cell')}"
        if support.of_kind
        else f"not tried on {kind} tasks, expected by {_count(support.cells, 'cell')} of other kinds"
    )


def _placed(option: Option, advice: Advice) -> str:
    prefer = advice.question.prefer
    if isinstance(prefer, WeightSet):
        return "no PSCP" if option.pscp is None else f"PSCP {option.pscp:.1f} by {prefer.name}"
    best = option.behind.mean == 0 and not option.behind.sd
    if PREFERENCES[prefer] and option.behind.mean <= advice.question.within:
        named = LIMITS[PREFERENCES[prefer]]
        order = "lowest" if option.rank == 1 else "by its"
        return f"{order} {named} among those within {advice.question.within:g} points of the best expected score"
    if best and option.method == "none":
        return "no method is expected to do better than the untouched base"
    if best:
        return "highest expected score"
    tied = ", which the evidence cannot tell apart" if option.tied else ""
    return f"{option.behind.mean:.1f} points behind the best expected score{tied}"


def _rests(option: Option) -> str:
    """The row that settings are taken from, and how many more there are."""
    first, *others = option.support.ids
    more = f" and {len(others)} more" if others else ""
    return f"as on {option.support.nearest} (evidence: {first}{more})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def entry_text(settings: Mapping[str, Any]) -> str:
    """Settings as an entry of a grid."""
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in settings.items()) + " }"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return entry_text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def unknowns(advice: Advice) -> Iterator[str]:
    """What the advice rests on nothing for, a line each."""
    place, places, ranked = advice.question.place, advice.places, advice.ranked
    models = sorted({one.model for one in places})
    if place.model not in models:
        yield f"how methods do on {place.model}: the evidence is of {_list(models)}, and so are learning rates"
    if not any(one.kin(place) for one in places):
        yield f"how methods do on {place.kind} tasks: there is none in the evidence"
    rows = [one.rows for one in places if one.rows]
    if place.rows and rows and not min(rows) <= place.rows <= max(rows):
        yield f"{place.rows:,.0f} training rows: the evidence has {min(rows):,.0f} to {max(rows):,.0f}"
    tied = [option.method for option in ranked if option.tied]
    if len(tied) > 1:
        yield f"which of {_list(tied)} is best: their intervals do not tell them apart"
    if any(option.support.seeds < 2 for option in ranked):
        yield "the spread between seeds, where the evidence has one seed"
    if failed := [f"{option.method} ({option.support.failed})" for option in ranked if option.support.failed]:
        yield f"the score of runs that ended without one: {_list(failed)}"
    if advice.published:
        yield "how far published figures carry over: other code, prompts, training and machines"
    if advice.unasked:
        yield f"the costs of {_list(list(advice.unasked))}: not looked for (--top)"


def _list(names: Sequence[str]) -> str:
    more = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {more} more" if more > 0 else "")


def data(advice: Advice, starts: Starts, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """Advice as plain values."""
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
    """The regret of each rule."""
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
        f"Each task was left out in turn: {_count(found.cells, 'cell')}. Points lost are against the method that "
        f"scored best in the cell itself ({ORACLE}), with a 95 % interval over tasks.{covered}",
        f"The oracle was lucky where methods are close; “{SEEDS}” knows the task and still loses what seeds take.",
    )
    return Section("regret", f"Leave-one-task-out regret, {by}", "", (sheet,), remarks=remarks)
