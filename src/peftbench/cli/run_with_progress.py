"""How commands do runs: do the runs that have no result yet, with live progress, then print the leaderboard."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peftbench.cli.options import ids, snapshot_of
from peftbench.cli.output import console, print_json, records, say, spoken_warnings
from peftbench.core.spec import BAD, FAULTY

if TYPE_CHECKING:
    from peftbench.report.loaded_results import Results
    from peftbench.results.read_cache import IndexEntry
    from peftbench.studies._pscp_weights import Weights
    from peftbench.tuning import Search

SHOWN = 3
"""Maximum number of reasons that are printed; if there are more, only `peftbench status` lists them."""


def run_and_report(
    grid: Mapping[str, Any] | str,
    store: Path,
    *,
    models: "Sequence[str]" = (),
    limit: int | None = None,
    size: str | None = None,
    as_json: bool,
    **how: Any,
) -> None:
    """Do the missing runs of a grid, and print the leaderboard. `how`: the other arguments of `peftbench.run`.

    Exit status as `exit_status` says; 128 and the number of the signal after one (130: Ctrl-C).
    """
    import peftbench
    from peftbench.launch import StoppedError
    from peftbench.report.loaded_results import Results
    from peftbench.tuning import search as search_of

    stopped, runs = None, None
    try:
        with spoken_warnings(), stopped_by_signal():
            runs = peftbench.run(grid, store, models=models, limit=limit, size=size, progress=True, **how)
    except StoppedError as error:
        stopped = error
    after = snapshot_of(store)
    if stopped and not after.entries():
        raise stopped
    search = search_of(grid, after.run_results(), models, limit, size)
    wanted = ids(search.asked())
    leaderboard(Results(after, wanted, runs=runs), as_json)
    say_fruitless(search)
    ended = [entry for id_, entry in after.entries().items() if id_ in wanted]
    bad = [result for result in ended if result.status in BAD]
    reasons = list(dict.fromkeys((result.status, str(result.error)) for result in bad))
    for how_ended, reason in reasons if len(reasons) <= SHOWN else ():
        say(f"{'error' if how_ended in FAULTY else how_ended}: {reason}", stderr=True)
    if bad:
        counts = Counter(result.status for result in bad)
        say(
            f"{', '.join(f'{count} {status}' for status, count in counts.items())}: `peftbench status` shows why, "
            "--retry-failed runs them again",
            stderr=True,
        )
    if stopped:
        say(f"error: {stopped}", stderr=True)
    if status := exit_status(len(wanted), ended):
        raise typer.Exit(status)


def exit_status(asked: int, ended: "Sequence[IndexEntry]") -> int:
    """Exit status 0: every requested run has a result; 1: some failed or are missing; 2: none has a result."""
    good = sum(result.status not in FAULTY for result in ended)
    return 0 if good == asked else 1 if good else 2


@contextmanager
def stopped_by_signal() -> Iterator[None]:
    """After a signal, say how to resume. Exit status 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    from peftbench.launch import signal_exit_status

    try:
        yield
    except KeyboardInterrupt as stop:
        again = shlex.join(["peftbench", *sys.argv[1:]])
        say(f"stopped; every finished run is kept. To resume, repeat the command: {again}", stderr=True)
        raise typer.Exit(signal_exit_status(stop)) from None


def say_fruitless(search: "Search") -> None:
    """Print a line for each search in which every trial failed."""
    for study in search.fruitless():
        say(f"error: every trial of {study} failed, so there are no settings to run on the grid's seeds", stderr=True)


def leaderboard(found: "Results", as_json: bool) -> None:
    """Print the leaderboards and other sections of some runs."""
    from peftbench.studies._run_conditions import fewer

    for task, rows in fewer(found.runs).items():
        say(f"note: {task} has only {rows:,} training rows", stderr=True)
    print_results(found, as_json)


def print_results(
    found: "Results", as_json: bool, weights: "Sequence[Weights]" = (), *, published: bool = False
) -> None:
    """Print the leaderboards and sections of runs; with `published`, also the published figures on their tasks.

    If there are no runs, all published figures are printed.
    """
    data, runs = found.run_data(weights), found.runs
    if as_json:
        told = {
            "leaderboards": [board.to_dict() for board in data.leaderboards],
            "runs": records(runs.drop(columns="row_scores", errors="ignore")),
        }
        told |= {section.name: section.data for section in data.sections}
        print_json(told | {"published": records(found.published)} if published else told)
        return
    from peftbench.report.published_tables import published_tables
    from peftbench.report.terminal import View, print_published, print_section

    for board in data.leaderboards:
        console().print(View(board))
    for section in data.printed_sections:
        print_section(console(), section)
    if not published or found.published.empty:
        return
    figures = found.published
    on_tasks = figures if runs.empty else figures[figures["task"].isin(runs["task"])]
    print_published(console(), published_tables(on_tasks))
    if len(on_tasks) < len(figures):
        say(f"{len(figures) - len(on_tasks)} more published figures on other tasks are in the written report")
