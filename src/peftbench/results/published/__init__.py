"""Results published by others, with their sources. They are shown separately from measured results.

    <store>/published/<name>.csv

A file has one row per score, with the fields of `Published` as columns. The files in this folder are part of the
package; `peftbench.results.published.peft_results` reads the results of the method comparison of `peft`.
"""

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationError

from peftbench.core.files import read_bytes, write_atomically
from peftbench.core.provenance import slug
from peftbench.core.registry import UserError, did_you_mean
from peftbench.core.spec import Noun
from peftbench.core.text_escaping import problem
from peftbench.results.schema import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "published"
"""Subfolder of a store for published results, and the status of their rows in a table."""
HERE = Path(__file__).parent


class Published(Noun):
    """One published score. `None` or empty: not published.

    Costs with the names of `peftbench.core.spec.Costs` have the same definition; costs with another definition have
    another name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    source: str = Field(min_length=1, description="where it was published")
    model: str = Field(min_length=1)
    method: str = Field(min_length=1, description="peftbench's name if the method is the same, else the source's")
    method_arguments: str = Field("", description="as in the table of runs, if known")
    published_as: str = Field("", description="name of the method or experiment in the source")
    task: str = Field(min_length=1, description="peftbench's name if the test is the same, else the source's")
    metric: str = Field(min_length=1, description="as named by the source")
    score: float = Field(ge=-100, le=100, description="on a scale from 0 to 100")
    train_data: str = Field("", description="training data, if it is not the task's own")
    seed: int | None = None
    learning_rate: float | None = None
    machine: str = ""
    date: str = ""
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    extra_forward_flops_512: int | None = None
    train_seconds: float | None = Field(None, description="sum over the training steps, without validation")
    train_phase_seconds: float | None = Field(None, description="the whole training phase except validation")
    peak_memory_bytes: int | None = None
    memory_reserved_max_bytes: int | None = Field(None, description="reserved by the GPU's allocator, whole run")
    memory_reserved_p99_bytes: int | None = Field(None, description="99th percentile over training steps")
    adapter_bytes: int | None = None
    forgetting_loss: float | None = Field(None, description="rise of the loss on general text")

    @property
    def called(self) -> str:
        """The method with its arguments."""
        return f"{self.method}({self.method_arguments})" if self.method_arguments else self.method


@dataclass
class Gathered:
    """Results to import: rows by the name of their file in the store, and the reasons for omitted files."""

    rows: dict[str, list[Published]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def bundled() -> dict[str, Path]:
    """Return the files that are part of the package, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.csv"))}


def gather(names: Iterable[str]) -> Gathered:
    """Read published results: bundled files (by name), CSV files of `Published`, result files of `peft`, or folders.

    Nothing is written. Raises `UserError` for any other name or file.
    """
    found = Gathered()
    for name in names:
        for path in _files(name):
            if path.suffix == ".csv":
                _add_file(path, found)
            else:
                _add_result(path, found)
    return found


def _files(name: str) -> list[Path]:
    if name in bundled():
        return [bundled()[name]]
    path = Path(name)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".csv", ".json"))
        if not files:
            raise UserError(f"{path} contains no .json or .csv file: give the folder with the result files")
        return files
    if path.is_file():
        return [path]
    if path.suffix or path.parent != Path():
        raise UserError(f"{path} does not exist")
    raise did_you_mean("published evidence", name, list(bundled()))


def _add_file(path: Path, found: Gathered) -> None:
    rows, name = read_published(path), slug(path.stem)
    if found.rows.get(name, rows) != rows:
        raise UserError(f"{path}: another imported file has the same name and different rows: rename one")
    found.rows[name] = rows


def _add_result(path: Path, found: Gathered) -> None:
    from peftbench.results.published import peft_results

    row = peft_results.read_result_file(path)
    if isinstance(row, str):
        found.left_out.append(f"{path}: {row}")
        return
    name = _result_name(row)
    other = found.rows.get(name, [row])[0]
    # A folder may contain results of several dates; the latest is kept, independent of the order.
    found.rows[name] = [max(other, row, key=lambda one: one.date)]


def _result_name(row: Published) -> str:
    what = (row.source, row.model, row.published_as, row.called, row.task, row.metric, row.seed, row.machine)
    return f"{slug(row.published_as)[:80]}-{hashlib.sha256(repr(what).encode()).hexdigest()[:8]}"


def read_published(path: Path) -> list[Published]:
    """Return the rows of a CSV file of `Published`. Raises `UserError` with the number of an invalid row."""
    try:
        lines = list(csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8-sig"), newline=""), strict=True))
        rows = []
        for number, line in enumerate(lines, start=2):
            where = f"row {number}: "
            rows.append(Published.model_validate({key: text for key, text in line.items() if text != ""}))
        if not rows:
            where = ""
            raise ValueError("it has no rows")
    except ValidationError as error:
        raise _unreadable(path, f"{where}column {problem(error)}") from None
    except (OSError, ValueError, csv.Error, TypeError) as error:
        raise _unreadable(path, str(error)) from None
    return rows


def _unreadable(path: Path, why: str) -> UserError:
    columns = ", ".join(name for name, one in Published.model_fields.items() if one.is_required())
    return UserError(f"{path} is not a file of published results: {why}. It needs the columns {columns}")


def as_csv(rows: Iterable[Published]) -> str:
    """Return rows as CSV text; columns that are empty in all rows are left out."""
    plain = [row.model_dump(exclude_none=True, exclude_defaults=True) for row in rows]
    used = [name for name in Published.model_fields if any(name in row for row in plain)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()


def keep_published(store: Path, found: Gathered) -> list[Path]:
    """Write gathered rows to a store, each file atomically, and return the paths. Repeating it changes nothing."""
    folder = Path(store) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, rows in found.rows.items():
        path = folder / f"{name}.csv"
        write_atomically(path, as_csv(rows).encode())
        paths.append(path)
    return paths


def kept_published(store: Path) -> tuple[list[Published], dict[Path, str]]:
    """Return all published rows of a store, in the order of their files, and the reasons for unreadable files."""
    rows, damaged = list[Published](), dict[Path, str]()
    for path in sorted((Path(store) / FOLDER).glob("*.csv")):
        try:
            rows += read_published(path)
        except UserError as error:
            damaged[path] = str(error).removeprefix(f"{path} ")
    return rows, damaged


def published_frame(rows: Iterable[Published]) -> "pd.DataFrame":
    """Return the rows with the columns of `Store.table` and `Published`, and the status `published`."""
    import pandas as pd

    lines = [_line(row) for row in rows]
    columns = [*COLUMNS, *(name for name in Published.model_fields if name not in COLUMNS)]
    return pd.DataFrame(lines, columns=columns)


def _line(row: Published) -> dict[str, Any]:
    digest = hashlib.sha256(row.model_dump_json().encode()).hexdigest()[:12]
    added = {"id": f"{FOLDER}-{digest}", "status": FOLDER, "machine_class": slug(row.machine) if row.machine else None}
    return row.model_dump() | added
