"""Results on disk: what is there, what is missing, one table of all.

    <store>/<machine class>/machine.json
    <store>/<machine class>/<model>/<method>/<task>/n<size>-s<seed>-<id>/
        spec.json  trace.jsonl  predictions.jsonl.gz  error.txt  result.json  adapter/ (if kept)

`result.json` is written last and by atomic rename: its existence means done. Plain files diff, merge and survive.
"""

import difflib
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench import machine
from peftbench.registry import UserError
from peftbench.spec import SCHEMA, Costs, Latency, RunResult, RunSpec, Score

if TYPE_CHECKING:
    import pandas as pd

RESULT = "result.json"
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From the shape of a schema number to that of the next; applied in order to older results."""
NAME_LENGTH = 100
"""Many arguments make a long name, and file systems take 255 bytes; the id tells runs apart."""


class Store:
    """A folder of results. Reading never writes; a run is written by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.corrupt: list[Path] = []
        """Result files that could not be read, found by the last look at the store. Their runs count as missing."""

    def open(self) -> None:
        """Make the folder and prove that it can be written. Raises `UserError`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_text("x" * 4096)
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store {self.root}: cannot be written: {error.strerror}. Give another with --store DIR or make room"
            ) from error

    def folder(self, spec: RunSpec) -> Path:
        """Where a run is written on this machine."""
        names = (spec.model_name, str(spec.method), str(spec.task))
        place = Path(machine.machine_class(), *(machine.slug(name)[:NAME_LENGTH] for name in names))
        return self.root / place / f"n{spec.size}-s{spec.seed}-{spec.id}"

    def begin(self, spec: RunSpec) -> Path:
        """An empty folder for a run, with its `spec.json`. What was there is removed; a corrupt result is kept beside,
        as `<folder>.<number>.corrupt`.
        """
        folder = self.folder(spec)
        if (folder / RESULT).exists() and not _readable(folder / RESULT):
            kept = len(list(folder.parent.glob(f"{folder.name}.*.corrupt")))
            folder.rename(folder.with_name(f"{folder.name}.{kept + 1}.corrupt"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1, exclude_none=True) + "\n")
        return folder

    def finish(self, folder: Path, result: RunResult, predictions: Sequence[dict[str, Any]]) -> None:
        """Write predictions, then the result by atomic rename."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
        # No time stamp: the same predictions are the same file.
        write_atomically(folder / "predictions.jsonl.gz", gzip.compress(lines.encode(), mtime=0))
        if result.machine:
            facts = json.dumps(result.machine, indent=1) + "\n"
            write_atomically(folder.parents[3] / "machine.json", facts.encode())
        text = result.model_dump_json(indent=1, exclude_none=True) + "\n"
        write_atomically(folder / RESULT, text.encode())

    def abandon(self, spec: RunSpec) -> None:
        """Remove what an unfinished run left."""
        for folder in self.root.glob(f"*/*/*/*/*-{spec.id}"):
            if not (folder / RESULT).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def results(self) -> dict[str, tuple[RunResult, Path]]:
        """Every readable result with its folder, by run id. Of several machine classes, the first that ended well."""
        self.corrupt = []
        found: dict[str, tuple[RunResult, Path]] = {}
        for path in sorted(self.root.glob(f"*/*/*/*/*/{RESULT}")):
            if path.parent.name.endswith(".corrupt"):
                continue
            try:
                result = read_result(path)
            except (OSError, ValueError):
                self.corrupt.append(path)
                continue
            held = found.get(result.id)
            if held is None or (held[0].status != "ok" and result.status == "ok"):
                found[result.id] = (result, path.parent)
        return found

    def latest(self, spec: RunSpec) -> RunResult:
        """What a run that has just been done found, whatever its worker takes this machine for."""
        found = self.root.glob(f"*/*/*/*/*-{spec.id}/{RESULT}")
        return read_result(max(found, key=lambda path: path.stat().st_mtime_ns))

    def missing(self, specs: Iterable[RunSpec], retry: Sequence[str] = ()) -> list[RunSpec]:
        """The specs without a result; with `retry`, also those whose result has one of these statuses."""
        done = {id_ for id_, (result, _) in self.results().items() if result.status not in retry}
        return [spec for spec in specs if spec.id not in done]

    def predictions(self, id_: str) -> list[dict[str, Any]]:
        """The answers of a run: prediction and references, one a test row."""
        return read_predictions(self.find(id_)[1])

    def find(self, prefix: str) -> tuple[RunResult, Path]:
        """The result whose id starts with `prefix`. Raises `UserError` if there is none or more than one."""
        results = self.results()
        found = [id_ for id_ in results if id_.startswith(prefix)]
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            hint = ", ".join(found[:3]) + ", ..." * (len(found) > 3) if found else _nearest(prefix, list(results))
            raise UserError(f"store {self.root}: {what} with an id that starts with '{prefix}': {hint}")
        return results[found[0]]

    def table(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """One row a run: what was asked, status, score, every cost. All runs, or those of `ids`."""
        import pandas as pd

        wanted = None if ids is None else set(ids)
        rows = [
            table_row(result, folder)
            for id_, (result, folder) in self.results().items()
            if wanted is None or id_ in wanted
        ]
        frame = pd.DataFrame(rows, columns=COLUMNS)
        return frame.sort_values(
            ["model", "task", "method", "method_arguments", "size", "seed", "id"], ignore_index=True
        )

    def curves(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """Learning curves: one row a validation, with the id of its run."""
        import pandas as pd

        wanted = None if ids is None else set(ids)
        points = [
            {"id": id_, **point.model_dump()}
            for id_, (result, _) in self.results().items()
            if wanted is None or id_ in wanted
            for point in result.curve
        ]
        return pd.DataFrame(points, columns=["id", "step", "tokens", "seconds", "train_loss", "validation_loss"])


def read_result(path: Path) -> RunResult:
    """A result of any schema up to today's. Raises `ValueError` for a file that is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for schema in range(content.get("result_schema", SCHEMA), SCHEMA):
            content = UPGRADES[schema](content) | {"result_schema": schema + 1}
        if content.get("result_schema", SCHEMA) > SCHEMA:
            raise TypeError("it was written by a newer version of peftbench")
        return RunResult.model_validate(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a result: {type(error).__name__}: {str(error).splitlines()[0]}") from error


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The answers of the run in a folder: prediction and references, one a test row."""
    with gzip.open(folder / "predictions.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _nearest(prefix: str, ids: list[str]) -> str:
    cut = {id_[: len(prefix)]: id_ for id_ in ids}
    near = difflib.get_close_matches(prefix, cut, n=1)
    return f"did you mean '{cut[near[0]]}'?" if near else "`peftbench list runs` has those there are"


def _readable(path: Path) -> bool:
    try:
        read_result(path)
    except (OSError, ValueError):
        return False
    return True


LATENCIES = ("latency", "batch_latency")
"""How columns of `RunResult.latency` begin: for one row, for the batch of evaluation."""
COLUMNS = (
    *"id machine_class model model_version method method_version method_arguments task task_version".split(),
    *"task_arguments fingerprint evaluation size seed trial tuned training status metric score score_error".split(),
    *"chance row_scores scores invalid_share validation_loss merged_score merged_logit_difference".split(),
    *"learning_rate best_step steps train_rows data base_reloaded notes error".split(),
    *"truncated_share data_remarks".split(),
    *Costs.model_fields,
    "latency_ms",
    *(f"{at}_{name}" for at in LATENCIES for name in Latency.model_fields),
)
AS_FOUND = "status chance row_scores invalid_share validation_loss learning_rate best_step steps base_reloaded".split()
"""Columns that are fields of a result."""


def table_row(result: RunResult, folder: Path) -> dict[str, Any]:
    """A result as a row of the table."""
    spec, scores = result.spec, result.scores
    main, score = next(iter(scores.items()), (None, Score()))
    return {
        "id": result.id,
        "machine_class": folder.parents[3].name,
        "model": spec.model_name,
        "model_version": str(spec.model.version),
        "method": spec.method.called or spec.method.name,
        "method_version": str(spec.method.version),
        "method_arguments": written(spec.method.shown),
        "task": spec.task.called or spec.task.name,
        "task_version": str(spec.task.version),
        "fingerprint": result.data.fingerprint if result.data else None,
        "evaluation": written(spec.eval.model_dump(mode="json", exclude_defaults=True, exclude={"retention_text"})),
        "task_arguments": written(spec.task.asked),
        "size": spec.size,
        "seed": spec.seed,
        **_searched(spec),
        "training": written(spec.train.model_dump(mode="json", exclude_defaults=True)),
        **{name: getattr(result, name) for name in AS_FOUND},
        "metric": main,
        "score": score.value,
        "score_error": score.standard_error,
        "scores": json.dumps({name: each.value for name, each in scores.items()}),
        "merged_score": result.merged.scores[main].value if result.merged and main else None,
        "merged_logit_difference": result.merged.max_logit_difference if result.merged else None,
        "train_rows": result.data.train_rows if result.data else None,
        "data": f"{result.data.source} {result.data.revision or ''}".strip() if result.data else None,
        "truncated_share": result.data.truncated_share if result.data else None,
        "data_remarks": json.dumps(result.data.remarks) if result.data else None,
        "notes": "; ".join(result.notes),
        "error": result.error or score.why,
        **result.costs.model_dump(),
        **_latencies(result),
    }


def _searched(spec: RunSpec) -> dict[str, Any]:
    """Which trial of a search a run is, if it is one, and what the search gave to arguments of the method."""
    given = {name: spec.method.arguments.get(name, "default") for name in spec.method.tuned}
    return {"trial": None if spec.trial is None else spec.trial.number, "tuned": written(given)}


def _latencies(result: RunResult) -> dict[str, float | None]:
    measured = zip_longest(LATENCIES, result.latency)
    found = {"latency_ms": result.latency[0].median_ms if result.latency else None}
    return found | {f"{at}_{name}": getattr(each, name, None) for at, each in measured for name in Latency.model_fields}


def written(arguments: dict[str, Any]) -> str:
    """Arguments as a column of the table has them: names and JSON values, in the order of the names."""
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(arguments.items()))


def arguments(text: str) -> dict[str, Any]:
    """The arguments in a column of the table: names and JSON values. Raises `ValueError` for another text."""
    found: dict[str, Any] = {}
    decoder, rest = json.JSONDecoder(), text
    while rest:
        name, sign, rest = rest.partition("=")
        if not (sign and name.isidentifier()):
            raise ValueError(f"not arguments: {text}")
        found[name], end = decoder.raw_decode(rest)
        if rest[end : end + 2] not in ("", ", "):
            raise ValueError(f"not arguments: {text}")
        rest = rest[end + 2 :]
    return found


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it there: it is whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
