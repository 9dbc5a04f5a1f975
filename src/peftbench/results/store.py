"""Results on disk: what is there, what is missing, one table of all.

    <store>/<machine class>/<model>/<method>/<task>/n<size>-s<seed>-<id>/
        spec.json  trace.jsonl  predictions.jsonl.gz  error.txt  output.txt  result.json  adapter/ (if kept)
    <store>/.work/<id>-<owner>/    a run under way, or what a process that died left of it
    <store>/.claims/<id>           which process is doing a run (`peftbench.results.claims`)

A run is written in its work folder, which is then renamed to its place: a folder with `result.json` is whole, and its
existence means done. It has digests of all files of the run (`peftbench.results.digests`), which are checked when
results are read. Plain files diff, merge and survive.
"""

import contextlib
import difflib
import errno
import gzip
import io
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core import provenance
from peftbench.core.files import parse_json, read_bytes, sync, write_atomically
from peftbench.core.registry import UserError
from peftbench.core.spec import SCHEMA, Latency, RunResult, RunSpec, Score
from peftbench.metrics import bounds
from peftbench.results.claims import Owner, myself, read_owner, write_owner
from peftbench.results.digests import RESULT, DamagedError, Verified, seal, unseal
from peftbench.results.schema import COLUMNS, LATENCIES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

