"""The section on train sizes: scores by size, power laws with their checked predictions, crossings with full."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from peftbench.report.columns import ABSENT, interval_text
from peftbench.report.tables import lacking
from peftbench.stats.power_law import FEWEST_SIZES, PowerLaw
from peftbench.studies.crossing import Crossing
from peftbench.studies.data_scale import NOTHING, Against, Curve, Scale, scales
from peftbench.studies.figures import Style, beside, drawing, frame, svg
from peftbench.studies.label_layout import spread
from peftbench.studies.report_data import Evidence, Section, Sheet

SEED = 0
"""Of the generator of the intervals: the same runs make the same report."""
ABOUT = (
    "Score against the number of training rows; a smaller training set is a part of a larger one of the same seed. "
    "Methods are compared as on the leaderboards: over the same tasks and seeds, with 95 % intervals."
)
LAW = (
    f"Where there are {FEWEST_SIZES} sizes or more, b is the exponent of error = a · rows^-b, fitted to all sizes but "
    "the largest; “Predicted” is what it says of that, with where 95 % of measurements would lie if the law held. "
    "It has no floor and no plateau."
)


def section(evidence: Evidence) -> Section | None:
    """The section, where some model was trained on two sizes or more."""
    import numpy as np

    found = scales(evidence.table, np.random.default_rng(SEED))
    if not found:
        return None
    return Section(
        "scale",
        "Training rows",
        ABOUT,
        (*map(_scores, found), *_crossings(found)),
        {_title(scale): partial(figure, scale, evidence.looks, f"scale-{i}") for i, scale in enumerate(found)},
        (LAW, *dict.fromkeys(remark for scale in found for remark in _remarks(scale))),
        [line for scale in found for line in _data(scale)],
    )


def words(against: Against) -> str:
    """Who is better at which sizes, and where that changes; no more than the intervals say."""
    if against.crossings:
        return "; ".join(_crossing(each, against) for each in against.crossings)
    told = {better: [rows for rows, sign in against.leads if sign == better] for better in (1, -1, 0)}
    if not told[1] and not told[-1]:
        return "cannot be told at any size" if told[0] else "no size in common"
    winner, rows = (against.method, told[1]) if told[1] else (against.full, told[-1])
    unknown = f"; cannot be told at {_listed(told[0])}" if told[0] else ""
    return f"no crossing seen: {winner} is better at {_listed(rows)} rows{unknown}"


def _crossing(crossing: Crossing, against: Against) -> str:
    below, above = (against.method, against.full)[:: 1 if crossing.first_below else -1]
    at, low, high = (f"{float(f'{rows:.2g}'):,.0f}" for rows in (crossing.rows, crossing.low, crossing.high))
    return f"below about {at} rows {below} is better, above {above} is better (95 %: {low} to {high} rows)"


def _listed(rows: Sequence[int]) -> str:
    texts = [f"{each:,}" for each in rows]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _subject(scale: Scale) -> str:
    return scale.tasks[0] if len(scale.tasks) == 1 else f"mean of {len(scale.tasks)} tasks"


def _title(scale: Scale) -> str:
    return f"{scale.model}, {scale.machine_class}: {_subject(scale)}"


def _scores(scale: Scale) -> Sheet:
    """A line for each method; with three sizes or more, its power law beside its scores."""
    rows = [number for _, number in scale.sizes]
    with_laws = len(rows) >= FEWEST_SIZES
    headings = [f"{number:,} rows" for number in rows] + ["b", "Predicted", "Measured", "As predicted"] * with_laws
    lines = []
    for curve in scale.curves:
        held = {point.rows: interval_text(point.score) for point in curve.points}
        line = [curve.method, *(held.get(number, ABSENT) for number in rows)]
        lines.append(tuple(line + _law(curve) * with_laws))
    return Sheet(f"{_title(scale)}, score by training rows", ("Method", *headings), 1, tuple(lines))


def _law(curve: Curve) -> list[str]:
    law = curve.law
    if isinstance(law, str):
        return [ABSENT] * 4
    b, predicted = f"{law.b:.2f}", f"{law.predicted:.1f}"
    if law.low is not None and law.high is not None:
        b += f" ({law.b_low:.2f} to {law.b_high:.2f})"
        predicted += f" ({law.low:.1f} to {law.high:.1f})"
    return [b, predicted, f"{law.measured:.1f}", _verdict(law)]


def _verdict(law: PowerLaw) -> str:
    if law.holds is None:
        return "cannot be told"
    return "yes" if law.holds else f"no, {'better' if law.measured > law.predicted else 'worse'}"


def _crossings(found: Sequence[Scale]) -> list[Sheet]:
    lines = [(_title(scale), each.method, words(each)) for scale in found for each in scale.against]
    if not lines:
        return []
    note = (
        "A crossing is said only where the intervals of the paired difference say so on both sides of it; its place is "
        "interpolated in the logarithm of the rows. Nothing is said of sizes outside those that were run."
    )
    headings = ("Of", "Method", "Against full fine-tuning")
    return [Sheet("Where methods cross full fine-tuning", headings, 3, tuple(lines), note)]


def _remarks(scale: Scale) -> Iterator[str]:
    """What is left out, and why there is no law."""
    about = f"{scale.model}, {scale.machine_class}"
    yield from (f"{about}: {reason}." for reason in scale.left_out)
    for size, _ in scale.sizes:
        missing = [(curve.method, dict(curve.lacking).get(size, ())) for curve in scale.curves]
        yield from (f"{about}, size {size} left out: {text}" for text in lacking(missing))
    for curve in scale.curves:
        if isinstance(curve.law, str) and curve.law != NOTHING and len(scale.sizes) >= FEWEST_SIZES:
            yield f"{_title(scale)}: no power law of {curve.method}: {curve.law}."


def _data(scale: Scale) -> Iterator[dict[str, Any]]:
    """A line for each method, without what is derived from the others."""
    against = {each.method: each for each in scale.against}
    for curve in scale.curves:
        law = None if isinstance(curve.law, str) else vars(curve.law)
        scores = [
            {"rows": p.rows, "mean": p.score.mean, "low": p.score.low, "high": p.score.high} for p in curve.points
        ]
        held = against.get(curve.method)
        yield {
            "model": scale.model,
            "machine_class": scale.machine_class,
            "tasks": list(scale.tasks),
            "method": curve.method,
            "scores": scores,
            "power_law": law,
            "crossings": [vars(each) for each in held.crossings] if held else [],
            "against_full": words(held) if held else None,
        }


def figure(scale: Scale, looks: Mapping[str, Style], name: str) -> str:
    """Score with its interval against training rows (log), a line a method. `name` keeps the ids on a page apart."""
    drawn = [curve for curve in scale.curves if curve.points]
    with drawing((7.6 + beside(curve.method for curve in drawn), max(3.6, 0.17 * len(drawn) + 0.9))) as canvas:
        axes = canvas.subplots()
        axes.set_xscale("log")
        axes.set_xticks([rows for _, rows in scale.sizes], [f"{rows:,}" for _, rows in scale.sizes])
        axes.xaxis.set_minor_formatter("")
        for i, curve in enumerate(drawn):
            colour, marker, dash = looks[curve.method]
            # Beside each other, or intervals of several methods could not be told apart.
            x = [point.rows * 1.02 ** (i - (len(drawn) - 1) / 2) for point in curve.points]
            means = [point.score.mean for point in curve.points]
            sides = list(zip(*(point.score.sides for point in curve.points), strict=True))
            axes.errorbar(x, means, sides, fmt=marker, ls=dash, ms=5, color=colour, capsize=2, lw=1.2)
        frame(axes, "Training rows", "Score (95 % interval)")
        canvas.draw_without_rendering()
        ends = [(c.method, float(c.points[-1].rows), c.points[-1].score.mean, looks[c.method][0]) for c in drawn]
        spread(axes, ends)
        return svg(canvas, name, f"Score against training rows, one line per method: {_title(scale)}")
