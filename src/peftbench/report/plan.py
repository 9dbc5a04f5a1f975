"""Presentation of a forecast: table rows, remarks, and an HTML page of all cells."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.report.template import render
from peftbench.studies._text_format import ABSENT, count_text, duration_text, size_text

if TYPE_CHECKING:
    from peftbench.profiling.detectable_difference import Resolution
    from peftbench.profiling.forecast import CellForecast, Forecast

WIDEST = 100.0
"""The largest possible difference of scores in points."""
HEADINGS = ("Model", "Method", "Runs", "Trainable", "+TFLOP", "Adapter", "Peak", "Train FLOP", "Time", "kWh")


def forecast_lines(ahead: "Forecast") -> Iterator[list[str]]:
    """Yield a line per model and method over the tasks and sizes that can be run; ranges if values differ."""
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
    """Yield a line per reason why cells will not be run."""
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
    """Yield remarks: cells that will not be run or are unknown, the totals, and their accuracy."""
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
        yield "Times are unknown for this machine: measure it with `peftbench calibrate`, or name a --device."
    elif not device.measured:
        yield "Times are from the data sheet and an assumed utilisation: accurate to about a factor of two."
    if not all(cell.known_lengths for cell in ahead.cells):
        yield "If rows or tokenizer are missing (--data), lengths are estimated by characters or set to the maximum."


def resolution_text(found: "Resolution") -> str:
    """Return text on the detectable differences of a leaderboard and the requirements to detect one point."""
    tasks, least, most = len(found.test_rows), min(found.test_rows), max(found.test_rows)
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    known = f"a spread over seeds of {found.spread:.1f} points ({'measured' if found.measured_spread else 'assumed'})"
    worst = f"Based on {known}; worst case: accuracies of 50 % and independent errors over test rows."
    if found.pair > WIDEST:
        return f"{found.model}, {found.size} training rows: no difference will be detected except by chance. {worst}"
    several = (
        f" ({found.board:.1f} among all {found.methods} methods)" if found.board < WIDEST and found.methods > 2 else ""
    )
    seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    alone = "" if found.seeds > 1 else " One seed does not show the spread over seeds: wins may be due to chance."
    return (
        f"{found.model}, {found.size} training rows: with {seeds} and {rows} test rows on {tasks} "
        f"task{'' if tasks == 1 else 's'}, a difference of two methods of {found.pair:.1f} points{several} is detected "
        f"80 % of the time, smaller ones less often; 1 point needs {found.needed_rows:,} test rows on each task and "
        f"{found.needed_seeds} seeds. {worst}{alone}"
    )


def forecast_page(ahead: "Forecast", title: str) -> str:
    """Return all cells as one self-contained HTML page. All text is escaped."""
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