OWNER = "owner.json"
OLD = ".old"
"""How the name of a result's folder ends while its successor takes its place."""
FORGOTTEN = 86400.0
"""Seconds after which a work folder is removed that nobody has written to, where its owner cannot be looked up."""
Stamps = frozenset[tuple[str, int, int]]
"""Which undamaged results there are of a run: path of the result file, inode, time of writing."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}
"""From the shape of a schema number to that of the next; applied in order to older results."""
ROUNDING = 1e-5
"""By how much the mean of row scores may differ from the score, relative to the largest of them."""
NAME_LENGTH = 100
"""Many arguments make a long name, and file systems take 255 bytes; the id tells runs apart."""


class Store:
    """A folder of results. Reading never writes. Of a run that several processes do, the first to finish is kept.

    `owner`: the process in whose name runs are written; by default this one. `snapshot`: the results are read once and
    kept, for commands that write none.
    """

    def __init__(self, root: Path, owner: Owner | None = None, *, snapshot: bool = False) -> None:
        self.root, self.snapshot = Path(root), snapshot
        self._kept: dict[str, tuple[RunResult, Path]] | None = None
        self.damaged: dict[Path, str] = {}
        """Files that are not what was written, and why, found by the last look at the store. Their runs count as
        missing.
        """
        self._owner = owner
        self._before: dict[Path, Stamps] = {}
        """By work folder: the results of its run that were there when it was begun, which it replaces."""

    @property
    def owner(self) -> Owner:
        self._owner = self._owner or myself()
        return self._owner

    def open(self) -> None:
        """Make the folder and prove that it can be written. Raises `UserError`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{self.owner.token}"
            probe.write_text("x" * 4096)
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store {self.root}: cannot be written: {error.strerror}. Give another with --store DIR or make room"
            ) from error

    def folder(self, spec: RunSpec, machine_class: str | None = None) -> Path:
        """Where the result of a run is on a machine, by default on this one."""
        names = (spec.model_name, str(spec.method), str(spec.task))
        place = Path(
            machine_class or provenance.machine_class(), *(provenance.slug(name)[:NAME_LENGTH] for name in names)
        )
        return self.root / place / _leaf(spec)

    def work(self, spec: RunSpec) -> Path:
        """Where this owner writes a run until it is done."""
        return self.root / ".work" / f"{spec.id}-{self.owner.token}"

    def begin(self, spec: RunSpec, keep: bool = False) -> Path:
        """An empty work folder for a run, with its `spec.json`; with `keep`, what this owner has written stays."""
        folder = self.work(spec)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_owner(folder / OWNER, self.owner)
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1, exclude_none=True) + "\n")
        self._before[folder] = self.stamps(spec)
        return folder

    def finish(
        self,
        folder: Path,
        result: RunResult,
        predictions: Sequence[dict[str, Any]],
        machine_class: str | None = None,
    ) -> Path:
        """Write predictions, then the result, and rename the work folder to its place, which is returned.

        What was there when the run was begun is replaced, and stays until the new result is there; a corrupt result is
        kept beside, as `<folder>.<number>.corrupt`. A result that came meanwhile stays, and this one is removed.
        """
        target = self.folder(result.spec, machine_class)
        write_predictions(folder, predictions)
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in folder.rglob("*"):
            sync(path)
        (folder / OWNER).unlink(missing_ok=True)
        _write_result(folder, result)
        before = self._before.pop(folder, frozenset())
        while not self._publish(folder, target, before):
            pass
        return target

    def _publish(self, folder: Path, target: Path, before: Stamps) -> bool:
        """Rename a finished work folder to its place; false if something came between."""
        old = target.with_name(target.name + OLD)
        if target.exists():
            there = self._stamps([target / RESULT])
            if there - before:
                shutil.rmtree(folder, ignore_errors=True)
                return True
            if there:
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            elif (target / RESULT).exists():
                kept = len(list(target.parent.glob(f"{target.name}.*.corrupt")))
                target.rename(target.with_name(f"{target.name}.{kept + 1}.corrupt"))
            else:
                left = folder.with_name(f"{folder.name}.left")
                target.rename(left)
                shutil.rmtree(left, ignore_errors=True)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        return True

    def abandon(self, spec: RunSpec) -> None:
        """Remove what this owner left of an unfinished run."""
        shutil.rmtree(self.work(spec), ignore_errors=True)

    def clean(self) -> None:
        """Remove what processes that have died left of their runs."""
        for folder in self.root.glob(".work/*"):
            owner = read_owner(folder / OWNER)
            with contextlib.suppress(OSError):
                forgotten = time.time() - folder.stat().st_mtime > FORGOTTEN
                if owner.dead if owner and owner.here else forgotten:
                    shutil.rmtree(folder, ignore_errors=True)

    def stamps(self, spec: RunSpec) -> Stamps:
        """The undamaged results of a run, of all machine classes."""
        names = (provenance.slug(name)[:NAME_LENGTH] for name in (spec.model_name, str(spec.method), str(spec.task)))
        return self._stamps(self.root.glob("/".join(["*", *names, _leaf(spec), RESULT])))

    def _stamps(self, files: Iterable[Path]) -> Stamps:
        found, verified = set(), Verified(self.root)
        for path in files:
            with contextlib.suppress(OSError, DamagedError):
                stat = path.stat()
                read_result(path, verified)
                found.add((str(path), stat.st_ino, stat.st_mtime_ns))
        return frozenset(found)

    def results(self) -> dict[str, tuple[RunResult, Path]]:
        """Every undamaged result with its folder, by run id. Of several machine classes, the first that ended well."""
        if self._kept is not None:
            return self._kept
        self.damaged = {}
        found: dict[str, tuple[RunResult, Path]] = {}
        for path, result in self.scan():
            if isinstance(result, DamagedError):
                self.damaged[result.path] = result.why
                continue
            held = found.get(result.id)
            if held is None or (held[0].status != "ok" and result.status == "ok"):
                found[result.id] = (result, path.parent)
        if self.snapshot:
            self._kept = found
        return found

    def scan(self, reread: bool = False) -> Iterator[tuple[Path, RunResult | DamagedError]]:
        """The path of every result file, with the result or what is wrong with it or another file of its folder.

        With `reread`, every byte of every file is checked, also of files that have not changed since the last check.
        """
        verified = Verified(self.root, fresh=reread)
        for path in self.paths():
            try:
                yield path, read_result(path, verified)
            except DamagedError as error:
                yield path, error
        verified.remember()

    def paths(self) -> list[Path]:
        """All result files, damaged ones that were put aside left out."""
        found = sorted(self.root.glob(f"*/*/*/*/*/{RESULT}"))
        return [path for path in found if not path.parent.name.endswith(".corrupt")]

    def rescore(self, result: RunResult, folder: Path, scored: Mapping[str, Any]) -> None:
        """Put other scores into the result of a run: fields of `RunResult` that scoring its answers gives."""
        _write_result(folder, result.model_copy(update=dict(scored)))

    def missing(self, specs: Iterable[RunSpec], retry: Sequence[str] = ()) -> list[RunSpec]:
        """The specs without a result; with `retry`, also those whose result has one of these statuses."""
        done = {id_ for id_, (result, _) in self.results().items() if result.status not in retry}
        return [spec for spec in specs if spec.id not in done]

    def predictions(self, id_: str) -> list[dict[str, Any]]:
        """The answers of a run: prediction and references, one a test row."""
        return read_predictions(self.find(id_)[1])

    def find(self, prefix: str, results: Mapping[str, tuple[RunResult, Path]] | None = None) -> tuple[RunResult, Path]:
        """The result whose id starts with `prefix`, in the store or among `results` that have been read from it.

        Raises `UserError` if there is none or more than one.
        """
        results = self.results() if results is None else results
        found = [id_ for id_ in results if id_.startswith(prefix)]
        if not found:
            for path, why in self.damaged.items():
                if (id_ := self._id_of(path)).startswith(prefix):
                    raise UserError(f"{path}: {why}. Run {id_} counts as missing: give the command of its grid again")
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            hint = ", ".join(found[:3]) + ", ..." * (len(found) > 3) if found else _nearest(prefix, list(results))
            raise UserError(f"store {self.root}: {what} with an id that starts with '{prefix}': {hint}")
        return results[found[0]]

    def _id_of(self, path: Path) -> str:
        """The id of the run that a file belongs to, by the name of its folder."""
        return path.relative_to(self.root).parts[4].rpartition("-")[2]

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


