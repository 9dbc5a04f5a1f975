"""Searches for settings: score and rank by the number of trials, what was chosen, and the log of all trials."""

from collections.abc import Mapping
from functools import partial

from peftbench.report.columns import ABSENT, seeds_text
from peftbench.studies.figures import Style, beside, drawing, frame, svg
from peftbench.studies.label_layout import spread
from peftbench.studies.report_data import Evidence, Section, Sheet
from peftbench.studies.tuning_trials import Searches, searches

ABOUT = (
    "Every method was given the same number of trials on each task, on seeds that its own runs do not use. Of the "
    "first so many trials, the one with the lowest validation loss is taken, never by test score. What is shown is its "
    "test score on those seeds, as a mean over the tasks, with its rank. The leaderboards have the winners' runs."
)
NO_INTERVAL = (
    "Scores of trials are of the few seeds of trials and have no interval: no small difference or rank among them is "
    "told apart."
)


def section(evidence: Evidence) -> Section | None:
    """The section of searches, if there are any trials."""
    found = searches(evidence.table)
    if not found:
        return None
    figures = {
        _title(each): partial(_figure, each, evidence.looks, f"trials-{number}")
        for number, each in enumerate(found)
        if len(each.bought) > 1
    }
    sheets = [sheet for each in found for sheet in (_by_number(each), _chosen(each)) if sheet.lines]
    remarks = (NO_INTERVAL, *(remark for each in found for remark in _remarks(each)))
    data = [each.to_dict() for each in found]
    return Section("trials", "What trials buy", ABOUT, tuple(sheets), figures, remarks, data)


def _title(each: Searches) -> str:
    return f"{each.model}, {each.size} training rows, {each.machine_class}, trials on {seeds_text(each.seeds)}"


def _columns(count: int) -> list[int]:
    """All numbers of trials up to 4, then each half as large again or so, and the last."""
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    return sorted({*(step for step in steps if step < count), count})


def _by_number(each: Searches) -> Sheet:
    bought = {one.trials: one for one in each.bought}
    shown = [bought[count] for count in _columns(len(bought))] if bought else []

    def text(method: str) -> list[str]:
        pairs = [(one.scores[method], one.ranks[method]) for one in shown]
        return [ABSENT if score is None else f"{score:.1f} ({rank})" for score, rank in pairs]

    last = each.bought[-1].scores if each.bought else {}
    order = sorted(each.trials, key=lambda m: (last.get(m) is None, -(last.get(m) or 0.0), m))
    lines = tuple((method, *text(method)) for method in order) if shown else ()
    headings = ("Method", *(f"{one.trials} trial{'s' * (one.trials > 1)}" for one in shown))
    return Sheet(f"{_title(each)}: test score (rank) by the number of trials", headings, 1, lines)


def _chosen(each: Searches) -> Sheet:
    headings = ("Method", "Task", "Chosen", "Trial", "Validation loss", "Trials")
    lines = tuple(
        (
            one.method,
            one.task,
            one.settings or "nothing: no trial ended well",
            ABSENT if one.trial is None else str(one.trial),
            ABSENT if one.validation_loss is None else f"{one.validation_loss:.3f}",
            ", ".join(f"{count} {ending}" for ending, count in one.endings.items()),
        )
        for one in each.chosen
    )
    return Sheet(f"{_title(each)}: settings chosen on validation", headings, 3, lines)


def _remarks(each: Searches) -> list[str]:
    said = []
    several = [method for method, label in each.labels.items() if method != label]
    if several:
        fixed = "; ".join(f"{method}: {each.fixed[method] or 'the default settings'}" for method in several)
        said.append(f"{_title(each)}: several searches of one method, by other ranges or with other settings: {fixed}.")
    if len(each.seeds) == 1:
        said.append(f"{_title(each)}: trials ran on one seed, so settings are chosen for that one.")
    if len(set(each.trials.values())) > 1:
        counts = ", ".join(f"{count} for {method}" for method, count in each.trials.items())
        said.append(f"{_title(each)}: the searches are not complete: {counts} trials on each task at least.")
    lost = [f"{one.method} on {one.task}" for one in each.chosen if one.trial is None]
    if lost:
        said.append(f"{_title(each)}: no trial ended well, so there is no run on the grid's seeds: {', '.join(lost)}.")
    return said


def _figure(each: Searches, looks: Mapping[str, Style], name: str) -> str:
    with drawing((6.4 + beside(each.trials), max(3.2, 0.17 * len(each.trials) + 1.2))) as figure:
        axes = figure.subplots()
        ends = []
        for method in each.trials:
            points = [(one.trials, score) for one in each.bought if (score := one.scores[method]) is not None]
            if not points:
                continue
            colour, marker, dash = looks[each.labels[method]]
            x, y = zip(*points, strict=True)
            axes.step(x, y, dash, where="post", color=colour, marker=marker, ms=4, lw=1.4)
            ends.append((method, float(x[-1]), float(y[-1]), colour))
        axes.set_xticks(_columns(len(each.bought)))
        frame(axes, "Trials", "Mean test score of the best by validation")
        figure.draw_without_rendering()
        spread(axes, ends)
        return svg(figure, name, "Mean test score against the number of trials, one line per method")
