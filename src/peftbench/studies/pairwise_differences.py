"""Win, loss or neither for every pair of methods, ranks over tasks, and statistics other than the mean."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from peftbench.stats.intervals import Scores
from peftbench.stats.paired_tests import ALPHA, Comparison, holm, wilcoxon
from peftbench.stats.paired_tests import verdicts as told
from peftbench.stats.ranks import FEW, Ranks, rank_methods
from peftbench.stats.resampling import Resampled, bootstrap, improvement, interquartile_mean
from peftbench.studies._figure_style import ROW, STRONG, WIDTH, Rows, Style, chart, method_encodings, of, vega_spec
from peftbench.studies._missing_cells import scores_of
from peftbench.studies._text_format import ABSENT, UNTOLD
from peftbench.studies.leaderboard import Leaderboard
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

ORDER = 20
PRINTED = False
REFERENCE = "lora"
ABOUT = (
    f"Every pair of methods on the same tasks and seeds: W if the method of the row wins, L if it loses, {UNTOLD} if "
    "they are not shown to differ, with the observed difference in points. A win is significant at 5 % after Holm's "
    "correction over all pairs of the leaderboard."
)
BOOTSTRAP = (
    "IQM and the probability of improvement have bootstrap intervals over the runs. These are too narrow with few "
    "seeds, so no verdict is based on them. IQM is the mean of the middle half of all runs of all tasks."
)


@dataclass(frozen=True)
class Differences:
    """Statistics of the pairs of a leaderboard beyond its comparisons.

    `unpaired`: number of runs without scores per test row. `ranks`: ranks over tasks, for at least three methods and
    two tasks. `bootstrap`: by method, the interquartile mean, and the probability of improvement over the reference
    (`None` for the reference itself). `wilcoxon`: a signed-rank test for every pair, for at least six tasks.
    """

    board: Leaderboard
    unpaired: int
    ranks: Ranks | None
    bootstrap: Mapping[str, tuple[Resampled, Resampled | None]]
    wilcoxon: list[dict[str, Any]]


def analyse(data: RunData) -> list[Differences] | None:
    """Return the differences of each leaderboard with at least two methods that can be compared."""
    runs = {str(group): group.runs for group in data.groups}
    found = []
    for board in data.leaderboards:
        if board.comparisons:
            scores = _scores(board, runs[board.title])
            lacking = sum(run.rows is None for held in scores.values() for own in held.values() for run in own.values())
            found.append(Differences(board, lacking, _ranks(scores), _bootstrap(scores), _signed_ranks(scores)))
    return found or None


def present(found: Sequence[Differences], styles: Mapping[str, Style]) -> Section:
    """Return a matrix of verdicts, a table of ranks and a critical-difference diagram per leaderboard."""
    sheets: list[Table] = []
    remarks, data = [BOOTSTRAP], []
    for one in found:
        title, ranks = one.board.title, one.ranks
        remarks += _unpaired(title, one.unpaired)
        sheets += [_matrix(one.board), _summary(one)]
        if ranks:
            remarks.append(f"{title}: {_friedman(ranks)}")
        remarks += [f"{title}: {_signed(one.wilcoxon, ranks)}"] if one.wilcoxon and ranks else []
        data.append(_data(one))
    return Section(
        "verdicts",
        "Wins, losses, not shown to differ",
        ABOUT,
        tuple(sheets),
        lambda: (diagram(one.board.title, one.ranks, styles) for one in found if one.ranks),
        tuple(remarks),
        data,
    )


def _scores(board: Leaderboard, runs: "pd.DataFrame") -> dict[str, Scores]:
    """Return the scores of the methods that have all cells, best first."""
    return {row.method: scores_of(runs[runs["label"] == row.method], ()) for row in board.rows if row.mean}


def _unpaired(about: str, lacking: int) -> list[str]:
    """Return a remark on runs whose test rows cannot be paired, if there are any."""
    runs = "1 run has no scores" if lacking == 1 else f"{lacking} runs have no scores"
    said = "differences are not paired by row and their error is too large"
    return [f"{about}: {runs} per test row, so {said}."] if lacking else []


def _ranks(scores: dict[str, Scores]) -> Ranks | None:
    means = {method: _means(held) for method, held in scores.items()}
    return rank_methods(means) if len(means) > 2 and len(next(iter(means.values()))) > 1 else None


def _means(scores: Scores) -> dict[str, float]:
    return {task: fmean(run.score for run in runs.values()) for task, runs in scores.items()}


def _bootstrap(scores: dict[str, Scores]) -> dict[str, tuple[Resampled, Resampled | None]]:
    """Return IQM and the probability of improvement over the reference; the same runs give the same intervals."""
    reference = _reference(scores)
    return {
        method: (
            bootstrap(held, interquartile_mean, np.random.default_rng(0)),
            None if method == reference else improvement(held, scores[reference], np.random.default_rng(0)),
        )
        for method, held in scores.items()
    }


def _reference(methods: "Any") -> str:
    return REFERENCE if REFERENCE in methods else str(next(iter(methods)))


def _matrix(board: Leaderboard) -> Table:
    names = [row.method for row in board.rows if row.mean]
    cells = {(c.first, c.second): c for c in board.comparisons} | {(c.second, c.first): c for c in board.comparisons}
    lines = [(a, *("" if a == b else _cell(cells[a, b], a) for b in names)) for a in names]
    pairs = len(board.comparisons)
    untold = sum(c.verdict == "tie" for c in board.comparisons)
    note = f"{pairs} pair{'' if pairs == 1 else 's'}; {untold} not shown to differ."
    return Table(f"Method of the row against method of the column: {board.title}", ("", *names), 1, tuple(lines), note)


def _cell(compared: Comparison, method: str) -> str:
    gap = compared.difference.mean * (1 if compared.first == method else -1)
    other = compared.second if compared.first == method else compared.first
    return f"{ {'win': 'W', 'loss': 'L', 'tie': UNTOLD}[told([compared], method)[other]] } {gap:+.1f}"


def _summary(one: Differences) -> Table:
    lines = []
    for method, (middle, better) in one.bootstrap.items():
        counts = list(told(one.board.comparisons, method).values())
        record = "–".join(str(counts.count(each)) for each in ("win", "loss", "tie"))
        mean_rank = f"{one.ranks.mean[method]:.2f}" if one.ranks else ABSENT
        lines.append((method, record, mean_rank, _ends(middle, ".1f"), _ends(better, ".2f")))
    heads = ("Method", "Wins–losses–not shown", "Mean rank", "IQM", f"P(better than {_reference(one.bootstrap)})")
    return Table(f"Ranks, IQM and probability of improvement: {one.board.title}", heads, 1, tuple(lines))


def _ends(found: Resampled | None, form: str) -> str:
    if found is None:
        return ABSENT
    if found.low is None or found.high is None:
        return f"{found.value:{form}} (?)"
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _friedman(found: Ranks) -> str:
    little = f" {found.tasks} tasks are too few for reliable ranks." if found.tasks < FEW else ""
    differ = "some mean ranks differ" if found.p < ALPHA else "no difference of mean ranks is shown"
    return (
        f"Friedman's test over {found.tasks} tasks: {differ} (χ² = {found.statistic:.2f}, p = {found.p:.2g}); two "
        f"methods differ if their mean ranks are at least {found.critical:.2f} apart (Nemenyi, 5 %).{little}"
    )


def _signed_ranks(scores: dict[str, Scores]) -> list[dict[str, Any]]:
    """Return Wilcoxon's test over task means for every pair, with Holm's correction; empty for fewer than six tasks."""
    means = {method: list(_means(held).values()) for method, held in scores.items()}
    if len(next(iter(means.values()))) < FEW:
        return []
    pairs = [(a, b) for i, a in enumerate(means) for b in list(means)[i + 1 :]]
    p = [wilcoxon([x - y for x, y in zip(means[a], means[b], strict=True)]) for a, b in pairs]
    return [
        {"first": a, "second": b, "p": one, "adjusted": float(all_)}
        for (a, b), one, all_ in zip(pairs, p, holm(p), strict=True)
    ]


def _signed(signed: Sequence[dict[str, Any]], found: Ranks) -> str:
    differ = []
    for pair in signed:
        if pair["adjusted"] < ALPHA:
            best, worst = sorted((pair["first"], pair["second"]), key=lambda m: found.mean[m])
            differ.append(f"{best} over {worst}")
    least = 2.0 ** (1 - found.tasks) * len(signed)
    hint = f" No pair can pass: {found.tasks} tasks are too few for {len(signed)} pairs." if least >= ALPHA else ""
    differences = ", ".join(differ) or "no pair differs"
    return f"Wilcoxon's signed-rank test over the tasks, Holm's correction: {differences}.{hint}"


def _data(one: Differences) -> dict[str, Any]:
    """Return plain values; the pairs themselves are in the leaderboard's `comparisons`."""
    over = _reference(one.bootstrap)
    return {
        "leaderboard": one.board.title,
        "ranks": asdict(one.ranks) if one.ranks else None,
        "interquartile_mean": {method: asdict(middle) for method, (middle, _) in one.bootstrap.items()},
        "improvement": {"over": over, "of": {m: asdict(better) for m, (_, better) in one.bootstrap.items() if better}},
        "wilcoxon": one.wilcoxon,
    }