def read_result(path: Path, verified: Verified | None = None) -> RunResult:
    """A result of any schema up to today's, checked against its digests, with those of the other files by `verified`.

    Raises `DamagedError` for a file that is no result, or is not what was written.
    """
    content, files = unseal(path, SCHEMA)
    try:
        for schema in range(content.get("result_schema", 1), SCHEMA):
            content = UPGRADES[schema](content) | {"result_schema": schema + 1}
        result = RunResult.model_validate(content)
        check_consistent(result)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(path, f"it is not a result: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    if verified is not None:
        verified.check(path.parent, files)
    return result


def check_consistent(result: RunResult) -> None:
    """Raises `ValueError` for a result that contradicts itself.

    Its id is that of its spec; scores are finite and within the bounds of their metric; the main score is the mean of
    the scores of rows.
    """
    if result.id != result.spec.id:
        raise ValueError(f"its id is {result.id}, and that of its content is {result.spec.id}")
    for name, score in result.scores.items():
        lowest, highest = bounds(name)
        if score.value is not None and not (math.isfinite(score.value) and lowest <= score.value <= highest):
            raise ValueError(f"its {name} is {score.value}")
    main = next(iter(result.scores.values()), None)
    if result.row_scores and main is not None and main.value is not None:
        rows = [row for row in map(float, result.row_scores.split()) if not math.isnan(row)]
        # Written with six digits.
        if not rows or abs(sum(rows) / len(rows) - main.value) > ROUNDING * max(1.0, *map(abs, rows)):
            raise ValueError(f"its score is {main.value}, and that of its rows is another")


def _write_result(folder: Path, result: RunResult) -> None:
    write_atomically(folder / RESULT, seal(json.loads(result.model_dump_json(exclude_none=True)), folder))


def write_predictions(folder: Path, predictions: Sequence[dict[str, Any]]) -> None:
    """Write the answers of the run in a folder, one line a test row."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    # No time stamp: the same predictions are the same file.
    write_atomically(folder / "predictions.jsonl.gz", gzip.compress(lines.encode(), mtime=0))


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The answers of the run in a folder, one a test row: prediction, references and what else metrics need.

    Raises `DamagedError`.
    """
    path = folder / "predictions.jsonl.gz"
    try:
        with gzip.open(io.BytesIO(read_bytes(path)), "rt", encoding="utf-8") as lines:
            return [parse_json(line) for line in lines]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DamagedError(path, f"it cannot be read: {error}") from error


def _leaf(spec: RunSpec) -> str:
    return f"n{spec.size}-s{spec.seed}-{spec.id}"


def _nearest(prefix: str, ids: list[str]) -> str:
    cut = {id_[: len(prefix)]: id_ for id_ in ids}
    near = difflib.get_close_matches(prefix, cut, n=1)
    return f"did you mean '{cut[near[0]]}'?" if near else "`peftbench list runs` has those there are"


AS_FOUND = "status chance invalid_share validation_loss learning_rate best_step steps base_reloaded".split()
"""Columns that are fields of a result."""


def table_row(result: RunResult, folder: Path) -> dict[str, Any]:
    """A result as a row of the table."""
    spec, scores = result.spec, result.scores
    main, score = next(iter(scores.items()), (None, Score()))
    return {
        "id": result.id,
        "machine_class": folder.parents[3].name,
        "model": spec.model_name,
        "model_source": spec.model.name,
        "model_version": str(spec.model.version),
        "method": spec.method.called or spec.method.name,
        "method_version": str(spec.method.version),
        "method_arguments": arguments_text(spec.method.shown),
        "task": spec.task.called or spec.task.name,
        "task_version": str(spec.task.version),
        "fingerprint": result.data.fingerprint if result.data else None,
        "evaluation": arguments_text(
            spec.eval.model_dump(mode="json", exclude_defaults=True, exclude={"retention_text"})
        ),
        "task_arguments": arguments_text(spec.task.asked),
        "size": spec.size,
        "seed": spec.seed,
        **_searched(spec),
        "training": arguments_text(spec.train.model_dump(mode="json", exclude_defaults=True)),
        **{name: getattr(result, name) for name in AS_FOUND},
        "metric": main,
        "metric_version": str(score.version) if main else None,
        "score": score.value,
        "score_error": score.standard_error,
        "row_scores": None if result.row_scores is None else row_scores(result.row_scores),
        "scores": json.dumps({name: each.value for name, each in scores.items()}),
        "merged_score": result.merged.scores[main].value if result.merged and main else None,
        "merged_logit_difference": result.merged.max_logit_difference if result.merged else None,
        **_made(result),
        "data": f"{result.data.source} {result.data.revision or ''}".strip() if result.data else None,
        "truncated_share": result.data.truncated_share if result.data else None,
        "data_remarks": json.dumps(result.data.remarks) if result.data else None,
        "notes": "; ".join(result.notes),
        "error": result.error or score.why,
        **result.costs.model_dump(),
        **_latencies(result),
    }


def row_scores(text: str) -> "NDArray[np.float64]":
    """The scores of test rows from the text that a result has of them."""
    import numpy as np

    return np.array(text.split(), dtype=float)


def _made(result: RunResult) -> dict[str, Any]:
    """How the run was made: settings that are not found elsewhere, rows, precision, how many workers ran beside it."""
    train, counts = result.spec.train, ("train_rows", "validation_rows", "test_rows", "truncated_rows")
    return {
        "epochs": None if train.max_steps > 0 else train.num_train_epochs,
        "batch_size": train.per_device_train_batch_size,
        "accumulation": train.gradient_accumulation_steps,
        **{name: getattr(result.data, name, None) for name in counts},
        "precision": result.base.get("precision"),
        "workers": result.settings.get("workers"),
    }


def _searched(spec: RunSpec) -> dict[str, Any]:
    """Which trial of a search a run is, if it is one, and what the search gave to arguments of the method."""
    given = {name: spec.method.arguments.get(name, "default") for name in spec.method.tuned}
    number, search = (None, "") if spec.trial is None else (spec.trial.number, spec.trial.search)
    return {"trial": number, "search": search, "tuned": arguments_text(given)}


def _latencies(result: RunResult) -> dict[str, float | None]:
    measured = zip_longest(LATENCIES, result.latency)
    found = {"latency_ms": result.latency[0].median_ms if result.latency else None}
    return found | {f"{at}_{name}": getattr(each, name, None) for at, each in measured for name in Latency.model_fields}


def arguments_text(arguments: dict[str, Any]) -> str:
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
