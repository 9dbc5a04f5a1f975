"""The command `score`: score stored answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import RESULTS, AsJson, Plugins, StoreDir, held_store, plug
from peftbench.cli.output import print_json, print_rows, say, warn_damaged
from peftbench.core.registry import UserError

if TYPE_CHECKING:
    from peftbench.core.spec import Score
    from peftbench.results.rescore import Rescored


def score(
    answers: Annotated[
        Path | None,
        typer.Argument(
            help="a JSON-lines file with `prediction` and `references`, instead of runs in a store", metavar="[FILE]"
        ),
    ] = None,
    store: StoreDir = RESULTS,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="the start of a run's id; may be repeated; default: all runs", metavar="ID"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="metric instead of the run's own; may be repeated", metavar="NAME"),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="for a file: its labels, separated by commas")] = None,
    positive: Annotated[str | None, typer.Option(help="for a file: the positive label of f1")] = None,
    scale: Annotated[str | None, typer.Option(help="for a file: lowest and highest number, such as 0,5")] = None,
    save: Annotated[bool, typer.Option("--save", help="write the scores into the results in the store")] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Score stored answers again, or by other metrics.

    Nothing is trained or generated.

    Exit status 1: a metric has no value, or a score differs from the one in the store and --save was not given.
    """
    from peftbench.results.rescore import rescore, score_file

    plug(plugin)
    if answers is not None:
        if not metric:
            raise UserError("a file of answers needs at least one --metric; `peftbench list metrics` shows the names")
        scores = score_file(answers, metric, _facts(labels, positive, scale))
        _tell_file(scores, as_json)
        if any(each.value is None for each in scores.values()):
            raise typer.Exit(1)
        return
    place = held_store(store)
    ids = run or [id_ for id_, (result, folder) in place.results().items() if result.scores or result.answers]
    if not ids:
        raise UserError(f"store {store} has no run with answers; run a grid first")
    found = rescore(place, ids, metric or (), save)
    warn_damaged(place.damaged)
    differ = sum(not line.same for line in found)
    if as_json:
        print_json({"same": not differ, "scores": [_row(line) for line in found]})
    else:
        print_rows(["id", "metric", "in the store", "now", ""], [_cells(line) for line in found])
        say(f"{differ} of {len(found)} scores differ from the store{'; they were saved' if save and differ else ''}")
    if (differ and not save) or any(line.now.value is None for line in found):
        raise typer.Exit(1)


def _facts(labels: str | None, positive: str | None, scale: str | None) -> dict[str, Any]:
    words = [one.strip() for one in labels.split(",")] if labels else []
    facts: dict[str, Any] = {"labels": words, "positive": positive}
    if scale is not None:
        try:
            low, high = map(float, scale.split(","))
        except ValueError:
            raise UserError(f"--scale {scale}: give the lowest and the highest number, such as 0,5") from None
        facts["scale"] = (low, high)
    return facts


def _tell_file(scores: "dict[str, Score]", as_json: bool) -> None:
    if as_json:
        print_json({"scores": {name: score.model_dump() for name, score in scores.items()}})
        return
    rows = []
    for name, each in scores.items():
        error = "" if each.standard_error is None else f"{each.standard_error:.2f}"
        rows.append([name, _number(each), error, each.why or each.signature or ""])
    print_rows(["metric", "score", "standard error", ""], rows)


def _row(line: "Rescored") -> dict[str, Any]:
    stored = line.stored and line.stored.model_dump()
    return {"id": line.id, "metric": line.metric, "same": line.same, "stored": stored, "now": line.now.model_dump()}


def _cells(line: "Rescored") -> list[str]:
    said = "same" if line.same and line.stored else "new" if line.same else "DIFFERS"
    if not line.same and line.stored and line.stored.version != line.now.version:
        said += f": version {line.stored.version} then, {line.now.version} now"
    return [line.id, line.metric, _number(line.stored), _number(line.now), line.now.why or said]


def _number(score: "Score | None") -> str:
    return "–" if score is None or score.value is None else f"{score.value:.2f}"
