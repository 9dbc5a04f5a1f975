"""A forecast to be read: lines of a table, a page of all cells."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.report.template import render
from peftbench.studies._text_format import ABSENT, count_text, duration_text, size_text

if TYPE_CHECKING:
    from peftbench.profiling.detectable_difference import Resolution
    from peftbench.profiling.forecast import CellForecast, Forecast

WIDEST = 100.0
"""Points: no scores differ by more."""
HEADINGS = ("Model", "Method", "Runs", "Trainable", "+TFLOP", "Adapter", "Peak", "Train FLOP", "Time", "kWh")


def forecast_lines(ahead: "Forecast") -> Iterator[list[str]]:
    """A line for each model and method, over its tasks and sizes that can be run; ranges where they differ."""
    groups: dict[tuple[str, str], list[CellForecast]] = {}
    for cell in ahead.cells:
        groups.setdefault((cell.model, cell.method), []).append(cell)
    for (model, method), cells in groups.items():
        able = [cell for cell in cells if cell in ahead.runnable]
        yield [
            *(model, method, str(sum(cell.seeds for cell in able))),
            _range((cell.trainable_parameters for cell in cells), count_text),
            _range((cell.extra_forward_flops_512 for cell in cells), lambda n: f"{n / 1e12:.3g}"),
            _range((cell.adapter_bytes for cell in cells), size_text),
            _range((cell.peak_memory_bytes for cell in cells), size_text),
            _sum(able, "train_flops", count_text),
            _sum(able, "seconds", duration_text),
            _sum(able, "joules", lambda n: f"{n / 3.6e6:.3g}"),
        ]


def troubles(ahead: "Forecast", statuses: Sequence[str] = ("refused", "does not fit")) -> Iterator[str]:
    """What will not be done and why, a line a reason."""
    for status in statuses:
        reasons: dict[tuple[str, str, str], list[str]] = {}
        for cell in ahead.cells:
            if cell.status == status:
                why = cell.why if status != "does not fit" else f"there are {cell.why.rpartition('there are ')[2]}"
                reasons.setdefault((cell.model, cell.method, why), []).append(cell.task)
        for (model, method, why), tasks in reasons.items():
            named = ", ".join(dict.fromkeys(tasks)) if len(tasks) < 6 else f"{len(tasks)} cells"
            yield f"{status}: {method} of {model} on {named}: {why}"


def forecast_remarks(ahead: "Forecast") -> Iterator[str]:
    """What will not be done or is not known, the totals, and how far they can be trusted."""
    yield from troubles(ahead, ("refused", "does not fit", "not known"))
    device, time = ahead.device, ahead.makespan
    runs = sum(cell.seeds for cell in ahead.runnable)
    whole = ABSENT if time is None else duration_text(time)
    flops, energy = ahead.total("train_flops"), ahead.total("joules")
    yield (
        f"{runs} runs on {device.name}, {ahead.workers} at a time: {whole} in all"
        f"{'' if flops is None else f', {count_text(flops)} FLOP of training'}"
        f"{'' if energy is None else f', at most {energy / 3.6e6:.3g} kWh'}"
    )
    if device.rates is None:
        yield "Times are not known of this machine: measure it with `peftbench calibrate`, or name a --device."
    elif not device.measured:
        yield "Times are by the data sheet and an assumed share of it: right to a factor of two or so."
    if not all(cell.known_lengths for cell in ahead.cells):
        yield "Where rows or tokenizer are not at hand (--data), lengths are judged: by characters, or at the longest."


def resolution_text(found: "Resolution") -> str:
    """Which differences a leaderboard will tell apart, and what one point would need, in a sentence or two."""
    tasks, least, most = len(found.test_rows), min(found.test_rows), max(found.test_rows)
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    known = f"a spread over seeds of {found.spread:.1f} points ({'measured' if found.measured_spread else 'assumed'})"
    worst = f"By {known}; at worst: accuracies of 50 %, and methods that share nothing of the error over test rows."
    if found.pair > WIDEST:
        return f"{found.model}, {found.size} training rows: nothing will be told apart but by luck. {worst}"
    several = (
        f", {found.board:.1f} among all {found.methods} methods" if found.board < WIDEST and found.methods > 2 else ""
    )
    seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    alone = "" if found.seeds > 1 else " One seed does not show the spread of seeds: wins may be luck."
    return (
        f"{found.model}, {found.size} training rows: with {seeds} and {rows} test rows on {tasks} "
        f"task{'' if tasks == 1 else 's'}, differences of two methods under {found.pair:.1f} points will not be told "
        f"apart (80 % of the time){several}; 1 point needs {found.needed_rows:,} test rows on each task and "
        f"{found.needed_seeds} seeds. {worst}{alone}"
    )


def forecast_page(ahead: "Forecast", title: str) -> str:
    """All cells as one page of HTML that needs nothing but itself. Every text in it is escaped."""
    return render(
        "plan.html.j2",
        title=title,
        headings=HEADINGS,
        lines=list(forecast_lines(ahead)),
        remarks=list(forecast_remarks(ahead)),
        cells=[(cell, _parts(cell)) for cell in ahead.cells],
        device=ahead.device,
        most=max((cell.peak_memory_bytes or 0 for cell in ahead.cells), default=0) or 1,
        shown={"size": size_text, "duration": duration_text, "humane": count_text, "absent": ABSENT},
    )


def _parts(cell: "CellForecast") -> list[tuple[str, int]]:
    names = ("weights", "gradients", "optimizer_states", "activations")
    return [(name.replace("_", " "), getattr(cell, f"peak_{name}_bytes") or 0) for name in names]


def _range(values: Iterable[float | None], form: Any) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ABSENT
    low, high = form(min(known)), form(max(known))
    return str(low) if low == high else f"{low}-{high}"


def _sum(cells: "list[CellForecast]", cost: str, form: Any) -> str:
    values = [(getattr(cell, cost), cell.seeds) for cell in cells]
    if not values or any(value is None for value, _ in values):
        return ABSENT
    return str(form(sum(value * seeds for value, seeds in values)))
