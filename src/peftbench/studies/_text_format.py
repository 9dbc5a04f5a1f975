"""Text forms of numbers, intervals, seeds and missing cells, shared by the terminal, Markdown and HTML pages."""

from collections.abc import Iterable, Sequence

from peftbench.stats.intervals import Interval
from peftbench.studies._missing_cells import MissingCell

ABSENT = "–"

UNTOLD = "~"
"""Marks ranks and pairs of methods that are not shown to differ."""


def interval_text(interval: Interval | None, form: str = ".1f") -> str:
    """Format a mean with its interval as `71.5 [55.6, 87.4]`; `[?]` for an unknown interval."""
    return ABSENT if interval is None else ends_text(interval.mean, interval.low, interval.high, form)


def ends_text(mean: float, low: float | None, high: float | None, form: str = ".1f") -> str:
    """Format a number and both ends of its interval with the same number format."""
    return f"{mean:{form}} [?]" if low is None or high is None else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def interval_words(interval: Interval) -> str:
    """Return both ends of the interval in words, as the text alternative of a bar."""
    if interval.low is None or interval.high is None:
        return "interval not known"
    return f"95 % interval {interval.low:.1f} to {interval.high:.1f}"


def count_text(number: float) -> str:
    """Format a count with three digits and a unit letter: 4399104 is `4.40M`."""
    for unit, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit * 0.9995:
            return f"{_digits(number / unit)}{letter}"
    return f"{number:.0f}"


def _digits(number: float) -> str:
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


def duration_text(seconds: float) -> str:
    """Format a duration in seconds, such as `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def size_text(count: float) -> str:
    """Format a number of bytes, such as `1.44 MB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def seeds_text(seeds: Sequence[int]) -> str:
    """Format seeds: `seed 3`; `seeds 0, 4`; `seeds 0 to 4` for consecutive seeds."""
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def runs_text(count: int) -> str:
    """Format a number of runs: `1 run`, `2 runs`."""
    return f"{count} run{'' if count == 1 else 's'}"


def missing_cells_text(missing: Iterable[MissingCell]) -> list[str]:
    """Return missing cells as text, grouped by reason."""
    cells: dict[str, dict[str, list[int]]] = {}
    for cell in missing:
        reason = f"{cell.why} ({cell.error})" if cell.error else cell.why
        cells.setdefault(reason, {}).setdefault(cell.task, []).append(cell.seed)
    return [
        f"{', '.join(f'{task} {seeds_text(seeds)}' for task, seeds in tasks.items())}: {reason}"
        for reason, tasks in cells.items()
    ]


def lacking_text(missing: Iterable[tuple[str, Iterable[MissingCell]]]) -> list[str]:
    """Return methods with their missing cells as text; methods that lack the same cells are grouped."""
    methods: dict[str, list[str]] = {}
    for method, cells in missing:
        for text in missing_cells_text(cells):
            methods.setdefault(text, []).append(method)
    return [f"{', '.join(held)} lack{'s' * (len(held) == 1)} {text}" for text, held in methods.items()]
