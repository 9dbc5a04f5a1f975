"""A run done again, to see whether it finds the same."""

from dataclasses import replace
from typing import Any

from peftbench.core.registry import UnknownNameError, UserError
from peftbench.core.spec import RunResult, RunSpec
from peftbench.launch import Options, Watch, ignore
from peftbench.launch.local import launch
from peftbench.methods import METHODS
from peftbench.models import at
from peftbench.results.run_diff import RunDiff, compare_runs
from peftbench.results.store import Store
from peftbench.tasks import resolve

COMPARABLE = ("ok", "diverged", "pruned")
"""How a run must have ended: one that failed found nothing, and why it did is not told by a second failure."""


def reproduce_run(first: RunResult, store: Store, again: Store, options: Options, watch: Watch = ignore) -> RunDiff:
    """Do a run of `store` once more, into the store `again`, with the threads it had; compare what was found.

    `options` say where data and plugins are. Raises `UserError` if the run left nothing to compare, or cannot be done
    again here.
    """
    if first.status not in COMPARABLE:
        raise UserError(f"run {first.id} ended as {first.status}: there is nothing to compare. {first.error or ''}")
    answers = _answers(store, first.id)
    _check(first)
    again.open()
    if first.spec.id in again.entries():
        raise UserError(f"store {again.root} has a run {first.spec.id}, which this would replace: name another folder")
    threads = first.settings.get("threads") or first.machine.get("threads") or options.threads
    precisions = {first.spec.model.name: first.base.get("precision", "fp32")}
    launch([first.spec], again, replace(options, workers=1, threads=threads, precisions=precisions), watch)
    second, _ = again.find(first.spec.id)
    if second.status not in COMPARABLE:
        raise _impossible(first, f"{second.status}: {second.error}")
    return compare_runs(first, second, (answers, _answers(again, second.id)))


def _answers(store: Store, id_: str) -> list[dict[str, Any]]:
    try:
        # What else is kept of a row is of the data, and not in older results.
        return [{key: row[key] for key in ("prediction", "references")} for row in store.predictions(id_)]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"run {id_}: its predictions cannot be read, so they cannot be compared: {error}") from error


def _check(first: RunResult) -> None:
    """Raises `UserError` if a unit of the run is not here, or is not the same any more."""
    try:
        here = _versions(first.spec)
    except UnknownNameError as error:
        raise _impossible(first, f"{error} Units of your own need --plugin FILE") from error
    except UserError as error:
        raise _impossible(first, str(error)) from error
    for kind, version in here.items():
        choice = getattr(first.spec, kind)
        if version != choice.version:
            changed = f"{kind} {choice} has changed: it was version {choice.version} and is version {version}"
            raise _impossible(first, changed)


def _versions(spec: RunSpec) -> dict[str, int | str]:
    """The versions that the units of a run have here."""
    return {
        "model": at(spec.model.name, spec.model.version).version,
        "method": METHODS[spec.method.name].facts.version,
        "task": resolve(spec.task.name, spec.task.arguments).facts.version,
    }


def _impossible(first: RunResult, why: str) -> UserError:
    return UserError(f"run {first.id} cannot be reproduced here: {why}")
