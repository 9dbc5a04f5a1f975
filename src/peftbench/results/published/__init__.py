"""Figures that others published, as data with their sources: to stand beside one's own rows, never among them.

    <store>/published/<name>.csv

A file has one row a score, with the fields of `Published` as columns. Those in this folder come with the package; the
results of the method comparison of `peft` are read by `peftbench.results.published.peft_results`.
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
from peftbench.core.safe_text import problem
from peftbench.core.spec import Noun
from peftbench.results.schema import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "published"
"""Where a store keeps them, and the status of their rows in a table."""
HERE = Path(__file__).parent


class Published(Noun):
    """One published score. `None` or empty: not published.

    Costs under the names of `peftbench.core.spec.Costs` are the same thing, measured by others; what they define
    otherwise has a name of its own.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    source: str = Field(min_length=1, description="where it was published")
    model: str = Field(min_length=1)
    method: str = Field(min_length=1, description="our name where it is the same thing, else theirs")
    method_arguments: str = Field("", description="as in the table of runs, where known")
    published_as: str = Field("", description="what the source calls the method or the experiment")
    task: str = Field(min_length=1, description="our name where it is the same test, else theirs")
    metric: str = Field(min_length=1, description="in the words of the source")
    score: float = Field(ge=-100, le=100, description="on a 0 to 100 scale")
    train_data: str = Field("", description="where it is other than the task's own")
    seed: int | None = None
    learning_rate: float | None = None
    machine: str = ""
    date: str = ""
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    extra_forward_flops_512: int | None = None
    train_seconds: float | None = Field(None, description="sum of training steps alone")
    train_phase_seconds: float | None = Field(None, description="all of their training phase but validation")
    peak_memory_bytes: int | None = None
    memory_reserved_max_bytes: int | None = Field(None, description="by the GPU's allocator, in the whole run")
    memory_reserved_p99_bytes: int | None = Field(None, description="99th percentile over training steps")
    adapter_bytes: int | None = None
    forgetting_loss: float | None = Field(None, description="rise of the loss on general text")

    @property
    def called(self) -> str:
        """The method with its arguments."""
        return f"{self.method}({self.method_arguments})" if self.method_arguments else self.method


@dataclass
class Gathered:
    """What was found to import: rows by the name of the file that will hold them, and why others were left out."""

    rows: dict[str, list[Published]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def bundled() -> dict[str, Path]:
    """The files that come with the package, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.csv"))}


def gather(names: Iterable[str]) -> Gathered:
    """Read figures: by the name of a bundled file, from a CSV of `Published`, from results of `peft`, or from a folder
    of either. Nothing is written. Raises `UserError` for what is none of these.
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
            raise UserError(f"{path} has no .json or .csv: give the folder of the results themselves")
        return files
    if path.is_file():
        return [path]
    if path.suffix or path.parent != Path():
        raise UserError(f"{path} is not there")
    raise did_you_mean("published evidence", name, list(bundled()))


def _add_file(path: Path, found: Gathered) -> None:
    rows, name = read_published(path), slug(path.stem)
    if found.rows.get(name, rows) != rows:
        raise UserError(f"{path}: another file of this name is imported as well, with other figures: rename one")
    found.rows[name] = rows


def _add_result(path: Path, found: Gathered) -> None:
    from peftbench.results.published import peft_results

    row = peft_results.read_result_file(path)
    if isinstance(row, str):
        found.left_out.append(f"{path}: {row}")
        return
    name = _result_name(row)
    held = found.rows.get(name, [row])[0]
    # Results of several dates may lie side by side; in whatever order they are read, the latest stands.
    found.rows[name] = [max(held, row, key=lambda one: one.date)]


def _result_name(row: Published) -> str:
    what = (row.source, row.model, row.published_as, row.called, row.task, row.metric, row.seed, row.machine)
    return f"{slug(row.published_as)[:80]}-{hashlib.sha256(repr(what).encode()).hexdigest()[:8]}"


def read_published(path: Path) -> list[Published]:
    """The rows of a CSV of `Published`. Raises `UserError` with the line that is wrong."""
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
    return UserError(f"{path} is no file of published figures: {why}. It needs the columns {columns}")


def as_csv(rows: Iterable[Published]) -> str:
    """Rows as the text of a file; columns that no row fills are left out."""
    plain = [row.model_dump(exclude_none=True, exclude_defaults=True) for row in rows]
    used = [name for name in Published.model_fields if any(name in row for row in plain)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()


def keep_published(store: Path, found: Gathered) -> list[Path]:
    """Write what was gathered into a store, each file by atomic rename; the same again changes nothing."""
    folder = Path(store) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, rows in found.rows.items():
        path = folder / f"{name}.csv"
        write_atomically(path, as_csv(rows).encode())
        paths.append(path)
    return paths


def kept_published(store: Path) -> tuple[list[Published], dict[Path, str]]:
    """All published rows of a store, in the order of their files; and why, by file, those that cannot be read."""
    rows, damaged = list[Published](), dict[Path, str]()
    for path in sorted((Path(store) / FOLDER).glob("*.csv")):
        try:
            rows += read_published(path)
        except UserError as error:
            damaged[path] = str(error).removeprefix(f"{path} ")
    return rows, damaged


def published_frame(rows: Iterable[Published]) -> "pd.DataFrame":
    """The rows in the columns of `Store.table`, status `published`, with those columns that runs do not have."""
    import pandas as pd

    lines = [_line(row) for row in rows]
    columns = [*COLUMNS, *(name for name in Published.model_fields if name not in COLUMNS)]
    return pd.DataFrame(lines, columns=columns)


def _line(row: Published) -> dict[str, Any]:
    digest = hashlib.sha256(row.model_dump_json().encode()).hexdigest()[:12]
    told = {"id": f"{FOLDER}-{digest}", "status": FOLDER, "machine_class": slug(row.machine) if row.machine else None}
    return row.model_dump() | told