def diagram(title: str, found: Ranks, looks: Mapping[str, Style]) -> Figure:
    """Return Demšar's critical-difference diagram: methods by mean rank, best at the left.

    Bars join methods that do not differ. Rows from the top: the critical difference, the axis, a bar per group, and the
    names, the better half at the left.
    """
    import altair as alt

    k, bars = len(found.mean), len(found.groups)
    half = (k + 1) // 2
    named: Rows = []
    lines: Rows = []
    for number, (method, rank) in enumerate(found.mean.items()):
        left = number < half
        row = bars + 0.6 + (number if left else k - 1 - number)
        end = 1 if left else k
        named.append({"method": method, "rank": rank, "end": end, "row": row, "said": f"{method} {rank:.2f}"})
        lines += [
            {"method": method, "rank": x, "row": y, "point": point}
            for point, (x, y) in enumerate([(rank, 0.0), (rank, row), (end, row)])
        ]
    joined: Rows = [
        {"from": found.mean[group[0]] - 0.03, "to": found.mean[group[-1]] + 0.03, "row": number + 0.6}
        for number, group in enumerate(found.groups)
    ]
    shown = "" if found.critical <= k - 1 else " (wider than the scale)"
    critical: Rows = [
        {"from": 1, "to": 1 + min(found.critical, k - 1), "row": -1.6}
        | {"said": f"critical difference {found.critical:.2f}{shown}"}
    ]
    encoded = method_encodings({method: looks[method] for method in found.mean}, legend=False)
    axis = alt.Axis(orient="top", values=list(range(1, k + 1)), format="d", grid=False, tickCount=k, offset=-2.2 * ROW)
    x = alt.X(scale=alt.Scale(domain=[1, k], nice=False), axis=axis, title=None)
    y = alt.Y("row:Q", scale=alt.Scale(domain=[-2.2, bars + half], reverse=True, nice=False), axis=None)
    names = chart(named)
    layers = [
        chart(lines).mark_line().encode(x=of(x, "rank"), y=y, **encoded.plain, order="point:Q"),
        chart(joined).mark_rule(style=STRONG).encode(x=of(x, "from"), x2="to:Q", y=y),
        chart(critical).mark_errorbar(ticks=True).encode(x=of(x, "from"), x2="to:Q", y=y),
        chart(critical).mark_text(align="left", dy=-10).encode(x=of(x, "from"), y=y, text="said:N"),
        names.transform_filter("datum.end == 1")
        .mark_text(align="right", dx=-6)
        .encode(x=of(x, "end"), y=y, text="said:N"),
        names.transform_filter("datum.end > 1")
        .mark_text(align="left", dx=6)
        .encode(x=of(x, "end"), y=y, text="said:N"),
    ]
    made = alt.layer(*layers).properties(width=WIDTH, height=ROW * (bars + half + 2.2))
    words = "Mean ranks of the methods, bars joining those that do not differ"
    return Figure(f"Critical difference of mean ranks: {title}", vega_spec(made), words)
