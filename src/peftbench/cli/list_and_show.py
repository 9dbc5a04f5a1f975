"""Commands about units: `list` and `show`."""

import json
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer

from peftbench.cli import shell_completion
from peftbench.cli.options import RESULTS, AsJson, DataDir, Plugins, StoreDir, held_store, plug
from peftbench.cli.output import console, print_json, print_rows, say, warn_damaged
from peftbench.core.registry import UserError, did_you_mean

RUN_COLUMNS = ["id", "model", "method", "method_arguments", "task", "size", "seed", "status", "score"]


def list_units(
    what: Annotated[
        str,
        typer.Argument(
            help="models, methods, tasks, suites, metrics, weights, grids, devices or runs",
            autocompletion=shell_completion.complete_kinds,
        ),
    ],
    store: StoreDir = RESULTS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List models, methods, tasks, metrics, grids, runs.

    Also lists suites, PSCP weights and devices for `--device`, one per line. `show` gives all facts of one of them,
    --json those of all.
    """
    plug(plugin)
    if what == "runs":
        _list_runs(store, as_json)
        return
    from peftbench.cli.method_and_task_facts import BRIEF, listing

    rows = listing(what)
    if as_json:
        print_json(rows)
    elif rows:
        headings = list(BRIEF[what])
        cells = [["–" if row[heading] is None else str(row[heading]) for heading in headings] for row in rows]
        print_rows(headings, _short(headings, cells))


def _list_runs(store: Path, as_json: bool) -> None:
    rows = _runs(store)
    if as_json:
        print_json(rows)
    elif rows:
        rows = _in_lines(rows)
        print_rows(list(rows[0]), [["–" if value is None else str(value) for value in row.values()] for row in rows])


def _short(headings: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Rows whose last column is cut to the width of the console, so that each row is one line."""
    others = [max(len(row[at]) for row in [headings, *rows]) for at in range(len(headings) - 1)]
    room = max(console().width - sum(others) - 2 * len(others) - 2, 16)
    return [[*row[:-1], shorten(row[-1], room, placeholder=" …")] for row in rows]


def _runs(store: Path) -> list[dict[str, Any]]:
    """The runs of a store; if some are trials of searches, with the number of the trial, from 1."""
    from peftbench.core.jsonable import to_json
    from peftbench.studies._run_conditions import FACTS

    place = held_store(store, result_files_only=True)
    rows = place.rows()
    warn_damaged(place.damaged)
    searched = any(row["trial"] is not None for row in rows)
    listed = []
    for row in rows:
        told = {name: row[name] for name in (*RUN_COLUMNS, *FACTS)}
        told["score"] = None if row["score"] is None else round(row["score"], 2)
        if searched:
            told["trial"] = None if row["trial"] is None else row["trial"] + 1
        listed.append(to_json(told))
    return listed


def _in_lines(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs as a listing shows them, with the conditions of each run in one column."""
    from peftbench.studies._run_conditions import FACTS, run_conditions_text

    return [
        {name: value for name, value in run.items() if name not in FACTS} | {"what was run": run_conditions_text(run)}
        for run in runs
    ]


def show(
    words: Annotated[
        list[str],
        typer.Argument(
            help="name of a model, method, task, suite, metric or grid, or the start of a run's id; the kind may come "
            "first, as in `show task cola`",
            metavar="[KIND] NAME",
            autocompletion=shell_completion.complete_names,
        ),
    ],
    store: StoreDir = RESULTS,
    data: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show one unit, grid or run in full.

    A method is shown with its arguments, a task with a rendered example.
    """
    plug(plugin)
    kind, name = _named(words)
    facts = _facts(kind, name, store, data)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        say(f"{key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")


def _named(words: list[str]) -> tuple[str | None, str]:
    """The kind, if it is given, and the name. Raises `UserError`."""
    from peftbench.cli.method_and_task_facts import SHOWN, known_names

    kinds = [*SHOWN, "run"]
    *said, name = words
    if len(said) > 1:
        raise UserError(
            f"show {' '.join(words)}: give one name: show [KIND] NAME, where KIND is one of {', '.join(kinds)}"
        )
    if said and said[0] not in kinds:
        raise did_you_mean("kind of thing to show", said[0], kinds)
    if not said and name in kinds and name not in known_names():
        raise UserError(f"show {name}: the name is missing; `peftbench list {name}s` shows the names")
    return (said[0] if said else None), name


def _facts(kind: str | None, name: str, store: Path, data: Path | None) -> dict[str, Any]:
    """All facts of the thing of that name. Raises `UserError` if there is none."""
    from peftbench.cli.method_and_task_facts import known_names, unit_facts

    facts = unit_facts(name, data, kind) if kind != "run" else None
    if facts is not None:
        return facts
    if kind not in (None, "run") or (kind is None and set(name) - set("0123456789abcdef")):
        raise did_you_mean(kind or "model, method, task, suite, metric, grid or run", name, known_names(kind))
    result, folder = held_store(store).find(name)
    return dict(json.loads(result.model_dump_json(exclude_none=True))) | {"folder": str(folder)}
