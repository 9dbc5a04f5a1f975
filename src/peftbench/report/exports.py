"""Export of runs: tables, LaTeX, figures, the schema of peft's method comparison, model cards."""

import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.core.files import write_atomically
from peftbench.core.jsonable import to_json
from peftbench.core.provenance import slug
from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult
from peftbench.results.store import NAME_LENGTH, Store

if TYPE_CHECKING:
    import pandas as pd


def _csv(table: "pd.DataFrame") -> bytes:
    from peftbench.report.tables import csv_text

    rows = table["row_scores"].map(lambda held: " ".join(f"{score:g}" for score in held), na_action="ignore")
    return csv_text(table.assign(row_scores=rows)).encode()


def _parquet(table: "pd.DataFrame") -> bytes:
    # A size is a number or "all", and a Parquet column has one type.
    held = io.BytesIO()
    table.astype({"size": str}).to_parquet(held, index=False, engine="pyarrow")
    return held.getvalue()


def _latex(table: "pd.DataFrame") -> bytes:
    from peftbench.report.latex import latex
    from peftbench.studies.leaderboard import leaderboards
    from peftbench.studies.study_input import printable

    return latex(leaderboards(printable(table))).encode()


def _peft(result: RunResult) -> bytes:
    from peftbench.results.published.peft_results import peft_result

    # JSON has no numbers for losses that are not finite.
    return (json.dumps(to_json(peft_result(result)), indent=2, allow_nan=False) + "\n").encode()


def _figures(place: Store, results: Collection[str]) -> Iterator[tuple[str, bytes]]:
    from peftbench.report import figures
    from peftbench.studies._pscp_weights import weight_sets
    from peftbench.studies.study_input import run_data

    return figures.files(run_data(place.table(results), place.curves(results), weight_sets(())))


def _model_index(result: RunResult) -> bytes | None:
    from peftbench.report.hub_model_card import model_index

    text = model_index(result)
    return None if text is None else text.encode()


TABLES: dict[str, Callable[["pd.DataFrame"], bytes]] = {"csv": _csv, "parquet": _parquet, "latex": _latex}
"""Formats with one file for all runs."""
EACH: dict[str, tuple[str, Callable[[RunResult], bytes | None]]] = {
    "peft": (".json", _peft),
    "model-index": (".yaml", _model_index),
}
"""Formats with one file per run in a folder; `None` instead of bytes means that the run cannot be exported."""
FIGURES = "figures"
"""Format for a folder with the figures of a report."""
FORMATS = (*TABLES, FIGURES, *EACH)
ENDINGS = {".csv": "csv", ".parquet": "parquet", ".tex": "latex"}


def export_runs(place: Store, to: Path, form: str | None = None, ids: Iterable[str] | None = None) -> list[Path]:
    """Write the runs of a store, or those of `ids`, in a format; each file is written atomically.

    Args:
        place: the store.
        to: the file, or the folder of `figures`, `peft` and `model-index`.
        form: one of `FORMATS`; by default chosen by the extension of `to`.
        ids: ids of the runs; by default all runs.

    Raises:
        UserError: the format is unknown or cannot be inferred from the extension; there are no runs, or nothing to
            draw; a file cannot be written.
    """
    chosen = _format(to, form)
    wanted = None if ids is None else set(ids)
    results = {k: r for k, (r, _) in place.results().items() if wanted is None or k in wanted}
    if not results:
        raise UserError(f"store {place.root}: no results to export; run a grid first")
    if chosen in TABLES:
        texts = {to: TABLES[chosen](place.table(results))}
    elif chosen == FIGURES:
        texts = {to / name: content for name, content in _figures(place, results)}
        if not texts:
            raise UserError(f"store {place.root}: no figure can be drawn from these runs")
    else:
        ending, write = EACH[chosen]
        # Search trials are not results of a method; they are exported in tables only.
        runs = [result for result in results.values() if result.spec.trial is None]
        made = ((to / f"{_name(result)}{ending}", write(result)) for result in runs)
        texts = {path: text for path, text in made if text is not None}
        if not texts:
            raise UserError(f"store {place.root}: no run has a score, and {chosen} contains only scores")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{to}: cannot be written: {error.strerror}; give another place with --to") from None
    return list(texts)


def _format(to: Path, form: str | None) -> str:
    if form is None and to.suffix not in ENDINGS:
        raise UserError(f"{to}: the format cannot be inferred from the extension; give --format: {', '.join(FORMATS)}")
    chosen = form or ENDINGS[to.suffix]
    if chosen not in FORMATS:
        raise UserError(f"unknown format '{chosen}': known: {', '.join(FORMATS)}")
    return chosen


def _name(result: RunResult) -> str:
    spec = result.spec
    return f"{slug(f'{spec.model_name}-{spec.method}-{spec.task}')[:NAME_LENGTH]}-n{spec.size}-s{spec.seed}-{result.id}"
